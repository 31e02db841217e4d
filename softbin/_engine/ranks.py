"""What is ranked: scores, or integers in their order, laid out for counting."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from softbin._engine import meshes
from softbin._engine.counting import Layout, arrange, as_they_lie
from softbin._engine.groups import Groups
from softbin._engine.masses import Weighed
from softbin._engine.search import ordered


class Ranked(NamedTuple):
    """What to rank, laid out for counting.

    Attributes:
      entries: scores as they are, or their keys: integers in the order of the scores, the least of all where there is
        no entry, the largest for NaN.
      weights: None where all entries weigh 1.
      size: how many entries a group has, or what they weigh.
      layout: how they lie.
      dtype: of the scores.
      masses: what weights are counted in, as an excess over a target, so that `k` is 0; None for in floats.
      on_chip: narrows a bracket in a kernel, until each group has its value; None for by XLA.
    """

    entries: Shaped[Array, "..."]
    weights: Float[Array, "..."] | None
    size: Num[Array, "..."]  # scalar, or with an axis of length one in front
    layout: Layout
    dtype: Any
    masses: Weighed | None = None
    on_chip: Callable[..., Any] | None = None

    @property
    def none(self) -> int:
        """The key of no entry."""
        return jnp.iinfo(kind_of(self.dtype)).min

    @property
    def varying(self) -> frozenset:
        """The mapped axes of `jax.shard_map` over which entries may differ."""
        arrays = (self.entries,) if self.weights is None else (self.entries, self.weights)
        return frozenset().union(*map(meshes.varying_axes, arrays))

    def keys(self, inside: Bool[Array, ""]) -> Int[Array, "..."]:
        """The keys; `inside` is true, as compilers do not know: they would work out what follows before the loop."""
        entries = jnp.where(inside, self.entries, 0)
        if jnp.issubdtype(entries.dtype, jnp.integer):
            return entries
        return jnp.where(jnp.isnan(entries), jnp.iinfo(kind_of(self.dtype)).max, keys(entries))


def rank(
    scores: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"] | None,
    weights: Float[Array, "*shape"] | None,
    size: Num[Array, "..."],
    groups: Groups,
    *,
    ties: bool = False,
    on_chip: Callable[..., Any] | None = None,
) -> Ranked:
    """Scores of which those that are not in `mask` do not exist, for :func:`find`; of which `ties` are cut.

    For kernels they are left as they lie.
    """
    if on_chip is None:
        layout = arrange(scores.shape, groups, manual=meshes.is_manual(scores))
    else:
        layout = as_they_lie(scores.shape, groups)
    size = size if jnp.ndim(size) == 0 else layout.enter_groups(size)[None]
    weights = None if weights is None else layout.enter(weights, 0)
    if mask is None and not ties and layout.in_place:
        return Ranked(layout.enter(scores, 0), weights, size, layout, scores.dtype, on_chip=on_chip)
    limits = jnp.iinfo(kind_of(scores.dtype))
    found = jnp.where(jnp.isnan(scores), limits.max, keys(scores))
    found = found if mask is None else jnp.where(mask, found, limits.min)
    return Ranked(layout.enter(found, limits.min), weights, size, layout, scores.dtype, on_chip=on_chip)


def keys(scores: Float[Array, "..."]) -> Int[Array, "..."]:
    """Integers in the order of floating point scores: -0 as 0, and subnormal numbers as 0 too."""
    scores = jnp.where(jnp.abs(scores) < jnp.finfo(scores.dtype).tiny, 0, scores)
    return ordered(lax.bitcast_convert_type(scores, kind_of(scores.dtype)))


def value_of(key: Int[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """The score that a key is of; NaN for that of no entry."""
    return lax.bitcast_convert_type(ordered(key), dtype)


def kind_of(dtype: Any) -> Any:
    """The type of the keys of floats."""
    return jnp.dtype(f"int{jnp.finfo(dtype).bits}")
