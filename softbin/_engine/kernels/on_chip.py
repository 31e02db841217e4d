"""Functions of groups, run on chip: what they read comes from device memory once, however many rounds they take.

Each step of the grid copies some groups into fast memory and runs the function on them there. On TPU these are the
columns of a block (VMEM), with group arrays of one row; on GPU it is a single group (shared memory and registers of a
block of threads), with scalars for group arrays.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from softbin._engine.groups import Groups
from softbin._engine.kernels import Interpreted, arrays, gpu
from softbin._engine.kernels.arrays import LANES
from softbin._engine.search import Reductions
from softbin.regularizers import Regularizer

LONGEST = 8192  # entries of a group that fit on chip, in as many copies as the solver works with; on TPU v4 a fourth

_LACKING = frozenset({"erf", "erfc", "erf_inv", "expm1", "log1p"})  # operations that Mosaic has not, on TPU or on GPU

Compute = Callable[[Sequence[Array], Sequence[Array], Reductions], tuple[Sequence[Array], Sequence[Array]]]
"""From group arrays and entries, and sums over groups, to group arrays and entries.

It reads entries as `entries[i][...]`, when it needs them: registers are few.
"""


class _OnChip(ABC):
    """What all groups on chip have in common: they are short."""

    @abstractmethod
    def total(self, values: Array) -> Array:
        """The sum over each group."""

    def counts_fit(self, shape: tuple[int, ...], dtype: Any) -> bool:
        return True

    def totals(self, values: Sequence[Array], *, in_parts: bool = False) -> list[Array]:
        return [self.total(v) for v in values]

    def plain_total(self, values: Array) -> Array:
        return self.total(values)

    def sample(self, values: Array) -> Array:
        return values

    def stack(self, group_arrays: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(group_arrays)

    def unstack(self, stacked: tuple[Array, ...]) -> tuple[Array, ...]:
        return stacked


class _Columns(_OnChip):
    """Every column of a block is a group."""

    def size(self, shape):
        return shape[0]

    def total(self, values):
        return values.sum(0, keepdims=True)

    def largest(self, values):
        return values.max(0, keepdims=True)

    def any(self, group_array):
        return jnp.any(group_array)


class _Block(_OnChip):
    """A block is a group."""

    def size(self, shape):
        return math.prod(shape)

    def total(self, values):
        return values.sum()

    def largest(self, values):
        return values.max()

    def any(self, group_array):
        return group_array


def fits(scores: Float[Array, "*shape"], groups: Groups, regularizer: Regularizer) -> bool:
    """Whether the kernels can search these groups: in float32, not sharded, short, of a link that Mosaic lowers."""
    if scores.dtype != jnp.float32 or groups.axis_name is not None or not arrays.device_has_kernels():
        return False
    link = str(jax.make_jaxpr(regularizer.parts)(jnp.zeros(1, scores.dtype)))
    if _LACKING & set(re.findall(r"= (\w+)", link)):
        return False
    most = LONGEST if arrays.fast_memory() == arrays.AMPLE else LONGEST // 4
    return groups.size(scores.shape) <= most


def run(
    compute: Compute,
    group_arrays: Sequence[Float[Array, "*group"]],
    entries: Sequence[Float[Array, "*shape"]],
    groups: Groups,
) -> tuple[list[Float[Array, "*group"]], list[Float[Array, "*shape"]]]:
    """`compute(group_arrays, entries, groups)`: in a kernel on TPU and on GPUs from Hopper on, by XLA elsewhere.

    The first entries are scores: where a kernel pads a group, they are `-inf`, which takes no part, and the others 0.
    """
    return lax.platform_dependent(
        group_arrays,
        entries,
        default=lambda group_arrays, entries: tuple(map(list, compute(group_arrays, entries, groups))),
        **arrays.by_platform(*(partial(kernel, compute, groups=groups) for kernel in (on_tpu, on_gpu))),
    )


def on_tpu(compute, group_arrays, entries, groups, interpret=False):
    """`run` in Mosaic TPU; interpreted, by XLA on any platform."""
    n, count = arrays.sizes(entries[0].shape, groups)
    missing = -count % LANES
    columns = [jnp.pad(arrays.columns(array, groups), ((0, 0), (0, missing))) for array in entries]
    rows = [jnp.pad(arrays.vector(array, groups), (0, missing), constant_values=1)[None] for array in group_arrays]
    row_shape, column_shape = ((length, count + missing) for length in (1, n))
    row, column = (pl.BlockSpec((length, LANES), lambda i: (0, i)) for length in (1, n))
    of_groups, of_entries = _count_outputs(compute, rows, columns, _Columns())

    def kernel(*refs):
        inputs, outputs = refs[: len(rows) + len(columns)], refs[len(rows) + len(columns) :]
        results = compute([ref[...] for ref in inputs[: len(rows)]], inputs[len(rows) :], _Columns())
        for ref, result in zip(outputs, (*results[0], *results[1]), strict=True):
            ref[...] = result

    found = pl.pallas_call(
        kernel,
        grid=((count + missing) // LANES,),
        in_specs=[row] * len(rows) + [column] * len(columns),
        out_specs=[row] * of_groups + [column] * of_entries,
        out_shape=_float32(row_shape, of_groups) + _float32(column_shape, of_entries),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=arrays.fast_memory()),
        interpret=interpret,
    )(*rows, *columns)
    found = [array[:, :count] for array in found]
    return (
        [arrays.group_array(row, group_arrays[0].shape, groups) for row in found[:of_groups]],
        [arrays.from_columns(columns, entries[0].shape, groups) for columns in found[of_groups:]],
    )


def on_gpu(compute, group_arrays, entries, groups, interpret=False):
    """`run` in Mosaic GPU; interpreted, by XLA on any platform."""
    n, count = arrays.sizes(entries[0].shape, groups)
    missing, takes_no_part = -n % LANES, [-jnp.inf] + [0] * (len(entries) - 1)
    blocks = [
        jnp.pad(arrays.columns(array, groups), ((0, missing), (0, 0)), constant_values=fill).T.reshape(count, -1, LANES)
        for array, fill in zip(entries, takes_no_part, strict=True)
    ]
    rows = [arrays.vector(array, groups) for array in group_arrays]
    of_groups, of_entries = _count_outputs(compute, [row[0] for row in rows], [block[0] for block in blocks], _Block())
    outputs = _float32((count,), of_groups) + _float32(blocks[0].shape, of_entries)

    def kernel(group, *refs):
        inputs, outputs = refs[: len(rows) + len(blocks)], refs[len(rows) + len(blocks) :]
        entries = [ref.at[group] for ref in inputs[len(rows) :]]
        results = compute([ref[group] for ref in inputs[: len(rows)]], entries, _Block())
        for ref, result in zip(outputs, (*results[0], *results[1]), strict=True):
            ref[group] = result

    found = gpu.call(kernel, outputs, count, interpret)(*rows, *blocks)
    return (
        [arrays.group_array(row, group_arrays[0].shape, groups) for row in found[:of_groups]],
        [arrays.from_columns(block.reshape(count, -1).T[:n], entries[0].shape, groups) for block in found[of_groups:]],
    )


RUNS: dict[str, Callable] = {
    "pallas": run,
    Interpreted.TPU: partial(on_tpu, interpret=True),
    Interpreted.GPU: partial(on_gpu, interpret=True),
}
"""Of each implementation in kernels."""


def _count_outputs(compute, rows, columns, reductions):
    of_groups, of_entries = jax.eval_shape(lambda *arrays: compute(*arrays, reductions), rows, columns)
    return len(of_groups), len(of_entries)


def _float32(shape, count):
    return [jax.ShapeDtypeStruct(shape, jnp.float32)] * count
