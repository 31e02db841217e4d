"""Groups as kernels take them: as the columns or the rows of a matrix, with a number for each in a vector."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from softbin._engine.groups import Groups

LANES = 128  # of a vector register on TPU, of a warpgroup on GPU
MOSAIC_GPU = (0, 10, 2)  # the JAX whose Mosaic GPU has all operations of the kernels
AMPLE = 3 * 2**24  # bytes of fast memory that a kernel may use on a TPU with 64 MB or more
_SMALL = ("TPU v2", "TPU v3", "TPU v4", "TPU v4 lite")  # that have 16 MB
_HOPPER = 9.0  # its compute capability, the least that Mosaic GPU supports


def device_has_kernels() -> bool:
    """Whether the device in use is none of those that Mosaic does not support, older GPUs."""
    return jax.default_backend() != "gpu" or _compute_capability(jax.devices()[0]) >= _HOPPER


def fast_memory() -> int:
    """Bytes of fast memory that a kernel may use on the TPU in use; where there is none, on those of today."""
    return 2**24 if jax.devices()[0].device_kind in _SMALL else AMPLE


def by_platform(tpu: Any, gpu: Any) -> dict[str, Any]:
    """What stands for platforms in `jax.lax.platform_dependent`.

    On TPU there are no types of 64 bits, which Mosaic itself makes use of where they are enabled.
    """
    kernels = {} if jnp.result_type(int) == jnp.int64 else {"tpu": tpu}
    return kernels | ({"cuda": gpu} if jax.__version_info__ >= MOSAIC_GPU else {})


def _compute_capability(device: Any) -> float:
    """Of a GPU by NVIDIA; 0 of another, which names its architecture."""
    try:
        return float(getattr(device, "compute_capability", 0))
    except ValueError:
        return 0.0


def sizes(shape: tuple[int, ...], groups: Groups) -> tuple[int, int]:
    """The length and the number of the groups."""
    n = groups.size(shape)
    return n, math.prod(shape) // n


def columns(entries: Shaped[Array, "*shape"], groups: Groups) -> Shaped[Array, "..."]:
    """Entries as a matrix with groups as columns."""
    return jnp.moveaxis(entries, groups.axes, range(len(groups.axes))).reshape(groups.size(entries.shape), -1)


def rows(entries: Shaped[Array, "*shape"], groups: Groups) -> Shaped[Array, "..."]:
    """Entries as a matrix with groups as rows."""
    last = range(entries.ndim - len(groups.axes), entries.ndim)
    return jnp.moveaxis(entries, groups.axes, last).reshape(-1, groups.size(entries.shape))


def from_columns(matrix: Shaped[Array, "..."], shape: tuple[int, ...], groups: Groups) -> Shaped[Array, "*shape"]:
    """Entries again."""
    along = tuple(shape[axis] for axis in groups.axes)
    return jnp.moveaxis(matrix.reshape(*along, *groups.without(shape)), range(len(along)), groups.axes)


def vector(group_array: Shaped[Array, "*group"], groups: Groups) -> Shaped[Array, "..."]:
    """A group array as a vector."""
    return groups.gather(group_array).ravel()


def group_array(vector: Shaped[Array, "..."], shape: tuple[int, ...], groups: Groups) -> Shaped[Array, "*group"]:
    """A group array of a shape again, from a vector."""
    return groups.spread(vector.reshape(*shape[:-1], shape[-1] // groups.lanes))
