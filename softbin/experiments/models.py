"""Classifiers, as Flax modules from flat images to logits."""

from collections.abc import Sequence

from flax import nnx


def mlp(features: int, hidden: Sequence[int], classes: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """A multilayer perceptron with ReLU."""
    layers: list = []
    for width in hidden:
        layers += [nnx.Linear(features, width, rngs=rngs), nnx.relu]
        features = width
    return nnx.Sequential(*layers, nnx.Linear(features, classes, rngs=rngs))
