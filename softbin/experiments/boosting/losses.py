"""What is boosted, by name, and how its margins become decisions and probabilities."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from softbin import budgets
from softbin.experiments.boosting import boosters
from softbin.experiments.boosting.tables import Rows
from softbin.experiments.runs.errors import UserError

LOGISTIC, CENTRED = "logistic", "centred_squared_error"
PROJECTED = {"hypersimplex": "squared", "fenchel_young": "fenchel_young"}
"""Our losses, by the names that the training of networks gives them, and the adapters' names."""
LOSSES = (*PROJECTED, LOGISTIC, CENTRED)

OfMargins = Callable[[np.ndarray], np.ndarray]
"""Something for each row, from its margins."""


class Loss(NamedTuple):
    """A loss for a booster."""

    objective: boosters.Gradient | None  # None for the library's own
    decisions: Callable[[np.ndarray, Rows], OfMargins]  # fitted to training margins; by thresholds
    probabilities: Callable[[np.ndarray, Rows], OfMargins]  # fitted to validation margins; of every class


def loss(name: str, booster: str, hessian: str, budget: str = "") -> Loss:
    """A loss by its name in `LOSSES`.

    Args:
      name: of the loss.
      booster: the library.
      hessian: of our losses.
      budget: of our losses, a share of the training rows such as `0.02`; "" for as many as there are positives.

    Raises:
      UserError: the loss, the booster or the hessian is unknown, or the budget is no share.
    """
    if booster not in boosters.BOOSTERS:
        raise UserError(f"unknown booster {booster!r}: choose one of {', '.join(boosters.BOOSTERS)}")
    if name == LOGISTIC:
        return Loss(None, lambda *_: lambda margins: np.argmax(_softmax(margins), 1), lambda *_: _softmax)
    if name == CENTRED:
        return Loss(_centred_squared_error, _centred_decisions, _calibrated)
    if name not in PROJECTED:
        raise UserError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    try:
        objective = boosters.OBJECTIVES[booster](PROJECTED[name], budget=_budget(budget), hessian=hessian)
    except ValueError as error:
        raise UserError(str(error)) from None
    return Loss(objective, lambda margins, rows: objective.decide(margins, rows.labels).predict, _calibrated)


def _budget(share: str):
    if not share:
        return budgets.label_count
    try:
        return budgets.fraction(float(share))
    except ValueError:
        raise UserError(
            f'unknown budget {share!r}: choose a share of the training rows in [0, 1], or "" for as many as positives'
        ) from None


def _softmax(margins: np.ndarray) -> np.ndarray:
    """The probabilities of the logistic loss, of shape (n, classes)."""
    if margins.ndim == 2:
        return special.softmax(margins, 1)
    positive = special.expit(margins)
    return np.stack([1 - positive, positive], 1)


def _calibrated(margins: np.ndarray, rows: Rows) -> OfMargins:
    """Probabilities of margins by a logistic regression on those of the rows given."""
    from sklearn.linear_model import LogisticRegression

    def columns(margins):
        return margins.reshape(len(margins), -1)

    regression = LogisticRegression(max_iter=1000).fit(columns(margins), rows.labels)
    return lambda other: regression.predict_proba(columns(other))


def _one_hot(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    return (labels if like.ndim == 1 else labels[:, None] == np.arange(like.shape[1])).astype(like.dtype)


def _centred_squared_error(scores, dataset) -> tuple[np.ndarray, np.ndarray]:
    """The squared error of centred scores to centred labels: `hypersimplex` without the bounds 0 and 1."""
    targets = _one_hot(dataset.get_label(), scores)
    return (scores - scores.mean(0)) - (targets - targets.mean(0)), np.ones_like(scores)


def _centred_decisions(margins: np.ndarray, rows: Rows) -> OfMargins:
    targets = _one_hot(rows.labels, margins)
    shift = targets.mean(0) - margins.mean(0)

    def decide(other):
        scores = other + shift
        return scores.argmax(1) if scores.ndim == 2 else (scores > 0.5).astype(int)

    return decide
