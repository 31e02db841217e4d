"""Order statistics without a sort: the exact k-th largest value of each group, and which of equal entries hold it.

The k-th largest value is the largest `v` with `#{x >= v} >= k`. Floats are searched as integers in the same order,
their keys, between a key that is reached by `k` entries and a higher one that is not. Each round counts the entries at
and above three keys in one pass: the middle, which bounds the number of rounds by the bits of a float, and two about
the place where the value would be if the entries in between were spread evenly, as far apart as chance would have it
(Floyd and Rivest, `Expected time bounds for selection`, Comm. ACM 18, 1975). The first two are about the quantile of a
normal sample. As soon as the value is the largest or the smallest of the entries in between, one more pass reads it.

Under a sharded axis a round is one all-reduce of three integers per group, and since these are exact, results do not
depend on the number of devices. Counts are of up to 2^31 entries.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from softbin import meshes
from softbin.groups import Groups
from softbin.search import ordered, probit

_MARGIN = 1.5  # standard deviations to both sides of where a value is expected
_STALLS = 2  # rounds that leave more than half of the entries: these may be equal


class Ranked(NamedTuple):
    """What to rank. An entry that takes no part is `-inf`; the values are of `dtype`, in which they are exact."""

    scores: Float[Array, "*shape"]
    weights: Float[Array, "*shape"] | None
    part: Bool[Array, "*shape"] | None
    groups: Groups
    dtype: Any


class _Order(NamedTuple):
    """Integers in the order of what is searched, as floats and back, and the counts at and above up to three."""

    value: Callable[[Int[Array, "..."]], Float[Array, "..."]]
    key: Callable[[Float[Array, "..."]], Int[Array, "..."]]
    counts: Callable[[Sequence[Int[Array, "..."]]], Sequence[Num[Array, "..."]]]


class _Bracket(NamedTuple):
    low: Int[Array, "*group"]  # at and above it are k or more
    high: Int[Array, "*group"]  # and here fewer
    at_low: Num[Array, "*group"]
    at_high: Num[Array, "*group"]
    left: Int[Array, "*group"]  # what to try beside the middle
    right: Int[Array, "*group"]
    stalls: Int[Array, "*group"]

    @property
    def adjacent(self):
        return self.low + 1 >= self.high


def find(ranked: Ranked, k: Num[Array, "*group"], turns: int | None, finish: Callable[..., Any], like: Any) -> Any:
    """`finish(value, chosen, held)` of the k-th largest value, which is NaN in a group with NaN.

    What decides is read inside of a loop that searches, which works out its operands once and keeps them. Outside, XLA
    works out a cheap expression again wherever it is read, and not always to the same digits, since a product and a sum
    may become one operation in one place and not in another: an entry that was counted would not be found again. Nor is
    a loop enough whose rounds are all alike: what does not depend on its state is moved out.

    Args:
      ranked, k: `k` is at least 1, and at most what there is, unless that is nothing.
      turns: where it is known and small, the most that `k` can be: the largest that is left is taken so often.
      finish: of the value, of which entries are chosen and of which one holds it; of None for both where they are not
        taken in turn.
      like: what it returns, made of `blank_group` and `blank_entry`.
    """
    search = _by_counts if turns is None else partial(_in_turn, turns=turns)
    return search(ranked, k, lambda *found: jax.tree.map(_as, like, finish(*found)), like)


def blank_group(ranked: Ranked, k, dtype) -> Shaped[Array, "*group"]:
    """Zeros for a group array, of the type that it has inside `jax.shard_map`."""
    names = ranked.groups.axis_name
    reduced = names if isinstance(names, tuple) else (names,)
    return meshes.vary(jnp.zeros(k.shape, dtype), (_varying(ranked) - set(reduced)) | meshes.varying_axes(k))


def blank_entry(ranked: Ranked, k, dtype) -> Shaped[Array, "*shape"]:
    """Zeros for every entry."""
    return meshes.vary(jnp.zeros(ranked.scores.shape, dtype), _varying(ranked) | meshes.varying_axes(k))


def _varying(ranked):
    arrays = ranked.scores, ranked.weights, ranked.part
    return frozenset().union(*(meshes.varying_axes(array) for array in arrays if array is not None))


def _as(like, found):
    return meshes.vary(found, meshes.varying_axes(like))


def _by_counts(ranked, k, finish, like):
    """By the largest value that the entries at and above it, or their weights, reach `k` with.

    Subnormal numbers are zero, and NaN are passed over.
    """
    scores, weights, part, groups, dtype = ranked
    tiny = jnp.asarray(jnp.finfo(scores.dtype).tiny, scores.dtype)
    zero_key = _key(0 * tiny, dtype)
    if jnp.finfo(dtype).maxexp == jnp.finfo(scores.dtype).maxexp:
        zeros = _key(-tiny, dtype) + 1, _key(tiny, dtype)
    else:  # float16, whose subnormal numbers are normal in float32
        zeros = zero_key - 1, zero_key + 1
    lowest, highest = (_key(jnp.asarray(end, scores.dtype), dtype) for end in (-jnp.inf, jnp.inf))

    def counts(keys):
        return counted([scores >= _value(key, dtype, scores.dtype) for key in keys], weights, groups)

    reach, guesses = _expected(ranked, k)
    order = _Order(
        lambda key: jnp.clip(_value(key, dtype, scores.dtype), *reach), lambda value: _key(value, dtype), counts
    )
    total = groups.size(scores.shape) if part is None else counted([part], weights, groups)[0]
    zero = _zero(k, guesses[0])
    start = _Bracket(
        low=lowest + zero.astype(lowest.dtype),
        high=highest + 1 + zero.astype(lowest.dtype),
        at_low=jnp.asarray(total, k.dtype) + zero,
        at_high=zero,
        left=zero.astype(lowest.dtype),
        right=zero.astype(lowest.dtype),
        stalls=zero.astype(jnp.int32),
    )
    start = _propose(start, order, guesses)

    def single(bracket):  # all subnormal numbers are one, zero
        return bracket.adjacent | ((bracket.low >= zeros[0]) & (bracket.high <= zeros[1]))

    def settled(bracket):
        at_an_end = (k - bracket.at_high == 1) | (k == bracket.at_low)
        return single(bracket) | at_an_end if weights is None else single(bracket)

    def between(bracket):
        low, high = (_value(key, dtype, scores.dtype) for key in (bracket.low, bracket.high))
        inside = (scores >= low) & ~(scores >= high)  # as they were counted; the highest key of all is NaN
        return inside if part is None else inside & part

    def narrow(bracket):
        def unfinished(bracket):
            return groups.any(~settled(bracket) & (bracket.stalls < _STALLS))

        bracket = lax.while_loop(unfinished, partial(_round, order=order, k=k, settled=settled), bracket)
        return lax.cond(groups.any(~settled(bracket)), snap, lambda bracket: bracket, bracket)

    def snap(bracket):
        """Move the ends to entries, of which the largest and the smallest are tried next."""
        inside = between(bracket)
        most = groups.largest(jnp.where(inside, scores, -jnp.inf))
        least = -groups.largest(jnp.where(inside, -scores, -jnp.inf))
        low, top = _key(least, dtype), _key(most, dtype)
        low, top = jnp.where(low == 0, zeros[0], low), jnp.where(top == 0, zeros[1] - 1, top)
        low, top = (jnp.clip(end, bracket.low, bracket.high - 1) for end in (low, top))
        snapped = bracket._replace(
            low=low, high=top + 1, left=low + 1, right=top, stalls=jnp.zeros_like(bracket.stalls)
        )
        return _select(settled(bracket), bracket, snapped)

    def value_in(bracket):
        sign = jnp.where((k == bracket.at_low) & (k - bracket.at_high != 1), -1, 1).astype(scores.dtype)
        extreme = sign * groups.largest(jnp.where(between(bracket), sign * scores, -jnp.inf))
        value = jnp.where(single(bracket), _value(bracket.low, dtype, scores.dtype), extreme)
        value = jnp.where(jnp.abs(value) < jnp.finfo(scores.dtype).tiny, 0, value)
        return jnp.where(_has_nan(ranked), jnp.nan, value)

    def proceed(state):
        bracket, result, over = state
        return lax.cond(
            groups.any(~settled(bracket)),
            lambda: (narrow(bracket), result, over),
            lambda: (bracket, finish(value_in(bracket), None, None), ~over),
        )

    over = jnp.any(blank_group(ranked, k, bool))
    return lax.while_loop(lambda state: ~state[2], proceed, (start, like, over))[1]


def _in_turn(ranked, k, finish, like, turns):
    scores, _, part, groups, _ = ranked
    positions = _positions(scores.shape, groups)
    exists = jnp.ones_like(scores, bool) if part is None else part

    def take(state):
        turn, _, chosen, held, value, result = state
        free = exists & ~chosen
        largest = groups.largest(jnp.where(free, scores, -jnp.inf))
        equal = equals(scores, largest) & free
        nearest = groups.largest(jnp.where(equal, -positions, -groups.size(scores.shape)))
        first, more = equal & (positions == -nearest), turn < k
        chosen, held = chosen | (first & more), jnp.where(more, first, held)
        value = jnp.where(more, largest, value)

        def conclude():  # a maximum may forget NaN: findings/jax-max-forgets-nan-from-4096-entries-on.sh
            return finish(jnp.where(_has_nan(ranked), jnp.nan, value), chosen, held)

        result = lax.cond(turn == turns - 1, conclude, lambda: result)
        return turn + 1, ~groups.any(nearest > 0), chosen, held, value, result  # always true, as compilers do not know

    none, value = blank_entry(ranked, k, bool), blank_group(ranked, k, scores.dtype)
    start = jnp.int32(0), ~jnp.any(value > 0), none, none, value, like
    return lax.while_loop(lambda state: (state[0] < turns) & state[1], take, start)[-1]


def _has_nan(ranked: Ranked) -> Bool[Array, "*group"]:
    """Which groups hold NaN: without a pass of its own where a sum shows that none does."""
    scores, _, part, groups, _ = ranked
    suspect = jnp.isnan(groups.total(_shown(ranked)))

    def look():
        nan = jnp.isnan(scores) if part is None else jnp.isnan(scores) & part
        return groups.counts([nan])[0] > 0

    return lax.cond(groups.any(suspect), look, lambda: jnp.zeros_like(suspect))


def choose(
    ranked: Ranked, k: Num[Array, "*group"], value: Float[Array, "*group"], *, last_only: bool
) -> Bool[Array, "*shape"]:
    """Which entries are chosen where the k-th largest is known, of equal ones the first; or the last of these alone.

    To be called inside of `find`.
    """
    scores, weights, part, groups, _ = ranked

    def equal():
        same = equals(scores, value)
        return same if part is None else same & part

    of_larger, of_equals = counted([above(scores, value), equal()], weights, groups)
    rest = (k - of_larger).astype(k.dtype)
    of_equals = of_equals.astype(k.dtype)
    last = lax.cond(
        groups.any(of_equals > rest),
        lambda: _last_of(equal(), rest, of_equals, weights, groups),
        lambda: jnp.full_like(rest, groups.size(scores.shape), jnp.int32),
    )
    positions = _positions(scores.shape, groups)
    chosen = equal() & (positions <= last)
    if last_only:
        return chosen & (positions == groups.largest(jnp.where(chosen, positions, -1)))
    return above(scores, value) | chosen


def _last_of(equal, rest, of_equals, weights, groups):
    """The position up to which the entries that are equal are as many as are chosen, or weigh as much."""
    positions = _positions(equal.shape, groups)
    real = jnp.float32 if weights is None else weights.dtype
    order = _Order(
        value=lambda key: key.astype(real),
        key=lambda value: jnp.round(jnp.nan_to_num(value)).astype(jnp.int32),
        counts=lambda keys: counted([equal & (positions <= -key) for key in keys], weights, groups),
    )
    none = _zero(rest, of_equals)
    zero = none.astype(jnp.int32)
    lowest = zero - (groups.size(equal.shape) - 1)
    start = _Bracket(lowest, zero + 1, of_equals + none, none, zero, zero, zero)

    def settled(bracket):
        return bracket.adjacent | (bracket.at_low <= rest)

    found = lax.while_loop(
        lambda bracket: groups.any(~settled(bracket)),
        partial(_round, order=order, k=rest, settled=settled),
        _propose(start, order, _between(start, order, rest)),
    )
    return -found.low


def _zero(k, found):
    """Zeros of the type that what is found for `k` has inside `jax.shard_map`, where groups may vary over a mesh."""
    return ((k != k) | (found < found)).astype(k.dtype)


def above(scores, value):
    """Which scores are larger, where subnormal numbers are zero."""
    dtype = scores.dtype
    after = jnp.where(value == 0, jnp.finfo(dtype).tiny, _value(_key(value, dtype) + 1, dtype, dtype))
    return scores >= after


def equals(scores, value):
    """Which scores are equal, where subnormal numbers are zero."""
    dtype = scores.dtype
    before_zero = _value(_key(-jnp.asarray(jnp.finfo(dtype).tiny, dtype), dtype) + 1, dtype, dtype)
    return (scores >= jnp.where(value == 0, before_zero, value)) & ~above(scores, value)


def _round(bracket: _Bracket, order: _Order, k, settled) -> _Bracket:
    low, high, at_low, at_high, left, right, stalls = bracket
    keys = left, _middle(low, high), right
    tried = zip(keys, order.counts(keys), strict=True)
    for key, count in tried:
        count, reached = count.astype(k.dtype), count >= k
        up, down = reached & (key > low), ~reached & (key < high)
        low, at_low = jnp.where(up, key, low), jnp.where(up, count, at_low)
        high, at_high = jnp.where(down, key, high), jnp.where(down, count, at_high)
    stalled = (at_low - at_high) * 2 > bracket.at_low - bracket.at_high
    narrowed = _Bracket(low, high, at_low, at_high, left, right, jnp.where(stalled, stalls + 1, 0))
    narrowed = _propose(narrowed, order, _between(narrowed, order, k))
    return _select(settled(bracket), bracket, narrowed)


def _between(bracket: _Bracket, order: _Order, k):
    """Where the value lies by the counts at both ends, from one side and from the other; infinite if an end is."""
    low, high = order.value(bracket.low), order.value(bracket.high - 1)
    bounded = jnp.isfinite(low) & jnp.isfinite(high)
    low, high = jnp.where(bounded, low, 0), jnp.where(bounded, high, 0)
    m, rank = (count.astype(low.dtype) for count in (bracket.at_low - bracket.at_high, k - bracket.at_high))
    share = jnp.clip((rank - 0.5) / m, 0, 1)
    margin = _MARGIN * jnp.sqrt(share * (1 - share) / m)
    shares = jnp.minimum(share + margin, 1), jnp.maximum(share - margin, 0)
    return tuple(jnp.where(bounded, high * (1 - s) + low * s, jnp.inf) for s in shares)


def _propose(bracket: _Bracket, order: _Order, guesses) -> _Bracket:
    """Try the guesses next; and where there are none, the quarters."""
    low, high = bracket.low, bracket.high
    middle = _middle(low, high)
    quarters = _middle(low, middle), _middle(middle, high)
    left, right = (
        jnp.clip(jnp.where(jnp.isfinite(guess), order.key(guess), quarter), low + 1, high - 1)
        for guess, quarter in zip(guesses, quarters, strict=True)
    )
    return bracket._replace(left=left, right=right)


def _expected(ranked: Ranked, k):
    """Where all finite scores are, and where the k-th largest of a normal sample of the same moments is; or NaN."""
    scores, weights, part, groups, _ = ranked
    limits = jnp.finfo(scores.dtype)
    shown = _shown(ranked)
    n: Any = groups.size(scores.shape)
    if part is not None:
        n = jnp.maximum(counted([part], None, groups)[0].astype(scores.dtype), 1)
    whole = n if weights is None else groups.plain_total(weights if part is None else jnp.where(part, weights, 0))
    mean, square = groups.total(shown) / n, groups.total(shown**2) / n
    moderate = square <= limits.max / 4  # false for NaN
    mean, square = jnp.where(moderate, mean, 0), jnp.where(moderate, square, 0)
    variance = jnp.maximum(square - mean**2, 0)
    deviation = jnp.sqrt(variance + 64 * limits.eps * mean**2)
    share = jnp.clip(1 - (k.astype(scores.dtype) - 0.5) / whole, limits.tiny, 1 - limits.eps)
    quantile = probit(share)
    density = jnp.exp(-jnp.square(quantile) / 2) / 2.5
    margin = 2 * _MARGIN * jnp.sqrt(share * (1 - share) / n) / density
    guesses = [jnp.where(moderate, mean + deviation * (quantile + side * margin), jnp.inf) for side in (-1, 1)]
    reach = 2 * deviation * jnp.sqrt(n * jnp.ones_like(mean))  # Samuelson's inequality, and some slack
    reach = jnp.where(moderate, reach, jnp.inf)
    return [mean + side * reach for side in (-1, 1)], guesses


def _shown(ranked):
    return ranked.scores if ranked.part is None else jnp.where(ranked.part, ranked.scores, 0)


def counted(conditions, weights, groups):
    """How many entries of each group meet each condition, or what these weigh."""
    if weights is None:
        return groups.counts(conditions)
    return [groups.total(jnp.where(condition, weights, 0)) for condition in conditions]


def _positions(shape, groups):
    """Of each entry in its group, in the order of the axes, and of the shards before them."""
    result, stride = jnp.zeros(shape, jnp.int32), 1
    for axis in reversed(groups.axes):
        result = result + lax.broadcasted_iota(jnp.int32, shape, axis) * stride
        stride *= shape[axis]
    return result if groups.axis_name is None else result + lax.axis_index(groups.axis_name) * stride


def keys(scores: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Integers in the order of floating point scores: -0 as 0, and subnormal numbers as 0 too."""
    return _key(scores, scores.dtype)


def _key(value, dtype) -> Shaped[Array, "..."]:
    """An integer in the order of floats of a dtype, for a value that is one."""
    value = jnp.where(jnp.abs(value) < jnp.finfo(value.dtype).tiny, 0, value)
    return ordered(lax.bitcast_convert_type(value.astype(dtype), f"int{jnp.finfo(dtype).bits}"))


def _value(key, dtype, computed) -> Shaped[Array, "..."]:
    return lax.bitcast_convert_type(ordered(key), dtype).astype(computed)


def _middle(a, b):
    return (a & b) + ((a ^ b) >> 1)


def _select(condition, a: _Bracket, b: _Bracket) -> _Bracket:
    return jax.tree.map(partial(jnp.where, condition), a, b)
