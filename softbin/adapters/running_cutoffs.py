"""Running cutoffs as pure functions: what the Flax layers keep as state that choose the largest in training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from softbin.adapters.running_thresholds import average_in
from softbin.arguments import groups_along
from softbin.hard_choices import binary_argmax, cutoff


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
    values, k, running: RunningCutoffs, momentum, *, axis, where, axis_name
) -> tuple[Array, RunningCutoffs]:
    """The `k` largest of each group, zeros elsewhere, and the average with their cutoffs.

    A group that is chosen none or all of says nothing about the cutoff. Where there are more groups than cutoffs, the
    mean of their cutoffs counts.
    """
    values = jnp.asarray(values)
    settings = {"axis": axis, "where": where, "axis_name": axis_name}
    chosen = binary_argmax(values, k, **settings)
    found = cutoff(lax.stop_gradient(values), k, **settings).astype(jnp.float32)
    _check_shape(found.shape, running)
    over = tuple(range(found.ndim - running.cutoffs.ndim))
    finite = jnp.isfinite(found)
    count = jnp.sum(finite, over)
    now = jnp.sum(jnp.where(finite, found, 0), over) / jnp.maximum(count, 1)
    before = jnp.where(running.weight > 0, running.cutoffs, 0)
    average, weight = average_in(before, running.weight, now, count > 0, momentum)
    average = jnp.where(weight > 0, average, -jnp.inf)
    return jnp.where(chosen > 0, values, 0 * chosen), RunningCutoffs(average, weight)


def keep_above(values, running: RunningCutoffs, *, axis, where) -> Array:
    """The values above the cutoffs, zeros elsewhere."""
    values = jnp.asarray(values)
    axes = groups_along(axis, values).axes
    shape = tuple(size for place, size in enumerate(values.shape) if place not in axes)
    _check_shape(shape, running)
    above = values > jnp.expand_dims(jnp.broadcast_to(running.cutoffs, shape), axes)
    return jnp.where(above if where is None else above & where, values, 0)


def _check_shape(groups: tuple[int, ...], running: RunningCutoffs) -> None:
    shape = running.cutoffs.shape
    if groups[len(groups) - len(shape) :] != shape:
        raise ValueError(f"groups with shape {groups} do not fit cutoffs with shape {shape}")


def gates(logits, bias, k, *, where) -> Array:
    """The softmax over the `k` experts with the largest `logits + bias`; 0 for the others and for masked tokens."""
    logits = jnp.asarray(logits)
    chosen = binary_argmax(lax.stop_gradient(logits.astype(bias.dtype) + bias), k)
    shares = jax.nn.softmax(logits, where=chosen != 0)
    return shares if where is None else jnp.where(where[..., None], shares, 0)
