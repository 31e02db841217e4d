"""Arguments of operators, losses and decisions: checked, and brought into the form of the solver."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from softbin.groups import Groups


class Problem(NamedTuple):
    """Checked arguments in the form of the solver: of one real dtype, `k` and temperature as group arrays."""

    scores: Array
    k: Array
    temperature: Array
    weights: Array | None
    groups: Groups


def check(scores, k, temperature, where, weights, groups: Groups):
    """Refuse what is known to be wrong before anything is traced: dtypes, an empty group, values."""
    dtype = jnp.result_type(scores)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"scores must be floating point, got {dtype}: convert them, for example to float32")
    size = groups.size(jnp.shape(scores))
    if size == 0:
        raise ValueError(
            f"scores with shape {jnp.shape(scores)} are empty along {groups.axes}: there is nothing to choose from"
        )
    check_k(k, size if weights is None else None)
    check_temperature(temperature)
    check_weights(weights)
    check_mask(where)


def prepare(scores, k, temperature, groups: Groups, where, weights) -> tuple[Problem, Array | None]:
    """Bring arguments into the solver's form; also which entries exist, None for all. NaN for values out of range."""
    shape = jnp.shape(scores)
    dtype = jnp.promote_types(jnp.result_type(scores), jnp.float32)
    scores = jnp.asarray(scores, dtype)
    weights = None if weights is None else _broadcast("weights", jnp.asarray(weights, dtype), shape)
    part = _takes_part(weights, where, shape)
    count: Any = groups.size(shape)
    if part is not None:
        scores = jnp.where(part, scores, -jnp.inf)
        count = jnp.where(part, 1 if weights is None else weights, jnp.zeros((), dtype))
        count = groups.total(count)

    k = _per_group("k", k, groups, shape, dtype)
    temperature = _per_group("temperature", temperature, groups, shape, dtype)
    slack = 1 + 1e-6  # a budget summed in another order may exceed the count by a rounding
    k = jnp.where((k >= 0) & (k <= count * slack), k, jnp.nan)
    temperature = jnp.where((temperature > 0) & jnp.isfinite(temperature), temperature, jnp.nan)
    return Problem(scores, k, temperature, weights, groups), part


def split(k, scores, groups: Groups) -> tuple[Any, Array | None]:
    """A budget, and what a float of the solver lacks of its digits where it is known and the groups are that large."""
    known, dtype = _known(k), jnp.promote_types(jnp.result_type(scores), jnp.float32)
    if known is None or groups.size(jnp.shape(scores)) * jnp.finfo(dtype).eps < 1 / 2:
        return k, None
    rest = known - known.astype(dtype)
    return known.astype(dtype), jnp.expand_dims(jnp.asarray(rest, dtype), groups.axes) if rest.any() else None


def groups_along(axis, scores, axis_name=None) -> Groups:
    """The groups that an `axis` argument stands for: along one axis, several, or all where it is None."""
    shape = jnp.shape(scores)
    if not shape:
        raise ValueError("scores must have an axis to choose along, got a scalar")
    try:
        named = range(len(shape)) if axis is None else axis if isinstance(axis, Sequence) else [axis]
        named = [operator.index(axis) for axis in named]
    except TypeError:
        raise TypeError(f"axis must be an integer, a tuple of integers, or None for all axes, got {axis!r}") from None
    wrong = [axis for axis in named if not -len(shape) <= axis < len(shape)]
    if wrong:
        raise ValueError(f"axis {wrong[0]} is not an axis of scores with shape {shape}")
    axes = tuple(sorted({axis % len(shape) for axis in named}))
    if len(axes) != len(named) or not axes:
        raise ValueError(f"axis must name one axis or several different ones, got {axis}")
    return Groups(axes, axis_name)


def check_k(k, size=None):
    """A budget that is known when traced must be one, of groups of this size if all entries weigh 1."""
    known = _known(k)
    if known is not None and not _is_real(known.dtype):
        raise TypeError(f"k must be a real number or an array of them, got {k!r}: budgets are for losses and decisions")
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"k must be in [0, n], got {_show(k)}")
    if known is not None and size is not None and not np.all(known <= size):
        raise ValueError(f"k must be at most n = {size}, the length of the axis, got {_show(k)}")


def check_whole(k):
    """A budget that is known when traced must be whole where exactly so many entries are chosen."""
    known = _known(k)
    if known is not None and np.any(known != np.round(known)):
        raise ValueError(f"binary_argmax chooses exactly k entries: k must be whole, got {_show(k)}")


def check_temperature(temperature):
    """A temperature that is known when traced must be one."""
    known = _known(temperature)
    if known is not None and not (np.all(known > 0) and np.all(np.isfinite(known))):
        raise ValueError(
            f"temperature must be positive and finite, got {_show(temperature)}; "
            "for a hard choice use softbin.binary_argmax"
        )


def _known(value) -> np.ndarray | None:
    """The value in numpy, or None where it is traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def _is_real(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _show(value) -> str:
    return np.array2string(np.asarray(value), threshold=8)


def _per_group(name, value, groups, shape, dtype):
    value = jnp.asarray(value)
    if not _is_real(value.dtype):
        raise TypeError(f"{name} must be real, got {value.dtype}")
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
    known = None if weights is None else _known(weights)
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"weights must not be negative, got a smallest of {np.min(known)}")


def _takes_part(weights, where, shape):
    part = None if weights is None else weights > 0
    if where is not None:
        where = _broadcast("where", jnp.asarray(where), shape)
        part = where if part is None else part & where
    return part


def check_mask(where):
    """A mask of numbers is more likely a mistake than a mask."""
    if where is not None and jnp.result_type(where) != jnp.bool_:
        raise TypeError(f"where must be boolean, got {jnp.result_type(where)}")


def _broadcast(name, value, shape):
    try:
        return jnp.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(f"{name} with shape {value.shape} does not broadcast to scores with shape {shape}") from None
