"""A sparse autoencoder of Fashion-MNIST with 16 of 4,096 latents for each image, in a minute."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Hard choices forward, soft gradients backward."""
    config = ml_collections.ConfigDict()
    config.task = "autoencoder"  # or experts, features, pruning
    config.method = "straight_through"  # or another of softbin/experiments/sparsity/TASK.py
    config.dataset = "fashion_mnist"  # or digits
    config.data_dir = ""  # the folder of its files, where it needs one; or else $SOFTBIN_DATA
    config.train_examples = 10240  # images to train on, chosen by the seed
    config.validation_examples = 5000  # images, from the end of the training set
    config.k = 16.0  # latents or experts of an image, pixels, or the share of the weights
    config.width = 4096  # latents, experts, or hidden units
    config.temperature = 1.0  # of the soft choice; the last one where it falls
    config.penalty = 0.0  # of gates, norms or loads; the step of the method sign
    config.learning_rate = 1e-3  # of Adam, which falls to 0 as a cosine
    config.epochs = 8  # passes over the training images
    config.batch_size = 128  # images in a step
    config.seed = 0  # of the images, the initial weights and the order of the data
    return config
