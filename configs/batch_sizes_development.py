"""Which learning rate each loss trains with at each size of the batch: 72 runs on Fashion-MNIST for two CPU cores.

The sweep `batch_sizes` has other seeds, and takes what is chosen here.
"""

from typing import Any

import ml_collections

from softbin.experiments.configs import large_batch_cpu

LOSSES: tuple[dict[str, Any], ...] = (
    {"loss": "cross_entropy"},
    {"loss": "mse"},
    {"loss": "scaled_mse", "temperature": 5.0},
    {"loss": "centred_scaled_mse", "temperature": 5.0},
    {"loss": "hypersimplex", "budget": "0.5", "temperature": 1.5},
    {"loss": "hypersimplex", "budget": "0.5", "temperature": 5.0},
)
RATES = {256: (1e-4, 3e-4, 1e-3, 3e-3), 2048: (3e-4, 1e-3, 3e-3, 1e-2), 10_240: (1e-3, 3e-3, 1e-2, 3e-2)}
"""Those tried at each size of the batch; the largest is a step an epoch."""


def get_config() -> ml_collections.ConfigDict:
    """A block for each size of the batch."""
    config = ml_collections.ConfigDict()
    config.run = large_batch_cpu.get_config().run
    config.grid = ml_collections.ConfigDict()
    for size, rates in RATES.items():
        block = config.grid[f"batch_{size}"] = ml_collections.ConfigDict()
        block.batch_size = (size,)
        block.variants = LOSSES
        block.learning_rate = rates
        block.seed = (10,)
    return config
