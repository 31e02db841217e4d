"""Hard choices: the k-th largest score, the k largest, and where to cut between them and the rest, without a sort.

How many are chosen is one rule for all. A Python or NumPy number must be whole. A JAX array, traced or not, is rounded
half to even, so that a schedule gives the same inside and outside of `jax.jit`. A share of the entries that exist is
rounded too, but to at least one of them. Where a mask leaves fewer than `k`, all that exist are chosen. With weights
`k` is real: what the chosen weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from softbin._engine import choices, meshes, ranks
from softbin._engine.arguments import Count, as_computed, checked_count, groups_along, prepare_choice
from softbin._engine.checks import check_entries, check_k
from softbin._engine.groups import Groups
from softbin._engine.shares import is_traced
from softbin._engine.thresholds import check_implementation
from softbin._records import documented


def kth_largest(
    scores: Float[ArrayLike, "*shape"],
    k: Count,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    axis_name: Any = None,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    r"""The exact k-th largest score of each group, equal ones counted as often as they occur.

    .. math::
        \max \{ v : \sum_{i : x_i \ge v} w_i \ge k \}.

    It is found without a sort, in a few rounds of counts: on a sharded axis a round is one small all-reduce, and the
    result is the same on any number of devices. Groups may have up to 2^31 entries.

    To choose by it, use :func:`binary_argmax`, or :func:`cutoff` on float32 scores. `scores >= kth_largest(scores, k)`
    is the same only if the scores were stored before: in a program that also computes them, XLA may do so once for each
    use, with other roundings, and then the entry that holds the value misses it. It may not round bfloat16 and float16
    scores at all: pass scores that you compare through `jax.lax.reduce_precision` first.

    Several `k` of the same scores, such as the four largest of a sharded batch, share the rounds of a `jax.vmap` over
    them, and need no gather either: `jax.vmap(lambda k: kth_largest(scores, k))(jnp.arange(1, 5))`.

    The gradient goes to the entry that holds the value, as that of `jax.lax.top_k` does: among equal scores, to the
    last one that :func:`binary_argmax` chooses. So the gradients for `k = 1, ..., m` add up to the choice of `m`. It
    works in forward and in reverse mode; weights and `k` have none.

    Args:
      scores: floating point, any shape; groups lie along `axis`. Infinities are ordinary values, -0 equals 0, and
        subnormal float32 or float64 numbers are 0.
      k: a whole number in [0, n], an array that broadcasts to the shape of `scores` without `axis`, or a share of the
        entries that exist, `softbin.budgets.fraction(0.1)`, which is rounded, to at least one of them. May be traced; a
        JAX array is rounded half to even. With weights, `k` is real, and at most their sum.
      axis: the axis that groups lie along, a tuple of axes, or None for all.
      where: broadcasts to `scores`. Entries where it is false do not exist; where fewer than `k` exist, the result is
        the least of them.
      weights: non-negative, broadcasts to `scores`. An entry of weight 2 acts as two equal entries. Sums of weights
        are in floats: exact for whole weights up to a sum of 2^24 in float32.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split.
      implementation: "xla", which None stands for, runs everywhere. "pallas" counts in a kernel for TPUs, and for GPUs
        from Hopper on; it takes groups of up to 262,144 entries on one device, in float32 or narrower and without
        weights, and leaves all else to "xla". What is chosen is the same to the bit.

    Returns:
      The values, in the dtype of `scores`, without `axis`. `inf`, which no score exceeds, where none is chosen: at
      `k = 0`, and in a group that is masked whole. NaN for a group with NaN, and where a traced `k` is out of range.

    Raises:
      TypeError, ValueError: as for :func:`softbin.soft_binary_argmax`; also for a Python or NumPy `k` that is not
        whole, and for a number between 0 and 1, which looks like a share.

    Example:
      >>> print(kth_largest(jnp.array([[3.0, 1.0, 2.0], [5.0, 5.0, 4.0]]), k=2))
      [2. 5.]
      >>> print(kth_largest(jnp.array([3.0, 1.0, 2.0]), k=2, where=jnp.array([False, True, False])))
      1.0
    """
    groups, k = _checked(scores, k, axis, where, weights, axis_name, implementation)
    few = choices.known_few(k, weights, jnp.shape(scores), groups, implementation)
    settings = {"groups": groups, "few": few, "implementation": implementation}
    return meshes.run(_kth_largest, groups.sharding, scores, k, where, weights, **settings)


def binary_argmax(
    scores: Float[ArrayLike, "*shape"],
    k: Count,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    axis_name: Any = None,
    implementation: str | None = None,
) -> Float[Array, "*shape"]:
    """The hard choice: exactly `k` ones, on the largest scores; of equal scores the one with the lower index.

    It is the limit of :func:`softbin.soft_binary_argmax` as the temperature falls to 0, ties aside. Its gradient is
    zero. It is found without a sort, as :func:`kth_largest` is. Over several axes, the index counts the entries of the
    group in row-major order; over shards, those of the first shard come first.

    A group with NaN has NaN for a choice: both `choice > 0` and `choice == 0` are false. `where=~jnp.isnan(scores)`
    never chooses an entry with NaN, and `jnp.where(jnp.isnan(scores), jnp.inf, scores)` chooses it first.

    Args:
      scores: floating point, any shape. -0 equals 0, and subnormal float32 or float64 numbers are 0.
      k: a whole number in [0, n], an array that broadcasts to the shape of `scores` without `axis`, or a share of the
        entries that exist, `softbin.budgets.fraction(0.1)`, which is rounded, to at least one of them. May be traced; a
        JAX array is rounded half to even.
      axis: the axis to choose along, a tuple of axes to choose along together, or None for all.
      where: broadcasts to `scores`. Entries where it is false are never chosen; where fewer than `k` are left, all of
        these are.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split.
      implementation: as for :func:`kth_largest`.

    Returns:
      Zeros and ones, with the shape and dtype of `scores`; NaN in a group with NaN, and where a traced `k` is
      out of range.

    Raises:
      TypeError, ValueError: as for :func:`kth_largest`.

    Example:
      >>> print(binary_argmax(jnp.array([1.0, 3.0, 1.0]), k=2))
      [1. 1. 0.]

      A schedule gives 2.6 and then 2.2, which are rounded:

      >>> schedule = jax.jit(lambda step: binary_argmax(jnp.array([1.0, 3.0, 2.0, 0.5]), 2.6 - 0.4 * step))
      >>> print(schedule(0), schedule(1))
      [1. 1. 1. 0.] [0. 1. 1. 0.]
    """
    groups, k = _checked(scores, k, axis, where, None, axis_name, implementation)
    few = choices.known_few(k, None, jnp.shape(scores), groups, implementation)
    settings = {"groups": groups, "few": few, "implementation": implementation}
    return meshes.run(_binary_argmax, lambda spec: spec, scores, k, where, **settings)


def cutoff(
    scores: Float[ArrayLike, "*shape"],
    k: Count,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    axis_name: Any = None,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    """The cutoff that `k` scores are above: the middle between the k-th largest score and the next.

    `scores > cutoff` is true exactly `k` times, unless the next score equals the k-th; then that is the cutoff, and
    fewer scores are above it. Where no float lies in the middle, the cutoff is the next score. It is `inf` where none
    is chosen: at `k = 0`, and in a group that is masked whole. Otherwise it is `-inf` where there is no next score: at
    `k = n`, or where a mask leaves `k` or fewer. The gradient is zero.

    In a program that computes bfloat16 or float16 scores, those that are compared with a cutoff must be rounded like
    those that it was found for: see :func:`kth_largest`, or choose by :func:`binary_argmax`.

    With weights, the scores above the cutoff weigh `k`, unless that would divide an entry.

    Args and raises: as for :func:`kth_largest`.

    Returns:
      The cutoffs, in the dtype of `scores`, without `axis`; NaN for a group with NaN, and where a traced `k` is out of
      range.

    Example:
      >>> scores = jnp.array([3.0, 1.0, 2.0, 0.0])
      >>> print(cutoff(scores, k=2), scores > cutoff(scores, k=2))
      1.5 [ True False  True False]
    """
    groups, k = _checked(scores, k, axis, where, weights, axis_name, implementation)
    few = choices.known_few(k, weights, jnp.shape(scores), groups, implementation)
    settings = {"groups": groups, "few": few, "implementation": implementation}
    return meshes.run(_cutoff, groups.sharding, scores, k, where, weights, **settings)


@documented
class Largest(NamedTuple):
    """The `k` largest of each group, in falling order along `axis`.

    Attributes:
      values: the scores, with their gradient; 0 where the mask is false.
      indices: their places along `axis`, all different.
      mask: whether there is such an entry. False in the last places where `where` leaves fewer than `k` entries.
    """

    values: Float[Array, "..."]
    indices: Int[Array, "..."]
    mask: Bool[Array, "..."]


def top_k(
    scores: Float[ArrayLike, "*shape"],
    k: int,
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "..."] | None = None,
) -> Largest:
    """The `k` largest scores with their indices, for gathering and scattering, and a mask of those that exist.

    Of equal scores the one with the lower index comes first, so that the choice is that of :func:`binary_argmax`. The
    other functions of this module need no sort, and take a sharded axis and a traced `k`. This one is `jax.lax.top_k`
    along any axis, with a mask, and with NaN confined to its own group.

    Args:
      scores: floating point, any shape. -0 equals 0, and subnormal float32 or float64 numbers are 0.
      k: how many, a concrete integer in [0, n], since it is a length of the result.
      axis: the axis to choose along.
      where: broadcasts to `scores`. Entries where it is false come after all others, and are not in the mask.

    Returns:
      Values, indices and mask, of the shape of `scores` with `k` along `axis`.

    Raises:
      TypeError: `scores` is not floating point, `where` is not boolean, or `k` is not a concrete integer.
      ValueError: `k` is out of range, or shapes do not fit.

    Example:
      >>> tokens = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
      >>> values, indices, mask = top_k(tokens, k=2)
      >>> print(values.tolist(), indices.tolist(), bool(mask.all()))
      [[0.699999988079071, 0.20000000298023224], [0.5, 0.4000000059604645]] [[1, 2], [0, 2]] True
      >>> print(top_k(jnp.array([3.0, 1.0, 2.0]), k=2, where=jnp.array([False, True, False])).mask)
      [ True False]
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        remedy = "binary_argmax takes a traced one" if is_traced(k) else "round it, or convert it by int()"
        raise TypeError(f"k must be a concrete integer, got {k!r}: {remedy}")
    groups = groups_along(axis, scores)
    if len(groups.axes) > 1 or axis is None:
        raise ValueError(f"top_k chooses along one axis, got {axis}: binary_argmax takes several")
    check_entries("scores", scores, where, None, groups)
    check_k(k, "scores", scores, groups)
    (axis,) = groups.axes

    def results(spec: PartitionSpec) -> tuple[PartitionSpec, ...]:
        return (PartitionSpec(*(None if place == axis else name for place, name in enumerate(spec))),) * 3

    return Largest(*meshes.run(_top_k, results, scores, where, k=int(k), axis=axis))


@partial(jax.jit, static_argnames=("k", "axis"))
def _top_k(scores: Float[Array, "*shape"], where: Bool[Array, "..."] | None, *, k: int, axis: int) -> tuple[Array, ...]:
    exists = jnp.broadcast_to(True if where is None else where, jnp.shape(scores))
    scores, exists = (jnp.moveaxis(jnp.asarray(array), axis, -1) for array in (scores, exists))
    given = lax.optimization_barrier(lax.stop_gradient(scores))  # XLA sorts constants as it compiles, for minutes

    def by_value() -> Array:  # much the faster on CPU
        ranked = as_computed(given)
        ranked = jnp.where(jnp.abs(ranked) < jnp.finfo(scores.dtype).tiny, 0, ranked)
        return lax.top_k(jnp.where(exists, ranked, -jnp.inf), k)[1]

    def by_key() -> Array:  # for those that exist and are `-inf`
        keys = ranks.keys(given)
        return lax.top_k(jnp.where(exists, keys, jnp.iinfo(keys.dtype).min), k)[1]

    indices = by_value() if where is None else lax.cond(jnp.any(exists & (given == -jnp.inf)), by_key, by_value)
    mask = jnp.take_along_axis(exists, indices, -1)
    values = jnp.where(mask, jnp.take_along_axis(scores, indices, -1), 0)
    poisoned = jnp.any(jnp.isnan(given) & exists, -1, keepdims=True)
    values = jnp.where(poisoned, jnp.nan, values)
    return tuple(jnp.moveaxis(array, -1, axis) for array in (values, indices, mask))


def _checked(
    scores: Any, k: Any, axis: Any, where: Any, weights: Any, axis_name: Any, implementation: Any
) -> tuple[Groups, Any]:
    """The groups, and how many are chosen of each."""
    check_implementation(implementation)
    groups = groups_along(axis, scores, axis_name)
    check_entries("scores", scores, where, weights, groups)
    if weights is None:
        return groups, checked_count(k, "scores", scores, groups)
    check_k(k, "scores", scores, groups, weights)
    return groups, k


@partial(jax.jit, static_argnames=("groups", "few", "implementation"))
def _kth_largest(
    scores: Any, k: Any, where: Any, weights: Any, *, groups: Groups, few: int | None, implementation: Any
) -> Array:
    choice = prepare_choice(scores, k, groups, where, weights)
    value = choices.kth_value(choice, groups, few, implementation)
    value = jnp.where(choice.k > 0, value, jnp.where(jnp.isnan(value), value, jnp.inf))
    value = jnp.where(choice.valid, value, jnp.nan)
    return jnp.squeeze(value, groups.axes).astype(jnp.result_type(scores))


@partial(jax.jit, static_argnames=("groups", "few", "implementation"))
def _binary_argmax(scores: Any, k: Any, where: Any, *, groups: Groups, few: int | None, implementation: Any) -> Array:
    dtype = jnp.result_type(scores)
    choice = prepare_choice(lax.stop_gradient(scores), k, groups, where, None)
    value, chosen = choices.located(choice, groups, few, implementation)
    chosen = chosen & (choice.k > 0)
    y = jnp.where(choice.valid & ~jnp.isnan(value), chosen.astype(dtype), jnp.asarray(jnp.nan, dtype))
    return y if choice.mask is None else jnp.where(choice.mask, y, 0)


@partial(jax.jit, static_argnames=("groups", "few", "implementation"))
def _cutoff(
    scores: Any, k: Any, where: Any, weights: Any, *, groups: Groups, few: int | None, implementation: Any
) -> Array:
    dtype = jnp.result_type(scores)
    choice = prepare_choice(lax.stop_gradient(scores), k, groups, where, weights)
    value, after = choices.value_and_next(choice, groups, few, implementation)
    middle = (value / 2 + after / 2).astype(dtype).astype(value.dtype)
    middle = jnp.where((after < middle) & (middle < value), middle, after)
    middle = jnp.where(jnp.isnan(value), value, jnp.where(choice.k > 0, middle, jnp.inf))
    return jnp.squeeze(jnp.where(choice.valid, middle, jnp.nan), groups.axes).astype(dtype)
