"""Checks: what is known to be wrong when a function is called is refused, in the words of its caller.

Each takes the name that the argument has in the function that was called. What is only known at run time gives NaN.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softbin._engine.groups import Groups, is_symbolic
from softbin._engine.shares import Share, brief, looks_like_shares, show
from softbin.regularizers import Regularizer

_LEAST_BITS = 16  # of a float: narrower ones have no infinity, or no digits to rank by
_GATES = "softmax", "sigmoid"


def dtype_of(name: str, value: Any) -> Any:
    """The dtype that JAX gives an array or a number, of which lists and strings are neither."""
    if value is not None and not isinstance(value, str | type | np.dtype):  # which may be or name a dtype
        with contextlib.suppress(TypeError, ValueError):
            return jnp.result_type(value)
    remedy = "" if value is None else ": convert it, for example with jnp.asarray"
    raise TypeError(f"{name} must be an array or a number, got {brief(value)}{remedy}")


def check_floating(name: str, value: Any) -> None:
    """Integers are more likely class numbers than scores, and 8 bits are too few to search in."""
    dtype = dtype_of(name, value)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {dtype}: convert them, for example to float32")
    if jnp.finfo(dtype).bits < _LEAST_BITS:
        raise TypeError(f"{name} must have 16 bits or more, got {dtype}: convert them, for example to bfloat16")


def check_regularizer(regularizer: Any) -> None:
    """Refuse what is no regularizer, such as its name."""
    if not isinstance(regularizer, Regularizer):
        raise TypeError(
            "regularizer must be softbin.euclidean, softbin.binary_entropy or another Regularizer, got "
            + brief(regularizer)
        )


def check_axis_name(axis_name: Any, argument: str = "axis_name") -> None:
    """Refuse a name that no mapped axis has here."""
    if axis_name is None:
        return
    try:
        hash(axis_name)
        lax.psum(1, axis_name)
    except (NameError, TypeError, ValueError):
        raise ValueError(
            f"{argument} must be the name of a mapped axis, or a tuple of names, got {brief(axis_name)}: call inside "
            "of jax.shard_map or jax.vmap with that name"
        ) from None


def check_entries(name: str, entries: Any, where: Any, weights: Any, groups: Groups) -> None:
    """Refuse entries that are not floating point or empty, and a mask or weights that do not fit them."""
    check_floating(name, entries)
    shape = jnp.shape(entries)
    if groups.size(shape) == 0:
        are, axes = "are" if name.endswith("s") else "is", ", ".join(map(str, groups.axes))
        raise ValueError(f"{name} with shape {shape} {are} empty along axis {axes}: there is nothing to choose from")
    check_mask(where)
    check_weights(weights)
    for argument, value in (("where", where), ("weights", weights)):
        if value is not None and not broadcasts(jnp.shape(value), shape):
            raise ValueError(
                f"{argument} with shape {jnp.shape(value)} does not broadcast to {name} with shape {shape}"
            )


def check_per_group(argument: str, value: Any, name: str, entries: Any, groups: Groups) -> None:
    """Refuse a number for each group that is not one for each group of the entries."""
    shape, expected = np.shape(value), groups.without(jnp.shape(entries))
    if not broadcasts(shape, expected):
        raise ValueError(
            f"{argument} with shape {shape} does not broadcast to {expected}, the shape of {name} without axis "
            + ", ".join(map(str, groups.axes))
        )


def broadcasts(shape: Sequence[Any], to: Sequence[Any]) -> bool:
    """Whether an array of one shape broadcasts to another; lengths that are symbolic are left to JAX."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(is_symbolic(a) or is_symbolic(b) or a in (1, b) for a, b in pairs)


def check_k(k: Any, name: str, entries: Any, groups: Groups, weights: Any = None) -> None:
    """Refuse a real number of entries, or what they weigh, that is known to be out of range."""
    if isinstance(k, Share):
        check_per_group("k", k.shares, name, entries, groups)
        return
    check_amount("k", k)
    check_per_group("k", k, name, entries, groups)
    known, size = known_value(k), groups.size(jnp.shape(entries))
    if weights is None and known is not None and not is_symbolic(size) and not np.all(known <= size):
        raise ValueError(f"k must be at most n = {size}, the length of the axis, got {show(k)}")


def check_amount(argument: str, amount: Any) -> None:
    """Refuse an amount of entries that is no number, or known to be negative or NaN."""
    if callable(amount):
        raise TypeError(
            f"{argument} must be a number, an array, or a share such as softbin.budgets.fraction(0.5), got "
            + brief(amount)
        )
    check_real(argument, amount)
    known = known_value(amount)
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"{argument} must be in [0, n], got {show(amount)}")


def check_no_bare_share(k: Any) -> None:
    """Refuse a number of entries between 0 and 1 where an entry is the least that there is to take."""
    known = None if isinstance(k, Share) or callable(k) else known_value(k)
    if known is not None and is_real(known.dtype) and looks_like_shares(known):
        remedy = f"pass softbin.budgets.{'prior' if known.ndim else 'fraction'}({show(k)})"
        raise ValueError(f"k is a number of entries, and {show(k)} looks like a share of them: {remedy}")


def check_whole(k: Any) -> None:
    """Refuse a Python or NumPy number that is not whole; a JAX array, as schedules give it, is rounded."""
    if isinstance(k, Share | jax.Array) or callable(k):
        return
    check_real("k", k)
    known = known_value(k)
    if known is not None and not np.array_equal(known, np.round(known), equal_nan=True):
        raise ValueError(f"exactly k entries are chosen: k must be whole, got {show(k)}")


def check_positive(k: Any) -> None:
    """Refuse a mean or a measure of no entries."""
    shares = isinstance(k, Share)
    known = None if callable(k) and not shares else known_value(k.shares if shares else k)
    if known is not None and is_real(known.dtype) and not np.all(known > 0):
        raise ValueError(f"k must be positive: there has to be an entry to take, got {show(known)}")


def check_taken(k: Any, name: str, entries: Any, groups: Groups, weights: Any) -> None:
    """Refuse a `k` of a mean or a measure, real and positive: of no entries there is neither."""
    check_positive(k)
    if weights is None:
        check_no_bare_share(k)
    check_k(k, name, entries, groups, weights)


def check_temperature(temperature: Any, *, zero: bool = False, remedy: str = "") -> None:
    """Refuse a temperature that is known not to be positive and finite, or, where that means something, zero."""
    check_real("temperature", temperature)
    known = known_value(temperature)
    if known is not None and not (np.all((known >= 0) if zero else (known > 0)) and np.all(np.isfinite(known))):
        allowed = "0, or positive and finite" if zero else "positive and finite"
        raise ValueError(f"temperature must be {allowed}, got {show(temperature)}{remedy}")


def is_zero_temperature(temperature: Any) -> bool:
    """Whether all temperatures are known to be 0."""
    known = known_value(temperature)
    if known is None:
        return False
    zero = known == 0
    if np.any(zero) and not np.all(zero):
        raise ValueError(f"temperature must be 0 for every group or positive for every group, got {temperature}")
    return bool(np.all(zero))


def check_weights(weights: Any) -> None:
    """Refuse weights that are known to be negative."""
    if weights is None:
        return
    check_real("weights", weights)
    known = known_value(weights)
    if known is not None and not np.all(known >= 0):
        raise ValueError(f"weights must not be negative, got {np.min(known)} as the smallest")


def check_mask(where: Any) -> None:
    """A mask of numbers is more likely a mistake than a mask."""
    if where is not None and (dtype := dtype_of("where", where)) != jnp.bool_:
        raise TypeError(f"where must be boolean, got {dtype}: convert it, for example by where != 0")


def check_router(scores: Any, bias: Any, k: Any, where: Any, name: str = "scores") -> None:
    """Refuse scores of experts, a bias and a mask of tokens that do not fit, and a number of experts that cannot be."""
    check_floating(name, scores)
    check_floating("bias", bias)
    check_mask(where)
    shape = jnp.shape(scores)
    if len(shape) < 2 or jnp.shape(bias) != shape[-1:]:
        raise ValueError(
            f"{name} must be (..., experts) and bias (experts,), got shapes {shape} and {jnp.shape(bias)}"
            + (f": for one token pass {name}[None]" if len(shape) == 1 else "")
        )
    if where is not None and jnp.shape(where) != shape[:-1]:
        raise ValueError(f"where with shape {jnp.shape(where)} must have one entry per token: shape {shape[:-1]}")
    check_experts(shape[-1], k)


def check_experts(num_experts: int, k: Any) -> None:
    """Refuse what is no number of experts to choose: with none or all of them there is nothing to balance."""
    if not is_numeric(k):
        raise TypeError(f"k must be the number of experts that a token chooses, got {brief(k)}")
    if jnp.shape(k):
        raise ValueError(f"k must be one number, for all tokens, got the shape {jnp.shape(k)}")
    known = known_value(k)
    if known is None:
        return
    if not isinstance(k, jax.Array) and known != np.round(known):
        raise ValueError(f"a token chooses exactly k experts: k must be whole, got {k}")
    if not 1 <= np.round(known) < num_experts:
        raise ValueError(f"k must be at least 1 and less than the number of experts, {num_experts}, got {k}")


def check_gate(gate: Any, scale: Any = 1.0) -> None:
    """Refuse a gate that is none, and a scale that is known not to be positive."""
    if gate not in _GATES:
        raise ValueError(f'gate must be "{_GATES[0]}" or "{_GATES[1]}", got {brief(gate)}')
    if not is_numeric(scale) or jnp.shape(scale):
        raise TypeError(f"scale must be a positive number, got {brief(scale)}")
    known = known_value(scale)
    if known is not None and not 0 < known < np.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")


def check_size(argument: str, size: Any) -> None:
    """Refuse what is no length of an axis with entries."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise TypeError(f"{argument} must be a whole number, got {brief(size)}")
    if size < 1:
        raise ValueError(f"{argument} must be at least 1, got {size}")


def check_real(argument: str, value: Any) -> None:
    """Refuse what is no real number and no array of them; truth values are none."""
    dtype = dtype_of(argument, value)
    if not is_real(dtype):
        raise TypeError(f"{argument} must be real, got {dtype}: convert it, for example to float32")


def is_numeric(value: Any) -> bool:
    """Whether a value is a real number, or an array of them."""
    try:
        return is_real(dtype_of("value", value))
    except TypeError:
        return False


def is_real(dtype: Any) -> bool:
    """Whether it is of real numbers; truth values are none."""
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def known_value(value: Any) -> np.ndarray | None:
    """The value in numpy, or None where it is traced or a share, of what is counted at run time."""
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))
    return None if traced or isinstance(value, Share) else np.asarray(value)
