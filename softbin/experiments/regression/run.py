"""One regression."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from softbin.experiments.kinds import MEDIAN_ERROR, REGRESSION_MEASURES
from softbin.experiments.regression import linear_models, networks
from softbin.experiments.regression.targets import Rows, Split, corrupted, interquartile_range, load
from softbin.experiments.runs import life, settings
from softbin.experiments.runs.errors import UserError

_ERRORS = (MEDIAN_ERROR, *REGRESSION_MEASURES)
ESTIMATORS = {"linear": (*networks.LOSSES, *linear_models.MODELS), "mlp": tuple(networks.LOSSES)}
"""The models and their losses."""
_PANELS = {
    "training loss": {"loss": "loss"},
    "errors": {MEDIAN_ERROR: "validation, median", "test_mae": "test, mean", "test_rmse": "test, root mean square"},
}


def prepare(config: ml_collections.ConfigDict) -> life.Work:
    """A fit as that of the config `regression_diamonds`, to targets less their median, over their interquartile range.

    Its results are what is measured in the end, in the units of the table. All epochs of a network are one program, in
    which it is measured after each; the seconds of the fit have that in them, and compiling for the first of its kind.

    Raises:
      UserError: the config is not right, or the data are missing.
    """
    _check(config)
    split = _with_wrong_targets(config)
    median, unit = np.median(split.train.targets), interquartile_range(split.train.targets)
    scaled = Split(*(Rows(features, (targets - median) / unit) for features, targets in split))
    return (_Network if config.loss in networks.LOSSES else _LinearModel)(config, scaled, unit)


class _Regression(life.Work):
    """A fit that is done at once."""

    def __init__(self, config: ml_collections.ConfigDict, split: Split, scale: float, unit: str, steps: int):
        super().__init__(config.loss, f"{config.dataset}, {config.estimator}, {config.loss}", unit, steps, steps)
        self._config, self._split, self._scale = config, split, scale
        self._history: list[life.Record] = []

    def evaluate(self, done: int) -> list[life.Record]:
        return [record | {name: self._scale * record[name] for name in _ERRORS} for record in self._history]

    def results(self, history: Sequence[life.Record]) -> life.Record:
        return {name: history[-1][name] for name in _ERRORS}


class _LinearModel(_Regression):
    def __init__(self, config: ml_collections.ConfigDict, split: Split, scale: float):
        super().__init__(config, split, scale, "fit", 1)

    def advance(self) -> int:
        config = self._config
        self._history = [{"fit": 1, **linear_models.fit(config.loss, self._split, config.delta, config.seed)}]
        return 1


class _Network(_Regression):
    shown = REGRESSION_MEASURES
    panels = _PANELS

    def __init__(self, config: ml_collections.ConfigDict, split: Split, scale: float):
        super().__init__(config, split, scale, "epoch", config.epochs)

    def advance(self) -> int:
        config = self._config
        trained = networks.train(
            self._split,
            config.seed,
            config.learning_rate,
            config.delta,
            config.keep,
            loss=config.loss,
            hidden=tuple(config.hidden) if config.estimator == "mlp" else (),
            epochs=config.epochs,
            batch_size=config.batch_size,
        )
        self._history = life.records(jax.device_get(trained))
        return config.epochs


def sentence(summary: Mapping[str, Any]) -> str:
    """What came of a run, in short."""
    return (
        f"{summary['dataset']}, {summary['estimator']}, {summary['loss']}: test MAE {summary['test_mae']:.4g}, "
        f"RMSE {summary['test_rmse']:.4g}"
    )


def _with_wrong_targets(config) -> Split:
    """The test targets are right."""
    rng = np.random.default_rng(config.seed)
    split = load(config.dataset, config.train_examples, config.held_out_examples, rng)
    train, validation = (
        rows._replace(targets=corrupted(rows.targets, config.corruption, config.corrupted, rng))
        for rows in (split.train, split.validation)
    )
    return Split(train, validation, split.test)


def _check(config: ml_collections.ConfigDict) -> None:
    settings.check_hidden(config.hidden)
    if config.estimator not in ESTIMATORS:
        raise UserError(f"unknown estimator {config.estimator!r}: choose one of {', '.join(ESTIMATORS)}")
    losses = ESTIMATORS[config.estimator]
    if config.loss not in losses:
        raise UserError(
            f"the estimator {config.estimator} has no loss {config.loss!r}: choose one of {', '.join(losses)}"
        )
    if config.loss == "huber_regressor" and config.delta < 1:
        raise UserError(f"the delta of huber_regressor must be at least 1, got {config.delta}")
    if config.keep > 1:
        raise UserError(f"keep must be a share of the batch, at most 1, got {config.keep}")
    if config.batch_size > config.train_examples:
        raise UserError(f"batch_size {config.batch_size} is more than train_examples {config.train_examples}: lower it")
