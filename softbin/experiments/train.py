"""`softbin-train`: one training run of a small classifier, from a config to a folder of results."""

import json
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
from absl import app, flags, logging
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import config_flags
from tensorboardX import SummaryWriter
from tqdm import tqdm

import softbin
from softbin import large_batch
from softbin.experiments import data, models, objectives
from softbin.experiments import workdir as folder
from softbin.experiments.checkpoints import Checkpoints
from softbin.experiments.curves import save_curves
from softbin.experiments.errors import UserError, exit_on_user_error

_SHARES = ("active", "saturated_right", "saturated_wrong")
_SHOWN = ("loss", "test_accuracy", "test_accuracy_thresholded", "active")


class _Task(NamedTuple):
    """What a run is about, checked."""

    dataset: data.Dataset
    objective: objectives.Objective
    projection: dict[str, Any] | None  # the keywords of softbin's functions; None for a loss without a projection


class _Learner(NamedTuple):
    """What training changes: all of it goes into a checkpoint."""

    params: nnx.State
    opt_state: optax.OptState
    key: jax.Array  # the raw key data; it determines the order of the data from here on
    thresholds: jax.Array  # of the training set; zero for a loss without a projection


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Run one training and write `metrics.jsonl`, `summary.json`, `curves.png` and TensorBoard events.

    It is data-parallel over all devices of all processes. A run that was cut off goes on from its last whole
    checkpoint and ends with the same bits; a finished one is not run again.

    Args:
      config: as in `configs/digits.py`.
      workdir: a folder for the results; it must not hold those of another config.

    Returns:
      The summary. Budget and thresholded accuracies are None for a loss without a projection.

    Raises:
      UserError: the config does not fit the data or the devices, files are missing or damaged, or the folder is
        taken. Nothing has been written then.
    """
    task = _task(config)
    workdir = Path(workdir)
    folder.check(workdir, config.to_dict())
    if (workdir / folder.SUMMARY_FILE).exists():
        return json.loads((workdir / folder.SUMMARY_FILE).read_text())
    writes = jax.process_index() == 0
    if writes:
        folder.start(workdir, config.to_dict())

    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    model = models.mlp(task.dataset.train_images.shape[1], config.hidden, data.CLASSES, nnx.Rngs(config.seed))
    graph, params = nnx.split(model)
    optimizer = optax.adam(config.learning_rate)
    key = jax.random.key_data(jax.random.key(config.seed))
    learner = _Learner(params, optimizer.init(params), key, jnp.zeros(data.CLASSES))
    learner, dataset = jax.device_put((learner, task.dataset), everywhere)
    train_epoch = _train_epoch(task, graph, optimizer, config.batch_size, config.microbatch_size, mesh)
    evaluate = _evaluate(task, graph, everywhere)

    checkpoints = Checkpoints(workdir / folder.CHECKPOINTS_FOLDER)
    done, learner = checkpoints.restore(learner)
    history = folder.read_history(workdir, done) if writes else []
    train_seconds = history[-1]["train_seconds"] if history else 0.0
    board = SummaryWriter(str(workdir), purge_step=done + 1) if writes else None
    progress = tqdm(
        range(done, config.epochs),
        desc=config.loss,
        unit="epoch",
        initial=done,
        total=config.epochs,
        disable=None if writes else True,
    )
    for epoch in (previous + 1 for previous in progress):
        start = time.perf_counter()
        learner, trained = jax.block_until_ready(train_epoch(learner, dataset))
        train_seconds += time.perf_counter() - start
        evaluated, thresholds = evaluate(learner.params, dataset)
        learner = learner._replace(thresholds=thresholds)
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

    fields = ("dataset", "loss", "temperature", "batch_size", "seed", "epochs")
    summary = {
        **{field: config[field] for field in fields},
        "budget": _budget_name(config),
        "train_seconds": train_seconds,
        **_max_and_last(history, "test_accuracy"),
        **_max_and_last(history, "test_accuracy_thresholded"),
    }
    if board is not None:
        board.close()
        title = f"{config.dataset}, {config.loss}, batch {config.batch_size}"
        save_curves(history, title, workdir / folder.CURVES_FILE)
        folder.write(workdir / folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


def _task(config) -> _Task:
    dataset = data.load(config.dataset, config.data_dir, config.train_examples)
    examples, devices = len(dataset.train_labels), jax.device_count()
    if not 1 <= config.batch_size <= examples:
        raise UserError(f"batch_size {config.batch_size} is outside [1, {examples}], the size of the training set")
    if config.batch_size % devices:
        raise UserError(f"batch_size {config.batch_size} does not divide over {devices} devices: choose a multiple")
    for field, least in (("epochs", 1), ("microbatch_size", 0), ("checkpoint_every", 0)):
        if config[field] < least:
            raise UserError(f"{field} must be at least {least}, got {config[field]}")
    name = _budget_name(config)
    budget = None if name is None else objectives.budget(name, dataset.train_labels, data.CLASSES)
    objective = objectives.objective(config.loss, budget, config.temperature)
    projection = None if budget is None else {"budget": budget, "temperature": config.temperature}
    return _Task(dataset, objective, projection)


def _budget_name(config) -> str | None:
    """The budget of the config, or else the loss's own; None for a loss without a projection."""
    own = objectives.DEFAULT_BUDGETS.get(config.loss)
    return own and (config.budget or own)


def _train_epoch(task: _Task, graph, optimizer, batch_size: int, microbatch_size: int, mesh):
    examples = len(task.dataset.train_labels)
    steps = examples // batch_size

    def logits_fn(params, images):
        return nnx.merge(graph, params)(images)

    def loss_fn(logits, labels):
        if task.projection is None:
            return task.objective(logits, labels), {}
        diagnosis = softbin.diagnose(logits, labels, **task.projection)
        return task.objective(logits, labels), {name: getattr(diagnosis, name) for name in _SHARES}

    if microbatch_size:
        loss_and_gradient = large_batch.value_and_grad(logits_fn, loss_fn, microbatch_size, has_aux=True)
    else:
        loss_and_gradient = jax.value_and_grad(
            lambda params, images, labels: loss_fn(logits_fn(params, images), labels), has_aux=True
        )

    @partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
    def train_epoch(learner: _Learner, dataset: data.Dataset):
        """One pass over the training set in a new order; a last batch that is not full is left out."""
        key, shuffle_key = jax.random.split(jax.random.wrap_key_data(learner.key))
        order = jax.random.permutation(shuffle_key, examples)[: steps * batch_size]

        def train_step(carry, batch):
            params, opt_state = carry
            batch = jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("batch")))
            images, labels = dataset.train_images[batch], dataset.train_labels[batch]
            (loss, shares), gradient = loss_and_gradient(params, images, labels)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), {"loss": loss, **shares}

        carry = (learner.params, learner.opt_state)
        (params, opt_state), metrics = jax.lax.scan(train_step, carry, order.reshape(steps, batch_size))
        learner = learner._replace(params=params, opt_state=opt_state, key=jax.random.key_data(key))
        return learner, jax.tree.map(jnp.mean, metrics)

    return train_epoch


def _evaluate(task: _Task, graph, sharding):
    @partial(jax.jit, out_shardings=sharding)
    def evaluate(params, dataset: data.Dataset):
        """Test accuracy by argmax and with the thresholds of the whole training set, and these."""
        model = nnx.merge(graph, params)
        logits = model(dataset.test_images)
        metrics = {"test_accuracy": 1 - softbin.zero_one_loss(logits, dataset.test_labels)}
        if task.projection is None:
            return metrics, jnp.zeros(data.CLASSES)
        train_logits = model(dataset.train_images)
        thresholds = softbin.decision_thresholds(train_logits, dataset.train_labels, **task.projection)
        error = softbin.zero_one_loss(
            logits, dataset.test_labels, thresholds=thresholds, temperature=task.projection["temperature"]
        )
        return {**metrics, "test_accuracy_thresholded": 1 - error}, thresholds

    return evaluate


def _max_and_last(history: Sequence[Mapping[str, Any]], name: str) -> dict[str, float | None]:
    values = [record[name] for record in history if name in record]
    return {f"max_{name}": max(values, default=None), f"last_{name}": values[-1] if values else None}


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
    logging.set_verbosity(logging.WARNING)
    if len(arguments) > 1:
        raise UserError(f"unexpected arguments {' '.join(arguments[1:])}: settings are given as --config.field=value")
    try:
        settings = config.value.copy_and_resolve_references()
    except OSError as error:
        raise UserError(f"cannot read the config: {_one_line(error)}") from None
    if flags.FLAGS.coordinator_address:
        _join_processes()
    summary = train(settings, workdir.value)
    if jax.process_index() > 0:
        return
    decisions = summary["last_test_accuracy_thresholded"]
    print(
        f"{summary['dataset']}, {summary['loss']}: test accuracy {summary['last_test_accuracy']:.4f}"
        + (f", with thresholds {decisions:.4f}" if decisions is not None else "")
        + f"; results in {workdir.value}"
    )


def _join_processes() -> None:
    chosen = flags.FLAGS
    if chosen.coordinator_address == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(chosen.coordinator_address, chosen.num_processes, chosen.process_id)


def main() -> None:
    """The command."""
    config = config_flags.DEFINE_config_file("config", help_string="A file with get_config(), as configs/digits.py.")
    workdir = flags.DEFINE_string("workdir", None, "Where the results go.")
    flags.DEFINE_string(
        "coordinator_address", "", "To train with several processes: host:port of the first one, or auto."
    )
    flags.DEFINE_integer("num_processes", None, "How many processes there are; with host:port.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0; with host:port.")
    flags.mark_flags_as_required(["config", "workdir"])
    command = partial(app.run, lambda arguments: _run(arguments, config, workdir), flags_parser=_parse)
    exit_on_user_error(command)
