"""scikit-learn's digits: 1,437 images of 8 x 8 for training, 360 for testing. Trains in seconds."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The published setting of the HyperSimplex loss (k = n/2, temperature 1.5) on a small MLP."""
    config = ml_collections.ConfigDict()
    config.dataset = "digits"  # or fashion_mnist, cifar10, a table, ...: a wrong name lists them all
    config.data_dir = ""  # the folder of its files, where it needs one; or else $SOFTBIN_DATA
    config.train_examples = 0  # how many to train on; 0 for all of them
    config.validation_examples = 0  # how many, from the end of the training set
    config.label_noise = 0.0  # the share of the training and of the validation labels that is changed
    config.noise_kind = "symmetric"  # to any class; or pair: to a similar one; instance: as a small model confuses them
    config.imbalance = 1.0  # the rarest class over the commonest; 1 leaves the classes as they are
    config.model = "mlp"  # or cnn, the paper's
    config.hidden = (128, 128)  # the widths of the mlp
    config.augment = False  # random crops and flips
    config.mixed_precision = False  # compute in bfloat16
    config.loss = "hypersimplex"  # or fenchel_young, cross_entropy, scaled_mse, ...: a wrong name lists them all
    config.budget = ""  # the loss's own, label_count, prior, or a share: "0.5" is budgets.fraction(0.5), half the batch
    config.temperature = 1.5  # of the losses that have one; the logits are divided by it
    config.trim = 1.0  # the share of the batch that is kept, the examples with the smallest errors; 1 for all
    config.trim_warmup = 0.2  # the share of the steps over which the share that is kept falls from 1 to trim
    config.trim_by = ""  # the error: the loss's own, or cross_entropy, scaled_squares, projection
    config.trim_per_class = False  # keep that share of the examples of every class
    config.tail = 1.0  # the share of the batch that counts, the largest losses; 1 for all
    config.batch_size = 256  # examples in a step
    config.microbatch_size = 0  # examples per forward pass; 0 for the whole batch at once
    config.epochs = 60  # passes over the training set
    config.evaluate_every = 1  # epochs between evaluations
    config.learning_rate = 1e-3  # of Adam, constant
    config.seed = 0  # of the initial weights, the order of the data, and what is chosen by chance
    config.checkpoint_every = 20  # epochs between checkpoints; 0 for the last one only
    return config
