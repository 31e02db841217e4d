"""Meshes with explicit axes: on them softbin leaves the sharding of what it works out to the compiler, as on others.

On explicit axes (`jax.sharding.AxisType.Explicit`, which `jax.make_mesh` makes unless told otherwise) the sharding of
every array is a part of its type, and each operation must know that of its result. Here only results have to.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def run(function: Callable[..., Any], result: Callable[[PartitionSpec], Any], *arrays: Any, **static: Any) -> Any:
    """`function(*arrays, **static)`, on a mesh of any kind.

    Args:
      function: of pytrees of arrays, and of settings that are none.
      result: from the sharding of the first array, with an entry for each of its dimensions, to that of the result, or
        to a tree of them.
      arrays, static: its arguments.
    """
    function = partial(function, **static)
    mesh = next(filter(None, map(_explicit_mesh, jax.tree.leaves(arrays))), None)
    if mesh is None:
        return function(*arrays)
    spec = jax.typeof(arrays[0]).sharding.spec
    spec = PartitionSpec(*spec, *[None] * (jax.numpy.ndim(arrays[0]) - len(spec)))
    shardings = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), result(spec), is_leaf=lambda leaf: isinstance(leaf, PartitionSpec)
    )
    axes = tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if _is_explicit(kind))
    return jax.sharding.auto_axes(function, axes=axes, out_sharding=shardings)(*arrays)


def is_manual(array) -> bool:
    """Whether an array is what one device holds, as inside `jax.shard_map` over all axes of a mesh."""
    kinds = jax.typeof(array).sharding.mesh.axis_types
    return bool(kinds) and all(kind == AxisType.Manual for kind in kinds)


def _explicit_mesh(array):
    if not isinstance(array, jax.Array):
        return None
    mesh = jax.typeof(array).sharding.mesh
    return mesh if any(map(_is_explicit, mesh.axis_types)) else None


def _is_explicit(kind: AxisType) -> bool:
    return kind == AxisType.Explicit
