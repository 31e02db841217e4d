"""Which loss, at which batch size, under label noise and imbalance: a sweep on Fashion-MNIST for two CPU cores.

264 runs of an MLP on about 10,240 images, each of 80 epochs: 400 steps at batch 2,048 and 3,200 at batch 256.
"""

import ml_collections

from softbin.experiments.configs import digits

VARIANTS = (
    {"loss": "cross_entropy"},
    {"loss": "mse"},
    {"loss": "scaled_mse", "temperature": 0.3},
    {"loss": "scaled_mse", "temperature": 1.5},
    {"loss": "scaled_mse", "temperature": 5.0},
    {"loss": "centred_scaled_mse", "temperature": 5.0},
    {"loss": "hypersimplex", "budget": "0.5", "temperature": 1.5},
    {"loss": "hypersimplex", "budget": "0.5", "temperature": 5.0},
    {"loss": "hypersimplex", "budget": "label_count", "temperature": 0.3},
    {"loss": "hypersimplex", "budget": "label_count", "temperature": 1.5},
    {"loss": "fenchel_young", "budget": "label_count", "temperature": 5.0},
)
SEEDS = (0, 1, 2)


def get_config() -> ml_collections.ConfigDict:
    """A block for batch sizes with and without noise, one for learning rates, and one for imbalance."""
    config = ml_collections.ConfigDict()
    config.run = _run()
    config.grid = ml_collections.ConfigDict()

    config.grid.batch_size_and_noise = ml_collections.ConfigDict()
    config.grid.batch_size_and_noise.variants = VARIANTS
    config.grid.batch_size_and_noise.batch_size = (256, 2048)
    config.grid.batch_size_and_noise.label_noise = (0.0, 0.4)
    config.grid.batch_size_and_noise.seed = SEEDS

    config.grid.imbalance = ml_collections.ConfigDict()
    config.grid.imbalance.variants = VARIANTS
    config.grid.imbalance.imbalance = (0.02,)
    config.grid.imbalance.train_examples = (37_000,)  # of which the imbalance leaves about 10,240
    config.grid.imbalance.seed = SEEDS

    # four rates for each loss, one of them in the first block; validation accuracy selects
    config.grid.learning_rate = ml_collections.ConfigDict()
    config.grid.learning_rate.variants = VARIANTS
    config.grid.learning_rate.learning_rate = (3e-4, 1e-3, 3e-3, 1e-2)
    config.grid.learning_rate.seed = SEEDS
    return config


def _run() -> ml_collections.ConfigDict:
    config = digits.get_config()
    config.dataset = "fashion_mnist"
    config.data_dir = ""  # or $SOFTBIN_DATA, or where Debian's package dataset-fashion-mnist puts the files
    config.train_examples = 10_240
    config.validation_examples = 5_000
    config.batch_size = 2048
    config.epochs = 80
    config.evaluate_every = 10
    config.checkpoint_every = 0
    return config
