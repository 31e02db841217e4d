"""What a run is about: its data, its loss and its decisions, from a config that has been checked."""

import math
from typing import Any, NamedTuple

import jax
import ml_collections

from softbin.experiments.common import settings
from softbin.experiments.common.errors import UserError
from softbin.experiments.training import data, models, objectives

_LEAST = {
    "epochs": 1,
    "evaluate_every": 1,
    "microbatch_size": 0,
    "checkpoint_every": 0,
    "seed": 0,
}
FIELDS = frozenset(_LEAST) | {
    *("dataset", "data_dir", "train_examples", "validation_examples", "label_noise", "imbalance"),
    *("model", "hidden", "augment", "mixed_precision"),
    *("loss", "budget", "temperature", "batch_size", "learning_rate"),
}


class Task(NamedTuple):
    """The data and the loss of a run."""

    dataset: data.Dataset
    objective: objectives.Objective
    projection: dict[str, Any] | None  # the keywords of softbin's functions; None for a loss without a projection
    thresholds: objectives.Thresholds | None
    temperature: float


def prepare(config: ml_collections.ConfigDict) -> Task:
    """Load the data and choose the loss.

    Raises:
      UserError: the config does not fit the data or the devices, or files are missing or damaged.
    """
    _check(config)
    dataset = data.load(config.dataset, config.data_dir, config.train_examples, config.validation_examples)
    if config.imbalance < 1:
        dataset = data.with_imbalance(dataset, config.imbalance, config.seed)
    if config.label_noise:
        dataset = data.with_label_noise(dataset, config.label_noise, config.seed)
    if config.model == "cnn":
        dataset = data.standardised(dataset)
    examples, devices = len(dataset.train_labels), jax.device_count()
    if not 1 <= config.batch_size <= examples:
        raise UserError(f"batch_size {config.batch_size} is outside [1, {examples}], the size of the training set")
    if config.batch_size % devices:
        raise UserError(f"batch_size {config.batch_size} does not divide over {devices} devices: choose a multiple")
    name = budget_name(config)
    budget = None if name is None else objectives.budget(name, dataset.train_labels, data.CLASSES)
    return Task(
        dataset,
        objectives.objective(config.loss, budget, config.temperature),
        None if budget is None else {"budget": budget, "temperature": config.temperature},
        objectives.thresholds(config.loss, budget, config.temperature),
        config.temperature,
    )


def budget_name(config: ml_collections.ConfigDict) -> str | None:
    """The budget of the config, or else the loss's own; None for a loss without a projection."""
    own = objectives.DEFAULT_BUDGETS.get(config.loss)
    return own and (config.budget or own)


def _check(config: ml_collections.ConfigDict) -> None:
    settings.check(config, FIELDS, _LEAST, "digits")
    if not 0 <= config.label_noise <= 1:
        raise UserError(f"label_noise must be in [0, 1], got {config.label_noise}")
    if not 0 < config.imbalance <= 1:
        raise UserError(f"imbalance must be in (0, 1], 1 for none, got {config.imbalance}")
    if not 0 < config.learning_rate < math.inf:
        raise UserError(f"learning_rate must be positive and finite, got {config.learning_rate}")
    if config.model not in models.MODELS:
        raise UserError(f"unknown model {config.model!r}: choose one of {', '.join(models.MODELS)}")
    if not isinstance(config.hidden, tuple | list) or not all(isinstance(w, int) and w > 0 for w in config.hidden):
        raise UserError(f"hidden must be widths of at least 1, such as (128, 128), got {config.hidden}")
    if config.microbatch_size and config.model == "cnn":
        raise UserError(
            "microbatch_size does not go with the cnn: its batch normalisation would see a microbatch instead of the "
            "batch, which is another model; set it to 0"
        )
