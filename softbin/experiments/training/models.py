"""Classifiers, as Flax modules from images of shape (n, height, width, channels) to logits."""

import math
from collections.abc import Sequence
from functools import partial

from flax import nnx

from softbin.experiments.training.mlp import flatten, mlp

MODELS = ("mlp", "cnn")


def build(name: str, image_shape: Sequence[int], hidden: Sequence[int], classes: int, dtype, seed: int) -> nnx.Module:
    """A model by its name in `MODELS`, which computes in `dtype`; `hidden` are the widths of the mlp."""
    rngs = nnx.Rngs(seed)
    if name == "mlp":
        return mlp(math.prod(image_shape), hidden, classes, dtype, rngs)
    return cnn(image_shape, classes, dtype, rngs)


def cnn(image_shape: Sequence[int], classes: int, dtype, rngs: nnx.Rngs) -> nnx.Sequential:
    """The network of the paper's experiments; its momentum and epsilon are PyTorch's, its initial weights Flax's.

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, section 5.
    """
    height, width, channels = image_shape
    layers: list = []
    for index in range(4):
        layers += [
            nnx.Conv(channels, 64, (3, 3), dtype=dtype, rngs=rngs),
            nnx.BatchNorm(64, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs),
            nnx.relu,
        ]
        channels = 64
        if index % 2:
            layers.append(partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2)))
    features = (height // 4) * (width // 4) * channels
    layers += [flatten, nnx.Linear(features, 512, dtype=dtype, rngs=rngs), nnx.relu]
    return nnx.Sequential(*layers, nnx.Linear(512, classes, dtype=dtype, rngs=rngs))
