"""Meshes with explicit axes: on them softbin leaves the sharding of what it works out to the compiler, as on others.

On explicit axes (`jax.sharding.AxisType.Explicit`, which `jax.make_mesh` makes unless told otherwise) the sharding of
every array is a part of its type, and each operation must know that of its result. Here only results have to.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike

_LARGE = 2**16  # entries of a constant, of which XLA takes some milliseconds for each operation while it compiles


def run(function: Callable[..., Any], out_spec: Callable[[Any], Any], *arrays: Any, **static: Any) -> Any:
    """`function(*arrays, **static)`, on a mesh of any kind.

    Args:
      function: of pytrees of arrays, and of settings that are not arrays.
      out_spec: from the sharding of the first array, with an entry for each of its dimensions, to that of what comes
        out, or to a tree of them. Where the first argument is a tree of arrays, from the tree of their shardings.
      arrays, static: its arguments.
    """
    function = partial(function, **static)
    mesh = explicit_mesh(arrays)
    arrays = jax.tree.map(_known_at_run_time, arrays)
    if mesh is None:
        return function(*arrays)
    shardings = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        out_spec(jax.tree.map(spec_of, arrays[0])),
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )
    return jax.sharding.auto_axes(function, axes=_explicit_axes(mesh), out_sharding=shardings)(*arrays)


def run_with_k(function: Callable[..., Any], out_spec: Callable[[Any], Any], k: Any, *arrays: Any) -> Any:
    """`run` of `function(*arrays, k=k)`, in which a concrete `k` stays concrete."""
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(k)):
        return run(lambda *arrays: function(*arrays[:-1], k=arrays[-1]), out_spec, *arrays, k)
    return run(function, out_spec, *arrays, k=k)


def named() -> AbstractContextManager:
    """The mesh in use, by its name: JAX traces a function again where none has been set after one without axes.

    It sets that where it differentiates (JAX 0.10), and so would trace a search once for its value, and once more.
    """
    if not hasattr(jax.sharding, "use_abstract_mesh"):  # JAX 0.7
        return nullcontext()
    return jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh())


def spec_of(array: ArrayLike) -> PartitionSpec:
    """The sharding in the type of an array, with an entry for each of its dimensions: None, off such meshes."""
    spec = jax.typeof(array).sharding.spec
    return PartitionSpec(*spec, *[None] * (jnp.ndim(array) - len(spec)))


def shards_of_first_axis(array: ArrayLike) -> int:
    """How many parts of an array's first axis lie on different devices, as far as its axes are explicit."""
    mesh = _explicit_mesh(array)
    if mesh is None:
        return 1
    names = spec_of(array)[0]
    names = names if isinstance(names, tuple) else (names,)
    return math.prod(mesh.shape[name] for name in names if name is not None)


def explicit_mesh(arrays: Any) -> AbstractMesh | None:
    """The mesh of the first of the arrays, in a tree of any, that lies on one with explicit axes; None for none."""
    return next(filter(None, map(_explicit_mesh, jax.tree.leaves(arrays))), None)


def closure(function: Callable[..., Any], mesh: AbstractMesh) -> Callable[..., Any]:
    """A function that may close over arrays of this mesh, to be called inside :func:`run`.

    There all arrays are as on a mesh without explicit axes, but for those that it closes over, and JAX does not mix the
    two. With such arrays it is called as outside, with replicated arguments, of which compilers drop what it ignores.
    """

    def call(*arrays: Any) -> Any:
        try:
            value = function(*arrays)
        except (TypeError, ValueError):  # its own, perhaps, and then raised again
            value = None
        if value is not None and explicit_mesh(value) is None:
            return value
        replicated = NamedSharding(mesh, PartitionSpec())
        shardings = jax.tree.map(lambda _: replicated, arrays)
        return jax.sharding.explicit_axes(function, axes=_explicit_axes(mesh), in_sharding=shardings)(*arrays)

    return call


def placed_as(results: Any, before: Any) -> Any:
    """New values of a state, on the devices as the old ones are: outside `jax.jit`, which has the say inside."""

    def placed(result: Any, before: Any) -> Any:
        known = isinstance(before, jax.Array) and not isinstance(before, jax.core.Tracer)
        if not known or isinstance(result, jax.core.Tracer) or not isinstance(before.sharding, NamedSharding):
            return result
        kept = result.sharding.is_equivalent_to(before.sharding, result.ndim)
        return result if kept else jax.device_put(result, before.sharding)

    return jax.tree.map(placed, results, before)


def varying_axes(array: ArrayLike) -> frozenset:
    """The mapped axes of `jax.shard_map` over which an array may differ, as far as these are tracked."""
    kind = jax.typeof(array)
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma  # before jax 0.10


def vary(array: Array, axes: frozenset) -> Array:
    """An array, of the type of one that may differ over these mapped axes."""
    new = tuple(sorted(axes - varying_axes(array), key=str))
    if not new:
        return array
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(array, new, to="varying")
    return jax.lax.pvary(array, new)  # type: ignore[attr-defined]  # before jax 0.8.2


def is_manual(array: ArrayLike) -> bool:
    """Whether an array is what one device holds, as inside `jax.shard_map` over all axes of a mesh."""
    kinds = jax.typeof(array).sharding.mesh.axis_types
    return bool(kinds) and all(kind == AxisType.Manual for kind in kinds)


def _known_at_run_time(array: Any) -> Any:
    """A large array that a traced function closes over, hidden from XLA, which would work out what follows from it."""
    is_known = isinstance(array, jax.Array | np.ndarray) and not isinstance(array, jax.core.Tracer)
    if not is_known or array.size < _LARGE or not isinstance(lax.iota(np.int32, 1), jax.core.Tracer):
        return array
    return lax.optimization_barrier(array)


def _explicit_mesh(array: Any) -> AbstractMesh | None:
    if not isinstance(array, jax.Array):
        return None
    mesh = jax.typeof(array).sharding.mesh
    return mesh if any(map(_is_explicit, mesh.axis_types)) else None


def _explicit_axes(mesh: AbstractMesh) -> tuple:
    return tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if _is_explicit(kind))


def _is_explicit(kind: AxisType) -> bool:
    return kind == AxisType.Explicit
