"""Arguments of operators, losses and decisions: checked, and brought into the form of the solver."""

import operator
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


def prepare(scores, k, temperature, groups: Groups, where, weights) -> tuple[Problem, Array | None]:
    """Check the arguments and bring them into the solver's form; also which entries exist, None for all."""
    dtype = jnp.result_type(scores)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"scores must be floating point, got {dtype}: convert them, for example to float32")
    shape = jnp.shape(scores)
    if not shape:
        raise ValueError("scores must have an axis to choose along, got a scalar")
    axis = _checked_axis(groups.axis, shape)
    groups = groups._replace(axis=axis)
    if shape[axis] == 0:
        raise ValueError(f"axis {axis} of scores with shape {shape} is empty: there is nothing to choose from")
    size = groups.size(shape)
    _check_numbers(k, temperature, None if weights is not None else size)

    dtype = jnp.promote_types(dtype, jnp.float32)
    scores = jnp.asarray(scores, dtype)
    weights = _weights(weights, dtype, shape)
    part = _takes_part(weights, where, shape)
    count: Any = size
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


def _checked_axis(axis, shape):
    axis = operator.index(axis)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} is not an axis of scores with shape {shape}")
    return axis % len(shape)


def _check_numbers(k, temperature, size):
    known = _known(k)
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"k must be in [0, n], got {_show(k)}")
    if known is not None and size is not None and not np.all(known <= size):
        raise ValueError(f"k must be at most n = {size}, the length of the axis, got {_show(k)}")
    check_temperature(temperature)


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


def _show(value) -> str:
    return np.array2string(np.asarray(value), threshold=8)


def _per_group(name, value, groups, shape, dtype):
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating) and not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{name} must be real, got {value.dtype}")
    axis, lanes = groups.axis, groups.lanes
    expected = (*shape[:axis], *shape[axis + 1 :])
    expected = expected if lanes == 1 else (*expected[:-1], expected[-1] // lanes)
    try:
        value = jnp.broadcast_to(value, expected)
    except ValueError:
        raise ValueError(
            f"{name} with shape {value.shape} does not broadcast to {expected}, the shape of scores without axis {axis}"
        ) from None
    return groups.spread(jnp.expand_dims(value.astype(dtype), axis))


def _weights(weights, dtype, shape):
    if weights is None:
        return None
    known = _known(weights)
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"weights must not be negative, got a smallest of {np.min(known)}")
    return _broadcast("weights", jnp.asarray(weights, dtype), shape)


def _takes_part(weights, where, shape):
    part = None if weights is None else weights > 0
    if where is not None:
        check_mask(where)
        where = _broadcast("where", jnp.asarray(where), shape)
        part = where if part is None else part & where
    return part


def check_mask(where):
    """A mask of numbers is more likely a mistake than a mask."""
    if jnp.result_type(where) != jnp.bool_:
        raise TypeError(f"where must be boolean, got {jnp.result_type(where)}")


def _broadcast(name, value, shape):
    try:
        return jnp.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(f"{name} with shape {value.shape} does not broadcast to scores with shape {shape}") from None
