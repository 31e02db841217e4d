"""Which loss when labels are wrong, in batches of 256 and of all images: a sweep on Fashion-MNIST for two CPU cores.

300 runs: 40 and 60% symmetric and 40% pair noise, ten losses, two sizes of the batch, five seeds. Everything else is as
in the sweep `noise`, whose batches have 2,048; each loss has the learning rate that the sweep
`noise_batch_sizes_development` chose for the size of the batch.
"""

import ml_collections

from softbin.experiments.configs import noise, noise_batch_sizes_development

RATES: dict[int, tuple[float, ...]] = {
    256: (1e-4, 1e-4, 3e-4, 3e-3, 1e-4, 1e-4, 1e-4, 3e-4, 1e-4),
    10_240: (1e-3, 1e-3, 3e-3, 3e-3, 3e-3, 3e-3, 3e-3, 3e-3, 3e-3),
}
"""Of losses in their order, by the last validation accuracy, as chosen on 27 November 2026.

Of two rates that were equal, the one that most others have. That of the last loss serves for every class too.
"""
KINDS = (("symmetric", 0.4), ("symmetric", 0.6), ("pair", 0.4))
SEEDS = tuple(range(5))


def get_config() -> ml_collections.ConfigDict:
    """A block for each kind and amount of noise and size of the batch."""
    config = ml_collections.ConfigDict()
    config.run = noise_batch_sizes_development.get_config().run
    config.grid = ml_collections.ConfigDict()
    for kind, amount in KINDS:
        for size, rates in RATES.items():
            block = config.grid[f"{kind}_{100 * amount:.0f}_batch_{size}"] = ml_collections.ConfigDict()
            block.noise_kind, block.label_noise, block.batch_size = (kind,), (amount,), (size,)
            losses = noise.losses(noise.RIGHT[kind, amount])
            block.variants = tuple(
                {**loss, "learning_rate": rate} for loss, rate in zip(losses, (*rates, rates[-1]), strict=True)
            )
            block.seed = SEEDS
    return config
