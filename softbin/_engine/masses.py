"""Masses: what entries weigh, in whole numbers, of which sums are exact in any order, and so the same on every mesh.

A mass is a whole number of coarse units and one of fine units. A coarse unit is a power of two, about 2^-30 of what all
entries of a group weigh; a fine one is as small as a sum of so many of them allows. So what some entries weigh together
differs from the sum of their weights by at most 2^-25 of all, in groups of up to 2^18, by four times as much in those
twice as long; and entries of equal weight have equal masses.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from softbin._engine.counting import SUM, Layout, Statistic, statistics
from softbin._engine.groups import is_symbolic

_COARSE = 30  # bits of the coarse units of all
_BASE = 15  # bits of the fine units in a coarse one, where sums are compared
_DIGIT = 2**_BASE - 1
_UNKNOWN = 2**20  # entries, at most, where a program is made for any number of them


class Mass(NamedTuple):
    """Of some entries: coarse units, and fewer than 2^15 of which a coarse one has 2^15."""

    coarse: Int[Array, "..."]
    fine: Int[Array, "..."]

    def rounded(self, dtype: Any) -> Float[Array, "..."]:
        """In fine units."""
        return self.coarse.astype(dtype) * 2.0**_BASE + self.fine.astype(dtype)

    def share(self, share: Float[Array, "..."]) -> "Mass":
        """A share in (0, 1) of it, rounded up: that is exact, once the share is rounded up to units of 2^-30."""
        units = jnp.ceil(share * 2.0 ** (2 * _BASE)).astype(jnp.int32)
        by = units & _DIGIT, units >> _BASE
        of = self.fine, self.coarse & _DIGIT, self.coarse >> _BASE
        carry, digits = jnp.zeros_like(self.fine), []
        for place in range(5):  # by hand, since there may be no integers of 64 bits
            column = sum((of[place - i] * by[i] for i in (0, 1) if 0 <= place - i < 3), carry)
            digits.append(column & _DIGIT)
            carry = column >> _BASE
        rest = (digits[0] | digits[1]) > 0
        return Mass(digits[3] + (digits[4] << _BASE), digits[2] + rest.astype(jnp.int32))


class Units(NamedTuple):
    """How many coarse units a weight of 1 has, a power of two, and how many bits of fine units are summed."""

    coarse: Float[Array, "..."]
    bits: int

    def words(self, weights: Float[Array, "..."], layout: Layout) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
        """Of weights, laid out."""
        return _words(weights, layout.spread(self.coarse), self.bits)

    def total(self, words: tuple[Int[Array, "..."], Int[Array, "..."]], layout: Layout) -> Mass:
        """Of all entries of a group."""
        return self.mass(*statistics([(SUM, word) for word in words], layout))

    def mass(self, coarse: Int[Array, "..."], fine: Int[Array, "..."]) -> Mass:
        """Of the sums of words."""
        return _mass(coarse, fine, self.bits)


class Weighed(NamedTuple):
    """Entries with their masses, and the target that these are searched for.

    Attributes:
      words: the masses, laid out.
      units: that they are in.
      target: what is to be reached.
      ends: keys: all that weighs something reaches the first, and the second is that of the largest entry.
      guesses: two values about the one that is sought.
    """

    words: tuple[Int[Array, "..."], Int[Array, "..."]]
    units: Units
    target: Mass
    ends: Int[Array, "2 ..."]
    guesses: Float[Array, "2 ..."]

    def of_one(self, distance: Float[Array, "..."]) -> Float[Array, "..."]:
        """What an entry weighs that is so far from the largest, about."""
        return jnp.exp(distance) * (self.units.coarse * 2.0**_BASE)

    def sums(self, *conditions: Bool[Array, "..."]) -> list[tuple[Statistic, Int[Array, "..."]]]:
        """What to ask of a pass, for :meth:`excess`."""
        return [(SUM, jnp.where(condition, word, 0)) for condition in conditions for word in self.words]

    def excess(self, sums: list[Int[Array, "..."]], dtype: Any) -> list[Float[Array, "..."]]:
        """Over the target, for each condition: rounded, but of the right sign, and 0 where it is met exactly."""
        found = [self.units.mass(*sums[place : place + 2]) for place in range(0, len(sums), 2)]
        return [Mass(*(a - b for a, b in zip(mass, self.target, strict=True))).rounded(dtype) for mass in found]


def units_for(
    weights: Float[Array, "..."], values: Float[Array, "..."], layout: Layout
) -> tuple[Units, list[Float[Array, "..."]]]:
    """The units for weights in [0, 1], laid out, and what tells of the distribution of values.

    They come from a first sum, in units that would do if all weights were 1: that too is exact.

    Returns:
      The units; and the sums of weights, of their products with the values and with their squares, and of their own
      squares, in floats.
    """
    n = layout.groups.size(layout.shape)
    digits = math.ceil(math.log2(_UNKNOWN if is_symbolic(n) else max(n, 2)))
    bits = max(min(_BASE, 31 - digits), 0)
    alone = 2.0 ** (_COARSE - digits)
    moments = weights, weights * values, weights * values * values, weights * weights
    coarse, fine, *found = statistics([(SUM, each) for each in (*_words(weights, alone, bits), *moments)], layout)
    known = _mass(coarse, fine, bits).rounded(weights.dtype) * 2.0**-_BASE
    most = (known + 2.0 ** (digits - bits)) * (1 + 2.0**-20)  # with all that was rounded off
    return Units(_power_below(2.0**_COARSE / most) * alone, bits), found


def _words(weights: Float[Array, "..."], units: Any, bits: int) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Rounded to fine units; all but that is exact, whichever operations compilers make one."""
    weights = weights * units
    coarse = jnp.floor(weights)
    return coarse.astype(jnp.int32), _rounded((weights - coarse) * 2.0**bits)


def _mass(coarse: Int[Array, "..."], fine: Int[Array, "..."], bits: int) -> Mass:
    """Of the sums of words, of which that of the fine ones may need the bit of the sign."""
    fine = fine.astype(jnp.uint32)
    carry, rest = fine >> bits, fine & (2**bits - 1)
    return Mass(coarse + carry.astype(jnp.int32), (rest << (_BASE - bits)).astype(jnp.int32))


def _rounded(values: Float[Array, "..."]) -> Int[Array, "..."]:
    """The nearest integers, of values between 0 and 2^15: the digits that a sum with a large number is left with."""
    limits = jnp.finfo(values.dtype)
    kind, large = jnp.dtype(f"int{limits.bits}"), jnp.asarray(2.0**limits.nmant, values.dtype)
    digits = lax.bitcast_convert_type(values + large, kind) - lax.bitcast_convert_type(large, kind)
    return digits.astype(jnp.int32)


def _power_below(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The largest power of two that is less or equal, of normal positive numbers."""
    limits = jnp.finfo(values.dtype)
    bits = lax.bitcast_convert_type(values, jnp.dtype(f"int{limits.bits}"))
    return lax.bitcast_convert_type(bits >> limits.nmant << limits.nmant, values.dtype)
