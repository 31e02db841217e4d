"""Which examples of a batch count: those with the smallest errors (trim), or those with the largest losses (tail)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Real

import softbin
from softbin.experiments.training.objectives import DEFAULT_BUDGETS, Objective, Terms, cross_entropies, squared_errors

RANKINGS = ("cross_entropy", "scaled_squares", "projection")
"""The errors that can rank the examples of a batch, whatever the loss."""
Ranking = Callable[[Float[Array, "n classes"], Int[Array, " n"], Bool[Array, " n"]], Float[Array, " n"]]
"""`(logits, labels, where) -> errors`; those of examples where `where` is false are of no matter."""
Counted = Callable[
    [Float[Array, "n classes"], Int[Array, " n"], Int[Array, ""]], tuple[Float[Array, ""], Float[Array, " n"] | None]
]
"""`(logits, labels, step) -> (loss, kept)`; `kept` is None where all examples count."""


class Trim(NamedTuple):
    """How many examples are kept, and which."""

    share: optax.Schedule  # of the steps of training
    errors: Ranking
    is_by_terms: bool  # whether the errors are the terms of the loss
    classes: int | None  # where the share is that of every class

    def kept(
        self,
        logits: Float[Array, "n classes"],
        labels: Int[Array, " n"],
        step: Int[Array, ""],
        where: Bool[Array, " n"] | None = None,
    ) -> Float[Array, " n"]:
        """1 for the examples with the smallest errors, 0 for the others and where `where` is false."""
        where = jnp.ones(len(labels), bool) if where is None else where
        return smallest(self.errors(logits, labels, where), labels, self.share(step), where, self.classes)


def share(trim: float, warmup: float, steps: int) -> optax.Schedule:
    """The share that is kept: it falls from 1 to `trim` over the first steps, the share `warmup` of all of them."""
    falling = round(warmup * steps)
    return optax.linear_schedule(1.0, trim, falling) if falling else optax.constant_schedule(trim)


def ranking(by: str, loss: str, objective: Objective, budget: Any, temperature: float) -> Ranking:
    """The error that ranks the examples, as `ranked_by` says."""

    def errors(logits, labels, where):
        match ranked_by(by, loss):
            case "cross_entropy":
                return cross_entropies(logits, labels)
            case "scaled_squares":
                return squared_errors(logits / temperature, labels)
            case "projection":
                keywords = {"budget": budget, "temperature": temperature, "where": where}
                return softbin.per_example_loss(logits, labels, **keywords)
        return _terms(objective)(logits, labels)

    return errors


def ranked_by(by: str, loss: str) -> str:
    """One of `RANKINGS`, or "" for the terms of the loss, where it has any; a loss with a projection has none."""
    return by or ("projection" if loss in DEFAULT_BUDGETS else "")


def smallest(
    errors: Float[Array, " n"],
    labels: Int[Array, " n"],
    share: Real[Array, ""] | float,
    where: Bool[Array, " n"],
    classes: int | None = None,
) -> Float[Array, " n"]:
    """1 for a share of the examples, or of those of each class, with the smallest errors; 0 for the others."""
    groups = where[None] if classes is None else where & (labels == jnp.arange(classes)[:, None])
    errors = jnp.broadcast_to(errors, groups.shape)
    return jnp.sum(softbin.binary_argmax(-errors, softbin.budgets.fraction(share), where=groups), 0)


def whole(objective: Objective) -> Counted:
    """The loss of all examples."""
    return lambda logits, labels, step: (objective.loss(logits, labels), None)


def trimmed(objective: Objective, trim: Trim) -> Counted:
    """The loss of the kept examples: the trimmed mean where they are the smallest of its own terms.

    References:
      Shen, Sanghavi, `Learning with Bad Training Data via Iterative Trimmed Loss Minimization
      <https://arxiv.org/abs/1810.11874>`_, 2019.
    """

    def counted(logits, labels, step):
        kept = trim.kept(logits, labels, step)
        if trim.is_by_terms and trim.classes is None:
            share = softbin.budgets.fraction(trim.share(step))
            return softbin.bottom_k_mean(_terms(objective)(logits, labels), share), kept
        return objective.loss(logits, labels, weights=kept), kept

    return counted


def tail(objective: Objective, share: float) -> Counted:
    """The mean of the largest terms: the average top-k loss.

    References:
      Fan, Lyu, Ying, Hu, `Learning with Average Top-k Loss <https://arxiv.org/abs/1705.08826>`_, 2017.
    """

    def counted(logits, labels, step):
        return softbin.top_k_mean(_terms(objective)(logits, labels), softbin.budgets.fraction(share)), None

    return counted


def _terms(objective: Objective) -> Terms:
    """Those of a loss that has some: a config that asks for others' is refused."""
    if objective.terms is None:
        raise ValueError("the loss is no mean of terms: choose one that is, or take all examples")
    return objective.terms
