"""Ranks of quantiles: the exact product of a level, as it is stored, and a number of entries.

Floats have too few digits for it: of 2^24 entries and more, a float32 product is off by whole ranks. So a level is
written in base 4096, as fixed-point digits, and multiplied digit by digit as on paper: a digit times a number of up to
31 bits, in two steps, stays within 32 bits. What is less than the last digit shows in it, if only as a one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from softbin._engine.arguments import as_computed

METHODS = ("linear", "lower", "higher", "midpoint", "nearest", "inverted_cdf")
DIGITS = 16  # after the point: 192 bits hold every level above 2^-139 whole
_BITS = 12
_BASE = 2**_BITS
_LAST = _BASE - 1  # of all digits
_EVEN = 2.0**-60  # what is as much more than a float is that float, and hundredths have no last digit


class Level(NamedTuple):
    """A level, as it is stored.

    Attributes:
      digits: the whole part, and what is after the point, on the last axis.
      valid: whether it was in range; else it is 0 here.
      q: that has derivatives; None where it was known.
    """

    digits: Integer[ArrayLike, "... 17"]
    valid: Bool[ArrayLike, "*levels"]
    q: Float[Array, "*levels"] | None


class Rank(NamedTuple):
    """Between which entries a quantile lies.

    Attributes:
      below: how many entries are below the lower one.
      digits: how far it is from that to the next one, on the first axis.
      fraction: as a float, which has the derivative.
    """

    below: Integer[Array, "*group"]
    digits: Integer[Array, "16 ..."]
    fraction: Float[Array, "*group"]


def known_level(q: np.ndarray) -> Level:
    """Levels that are known, and in range, to the digits of float64."""
    rest = q.astype(np.float64)
    digits = []
    for _ in range(DIGITS + 1):
        digits.append(np.floor(rest))
        rest = (rest - digits[-1]) * _BASE
    digits[-1] = np.where(rest > 0, digits[-1].astype(np.int64) | 1, digits[-1])
    return Level(np.stack(digits, -1).astype(np.uint32), np.ones(q.shape, bool), None)


def traced_level(q: Real[Array, "*levels"], most: int) -> Level:
    """Levels that are known when the program runs only. A loop reads them once: they decide what is counted."""
    q = as_computed(q if jnp.issubdtype(q.dtype, jnp.floating) else q.astype(jnp.float32))
    valid = (q >= 0) & (q <= most)

    def split(rest: Array, _: None) -> tuple[Array, Array]:
        digit = jnp.floor(rest)
        return (rest - digit) * _BASE, digit.astype(jnp.uint32)

    _, digits = lax.scan(split, lax.stop_gradient(jnp.where(valid, q, 0)), None, DIGITS + 1)
    return Level(jnp.moveaxis(digits, 0, -1), valid, q)


def place(level: Level, size: Integer[Array, "*group"], method: str, divisor: int, dtype: Any) -> Rank:
    """Where the quantile of a level lies among so many entries; `divisor` is 100 for percentiles."""
    count = size if method == "inverted_cdf" else size - 1
    index, digits = _product(jnp.asarray(level.digits), jnp.maximum(count, 0).astype(jnp.uint32), divisor)
    index = index.astype(jnp.int32)
    first, beyond = digits[0], jnp.any(digits[1:] > 0, 0)
    half, more = _BASE // 2, (first > 0) | beyond
    match method:
        case "higher":
            index = index + more.astype(jnp.int32)
        case "nearest":  # of two that are equally near the one of an even rank, as NumPy rounds
            odd = (index & 1) == 1
            index = index + ((first > half) | ((first == half) & (beyond | odd))).astype(jnp.int32)
        case "inverted_cdf":
            index = jnp.maximum(index - (~more).astype(jnp.int32), 0)
        case "midpoint":
            digits = jnp.zeros_like(digits).at[0].set(jnp.where(more, half, 0).astype(digits.dtype))
    places = np.ldexp(1.0, -_BITS * np.arange(1, DIGITS + 1)).astype(dtype)
    fraction = jnp.sum(digits.astype(dtype) * places.reshape(-1, *[1] * (digits.ndim - 1)), 0)
    if method == "linear" and level.q is not None:
        fraction = _with_slope(fraction, level.q.astype(dtype), count.astype(dtype) / divisor)
    return Rank(index, digits, fraction)


@jax.custom_jvp
def _with_slope(fraction: Array, q: Array, slope: Array) -> Array:
    """The fraction of a rank, with its derivative by the level."""
    del q, slope
    return fraction


_with_slope.defjvps(None, lambda change, _, fraction, q, slope: slope * change, None)


def _product(
    level: Integer[Array, "17"], count: Integer[Array, "*group"], divisor: int
) -> tuple[Integer[Array, "*group"], Integer[Array, "16 ..."]]:
    """The whole part, and the digits after the point, of a level times a count, divided by a small number."""

    def multiply(carry: Array, digit: Array) -> tuple[Array, Array]:
        low = digit * (count & _LAST) + (carry & _LAST)
        return digit * (count >> _BITS) + (carry >> _BITS) + (low >> _BITS), low & _LAST

    def divide(rest: Array, digit: Array) -> tuple[Array, Array]:
        rest = rest * _BASE + digit
        return rest % divisor, rest // divisor

    whole, digits = lax.scan(multiply, level[0] * count * 0, level, reverse=True)
    if divisor > 1:
        rest, digits = lax.scan(divide, whole % divisor, digits)
        whole = whole // divisor
        digits = digits.at[-1].set(digits[-1] | (rest > 0).astype(digits.dtype))
    return whole * _BASE + digits[0], digits[1:]


# Interpolation


def interpolate(
    low: Float[Array, "*group"], high: Float[Array, "*group"], digits: Integer[Array, "16 ..."]
) -> Float[Array, "*group"]:
    """`low + (high - low) f` to one ulp, where `f` has these digits; between the two, which may be infinite.

    Between a finite and an infinite end it is infinite, and between two infinite ones NaN.
    """
    inside = jnp.any(digits > 0, 0)
    finite = jnp.isfinite(low) & jnp.isfinite(high)
    value, _ = _combine(jnp.where(finite, low, 0), jnp.where(finite, high, 0), digits)
    value = jnp.clip(value, low, high)
    beyond = jnp.where(low == high, low, low + high)  # infinite, or NaN
    return jnp.where(inside, jnp.where(finite, value, beyond), low)


def share(total: Float[Array, "*group"], level: Integer[ArrayLike, "17"], divisor: int) -> Float[Array, "*group"]:
    """The least float that is at least a level times a total; one that is it but for the last of its digits counts."""
    level = jnp.asarray(level)
    _, digits = _product(level, jnp.ones_like(level[0]), divisor)
    digits = jnp.broadcast_to(jnp.expand_dims(digits, range(1, 1 + total.ndim)), (DIGITS, *total.shape))
    value, rest = _combine(jnp.zeros_like(total), total, digits)
    value = jnp.where(rest > value * _EVEN, jnp.nextafter(value, jnp.full_like(value, jnp.inf)), value)
    return jnp.where(level[0] == divisor, total, value)


def _combine(
    low: Float[Array, "*group"], high: Float[Array, "*group"], digits: Integer[Array, "16 ..."]
) -> tuple[Float[Array, "*group"], Float[Array, "*group"]]:
    """`low + (high - low) f`, rounded, and what that is short of.

    Added up digit by digit in three floats, of which each has what the one before it lost. A digit has 12 bits, and a
    half of a float as many or, of float64, 27: products are exact, and so the same whether or not a compiler makes one
    operation of a product and a sum. The larger end is first brought to about 2^100, so that none of them is subnormal.
    """
    down, up = _scales(jnp.maximum(jnp.abs(low), jnp.abs(high)))
    low, high = (end * up[0] * up[1] for end in (low, high))
    halves = jnp.stack([*_halves(high), *(-half for half in _halves(low))])

    def add(state: tuple, digit: Array) -> tuple[tuple, None]:
        halves, sums = state
        halves = halves / _BASE
        for half in halves:
            sums = _added(sums, half * digit.astype(half.dtype))
        return (halves, sums), None

    zero = (low + high) * 0 * digits[0].astype(low.dtype)
    (_, sums), _ = lax.scan(add, (halves, (low + zero, zero, zero)), digits)
    middle, last = _two_sum(*sums[1:])
    value, middle = _two_sum(sums[0], middle)
    middle, last = _two_sum(middle, last)
    value, rest = _two_sum(value, middle)
    value, rest = (part * down[0] * down[1] for part in (value, rest + last))
    return value, rest


def _added(sums: tuple[Array, Array, Array], term: Array) -> tuple[Array, Array, Array]:
    first, second, third = sums
    first, rest = _two_sum(first, term)
    second, rest = _two_sum(second, rest)
    return first, second, third + rest


def _two_sum(a: Float[Array, "..."], b: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """A sum, and what it lost by rounding, exactly (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _halves(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """A float as the sum of two, of half as many bits; cut by a mask, since compilers fuse the arithmetic that does."""
    integer, low = (jnp.int32, 12) if x.dtype == jnp.float32 else (jnp.int64, 26)
    upper = lax.bitcast_convert_type(lax.bitcast_convert_type(x, integer) & -(2**low), x.dtype)
    return upper, x - upper


def _scales(most: Float[Array, "*group"]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Powers of two that bring a number from about 2^100 to its size, and back; as pairs, that none overflows."""
    limits = jnp.finfo(most.dtype)
    integer = jnp.dtype(f"int{limits.bits}")
    bias = limits.maxexp - 1
    exponent = (lax.bitcast_convert_type(most, integer) >> limits.nmant) - bias
    half = (100 - exponent) >> 1

    def power(exponent: Array) -> Array:
        return lax.bitcast_convert_type((exponent + bias) << limits.nmant, most.dtype)

    other = 100 - exponent - half
    return (power(-half), power(-other)), (power(half), power(other))
