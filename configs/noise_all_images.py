"""Which loss when 40% of the labels are random, on all images of Fashion-MNIST and at batch 8,192.

28 runs of 100 epochs, four seeds, for two CPU cores; 5,000 of the 60,000 images are for validation. Each loss has its
learning rate of the sweep `noise_development`, which has fewer images.
"""

import ml_collections

from softbin.experiments.configs import noise_development

LOSSES = tuple(
    variant
    for variant in noise_development.LOSSES
    if variant["loss"] not in ("label_smoothing", "symmetric_cross_entropy")
)
SEEDS = tuple(range(4))


def get_config() -> ml_collections.ConfigDict:
    """One block."""
    config = ml_collections.ConfigDict()
    config.run = noise_development.get_config().run
    config.run.update({"train_examples": 0, "batch_size": 8192, "epochs": 100})
    config.grid = ml_collections.ConfigDict()
    config.grid.losses = ml_collections.ConfigDict()
    *trimmed, _ = noise_development.TRIMMED
    variants = (*LOSSES, *trimmed, noise_development.BY_PROJECTION)
    config.grid.losses.variants = tuple(map(noise_development.chosen, variants))
    config.grid.losses.seed = SEEDS
    return config
