"""Order statistics without a sort: the exact k-th largest value of each group, and which of equal entries hold it.

The k-th largest value is the largest `v` with `#{x >= v} >= k`. Floats are searched as integers in the same order,
their keys: see `softbin._engine.brackets`. Under a sharded axis a round is two all-reduces of a few integers per group,
and since these are exact, results do not depend on the number of devices. Counts are of up to 2^31 entries.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Num, Shaped

from softbin._engine import brackets, meshes
from softbin._engine.brackets import Search, Sought
from softbin._engine.counting import COUNT, LARGEST, LEAST, statistics
from softbin._engine.groups import Groups
from softbin._engine.ranks import Ranked, kind_of

_ALL = jnp.iinfo(jnp.int32).max  # the last of all positions


class Found(NamedTuple):
    """What is known of the k-th largest, a number for each group.

    Attributes:
      key: its key; that of NaN in a group with NaN.
      reached: how many entries are as large, or what they weigh; where the search was for it. In groups of which a tie
        was cut, how many places are up to the last.
      above: how many are larger; where the search was for it. Of places likewise.
      last: the position up to which those that are equal are chosen; where ties are cut.
      inside: true, as compilers do not know; for `Ranked.keys`.
    """

    key: Int[Array, "*group"]
    reached: Num[Array, "*group"]
    above: Num[Array, "*group"]
    last: Int[Array, "*group"]
    inside: Bool[Array, ""]


class _Tie(NamedTuple):
    """Of whose equal entries the first are chosen."""

    key: Int[Array, "*group"]
    k: Num[Array, "*group"]  # at first of all entries, and then of these
    placing: Bool[Array, ""]  # whether their places are searched


def chosen_kernels(implementation: Any, scores: Array, weights: Array | None, groups: Groups) -> Callable | None:
    """What `rank` takes for `on_chip`, where the implementation in kernels is chosen and can take these groups."""
    if implementation in (None, "xla"):
        return None
    from softbin._engine.kernels import rounds  # loads Pallas

    return rounds.chosen(implementation, scores, weights, groups)


def find(
    ranked: Ranked,
    k: Num[Array, "*group"],
    sought: Sought,
    finish: Callable[[Found], Any],
    like: Any,
    few: int | None = None,
) -> Any:
    """`finish(found)` of the k-th largest value, which is NaN in a group with NaN.

    What decides is read inside of a loop, which works out its operands once and keeps them. Outside, XLA works out a
    cheap expression again wherever it is read, and not always to the same digits, since a product and a sum may become
    one operation in one place and not in another: an entry that was counted would not be found again. So a loop stands
    around the search and what is made of it, of which compilers cannot know that one turn is all, or two where ties
    are cut: the second finds the place among those that are equal, which is an order statistic of positions.

    Args:
      ranked, k: `k` is at least 1, and at most what there is, unless that is nothing; of the groups as they are given.
      sought: what `finish` reads.
      finish: makes arrays of entries and groups as they are given, by `ranked.layout`.
      like: what it returns, made of `blank_group` and `blank_entry`.
      few: where that is known and small, the most that `k` can be: the largest that is left is taken so often.
    """
    conclude = partial(_concluded, finish=finish, like=like)
    if few is not None:
        return _find_few(ranked, ranked.layout.enter_groups(k), sought, conclude, like, few)
    axes, k = _group_axes(ranked, k), ranked.layout.enter_groups(k)
    step, bracket = brackets.start(ranked, k[None])
    k = k if ranked.masses is None else jnp.zeros_like(k)
    search = Search(ranked, k[None], step, None, sought)
    bracket, true = _vary(bracket, axes), _vary(jnp.ones((), bool), axes)
    if sought.ties:
        tie = _Tie(jnp.zeros_like(bracket.ends[0]), _vary(k, axes), jnp.zeros((), bool))
        turn = partial(_turn_with_ties, search=search, conclude=conclude)
        return lax.while_loop(lambda state: state[1], turn, (bracket, true, like, tie))[2]
    turn = partial(_turn, search=search, conclude=conclude)
    return lax.while_loop(lambda state: state[1], turn, (bracket, true, like))[2]


def _turn(state: tuple, search: Search, conclude: Callable[[Found], Any]) -> tuple:
    bracket, more = brackets.run(search, *state[:2])
    last = jnp.full(bracket.ends[0].shape, _ALL)
    return bracket, more, conclude(Found(bracket.ends[0], bracket.counts[0], bracket.counts[1], last, ~more))


def _turn_with_ties(state: tuple, search: Search, conclude: Callable[[Found], Any]) -> tuple:
    """Of the value first; then, in the groups of which it cuts a tie, of the place."""
    tie, ranked, k = state[3], search.ranked, search.k[0]
    searched = ranked._replace(entries=_entries(ranked, tie))
    bracket, more = brackets.run(Search(searched, tie.k[None], search.step, tie.placing, search.sought), *state[:2])
    low, (reached, above) = bracket.ends[0], bracket.counts
    key = jnp.where(tie.placing, tie.key, low)
    last = jnp.where(tie.placing, -low.astype(jnp.int32), _ALL)
    cut = ~tie.placing & (reached > k)
    result = conclude(Found(key, reached, above, last, ~more))
    start, rest = brackets.start_at_places(bracket, cut, ranked.layout), jnp.where(cut, k - above, tie.k)
    if ranked.masses is not None:  # of which those above count too
        start, rest = start._replace(counts=bracket.counts), tie.k
    return start, jnp.any(cut), result, _Tie(key, rest, ~tie.placing)


def _entries(ranked: Ranked, tie: _Tie) -> Int[Array, "..."]:
    """The keys; or the places of those that are equal to one, the first of them the largest."""
    key, positions = ranked.layout.spread(tie.key), ranked.layout.positions()
    rest = ranked.none if ranked.masses is None else jnp.where(ranked.entries > key, 1, ranked.none)
    places = jnp.where(ranked.entries == key, -positions.astype(tie.key.dtype), rest)
    return jnp.where(tie.placing, places, ranked.entries)


def _find_few(ranked: Ranked, k: Array, sought: Sought, conclude: Callable[[Found], Any], like: Any, few: int) -> Any:
    """By the largest entry that is left, so often: for short groups, in which a pass costs next to nothing."""
    layout = ranked.layout
    nan, positions = jnp.iinfo(kind_of(ranked.dtype)).max, layout.positions()

    def take(state: tuple) -> tuple:
        taken, key, last, result = state
        keys, before = ranked.keys(taken < few), layout.spread(key)
        free = (keys < before) | ((keys == before) & (positions > layout.spread(last)))
        (largest,) = statistics([(LARGEST, jnp.where(free, keys, ranked.none))], layout)
        nearest = jnp.where(free & (keys == layout.spread(largest)), positions, _ALL)
        (first,) = statistics([(LEAST, nearest)], layout)
        more = (taken < k) & ((key < nan) | (last < 0))  # NaN is the largest, and what follows it counts no more
        key, last = jnp.where(more, largest, key), jnp.where(more, first, last)
        ended = partial(_end_of_few, ranked, key, last, sought, conclude, taken < few)
        return taken + 1, key, last, lax.cond(taken == few - 1, ended, lambda: result)

    axes = _group_axes(ranked, k)
    key, last = jnp.full(k.shape, nan, kind_of(ranked.dtype)), jnp.full(k.shape, -1, jnp.int32)  # as if at the start
    start = jnp.int32(0), _vary(key, axes), _vary(last, axes), like
    return lax.while_loop(lambda state: state[0] < few, take, start)[-1]


def _end_of_few(
    ranked: Ranked, key: Array, last: Array, sought: Sought, conclude: Callable[[Found], Any], inside: Array
) -> Any:
    reached, above = jnp.zeros_like(last), jnp.zeros_like(last)
    if sought.reached:
        keys, value = ranked.keys(inside), ranked.layout.spread(key)
        reached, above = statistics([(COUNT, keys >= value), (COUNT, keys > value)], ranked.layout)
    return conclude(Found(key, reached, above, last, inside))


def blank_group(ranked: Ranked, k: Num[Array, "..."], dtype: Any) -> Shaped[Array, "*group"]:
    """Zeros for a group array, of the type that it has inside `jax.shard_map`."""
    return meshes.vary(jnp.zeros(k.shape, dtype), _group_axes(ranked, k))


def blank_entry(ranked: Ranked, k: Num[Array, "..."], dtype: Any) -> Shaped[Array, "*shape"]:
    """Zeros for every entry."""
    return meshes.vary(jnp.zeros(ranked.layout.given, dtype), ranked.varying | meshes.varying_axes(k))


def _group_axes(ranked: Ranked, k: Num[Array, "..."]) -> frozenset:
    names = ranked.layout.groups.axis_name
    return (ranked.varying - set(names if isinstance(names, tuple) else (names,))) | meshes.varying_axes(k)


def _vary(tree: Any, axes: frozenset) -> Any:
    return jax.tree.map(lambda leaf: meshes.vary(leaf, axes), tree)


def _concluded(found: Found, finish: Callable[[Found], Any], like: Any) -> Any:
    return jax.tree.map(_as, like, finish(found))


def _as(like: Array, found: Array) -> Array:
    return meshes.vary(found, meshes.varying_axes(like))
