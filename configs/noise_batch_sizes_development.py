"""Which learning rate each loss trains with under label noise at each size of the batch: 72 runs for two CPU cores.

Fashion-MNIST with 40% symmetric noise, in batches of 256 and of all 10,240 images. The sweep `noise_batch_sizes` has
other seeds, and takes what is chosen here; batches of 2,048 have theirs in `noise_development`.
"""

import ml_collections

from softbin.experiments.configs import batch_sizes_development, noise, noise_development

SIZES = (256, 10_240)
*LOSSES, _ = noise.losses(noise_development.KEPT)


def get_config() -> ml_collections.ConfigDict:
    """A block for each size of the batch."""
    config = ml_collections.ConfigDict()
    config.run = noise_development.get_config().run
    config.grid = ml_collections.ConfigDict()
    for size in SIZES:
        block = config.grid[f"batch_{size}"] = ml_collections.ConfigDict()
        block.batch_size = (size,)
        block.variants = tuple(
            {**loss, "learning_rate": rate} for loss in LOSSES for rate in batch_sizes_development.RATES[size]
        )
        block.seed = (10,)
    return config
