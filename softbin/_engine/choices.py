"""Hard choices, of prepared arguments: the value that ranks k-th, what is chosen by it, and their derivatives."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Num

from softbin._engine import meshes, order_statistics, ranks
from softbin._engine.arguments import Choice
from softbin._engine.brackets import Sought
from softbin._engine.counting import COUNT, LARGEST, LEAST, SUM, arrange, statistics
from softbin._engine.groups import Groups, is_symbolic
from softbin._engine.order_statistics import Found
from softbin._engine.ranks import Ranked

_FEW = 4  # of so few the largest are found one after the other
_SHORT = 64  # in groups up to this length


def known_few(k: Any, weights: Any, shape: tuple[Any, ...], groups: Groups, implementation: Any = None) -> int | None:
    """`k`, at least 1, where it is known and so small that maxima one after the other are cheaper than counting."""
    if implementation not in (None, "xla"):
        return None
    known = isinstance(k, np.ndarray | np.number | int | float) and np.ndim(k) == 0 and weights is None
    sizes = [shape[axis] for axis in groups.axes]
    short = groups.axis_name is None and not any(map(is_symbolic, sizes)) and math.prod(sizes) <= _SHORT
    return max(math.ceil(k), 1) if known and short and k <= _FEW else None


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def kth_value(choice: Choice, groups: Groups, few: int | None, implementation: Any = None) -> Float[Array, "*group"]:
    """The k-th largest value; NaN in a group with NaN."""

    def search(choice: Choice) -> Array:
        ranked, k = _ranked(choice, groups, implementation)
        like = order_statistics.blank_group(ranked, k, ranked.dtype)
        return order_statistics.find(ranked, k, Sought(), partial(_value, ranked), like, few)

    return batches_first(_one_by_one(search, choice, groups))


@kth_value.defjvp
def _kth_value_jvp(
    groups: Groups, few: int | None, implementation: Any, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
    (choice,), (change,) = primals, tangents
    value, held = located(lax.stop_gradient(choice), groups, few, implementation, last_only=True)
    again, change = (groups.plain_total(jnp.where(held, scores, 0)) for scores in (choice.scores, change.scores))
    return batches_first((with_derivative_of(again, value), change))


def batches_first(arrays: Any) -> Any:
    """The same arrays; under `jax.vmap` the batch is their first dimension.

    A function and its rule must agree on where that is: under `jax.jit`, JAX goes by the function's for both.
    """
    return jax.tree.map(lambda array: jnp.squeeze(jnp.expand_dims(array, 0), 0), arrays)


@jax.custom_jvp
def with_derivative_of(other: Array, value: Array) -> Array:
    """The value, with the derivative of another expression of it, which is not worked out where none is asked for."""
    return jnp.where(False, other, value)  # of the mesh of the other, as JAX 0.7 wants it of what has a derivative


with_derivative_of.defjvps(lambda tangent, *_: tangent, None)


def located(
    choice: Choice, groups: Groups, few: int | None, implementation: Any = None, *, last_only: bool = False
) -> tuple[Array, Bool[Array, "*shape"]]:
    """The k-th largest value, and which entries are chosen, of equal ones the first; or the last of these alone."""
    ranked, k = _ranked(choice, groups, implementation, ties=few is None)

    def place(found: Found) -> tuple[Array, Array]:
        layout, positions = ranked.layout, ranked.layout.positions()
        keys, key = ranked.keys(found.inside), layout.spread(found.key)
        chosen = (keys == key) & (positions <= layout.spread(found.last))
        if last_only:
            (last,) = statistics([(LARGEST, jnp.where(chosen, positions, -1))], layout)
            chosen &= positions == layout.spread(last)
        else:
            chosen |= keys > key
        return _value(ranked, found), layout.leave(chosen)

    like = order_statistics.blank_group(ranked, k, ranked.dtype), order_statistics.blank_entry(ranked, k, bool)
    return order_statistics.find(ranked, k, Sought(reached=True, ties=True), place, like, few)


def value_and_next(
    choice: Choice, groups: Groups, few: int | None, implementation: Any = None
) -> tuple[Float[Array, "*group"], Float[Array, "*group"]]:
    """The k-th largest value and the one after it, which is the same if it is cut, and `-inf` if there is none."""
    ranked, k = _ranked(choice, groups, implementation)
    layout, rank = ranked.layout, ranked.layout.enter_groups(k)

    def both(found: Found) -> tuple[Array, Array]:
        keys = ranked.keys(found.inside)
        reach = keys >= layout.spread(found.key)
        counted = (COUNT, reach) if ranked.weights is None else (SUM, jnp.where(reach, ranked.weights, 0))
        after, reached = statistics([(LARGEST, jnp.where(reach, ranked.none, keys)), counted], layout)
        after = _value(ranked, found._replace(key=jnp.where(reached <= rank, after, found.key)))
        return _value(ranked, found), after

    like = (order_statistics.blank_group(ranked, k, ranked.dtype),) * 2
    return order_statistics.find(ranked, k, Sought(), both, like, few)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def neighbours(choice: Choice, groups: Groups) -> tuple[Float[Array, "*group"], Float[Array, "*group"]]:
    """The next value after the k-th largest, and that one; a derivative goes to one entry that holds it."""
    value, after = _one_by_one(lambda choice: value_and_next(choice, groups, None), choice, groups)
    return batches_first((after, value))


@neighbours.defjvp
def _neighbours_jvp(groups: Groups, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (choice,), (change,) = primals, tangents
    values, held = _located_neighbours(lax.stop_gradient(choice), groups)

    def of(entries: Array) -> list[Array]:
        return [groups.plain_total(jnp.where(here, entries, 0)) for here in held]

    again = tuple(map(with_derivative_of, of(choice.scores), values))
    return batches_first((again, tuple(of(change.scores))))


def _located_neighbours(choice: Choice, groups: Groups) -> tuple[tuple, tuple]:
    """The two values, and the entry that holds each: of equal ones, two that follow one another."""
    ranked, k = _ranked(choice, groups, ties=True)

    def place(found: Found) -> tuple[tuple, tuple]:
        layout, positions = ranked.layout, ranked.layout.positions()
        keys, key, last = ranked.keys(found.inside), layout.spread(found.key), layout.spread(found.last)
        below, cut = jnp.where(keys < key, keys, ranked.none), (keys == key) & (positions > last)
        (after, left) = statistics([(LARGEST, below), (COUNT, cut)], layout)
        after = jnp.where(left > 0, found.key, after)
        high = (keys == key) & (positions <= last)
        low = (keys == layout.spread(after)) & ~high
        ends = jnp.where(high, positions, -1), jnp.where(low, positions, jnp.iinfo(jnp.int32).max)
        places = statistics([(LARGEST, ends[0]), (LEAST, ends[1])], layout)
        held = (here & (positions == layout.spread(at)) for here, at in zip((high, low), places, strict=True))
        high, low = map(layout.leave, held)
        return (_value(ranked, found._replace(key=after)), _value(ranked, found)), (low, high)

    group, entry = order_statistics.blank_group(ranked, k, ranked.dtype), order_statistics.blank_entry(ranked, k, bool)
    return order_statistics.find(ranked, k, Sought(reached=True, ties=True), place, ((group,) * 2, (entry,) * 2))


def expected_choice(
    choice: Choice, groups: Groups, few: int | None
) -> tuple[Float[Array, "*group"], Float[Array, "*shape"]]:
    """The value that ranks at a real `k`, and how often an entry is chosen if equal ones stand in random order.

    All above the value are chosen, and of `k` equal ones hold what is left; an entry counts in part where `k` or its
    weight does not come out even. This share has a derivative by `k` and by weights.
    """
    weights = choice.weights
    in_full = choice if weights is not None else choice._replace(k=jnp.ceil(choice.k).astype(jnp.int32))
    ranked, rank = _ranked(lax.stop_gradient(in_full), groups)
    k = jnp.where(choice.k > 0, choice.k, 1)

    def sides(found: Found) -> tuple:
        layout, keys, key = ranked.layout, ranked.keys(found.inside), ranked.layout.spread(found.key)
        side = jnp.where(keys > key, 2, jnp.where(keys == key, 1, 0)).astype(jnp.int8)
        counts = [layout.leave_groups(count) for count in (found.reached, found.above)]
        return _value(ranked, found), layout.leave(side), jnp.stack(counts)

    groups_like, counts_like = (
        order_statistics.blank_group(ranked, like, dtype)
        for like, dtype in ((rank, ranked.dtype), (jnp.stack([rank, rank]), rank.dtype))
    )
    like = groups_like, order_statistics.blank_entry(ranked, rank, jnp.int8), counts_like
    sought = Sought(reached=True, above=True)
    value, side, (reached, above) = order_statistics.find(ranked, rank, sought, sides, like, few)
    of_above, of_equal = above.astype(k.dtype), (reached - above).astype(k.dtype)
    if weights is not None:
        of_above, of_equal = (groups.total(jnp.where(side == place, weights, 0)) for place in (2, 1))
    share = jnp.clip((k - of_above) / jnp.where(of_equal > 0, of_equal, 1), 0, 1)
    return value, jnp.where(side == 2, 1, jnp.where(side == 1, share, 0))


def _one_by_one(search: Callable[[Choice], Any], choice: Choice, groups: Groups) -> Any:
    """What a search finds; of several `k` for the same entries, by `jax.vmap`, one after the other on one CPU device.

    There one search is kept busy by going through the entries, and several together go through them once for each, and
    wait for the last. Elsewhere they share each pass, and each all-reduce.
    """
    manual = meshes.is_manual(choice.scores)
    if jax.default_backend() != "cpu" or not arrange(choice.scores.shape, groups, manual=manual).local:
        return search(choice)
    several = custom_vmap(search)

    @several.def_vmap
    def of_several(size: int, batched: list[Choice], choice: Choice) -> tuple[Any, Any]:
        (axes,) = batched
        if any(jax.tree.leaves((axes.scores, axes.weights, axes.mask, axes.size))) or not axes.k:
            axes = jax.tree.map(lambda each: 0 if each else None, axes)
            found = jax.vmap(search, (axes,), axis_size=size)(choice)
        else:
            found = lax.map(lambda k: search(choice._replace(k=k)), choice.k)
        return found, jax.tree.map(lambda _: True, found)

    return several(choice)


def _ranked(
    choice: Choice, groups: Groups, implementation: Any = None, *, ties: bool = False
) -> tuple[Ranked, Num[Array, "*group"]]:
    """What to rank, and a `k` that there is an entry for."""
    on_chip = order_statistics.chosen_kernels(implementation, choice.scores, choice.weights, groups)
    ranked = ranks.rank(choice.scores, choice.mask, choice.weights, choice.size, groups, ties=ties, on_chip=on_chip)
    return ranked, jnp.where(choice.k > 0, choice.k, jnp.ones_like(choice.k))


def _value(ranked: Ranked, found: Found) -> Float[Array, "*group"]:
    value = ranks.value_of(found.key, ranked.dtype)
    value = jnp.where(found.key == ranked.none, -jnp.inf, value)
    return ranked.layout.leave_groups(value)
