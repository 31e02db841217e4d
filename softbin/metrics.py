"""Metrics of a ranking of which only the first `k` entries can be acted on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin._engine import meshes
from softbin._engine.arguments import Count, convert, groups_along, prepare_choice
from softbin._engine.checks import check_entries, check_taken, dtype_of
from softbin._engine.choices import expected_choice, known_few
from softbin._engine.groups import Groups, weighted


def precision_at_k(
    scores: Float[ArrayLike, "*shape"],
    labels: Shaped[ArrayLike, "*shape"],
    k: Count,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    axis_name: Any = None,
) -> Float[Array, "..."]:
    r"""The share of positives among the `k` entries of each group with the largest scores.

    .. math::
        \text{precision} = \frac1k \sum_i w_i y_i Y_i, \qquad
        \text{recall} = \frac{\sum_i w_i y_i Y_i}{\sum_i w_i Y_i}.

    Exact, and without a sort: `y` is the choice of the `k` largest, in which equal scores share alike, so that the
    result is the expected value over a random order of ties. Its gradient is zero.

    Args:
      scores: floating point, any shape; groups lie along `axis`. NaN makes its own group NaN.
      labels: 1 for a positive, 0 for a negative, or in between; of the shape of `scores`.
      k: how many are taken, above 0 and at most n: a number, an array that broadcasts to the shape of `scores` without
        `axis`, or a share of the entries that exist, `softbin.budgets.fraction(0.02)`. May be traced. If it is
        fractional, the last entry is taken in part.
      axis: the axis that groups lie along, a tuple of axes, or None for all.
      where: broadcasts to `scores`. Entries where it is false do not exist. Where fewer than `k` exist, all are taken,
        and the missing ones count as negatives: the precision is still out of `k`.
      weights: non-negative, broadcasts to `scores`. An entry of weight 2 acts as two equal entries.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split.

    Returns:
      The precisions, of at least float32 precision, without `axis`; NaN where a traced `k` or label is out of range,
      and for a share of a group that is masked whole.

    Raises:
      TypeError, ValueError: as for :func:`softbin.kth_largest`; also for labels of another shape or outside [0, 1].

    Example:
      >>> scores, labels = jnp.array([0.9, 0.8, 0.8, 0.1]), jnp.array([1, 0, 1, 1])
      >>> print(precision_at_k(scores, labels, k=1), precision_at_k(scores, labels, k=2))
      1.0 0.75

      What a team that can look at two cases a day finds on two days, the second a quiet one:

      >>> scores = jnp.array([[0.9, 0.2, 0.8, 0.1], [0.3, 0.4, 0.0, 0.0]])
      >>> labels = jnp.array([[1, 1, 0, 0], [0, 1, 0, 0]])
      >>> came_in = jnp.array([[True, True, True, True], [True, True, False, False]])
      >>> print(precision_at_k(scores, labels, 2, where=came_in), recall_at_k(scores, labels, 2, where=came_in))
      [0.5 0.5] [0.5 1. ]
    """
    hits, k, _ = _hits(scores, labels, k, axis, where, weights, axis_name)
    return hits / k


def recall_at_k(
    scores: Float[ArrayLike, "*shape"],
    labels: Shaped[ArrayLike, "*shape"],
    k: Count,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    axis_name: Any = None,
) -> Float[Array, "..."]:
    """The share of the positives of each group that are among its `k` entries with the largest scores.

    :func:`precision_at_k` has the formula. Args and raises: as there.

    Returns:
      The recalls, of at least float32 precision, without `axis`; NaN also where there are no positives.

    Example:
      >>> scores, labels = jnp.array([0.9, 0.8, 0.8, 0.1]), jnp.array([1, 0, 1, 1])
      >>> print(recall_at_k(scores, labels, k=2))
      0.5

      The mean over lists, leaving out those without a positive:

      >>> scores, labels = jnp.array([[0.9, 0.8, 0.1], [0.3, 0.2, 0.6]]), jnp.array([[1, 0, 1], [0, 0, 0]])
      >>> recalls = recall_at_k(scores, labels, k=2)
      >>> print(recalls, jnp.mean(recalls, where=jnp.any(labels > 0, -1)))
      [0.5 nan] 0.5
    """
    hits, _, positives = _hits(scores, labels, k, axis, where, weights, axis_name)
    return hits / positives


def _hits(
    scores: Float[ArrayLike, "*shape"],
    labels: Real[ArrayLike, "*shape"] | Bool[ArrayLike, "*shape"],
    k: Count,
    axis: int | Sequence[int] | None,
    where: Bool[ArrayLike, "..."] | None,
    weights: Real[ArrayLike, "..."] | None,
    axis_name: Any,
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """How many positives are taken, how many entries, and how many positives there are."""
    groups = groups_along(axis, scores, axis_name)
    check_entries("scores", scores, where, weights, groups)
    check_taken(k, "scores", scores, groups, weights)
    _check_labels(labels, jnp.shape(scores))

    def sharding(spec: PartitionSpec) -> tuple[PartitionSpec, ...]:
        return (groups.sharding(spec),) * 3

    arrays = scores, labels, k, where, weights
    few = known_few(k, weights, jnp.shape(scores), groups)
    return meshes.run(_count_hits, sharding, *arrays, groups=groups, few=few)


@partial(jax.jit, static_argnames=("groups", "few"))
def _count_hits(
    scores: Float[Array, "*shape"],
    labels: Real[Array, "*shape"] | Bool[Array, "*shape"],
    k: Count,
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    groups: Groups,
    few: int | None,
) -> tuple[Float[Array, "..."], ...]:
    choice = prepare_choice(lax.stop_gradient(scores), k, groups, where, weights, divisible=True)
    value, y = expected_choice(choice, groups, few)
    labels = convert(labels, y.dtype)
    labels = jnp.where((labels >= 0) & (labels <= 1), labels, jnp.nan)
    labels = weighted(labels if choice.mask is None else jnp.where(choice.mask, labels, 0), choice.weights)
    valid = choice.valid & (choice.asked > 0) & ~jnp.isnan(value)
    hits, k = (jnp.where(valid, found, jnp.nan) for found in (groups.total(y * labels), choice.asked))
    results = hits, k, groups.total(labels)
    return tuple(jnp.squeeze(lax.stop_gradient(result), groups.axes) for result in results)


def _check_labels(labels: Any, shape: tuple[Any, ...]) -> None:
    dtype = dtype_of("labels", labels)
    if jnp.shape(labels) != shape:
        raise ValueError(f"labels with shape {jnp.shape(labels)} must have that of scores, {shape}")
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"labels must be boolean, integer or floating point, got {dtype}")
    if isinstance(labels, jax.core.Tracer):
        return
    known = np.asarray(labels)
    wrong = known[~((known >= 0) & (known <= 1))]
    if wrong.size:
        raise ValueError(f"label {wrong[0]} is outside [0, 1]: 1 is a positive and 0 a negative")
