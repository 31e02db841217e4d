"""Truncations of distributions: which entries are left by their rank, by mass, and beside the largest.

All of it happens in the turn of a loop that is given the scores: so they are worked out once, and what is counted of
them is what is compared in the end. See `softbin._engine.order_statistics`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from softbin._engine import meshes, order_statistics, ranks
from softbin._engine.brackets import Sought, normal_quantile
from softbin._engine.counting import COUNT, LARGEST, LEAST, SUM, Layout, statistics
from softbin._engine.groups import Groups
from softbin._engine.masses import Weighed, units_for
from softbin._engine.order_statistics import Found
from softbin._engine.ranks import Ranked

_ERROR = 0.01  # at least, of a quantile that the moments let expect, in deviations
_FARTHEST = -1e3  # from the largest; what is farther weighs nothing


class Limits(NamedTuple):
    """What a truncation leaves, a number for each group; None for what is not asked for.

    Attributes:
      k: so many of the largest; of 0, and from the number of entries on, all.
      p: of these the largest that weigh so much of them, an entry with the score x as much as exp(x); from 1 on, all.
      least: of these what weighs so much of the largest.
      single: whether the largest alone is left; of several, the first.
    """

    k: Int[Array, "*group"] | None = None
    p: Float[Array, "*group"] | None = None
    least: Float[Array, "*group"] | None = None
    single: Bool[Array, "*group"] | None = None


class Left(NamedTuple):
    """What is left of a distribution, laid out.

    Attributes:
      layout: how.
      values: the scores.
      top: the largest of each group; NaN in a group with NaN.
      kept: which entries are left: none of a group with NaN, or without entries.
      inside: true, as compilers do not know.
    """

    layout: Layout
    values: Float[Array, "..."]
    top: Float[Array, "*group"]
    kept: Bool[Array, "..."]
    inside: Bool[Array, ""]

    def below_top(self) -> Float[Array, "..."]:
        """How far scores are below the largest: 0 for that, if it is infinite too."""
        return _below(self.values, self.layout.spread(self.top))


class _Cut(NamedTuple):
    """Above a key all are left; and of those that are equal to it all, or those up to a position."""

    key: Int[Array, "*group"]
    last: Int[Array, "*group"] | None

    def leaves(self, keys: Int[Array, "..."], layout: Layout) -> Bool[Array, "..."]:
        key = layout.spread(self.key)
        if self.last is None:
            return keys >= key
        return (keys > key) | ((keys == key) & (layout.positions() <= layout.spread(self.last)))


def truncate(
    scores: Float[Array, "*shape"],
    limits: Limits,
    groups: Groups,
    finish: Callable[[Left], tuple[Sequence[Array], Sequence[Array]]],
    kinds: tuple[Sequence[Any], Sequence[Any]],
    *,
    first: bool,
    implementation: Any = None,
) -> tuple[list[Array], ...]:
    """`finish(left)`, of scores that are `-inf` where there is no entry.

    Args:
      scores, limits, groups: the limits are group arrays.
      finish: makes arrays with a number for each entry, and group arrays.
      kinds: their dtypes.
      first: whether of equal entries the first are left, as many as are needed; otherwise all.
      implementation: as for :func:`softbin._engine.order_statistics.chosen_kernels`.
    """
    names = groups.axis_name if isinstance(groups.axis_name, tuple) else (groups.axis_name,)
    scores, limits = lax.stop_gradient((scores, limits))
    axes = frozenset().union(*map(meshes.varying_axes, jax.tree.leaves((scores, limits))))
    rows = tuple(1 if axis in groups.axes else n for axis, n in enumerate(scores.shape))
    like = tuple(
        [meshes.vary(jnp.zeros(shape, kind), over) for kind in of]
        for shape, over, of in zip((scores.shape, rows), (axes, axes - set(names)), kinds, strict=True)
    )

    def turn(state: tuple) -> tuple:
        left = _left(scores, limits, groups, state[0], first, implementation)
        return _as(state[0], ~left.inside), jax.tree.map(_as, like, tuple(map(list, finish(left))))

    start = meshes.vary(jnp.ones((), bool), axes - set(names))
    return lax.while_loop(lambda state: state[0], turn, (start, like))[1]


def _as(like: Array, found: Array) -> Array:
    return meshes.vary(found, meshes.varying_axes(like))


def _left(
    scores: Float[Array, "*shape"],
    limits: Limits,
    groups: Groups,
    inside: Bool[Array, ""],
    first: bool,
    implementation: Any,
) -> Left:
    on_chip = order_statistics.chosen_kernels(implementation, scores, None, groups)
    size = jnp.asarray(groups.size(scores.shape))
    ranked = ranks.rank(scores, None, None, size, groups, ties=first, on_chip=on_chip)
    layout, dtype = ranked.layout, ranked.dtype
    nan, cuts = jnp.iinfo(ranks.kind_of(dtype)).max, []
    if limits.k is not None:
        cut, inside = _of_rank(ranked, limits.k, first)
        cuts.append(cut)
    top = _largest(ranked, inside)
    if limits.p is not None:
        cut, inside = _of_mass(ranked, top, cuts, layout.enter_groups(limits.p), inside, first)
        cuts.append(cut)
    if not cuts:
        inside &= jnp.all(top > ranked.none)
    keys = ranked.keys(inside)
    kept = (keys > ranks.keys(jnp.asarray(-jnp.inf, dtype))) & (keys < nan)
    for cut in cuts:
        kept &= cut.leaves(keys, layout)
    left = Left(layout, _values(ranked, inside), ranks.value_of(top, dtype), kept, inside)
    return left._replace(kept=_beside_the_largest(left, keys, top, limits))


def _beside_the_largest(
    left: Left, keys: Int[Array, "..."], top: Int[Array, "*group"], limits: Limits
) -> Bool[Array, "..."]:
    layout, kept = left.layout, left.kept
    if limits.least is not None:
        kept &= jnp.exp(left.below_top()) >= layout.spread(layout.enter_groups(limits.least))
    if limits.single is not None:
        positions, is_top = layout.positions(), keys == layout.spread(top)
        places = jnp.where(is_top, positions, jnp.iinfo(jnp.int32).max)
        place, _ = statistics([(LEAST, places), (COUNT, is_top)], layout)
        single = layout.spread(layout.enter_groups(limits.single))
        kept = jnp.where(single, kept & (positions == layout.spread(place)), kept)
    return kept


def _values(ranked: Ranked, inside: Bool[Array, ""]) -> Float[Array, "..."]:
    entries = jnp.where(inside, ranked.entries, 0)
    if entries.dtype == ranked.dtype:
        return entries
    return jnp.where(entries == ranked.none, -jnp.inf, ranks.value_of(entries, ranked.dtype))


def _below(values: Float[Array, "..."], top: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(values == top, 0, values - top)


def _largest(ranked: Ranked, inside: Bool[Array, ""]) -> Int[Array, "*group"]:
    """Its key; that of NaN in a group with NaN."""
    keys = ranked.keys(inside)
    nan = jnp.iinfo(keys.dtype).max
    top, nans = statistics([(LARGEST, keys), (COUNT, keys == nan)], ranked.layout)
    return jnp.where(nans > 0, nan, top)


def _of_rank(ranked: Ranked, k: Int[Array, "*group"], first: bool) -> tuple[_Cut, Array]:
    layout = ranked.layout
    is_off = (k <= 0) | (k >= layout.groups.size(layout.given))
    k = jnp.where(is_off, 1, k)
    *cut, outside = _find(ranked, k, first, _blank(ranked, layout.enter_groups(k)))
    return _made(cut, layout.enter_groups(is_off), ranked, first), ~outside


def _of_mass(
    ranked: Ranked,
    top: Int[Array, "*group"],
    cuts: Sequence[_Cut],
    p: Float[Array, "*group"],
    inside: Bool[Array, ""],
    first: bool,
) -> tuple[_Cut, Array]:
    """Of what cuts leave; masses are worked out once, since a loop is given them."""
    layout, dtype = ranked.layout, ranked.dtype
    distances = _below(_values(ranked, inside), layout.spread(ranks.value_of(top, dtype)))
    weights = jnp.exp(distances)
    for cut in cuts:
        weights = jnp.where(cut.leaves(ranked.keys(inside), layout), weights, 0)
    units, moments = units_for(weights, jnp.maximum(distances, _FARTHEST), layout)
    words, is_off = units.words(weights, layout), ~((p > 0) & (p < 1))
    p, like = jnp.where(is_off, 0.5, p), _blank(ranked, p)
    nan, least = jnp.iinfo(top.dtype).max, jnp.full_like(top, ranks.keys(jnp.asarray(-jnp.inf, dtype)) - 1)
    bottom = functools.reduce(jnp.maximum, [cut.key for cut in cuts], least)
    ends = jnp.stack([jnp.where(top == nan, top, bottom), top])  # one where it is NaN, for which no round looks
    guesses = _expected(p, ranks.value_of(top, dtype), *moments)

    def turn(state: tuple) -> tuple:
        total = units.total(words, layout)
        target = total.share(p)
        weighed = ranked._replace(
            weights=words[0],
            size=total.rounded(dtype)[None],
            masses=Weighed(words, units, target, ends, guesses),
        )
        return _find(weighed, layout.leave_groups(target.rounded(dtype)), first, like)

    start = (*like[:2], meshes.vary(inside, meshes.varying_axes(like[2])))
    *found, outside = lax.while_loop(lambda state: state[2], turn, start)
    return _made(found, is_off, ranked, first), ~outside


def _expected(
    p: Float[Array, "*group"],
    top: Float[Array, "*group"],
    total: Float[Array, "*group"],
    first: Float[Array, "*group"],
    second: Float[Array, "*group"],
    squares: Float[Array, "*group"],
) -> Float[Array, "2 ..."]:
    """Where so much is above of a normal distribution of the same moments, from both sides."""
    below = first / total
    mean, deviation = top + below, jnp.sqrt(jnp.maximum(second / total - below * below, 0))
    quantile = normal_quantile(jnp.clip(p, 1e-6, 1 - 1e-6))
    error = jnp.sqrt(squares) / total * (1 + jnp.abs(quantile) / 2) + _ERROR
    return jnp.stack([mean + deviation * each for each in (quantile - error, quantile + error)])


def _find(ranked: Ranked, k: Num[Array, "*group"], first: bool, like: tuple) -> tuple[Array, Array, Array]:
    """The key and the position of the k-th largest, or of that which reaches a target; and false, as nobody knows."""

    def cut(found: Found) -> tuple[Array, Array, Array]:
        return found.key, found.last.astype(jnp.int32), ~found.inside

    return order_statistics.find(ranked, k, Sought(reached=first, ties=first), cut, like)


def _blank(ranked: Ranked, group: Num[Array, "*group"]) -> tuple[Array, Array, Array]:
    kinds = ranks.kind_of(ranked.dtype), jnp.int32
    key, last = (order_statistics.blank_group(ranked, group, kind) for kind in kinds)
    return key, last, jnp.any(key > 0)


def _made(cut: Sequence[Array], is_off: Bool[Array, "*group"], ranked: Ranked, first: bool) -> _Cut:
    """All are left where it is off, but of a group with NaN."""
    key, last = cut
    nan = jnp.iinfo(key.dtype).max
    return _Cut(jnp.where(is_off & (key < nan), ranked.none, key), last if first else None)


# What is made of it


def mask(left: Left) -> tuple[list[Array], list[Array]]:
    """Which entries are left."""
    return [left.layout.leave(left.kept)], []


def distribution(left: Left, temperature: Float[Array, "*group"] | None) -> tuple[list[Array], list[Array]]:
    """The scores of what is left over the temperature, `-inf` elsewhere, and the logarithm of what they weigh.

    Infinite ones count as 0. The logarithm is 0 where nothing is left, so that a difference is `-inf` and not NaN.
    """
    layout, left = left.layout, _with_probability(left)
    _, log_total, some = _weigh(left, temperature)
    top, values = (jnp.where(left_of == jnp.inf, 0, left_of) for left_of in (left.top, left.values))
    if temperature is not None:
        temperature = layout.enter_groups(temperature)
        top, values = top / temperature, divided(values, layout.spread(temperature))
    poison = jnp.isnan(left.top)
    values = jnp.where(left.kept, values, jnp.where(layout.spread(poison), jnp.nan, -jnp.inf))
    normalizer = jnp.where(poison, jnp.nan, jnp.where(some, top + log_total, 0))
    return [layout.leave(values)], [layout.leave_groups(normalizer)]


def draw(
    left: Left, temperature: Float[Array, "*group"] | None, noise: Float[Array, "*shape"]
) -> tuple[list[Array], list[Array]]:
    """The position of the largest sum of score and noise, of equal ones the first, and what it weighs, as a logarithm.

    -1 where nothing is left, with `-inf`, or NaN in a group with NaN.
    """
    layout, left = left.layout, _with_probability(left)
    distances, log_total, some = _weigh(left, temperature)
    sums = jnp.where(left.kept, distances + layout.enter(noise, 0), -jnp.inf)
    poison = jnp.isnan(left.top)

    def turn(state: tuple) -> tuple:
        entries = jnp.where(state[0], sums, 0)
        keys, positions = ranks.keys(entries), layout.positions()
        largest, _ = statistics([(LARGEST, keys), (COUNT, keys > 0)], layout)
        is_largest = left.kept & (keys == layout.spread(largest))
        places = jnp.where(is_largest, positions, jnp.iinfo(jnp.int32).max)
        place, _ = statistics([(LEAST, places), (COUNT, is_largest)], layout)
        drawn = is_largest & (positions == layout.spread(place))
        distance, _ = statistics([(SUM, jnp.where(drawn, distances, 0)), (COUNT, drawn)], layout)
        logarithm = jnp.where(poison, jnp.nan, jnp.where(some, distance - log_total, -jnp.inf))
        return ~state[0], _as(state[1], jnp.where(some, place, -1)), _as(state[2], logarithm)

    like = (meshes.vary(jnp.zeros(some.shape, kind), meshes.varying_axes(some)) for kind in (jnp.int32, sums.dtype))
    _, place, logarithm = lax.while_loop(lambda state: state[0], turn, (left.inside, *like))
    return [], [layout.leave_groups(place), layout.leave_groups(logarithm)]


def again(
    scores: Float[Array, "*shape"], kept: Float[Array, "*shape"], normalizer: Float[Array, "*group"], groups: Groups
) -> tuple[Array, Array]:
    """What :func:`distribution` gives, as a plain expression, for its derivative."""
    is_kept = kept > -jnp.inf
    normalizer = lax.stop_gradient(normalizer)
    weights = jnp.where(is_kept, jnp.exp(jnp.where(is_kept, scores, 0) - normalizer), 0)
    total = groups.plain_total(weights)
    return jnp.where(is_kept, scores, -jnp.inf), normalizer + jnp.log(jnp.where(total > 0, total, 1))


def divided(values: Float[Array, "..."], by: Float[Array, "..."]) -> Float[Array, "..."]:
    """By a number of each group, of which compilers do not see that it is, and so do not multiply by its inverse."""
    return values / jnp.where(jnp.isnan(values), 1, by)


def _with_probability(left: Left) -> Left:
    """Beside infinite scores all others have none."""
    top = left.layout.spread(left.top)
    return left._replace(kept=left.kept & ((top < jnp.inf) | (left.values == top)))


def _weigh(left: Left, temperature: Float[Array, "*group"] | None) -> tuple[Array, Array, Array]:
    """How far scores are below the largest, the logarithm of what is left in units of that, whether any is."""
    layout = left.layout
    distances = left.below_top()
    if temperature is not None:
        distances = divided(distances, layout.spread(layout.enter_groups(temperature)))
    weights = jnp.where(left.kept, jnp.exp(distances), 0)
    total, count = statistics([(SUM, weights), (COUNT, left.kept)], layout)
    some = count > 0
    return distances, jnp.log(jnp.where(some, total, 1)), some
