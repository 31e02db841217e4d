"""One network that chooses inside."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from softbin.experiments.datasets.images import Split, load
from softbin.experiments.kinds import ACCURACY, SPARSITY_MEASURES, UNEXPLAINED
from softbin.experiments.runs import life
from softbin.experiments.runs.errors import UserError
from softbin.experiments.sparsity import autoencoder, experts, features, pruning
from softbin.experiments.sparsity.numbers import Numbers


class _Task(NamedTuple):
    train: Callable[..., dict[str, Any]]
    methods: Sequence[str]
    pooled: bool  # images
    measure: str  # of held-out images


TASKS = {
    "autoencoder": _Task(autoencoder.train, tuple(autoencoder.METHODS), True, UNEXPLAINED),
    "experts": _Task(experts.train, tuple(experts.METHODS), True, ACCURACY),
    "features": _Task(features.train, features.METHODS, False, ACCURACY),
    "pruning": _Task(pruning.train, pruning.METHODS, False, ACCURACY),
}
"""By name."""
ERRORS = (UNEXPLAINED,)
"""The measures that are better where they are smaller."""


def prepare(config: ml_collections.ConfigDict) -> life.Work:
    """A network as that of the config `sparse_autoencoder`, all of whose epochs are one program.

    Its results are what is measured after the last epoch; the seconds have compiling in them.

    Raises:
      UserError: the config is not right, or the data are missing.
    """
    task = _checked(config)
    sizes = config.train_examples, config.validation_examples
    split = load(config.dataset, config.data_dir, *sizes, config.seed, pooled=task.pooled)
    if config.task == "features" and config.k > split.train.pixels.shape[1]:
        raise UserError(f"k must be at most the number of pixels, {split.train.pixels.shape[1]}, got {config.k:g}")
    return _Choosing(config, task, split)


class _Choosing(life.Work):
    def __init__(self, config: ml_collections.ConfigDict, task: _Task, split: Split):
        title = f"{config.dataset}, {config.task}, {config.method}"
        super().__init__(config.method, title, "epoch", config.epochs, config.epochs)
        self._config, self._task, self._split = config, task, split
        self._found: dict[str, np.ndarray] = {}
        validation = f"validation_{task.measure}"
        self.shown = (validation,)
        self.panels = {
            "training loss": {"loss": "loss"},
            validation.replace("_", " "): {validation: "validation"},
            "load of an expert": {"load_max": "largest", "load_min": "smallest"},
            "share of latents without use": {"dead": "without use"},
        }

    def advance(self) -> int:
        config = self._config
        numbers = Numbers(*(jnp.asarray(config[name], jnp.float32) for name in Numbers._fields))
        numbers = numbers._replace(seed=jnp.asarray(config.seed, jnp.int32))
        program = {name: config[name] for name in ("method", "width", "epochs", "batch_size")}
        self._found = jax.device_get(self._task.train(self._split, numbers, **program))
        return config.epochs

    def evaluate(self, done: int) -> list[life.Record]:
        return life.records({name: values for name, values in self._found.items() if np.ndim(values)})

    def results(self, history: Sequence[life.Record]) -> life.Record:
        return {name: np.ravel(self._found[name])[-1].item() for name in SPARSITY_MEASURES if name in self._found}


def sentence(summary: Mapping[str, Any]) -> str:
    """What came of a run, in short."""
    measure = f"test_{TASKS[summary['task']].measure}"
    return f"{summary['task']}, {summary['method']}: {measure.replace('_', ' ')} {summary[measure]:.4f}"


def _checked(config: ml_collections.ConfigDict) -> _Task:
    if config.task not in TASKS:
        raise UserError(f"unknown task {config.task!r}: choose one of {', '.join(TASKS)}")
    task = TASKS[config.task]
    if config.method not in task.methods:
        raise UserError(f"{config.task} has no method {config.method!r}: choose one of {', '.join(task.methods)}")
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
