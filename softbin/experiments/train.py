"""`softbin-train`: one training run of a small classifier, from a config to a folder of results."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import app, flags
from flax import nnx
from ml_collections import config_flags
from tensorboardX import SummaryWriter
from tqdm import tqdm

import softbin
from softbin.experiments import data, models, objectives
from softbin.experiments.curves import save_curves
from softbin.experiments.errors import UserError, exit_on_user_error

METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
CURVES_FILE = "curves.png"

_SHARES = ("active", "saturated_right", "saturated_wrong")
_SHOWN = ("loss", "test_accuracy", "test_accuracy_thresholded", "active")


class _Task(NamedTuple):
    """What a run is about, checked."""

    dataset: data.Dataset
    objective: objectives.Objective
    projection: dict[str, Any] | None  # the keywords of softbin's functions; None for a loss without a projection


class _Learner(NamedTuple):
    """What training changes."""

    params: nnx.State
    opt_state: optax.OptState
    key: jax.Array


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Run one training and write `metrics.jsonl`, `summary.json`, `curves.png` and TensorBoard events.

    Args:
      config: as in `configs/digits.py`.
      workdir: a folder for the results; it must not hold those of another run.

    Returns:
      The summary. Budget and thresholded accuracies are None for a loss without a projection.

    Raises:
      UserError: the config does not fit the data, files are missing or damaged, or the folder is taken. Nothing
        has been written then.
    """
    task = _task(config)
    workdir = _new_folder(workdir)
    model = models.mlp(task.dataset.train_images.shape[1], config.hidden, data.CLASSES, nnx.Rngs(config.seed))
    graph, params = nnx.split(model)
    optimizer = optax.adam(config.learning_rate)
    learner = _Learner(params, optimizer.init(params), jax.random.key(config.seed))
    train_epoch = _train_epoch(task, graph, optimizer, config.batch_size)
    evaluate = _evaluate(task, graph)
    dataset = jax.device_put(task.dataset)

    history: list[dict[str, float]] = []
    train_seconds = 0.0
    with SummaryWriter(str(workdir)) as board, open(workdir / METRICS_FILE, "w") as log:
        progress = tqdm(range(1, config.epochs + 1), desc=config.loss, unit="epoch", disable=None)
        for epoch in progress:
            start = time.perf_counter()
            learner, trained = jax.block_until_ready(train_epoch(learner, dataset))
            train_seconds += time.perf_counter() - start
            metrics = jax.tree.map(float, {**trained, **evaluate(learner.params, dataset)})
            history.append({"epoch": epoch, **metrics, "train_seconds": train_seconds})
            log.write(json.dumps(history[-1]) + "\n")
            log.flush()
            for name, value in metrics.items():
                board.add_scalar(name, value, epoch)
            progress.set_postfix({name: f"{metrics[name]:.4f}" for name in _SHOWN if name in metrics}, refresh=False)

    fields = ("dataset", "loss", "temperature", "batch_size", "seed", "epochs")
    summary = {
        **{field: config[field] for field in fields},
        "budget": _budget_name(config),
        "train_seconds": train_seconds,
        **_max_and_last(history, "test_accuracy"),
        **_max_and_last(history, "test_accuracy_thresholded"),
    }
    save_curves(history, f"{config.dataset}, {config.loss}, batch {config.batch_size}", workdir / CURVES_FILE)
    _write(workdir / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


def _task(config) -> _Task:
    dataset = data.load(config.dataset, config.data_dir, config.train_examples)
    examples = len(dataset.train_labels)
    if not 1 <= config.batch_size <= examples:
        raise UserError(f"batch_size {config.batch_size} is outside [1, {examples}], the size of the training set")
    if config.epochs < 1:
        raise UserError(f"epochs must be at least 1, got {config.epochs}")
    name = _budget_name(config)
    budget = None if name is None else objectives.budget(name, dataset.train_labels, data.CLASSES)
    objective = objectives.objective(config.loss, budget, config.temperature)
    projection = None if budget is None else {"budget": budget, "temperature": config.temperature}
    return _Task(dataset, objective, projection)


def _budget_name(config) -> str | None:
    """The budget of the config, or else the loss's own; None for a loss without a projection."""
    own = objectives.DEFAULT_BUDGETS.get(config.loss)
    return own and (config.budget or own)


def _new_folder(workdir) -> Path:
    workdir = Path(workdir)
    if (workdir / METRICS_FILE).exists():
        raise UserError(f"{workdir} holds the results of another run: choose another --workdir or remove it")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {workdir} ({error.strerror}): choose another --workdir") from None
    return workdir


def _train_epoch(task: _Task, graph, optimizer, batch_size: int):
    examples = len(task.dataset.train_labels)
    steps = examples // batch_size

    def batch_loss(params, images, labels):
        logits = nnx.merge(graph, params)(images)
        if task.projection is None:
            return task.objective(logits, labels), {}
        diagnosis = softbin.diagnose(logits, labels, **task.projection)
        return task.objective(logits, labels), {name: getattr(diagnosis, name) for name in _SHARES}

    @jax.jit
    def train_epoch(learner: _Learner, dataset: data.Dataset):
        """One pass over the training set in a new order; a last batch that is not full is left out."""
        key, shuffle_key = jax.random.split(learner.key)
        order = jax.random.permutation(shuffle_key, examples)[: steps * batch_size]

        def train_step(carry, batch):
            params, opt_state = carry
            images, labels = dataset.train_images[batch], dataset.train_labels[batch]
            (loss, shares), gradient = jax.value_and_grad(batch_loss, has_aux=True)(params, images, labels)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), {"loss": loss, **shares}

        carry = (learner.params, learner.opt_state)
        carry, metrics = jax.lax.scan(train_step, carry, order.reshape(steps, batch_size))
        return _Learner(*carry, key), jax.tree.map(jnp.mean, metrics)

    return train_epoch


def _evaluate(task: _Task, graph):
    @jax.jit
    def evaluate(params, dataset: data.Dataset):
        """Test accuracy by argmax, and with the thresholds of the whole training set."""
        model = nnx.merge(graph, params)
        logits = model(dataset.test_images)
        metrics = {"test_accuracy": 1 - softbin.zero_one_loss(logits, dataset.test_labels)}
        if task.projection is not None:
            train_logits = model(dataset.train_images)
            thresholds = softbin.decision_thresholds(train_logits, dataset.train_labels, **task.projection)
            error = softbin.zero_one_loss(
                logits, dataset.test_labels, thresholds=thresholds, temperature=task.projection["temperature"]
            )
            metrics["test_accuracy_thresholded"] = 1 - error
        return metrics

    return evaluate


def _max_and_last(history: Sequence[Mapping[str, float]], name: str) -> dict[str, float | None]:
    values = [record[name] for record in history if name in record]
    return {f"max_{name}": max(values, default=None), f"last_{name}": values[-1] if values else None}


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _parse(arguments: list[str]) -> list[str]:
    """Absl's parser, with ml_collections' errors about the config made ours."""
    try:
        return app.parse_flags_with_usage(arguments)
    except AttributeError as error:
        raise UserError(f"the config has no field {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    cause = error.args[0]
    return _one_line(cause) if isinstance(cause, BaseException) else " ".join(str(cause).split())


def _run(arguments: Sequence[str], config, workdir) -> None:
    logging.getLogger("jax").setLevel(logging.WARNING)
    if len(arguments) > 1:
        raise UserError(f"unexpected arguments {' '.join(arguments[1:])}: settings are given as --config.field=value")
    try:
        settings = config.value.copy_and_resolve_references()
    except OSError as error:
        raise UserError(f"cannot read the config: {_one_line(error)}") from None
    summary = train(settings, workdir.value)
    decisions = summary["last_test_accuracy_thresholded"]
    print(
        f"{summary['dataset']}, {summary['loss']}: test accuracy {summary['last_test_accuracy']:.4f}"
        + (f", with thresholds {decisions:.4f}" if decisions is not None else "")
        + f"; results in {workdir.value}"
    )


def main() -> None:
    """The command."""
    config = config_flags.DEFINE_config_file("config", help_string="A file with get_config(), as configs/digits.py.")
    workdir = flags.DEFINE_string("workdir", None, "Where the results go.")
    flags.mark_flags_as_required(["config", "workdir"])
    command = partial(app.run, lambda arguments: _run(arguments, config, workdir), flags_parser=_parse)
    exit_on_user_error(command)
