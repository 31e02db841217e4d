"""What is measured beside the accuracy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

import softbin
from softbin.experiments.common.precision import PARTS, PRECISIONS
from softbin.experiments.training.objectives import cross_entropies

BESIDE = {
    "test_worst_class": "test_accuracy",
    "test_worst_class_thresholded": "test_accuracy_thresholded",
    "test_tail_loss": "test_accuracy",
    "kept_clean": "test_accuracy",
    **{f"{part}_{name}": f"validation_{name}" for name in PRECISIONS for part in PARTS},
}
"""The names of what is measured, and the measure whose best epoch is that of each."""
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
