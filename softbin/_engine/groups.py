"""Groups: which entries of an array share a threshold, and sums over them."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from softbin._engine import sums

_SAMPLE = 512  # entries of a group, that its mean and deviation are judged by
_ROUND = 4096  # sums of up to 2^24 entries, in parts, are whole numbers that floats hold


class Groups(NamedTuple):
    """Where the entries of each group lie.

    What belongs to a group (its budget, its threshold) stands in a group array: of length one along the axes, and
    the same in every lane.

    Attributes:
      axes: along these axes, in ascending order;
      axis_name: over these mapped axes;
      lanes: and side by side on the last axis, as so many copies of all groups.
    """

    axes: tuple[int, ...]
    axis_name: Any = None
    lanes: int = 1

    def size(self, shape: tuple[Any, ...]) -> Any:
        """How many entries a group has in an array of this shape, over all shards."""
        shards = 1 if self.axis_name is None else lax.psum(1, self.axis_name)
        return math.prod(shape[axis] for axis in self.axes) * self.lanes * shards

    def counts_fit(self, shape: tuple[Any, ...], dtype: Any) -> bool:
        """Whether floats of this type hold every number of entries; a symbolic number is taken to be that small."""
        size = self.size(shape)
        return is_symbolic(size) or bool(size <= 2 / jnp.finfo(dtype).eps)

    def without(self, by_dimension: Iterable[Any]) -> tuple[Any, ...]:
        """What an array's dimensions have, for those that no group lies along."""
        return tuple(entry for axis, entry in enumerate(by_dimension) if axis not in self.axes)

    def sharding(self, spec: PartitionSpec) -> PartitionSpec:
        """That of an array with one number per group, from that of the entries."""
        return PartitionSpec(*self.without(spec))

    def spread(self, values: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """A group array, from one number per group on the last axis."""
        return values if self.lanes == 1 else jnp.concatenate([values] * self.lanes, -1)

    def gather(self, group_array: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """One number per group, from a group array."""
        return group_array[..., : group_array.shape[-1] // self.lanes]

    def totals(
        self, values: Sequence[Float[Array, "*shape"]], *, in_parts: bool = False
    ) -> list[Float[Array, "*group"]]:
        """The sums over each group of several arrays, in one pass over them.

        With `in_parts` the first are whole numbers, of more entries than floats count: their sum comes as two terms,
        which round less than it would.
        """
        return _totals(tuple(values), self, in_parts)

    def total(self, values: Float[Array, "*shape"]) -> Float[Array, "*group"]:
        """The sum over each group."""
        return self.totals([values])[0]

    def sample(self, values: Float[Array, "*shape"]) -> Float[Array, "*sample"]:
        """Some hundreds of entries of each group, or all where there are fewer, at even distances."""
        left = _SAMPLE // self.lanes
        for axis in self.axes:
            n = values.shape[axis]
            if not is_symbolic(n):
                values = sums.strided(values, axis, shards(n), max(left, 1))
                left = left // max(values.shape[axis], 1)
        return values

    def stack(self, group_arrays: Sequence[Shaped[Array, "*group"]]) -> Shaped[Array, "..."]:
        """Several group arrays as one, which a compiler works out in one loop."""
        return jnp.stack(group_arrays)

    def unstack(self, stacked: Shaped[Array, "..."]) -> list[Shaped[Array, "*group"]]:
        """The group arrays again."""
        return [stacked[i] for i in range(stacked.shape[0])]

    def count_where(self, condition: Bool[Array, "*shape"]) -> Int[Array, "*group"]:
        """How many entries of each group meet a condition: exact up to 2^31 entries."""
        numbers = jnp.where(condition, sums.hidden(1, jnp.int32), 0)
        for axis in self.axes:
            n = numbers.shape[axis]
            if not is_symbolic(n):
                numbers = sums.add_neighbours(numbers, axis, shards(n))
        return self._across(numbers.sum(self.axes, keepdims=True, dtype=jnp.int32), jnp.sum, lax.psum)

    def plain_total(self, values: Float[Array, "*shape"]) -> Float[Array, "*group"]:
        """`total` where its last digits do not matter: quick to compile, and with a plain transpose."""
        return self._across(values.sum(self.axes, keepdims=True), jnp.sum, lax.psum)

    def largest(self, values: Num[Array, "*shape"]) -> Num[Array, "*group"]:
        """The largest entry of each group."""
        return self._across(values.max(self.axes, keepdims=True), jnp.max, lax.pmax)

    def any(self, group_array: Bool[Array, "..."]) -> Bool[Array, ""]:
        """Whether something holds for any group."""
        return jnp.any(self.gather(group_array))

    def _across(
        self, group_array: Num[Array, "*group"], reduce: Callable[..., Any], across: Callable[..., Any]
    ) -> Num[Array, "*group"]:
        """Combine the lanes, and the shards."""
        if self.lanes > 1:
            lanes = group_array.reshape(*group_array.shape[:-1], self.lanes, -1)
            group_array = reduce(lanes, -2)
        if self.axis_name is not None:
            group_array = across(group_array, self.axis_name)
        return self.spread(group_array)


def is_symbolic(n: Any) -> bool:
    """Whether a length stands for any, in a program that `jax.export` makes."""
    return not isinstance(n, int)


def shards(n: Any) -> int:
    """The most devices that an axis of length `n` can be sharded over evenly; what it is cut into divides by it."""
    return 1 if is_symbolic(n) else math.gcd(n, jax.device_count())


def halvings(n: int) -> int:
    """The largest power of two, up to 16, in `n`: sums by blocks of eight want a large one."""
    return math.gcd(n, 16)


def weighted(values: Num[Array, "..."], weights: Float[Array, "..."] | None) -> Num[Array, "..."]:
    """`w v`, where no weights are weights of 1."""
    return values if weights is None else values * weights


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _totals(values: Sequence[Array], groups: Groups, in_parts: bool) -> list[Array]:
    if len(values) == 1:  # of a single operand XLA makes one reduction of all levels, and writes down what is summed
        total, negative = _totals((values[0], sums.hidden(0, values[0].dtype) - values[0]), groups, in_parts)
        return [(total - negative) / 2]
    values = list(values)
    for axis in groups.axes:
        n = values[0].shape[axis]
        if not is_symbolic(n):
            values = sums.reduce_blocks(values, axis, shards(n))
    if in_parts:
        coarse = jnp.round(values[0] / _ROUND) * _ROUND
        values = [coarse, values[0] - coarse, *values[1:]]
    if groups.lanes > 1:
        values = [v.reshape(*v.shape[:-1], groups.lanes, -1) for v in values]
    axes = (*groups.axes, values[0].ndim - 2) if groups.lanes > 1 else groups.axes
    if groups.axis_name is None and all(n == 1 for n in map(shards, values[0].shape)):
        stacked = jnp.stack(sums.reduce(values, *axes))
    else:  # a reduction of one operand is one all-reduce; of several, XLA would gather what each device has
        stacked = jnp.stack(values).sum([axis + 1 for axis in axes])
    if groups.axis_name is not None:
        stacked = lax.psum(stacked, groups.axis_name)
    stacked = jnp.expand_dims(stacked, [axis + 1 for axis in groups.axes])
    return groups.unstack(groups.spread(stacked))


@_totals.defjvp
def _totals_jvp(groups: Groups, in_parts: bool, primals: tuple, tangents: tuple) -> tuple[list, list]:
    totals = _totals(*primals, groups, in_parts)
    changes = [groups.plain_total(tangent) for tangent in tangents[0]]
    if in_parts:
        changes = [changes[0], jnp.zeros_like(changes[0]), *changes[1:]]
    return totals, changes
