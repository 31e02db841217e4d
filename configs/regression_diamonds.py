"""The price of diamonds by an MLP, where 30% of the targets are too high, in seconds.

The data come with a package: `pip install -e ".[train,tables]"`.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The trimmed mean of squared errors, of as many examples as have right targets."""
    config = ml_collections.ConfigDict()
    config.estimator = "mlp"  # or linear
    config.dataset = "diamonds"  # or flights
    config.train_examples = 10240  # rows to train on
    config.held_out_examples = 5120  # for validation, and as many for testing
    config.corruption = "shifted"  # or random
    config.corrupted = 0.3  # of the training and the validation targets
    config.loss = "trimmed"  # or squared, absolute, huber; and of the linear estimator huber_regressor, ransac
    config.keep = 0.7  # of a batch, by trimmed
    config.delta = 1.0  # the error from which on huber and huber_regressor are linear and ransac leaves a row out
    config.learning_rate = 3e-2  # of Adam, which falls to 0 as a cosine
    config.hidden = (64, 64)  # of the mlp
    config.epochs = 400  # of one step: the share of right targets is that of the whole, and not of a batch of it
    config.batch_size = 10240  # rows in a step
    config.seed = 0  # of the rows, what is wrong, the initial weights and the order of the data
    return config
