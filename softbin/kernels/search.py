"""The search on chip: the scores are read from device memory once, however many rounds it takes.

Each step of the grid copies some groups into fast memory and runs `softbin.search` on them there. On TPU these are the
columns of a block (VMEM), with group arrays of one row; on GPU it is a single group (shared memory and registers of a
block of threads), with scalars for group arrays.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from softbin import search as solver
from softbin.groups import Groups
from softbin.regularizers import Regularizer
from softbin.search import Threshold

_LONGEST = 8192  # entries of a group that fit on chip, in as many copies as the solver works with
MOSAIC_GPU = (0, 10, 2)  # the JAX whose Mosaic GPU has all operations of the solver
_HOPPER = 9.0  # its compute capability, the least that Mosaic GPU supports
_LANES = 128  # of a vector register on TPU, of a warpgroup on GPU


class _Columns:
    """Every column of a block is a group."""

    def size(self, shape):
        return shape[0]

    def total(self, values):
        return values.sum(0, keepdims=True)

    def largest(self, values):
        return values.max(0, keepdims=True)

    def any(self, group_array):
        return jnp.any(group_array)


class _Block:
    """A block is a group."""

    def size(self, shape):
        return math.prod(shape)

    def total(self, values):
        return values.sum()

    def largest(self, values):
        return values.max()

    def any(self, group_array):
        return group_array


def fits(scores: Float[Array, "*shape"], temperature: Float[Array, "..."], groups: Groups) -> bool:
    """Whether the kernels can search these groups: in float32, not sharded, short, and with a temperature each."""
    if jax.default_backend() == "gpu" and float(getattr(jax.devices()[0], "compute_capability", 0)) < _HOPPER:
        return False
    return (
        scores.dtype == jnp.float32
        and groups.axis_name is None
        and groups.size(scores.shape) <= _LONGEST
        and temperature.shape != scores.shape
    )


def search(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
) -> tuple[Threshold, Int[Array, ""]]:
    """As `softbin.search.search`: by a kernel on TPU and on GPUs from Hopper on, by the same function elsewhere."""
    kernels = {"tpu": on_tpu, "cuda": on_gpu}
    if jax.__version_info__ < MOSAIC_GPU:
        del kernels["cuda"]
    return lax.platform_dependent(
        scores,
        k,
        temperature,
        weights,
        default=lambda *arguments: solver.search(*arguments, groups, regularizer),
        **{name: partial(kernel, groups=groups, regularizer=regularizer) for name, kernel in kernels.items()},
    )


def on_tpu(scores, k, temperature, weights, groups, regularizer, interpret=False):
    """The kernel in Mosaic TPU."""
    n, count, columns, rows = _columns(scores, k, temperature, weights, groups)
    missing = -count % _LANES
    columns = [jnp.pad(column, ((0, 0), (0, missing))) for column in columns]
    rows = [jnp.pad(row, (0, missing), constant_values=1)[None] for row in rows]
    column, row = pl.BlockSpec((n, _LANES), lambda i: (0, i)), pl.BlockSpec((1, _LANES), lambda i: (0, i))

    def kernel(*refs):
        *inputs, coarse, fine, rounds = refs
        found, most = _search([ref[...] for ref in inputs], _Columns(), regularizer)
        coarse[...], fine[...] = found.coarse, found.fine
        rounds[...] = jnp.full((1, _LANES), most)

    found = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(count, _LANES),),
        in_specs=[row, row] + [column] * len(columns),
        out_specs=[row] * 3,
        out_shape=_outputs((1, count + missing)),
        interpret=interpret,
    )(*rows, *columns)
    return _group_arrays([array[0, :count] for array in found], k.shape, groups)


def on_gpu(scores, k, temperature, weights, groups, regularizer, interpret=False):
    """The kernel in Mosaic GPU."""
    n, count, columns, rows = _columns(scores, k, temperature, weights, groups)
    missing, takes_no_part = -n % _LANES, (-jnp.inf, 0)
    blocks = [
        jnp.pad(column, ((0, missing), (0, 0)), constant_values=fill).T.reshape(count, -1, _LANES)
        for column, fill in zip(columns, takes_no_part, strict=False)
    ]

    def kernel(group, *refs):
        *inputs, coarse, fine, rounds = refs
        found, most = _search([ref[group] for ref in inputs], _Block(), regularizer)
        coarse[group], fine[group], rounds[group] = found.coarse, found.fine, most

    outputs = _outputs((count,))
    if interpret:
        call = pl.pallas_call(
            lambda *refs: kernel(pl.program_id(0), *refs), outputs, grid=(count,), interpret=True,
            in_specs=[pl.BlockSpec()] * (len(rows) + len(blocks)), out_specs=[pl.BlockSpec()] * 3,
        )  # fmt: skip
    else:
        call = plgpu.kernel(
            lambda *refs: kernel(lax.axis_index("group"), *refs), out_type=outputs, grid=(count,), grid_names=("group",)
        )
    return _group_arrays(call(*rows, *blocks), k.shape, groups)


def _search(inputs, groups, regularizer):
    k, temperature, scores, *weights = inputs
    return solver.search(scores, k, temperature, weights[0] if weights else None, groups, regularizer)


def _columns(scores, k, temperature, weights, groups):
    """The length and the number of the groups, arrays with groups as columns, and group arrays as vectors."""
    n = groups.size(scores.shape)
    columns = [jnp.moveaxis(array, groups.axis, 0).reshape(n, -1) for array in (scores, weights) if array is not None]
    rows = [groups.gather(group_array).ravel() for group_array in (k, temperature)]
    return n, columns[0].shape[1], columns, rows


def _outputs(shape):
    return [jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float32, jnp.float32, jnp.int32)]


def _group_arrays(found, shape, groups):
    coarse, fine, rounds = found
    one_lane = (*shape[:-1], shape[-1] // groups.lanes)
    return Threshold(*(groups.spread(part.reshape(one_lane)) for part in (coarse, fine))), rounds.max()
