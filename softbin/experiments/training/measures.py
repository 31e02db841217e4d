"""What is measured beside the accuracy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

import softbin
from softbin.experiments.training.objectives import cross_entropies

TAIL = 0.1
"""The share of the largest losses that `tail_loss` averages."""


def tail_loss(
    scores: Float[Array, "n classes"], labels: Int[Array, " n"], where: Bool[Array, " n"]
) -> Float[Array, ""]:
    """`test_tail_loss`: the mean of the largest tenth of the softmax cross-entropies."""
    return softbin.top_k_mean(cross_entropies(scores, labels), softbin.budgets.fraction(TAIL), where=where)


def worst_recall(
    error: Callable[..., Float[Array, ""]], labels: Int[Array, " n"], where: Bool[Array, " n"], classes: int
) -> Float[Array, ""]:
    """`test_worst_class`: the smallest recall of a class.

    `error(where=...)` is the error rate of some examples. That of none is 0, so that a class without an example does
    not count.
    """
    recalls = jax.vmap(lambda c: 1 - error(where=where & (labels == c)))(jnp.arange(classes))
    return jnp.min(recalls)
