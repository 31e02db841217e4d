"""The search for an order statistic: a bracket about it, and rounds that count and make it narrower.

Each round counts, in one pass, what is at and above two pivots, and finds the entries next to these: an end becomes an
entry wherever nothing is known to lie in between. The pivots lie about the place where the value would be if the
entries in the bracket were spread evenly, as far apart as chance would have it (Floyd and Rivest, `Expected time bounds
for selection`, Comm. ACM 18, 1975). If that leaves more than half of them, on one side, the next two are a guess nearer
to the other side and the middle of the keys. That comes in any case every few rounds, twice and so with the entries
beside it as ends, and bounds the number of rounds by the bits of a float. The first two lie about the quantile of a
normal sample of the same moments, which a few hundred of the entries have, without those that lie far from the rest.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from softbin._engine.counting import COUNT, LARGEST, LEAST, SUM, Layout, statistics
from softbin._engine.ranks import Ranked, keys, value_of
from softbin._engine.sums import Statistic

_MARGIN = 1.5  # standard deviations to both sides of where a value is expected
_UNEVEN = 1 / 16  # of what is in between, to both sides: where entries were not spread evenly, or weigh what is unknown
_PERIOD = 7  # every eighth round, by its bits, halves the keys in between
_SAMPLE = 512  # entries of a group, for the first two pivots
_TRIMMED = 4  # deviations from the mean, beyond which entries of the sample do not count for its spread
_MODERATE = 2.0**-14  # of the root of the largest float: squares of what is smaller, times their number, stay finite


class Sought(NamedTuple):
    """What of :class:`Found` is asked for, beside the key; what is not may save a round."""

    reached: bool = False
    above: bool = False
    ties: bool = False


class Bracket(NamedTuple):
    """Where the value is, by pairs and nothing else, of which compilers make a loop each.

    Where both ends are one, it is found.
    """

    ends: Int[Array, "2 ..."]  # keys: k or more reach the low one, and fewer are above the high one
    counts: Num[Array, "2 ..."]  # how many these are
    tries: Int[Array, "2 ..."]  # rounds; and the last of them that left the value on one side, with more than half
    pivots: Int[Array, "2 ..."]  # keys that are tried next

    @property
    def open(self) -> Bool[Array, "1 ..."]:
        """Whether there is more to do."""
        return self.ends[:1] < self.ends[1:]


class Search(NamedTuple):
    """What does not change from round to round."""

    ranked: Ranked
    k: Num[Array, "1 ..."]
    step: Float[Array, "1 ..."]  # from an end on, where there is none on the other side
    placing: Bool[Array, ""] | None  # whether keys are places, and not of floats; None for never
    sought: Sought


def run(search: Search, bracket: Bracket, more: Bool[Array, ""]) -> tuple[Bracket, Array]:
    """All groups, until each has its value; and whether there is more to do, which there is not."""
    if search.ranked.on_chip is not None:
        bracket = search.ranked.on_chip(search, bracket, more)
        return bracket, more & jnp.any(bracket.open)

    def improve(state: tuple) -> tuple:
        before, inside = state
        after = narrowed(search, before, _look(search, before.pivots, inside))
        return jax.tree.map(partial(jnp.where, before.open), after, before), jnp.any(before.open & after.open)

    return lax.while_loop(lambda state: state[1], improve, (bracket, more))


class Look(NamedTuple):
    """What a pass finds of two pivots."""

    of_left: Num[Array, "1 ..."]  # how many entries reach them
    of_right: Num[Array, "1 ..."]
    nan: Int[Array, "1 ..."]
    after: Int[Array, "1 ..."]  # the least that reaches the left one
    before: Int[Array, "1 ..."]  # the largest that does not reach the right one


def _look(search: Search, pivots: Int[Array, "2 ..."], inside: Bool[Array, ""]) -> Look:
    ranked, layout = search.ranked, search.ranked.layout
    found = statistics(asked(ranked, ranked.keys(inside), layout.spread(pivots)), layout)
    return Look(*(each[None] for each in answered(search, found)))


def asked(
    ranked: Ranked, entries: Int[Array, "..."], pivots: Iterable[Int[Array, "..."]]
) -> list[tuple[Statistic, Shaped[Array, "..."]]]:
    """The statistics of a pass; of keys that may be places, while ties are cut; that of NaN is the largest of all."""
    limits = jnp.iinfo(entries.dtype)
    left, right = (entries >= pivot for pivot in pivots)
    others = [(LEAST, jnp.where(left, entries, limits.max)), (LARGEST, jnp.where(right, limits.min, entries))]
    if ranked.masses is not None:  # of which it is known whether there is NaN
        return [*ranked.masses.sums(left, right), *others]
    counts = [(COUNT, left), (COUNT, right)]
    if ranked.weights is not None:
        counts = [(SUM, jnp.where(reach, ranked.weights, 0)) for reach in (left, right)]
    return [*counts, (COUNT, entries == limits.max), *others]


def answered(search: Search, found: Sequence[Num[Array, "..."]]) -> list[Num[Array, "..."]]:
    """The fields of a look, from the statistics."""
    masses = search.ranked.masses
    *counts, least, largest = found
    if masses is None:
        *reached, nan = counts
    else:
        reached, nan = masses.excess(counts, search.k.dtype), jnp.zeros(least.shape, jnp.int32)
    return [*(each.astype(search.k.dtype) for each in reached), nan, least, largest]


def narrowed(search: Search, bracket: Bracket, seen: Look) -> Bracket:
    """What follows from a pass: the value is above both pivots, between them, or below."""
    limits, sought = jnp.iinfo(bracket.ends.dtype), search.sought
    (bottom, top), (reached, above), (rounds, misses), (left, right) = (jnp.split(pair, 2) for pair in bracket)
    none_below = seen.before == limits.min  # then all that there is reaches k, if it is less by a rounding too
    if search.ranked.weights is not None:  # of which pivots before, between entries, may have missed it
        top = jnp.where(none_below & (seen.after < limits.max), jnp.maximum(top, seen.after), top)
    over, under = (seen.of_right >= search.k) | none_below, (seen.of_left < search.k) & ~none_below
    low = jnp.where(under, bottom, jnp.where(over, jnp.maximum(seen.after, right), seen.after))
    high = jnp.where(over, top, jnp.where(under, jnp.minimum(seen.before, left - 1), seen.before))
    low = jnp.minimum(low, top)  # a group without entries has none above a pivot
    between = reached - above
    reached = jnp.where(under, reached, jnp.where(over, seen.of_right, seen.of_left))
    above = jnp.where(over, above, jnp.where(under, seen.of_left, seen.of_right))
    left_over = reached - above
    missed = (over | under) & (left_over > between - left_over)
    if search.ranked.weights is None:  # an end of which the counts prove that it is the value, if it is an entry
        first = (search.k - above == 1) & (high == seen.before) & (not sought.reached)
        last = (reached == search.k) & (low == seen.after) & (not sought.above)
        low, high = jnp.where(first & ~last, high, low), jnp.where(last, low, high)
    ends = jnp.where(seen.nan > 0, limits.max, jnp.concatenate([low, high]))
    counts = jnp.concatenate([reached, above])
    tries = jnp.concatenate([rounds + 1, jnp.where(missed, misses + 1, 0)])
    after = Bracket(ends, counts, tries, bracket.pivots)
    return after._replace(pivots=_pivots(search, after))


def _pivots(search: Search, bracket: Bracket) -> Int[Array, "2 ..."]:
    """Where the value is expected, from both sides; after a miss, there and at the middle of the keys."""
    (low, high), (rounds, misses) = jnp.split(bracket.ends, 2), jnp.split(bracket.tries, 2)
    guesses = _expected(search, bracket)
    middle = (low & high) + ((low ^ high) >> 1)  # twice, and so with the entries beside it as ends
    halve = (rounds & _PERIOD == _PERIOD) | ~jnp.isfinite(guesses)
    pivots = keys(guesses)
    if search.placing is not None:
        pivots = jnp.where(search.placing, guesses.astype(low.dtype), pivots)
    both = jnp.concatenate([jnp.minimum(pivots[:1], middle), jnp.maximum(pivots[1:], middle)])
    pivots = jnp.clip(jnp.where(halve, middle, jnp.where(misses > 0, both, pivots)), low + 1, high)
    left, right = jnp.split(pivots, 2)
    pivots = jnp.concatenate([left, jnp.maximum(left, right)])  # which roundings may cross
    return pivots if search.ranked.weights is not None else _or_ends(pivots, bracket, search.k)


def _or_ends(pivots: Int[Array, "2 ..."], bracket: Bracket, k: Num[Array, "1 ..."]) -> Int[Array, "2 ..."]:
    """The end that is the value, or next to it, by the counts: with two pivots about it, it is found."""
    (low, high), (reached, above) = jnp.split(bracket.ends, 2), jnp.split(bracket.counts, 2)
    most, all_of_them = k - above == 1, k == reached
    beside = lax.broadcasted_iota(pivots.dtype, pivots.shape, 0)
    return jnp.where(most | all_of_them, jnp.where(most, high, low) + beside, pivots)


def _expected(search: Search, bracket: Bracket) -> Float[Array, "2 ..."]:
    """Where the value is if entries are spread evenly between the ends; if only one is known, beyond it."""
    (reached, above), (rounds, misses) = jnp.split(bracket.counts, 2), jnp.split(bracket.tries, 2)
    values = _value_in(search, bracket.ends)
    known = jnp.isfinite(values)
    (rises, falls), (bottom, top) = jnp.split(known, 2), jnp.split(jnp.where(known, values, 0), 2)
    m, rank = ((count - above).astype(top.dtype) for count in (reached, search.k))
    m = jnp.where(m > 0, m, 1)
    one, uneven = _weight_of_one(search, top), misses > 0
    if one is not None:
        rank = rank - 0.5 * one
        by_chance = _MARGIN * jnp.sqrt(jnp.maximum(rank * (m - rank) / m * one, 0))
        uneven = uneven if search.placing is None else uneven | search.placing
    margin = _UNEVEN * m if one is None else jnp.where(uneven, jnp.maximum(by_chance, _UNEVEN * m), by_chance)
    sides, growth = _sides(top), jnp.square(rounds * rounds).astype(top.dtype)
    shift = jnp.where(misses > 0, jnp.where(2 * rank < m, 1, -1), sides) * margin
    share = jnp.clip((rank + shift) / m, 0, 1)
    step = search.step * growth
    outside = jnp.where(rises, bottom + step * (1.25 - 0.75 * sides), top - step * (1.25 + 0.75 * sides))
    return jnp.where(rises & falls, top * (1 - share) + bottom * share, outside)


def _weight_of_one(search: Search, value: Float[Array, "..."]) -> Float[Array, "..."] | float | None:
    """What an entry of that value weighs; None where each has a weight of its own."""
    masses = search.ranked.masses
    if masses is None:
        return 1.0 if search.ranked.weights is None else None
    return masses.of_one(jnp.minimum(value - value_of(masses.ends[1], search.ranked.dtype), 0))


def _value_in(search: Search, key: Int[Array, "..."]) -> Float[Array, "..."]:
    value = value_of(key, search.ranked.dtype)
    return value if search.placing is None else jnp.where(search.placing, key.astype(value.dtype), value)


def _sides(like: Float[Array, "..."]) -> Float[Array, "2 ..."]:
    """Of the left pivot, at which more are reached, and of the right one."""
    return jnp.asarray([1, -1], like.dtype).reshape(2, *[1] * (like.ndim - 1))


# Where a search starts


def start(ranked: Ranked, k: Num[Array, "1 ..."]) -> tuple[Float[Array, "1 ..."], Bracket]:
    """The bracket of all floats, and the distance of its pivots."""
    guesses = _guesses(ranked, k) if ranked.masses is None else ranked.masses.guesses
    infinity = jnp.full(k.shape, keys(jnp.asarray(jnp.inf, ranked.dtype)))
    ends = jnp.concatenate([-infinity - 1, infinity]) if ranked.masses is None else ranked.masses.ends
    counts = jnp.concatenate([jnp.zeros_like(k) + jnp.asarray(ranked.size, k.dtype), jnp.zeros_like(k)])
    counts = counts if ranked.masses is None else counts - k
    bracket = Bracket(ends, counts, jnp.zeros_like(ends), jnp.clip(keys(guesses), ends[:1] + 1, ends[1:]))
    if ranked.weights is None:
        bracket = bracket._replace(pivots=_or_ends(bracket.pivots, bracket, k))
    return guesses[1:] - guesses[:1], bracket


def _guesses(ranked: Ranked, k: Num[Array, "1 ..."]) -> Float[Array, "2 ..."]:
    """About the quantile of a normal sample, from both sides."""
    dtype, layout, weighted = ranked.dtype, ranked.layout, ranked.weights is not None
    limits = jnp.finfo(dtype)
    values = layout.sample(ranked.entries, _SAMPLE)
    values = values if values.dtype == dtype else value_of(values, dtype)
    known = jnp.abs(values) < float(limits.max) ** 0.5 * _MODERATE
    weights = known.astype(dtype)
    if ranked.weights is not None:
        weights = jnp.where(known, layout.sample(ranked.weights, _SAMPLE), 0)
    values = jnp.where(known, values, 0)
    mean, deviation = _moments(values, weights, layout)
    differences = values - layout.spread(mean)
    near = jnp.abs(differences) <= _TRIMMED * layout.spread(deviation)
    shift, deviation = _moments(jnp.where(near, differences, 0), jnp.where(near, weights, 0), layout)
    mean, deviation = (mean + shift)[None], (deviation + 4 * limits.eps * jnp.abs(mean))[None]
    size = layout.groups.size(layout.shape)
    share = (k.astype(dtype) - (0 if weighted else 0.5)) / jnp.asarray(
        jnp.where(ranked.size > 0, ranked.size, 1), dtype
    )
    quantile = normal_quantile(jnp.clip(share, 0.5 / size, 1 - 0.5 / size))
    known_size = size if isinstance(size, int) else _SAMPLE
    error = _MARGIN / min(known_size, _SAMPLE) ** 0.5 * (1 + jnp.abs(quantile) / 2)
    return mean + deviation * (quantile - _sides(mean) * error)


def _moments(
    values: Float[Array, "..."], weights: Float[Array, "..."], layout: Layout
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The mean and the deviation of each group."""
    n, first, second = statistics([(SUM, each) for each in (weights, weights * values, weights * values**2)], layout)
    n = jnp.where(n > 0, n, 1)
    mean = first / n
    return mean, jnp.sqrt(jnp.maximum(second / n - mean * mean, 0) + 64 * jnp.finfo(mean.dtype).eps * mean * mean)


def normal_quantile(above: Float[Array, "..."]) -> Float[Array, "..."]:
    """That a share is above, within 0.04 up to 3.5 (Tukey's lambda distribution, for an eighth)."""
    lower, upper = jnp.split(jnp.sqrt(jnp.sqrt(jnp.sqrt(jnp.concatenate([1 - above, above])))), 2)
    return 5.42 * (lower - upper)


def start_at_places(bracket: Bracket, cut: Bool[Array, "*group"], layout: Layout) -> Bracket:
    """That of all positions, in groups of which a tie is cut; negative ones, that the first be the largest."""
    nowhere, zero = -jnp.iinfo(jnp.int32).max, jnp.zeros_like(bracket.ends[:1])
    ends = jnp.concatenate([zero - layout.groups.size(layout.shape), zero])
    counts = bracket.counts - bracket.counts[1:]
    return Bracket(
        jnp.where(cut[None], ends, nowhere), counts, jnp.zeros_like(ends), jnp.zeros_like(ends) + ends[:1] // 2
    )
