"""Arguments of truncations and draws: refused where they are known to be wrong, and brought into the engine's form."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real, UInt32

from softbin._engine.arguments import as_computed, convert, groups_along
from softbin._engine.checks import (
    check_entries,
    check_per_group,
    check_real,
    check_temperature,
    known_value,
)
from softbin._engine.groups import Groups
from softbin._engine.shares import brief, show
from softbin._engine.truncations import Limits, divided

_GREEDY = 1e-5  # temperatures below it stand for 0
_ALL = -1  # keeps all, as 0 does: what vLLM and sglang write, also into the arrays of a batch
_OPTIONAL = ("top_k", "top_p", "min_p")
_MOST = np.iinfo(np.int32).max


class Settings(NamedTuple):
    """Numbers for each row, or for all; None for what is off."""

    temperature: Real[ArrayLike, "..."] | None = None
    k: Real[ArrayLike, "..."] | None = None
    p: Real[ArrayLike, "..."] | None = None
    least: Real[ArrayLike, "..."] | None = None


class Prepared(NamedTuple):
    """The arguments of :func:`softbin._engine.truncations.truncate`.

    Attributes:
      scores: `-inf` where there is no token; NaN in rows of which a number is out of range.
      limits: as group arrays.
      temperature: that scores are still to be divided by; None for 1.
    """

    scores: Float[Array, "*shape"]
    limits: Limits
    temperature: Float[Array, "*group"] | None


def checked(
    logits: Any, where: Any, ties: Any, axis: Any, axis_name: Any, *, least_is_p: bool = False, **numbers: Any
) -> tuple[Groups, Settings]:
    """The rows, and what is asked for, by the names that the caller gives: `k` or `top_k`, `p` or `top_p`, `min_p`.

    The `min_p` of a caller whose only share it is has the name `p`.
    """
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"axis must be an integer, got {brief(axis)}")
    groups = groups_along(axis, logits, axis_name, "logits")
    check_entries("logits", logits, where, None, groups)
    if ties not in ("keep", "first"):
        raise ValueError(f"ties must be 'keep' or 'first', got {brief(ties)}")
    found: dict[str, Any] = {}
    for name, number in numbers.items():
        if number is None and name in _OPTIONAL and not least_is_p:
            continue
        role = {"temperature": "temperature", "k": "k", "top_k": "k", "p": "p", "top_p": "p"}.get(name, "least")
        name = "p" if least_is_p and role == "least" else name
        _CHECKS[role](name, number)
        check_per_group(name, number, "logits", logits, groups)
        found[role] = _unless_off(role, number, groups.size(jnp.shape(logits)))
    return groups, Settings(**found)


def check_order(temperature_last: Any) -> None:
    """Refuse an order that is neither the one nor the other."""
    if not isinstance(temperature_last, bool | np.bool_):
        raise TypeError(f"temperature_last must be True or False, got {brief(temperature_last)}")


def _check_count(name: str, number: Any) -> None:
    check_real(name, number)
    known = known_value(number)
    if known is None:
        return
    if not np.all(np.round(known) >= _ALL):
        raise ValueError(f"{name} must not be less than {_ALL}, got {show(number)}: 0 and {_ALL} keep all tokens")
    if not isinstance(number, jax.Array) and not np.array_equal(known, np.round(known)):
        raise ValueError(f"{name} is a number of tokens and must be whole, got {show(number)}")


def _check_mass(name: str, number: Any) -> None:
    check_real(name, number)
    known = known_value(number)
    if known is not None and not np.all(known > 0):
        remedy = ", and top_k=1 the largest" if name == "top_p" else ""
        raise ValueError(f"{name} must be positive, got {show(number)}: 1 keeps all tokens{remedy}")


def _check_least(name: str, number: Any) -> None:
    check_real(name, number)
    known = known_value(number)
    if known is not None and not np.all((known >= 0) & (known <= 1)):
        raise ValueError(f"{name} must be in [0, 1], got {show(number)}: 0 keeps all tokens")


_CHECKS = {
    "temperature": lambda name, number: check_temperature(number, zero=True, remedy=": 0 takes the most likely token"),
    "k": _check_count,
    "p": _check_mass,
    "least": _check_least,
}
_OFF = {
    "temperature": lambda known, size: known == 1,
    "k": lambda known, size: np.isin(np.round(known), (0, _ALL)) | (known >= size),
    "p": lambda known, size: known >= 1,
    "least": lambda known, size: known == 0,
}


def _unless_off(role: str, number: Any, size: Any) -> Any:
    """None for a concrete number that changes nothing."""
    known = known_value(number)
    if known is None or not isinstance(size, int) or not np.all(_OFF[role](known.astype(np.float64), size)):
        return number
    return None


def prepare(
    logits: Any, where: Any, settings: Settings, groups: Groups, *, greedy: bool, temperature_last: bool = False
) -> Prepared:
    """In float32 or wider. Rows with a number out of range become NaN, which only that row sees."""
    scores = as_computed(logits)
    shape, dtype = scores.shape, scores.dtype
    if where is not None:
        scores = jnp.where(jnp.broadcast_to(where, shape), scores, -jnp.inf)
    single, valid, limits = None, [], Limits()
    temperature = _per_row(settings.temperature, groups, shape, dtype)
    if temperature is not None:
        usable = (temperature >= 0) & jnp.isfinite(temperature)
        valid.append(usable)
        single = temperature < _GREEDY if greedy else None
        temperature = jnp.where(usable & (temperature >= _GREEDY), temperature, 1)
    if settings.k is not None:
        k = _count(settings.k, groups, shape)
        valid.append(k >= _ALL)
        limits = limits._replace(k=k)
    if (p := _per_row(settings.p, groups, shape, dtype)) is not None:
        valid.append(p > 0)
        limits = limits._replace(p=p)
    if (least := _per_row(settings.least, groups, shape, dtype)) is not None:
        valid.append((least >= 0) & (least <= 1))
        limits = limits._replace(least=least)
    for each in valid:
        scores = jnp.where(each, scores, jnp.nan)
    if temperature is not None and not temperature_last:
        scores, temperature = divided(scores, temperature), None
    return Prepared(scores, limits._replace(single=single), temperature)


def may_be_greedy(settings: Settings) -> bool:
    """Whether a row may take its largest alone, which its temperature says."""
    known = None if settings.temperature is None else known_value(settings.temperature)
    return settings.temperature is not None and (known is None or bool(np.any(known < _GREEDY)))


def _per_row(number: Any, groups: Groups, shape: tuple[Any, ...], dtype: Any) -> Float[Array, "*group"] | None:
    if number is None:
        return None
    return jnp.expand_dims(jnp.broadcast_to(convert(number, dtype), groups.without(shape)), groups.axes)


def _count(number: Any, groups: Groups, shape: tuple[Any, ...]) -> Int[Array, "*group"]:
    """Floats are rounded half to even; -2 for what is less than -1, or NaN."""
    number = jnp.asarray(number)
    if jnp.issubdtype(number.dtype, jnp.floating):
        number = jnp.round(as_computed(number))
        number = jnp.where(number >= _ALL, jnp.minimum(number, 2.0**30), _ALL - 1)
    elif jnp.issubdtype(number.dtype, jnp.unsignedinteger):
        number = jnp.minimum(number, np.asarray(min(_MOST, np.iinfo(number.dtype).max), number.dtype))
    elif number.dtype.itemsize > 4:
        number = jnp.clip(number, _ALL - 1, _MOST)
    number = jnp.maximum(number.astype(jnp.int32), _ALL - 1)
    return jnp.expand_dims(jnp.broadcast_to(number, groups.without(shape)), groups.axes)


# Keys of random numbers


def key_words(key: Any, logits: Any, groups: Groups) -> tuple[UInt32[Array, "..."], Any]:
    """The words of a key, or of one for each row, and the name of their generator, None for JAX's default."""
    remedy = "make one by jax.random.key(0), or one for each row by jax.random.split"
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"key must be a random key, got {brief(key)}: {remedy}")
    rows = groups.without(jnp.shape(logits))
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        impl: Any = jax.random.key_impl(key)
        words, shape = jax.random.key_data(key), key.shape
    else:
        default = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        if key.dtype != jnp.uint32 or key.ndim == 0 or key.shape[-1] != default.shape[-1]:
            raise TypeError(f"key must be a random key, got {key.dtype} of shape {key.shape}: {remedy}")
        impl, words, shape = None, jnp.asarray(key), key.shape[:-1]
    if shape not in ((), rows):
        raise ValueError(f"key must be one key, or one for each row, of shape {rows}, got shape {shape}")
    return words, impl
