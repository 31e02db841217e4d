"""The leaves of a tree: which of them take part, and all of their entries as one vector."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Num, Shaped

from softbin._engine.arguments import convert
from softbin._engine.checks import dtype_of
from softbin._engine.shares import brief
from softbin._records import documented


@documented
class Leaves(NamedTuple):
    """The leaves of a tree, of which some take part.

    Attributes:
      name: the argument that the tree is.
      paths: what to call the leaves in messages.
      all: the leaves.
      mask: whether each leaf takes part.
      structure: the structure of the tree.
    """

    name: str
    paths: list[str]
    all: list[Any]
    mask: list[bool]
    structure: Any

    def those(self, values: Iterable[Any]) -> list[Any]:
        """What a list has for the leaves that take part."""
        return [value for value, taken in zip(values, self.mask, strict=True) if taken]

    @property
    def taking_part(self) -> list[Any]:
        """The leaves that take part."""
        return self.those(self.all)

    @property
    def size(self) -> int:
        """How many entries take part."""
        return sum(map(_size, self.taking_part))

    def replaced(self, new: Iterable[Any], others: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
        """The tree, with others in place of the leaves that take part, and a function of those that do not."""
        rest = iter(new)
        leaves = [next(rest) if taken else others(leaf) for leaf, taken in zip(self.all, self.mask, strict=True)]
        return jax.tree.unflatten(self.structure, leaves)

    def aligned(self, name: str, tree: Any) -> list[Any]:
        """What another tree of the same structure has in the place of each leaf: a leaf, or nothing, such as None.

        Raises:
          ValueError: its structure differs.
        """
        with contextlib.suppress(TypeError, ValueError):
            values = self.structure.flatten_up_to(tree)
            if all(len(jax.tree.leaves(value)) == jax.tree_util.all_leaves([value]) for value in values):
                return values
        raise ValueError(
            f"{name} must have the structure of {self.name}, {brief(self.structure)}, "
            f"got {brief(jax.tree.structure(tree))}"
        )


def floating_leaves(name: str, tree: Any) -> Leaves:
    """The leaves of a tree, of which those that are floating point take part."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    paths = [f"{name}{jax.tree_util.keystr(path)}" for path, _ in found]
    leaves = [leaf for _, leaf in found]
    mask = [jnp.issubdtype(dtype_of(*named), jnp.floating) for named in zip(paths, leaves, strict=True)]
    return Leaves(name, paths, leaves, mask, jax.tree.structure(tree))


def check_some(leaves: Leaves) -> None:
    """Refuse a tree of which nothing takes part.

    Raises:
      TypeError: it has no floating point array.
      ValueError: those that it has are empty.
    """
    if not any(leaves.mask):
        kinds = sorted({str(jnp.result_type(leaf)) for leaf in leaves.all})
        raise TypeError(
            f"{leaves.name} must have a floating point array to project, got {', '.join(kinds) or 'none'}: "
            "convert what is to be projected, for example to float32"
        )
    if leaves.size == 0:
        raise ValueError(f"{leaves.name} has no entries to project: its floating point arrays are empty")


def computed_in(leaves: Sequence[Any]) -> Any:
    """The dtype of the work on several leaves."""
    return jnp.float64 if any(jnp.result_type(leaf) == jnp.float64 for leaf in leaves) else jnp.float32


def pack(leaves: Sequence[Any], dtype: Any) -> Shaped[Array, " n"]:
    """All entries of the leaves as one vector, with zeros to fill it up.

    It has as many parts as there are devices, and every part has a part of each leaf, so that a leaf that is sharded
    along its first axis stays where it is. Leaves that do not divide evenly come last, as one.
    """
    leaves = [convert(leaf, dtype) for leaf in leaves]
    parts = jax.device_count()
    rows = [leaf.reshape(parts, leaf.size // parts) for leaf in leaves if leaf.size % parts == 0]
    rest = [leaf.ravel() for leaf in leaves if leaf.size % parts]
    if rest:
        joined = jnp.concatenate(rest)
        rows.append(jnp.pad(joined, (0, -joined.size % parts)).reshape(parts, -1))
    return jnp.concatenate(rows, 1).reshape(-1)


def packed(leaves: Sequence[Any]) -> Bool[Array, " n"] | None:
    """Which entries of the packed vector are those of a leaf; None for all."""
    if sum(map(_size, leaves)) % jax.device_count() == 0:
        return None
    return pack([jnp.ones(jnp.shape(leaf)) for leaf in leaves], bool)


def unpack(vector: Num[Array, " n"], leaves: Sequence[Any]) -> list[Array]:
    """A packed vector as arrays of the shapes and dtypes of the leaves."""
    parts = jax.device_count()
    widths = [_size(leaf) // parts for leaf in leaves if _size(leaf) % parts == 0]
    lengths = [_size(leaf) for leaf in leaves if _size(leaf) % parts]
    *even, rest = jnp.split(vector.reshape(parts, -1), list(accumulate(widths)), 1)
    pieces = {True: iter(even), False: iter(jnp.split(rest.ravel(), list(accumulate(lengths))))}
    return [
        next(pieces[_size(leaf) % parts == 0]).reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf)) for leaf in leaves
    ]


def _size(leaf: ArrayLike) -> int:
    return math.prod(jnp.shape(leaf))
