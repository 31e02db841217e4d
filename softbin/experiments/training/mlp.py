"""A multilayer perceptron."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx


def mlp(features: int, hidden: Sequence[int], outputs: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Sequential:
    """Layers of the widths `hidden` with ReLU, of each example as a flat vector; without any it is a linear model."""
    layers: list = [flatten]
    for width in hidden:
        layers += [nnx.Linear(features, width, dtype=dtype, rngs=rngs), nnx.relu]
        features = width
    return nnx.Sequential(*layers, nnx.Linear(features, outputs, dtype=dtype, rngs=rngs))


def flatten(examples: jnp.ndarray) -> jnp.ndarray:
    """A row for each example."""
    return examples.reshape(len(examples), -1)
