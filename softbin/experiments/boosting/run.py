"""One run of gradient boosting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from softbin.experiments.boosting import boosters, checkpoints, losses, tables
from softbin.experiments.kinds import BOOSTING_MEASURES, PARTS, STOPS
from softbin.experiments.runs import life
from softbin.experiments.runs.errors import UserError
from softbin.experiments.training.precision import at_best, precisions

_PANELS = {
    name: {f"test_{measure}": "test", f"validation_{measure}": "validation"}
    for name, measure in (
        ("area under the curve", "auc"),
        ("log loss", "log_loss"),
        ("error by thresholds", "error_thresholded"),
        ("precision at the top 2%", "precision_at_2"),
    )
}


def prepare(config: ml_collections.ConfigDict) -> life.Work:
    """A model that grows, as that of the config `boosting_breast_cancer`.

    At a checkpoint the library starts anew from the margins so far, whether the run is cut off there or not. Its
    results: `best_...` is measured after `best_round`, where the validation AUC is highest, and `fixed_...` after
    `fixed_rounds`; `at_max_...` after the round where that precision at the top is highest on the validation rows.

    Raises:
      UserError: the config is not right, or the data are missing or damaged.
    """
    if config.fixed_rounds > config.rounds:
        raise UserError(f"fixed_rounds {config.fixed_rounds} is more than rounds {config.rounds}: lower it")
    loss = losses.loss(config.loss, config.booster, config.hessian, config.budget)
    return _Boosting(config, loss, tables.load(config.dataset, config.data, config.train_examples, config.seed))


class _Boosting(life.Work):
    shown = ("test_auc",)
    panels = _PANELS

    def __init__(self, config: ml_collections.ConfigDict, loss: losses.Loss, split: tables.Split):
        title = f"{config.dataset}, {config.booster}, {config.loss}"
        super().__init__(config.loss, title, "round", config.rounds, config.evaluate_every)
        self._config, self._loss, self._split = config, loss, split
        self._booster = boosters.BOOSTERS[config.booster](split, loss.objective, config.learning_rate)
        self.versions = {config.booster: self._booster.version}

    def restore(self, folder: Path) -> int:
        done, margins = checkpoints.restore(folder)
        if done:
            self._booster.go_on_from(margins)
        return done

    def advance(self) -> int:
        self._booster.grow()
        return 1

    def is_evaluated(self, done: int) -> bool:
        return super().is_evaluated(done) or done == self._config.fixed_rounds

    def evaluate(self, done: int) -> list[life.Record]:
        return [{"round": done, **measures(self._booster.margins(), self._split, self._loss)}]

    def save(self, folder: Path, done: int) -> None:
        every = self._config.checkpoint_every
        if every and done % every == 0 and done < self.steps:
            checkpoints.save(folder, done, self._booster.margins())
            self._booster.go_on_from(self._booster.margins())

    def results(self, history: Sequence[life.Record]) -> life.Record:
        best = max(history, key=lambda record: record["validation_auc"])
        (fixed,) = (record for record in history if record["round"] == self._config.fixed_rounds)
        split, file = self._split, self._config.data
        return {
            **({"dataset": Path(file).stem} if file else {}),
            **{f"{name}_examples": len(rows.labels) for name, rows in zip(split._fields[:3], split[:3], strict=True)},
            "classes": split.classes,
            "best_round": best["round"],
            **{
                f"{stop}_{part}_{measure}": record[f"{part}_{measure}"]
                for stop, record in zip(STOPS, (fixed, best), strict=True)
                for part in PARTS
                for measure in BOOSTING_MEASURES
            },
            **(at_best(history) if split.classes == 2 else {}),
        }


def measures(margins: Sequence[np.ndarray], split: tables.Split, loss: losses.Loss) -> dict[str, float]:
    """Of the validation and the test rows: AUC, log loss, and the error of both decisions.

    `log_loss` and `error`, of the most probable class, are by the logistic loss's own probabilities, and by a logistic
    regression on the margins of the validation rows for the others. `error_thresholded` is of the loss's own decisions,
    by thresholds of the training rows. With several classes the AUC is the mean of those of each against the rest; with
    two the precision at the top is measured too.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    train, *held_out = margins
    decide = loss.decisions(train, split.train)
    probabilities = loss.probabilities(held_out[0], split.validation)
    result: dict[str, float] = {}
    for name, margin, rows in zip(("validation", "test"), held_out, split[1:3], strict=True):
        p = probabilities(margin)
        found = {
            "auc": roc_auc_score(rows.labels, margin if margin.ndim == 1 else p, multi_class="ovr"),
            "log_loss": log_loss(rows.labels, p),
            "error": np.mean(p.argmax(1) != rows.labels),
            "error_thresholded": np.mean(decide(margin) != rows.labels),
        }
        if margin.ndim == 1:
            found |= precisions(margin, rows.labels)
        result |= {f"{name}_{measure}": float(value) for measure, value in found.items()}
    return result


def sentence(summary: Mapping[str, Any]) -> str:
    """What came of a run, in short."""
    return (
        f"{summary['dataset']}, {summary['booster']}, {summary['loss']}: test AUC {summary['best_test_auc']:.4f}, "
        f"error by thresholds {summary['best_test_error_thresholded']:.4f} after {summary['best_round']} rounds"
    )
