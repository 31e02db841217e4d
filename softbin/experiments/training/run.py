"""One training run of a network, from a config to a folder of results."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tensorboardX import SummaryWriter
from tqdm import tqdm

import softbin
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.curves import save_curves
from softbin.experiments.training import learner as learning
from softbin.experiments.training import measures, tasks
from softbin.experiments.training.checkpoints import Checkpoints

_SHOWN = ("loss", "test_accuracy", "test_accuracy_thresholded", "active")
_ACCURACIES = tuple(
    f"{part}_accuracy{decision}" for part in ("test", "validation") for decision in ("", "_thresholded")
)
_PANELS = {
    "training loss": {"loss": "loss"},
    "test accuracy": {"test_accuracy": "argmax of logits", "test_accuracy_thresholded": "with thresholds"},
    "validation accuracy": {
        "validation_accuracy": "argmax of logits",
        "validation_accuracy_thresholded": "with thresholds",
    },
    "worst class": {
        "test_worst_class": "argmax of logits",
        "test_worst_class_thresholded": "with thresholds",
    },
    "precision at the top 2%": {"test_precision_at_2": "test", "validation_precision_at_2": "validation"},
    "share of the batch": {
        "active": "active",
        "saturated_right": "saturated, right",
        "saturated_wrong": "saturated, wrong",
        "kept_clean": "right labels of the kept",
    },
}


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Run one training of a network and write `metrics.jsonl`, `summary.json`, `curves.png` and TensorBoard events.

    It is data-parallel over all devices of all processes. A run that was cut off goes on from its last whole
    checkpoint and ends with the same bits; a finished one is not run again.

    Args:
      config: as that of `softbin/experiments/configs/digits.py`.
      workdir: a folder for the results; it must not hold those of another config.

    Returns:
      The summary. `train_examples` counts what was trained on; the budget of a loss without a projection is None, and
      so are accuracies that were not evaluated. `at_max_...` is of the epoch whose test accuracy, by argmax or with
      thresholds as the field says, is highest; that of a precision at the top is of the epoch where it is highest on
      the validation examples.

    Raises:
      UserError: the config does not fit the data or the devices, files are missing or damaged, or the folder is
        taken. Nothing has been written then.
    """
    workdir = Path(workdir)
    finished = folder.finished(workdir, config.to_dict())
    if finished is not None:
        return finished
    task = tasks.prepare(config)
    writes = jax.process_index() == 0
    if writes:
        folder.start(workdir, config.to_dict())

    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    programs = learning.build(task, config, mesh)
    learner, dataset = jax.device_put((programs.initial, task.dataset), NamedSharding(mesh, PartitionSpec()))

    def is_evaluated(epoch: int) -> bool:
        return epoch % config.evaluate_every == 0 or epoch == config.epochs

    checkpoints = Checkpoints(workdir / folder.CHECKPOINTS_FOLDER)
    done, learner = checkpoints.restore(learner)
    history = folder.read_history(workdir, sum(map(is_evaluated, range(1, done + 1)))) if writes else []
    train_seconds = history[-1]["train_seconds"] if history else 0.0
    board = SummaryWriter(str(workdir), purge_step=done + 1) if writes else None
    progress = tqdm(
        range(done, config.epochs),
        desc=config.loss,
        unit="epoch",
        initial=done,
        total=config.epochs,
        leave=None,  # on the screen, unless it is below another bar
        disable=None if writes else True,
    )
    for epoch in (previous + 1 for previous in progress):
        start = time.perf_counter()
        learner, trained = jax.block_until_ready(programs.train_epoch(learner, dataset))
        train_seconds += time.perf_counter() - start
        if is_evaluated(epoch):
            learner, evaluated = programs.evaluate(learner, dataset)
            metrics = jax.tree.map(float, {**trained, **evaluated})
            history.append({"epoch": epoch, **metrics, "train_seconds": train_seconds})
            progress.set_postfix({name: f"{metrics[name]:.4f}" for name in _SHOWN if name in metrics}, refresh=False)
            if board is not None:
                with open(workdir / folder.METRICS_FILE, "a") as log:
                    log.write(json.dumps(history[-1]) + "\n")
                for name, value in metrics.items():
                    board.add_scalar(name, value, epoch)
        if epoch == config.epochs or (config.checkpoint_every and epoch % config.checkpoint_every == 0):
            checkpoints.save(epoch, learner)

    summary = _summary(config, task, history, train_seconds)
    if board is not None:
        board.close()
        title = f"{config.dataset}, {config.loss}, batch {config.batch_size}"
        save_curves(history, _PANELS, title, workdir / folder.CURVES_FILE, step="epoch")
        folder.write(workdir / folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


def _summary(config, task: tasks.Task, history: Sequence[Mapping[str, Any]], train_seconds: float) -> dict[str, Any]:
    best = max(history, key=lambda record: record["test_accuracy"], default={"epoch": None})
    return {
        **{field: value for field, value in json.loads(json.dumps(config.to_dict())).items() if field != "data_dir"},
        "train_examples": len(task.dataset.train_labels),
        "budget": tasks.budget_name(config),
        "train_seconds": train_seconds,
        "epoch_of_max": best["epoch"],
        **{key: value for name in _ACCURACIES for key, value in _max_and_last(history, name).items()},
        **{
            key: value
            for name, by in measures.BESIDE.items()
            for key, value in _at_best_and_last(history, name, by).items()
        },
        "versions": {"softbin": softbin.__version__, **{name: version(name) for name in ("jax", "flax", "optax")}},
        "device": jax.devices()[0].device_kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _max_and_last(history: Sequence[Mapping[str, Any]], name: str) -> dict[str, float | None]:
    values = [record[name] for record in history if name in record]
    return {f"max_{name}": max(values, default=None), f"last_{name}": values[-1] if values else None}


def _at_best_and_last(history: Sequence[Mapping[str, Any]], name: str, by: str) -> dict[str, float | None]:
    best = max(history, key=lambda record: record[by]) if by in history[-1] else {}
    return {f"at_max_{name}": best.get(name), f"last_{name}": history[-1].get(name)}


def sentence(summary: Mapping[str, Any]) -> str:
    """What came of a run, in short."""
    decisions = summary["last_test_accuracy_thresholded"]
    return f"{summary['dataset']}, {summary['loss']}: test accuracy {summary['last_test_accuracy']:.4f}" + (
        f", with thresholds {decisions:.4f}" if decisions is not None else ""
    )
