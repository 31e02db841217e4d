"""Fashion-MNIST: 60,000 images of 28 x 28 for training, 10,000 for testing; about a second an epoch on two cores."""

import ml_collections

from softbin.experiments.configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published setting of the HyperSimplex loss (k = n/2, temperature 1.5) on an MLP."""
    config = digits.get_config()  # which says what each field means
    config.dataset = "fashion_mnist"
    config.data_dir = ""  # or $SOFTBIN_DATA, or where Debian's package dataset-fashion-mnist puts the files
    config.hidden = (256, 256)
    config.batch_size = 1024
    config.epochs = 30
    config.checkpoint_every = 5
    return config
