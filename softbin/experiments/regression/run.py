"""One regression, from a config to a folder of results."""

import json
import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

import softbin
from softbin.experiments.common import settings
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import UserError
from softbin.experiments.regression import linear_models, networks
from softbin.experiments.regression.measures import MEASURES, VALIDATION
from softbin.experiments.regression.targets import Rows, Split, corrupted, interquartile_range, load

ESTIMATORS = {"linear": (*networks.LOSSES, *linear_models.MODELS), "mlp": tuple(networks.LOSSES)}
"""The models and their losses."""
_LEAST = {"train_examples": 1, "held_out_examples": 1, "epochs": 1, "batch_size": 1, "seed": 0}
_POSITIVE = ("learning_rate", "delta", "keep")
FIELDS = frozenset(_LEAST) | {*_POSITIVE, "estimator", "dataset", "corruption", "corrupted", "loss", "hidden"}


def regress(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Fit one model and write `summary.json`, and `metrics.jsonl` where it is trained in epochs.

    It is fitted to targets less their median, divided by their interquartile range. A finished run is not run again.

    Args:
      config: as that of `softbin/experiments/configs/regression_diamonds.py`.
      workdir: a folder for the results; it must not hold those of another config.

    Returns:
      The summary: what is measured in the end, in the units of the table, and the seconds of the fit, in which a
      network is measured after every epoch, and the first of its kind is compiled.

    Raises:
      UserError: the config is not right, the data are missing, or the folder is taken. Nothing has been written then.
    """
    workdir = Path(workdir)
    finished = folder.finished(workdir, config.to_dict())
    if finished is not None:
        return finished
    _check(config)
    split = _with_wrong_targets(config)
    median, unit = np.median(split.train.targets), interquartile_range(split.train.targets)
    scaled = Split(*(Rows(features, (targets - median) / unit) for features, targets in split))
    folder.start(workdir, config.to_dict())

    start = time.perf_counter()
    history = _history(config, scaled)
    seconds = time.perf_counter() - start
    for record in history:
        record.update({name: unit * record[name] for name in (VALIDATION, *MEASURES)})
    if config.loss in networks.LOSSES:
        folder.write(workdir / folder.METRICS_FILE, "".join(json.dumps(record) + "\n" for record in history))
    summary = {
        **config.to_dict(),
        **{name: history[-1][name] for name in (VALIDATION, *MEASURES)},
        "train_seconds": seconds,
        "versions": {
            "softbin": softbin.__version__,
            **{name: version(name) for name in ("jax", "flax", "optax", "scikit-learn")},
        },
        "device": jax.devices()[0].device_kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    folder.write(workdir / folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


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


def _history(config, split: Split) -> list[dict[str, Any]]:
    if config.loss in linear_models.MODELS:
        return [linear_models.fit(config.loss, split, config.delta, config.seed)]
    trained = networks.train(
        split,
        config.seed,
        config.learning_rate,
        config.delta,
        config.keep,
        loss=config.loss,
        hidden=tuple(config.hidden) if config.estimator == "mlp" else (),
        epochs=config.epochs,
        batch_size=config.batch_size,
    )
    values = {name: column.tolist() for name, column in jax.device_get(trained).items()}
    return [{"epoch": epoch + 1, **{name: values[name][epoch] for name in values}} for epoch in range(config.epochs)]


def _check(config: ml_collections.ConfigDict) -> None:
    settings.check(config, FIELDS, _LEAST, "regression_diamonds")
    settings.check_hidden(config.hidden)
    if config.estimator not in ESTIMATORS:
        raise UserError(f"unknown estimator {config.estimator!r}: choose one of {', '.join(ESTIMATORS)}")
    losses = ESTIMATORS[config.estimator]
    if config.loss not in losses:
        raise UserError(
            f"the estimator {config.estimator} has no loss {config.loss!r}: choose one of {', '.join(losses)}"
        )
    for name in _POSITIVE:
        if not 0 < config[name] < math.inf:
            raise UserError(f"{name} must be positive and finite, got {config[name]}")
    if config.loss == "huber_regressor" and config.delta < 1:
        raise UserError(f"the delta of huber_regressor must be at least 1, got {config.delta}")
    if config.keep > 1:
        raise UserError(f"keep must be a share of the batch, at most 1, got {config.keep}")
    if config.batch_size > config.train_examples:
        raise UserError(f"batch_size {config.batch_size} is more than train_examples {config.train_examples}: lower it")
