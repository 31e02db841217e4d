"""Flat images in three parts."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from softbin.experiments.datasets import data
from softbin.experiments.runs.errors import UserError


class Images(NamedTuple):
    """Flat images of shape (n, pixels), from 0 to 1, and labels of shape (n,)."""

    pixels: Float[Array, "n pixels"]
    labels: Int[Array, " n"]


class Split(NamedTuple):
    """Three parts of a data set."""

    train: Images
    validation: Images
    test: Images


def load(name: str, data_dir: str, train_examples: int, validation_examples: int, seed: int, *, pooled: bool) -> Split:
    """A data set of :func:`softbin.experiments.datasets.data.load`, of which a seed chooses the training images.

    Args:
      name, data_dir, train_examples, validation_examples: as there.
      seed: of the choice.
      pooled: whether to take the means of 2 x 2 pixels.

    Raises:
      UserError: as there, or there are fewer training images.
    """
    loaded = data.load(name, data_dir, 0, validation_examples)
    available = len(loaded.train_labels)
    if train_examples > available:
        raise UserError(f"train_examples {train_examples} is more than the {available} that {name} has: lower it")
    chosen = np.random.default_rng(seed).permutation(available)[:train_examples]

    def part(images, labels) -> Images:
        n, height, width, channels = images.shape
        if pooled and height > 1:
            images = images.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        return Images(jnp.asarray(images.reshape(n, -1)), jnp.asarray(labels))

    return Split(
        part(loaded.train_images[chosen], loaded.train_labels[chosen]),
        part(loaded.validation_images, loaded.validation_labels),
        part(loaded.test_images, loaded.test_labels),
    )
