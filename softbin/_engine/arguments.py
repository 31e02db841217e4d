"""Arguments of operators, losses and decisions, brought into the form of the solver.

What can be refused before anything is traced was: see `softbin._engine.checks`.
"""

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin._engine.checks import (
    check_amount,
    check_axis_name,
    check_entries,
    check_k,
    check_no_bare_share,
    check_per_group,
    check_temperature,
    check_whole,
    dtype_of,
    known_value,
)
from softbin._engine.groups import Groups
from softbin._engine.shares import Share, brief

Count = Real[ArrayLike, "..."] | Share
"""How many to choose of each group: a number, an array of them, or a share of what there is."""


class Arguments(NamedTuple):
    """What a soft choice is called with, and `k_rest`, the digits of `k` that a float of the solver lacks."""

    scores: Float[ArrayLike, "*shape"]
    k: Count
    temperature: Real[ArrayLike, "..."] = 1.0
    where: Bool[ArrayLike, "..."] | None = None
    weights: Real[ArrayLike, "..."] | None = None
    k_rest: Float[Array, "*group"] | None = None


class Problem(NamedTuple):
    """Checked arguments in the form of the solver: of one real dtype, `k` and temperature as group arrays.

    Attributes:
      scores: `-inf` where they do not exist.
      k: NaN where it was out of range, and no more than there is.
      temperature: NaN where it was out of range.
      weights: zero where masked, None where all entries weigh 1.
      groups: which entries share a threshold.
      k_rest: the digits that `k` lacks, None for none.
      mask: which entries exist, None for all.
    """

    scores: Float[Array, "*shape"]
    k: Float[Array, "*group"]
    temperature: Float[Array, "*group"]
    weights: Float[Array, "*shape"] | None
    groups: Groups
    k_rest: Float[Array, "*group"] | None
    mask: Bool[Array, "*shape"] | None


def computed_in(scores: Float[ArrayLike, "..."]) -> Any:
    """The dtype of the work on floating point scores: their own, but no narrower than float32."""
    dtype = jnp.result_type(scores)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def as_computed(scores: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Scores in the dtype of the work on them."""
    return convert(scores, computed_in(scores))


def convert(values: Shaped[ArrayLike, "*shape"], dtype: Any) -> Shaped[Array, "*shape"]:
    """Values in another dtype, each the value that its own dtype can hold.

    In a compiled program that is not a matter of course: XLA keeps excess precision, so that the float32 copy of a
    bfloat16 product is the product before it was rounded. Then it is not the number that was ranked or compared.
    """
    given = jnp.result_type(values)
    converted = jnp.asarray(values, dtype)
    is_narrow = given in (jnp.bfloat16, jnp.float16)
    return _rounded_to(converted, given) if is_narrow and converted.dtype in (jnp.float32, jnp.float64) else converted


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _rounded_to(values: Float[Array, "*shape"], dtype: Any) -> Float[Array, "*shape"]:
    limits = jnp.finfo(dtype)
    rounded = lax.reduce_precision(values, limits.nexp, limits.nmant)
    if limits.nexp == jnp.finfo(jnp.bfloat16).nexp:
        return rounded
    step = float(limits.smallest_subnormal)  # float16 has numbers below its normal ones, which that makes 0
    return jnp.where(jnp.abs(values) < float(limits.tiny), jnp.round(values / step) * step, rounded)


@_rounded_to.defjvp
def _rounded_to_jvp(dtype: Any, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return _rounded_to(*primals, dtype), tangents[0]


def checked_arguments(
    name: str,
    scores: Any,
    k: Any,
    temperature: Any = 1.0,
    *,
    axis: Any,
    where: Any = None,
    weights: Any = None,
    axis_name: Any = None,
) -> tuple[Arguments, Groups]:
    """The arguments of an operator, for `prepare`, and the groups along its axis; refuses what is known to be wrong."""
    groups = groups_along(axis, scores, axis_name, name)
    check_entries(name, scores, where, weights, groups)
    check_k(k, name, scores, groups, weights)
    check_temperature(temperature, remedy="; for a hard choice use softbin.binary_argmax")
    check_per_group("temperature", temperature, name, scores, groups)
    k, k_rest = _with_rest(k, scores, groups)
    return Arguments(scores, k, temperature, where, weights, k_rest), groups


def prepare(arguments: Arguments, groups: Groups) -> Problem:
    """Bring arguments into the solver's form; NaN for values out of range.

    Where a mask leaves fewer than `k` entries, `k` becomes their number.
    """
    shape, where = jnp.shape(arguments.scores), arguments.where
    scores = as_computed(arguments.scores)
    dtype = scores.dtype
    weights, mask = _weights_and_mask(arguments.weights, where, shape, dtype)
    count = _sizes(scores, mask, weights, groups)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    k = _k_per_group(arguments.k, count, groups, shape, dtype)
    temperature = _per_group(arguments.temperature, groups, shape, dtype)
    slack = 1 + 1e-6  # a budget summed in another order may exceed the count by a rounding
    most = count if where is None else groups.size(shape) if weights is None else jnp.finfo(dtype).max / slack
    k = jnp.where((k >= 0) & (k <= most * slack), k, jnp.nan)
    k = k if most is count else jnp.minimum(k, count)
    temperature = jnp.where((temperature > 0) & jnp.isfinite(temperature), temperature, jnp.nan)
    return Problem(scores, k, temperature, weights, groups, arguments.k_rest, mask)


def _sizes(scores: Array, mask: Array | None, weights: Array | None, groups: Groups) -> Any:
    """How many entries each group has, or what they weigh."""
    if mask is None:
        return groups.size(jnp.shape(scores))
    zero = jnp.zeros((), scores.dtype)
    return groups.total(jnp.where(mask, jnp.ones_like(zero) if weights is None else weights, zero))


class Choice(NamedTuple):
    """Arguments of a hard choice.

    Attributes:
      scores: `-inf` where they do not exist.
      k: how many are chosen, an integer where whole entries are, and at most what there is; 0 if `valid` is false.
      asked: what was asked for; a mask may leave fewer.
      valid: whether that was in range.
      weights: None where all entries weigh 1.
      mask: which entries exist, None for all.
      size: how many there are, or what they weigh.
    """

    scores: Array
    k: Array
    asked: Array
    valid: Array
    weights: Array | None
    mask: Array | None
    size: Array


def prepare_choice(
    scores: Float[ArrayLike, "*shape"],
    k: Count,
    groups: Groups,
    where: Bool[ArrayLike, "..."] | None,
    weights: Real[ArrayLike, "..."] | None,
    *,
    divisible: bool = False,
) -> Choice:
    """Bring the arguments of a hard choice into the form of `softbin._engine.order_statistics`.

    A number of entries, and a share of them, is rounded to a whole one, a share to at least one, unless entries weigh
    or are `divisible`: then `k` is real. Where a mask leaves fewer, all that exist are chosen.
    """
    shape = jnp.shape(scores)
    scores = as_computed(scores)
    dtype = scores.dtype
    weights, mask = _weights_and_mask(weights, where, shape, dtype)
    count: Any = groups.size(shape)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
        count = groups.count_where(mask) if weights is None else groups.total(jnp.where(mask, weights, 0))
    most = count if where is None else groups.size(shape) if weights is None else jnp.finfo(dtype).max
    is_share = isinstance(k, Share)

    if divisible or weights is not None:
        k = _k_per_group(k, count, groups, shape, dtype)
        valid = (k >= 0) & (k <= jnp.asarray(most, dtype))
    elif is_share or jnp.issubdtype(jnp.result_type(k), jnp.floating):
        k = jnp.round(real := _k_per_group(k, count, groups, shape, dtype))
        k = jnp.where(real > 0, jnp.maximum(k, 1), k) if is_share else k
        valid = (k >= 0) & (k <= jnp.asarray(most, dtype))
    else:
        k = jnp.asarray(k)
        if k.dtype.itemsize > 2:
            k = jnp.clip(k, 0 if jnp.issubdtype(k.dtype, jnp.unsignedinteger) else -1, jnp.iinfo(jnp.int32).max)
        k = _per_group(k, groups, shape, jnp.int32)
        valid = (k >= 0) & (k <= most)
    asked = jnp.where(valid, k, 0)
    asked = asked if divisible or weights is not None else asked.astype(jnp.int32)
    chosen = asked if most is count else jnp.minimum(asked, jnp.asarray(count, asked.dtype))
    return Choice(scores, chosen, asked, valid, weights, mask, jnp.asarray(count))


def checked_count(k: Any, name: str, entries: Any, groups: Groups) -> Any:
    """How many entries a hard choice takes: whole numbers, as integers where they are known; a share as it is.

    Python's and NumPy's numbers must be whole. A JAX array, traced or not, is rounded half to even, so that a schedule
    gives the same inside and outside of `jax.jit`.
    """
    if not isinstance(k, Share):
        check_amount("k", k)
        check_no_bare_share(k)
        check_whole(k)
        known = known_value(k)
        if known is not None:
            k = np.round(known)
        elif jnp.issubdtype(jnp.result_type(k), jnp.floating):
            k = jnp.round(k)
    check_k(k, name, entries, groups)
    if known_value(k) is None:
        return k
    return np.minimum(np.float64(k), np.iinfo(np.int32).max).astype(np.int32)  # digits enough for any group


def _with_rest(k: Any, scores: Any, groups: Groups) -> tuple[Any, Array | None]:
    """A budget, and what a float of the solver lacks of its digits where it is known and the groups are that large."""
    known, dtype = known_value(k), computed_in(scores)
    if known is None or groups.counts_fit(jnp.shape(scores), dtype):
        return k, None
    rest = known - known.astype(dtype)
    return known.astype(dtype), jnp.expand_dims(jnp.asarray(rest, dtype), groups.axes) if rest.any() else None


def groups_along(axis: Any, scores: Any, axis_name: Any = None, name: str = "scores") -> Groups:
    """The groups that an `axis` argument stands for: along one axis, several, or all where it is None."""
    dtype_of(name, scores)
    check_axis_name(axis_name)
    shape = jnp.shape(scores)
    if not shape:
        raise ValueError(f"{name} must have an axis to choose along, got a scalar")
    try:
        named = range(len(shape)) if axis is None else axis if isinstance(axis, Sequence) else [axis]
        named = [operator.index(axis) for axis in named]
    except TypeError:
        raise TypeError(
            f"axis must be an integer, a tuple of integers, or None for all axes, got {brief(axis)}"
        ) from None
    wrong = [axis for axis in named if not -len(shape) <= axis < len(shape)]
    if wrong:
        raise ValueError(f"axis {wrong[0]} is not an axis of {name} with shape {shape}")
    axes = tuple(sorted({axis % len(shape) for axis in named}))
    if len(axes) != len(named) or not axes:
        raise ValueError(f"axis must name one axis or several different ones, got {axis}")
    return Groups(axes, axis_name)


def _k_per_group(k: Count, count: Any, groups: Groups, shape: tuple[Any, ...], dtype: Any) -> Real[Array, "*group"]:
    """`k` as a group array, where it is a share of a count of entries or weights."""
    if not isinstance(k, Share):
        return _per_group(k, groups, shape, dtype)
    return _per_group(jnp.asarray(k.shares), groups, shape, dtype) * jnp.asarray(count, dtype)


def _per_group(
    value: Real[ArrayLike, "..."], groups: Groups, shape: tuple[Any, ...], dtype: Any
) -> Real[Array, "*group"]:
    """A number for each group, or one for all, as a group array."""
    if jnp.ndim(value) == 0:  # a constant, perhaps, which compilers do not see through what puts lanes together
        length = [1 if axis in groups.axes else n for axis, n in enumerate(shape)]
        return jnp.broadcast_to(convert(value, dtype), length)
    expected = groups.without(shape)
    expected = expected if groups.lanes == 1 else (*expected[:-1], expected[-1] // groups.lanes)
    value = jnp.broadcast_to(convert(value, dtype), expected)
    return groups.spread(jnp.expand_dims(value, groups.axes))


def _weights_and_mask(
    weights: Real[ArrayLike, "..."] | None, where: Bool[ArrayLike, "..."] | None, shape: tuple[Any, ...], dtype: Any
) -> tuple[Float[Array, "*shape"] | None, Bool[Array, "*shape"] | None]:
    """Weights, zero where masked, and which entries exist; each None where all are alike."""
    mask = None if where is None else jnp.broadcast_to(jnp.asarray(where), shape)
    if weights is not None:
        weights = jnp.broadcast_to(nan_if_negative(convert(weights, dtype)), shape)
        weights = weights if mask is None else jnp.where(mask, weights, 0)
        mask = weights != 0
    return weights, mask


def nan_if_negative(weights: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """What no weights can be shows in the result."""
    return jnp.where(weights >= 0, weights, jnp.nan)
