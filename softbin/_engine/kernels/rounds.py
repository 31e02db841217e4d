"""The rounds of an order statistic, run on chip: entries come from device memory once, however many rounds they take.

A kernel holds the groups that lie in some rows or columns of a block (TPU), or one group (GPU), and goes through them
piece by piece in every round, since registers are few. A row of the longest takes 1 MB: on TPU eight of them are in
fast memory at once, with their masses where these are searched. On GPU each round reads again, from caches that hold
what was read before; a cluster's shared memory is not used.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int, Num

from softbin._engine import brackets, meshes
from softbin._engine.brackets import Bracket, Look, Search
from softbin._engine.groups import Groups, is_symbolic
from softbin._engine.kernels import Interpreted, arrays, gpu
from softbin._engine.kernels.arrays import LANES
from softbin._engine.kernels.elements import elements, evaluate
from softbin._engine.kernels.pieces import Block, Columns, Held, Rows
from softbin._engine.masses import Mass
from softbin._engine.ranks import Ranked, keys, kind_of
from softbin._engine.sums import Statistic

LONGEST = 2**18  # entries of a group
_LONGEST_COLUMN = 8192  # entries, of which a block has 128 groups, and of rows 8
_SUBLANES = 8  # rows of a vector register on TPU
_BUFFERS = 2**23  # bytes that are brought in while others are worked on, and no more
_SPARE = 2**22  # bytes of fast memory for what is not entries


class _Given(NamedTuple):
    """What kernels are given for each group; see :class:`softbin._engine.brackets.Bracket` and `Search`.

    Attributes:
      low, high: ends.
      reached, above: counts.
      left, right: pivots.
      k, step: of the search.
      placing: positive for true; None for never.
      masses: the target, its units, and the key of the largest; None for counts.
    """

    low: Int[Array, "..."]
    high: Int[Array, "..."]
    reached: Num[Array, "..."]
    above: Num[Array, "..."]
    left: Int[Array, "..."]
    right: Int[Array, "..."]
    k: Num[Array, "..."]
    step: Float[Array, "..."]
    placing: Int[Array, "..."] | None
    masses: tuple[Mass, Float[Array, "..."], Int[Array, "..."]] | None


class _State(NamedTuple):
    """A bracket in a kernel."""

    low: Int[Array, "..."]
    high: Int[Array, "..."]
    reached: Num[Array, "..."]
    above: Num[Array, "..."]
    rounds: Int[Array, "..."]
    misses: Int[Array, "..."]
    left: Int[Array, "..."]
    right: Int[Array, "..."]


def _rounded_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def chosen(implementation: Any, scores: Float[Array, "*shape"], weights: Any, groups: Groups) -> Callable | None:
    """What runs the rounds for these groups, where an implementation in kernels is chosen that can, else None.

    They are in float32, not sharded and not too long, and entries do not weigh differently: sums of floats depend on
    their order.
    """
    if weights is not None or scores.dtype != jnp.float32:
        return None
    if groups.axis_name is not None or groups.lanes > 1 or any(map(is_symbolic, scores.shape)):
        return None
    is_served = scores.size and groups.size(scores.shape) <= LONGEST and not meshes.varying_axes(scores)
    return _RUNS[implementation] if is_served and arrays.device_has_kernels() else None


def run(search: Search, bracket: Bracket, more: Bool[Array, ""]) -> Bracket:
    """The bracket of each group when it has its value: by a kernel on TPU and on GPUs from Hopper on, else by XLA."""

    def by_xla() -> Bracket:
        return brackets.run(search._replace(ranked=search.ranked._replace(on_chip=None)), bracket, more)[0]

    kernels = arrays.by_platform(*(partial(kernel, search, bracket, more) for kernel in (on_tpu, on_gpu)))
    if _plan_for_tpu(search.ranked).size + _SPARE > arrays.fast_memory():
        kernels.pop("tpu", None)
    return lax.platform_dependent(default=by_xla, **kernels)


class _Plan(NamedTuple):
    """How groups are brought to a TPU: so many side by side, of matrices, of which a block takes so many bytes."""

    matrix: Callable[[Array, Groups], Array]
    held: Columns
    side: int
    size: int


def _plan_for_tpu(ranked: Ranked) -> _Plan:
    """As rows where they are, and where they are long; else as columns."""
    shape, groups = ranked.entries.shape, ranked.layout.groups
    n, count = arrays.sizes(shape, groups)
    held, matrix, side = Columns(n), arrays.columns, LANES
    if (groups.axes[-1] == len(shape) - 1 and n >= LANES) or n > _LONGEST_COLUMN:
        held, matrix, side = Rows(n), arrays.rows, _SUBLANES
    side = min(side, count)
    height, width = held.block(side)
    size = 4 * len(_entries(ranked)) * _rounded_up(height, _SUBLANES) * _rounded_up(width, LANES)
    return _Plan(matrix, held, side, size)


def on_tpu(search: Search, bracket: Bracket, more: Bool[Array, ""], interpret: bool = False) -> Bracket:
    """`run` in Mosaic TPU; interpreted, by XLA on any platform."""
    del more
    entries, groups = _entries(search.ranked), search.ranked.layout.groups
    (_, count), (matrix, held, side, size) = arrays.sizes(entries[0].shape, groups), _plan_for_tpu(search.ranked)
    matrices = [matrix(array, groups) for array in entries]
    numbers, structure = jax.tree.flatten(_given(search, bracket))
    missing = -count % side  # groups, for which the others do not wait: both their ends are one
    padded = [jnp.pad(arrays.vector(each, groups), (0, missing), constant_values=1) for each in numbers]
    vectors = [jnp.expand_dims(each, held.axis) for each in padded]

    def kernel(*refs: Any) -> None:
        given, entries, outputs = _split(refs, len(vectors), len(matrices))
        given = jax.tree.unflatten(structure, [ref[...] for ref in given])
        for ref, result in zip(outputs, _found(search, given, entries, held), strict=True):
            ref[...] = result

    buffering = {} if 2 * size <= _BUFFERS else {"pipeline_mode": pl.Buffered(1)}
    of_groups = pl.BlockSpec(held.beside(side), held.place)
    found = pl.pallas_call(
        kernel,
        grid=((count + missing) // side,),
        in_specs=[of_groups] * len(vectors) + [pl.BlockSpec(held.block(side), held.place, **buffering)] * len(matrices),
        out_specs=[of_groups] * 4,
        out_shape=_outputs(search, vectors[0].shape),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=max(size, _BUFFERS) + _SPARE),
        interpret=interpret,
    )(*vectors, *matrices)
    return _bracket(bracket, [each.ravel()[:count] for each in found], groups)


def on_gpu(search: Search, bracket: Bracket, more: Bool[Array, ""], interpret: bool = False) -> Bracket:
    """`run` in Mosaic GPU; interpreted, by XLA on any platform."""
    del more
    entries, groups = _entries(search.ranked), search.ranked.layout.groups
    n, count = arrays.sizes(entries[0].shape, groups)
    blocks = [arrays.rows(array, groups) for array in entries]
    if missing := -n % LANES:
        fills = [search.ranked.none] + [0] * (len(entries) - 1)
        blocks[0] = _keys(blocks[0])
        blocks = [
            jnp.pad(array, ((0, 0), (0, missing)), constant_values=fill)
            for array, fill in zip(blocks, fills, strict=True)
        ]
    blocks = [array.reshape(count, -1, LANES) for array in blocks]
    numbers, structure = jax.tree.flatten(_given(search, bracket))
    vectors = [arrays.vector(each, groups) for each in numbers]

    def kernel(group: Any, *refs: Any) -> None:
        given, entries, outputs = _split(refs, len(vectors), len(blocks))
        given = jax.tree.unflatten(structure, [ref[group] for ref in given])
        held = Block(blocks[0].shape[1], group)
        for ref, result in zip(outputs, _found(search, given, entries, held), strict=True):
            ref[group] = result

    found = gpu.call(kernel, _outputs(search, (count,)), count, interpret)(*vectors, *blocks)
    return _bracket(bracket, found, groups)


_RUNS: dict[str, Callable[..., Bracket]] = {
    "pallas": run,
    Interpreted.TPU: partial(on_tpu, interpret=True),
    Interpreted.GPU: partial(on_gpu, interpret=True),
}
"""Of each implementation in kernels."""


def _found(search: Search, given: _Given, entries: Sequence[Any], held: Held) -> list[Array]:
    """The ends and their counts, when each group has its value."""
    search = _without_entries(search, given)

    def proceed(state: _State) -> _State:
        def asked(piece: Sequence[Array]) -> list[tuple[Statistic, Array]]:
            ranked: Any = search.ranked
            if ranked.masses is not None:
                ranked = ranked._replace(masses=ranked.masses._replace(words=tuple(piece[1:])))
            return brackets.asked(ranked, _keys(piece[0]), (state.left, state.right))

        return _narrowed(search, state, brackets.answered(search, held.statistics(asked, entries)))

    zero = jnp.zeros_like(given.low)
    start = _State(given.low, given.high, given.reached, given.above, zero, zero, given.left, given.right)
    return list(lax.while_loop(lambda state: held.any(state.low < state.high), proceed, start)[:4])


def _narrowed(search: Search, state: _State, seen: Sequence[Array]) -> _State:
    """What is worked out of pairs, element by element."""
    masses: Any = search.ranked.masses
    of_masses = None if masses is None else (masses.units.coarse, masses.ends[1])

    def narrowed(bracket: Bracket, seen: Look, k: Array, step: Array, placing: Any, of_masses: Any) -> Bracket:
        ranked: Any = search.ranked
        if of_masses is not None:
            units, top = of_masses
            ranked = ranked._replace(
                masses=masses._replace(units=masses.units._replace(coarse=units), ends=(None, top))
            )
        after = brackets.narrowed(Search(ranked, k, step, placing, search.sought), bracket, seen)
        return jax.tree.map(partial(jnp.where, bracket.open), after, bracket)

    pairs: list[Any] = [elements(state[place : place + 2]) for place in range(0, len(state), 2)]
    ones: list[Any] = [elements([each]) for each in seen]
    alone = jax.tree.map(lambda each: elements([each]).reshape(()), (search.placing, of_masses))
    after = evaluate(narrowed, Bracket(*pairs), Look(*ones), elements([search.k]), elements([search.step]), *alone)
    return _State(*(each for pair in after for each in pair))


def _entries(ranked: Ranked) -> list[Array]:
    """What to rank, and the masses."""
    return [ranked.entries] if ranked.masses is None else [ranked.entries, *ranked.masses.words]


def _keys(entries: Array) -> Int[Array, "..."]:
    """Of scores, or as they are; that of NaN is the largest."""
    if jnp.issubdtype(entries.dtype, jnp.integer):
        return entries
    return jnp.where(jnp.isnan(entries), jnp.iinfo(jnp.int32).max, keys(entries))


def _given(search: Search, bracket: Bracket) -> _Given:
    masses, placing = search.ranked.masses, search.placing
    (low, high), (reached, above), (left, right) = bracket.ends, bracket.counts, bracket.pivots
    if placing is not None:
        placing = jnp.broadcast_to(placing.astype(jnp.int32), low.shape)
    of_masses = None if masses is None else (masses.target, masses.units.coarse, masses.ends[1])
    return _Given(low, high, reached, above, left, right, search.k[0], search.step[0], placing, of_masses)


def _without_entries(search: Search, given: _Given) -> Search:
    """The search, of what a kernel was given."""
    ranked: Any = search.ranked
    ranked = ranked._replace(entries=None, size=None, layout=None, on_chip=None)
    if given.masses is not None:
        target, coarse, top = given.masses
        units = ranked.masses.units._replace(coarse=coarse)
        masses = ranked.masses._replace(words=(), units=units, target=target, ends=(None, top), guesses=None)
        ranked = ranked._replace(weights=(), masses=masses)
    placing = None if given.placing is None else given.placing > 0
    return Search(ranked, given.k, given.step, placing, search.sought)


def _outputs(search: Search, shape: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
    kinds = [kind_of(search.ranked.dtype)] * 2 + [search.k.dtype] * 2
    return [jax.ShapeDtypeStruct(shape, kind) for kind in kinds]


def _bracket(bracket: Bracket, found: Sequence[Array], groups: Groups) -> Bracket:
    low, high, reached, above = (arrays.group_array(each, bracket.ends.shape[1:], groups) for each in found)
    return bracket._replace(ends=jnp.stack([low, high]), counts=jnp.stack([reached, above]))


def _split(refs: Sequence[Any], *lengths: int) -> list[Sequence[Any]]:
    ends = [0, *itertools.accumulate(lengths), len(refs)]
    return [refs[start:end] for start, end in itertools.pairwise(ends)]
