"""Arguments of operators, losses and decisions: checked, and brought into the form of the solver."""

import contextlib
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Real

from softbin.budgets import Share
from softbin.groups import Groups, is_symbolic
from softbin.regularizers import Regularizer

Count = Real[ArrayLike, "..."] | Share
"""How many to choose of each group: a number, an array of them, or a share of what there is."""


class Problem(NamedTuple):
    """Checked arguments in the form of the solver: of one real dtype, `k` and temperature as group arrays."""

    scores: Array
    k: Array
    temperature: Array
    weights: Array | None
    groups: Groups


def check(scores, k, temperature, where, weights, groups: Groups, name="scores"):
    """Refuse what is known to be wrong before anything is traced: dtypes, an empty group, values."""
    check_floating(name, scores)
    size = groups.size(jnp.shape(scores))
    if size == 0:
        raise ValueError(
            f"{name} with shape {jnp.shape(scores)} are empty along {groups.axes}: there is nothing to choose from"
        )
    check_k(k, size if weights is None else None)
    check_temperature(temperature)
    check_weights(weights)
    check_mask(where)


def check_floating(name, value):
    """Integers are more likely class numbers than scores."""
    dtype = dtype_of(name, value)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {dtype}: convert them, for example to float32")


def check_regularizer(regularizer):
    """A name is none."""
    if not isinstance(regularizer, Regularizer):
        raise TypeError(
            f"regularizer must be softbin.euclidean, softbin.binary_entropy or another Regularizer, got {regularizer!r}"
        )


def dtype_of(name, value):
    """The dtype that JAX gives an array or a number, of which lists and strings are neither."""
    if value is not None and not isinstance(value, str):  # which may name a dtype
        with contextlib.suppress(TypeError):
            return jnp.result_type(value)
    raise TypeError(f"{name} must be an array or a number, got {value!r}: convert it, for example with jnp.asarray")


def computed_in(scores):
    """The dtype of the work on floating point scores: their own, but no narrower than float32."""
    dtype = jnp.result_type(scores)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def prepare(scores, k, temperature, groups: Groups, where, weights) -> tuple[Problem, Array | None]:
    """Bring arguments into the solver's form; also which entries exist, None for all. NaN for values out of range."""
    shape = jnp.shape(scores)
    dtype = computed_in(scores)
    scores = jnp.asarray(scores, dtype)
    weights, part = _taking_part(weights, where, shape, dtype)
    count = count_of(scores, part, weights, groups)
    if part is not None:
        scores = jnp.where(part, scores, -jnp.inf)
    k = _counted(k, count, groups, shape, dtype)
    temperature = _per_group("temperature", temperature, groups, shape, dtype)
    slack = 1 + 1e-6  # a budget summed in another order may exceed the count by a rounding
    k = jnp.where((k >= 0) & (k <= count * slack), k, jnp.nan)
    temperature = jnp.where((temperature > 0) & jnp.isfinite(temperature), temperature, jnp.nan)
    return Problem(scores, k, temperature, weights, groups), part


def count_of(scores, part, weights, groups: Groups) -> Any:
    """How many entries each group has, or what they weigh."""
    if part is None:
        return groups.size(jnp.shape(scores))
    zero = jnp.zeros((), scores.dtype)
    return groups.total(jnp.where(part, jnp.ones_like(zero) if weights is None else weights, zero))


class Choice(NamedTuple):
    """Checked arguments of a hard choice: `k` is an integer where whole entries are chosen, and valid or not."""

    scores: Array
    k: Array
    valid: Array
    weights: Array | None
    part: Array | None
    size: Array  # how many entries there are, or what they weigh


def prepare_choice(scores, k, groups: Groups, where, weights, *, divisible: bool = False) -> Choice:
    """Bring the arguments of a hard choice into the form of `softbin.order_statistics`; an invalid `k` becomes 0.

    A share of the entries is rounded to a whole number of them, unless entries weigh or are `divisible`: then `k` is
    real.
    """
    shape = jnp.shape(scores)
    dtype = computed_in(scores)
    scores = jnp.asarray(scores, dtype)
    weights, part = _taking_part(weights, where, shape, dtype)
    count: Any = groups.size(shape)
    if part is not None:
        scores = jnp.where(part, scores, -jnp.inf)
        count = groups.counts([part])[0] if weights is None else groups.total(jnp.where(part, weights, 0))

    divisible |= weights is not None
    if divisible or isinstance(k, Share) or jnp.issubdtype(jnp.result_type(k), jnp.floating):
        k = _counted(k, count, groups, shape, dtype, rounded=not divisible)
        valid = (k >= 0) & (k <= jnp.asarray(count, dtype))
        valid &= divisible or k == jnp.round(k)
    else:
        k = jnp.asarray(k)
        if k.dtype.itemsize > 2:
            k = jnp.clip(k, 0 if jnp.issubdtype(k.dtype, jnp.unsignedinteger) else -1, jnp.iinfo(jnp.int32).max)
        k = _per_group("k", k, groups, shape, jnp.int32)
        valid = (k >= 0) & (k <= count)
    k = jnp.where(valid, k, 0)
    return Choice(scores, k if divisible else k.astype(jnp.int32), valid, weights, part, jnp.asarray(count))


def whole(k) -> Any:
    """A known whole budget as integers, which have digits enough for any group; others as they are."""
    known = known_value(k)
    return k if known is None else known.astype(np.int32)


def rounded(k) -> Any:
    """The nearest whole budget; a share is rounded where it is counted."""
    if isinstance(k, Share):
        return k
    known = known_value(k)
    return jnp.round(k) if known is None else np.round(known)


def split(k, scores, groups: Groups) -> tuple[Any, Array | None]:
    """A budget, and what a float of the solver lacks of its digits where it is known and the groups are that large."""
    known, dtype = known_value(k), computed_in(scores)
    if known is None or groups.counts_fit(jnp.shape(scores), dtype):
        return k, None
    rest = known - known.astype(dtype)
    return known.astype(dtype), jnp.expand_dims(jnp.asarray(rest, dtype), groups.axes) if rest.any() else None


def groups_along(axis, scores, axis_name=None, name="scores") -> Groups:
    """The groups that an `axis` argument stands for: along one axis, several, or all where it is None."""
    shape = jnp.shape(scores)
    if not shape:
        raise ValueError(f"{name} must have an axis to choose along, got a scalar")
    try:
        named = range(len(shape)) if axis is None else axis if isinstance(axis, Sequence) else [axis]
        named = [operator.index(axis) for axis in named]
    except TypeError:
        raise TypeError(f"axis must be an integer, a tuple of integers, or None for all axes, got {axis!r}") from None
    wrong = [axis for axis in named if not -len(shape) <= axis < len(shape)]
    if wrong:
        raise ValueError(f"axis {wrong[0]} is not an axis of {name} with shape {shape}")
    axes = tuple(sorted({axis % len(shape) for axis in named}))
    if len(axes) != len(named) or not axes:
        raise ValueError(f"axis must name one axis or several different ones, got {axis}")
    return Groups(axes, axis_name)


def check_k(k, size=None):
    """A budget that is known when traced must be one, of groups of this size if all entries weigh 1."""
    if isinstance(k, Share):
        return
    if callable(k):
        raise TypeError(f"k must be a number, an array, or a share such as softbin.budgets.fraction(0.5), got {k!r}")
    _check_real("k", k)
    known = known_value(k)
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"k must be in [0, n], got {_show(k)}")
    if known is not None and not (size is None or is_symbolic(size)) and not np.all(known <= size):
        raise ValueError(f"k must be at most n = {size}, the length of the axis, got {_show(k)}")


def check_whole(k):
    """A budget that is known when traced must be whole where exactly so many entries are chosen."""
    check_k(k)
    known = known_value(k)
    if known is not None and np.any(known != np.round(known)):
        raise ValueError(f"exactly k entries are chosen: k must be whole, got {_show(k)}")


def check_positive(k):
    """Of no entries there is neither a rank nor a mean."""
    known = known_value(k.shares if isinstance(k, Share) else k)
    if known is not None and known.dtype.kind in "iuf" and not np.all(known > 0):
        raise ValueError(f"k must be positive: there has to be an entry to take, got {_show(known)}")


def check_temperature(temperature):
    """A temperature that is known when traced must be one."""
    _check_real("temperature", temperature)
    known = known_value(temperature)
    if known is not None and not (np.all(known > 0) and np.all(np.isfinite(known))):
        raise ValueError(
            f"temperature must be positive and finite, got {_show(temperature)}; "
            "for a hard choice use softbin.binary_argmax"
        )


def _check_real(name, value):
    dtype = dtype_of(name, value)
    if not jnp.issubdtype(dtype, jnp.floating) and not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name} must be real, got {dtype}")


def known_value(value) -> np.ndarray | None:
    """The value in numpy, or None where it is traced or a share, of what is counted at run time."""
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))
    return None if traced or isinstance(value, Share) else np.asarray(value)


def _show(value) -> str:
    return np.array2string(np.asarray(value), threshold=8)


def _counted(k, count, groups, shape, dtype, rounded=False):
    """`k` as a group array, where it is a share of a count of entries or weights."""
    if not isinstance(k, Share):
        return _per_group("k", k, groups, shape, dtype)
    k = _per_group("k", k.shares, groups, shape, dtype) * jnp.asarray(count, dtype)
    return jnp.round(k) if rounded else k


def _per_group(name, value, groups, shape, dtype):
    value = jnp.asarray(value)
    axes, lanes = groups.axes, groups.lanes
    expected = groups.without(shape)
    expected = expected if lanes == 1 else (*expected[:-1], expected[-1] // lanes)
    try:
        value = jnp.broadcast_to(value, expected)
    except ValueError:
        raise ValueError(
            f"{name} with shape {value.shape} does not broadcast to {expected}, the shape of scores without {axes}"
        ) from None
    return groups.spread(jnp.expand_dims(value.astype(dtype), axes))


def check_weights(weights):
    """Weights that are known when traced must not be negative."""
    if weights is None:
        return
    _check_real("weights", weights)
    known = known_value(weights)
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"weights must not be negative, got a smallest of {np.min(known)}")


def _taking_part(weights, where, shape, dtype) -> tuple[Array | None, Array | None]:
    """Weights, zero where masked, and which entries exist; each None where all are alike."""
    part = None if where is None else _broadcast("where", jnp.asarray(where), shape)
    if weights is not None:
        weights = _broadcast("weights", nan_if_negative(jnp.asarray(weights, dtype)), shape)
        weights = weights if part is None else jnp.where(part, weights, 0)
        part = weights != 0
    return weights, part


def nan_if_negative(weights):
    """What no weights can be shows in the result."""
    return jnp.where(weights >= 0, weights, jnp.nan)


def check_mask(where):
    """A mask of numbers is more likely a mistake than a mask."""
    if where is not None and (dtype := dtype_of("where", where)) != jnp.bool_:
        raise TypeError(f"where must be boolean, got {dtype}: compare with 0")


def _broadcast(name, value, shape):
    try:
        return jnp.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(f"{name} with shape {value.shape} does not broadcast to scores with shape {shape}") from None
