"""The losses to train with, by name: ours and the baselines.

A loss that is a mean over examples is given by its terms, `(logits, labels) -> (n,)`; the others couple the batch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

import softbin
from softbin.experiments.runs.errors import UserError
from softbin.experiments.training.ranking_objectives import RANKINGS

DEFAULT_BUDGETS = {"hypersimplex": "0.5", "fenchel_young": "label_count"}
"""The losses with a projection, and the budget that each has in the library."""
CHOOSING = {"capacity": "label_count", "pat_mat": "label_count", "top_mean": "label_count"}
"""The losses of two classes that choose at least one example, and the budget of each where the config has none."""
DECIDED = ("cross_entropy", "label_smoothing")
"""The losses without a projection that decide with thresholds beside argmax where the config has a budget."""
TEMPERED = (*DEFAULT_BUDGETS, "capacity", "scaled_mse", "centred_scaled_mse")
"""The losses that see the logits divided by the temperature."""

SMOOTHING = 0.2
"""Of `label_smoothing`: the share of a label that is spread over all classes (Szegedy et al., arXiv:1512.00567)."""
FORWARD, REVERSE, LOG_OF_ZERO = 0.1, 1.0, math.log(1e-4)
"""Of `symmetric_cross_entropy`: the authors' for CIFAR-10, in their code (Wang et al., arXiv:1908.06112)."""
Q = 0.7
"""Of `generalized_cross_entropy`: between cross-entropy (0) and 1 - p (1) (Zhang and Sabuncu, arXiv:1805.07836)."""
TILT = 1.0
"""Of `tilted`: between the mean (0) and the maximum (infinity) (Li et al., arXiv:2007.01162)."""
FOCUS = 2.0
"""Of `focal`: the power of 1 - p by which a term counts (Lin et al., arXiv:1708.02002)."""

Terms = Callable[[Float[Array, "n classes"], Int[Array, " n"]], Float[Array, " n"]]
Thresholds = Callable[[Float[Array, "n classes"], Int[Array, " n"], Bool[Array, " n"]], Float[Array, " classes"]]


class Setting(NamedTuple):
    """What a loss may depend on, beside the batch."""

    budget: Any
    temperature: float
    class_weights: np.ndarray  # of each class, as `class_weights` gives them


class Objective(NamedTuple):
    """A loss of a batch, and its terms where it is a mean over examples."""

    loss: Callable[..., Float[Array, ""]]
    """`(logits, labels) -> loss`, with the keyword `weights`, one an example, for those with terms or a projection."""
    terms: Terms | None


def budget(name: str, train_labels: np.ndarray, classes: int):
    """`label_count`, `prior` (the classes' shares of the training set), or a share of the batch such as `0.5`.

    A number stands for a share here, `softbin.budgets.fraction`, and not for examples as in the library: a sweep varies
    the size of the batch.

    Raises:
      UserError: the name is not one of these, or the share is not in [0, 1].
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


def check(name: str, temperature: float) -> None:
    """Refuse an unknown loss, and a temperature that is none.

    Raises:
      UserError: it is so.
    """
    if name not in OBJECTIVES:
        raise UserError(f"unknown loss {name!r}: choose one of {', '.join(OBJECTIVES)}")
    if not 0 < temperature < float("inf"):
        raise UserError(f"temperature must be positive and finite, got {temperature}")


def check_two_classes(name: str, budget_name: str | None, classes: int) -> None:
    """Refuse to rank the examples of other than two classes, or with a share for each class.

    Raises:
      UserError: the loss `name` ranks, and the classes are not two or the budget is `prior`.
    """
    if name not in RANKINGS:
        return
    if classes != 2:
        raise UserError(
            f"the loss {name} ranks the examples of two classes, and the data have {classes}: choose data of two, such "
            "as census, or another loss, such as cross_entropy"
        )
    if budget_name == "prior":
        raise UserError(
            f"budget prior is of each class, and {name} ranks once for both: choose a share, or label_count"
        )


def class_weights(train_labels: np.ndarray, classes: int) -> np.ndarray:
    """For each class the inverse of its frequency, with mean 1 over the training examples."""
    counts = np.bincount(train_labels, minlength=classes)
    inverse = 1 / np.maximum(counts, 1)
    return inverse * len(train_labels) / (inverse @ counts)


def objective(name: str, setting: Setting) -> Objective:
    """A loss by its name in `OBJECTIVES`.

    Raises:
      UserError: the name is unknown, or the temperature is not positive.
    """
    check(name, setting.temperature)
    if name in _COUPLED:
        return Objective(_COUPLED[name](setting), None)
    terms = _TERMS[name](setting)

    def mean(logits, labels, weights=None):
        return jnp.average(terms(logits, labels), weights=weights)

    return Objective(mean, terms)


def thresholds(name: str, budget, temperature: float) -> Thresholds | None:
    """What to subtract from `logits / temperature` before an argmax, from a data set: logits, labels, and which count.

    None for a loss that sees a constant added to the logits of a class: plain argmax is right for it. Those of
    `DECIDED` have them too where they have a budget, to be subtracted from the logits themselves.
    """
    if name in DEFAULT_BUDGETS or (name in DECIDED and budget is not None):
        unit = temperature if name in DECIDED else 1
        return lambda logits, labels, where: (
            unit * softbin.decision_thresholds(logits, labels, budget=budget, temperature=temperature, where=where)
        )
    if name == "centred_scaled_mse":
        return lambda logits, labels, where: jnp.mean(logits / temperature, 0, where=where[:, None]) - 0.5
    return None


def cross_entropies(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """The softmax cross-entropy of each example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_errors(scores: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """In the normalisation of `softbin.loss`: half the squared distance of each example to its one-hot label."""
    return jnp.sum(optax.l2_loss(scores, jax.nn.one_hot(labels, scores.shape[-1])), -1)


def _probabilities(logits, labels):
    """The softmax probability of each example's label."""
    return jnp.exp(-cross_entropies(logits, labels))


def _cross_entropy(setting):
    return cross_entropies


def _mse(setting):
    return squared_errors


def _scaled_mse(setting):
    return lambda logits, labels: squared_errors(logits / setting.temperature, labels)


def _hinge(setting):
    return optax.losses.multiclass_hinge_loss


def _label_smoothing(setting):
    def terms(logits, labels):
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), SMOOTHING)
        return optax.softmax_cross_entropy(logits, targets)

    return terms


def _symmetric_cross_entropy(setting):
    """A mix of the cross-entropy of p to the label and that of the label to p, where log 0 is a constant."""

    def terms(logits, labels):
        reverse = -LOG_OF_ZERO * (1 - _probabilities(logits, labels))
        return FORWARD * cross_entropies(logits, labels) + REVERSE * reverse

    return terms


def _generalized_cross_entropy(setting):
    """`(1 - p^q) / q`."""
    return lambda logits, labels: -jnp.expm1(-Q * cross_entropies(logits, labels)) / Q


def _focal(setting):
    """`(1 - p)^γ` times the cross-entropy."""
    return lambda logits, labels: (1 - _probabilities(logits, labels)) ** FOCUS * cross_entropies(logits, labels)


def _class_weighted(setting):
    weights = jnp.asarray(setting.class_weights, jnp.float32)
    return lambda logits, labels: weights[labels] * cross_entropies(logits, labels)


def _hypersimplex(setting):
    return _projected(softbin.loss, setting)


def _fenchel_young(setting):
    return _projected(softbin.fenchel_young_loss, setting)


def _projected(function, setting):
    def loss(logits, labels, weights=None):
        return function(logits, labels, budget=setting.budget, temperature=setting.temperature, weights=weights)

    return loss


def _ranking(function):
    """A loss of what speaks for class 1 over class 0."""

    def of_setting(setting):
        def loss(logits, labels):
            scores = logits[:, 1] - logits[:, 0]
            targets = labels[:, None].astype(scores.dtype)
            k = setting.budget and jnp.maximum(1, jnp.sum(setting.budget(targets, jnp.ones_like(scores))))
            return function(scores, labels == 1, k, setting.temperature)

        return loss

    return of_setting


def _centred_scaled_mse(setting):
    """`scaled_mse` of `logits / temperature` minus their mean over the batch, per class, plus one half.

    The half makes the scores of a class add up to `n/2`: they are then the projection onto `{y : sum(y) = n/2}`,
    without the bounds 0 and 1, so that only these bounds tell this loss from hypersimplex with budget 0.5. It changes
    the value, and not the gradient, which has mean 0 over the batch with any constant in its place.
    """

    def loss(logits, labels):
        scores = logits / setting.temperature
        return jnp.mean(squared_errors(scores - jnp.mean(scores, 0) + 0.5, labels))

    return loss


def _tilted(setting):
    """`log(mean(exp(t loss))) / t` of the cross-entropies."""

    def loss(logits, labels):
        return jax.nn.logsumexp(TILT * cross_entropies(logits, labels), b=1 / len(labels)) / TILT

    return loss


_COUPLED: dict[str, Callable[[Setting], Callable]] = {
    "hypersimplex": _hypersimplex,
    "fenchel_young": _fenchel_young,
    "centred_scaled_mse": _centred_scaled_mse,
    "tilted": _tilted,
    **{name: _ranking(function) for name, function in RANKINGS.items()},
}
_TERMS: dict[str, Callable[[Setting], Terms]] = {
    "cross_entropy": _cross_entropy,
    "mse": _mse,
    "scaled_mse": _scaled_mse,
    "hinge": _hinge,
    "label_smoothing": _label_smoothing,
    "symmetric_cross_entropy": _symmetric_cross_entropy,
    "generalized_cross_entropy": _generalized_cross_entropy,
    "focal": _focal,
    "class_weighted": _class_weighted,
}
OBJECTIVES = (*_COUPLED, *_TERMS)
