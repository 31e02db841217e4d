"""The published experiments on CIFAR-10, and what they do not compare with: a sweep, for an accelerator.

Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
<https://arxiv.org/abs/2602.23336>`_, 2026.
"""

import ml_collections
from softbin.experiments.configs.paper import fashion_mnist


def get_config() -> ml_collections.ConfigDict:
    """140 runs of the paper, and 245 variations of them."""
    config = fashion_mnist.get_config()
    config.run.dataset = "cifar10"
    config.run.data_dir = ""  # or $SOFTBIN_DATA: the folder of the binary version's files
    return config
