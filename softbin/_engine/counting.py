"""Several statistics of every group in one pass: counts or sums, least and largest entries, exact in any order.

Compilers write a loop in vectors where they reduce a middle axis of a few entries, and write nothing in between: so an
axis is seen as blocks of 8, and what is left of them again. A sharded axis is cut inside the shards, and the parts are
added, or compared, by plain reductions at the end: of those of several arrays at once compilers gather the parts.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Num, Shaped

from softbin._engine import sums
from softbin._engine.groups import Groups, is_symbolic, shards
from softbin._engine.sums import LARGEST, SUM, Statistic

_BLOCK = 8  # so many are unrolled; 16 and more leave the registers
_FEW = 64  # that are left to the last reduction
_SHORT = 32  # rows up to this length are turned into columns, over which loops are vectors
_FIELDS = 3  # conditions that an integer counts
_FIELD = 10  # bits of an integer that count one of them, in blocks of fewer entries than they hold
_WIDE = 128  # entries side by side, for vectors and for few rounds of the outer loops


class Layout(NamedTuple):
    """How entries lie while they are counted.

    Attributes:
      shape: as they are given, but for a vector, which is a column;
      groups: then;
      vector: whether it was one;
      turned: short rows are turned into columns;
      axis: which is cut into blocks, the longest of the groups;
      lanes: so many of its entries stand side by side, each with its own copies of the groups;
      length: with entries added that do not exist, so that blocks come out even;
      parts: that lie whole on a device;
      local: whether groups do;
      laid_out: the groups, so laid out.
    """

    shape: tuple[Any, ...]
    groups: Groups
    vector: bool
    turned: bool
    axis: int
    lanes: int
    length: Any
    parts: int
    local: bool
    laid_out: Groups

    def enter(self, entries: Shaped[Array, "..."], fill: Any) -> Shaped[Array, "..."]:
        """Entries, laid out, with `fill` in place of those that do not exist."""
        entries = entries[:, None] if self.vector else entries
        if self.turned:
            entries = jnp.moveaxis(entries, -1, 0)
        if added := self.length - entries.shape[self.axis]:
            widths = [(0, added if axis == self.axis else 0, 0) for axis in range(entries.ndim)]
            entries = lax.pad(entries, sums.hidden(fill, entries.dtype), widths)
        if self.lanes == 1:
            return entries
        *before, n, columns = entries.shape
        return entries.reshape(*before, n // self.lanes, self.lanes * columns)

    def leave(self, entries: Shaped[Array, "..."]) -> Shaped[Array, "*shape"]:
        """Entries as they were given."""
        if self.lanes > 1:
            *before, rows, columns = entries.shape
            entries = entries.reshape(*before, rows * self.lanes, columns // self.lanes)
        if not is_symbolic(self.length):
            n = self.shape[-1 if self.turned else self.axis]
            entries = lax.slice_in_dim(entries, 0, n, axis=self.axis)
        entries = jnp.moveaxis(entries, 0, -1) if self.turned else entries
        return entries[:, 0] if self.vector else entries

    def enter_groups(self, group_array: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """A group array, one number for each group."""
        group_array = group_array[:, None] if self.vector else group_array
        return jnp.moveaxis(group_array, -1, 0) if self.turned else self.groups.gather(group_array)

    def leave_groups(self, numbers: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """A group array, for the entries as they were given."""
        numbers = numbers[:, 0] if self.vector else numbers
        return jnp.moveaxis(numbers, 0, -1) if self.turned else self.groups.spread(numbers)

    def spread(self, numbers: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Numbers of groups, for the entries laid out."""
        return self.laid_out.spread(numbers)

    @property
    def given(self) -> tuple[Any, ...]:
        """The shape of the entries as they are given."""
        return self.shape[:1] if self.vector else self.shape

    @property
    def in_place(self) -> bool:
        """Whether entries lie as they are given, but for their shape."""
        return not self.turned and self.length == self.shape[self.axis]

    def positions(self) -> Int[Array, "..."]:
        """Of each entry in its group, in the order of the axes, and of the shards before them."""
        shape = list(self.shape)
        if self.turned:
            shape = [shape[-1], *shape[:-1]]
        position = jnp.zeros(shape, jnp.int32)
        stride: Any = self.groups.lanes
        for axis in reversed(self.groups.axes):
            along = 0 if self.turned else axis
            position = position + lax.broadcasted_iota(jnp.int32, shape, along) * stride
            stride = stride * self.shape[axis]
        if self.groups.lanes > 1:
            lane = lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1) // (shape[-1] // self.groups.lanes)
            position = position + lane
        if self.groups.axis_name is not None:
            position = position + lax.axis_index(self.groups.axis_name) * stride
        return self._replace(vector=False, turned=False).enter(position, 0)

    def sample(self, entries: Shaped[Array, "..."], most: int) -> Shaped[Array, "..."]:
        """About so many entries of each group, from places that are evenly spread, in rows or in every shard."""
        n = entries.shape[self.axis]
        if is_symbolic(n):
            return entries
        others = math.prod(entries.shape[axis] for axis in self.groups.axes if axis != self.axis and not self.turned)
        step = min(max(n * self.lanes * others // most, 1), n // self.parts)
        shape = entries.shape[: self.axis], entries.shape[self.axis + 1 :]
        parts = entries.reshape(*shape[0], self.parts, n // self.parts, *shape[1])
        chosen = lax.slice_in_dim(parts, step // 2, None, step, axis=self.axis + 1)
        return chosen.reshape(*shape[0], -1, *shape[1])


def arrange(shape: tuple[Any, ...], groups: Groups, *, manual: bool) -> Layout:
    """The layout for entries of a shape; `manual` if they are those of one device."""
    if any(map(is_symbolic, shape)) or groups.lanes > 1 or 0 in shape:
        return as_they_lie(shape, groups)
    axis = _longest(shape, groups)
    n, last = shape[axis], len(shape) - 1
    if vector := len(shape) == 1:
        shape, last = (n, 1), 1
    parts = 1 if manual else shards(n)
    local = groups.axis_name is None and (manual or all(shards(shape[axis]) == 1 for axis in groups.axes))
    if axis == last and n <= _SHORT and groups.axes == (last,):
        return Layout(shape, groups, False, True, 0, 1, n, parts, local, Groups((0,), groups.axis_name))
    lanes = 1
    if axis == last - 1 and last not in groups.axes and (manual or shards(shape[last]) == 1):
        while lanes * shape[last] < _WIDE and n >= 2 * lanes * _BLOCK and (n % (2 * lanes * parts) == 0 or parts == 1):
            lanes *= 2
    unit = lanes * (1 if n <= lanes * _FEW else _BLOCK if n <= lanes * _FEW * _BLOCK else _BLOCK**2)
    length = -(-n // unit) * unit if parts == 1 else n
    laid_out = Groups(groups.axes, groups.axis_name, lanes)
    return Layout(shape, groups, vector, False, axis, lanes, length, parts, local, laid_out)


def as_they_lie(shape: tuple[Any, ...], groups: Groups) -> Layout:
    """The layout that changes nothing."""
    axis = _longest(shape, groups)
    return Layout(shape, groups, False, False, axis, 1, shape[axis], 1, groups.axis_name is None, groups)


def _longest(shape: tuple[Any, ...], groups: Groups) -> int:
    return max(groups.axes, key=lambda axis: 0 if is_symbolic(shape[axis]) else shape[axis])


COUNT = Statistic(lax.add, lambda dtype: 0)
LEAST = Statistic(lax.min, lambda dtype: np.iinfo(dtype).max)


def statistics(operands: Sequence[tuple[Statistic, Shaped[Array, "..."]]], layout: Layout) -> list[Num[Array, "..."]]:
    """Statistics, a number for each group, in one pass: counts of conditions, sums, extremes.

    Counts are of integers of their own where they are more than three, and share one where they are two or three.
    """
    kinds, arrays = zip(*operands, strict=True)
    arrays = tuple(a.astype(jnp.int32) if kind is COUNT else a for kind, a in zip(kinds, arrays, strict=True))
    axis, groups, n = layout.axis, layout.laid_out, arrays[0].shape[layout.axis]
    folded = 1  # entries that an element stands for
    while not is_symbolic(n) and n // layout.parts > _FEW and n % (_BLOCK * layout.parts) == 0:
        if folded == 1:
            kinds, arrays = _packed(kinds, arrays)
        arrays = _fold(kinds, arrays, axis, layout.parts)
        n, folded = n // _BLOCK, folded * _BLOCK
        if folded * _BLOCK >= 2**_FIELD:
            kinds, arrays = _unpacked(operands, arrays)
    kinds, arrays = _unpacked(operands, arrays)
    axes = groups.axes
    if layout.local and groups.lanes > 1 and not is_symbolic(n) and n > _FEW:  # too many terms to meet in one float
        arrays = tuple(jnp.expand_dims(array, axis) for array in sums.reduce(arrays, axis, kinds=kinds))
    if groups.lanes > 1:  # beside the last axis, the lanes
        *before, width = arrays[0].shape
        arrays = tuple(array.reshape(*before, groups.lanes, width // groups.lanes) for array in arrays)
        axes = (*axes, len(before))
    if layout.local:
        reduced = sums.reduce(arrays, *axes, kinds=kinds)
    else:
        reduced = _reduce_shards(kinds, arrays, axes, groups.axis_name)
    return [jnp.expand_dims(array, groups.axes) for array in reduced]


def _packed(kinds: Sequence[Statistic], arrays: tuple) -> tuple[Sequence[Statistic], tuple]:
    """The counts as fields of one integer, in front."""
    counts = [array for kind, array in zip(kinds, arrays, strict=True) if kind is COUNT]
    rest = [(kind, array) for kind, array in zip(kinds, arrays, strict=True) if kind is not COUNT]
    if not 2 <= len(counts) <= _FIELDS:
        return kinds, arrays
    packed = functools.reduce(lax.bitwise_or, (count << _FIELD * place for place, count in enumerate(counts)))
    return (SUM, *(kind for kind, _ in rest)), (packed, *(array for _, array in rest))


def _unpacked(operands: Sequence[tuple[Statistic, Any]], arrays: tuple) -> tuple[Sequence[Statistic], tuple]:
    """The counts by themselves again, each in its place."""
    kinds = tuple(kind for kind, _ in operands)
    if len(arrays) == len(kinds):
        return kinds, arrays
    packed, *rest = arrays
    fields, others, unpacked = 0, iter(rest), []
    for kind in kinds:
        if kind is COUNT:
            unpacked.append((packed >> _FIELD * fields) & (2**_FIELD - 1))
            fields += 1
        else:
            unpacked.append(next(others))
    return kinds, tuple(unpacked)


def _fold(kinds: Sequence[Statistic], arrays: tuple, axis: int, parts: int) -> tuple:
    """Blocks of 8 become one entry: neighbours, and along the last axis those an eighth of a part apart."""
    *before, n = arrays[0].shape[: axis + 1]
    after = arrays[0].shape[axis + 1 :]
    cut = (parts, _BLOCK, n // parts // _BLOCK) if not after else (n // _BLOCK, _BLOCK)
    arrays = tuple(array.reshape(*before, *cut, *after) for array in arrays)
    return tuple(array.reshape(*before, n // _BLOCK, *after) for array in sums.reduce(arrays, axis + 1, kinds=kinds))


def _reduce_shards(kinds: Sequence[Statistic], arrays: tuple, axes: tuple[int, ...], axis_name: Any) -> list[Array]:
    """By a sum and a maximum of stacked arrays, of which each is an all-reduce: the least is the largest complement."""
    stacks: dict[tuple, list[int]] = {}
    for place, (kind, array) in enumerate(zip(kinds, arrays, strict=True)):
        stacks.setdefault((kind in (LEAST, LARGEST), array.dtype), []).append(place)
    reduced: dict[int, Array] = {}
    for (extreme, dtype), places in stacks.items():
        stacked = jnp.stack([~arrays[place] if kinds[place] is LEAST else arrays[place] for place in places])
        along = tuple(axis + 1 for axis in axes)
        found = stacked.max(along) if extreme else stacked.sum(along, dtype=dtype)
        if axis_name is not None:
            found = lax.pmax(found, axis_name) if extreme else lax.psum(found, axis_name)
        reduced |= dict(zip(places, found, strict=True))
    return [~reduced[place] if kind is LEAST else reduced[place] for place, kind in enumerate(kinds)]
