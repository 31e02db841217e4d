"""Precision at the top: how many are positive among those that can be acted on."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

import softbin
from softbin.experiments.kinds import PARTS, PERCENTAGES, PRECISIONS


def precisions(
    scores: Float[ArrayLike, " n"], labels: Int[ArrayLike, " n"], where: Bool[Array, " n"] | None = None
) -> dict[str, Float[Array, ""]]:
    """The precision among each percentage of the rows that has the highest scores."""
    scores, labels = jnp.asarray(scores, jnp.float32), jnp.asarray(labels)
    shares = (softbin.budgets.fraction(percentage / 100) for percentage in PERCENTAGES)
    found = (softbin.precision_at_k(scores, labels, share, where=where) for share in shares)
    return dict(zip(PRECISIONS, found, strict=True))


def at_best(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What `AT_BEST` names, from records that have the precisions of both parts."""
    best = {name: max(history, key=lambda record: record[f"validation_{name}"]) for name in PRECISIONS}
    return {f"at_max_{part}_{name}": best[name][f"{part}_{name}"] for name in PRECISIONS for part in PARTS}
