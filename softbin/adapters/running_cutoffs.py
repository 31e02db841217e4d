"""Running cutoffs as pure functions: what the Flax layers keep as state that choose the largest in training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from softbin._engine import meshes
from softbin._engine.arguments import Count, as_computed, checked_count, groups_along
from softbin._engine.checks import check_axis_name, check_entries
from softbin._engine.shares import brief
from softbin._records import documented
from softbin.adapters.running_thresholds import average_in
from softbin.hard_choices import binary_argmax, cutoff


@documented
class RunningCutoffs(NamedTuple):
    """An exponential average of the cutoffs of the batches so far, without the bias of its start.

    In float32: a state that was cast is read as it is, and comes back in float32.

    Attributes:
      cutoffs: what values must exceed; `-inf` before any batch, so that all do.
      weight: `1 - momentum^t` after `t` batches that determined a cutoff.
    """

    cutoffs: Float[Array, "..."]
    weight: Float[Array, "..."]


def initial_cutoffs(shape: tuple[int, ...]) -> RunningCutoffs:
    """The state before any batch, with which all values are kept."""
    if not isinstance(shape, Sequence) or not all(isinstance(size, int | np.integer) and size >= 0 for size in shape):
        raise TypeError(f"shape must be that of the cutoffs, a tuple of whole numbers such as (8,), got {brief(shape)}")
    return RunningCutoffs(jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.float32))


def keep_largest(
    values: Float[ArrayLike, "*shape"],
    k: Count,
    *,
    axis: int | Sequence[int] | None,
    where: Bool[ArrayLike, "..."] | None,
    axis_name: Any,
    magnitude: bool = False,
) -> Array:
    """The `k` largest of each group, by magnitude if asked for, and zeros elsewhere.

    All of a group that has not so many entries are kept.
    """
    settings = {"axis": _checked(values, axis, where, k), "axis_name": axis_name, "magnitude": magnitude}
    check_axis_name(axis_name)
    return meshes.run_with_k(partial(_kept, **settings), lambda spec: spec, k, values, where)


def track_largest(
    values: Float[ArrayLike, "*shape"],
    k: Count,
    running: RunningCutoffs,
    momentum: int | float,
    *,
    axis: int | Sequence[int] | None,
    where: Bool[ArrayLike, "..."] | None,
    axis_name: Any,
    batch_axis_name: Any,
    magnitude: bool = False,
) -> tuple[Array, RunningCutoffs]:
    """`keep_largest`, and the average with the cutoffs of its choices.

    A group that is chosen none or all of says nothing about the cutoff. Where there are more groups than cutoffs, the
    mean of their cutoffs counts.
    """
    settings = {"axis": _checked(values, axis, where, k, running), "axis_name": axis_name, "magnitude": magnitude}
    check_axis_name(axis_name)
    check_axis_name(batch_axis_name, "batch_axis_name")
    state = jax.tree.map(meshes.spec_of, running)

    def track(
        values: Float[ArrayLike, "*shape"], running: RunningCutoffs, where: Bool[ArrayLike, "..."] | None, *, k: Count
    ) -> tuple[Float[Array, "*shape"], RunningCutoffs]:
        kept, found = _kept(values, where, k=k, **settings), _cutoffs(values, where, k=k, **settings)
        return kept, _averaged(running, found, momentum, batch_axis_name)

    kept, moved = meshes.run_with_k(track, lambda spec: (spec, state), k, values, running, where)
    return kept, meshes.placed_as(moved, running)


def keep_above(
    values: Float[ArrayLike, "*shape"],
    running: RunningCutoffs,
    *,
    axis: int | Sequence[int] | None,
    where: Bool[ArrayLike, "..."] | None,
    magnitude: bool = False,
) -> Array:
    """The values above the cutoffs, or those whose magnitude is, and NaN; zeros elsewhere."""
    settings = {"axis": _checked(values, axis, where, None, running), "magnitude": magnitude}
    return meshes.run(_above, lambda spec: spec, values, running.cutoffs, where, **settings)


def _kept(
    values: Float[ArrayLike, "*shape"],
    where: Bool[ArrayLike, "..."] | None,
    *,
    k: Count,
    axis: tuple[int, ...],
    axis_name: Any,
    magnitude: bool,
) -> Float[Array, "*shape"]:
    ranked = _ranked(values, magnitude)
    chosen = binary_argmax(ranked, k, axis=axis, where=where, axis_name=axis_name)
    return jnp.where(chosen > 0, values, 0 * chosen)  # NaN where the choice is


def _cutoffs(
    values: Float[ArrayLike, "*shape"],
    where: Bool[ArrayLike, "..."] | None,
    *,
    k: Count,
    axis: tuple[int, ...],
    axis_name: Any,
    magnitude: bool,
) -> Float[Array, "..."]:
    ranked = _ranked(values, magnitude)
    return cutoff(ranked, k, axis=axis, where=where, axis_name=axis_name).astype(jnp.float32)


def _averaged(
    running: RunningCutoffs, found: Float[Array, "..."], momentum: int | float, batch_axis_name: Any
) -> RunningCutoffs:
    cutoffs, weight = (jnp.asarray(x).astype(jnp.float32) for x in running)
    over = tuple(range(found.ndim - cutoffs.ndim))
    finite = jnp.isfinite(found)
    count = jnp.sum(finite, over, dtype=jnp.float32)
    count = count if batch_axis_name is None else lax.psum(count, batch_axis_name)
    now = jnp.sum(jnp.where(finite, found, 0) / jnp.maximum(count, 1), over)
    now = now if batch_axis_name is None else lax.psum(now, batch_axis_name)
    average, weight = average_in(jnp.where(weight > 0, cutoffs, 0), weight, now, count > 0, momentum)
    return RunningCutoffs(jnp.where(weight > 0, average, -jnp.inf), weight)


def _above(
    values: Float[ArrayLike, "*shape"],
    cutoffs: Float[ArrayLike, "..."],
    where: Bool[ArrayLike, "..."] | None,
    *,
    axis: tuple[int, ...],
    magnitude: bool,
) -> Float[Array, "*shape"]:
    values, computed = jnp.asarray(values), as_computed(values)
    computed = jnp.abs(computed) if magnitude else computed
    shape = tuple(size for place, size in enumerate(values.shape) if place not in axis)
    cutoffs = jnp.expand_dims(jnp.broadcast_to(cutoffs, shape), axis).astype(computed.dtype)
    above = ~(computed <= cutoffs)
    return jnp.where(above if where is None else above & where, values, 0)


def _ranked(values: Float[ArrayLike, "*shape"], magnitude: bool) -> Float[Array, "*shape"]:
    """What is ranked, in its own dtype: as if it came from another program, in which nothing has more digits."""
    ranked = lax.stop_gradient(as_computed(values).astype(jnp.result_type(values)))
    return jnp.abs(ranked) if magnitude else ranked


def _checked(
    values: Float[ArrayLike, "*shape"],
    axis: int | Sequence[int] | None,
    where: Bool[ArrayLike, "..."] | None,
    k: Count | None,
    running: RunningCutoffs | None = None,
) -> tuple[int, ...]:
    """The axes of the groups."""
    groups = groups_along(axis, values, name="x")
    check_entries("x", values, where, None, groups)
    if k is not None:
        checked_count(k, "x", values, groups)
    shape = groups.without(jnp.shape(values))
    if running is not None and shape[len(shape) - jnp.ndim(running.cutoffs) :] != jnp.shape(running.cutoffs):
        raise ValueError(f"groups with shape {shape} do not fit cutoffs with shape {jnp.shape(running.cutoffs)}")
    return groups.axes
