"""Does the gap between small and large batches narrow, and under which loss? A sweep for two CPU cores.

180 runs of 80 epochs on Fashion-MNIST: six losses, batches of 256, 2,048 and all 10,240 images, ten seeds. Each loss
has the learning rate that the sweep `batch_sizes_development` chose for the size of the batch.
"""

import ml_collections

from softbin.experiments.configs import batch_sizes_development

RATES: dict[int, tuple[float, ...]] = {
    256: (1e-4, 3e-4, 3e-4, 3e-4, 1e-4, 3e-4),
    2048: (3e-3, 1e-3, 3e-3, 3e-3, 1e-3, 1e-3),
    10_240: (1e-2, 1e-3, 1e-2, 1e-2, 3e-3, 1e-2),
}
"""Of the losses in their order, by the best last validation accuracy, as chosen on 26 November 2026."""


def get_config() -> ml_collections.ConfigDict:
    """A block for each size of the batch."""
    config = ml_collections.ConfigDict()
    config.run = batch_sizes_development.get_config().run
    config.grid = ml_collections.ConfigDict()
    for size, rates in RATES.items():
        block = config.grid[f"batch_{size}"] = ml_collections.ConfigDict()
        block.batch_size = (size,)
        block.variants = tuple(
            {**loss, "learning_rate": rate} for loss, rate in zip(batch_sizes_development.LOSSES, rates, strict=True)
        )
        block.seed = tuple(range(10))
    return config
