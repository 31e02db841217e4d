"""What a run is about: its data, its loss and its decisions, from a config that has been checked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections

from softbin.experiments.datasets import data, readers
from softbin.experiments.runs import settings
from softbin.experiments.runs.errors import UserError
from softbin.experiments.training import models, noise, objectives, selection


class Task(NamedTuple):
    """The data and the loss of a run."""

    dataset: data.Dataset
    classes: int
    loss: selection.Counted
    projection: dict[str, Any] | None  # the keywords of softbin's functions; None for a loss without a projection
    thresholds: Callable[..., jax.Array] | None  # of logits, labels, which of them count, and the step of training
    temperature: float  # of the decisions; 1 for a loss without one


def prepare(config: ml_collections.ConfigDict) -> Task:
    """Load the data and choose the loss.

    Raises:
      UserError: the config does not fit the data or the devices, or files are missing or damaged.
    """
    _check(config)
    dataset = data.load(config.dataset, config.data_dir, config.train_examples, config.validation_examples)
    if config.imbalance < 1:
        dataset = data.with_imbalance(dataset, config.imbalance, config.seed)
    classes = data.class_count(dataset)
    if config.label_noise:
        dataset = noise.with_label_noise(dataset, config.dataset, config.noise_kind, config.label_noise, config.seed)
    if config.model == "cnn":
        dataset = data.standardised(dataset)
    examples, devices = len(dataset.train_labels), jax.device_count()
    if not 1 <= config.batch_size <= examples:
        raise UserError(f"batch_size {config.batch_size} is outside [1, {examples}], the size of the training set")
    if config.batch_size % devices:
        raise UserError(f"batch_size {config.batch_size} does not divide over {devices} devices: choose a multiple")
    return _with_loss(config, dataset, classes)


def _with_loss(config: ml_collections.ConfigDict, dataset: data.Dataset, classes: int) -> Task:
    labels, temperature = dataset.train_labels, config.temperature
    name = budget_name(config)
    objectives.check_two_classes(config.loss, name, classes)
    budget = name and objectives.budget(name, labels, classes)
    weights = objectives.class_weights(labels, classes)
    objective = objectives.objective(config.loss, objectives.Setting(budget, temperature, weights))
    decides = config.budget or config.loss in objectives.DEFAULT_BUDGETS  # not by the budget that is to trim alone
    thresholds = objectives.thresholds(config.loss, budget if decides else None, temperature)
    _check_selection(config, objective)
    trim = None
    if config.trim < 1:
        steps = config.epochs * (len(labels) // config.batch_size)
        trim = selection.Trim(
            selection.share(config.trim, config.trim_warmup, steps),
            selection.ranking(config.trim_by, config.loss, objective, budget, temperature),
            not selection.ranked_by(config.trim_by, config.loss),
            classes if config.trim_per_class else None,
        )
    return Task(
        dataset,
        classes,
        _counted(objective, trim, config.tail),
        {"budget": budget, "temperature": temperature} if config.loss in objectives.DEFAULT_BUDGETS else None,
        None if thresholds is None else _of_kept(thresholds, trim),
        temperature if config.loss in objectives.TEMPERED else 1.0,
    )


def _counted(objective: objectives.Objective, trim: selection.Trim | None, tail: float) -> selection.Counted:
    if trim is not None:
        return selection.trimmed(objective, trim)
    return selection.whole(objective) if tail == 1 else selection.tail(objective, tail)


def _of_kept(thresholds: objectives.Thresholds, trim: selection.Trim | None):
    """The thresholds of the examples that the loss would keep."""

    def of_kept(logits, labels, where, step):
        kept = where if trim is None else trim.kept(logits, labels, step, where) > 0
        return thresholds(logits, labels, kept)

    return of_kept


def budget_name(config: ml_collections.ConfigDict) -> str | None:
    """The budget of the config, or else the loss's own; None where neither the loss nor its trimming has one."""
    own = (objectives.DEFAULT_BUDGETS | objectives.CHOOSING).get(config.loss)
    if config.trim < 1 and config.trim_by == "projection":
        own = own or objectives.DEFAULT_BUDGETS["hypersimplex"]
    if config.loss in objectives.DECIDED:
        own = own or config.budget or None
    return own and (config.budget or own)


def _check(config: ml_collections.ConfigDict) -> None:
    objectives.check(config.loss, config.temperature)
    if not 0 <= config.label_noise <= 1:
        raise UserError(f"label_noise must be in [0, 1], got {config.label_noise}")
    if config.noise_kind not in noise.KINDS:
        raise UserError(f"unknown noise_kind {config.noise_kind!r}: choose one of {', '.join(noise.KINDS)}")
    if not 0 < config.imbalance <= 1:
        raise UserError(f"imbalance must be in (0, 1], 1 for none, got {config.imbalance}")
    if config.model not in models.MODELS:
        raise UserError(f"unknown model {config.model!r}: choose one of {', '.join(models.MODELS)}")
    settings.check_hidden(config.hidden)
    if config.dataset in readers.TABLES and (config.model == "cnn" or config.augment):
        raise UserError(f"{config.dataset} is a table and has no images: set model to mlp, and augment to False")
    if config.microbatch_size and config.model == "cnn":
        raise UserError(
            "microbatch_size does not go with the cnn: its batch normalisation would see a microbatch instead of the "
            "batch, which is another model; set it to 0"
        )


def _check_selection(config: ml_collections.ConfigDict, objective: objectives.Objective) -> None:
    for field in ("trim", "tail"):
        if not 0 < config[field] <= 1:
            raise UserError(f"{field} must be in (0, 1], a share of the batch, got {config[field]}: 1 takes all of it")
    if not 0 <= config.trim_warmup <= 1:
        raise UserError(f"trim_warmup must be in [0, 1], a share of the steps, got {config.trim_warmup}")
    if config.trim_by and config.trim_by not in selection.RANKINGS:
        choices = ", ".join(selection.RANKINGS)
        raise UserError(f'unknown trim_by {config.trim_by!r}: choose one of {choices}, or "" for the loss\'s own terms')
    if config.trim < 1 and config.tail < 1:
        raise UserError(f"trim {config.trim} and tail {config.tail} exclude each other: set one of them to 1")
    if objective.terms is not None:
        return
    if config.tail < 1 or (config.trim < 1 and config.loss not in objectives.DEFAULT_BUDGETS):
        field = "tail" if config.tail < 1 else "trim"
        raise UserError(
            f"{field} chooses examples by their terms, and {config.loss} is no mean of terms: set {field} to 1, or "
            "choose another loss, such as scaled_mse"
        )
