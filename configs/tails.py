"""Which loss where the hardest examples shall count more: a sweep for two CPU cores.

280 runs: Fashion-MNIST as it is and with an imbalance of 50:1, and the tables letter and satimage, seven losses, ten
seeds. Each loss has its learning rate of the sweep `tails_development`. The tables come with a package:
`pip install -e ".[train,tables]"`.
"""

from typing import Any

import ml_collections

from softbin.experiments.configs import tails_development

DATA: dict[str, dict[str, Any]] = {
    "as_it_is": {},
    "imbalance": {"imbalance": 0.02, "train_examples": 37_000},  # of which the imbalance leaves about 10,240
    "letter": {"dataset": "letter"},
    "satimage": {"dataset": "satimage", "train_examples": 0, "validation_examples": 1_000, "batch_size": 512},
}


def get_config() -> ml_collections.ConfigDict:
    """A block for each data set."""
    config = ml_collections.ConfigDict()
    config.run = tails_development.get_config().run
    config.grid = ml_collections.ConfigDict()
    for name, data in DATA.items():
        block = config.grid[name] = ml_collections.ConfigDict()
        for field, value in data.items():
            block[field] = (value,)
        block.variants = tuple(map(tails_development.chosen, tails_development.LOSSES))
        block.seed = tuple(range(10))
    return config
