"""The losses as objectives for gradient boosting with LightGBM and XGBoost.

Boosting sees the whole training set in every round, so the batch is the training set: one hypersimplex per class over
all rows. An objective takes and returns NumPy arrays; in between, JAX computes the gradient, in the precision of the
scores (LightGBM's are float64). Neither library is imported here.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from softbin import budgets
from softbin._engine import shares, thresholds
from softbin._engine.batches import Budget, by_example, check_budget
from softbin._engine.checks import check_amount, check_floating, check_real, check_regularizer, check_temperature
from softbin._engine.groups import weighted
from softbin._engine.projections import prepare_projection, solve
from softbin._records import documented
from softbin.decisions import decision_thresholds, predict
from softbin.operators import pull_back
from softbin.regularizers import Regularizer, euclidean

__all__ = [  # noqa: RUF022 (as the pages show them)
    "lightgbm_objective",
    "xgboost_objective",
    "Objective",
    "Decisions",
    "warn_of_parameters_without_effect",
]

_LOSSES = ("squared", "fenchel_young")
_HESSIANS = ("unit", "gauss_newton")
_WITHOUT_EFFECT: dict[str, Any] = {
    **dict.fromkeys(("is_unbalance", "unbalance", "unbalanced_sets"), False),
    **dict.fromkeys(("scale_pos_weight", "pos_bagging_fraction", "pos_sub_row", "pos_subsample", "pos_bagging"), 1),
    **dict.fromkeys(("neg_bagging_fraction", "neg_sub_row", "neg_subsample", "neg_bagging"), 1),
}
"""Parameters of LightGBM's own objectives, with their aliases, and what they are where nothing is asked for."""


class _Settings(NamedTuple):
    loss: str
    budget: Any
    temperature: float
    hessian: str
    regularizer: Regularizer


class _TrainingSet(NamedTuple):
    """Labels and weights of the rows, checked, as the library handed them over and as JAX takes them."""

    given: tuple[np.ndarray, np.ndarray | None]
    labels: Real[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"] | None
    dataset: Callable[[], Any] = lambda: None  # a weak reference to the library's own, where it hands that over

    def is_of(self, labels: Any, weights: Any, dataset: Any) -> bool:
        return self.dataset() is dataset and all(
            a is b or (a is not None and b is not None and np.array_equal(a, b))
            for a, b in zip(self.given, (labels, weights), strict=True)
        )


class Objective(ABC):
    """A loss as an objective: the library calls it once a round, with the scores of all training rows.

    Make one with :func:`lightgbm_objective` or :func:`xgboost_objective`, and a new one for each training: it holds the
    thresholds of one training set. The libraries' own `cv`, and threads that train with one objective side by side,
    train on several sets at once; there the metric raises an error, and the gradients are still right.

    Attributes:
      thresholds: those of the training scores at the last call, as from :func:`softbin.decision_thresholds`; None
        before.
    """

    def __init__(self, settings: _Settings):
        self._settings = settings
        self._training_set: _TrainingSet | None = None
        self._unmeasured = 0  # training sets since the metric was asked for, if each had one round
        self.thresholds: np.ndarray | None = None

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(self._settings)

    def __deepcopy__(self, memo: Any) -> Objective:
        """Itself: LightGBM trains with a copy of its parameters, and the metric needs the thresholds tracked there."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Without the training set: a model that is saved needs the thresholds only."""
        return {**self.__dict__, "_training_set": None}

    @property
    def temperature(self) -> float:
        """The unit of the scores."""
        return self._settings.temperature

    def __call__(self, first: Any, second: Any, sample_weight: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The gradient and the hessian by the scores, of their shape, in float32.

        The arguments are `(scores, dataset)`, as the libraries' own `train` calls it, or `(labels, scores,
        sample_weight)`, as their scikit-learn interfaces do.

        Raises:
          ValueError: labels or weights are not what the loss can take, or the rows are spread over several machines; at
            the first call, before any tree is grown.
        """
        labels, scores, weights = _arguments(first, second, sample_weight)
        dataset = second if hasattr(second, "get_label") else None
        if self._training_set is not None and self._training_set.is_of(labels, weights, dataset):
            self._unmeasured = 0
        else:
            _check_dataset(dataset)
            self._training_set = self._checked(labels, scores, weights)
            if dataset is not None:
                self._training_set = self._training_set._replace(dataset=_reference(dataset))
            self._unmeasured += 1
        with _precision_of(scores):
            gradient, hessian, self.thresholds = jax.device_get(
                _derivatives(scores, self._training_set.labels, self._training_set.weights, self._settings)
            )
        return gradient, hessian

    def decide(self, scores: Any, labels: Any, sample_weight: Any = None, calibrator: Any = None) -> Decisions:
        """Decisions of a trained model, with thresholds fitted to scores and labels.

        Args:
          scores: margins or raw scores, (n,) or (n, C), of rows like those to be decided: the training set, or, for
            honest probabilities, rows that the model has not seen. LightGBM's predictions leave out an `init_score`:
            add it, here and to the scores that are decided. Pass a `base_margin` to XGBoost's `predict` again.
          labels, sample_weight: those of these rows.
          calibrator: a scikit-learn classifier, such as `LogisticRegression()`; it is fitted to the scores less their
            thresholds, and gives the probabilities.

        Returns:
          :class:`Decisions`, which predict classes and, with a calibrator, probabilities.

        Raises:
          ValueError: as for calling the objective.
        """
        labels, scores = np.asarray(labels), np.asarray(scores)
        checked = self._checked(labels, scores, sample_weight)
        _, budget, temperature, _, regularizer = self._settings
        keywords = {"budget": _as_given(budget), "temperature": temperature, "weights": checked.weights}
        with _precision_of(scores):
            found = np.asarray(decision_thresholds(scores, checked.labels, regularizer=regularizer, **keywords))
        decisions = Decisions(found, temperature, regularizer, calibrator)
        if calibrator is not None:
            calibrator.fit(decisions.centred(scores), checked.labels, sample_weight=checked.weights)
        return decisions

    def _checked(self, labels: np.ndarray, scores: np.ndarray, weights: Any) -> _TrainingSet:
        checked = _check(labels, scores, weights)
        check_budget(_as_given(self._settings.budget), scores, weights is None, name="scores")
        return checked

    @abstractmethod
    def zero_one_error(self, first: Any, second: Any, sample_weight: Any = None) -> Any:
        """The metric, in the form that the library takes: the error of decisions with the tracked thresholds."""

    def _error(self, first: Any, second: Any, sample_weight: Any) -> float:
        labels, scores, weights = _arguments(first, second, sample_weight)
        if self.thresholds is None:
            raise ValueError("the metric decides with the thresholds of its objective: train with that objective")
        several, self._unmeasured = self._unmeasured, 0
        if several > 1:
            raise ValueError(
                f"the objective was called for {several} training sets, as of the folds of a cross-validation, and its "
                "metric would decide with the thresholds of the last: train each fold with an objective of its own, "
                "or leave the metric out and decide by objective.decide(...)"
            )
        chosen = Decisions(self.thresholds, self.temperature, self._settings.regularizer).predict(scores)
        return float(np.average(chosen != labels, weights=weights))


@documented
class Decisions(NamedTuple):
    """The decisions of a trained model: from scores to classes, and to probabilities if there is a calibrator.

    Attributes:
      thresholds: one per class, or a single one for a binary problem.
      temperature, regularizer: those of the objective.
      calibrator: a fitted classifier that gives the probabilities, or None.
    """

    thresholds: Float[np.ndarray, "..."]
    temperature: float
    regularizer: Regularizer
    calibrator: Any = None

    def predict(self, scores: Any) -> Int[np.ndarray, " n"]:
        """The classes that scores (margins, raw scores) of shape (n,) or (n, C) stand for."""
        scores = self._checked(scores)
        with _precision_of(scores):
            return np.asarray(predict(scores, self.thresholds, self.temperature, regularizer=self.regularizer))

    def predict_proba(self, scores: Any) -> Float[np.ndarray, "n classes"]:
        """The probability of each class, by the calibrator.

        Raises:
          ValueError: there is no calibrator.
        """
        if self.calibrator is None:
            raise ValueError("there are no probabilities without a calibrator: pass one to decide(...)")
        return self.calibrator.predict_proba(self.centred(self._checked(scores)))

    def centred(self, scores: Float[np.ndarray, "..."]) -> Float[np.ndarray, "n scores"]:
        """`x/τ - λ`, with one row for each row of the scores."""
        return (scores / self.temperature - self.thresholds).reshape(len(scores), -1)

    def _checked(self, scores: Any) -> np.ndarray:
        scores, shape = np.asarray(scores), np.shape(self.thresholds)
        check_floating("scores", scores)
        if not scores.ndim or (shape and scores.shape[1:] != shape):
            expected = f"(n, {shape[0]})" if shape else "(n,)"
            raise ValueError(
                f"scores with shape {scores.shape} do not fit thresholds with shape {shape}: expected {expected}"
            )
        return scores


class _LightGBM(Objective):
    def zero_one_error(self, first: Any, second: Any, sample_weight: Any = None) -> tuple[str, float, bool]:
        """The metric for `feval` and `eval_metric`."""
        return "zero_one_error", self._error(first, second, sample_weight), False


class _XGBoost(Objective):
    def zero_one_error(self, first: Any, second: Any, sample_weight: Any = None) -> tuple[str, float] | float:
        """The metric for `custom_metric` and `eval_metric`."""
        error = self._error(first, second, sample_weight)
        return ("zero_one_error", error) if hasattr(second, "get_label") else error


def lightgbm_objective(
    loss: str = "squared",
    *,
    budget: Budget = budgets.label_count,
    temperature: float = 1.0,
    hessian: str = "unit",
    regularizer: Regularizer = euclidean,
) -> Objective:
    r"""A loss as an objective for LightGBM: pass it to `lightgbm.train` or to `LGBMClassifier`.

    With `g = ∂L/∂x` for `L` :func:`softbin.loss` or :func:`softbin.fenchel_young_loss` over all rows, the objective
    hands over

    .. math::
        n \tau^2 g \ (\text{squared}), \qquad n \tau g \ (\text{Fenchel-Young}),

    and the hessian in the same unit, weights included. So a tree moves the scores by the learning rate times a mean
    error, in units of the temperature, whatever the number of rows; the temperature is the unit of the scores and
    nothing else, apart from the library's own penalties on leaves.

    With an objective of one's own, the predictions of `LGBMClassifier` are raw scores: hand those of held-out rows to
    :meth:`Objective.decide`, and decide by what it returns. Give the classifier `metric="None"`, since otherwise it
    logs a log-loss of raw scores and stops early by that; and a patience longer than the first rounds, in which the
    errors do not move. Where trees are dropped (`boosting="dart"`), watch validation sets only: LightGBM 4.7.0 spoils
    the model if the training set is watched. Train on one machine: under Dask the rows of each worker would silently be
    a batch of their own.

    Args:
      loss: "squared" or "fenchel_young".
      budget: `k` per class over the training set; as for :func:`softbin.loss`.
      temperature: one positive number.
      hessian: "unit", which is 1 or the weights of the rows, as published; or "gauss_newton", the diagonal of the
        Gauss-Newton matrix, which is zero for a saturated row.
      regularizer: `softbin.euclidean`, `softbin.binary_entropy`, or another of `softbin.regularizers`.

    Returns:
      An :class:`Objective`, with a metric `zero_one_error` for `feval` or `eval_metric`. Labels are 0 and 1 if a row
      has one score, and class numbers if it has several. A NaN label is refused, but not in a `lightgbm.Dataset`, which
      turns it into 0 before any objective sees it.

    Raises:
      TypeError: `budget` is not a number, an array or a callable.
      ValueError: `loss` or `hessian` is unknown, `temperature` is not positive, or `budget` is negative or a number
        that looks like a share.

    Example:
      >>> objective = lightgbm_objective(budget=2)
      >>> gradient, hessian = objective(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.5, 0.2, 0.4, 0.1]))
      >>> print(gradient.round(2), hessian)
      [ 0.7  0.4 -0.4 -0.7] [1. 1. 1. 1.]
      >>> print(objective.thresholds.round(2))
      -0.2

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, section 4 and the appendix on gradient boosting.
    """
    return _LightGBM(_settings(loss, budget, temperature, hessian, regularizer))


def xgboost_objective(
    loss: str = "squared",
    *,
    budget: Budget = budgets.label_count,
    temperature: float = 1.0,
    hessian: str = "unit",
    regularizer: Regularizer = euclidean,
) -> Objective:
    """A loss as an objective for XGBoost: pass it to `xgboost.train(..., obj=...)` or to `XGBClassifier`.

    Formula, args, returns and raises: as for :func:`lightgbm_objective`; its metric is for `custom_metric` or
    `eval_metric`. `XGBClassifier` treats the scores as if they were those of its own losses, and its `predict` cuts
    them in the wrong place: hand `predict(..., output_margin=True)` to :meth:`Objective.decide`. Training on several
    machines is refused.

    Example:
      >>> objective = xgboost_objective(loss="fenchel_young", hessian="gauss_newton")
      >>> gradient, hessian = objective(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.5, 0.2, 0.4, 0.1]))
      >>> print(gradient.round(2), hessian)
      [ 0.7  0.4 -0.4 -0.7] [0.75 0.75 0.75 0.75]
    """
    return _XGBoost(_settings(loss, budget, temperature, hessian, regularizer))


def _settings(loss: str, budget: Any, temperature: float, hessian: str, regularizer: Regularizer) -> _Settings:
    for name, value, known in (("loss", loss, _LOSSES), ("hessian", hessian, _HESSIANS)):
        if value not in known:
            raise ValueError(f"unknown {name} {shares.brief(value)}: choose one of {', '.join(known)}")
    check_temperature(temperature)
    if np.ndim(temperature):
        raise ValueError(f"temperature must be one number, got an array of shape {np.shape(temperature)}")
    check_regularizer(regularizer)
    shares.check_budget(budget)
    if not callable(budget):
        check_amount("budget", np.asarray(budget, float))
        budget = np.asarray(budget, float).tolist()
        budget = tuple(budget) if isinstance(budget, list) else budget
    return _Settings(loss, budget, float(temperature), hessian, regularizer)


def _as_given(budget: Any) -> Any:
    return np.asarray(budget) if isinstance(budget, tuple) else budget


def _arguments(first: Any, second: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Labels, scores and weights, from what either interface hands over."""
    if not hasattr(second, "get_label"):
        return np.asarray(first), np.asarray(second), sample_weight
    weights = second.get_weight()
    return np.asarray(second.get_label()), np.asarray(first), weights if np.size(weights) else None


def _reference(dataset: Any) -> Callable[[], Any]:
    """To a data set that may go, if its kind allows that."""
    try:
        return weakref.ref(dataset)
    except TypeError:
        return lambda: dataset


def _check_dataset(dataset: Any) -> None:
    """Refuse a part of the rows, and warn of parameters that do not reach an objective, where either can be seen."""
    parameters = getattr(dataset, "params", None) or {}
    collective = getattr(sys.modules.get("xgboost"), "collective", None)
    machines = max(parameters.get("num_machines", 1), collective.get_world_size() if collective else 1)
    if machines > 1:
        raise ValueError(
            f"the rows are on {machines} machines, and the objective sees those of one: its batch is the training "
            "set, so train on one machine"
        )
    warn_of_parameters_without_effect(parameters, stacklevel=5)


def warn_of_parameters_without_effect(parameters: Mapping[str, Any], stacklevel: int) -> None:
    """Name the parameters of a library that are set and do not reach an objective."""
    set_ones = {name: parameters.get(name) for name in _WITHOUT_EFFECT}
    if ignored := [name for name, value in set_ones.items() if value not in (None, _WITHOUT_EFFECT[name])]:
        warnings.warn(
            f"{', '.join(ignored)}: without effect on a custom objective, so pass weights of the rows instead",
            stacklevel=stacklevel,
        )


def _check(labels: np.ndarray, scores: np.ndarray, weights: Any) -> _TrainingSet:
    check_floating("scores", scores)
    if labels.dtype.kind not in "biuf":
        raise TypeError(f"labels must be numbers, got {shares.brief(labels)}: encode them as class numbers")
    if scores.ndim not in (1, 2) or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores with shape {scores.shape} do not fit labels with shape {labels.shape}: expected one row for each"
        )
    if not len(labels):
        raise ValueError(f"scores with shape {scores.shape} have no rows: there is nothing to learn from")
    classes = 2 if scores.ndim == 1 else scores.shape[1]
    allowed = "0 or 1" if scores.ndim == 1 else f"0, ..., {classes - 1}"
    right = (labels >= 0) & (labels < classes) & (labels == np.floor(labels))  # false for NaN
    if not right.all():
        raise ValueError(
            f"labels must be {allowed}, got {labels[~right][0]} in row {np.argmin(right)}: encode them as class numbers"
        )
    if np.all(labels == labels[0]):
        raise ValueError(f"all {len(labels)} labels are {labels[0]:g}: there is nothing to separate")
    given = (labels.copy(), None if weights is None else np.array(weights))
    labels = labels.astype(np.int32)
    if weights is not None:
        check_real("sample_weight", np.asarray(weights))
        weights = np.asarray(weights, scores.dtype)
        if weights.shape != labels.shape:
            raise ValueError(
                f"sample_weight with shape {weights.shape} must have one entry for each of {len(labels)} labels"
            )
        right = (weights >= 0) & np.isfinite(weights)
        if not right.all():
            raise ValueError(
                f"sample_weight must be finite and not negative, got {weights[~right][0]} in row {np.argmin(right)}: "
                "correct or drop such rows"
            )
    return _TrainingSet(given, labels, weights)


def _precision_of(scores: np.ndarray) -> AbstractContextManager[Any]:
    """JAX in double precision where the scores have it."""
    module = jax if hasattr(jax, "enable_x64") else jax.experimental  # before jax 0.8
    return module.enable_x64(scores.dtype == np.float64)


@partial(jax.jit, static_argnums=3)
def _derivatives(
    scores: Float[Array, "..."], labels: Real[Array, " n"], weights: Float[Array, " n"] | None, settings: _Settings
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Gradient and hessian in the unit of the objective, and the thresholds, from one search."""
    budget = _as_given(settings.budget)
    batch, problem = prepare_projection(scores, labels, budget, settings.temperature, None, weights)
    solution = solve(problem, settings.regularizer)
    temperature, weights, groups, u = problem.temperature, problem.weights, problem.groups, solution.excess()
    wrong = weighted(settings.regularizer.link(u) - batch.targets, weights)
    slope = settings.regularizer.parts(u).slope
    curvature = weighted(slope, weights)
    share = thresholds.safe_ratio(curvature, groups.total(curvature))
    if settings.loss == "squared":
        gradient = temperature**2 * pull_back(u, temperature, weights, wrong, groups, settings.regularizer)[0]
        hessian = slope * curvature * (1 - 2 * share) + share**2 * groups.total(slope * curvature)
    else:
        gradient = temperature * wrong
        hessian = curvature * (1 - share)
    if settings.hessian == "unit":
        hessian = jnp.ones_like(u) if weights is None else weights
    lam = groups.gather(solution.centre())

    def by_row(entries: Float[Array, "rows row"]) -> Float[Array, "..."]:
        return by_example(entries, groups.lanes).reshape(scores.shape).astype(jnp.float32)

    return by_row(gradient), by_row(hessian), lam.reshape(scores.shape[1:])
