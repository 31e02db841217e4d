"""Running cutoffs as pure functions: what the Flax layers keep as state that choose the largest in training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from softbin.adapters.running_thresholds import average_in
from softbin.arguments import check_floating, check_mask, computed_in, groups_along
from softbin.budgets import Share
from softbin.hard_choices import binary_argmax, cutoff
from softbin.routing import check_router


class RunningCutoffs(NamedTuple):
    """An exponential average of the cutoffs of the batches so far, without the bias of its start, in float32.

    Attributes:
      cutoffs: of the choices; `-inf` before any batch, which takes all.
      weight: `1 - momentum^t` after `t` batches that determined a cutoff.
    """

    cutoffs: Float[Array, "..."]
    weight: Float[Array, "..."]


def initial_cutoffs(shape: tuple[int, ...]) -> RunningCutoffs:
    """Before any batch."""
    return RunningCutoffs(jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.float32))


def keep_largest(
    values, k, running: RunningCutoffs, momentum, *, axis, where, axis_name, batch_axis_name
) -> tuple[Array, RunningCutoffs]:
    """The `k` largest of each group, zeros elsewhere, and the average with their cutoffs.

    All of a group that has not so many entries are kept. A group that is chosen none or all of says nothing about the
    cutoff. Where there are more groups than cutoffs, the mean of their cutoffs counts.
    """
    groups = _checked(values, running, axis, where)
    values = jnp.asarray(values)
    if where is not None and not isinstance(k, Share):
        count = jnp.sum(jnp.broadcast_to(where, values.shape), groups, dtype=jnp.int32)
        k = jnp.minimum(jnp.asarray(k, jnp.int32), count if axis_name is None else lax.psum(count, axis_name))
    settings = {"axis": axis, "where": where, "axis_name": axis_name}
    chosen = binary_argmax(values, k, **settings)
    kept = jnp.where(chosen > 0, values, 0 * chosen)  # NaN where the choice is

    found = cutoff(lax.stop_gradient(values), k, **settings).astype(jnp.float32)
    over = tuple(range(found.ndim - running.cutoffs.ndim))
    finite = jnp.isfinite(found)
    count = jnp.sum(finite, over, dtype=jnp.float32)
    count = count if batch_axis_name is None else lax.psum(count, batch_axis_name)
    now = jnp.sum(jnp.where(finite, found, 0) / jnp.maximum(count, 1), over)
    now = now if batch_axis_name is None else lax.psum(now, batch_axis_name)
    before = jnp.where(running.weight > 0, running.cutoffs, 0)
    average, weight = average_in(before, running.weight, now, count > 0, momentum)
    return kept, RunningCutoffs(jnp.where(weight > 0, average, -jnp.inf), weight)


def keep_above(values, running: RunningCutoffs, *, axis, where) -> Array:
    """The values above the cutoffs, and NaN; zeros elsewhere."""
    axes = _checked(values, running, axis, where)
    values = jnp.asarray(values)
    shape = tuple(size for place, size in enumerate(values.shape) if place not in axes)
    dtype = computed_in(values)
    cutoffs = jnp.expand_dims(jnp.broadcast_to(running.cutoffs, shape), axes).astype(dtype)
    above = ~(values.astype(dtype) <= cutoffs)
    return jnp.where(above if where is None else above & where, values, 0)


def _checked(values, running: RunningCutoffs, axis, where) -> tuple[int, ...]:
    """The axes of the groups."""
    check_floating("x", values)
    check_mask(where)
    axes = groups_along(axis, values, name="x").axes
    groups = tuple(size for place, size in enumerate(jnp.shape(values)) if place not in axes)
    shape = running.cutoffs.shape
    if groups[len(groups) - len(shape) :] != shape:
        raise ValueError(f"groups with shape {groups} do not fit cutoffs with shape {shape}")
    return axes


def gates(logits, bias, k, *, where) -> Array:
    """The softmax over the `k` experts with the largest `logits + bias`; 0 for the others and for masked tokens."""
    check_router(logits, bias, k, where)
    logits = jnp.asarray(logits)
    if where is not None:
        where = jnp.asarray(where)[..., None]
        logits = jnp.where(where, logits, 0)
    dtype = computed_in(logits)
    chosen = binary_argmax(lax.stop_gradient(logits.astype(dtype) + bias.astype(dtype)), k)
    shares = jax.nn.softmax(logits, where=chosen > 0)
    shares = jnp.where(jnp.isnan(chosen), chosen.astype(shares.dtype), shares)
    return shares if where is None else jnp.where(where, shares, 0)
