"""A sparse autoencoder of Fashion-MNIST with 16 of 4,096 latents for each image, in a minute."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Hard choices forward, soft gradients backward."""
    config = ml_collections.ConfigDict()
    config.task = "autoencoder"  # or experts, features, pruning
    config.method = "straight_through"  # or another of softbin/experiments/sparsity/TASK.py
    config.dataset = "fashion_mnist"  # or digits
    config.data_dir = ""
    config.train_examples = 10240
    config.validation_examples = 5000
    config.k = 16.0  # latents or experts of an image, pixels, or the share of the weights
    config.width = 4096  # latents, experts, or hidden units
    config.temperature = 1.0  # of the soft choice; the last one where it falls
    config.penalty = 0.0  # of gates, norms or loads; the step of the method sign
    config.learning_rate = 1e-3
    config.epochs = 8
    config.batch_size = 128
    config.seed = 0
    return config
