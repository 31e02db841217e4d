"""One training run of a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from softbin.experiments.kinds import ACCURACIES, BESIDE
from softbin.experiments.runs import life
from softbin.experiments.training import learner as learning
from softbin.experiments.training import tasks

_PANELS = {
    "training loss": {"loss": "loss"},
    "test accuracy": {"test_accuracy": "argmax of logits", "test_accuracy_thresholded": "with thresholds"},
    "validation accuracy": {
        "validation_accuracy": "argmax of logits",
        "validation_accuracy_thresholded": "with thresholds",
    },
    "test accuracy of the worst class": {
        "test_worst_class": "argmax of logits",
        "test_worst_class_thresholded": "with thresholds",
    },
    "precision at the top 2%": {"test_precision_at_2": "test", "validation_precision_at_2": "validation"},
    "share of the entries of the batch": {
        "active": "active",
        "saturated_right": "saturated, right",
        "saturated_wrong": "saturated, wrong",
        "kept_clean": "right labels of the kept",
    },
}


def prepare(config: ml_collections.ConfigDict) -> life.Work:
    """A training as that of the config `digits`, data-parallel over all devices of all processes.

    A run that was cut off ends with the same bits. Its results: `train_examples` counts what was trained on; the budget
    of a loss without a projection is None, and so are accuracies that were not evaluated. `at_max_...` is of the epoch
    whose test accuracy, by argmax or with thresholds as the field says, is highest; that of a precision at the top is
    of the epoch where it is highest on the validation examples.

    Raises:
      UserError: the config does not fit the data or the devices, or files are missing or damaged.
    """
    return _Training(config, tasks.prepare(config))


class _Training(life.Work):
    shown = ("loss", "test_accuracy", "test_accuracy_thresholded", "active")
    panels = _PANELS

    def __init__(self, config: ml_collections.ConfigDict, task: tasks.Task):
        title = f"{config.dataset}, {config.loss}, batch {config.batch_size}"
        super().__init__(config.loss, title, "epoch", config.epochs, config.evaluate_every)
        self._config = config
        self._examples = len(task.dataset.train_labels)
        mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
        self._programs = learning.build(task, config, mesh)
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._learner, self._dataset = jax.device_put((self._programs.initial, task.dataset), everywhere)
        self._trained: dict[str, Any] = {}

    def restore(self, checkpoints: Path) -> int:
        from softbin.experiments.runs.checkpoints import Checkpoints  # loads Orbax, once there is what to save

        self._checkpoints = Checkpoints(checkpoints)
        done, self._learner = self._checkpoints.restore(self._learner)
        return done

    def advance(self) -> int:
        self._learner, self._trained = jax.block_until_ready(self._programs.train_epoch(self._learner, self._dataset))
        return 1

    def evaluate(self, done: int) -> list[life.Record]:
        self._learner, evaluated = self._programs.evaluate(self._learner, self._dataset)
        return [{"epoch": done, **jax.tree.map(float, {**self._trained, **evaluated})}]

    def save(self, checkpoints: Path, done: int) -> None:
        every = self._config.checkpoint_every
        if done == self.steps or (every and done % every == 0):
            self._checkpoints.save(done, self._learner)

    def results(self, history: Sequence[life.Record]) -> life.Record:
        best = max(history, key=lambda record: record["test_accuracy"], default={"epoch": None})
        return {
            "train_examples": self._examples,
            "budget": tasks.budget_name(self._config),
            "epoch_of_max": best["epoch"],
            **{key: value for name in ACCURACIES for key, value in _max_and_last(history, name).items()},
            **{key: value for name in BESIDE for key, value in _at_best_and_last(history, name).items()},
        }


def _max_and_last(history: Sequence[Mapping[str, Any]], name: str) -> dict[str, float | None]:
    values = [record[name] for record in history if name in record]
    return {f"max_{name}": max(values, default=None), f"last_{name}": values[-1] if values else None}


def _at_best_and_last(history: Sequence[Mapping[str, Any]], name: str) -> dict[str, float | None]:
    by = BESIDE[name]
    best = max(history, key=lambda record: record[by]) if by in history[-1] else {}
    return {f"at_max_{name}": best.get(name), f"last_{name}": history[-1].get(name)}


def sentence(summary: Mapping[str, Any]) -> str:
    """What came of a run, in short."""
    decisions = summary["last_test_accuracy_thresholded"]
    return f"{summary['dataset']}, {summary['loss']}: test accuracy {summary['last_test_accuracy']:.4f}" + (
        f", with thresholds {decisions:.4f}" if decisions is not None else ""
    )
