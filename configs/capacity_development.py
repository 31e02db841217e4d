"""Which settings each loss trains with where 2% of the cases can be acted on: a sweep for two CPU cores.

72 runs of a linear model and a small MLP: flights that arrive an hour late, from what is known before they depart,
because by the delay at departure every loss finds the top 2% without an error. The question and the seed are others
than those of the sweep `capacity`, which takes the learning rates that are chosen here.
"""

from collections.abc import Sequence
from typing import Any

import ml_collections

from softbin.experiments.configs import large_batch_cpu

MODELS: tuple[tuple[int, ...], ...] = ((), (64, 64))
"""The widths of the linear model and of the MLP."""
LOSSES: tuple[dict[str, Any], ...] = (
    {"loss": "cross_entropy"},
    {"loss": "focal"},
    {"loss": "scaled_mse"},
    {"loss": "top_push"},
)
BUDGETED: tuple[dict[str, Any], ...] = (
    {"loss": "pat_mat"},
    {"loss": "top_mean"},
    *({"loss": "capacity", "temperature": temperature} for temperature in (0.3, 1.5, 5.0)),
)
"""The losses that are told how many cases can be acted on."""
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
TEMPERATURE = 5.0
"""Of `capacity`, as chosen on 26 November 2026 by the mean of both models."""
CHOSEN: dict[tuple[int, ...], dict[str, float]] = {
    (): {
        "cross_entropy": 3e-2,
        "focal": 1e-2,
        "scaled_mse": 3e-2,
        "top_push": 3e-2,
        "pat_mat": 3e-3,
        "top_mean": 1e-1,
        "capacity": 1e-2,
    },
    (64, 64): {
        "cross_entropy": 1e-2,
        "focal": 1e-2,
        "scaled_mse": 3e-2,
        "top_push": 3e-2,
        "pat_mat": 1e-2,
        "top_mean": 3e-3,
        "capacity": 3e-3,
    },
}
"""The learning rates with the best precision at 2% on validation data, as chosen on 26 November 2026 (one seed)."""


def with_shares(shares: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """All losses, those with a budget with each of the shares."""
    return (*LOSSES, *({**loss, "budget": share} for share in shares for loss in BUDGETED))


def chosen(hidden: tuple[int, ...], shares: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """All losses with the temperature and the learning rates that were chosen."""
    return tuple(
        {**loss, "learning_rate": CHOSEN[hidden][loss["loss"]]}
        for loss in with_shares(shares)
        if loss.get("temperature", TEMPERATURE) == TEMPERATURE
    )


def run() -> ml_collections.ConfigDict:
    """What all runs share."""
    config = large_batch_cpu.get_config().run
    config.dataset = "flights_before_departure"
    config.data_dir = ""  # or $SOFTBIN_DATA: for the census
    config.train_examples = 40_960
    config.validation_examples = 32_768
    config.hidden = ()
    config.loss = "cross_entropy"
    config.batch_size = 4_096
    config.epochs = 20
    config.evaluate_every = 2
    return config


def get_config() -> ml_collections.ConfigDict:
    """A block: both models, every loss, every learning rate."""
    config = ml_collections.ConfigDict()
    config.run = run()
    config.grid = ml_collections.ConfigDict()
    config.grid.learning_rate = ml_collections.ConfigDict()
    config.grid.learning_rate.hidden = MODELS
    config.grid.learning_rate.learning_rate = RATES
    config.grid.learning_rate.variants = with_shares(("0.02",))
    config.grid.learning_rate.seed = (10,)
    return config
