"""Cross-entropy swapped for softbin's losses, and for squared errors, each at its best: a sweep for a CPU core.

Five seeds on digits, Fashion-MNIST and letter, in batches of 256, and of 2,048 or all of the digits. Each loss has the
setting that the sweep `swap_development` chose; cross-entropy with thresholds is of the same or of further runs of
cross-entropy, and plain cross-entropy is without smoothed labels.
"""

import ml_collections

from softbin.experiments.configs import swap_development

PLAIN, SMOOTHED, HALF, HALF_5, _, SQUARES, _, CENTRED_5, _, FENCHEL, FENCHEL_5 = swap_development.SETTINGS
CHOSEN = {
    "digits_256": (
        (PLAIN, 3e-2),
        (SMOOTHED, 3e-3),
        (HALF, 3e-4),
        (FENCHEL, 1e-3),
        (CENTRED_5, 1e-2),
    ),
    "digits_1024": (
        (PLAIN, 1.7e-2),
        (SMOOTHED, 3e-2),
        (HALF_5, 3e-3),
        (FENCHEL, 3e-3),
        (CENTRED_5, 3e-3),
    ),
    "fashion_mnist_256": (
        (PLAIN, 3e-4),
        (SMOOTHED, 3e-4),
        (SMOOTHED, 1e-3),
        (HALF, 3e-4),
        (FENCHEL, 3e-4),
        (SQUARES, 3e-4),
    ),
    "fashion_mnist_2048": (
        (PLAIN, 1e-2),
        (SMOOTHED, 3e-3),
        (HALF, 3e-3),
        (FENCHEL, 1e-3),
        (CENTRED_5, 3e-3),
    ),
    "letter_256": (
        (PLAIN, 5.5e-3),
        (SMOOTHED, 1e-2),
        (HALF_5, 3e-3),
        (FENCHEL_5, 3e-3),
        (CENTRED_5, 1e-2),
    ),
    "letter_2048": (
        (PLAIN, 3e-2),
        (SMOOTHED, 3e-2),
        (HALF_5, 3e-2),
        (FENCHEL_5, 3e-2),
        (CENTRED_5, 3e-2),
    ),
}
"""By the best last validation accuracy, as chosen on 30 November 2026; the temperature is 1.5, or in the name."""
SEEDS = (1, 2, 3, 4, 5)


def get_config() -> ml_collections.ConfigDict:
    """A block for each data set and size of the batch."""
    config = ml_collections.ConfigDict()
    config.run = swap_development.run()
    config.grid = ml_collections.ConfigDict()
    for name, fields in swap_development.cells().items():
        variants = tuple({**setting, "learning_rate": rate} for setting, rate in CHOSEN[name])
        config.grid[name] = swap_development.block(fields, variants, SEEDS)
    return config
