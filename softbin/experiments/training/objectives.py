"""The losses to train with, by name: ours and the baselines, all `(logits, labels) -> scalar`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

import softbin
from softbin.experiments.common.errors import UserError

DEFAULT_BUDGETS = {"hypersimplex": "0.5", "fenchel_young": "label_count"}
"""The losses with a projection, and the budget that each has in the library."""

Objective = Callable[[Float[Array, "n classes"], Int[Array, " n"]], Float[Array, ""]]
Thresholds = Callable[[Float[Array, "n classes"], Int[Array, " n"], Bool[Array, " n"]], Float[Array, " classes"]]


def budget(name: str, train_labels: np.ndarray, classes: int):
    """`label_count`, `prior` (the classes' shares of the training set), or a share of the batch such as `0.5`.

    A number stands for a share here, `softbin.budgets.fraction`, and not for examples as in the library: a sweep varies
    the size of the batch.

    Raises:
      UserError: it is none of these.
    """
    if name == "label_count":
        return softbin.budgets.label_count
    if name == "prior":
        return softbin.budgets.prior(np.bincount(train_labels, minlength=classes) / len(train_labels))
    try:
        return softbin.budgets.fraction(float(name))
    except ValueError:
        raise UserError(
            f"unknown budget {name!r}: choose label_count, prior, or a share of the batch in [0, 1]: 0.5 is half"
        ) from None


def objective(name: str, budget, temperature: float) -> Objective:
    """A loss by its name in `OBJECTIVES`.

    Raises:
      UserError: the name is unknown, or the temperature is not positive.
    """
    if name not in OBJECTIVES:
        raise UserError(f"unknown loss {name!r}: choose one of {', '.join(OBJECTIVES)}")
    if not 0 < temperature < float("inf"):
        raise UserError(f"temperature must be positive and finite, got {temperature}")
    return OBJECTIVES[name](budget, temperature)


def thresholds(name: str, budget, temperature: float) -> Thresholds | None:
    """What to subtract from `logits / temperature` before an argmax, from a data set: logits, labels, and which count.

    None for a loss that sees a constant added to the logits of a class: plain argmax is right for it.
    """
    if name in DEFAULT_BUDGETS:
        return lambda logits, labels, where: softbin.decision_thresholds(
            logits, labels, budget=budget, temperature=temperature, where=where
        )
    if name == "centred_scaled_mse":
        return lambda logits, labels, where: jnp.mean(logits / temperature, 0, where=where[:, None]) - 0.5
    return None


def _hypersimplex(budget, temperature):
    return lambda logits, labels: softbin.loss(logits, labels, budget=budget, temperature=temperature)


def _fenchel_young(budget, temperature):
    return lambda logits, labels: softbin.fenchel_young_loss(logits, labels, budget=budget, temperature=temperature)


def _squared_error(scores, labels):
    """In the normalisation of `softbin.loss`: half the squared distance to the one-hot label, mean over examples."""
    return jnp.mean(jnp.sum(optax.l2_loss(scores, jax.nn.one_hot(labels, scores.shape[-1])), -1))


def _mse(budget, temperature):
    return _squared_error


def _scaled_mse(budget, temperature):
    return lambda logits, labels: _squared_error(logits / temperature, labels)


def _centred_scaled_mse(budget, temperature):
    """`scaled_mse` of `logits / temperature` minus their mean over the batch, per class, plus one half.

    The half makes the scores of a class add up to `n/2`: they are then the projection onto `{y : sum(y) = n/2}`,
    without the bounds 0 and 1, so that only these bounds tell this loss from hypersimplex with budget 0.5. It changes
    the value, and not the gradient, which has mean 0 over the batch with any constant in its place.
    """

    def loss(logits, labels):
        scores = logits / temperature
        return _squared_error(scores - jnp.mean(scores, 0) + 0.5, labels)

    return loss


def _cross_entropy(budget, temperature):
    return lambda logits, labels: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _hinge(budget, temperature):
    return lambda logits, labels: jnp.mean(optax.losses.multiclass_hinge_loss(logits, labels))


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "hypersimplex": _hypersimplex,
    "fenchel_young": _fenchel_young,
    "cross_entropy": _cross_entropy,
    "mse": _mse,
    "scaled_mse": _scaled_mse,
    "centred_scaled_mse": _centred_scaled_mse,
    "hinge": _hinge,
}
