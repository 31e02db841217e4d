"""One network that chooses inside, from a config to a folder of results."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import softbin
from softbin.experiments.common import settings
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import UserError
from softbin.experiments.sparsity import autoencoder, experts, features, pruning
from softbin.experiments.sparsity.images import Numbers, load


class _Task(NamedTuple):
    train: Callable[..., dict[str, Any]]
    methods: Sequence[str]
    pooled: bool  # images
    measure: str  # of held-out images


_UNEXPLAINED, _ACCURACY = "unexplained", "accuracy"
TASKS = {
    "autoencoder": _Task(autoencoder.train, tuple(autoencoder.METHODS), True, _UNEXPLAINED),
    "experts": _Task(experts.train, tuple(experts.METHODS), True, _ACCURACY),
    "features": _Task(features.train, features.METHODS, False, _ACCURACY),
    "pruning": _Task(pruning.train, pruning.METHODS, False, _ACCURACY),
}
"""By name."""
ERRORS = (_UNEXPLAINED,)
"""The measures that are better where they are smaller."""
MEASURES = (
    *(f"{part}_{measure}" for measure in (_UNEXPLAINED, _ACCURACY) for part in ("validation", "test")),
    *("dead", "active"),
    *("load_max", "load_min", "batch_load_max"),
)
"""All that any task measures, after each epoch or in the end."""
_LEAST = {"train_examples": 1, "validation_examples": 1, "width": 1, "epochs": 1, "batch_size": 1, "seed": 0}
_POSITIVE = ("k", "temperature", "learning_rate")
FIELDS = frozenset(_LEAST) | {*_POSITIVE, "task", "method", "dataset", "data_dir", "penalty"}


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Train one network and write `summary.json` and `metrics.jsonl`. A finished run is not run again.

    Args:
      config: as that of `softbin/experiments/configs/sparse_autoencoder.py`.
      workdir: a folder for the results; it must not hold those of another config.

    Returns:
      The summary: what is measured after the last epoch, and the seconds with compiling.

    Raises:
      UserError: the config is not right, the data are missing, or the folder is taken. Nothing has been written then.
    """
    workdir = Path(workdir)
    finished = folder.finished(workdir, config.to_dict())
    if finished is not None:
        return finished
    task = _checked(config)
    sizes = config.train_examples, config.validation_examples
    split = load(config.dataset, config.data_dir, *sizes, config.seed, pooled=task.pooled)
    if config.task == "features" and config.k > split.train.pixels.shape[1]:
        raise UserError(f"k must be at most the number of pixels, {split.train.pixels.shape[1]}, got {config.k:g}")
    numbers = Numbers(*(jnp.asarray(config[name], jnp.float32) for name in Numbers._fields))
    numbers = numbers._replace(seed=jnp.asarray(config.seed, jnp.int32))
    folder.start(workdir, config.to_dict())

    start = time.perf_counter()
    program = {name: config[name] for name in ("method", "width", "epochs", "batch_size")}
    found = jax.device_get(task.train(split, numbers, **program))
    results = {name: values.tolist() for name, values in found.items()}
    seconds = time.perf_counter() - start
    columns = {name: values for name, values in results.items() if isinstance(values, list)}  # the others: in the end
    history = [{"epoch": e + 1, **{name: columns[name][e] for name in columns}} for e in range(config.epochs)]
    folder.write(workdir / folder.METRICS_FILE, "".join(json.dumps(record) + "\n" for record in history))
    summary = {
        **config.to_dict(),
        **{name: np.ravel(results[name])[-1].item() for name in MEASURES if name in results},
        "train_seconds": seconds,
        "versions": {"softbin": softbin.__version__, **{name: version(name) for name in ("jax", "flax", "optax")}},
        "device": jax.devices()[0].device_kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    folder.write(workdir / folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


def sentence(summary: Mapping[str, Any]) -> str:
    """What came of a run, in short."""
    measure = f"test_{TASKS[summary['task']].measure}"
    return f"{summary['task']}, {summary['method']}: {measure.replace('_', ' ')} {summary[measure]:.4f}"


def _checked(config: ml_collections.ConfigDict) -> _Task:
    settings.check(config, FIELDS, _LEAST, "sparse_autoencoder")
    if config.task not in TASKS:
        raise UserError(f"unknown task {config.task!r}: choose one of {', '.join(TASKS)}")
    task = TASKS[config.task]
    if config.method not in task.methods:
        raise UserError(f"{config.task} has no method {config.method!r}: choose one of {', '.join(task.methods)}")
    for name in _POSITIVE:
        if not 0 < config[name] < math.inf:
            raise UserError(f"{name} must be positive and finite, got {config[name]}")
    if not 0 <= config.penalty < math.inf:
        raise UserError(f"penalty must be finite and not negative, got {config.penalty}")
    if config.task == "pruning":
        if config.k > 1:
            raise UserError(f"k must be a share of the weights, at most 1, got {config.k}")
    elif config.k != int(config.k):
        raise UserError(f"k must be a whole number, got {config.k}")
    if config.task in ("autoencoder", "experts") and config.k >= config.width:
        raise UserError(f"k must be less than the width, {config.width}, got {config.k}")
    least = experts.SHARDS if config.task == "experts" else 1
    most = config.train_examples // least * least
    if not least <= config.batch_size <= most:
        raise UserError(f"batch_size must be in [{least}, {most}], the training examples, got {config.batch_size}")
    return task
