"""The published experiments on Fashion-MNIST, and what they do not compare with: a sweep, for an accelerator.

Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
<https://arxiv.org/abs/2602.23336>`_, 2026.
"""

import ml_collections

from softbin.experiments.configs import digits

BATCH_SIZES = tuple(2**power for power in range(7, 14))
SEEDS = (0, 42, 1337, 2025, 31415)


def get_config() -> ml_collections.ConfigDict:
    """140 runs of the paper, and 245 variations of them."""
    config = ml_collections.ConfigDict()
    config.run = _run()
    config.grid = ml_collections.ConfigDict()

    config.grid.paper = ml_collections.ConfigDict()
    config.grid.paper.variants = (
        {"loss": "hypersimplex", "budget": "0.5", "temperature": 1.5},
        {"loss": "cross_entropy"},
        {"loss": "hinge"},
        {"loss": "mse"},
    )
    config.grid.paper.batch_size = BATCH_SIZES
    config.grid.paper.seed = SEEDS

    config.grid.variations = ml_collections.ConfigDict()
    config.grid.variations.variants = (
        {"loss": "scaled_mse", "temperature": 1.5},
        {"loss": "scaled_mse", "temperature": 5.0},
        {"loss": "centred_scaled_mse", "temperature": 1.5},
        {"loss": "centred_scaled_mse", "temperature": 5.0},
        {"loss": "hypersimplex", "budget": "0.5", "temperature": 5.0},
        {"loss": "hypersimplex", "budget": "label_count", "temperature": 1.5},
        {"loss": "fenchel_young", "budget": "label_count", "temperature": 5.0},
    )
    config.grid.variations.batch_size = BATCH_SIZES
    config.grid.variations.seed = SEEDS
    return config


def _run() -> ml_collections.ConfigDict:
    config = digits.get_config()
    config.dataset = "fashion_mnist"
    config.data_dir = ""  # or $SOFTBIN_DATA, or where Debian's package dataset-fashion-mnist puts the files
    config.model = "cnn"
    config.hidden = ()
    config.augment = True
    config.batch_size = 8192
    config.epochs = 600
    config.learning_rate = 1e-4
    config.checkpoint_every = 25
    return config
