"""A sparse autoencoder: images as sums of `k` of many learned directions."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

import softbin
from softbin.experiments.common.epochs import train_in_epochs
from softbin.experiments.sparsity.images import Numbers, Split

ANNEALED_FROM = 20.0
"""By how many times the temperature of `soft` is higher in the first step; it falls geometrically."""
_BY_IMAGE, _BY_BATCH = -1, None  # the axes
METHODS = {
    "top_k": _BY_IMAGE,
    "batch_top_k": _BY_BATCH,
    "straight_through": _BY_IMAGE,
    "straight_through_batch": _BY_BATCH,
    "soft": _BY_IMAGE,
}
"""By name, the axis along which latents are chosen in training: of each image, or of the whole batch."""


class _Learner(NamedTuple):
    params: dict[str, Array]
    opt_state: Any
    step: Array
    unused: Array  # for how many steps each latent has not been chosen


@partial(jax.jit, static_argnames=("method", "width", "epochs", "batch_size"))
def train(
    split: Split, numbers: Numbers, *, method: str, width: int, epochs: int, batch_size: int
) -> dict[str, Float[Array, "..."]]:
    """Train by Adam to reconstruct the images.

    Latents are the largest of `relu(W (x - b) + c)`. Where a batch chooses, held-out images keep the latents above the
    cutoff of as many training images as a batch has, so that none depends on another.

    Args:
      split: the images.
      numbers: `k` latents of an image, the last temperature, the rate, and the seed.
      method: one of `METHODS`.
      width: how many latents there are.
      epochs: passes over the training images.
      batch_size: images in a batch.

    Returns:
      For each epoch `validation_unexplained`, the mean squared error over that of the mean image, and `dead`, the share
      of the latents that no training image of the epoch had; after the last `test_unexplained`.
    """
    images = split.train.pixels
    rows, pixels = images.shape
    axis, steps = METHODS[method], rows // batch_size
    weight_key, order_key = jax.random.split(jax.random.key(numbers.seed))
    directions = jax.random.normal(weight_key, (width, pixels))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    params = {
        "encoder": directions.T,
        "encoder_bias": jnp.zeros(width),
        "decoder": directions,
        "decoder_bias": images.mean(0),
    }
    optimizer = optax.adam(numbers.learning_rate)

    def encode(params, images):
        return jax.nn.relu((images - params["decoder_bias"]) @ params["encoder"] + params["encoder_bias"])

    def decode(params, latents):
        return latents @ params["decoder"] + params["decoder_bias"]

    def count(images):
        return numbers.k if axis == _BY_IMAGE else numbers.k * len(images)

    def choose(latents, step):
        if method in ("top_k", "batch_top_k"):
            return softbin.binary_argmax(latents, count(latents), axis=axis)
        annealed = ANNEALED_FROM ** (1 - step / (epochs * steps)) if method == "soft" else 1.0
        return softbin.soft_binary_argmax(
            latents, count(latents), numbers.temperature * annealed, axis=axis, straight_through=method != "soft"
        )

    def loss_fn(params, batch, step):
        latents = encode(params, batch)
        chosen = choose(latents, step)
        return jnp.mean((decode(params, latents * chosen) - batch) ** 2), jnp.any((latents * chosen) > 0, 0)

    def train_step(learner: _Learner, rows):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (value, used), gradient = grad_fn(learner.params, images[rows], learner.step)
        updates, opt_state = optimizer.update(gradient, learner.opt_state)
        params = optax.apply_updates(learner.params, updates)
        return _Learner(params, opt_state, learner.step + 1, jnp.where(used, 0, learner.unused + 1)), value

    def unexplained(learner: _Learner, part):
        params = learner.params
        latents = encode(params, part.pixels)
        if axis == _BY_IMAGE:
            kept = latents * softbin.binary_argmax(latents, count(latents))
        else:
            reference = encode(params, images[:batch_size])
            kept = jnp.where(latents > softbin.cutoff(reference, count(reference), axis=None), latents, 0)
        return jnp.mean((decode(params, kept) - part.pixels) ** 2) / jnp.mean((part.pixels - images.mean(0)) ** 2)

    def measure(learner: _Learner):
        dead = jnp.mean(learner.unused >= steps)
        return {"validation_unexplained": unexplained(learner, split.validation), "dead": dead}

    learner = _Learner(params, optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros(width, jnp.int32))
    passes = {"rows": rows, "batch_size": batch_size, "epochs": epochs}
    learner, history = train_in_epochs(train_step, learner, measure, **passes, key=order_key)
    return history | {"test_unexplained": unexplained(learner, split.test)}
