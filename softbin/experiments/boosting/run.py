"""One run of gradient boosting, from a config to a folder of results."""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

import softbin
from softbin.experiments.boosting import boosters, checkpoints, losses, tables
from softbin.experiments.common import settings
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.curves import save_curves
from softbin.experiments.common.errors import UserError
from softbin.experiments.common.precision import at_best, precisions

MEASURES = ("auc", "log_loss", "error", "error_thresholded")
STOPS = ("fixed", "best")
_LEAST = {"rounds": 1, "fixed_rounds": 1, "evaluate_every": 1, "checkpoint_every": 0, "seed": 0}
FIELDS = frozenset(_LEAST) | {
    "booster",
    "dataset",
    "data",
    "train_examples",
    "loss",
    "budget",
    "hessian",
    "learning_rate",
}
_PANELS = {
    name: {f"test_{measure}": "test", f"validation_{measure}": "validation"}
    for name, measure in (
        ("area under the curve", "auc"),
        ("log loss", "log_loss"),
        ("error by thresholds", "error_thresholded"),
        ("precision at the top 2%", "precision_at_2"),
    )
}


def boost(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Grow one model and write `metrics.jsonl`, `summary.json` and `curves.png`.

    A run that was cut off goes on from its last whole checkpoint and ends with the same results; a finished one is not
    run again. At a checkpoint the library starts anew from the margins so far, whether the run is cut off there or not.

    Args:
      config: as that of `softbin/experiments/configs/boosting_breast_cancer.py`.
      workdir: a folder for the results; it must not hold those of another config.

    Returns:
      The summary. `best_...` is measured after `best_round`, where the validation AUC is highest, and `fixed_...` after
      `fixed_rounds`; `at_max_...` after the round where that precision at the top is highest on the validation rows.

    Raises:
      UserError: the config is not right, the data are missing or damaged, or the folder is taken. Nothing has been
        written then.
    """
    workdir = Path(workdir)
    finished = folder.finished(workdir, config.to_dict())
    if finished is not None:
        return finished
    _check(config)
    loss = losses.loss(config.loss, config.booster, config.hessian, config.budget)
    split = tables.load(config.dataset, config.data, config.train_examples, config.seed)
    booster = boosters.BOOSTERS[config.booster](split, loss.objective, config.learning_rate)
    folder.start(workdir, config.to_dict())

    def is_evaluated(done: int) -> bool:
        return done % config.evaluate_every == 0 or done in (config.fixed_rounds, config.rounds)

    before, margins = checkpoints.restore(workdir / folder.CHECKPOINTS_FOLDER)
    if before:
        booster.go_on_from(margins)
    history = folder.read_history(workdir, sum(map(is_evaluated, range(1, before + 1))))
    train_seconds = history[-1]["train_seconds"] if history else 0.0
    rounds = range(before + 1, config.rounds + 1)
    with tqdm(rounds, desc=config.loss, unit="round", initial=before, total=config.rounds, leave=None) as progress:
        for done in progress:
            start = time.perf_counter()
            booster.grow()
            train_seconds += time.perf_counter() - start
            if is_evaluated(done):
                measured = measures(booster.margins(), split, loss)
                history.append({"round": done, **measured, "train_seconds": train_seconds})
                with open(workdir / folder.METRICS_FILE, "a") as log:
                    log.write(json.dumps(history[-1]) + "\n")
                progress.set_postfix(auc=f"{measured['test_auc']:.4f}", refresh=False)
            if config.checkpoint_every and done % config.checkpoint_every == 0 and done < config.rounds:
                checkpoints.save(workdir / folder.CHECKPOINTS_FOLDER, done, booster.margins())
                booster.go_on_from(booster.margins())

    summary = _summary(config, split, history, booster.version)
    title = f"{config.dataset}, {config.booster}, {config.loss}"
    save_curves(history, _PANELS, title, workdir / folder.CURVES_FILE, step="round")
    folder.write(workdir / folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


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


def _check(config: ml_collections.ConfigDict) -> None:
    settings.check(config, FIELDS, _LEAST, "boosting_breast_cancer")
    if config.fixed_rounds > config.rounds:
        raise UserError(f"fixed_rounds {config.fixed_rounds} is more than rounds {config.rounds}: lower it")
    if not 0 < config.learning_rate < math.inf:
        raise UserError(f"learning_rate must be positive and finite, got {config.learning_rate}")


def _summary(config, split: tables.Split, history: Sequence[Mapping[str, Any]], version: str) -> dict[str, Any]:
    best = max(history, key=lambda record: record["validation_auc"])
    (fixed,) = (record for record in history if record["round"] == config.fixed_rounds)
    fields = {name: value for name, value in config.to_dict().items() if name != "data"}
    if config.data:
        fields["dataset"] = Path(config.data).stem
    return {
        **fields,
        **{f"{name}_examples": len(rows.labels) for name, rows in zip(split._fields[:3], split[:3], strict=True)},
        "classes": split.classes,
        "best_round": best["round"],
        **{
            f"{stop}_{part}_{measure}": record[f"{part}_{measure}"]
            for stop, record in zip(STOPS, (fixed, best), strict=True)
            for part in ("validation", "test")
            for measure in MEASURES
        },
        **(at_best(history) if split.classes == 2 else {}),
        "train_seconds": history[-1]["train_seconds"],
        "versions": {"softbin": softbin.__version__, "jax": jax.__version__, config.booster: version},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
