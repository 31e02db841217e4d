"""A sparse autoencoder: images as sums of `k` of many learned directions."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

import softbin
from softbin.experiments.datasets.images import Split
from softbin.experiments.sparsity.numbers import Numbers
from softbin.experiments.training.epochs import train_in_epochs

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
    """Train by Adam to reconstruct the images, its rate falling to 0 as a cosine.

    Latents are the largest of `relu(W (x - b) + c)`; each has a direction of length 1. Where a batch chooses, held-out
    images keep the latents above the cutoff of as many training images as a batch has, so that none depends on another.
    Nothing revives latents that die.

    Args:
      split: the images.
      numbers: `k` latents of an image, the last temperature, the first rate, and the seed.
      method: one of `METHODS`.
      width: how many latents there are.
      epochs: passes over the training images.
      batch_size: images in a batch.

    Returns:
      For each epoch `validation_unexplained`, the mean squared error over that of the mean image, and `dead`, the share
      of the latents that no training image of the epoch had among its largest; after the last `test_unexplained`, and
      `active`, how many latents a test image has in the mean.
    """
    images = split.train.pixels
    rows, pixels = images.shape
    axis, steps = METHODS[method], rows // batch_size
    weight_key, order_key = jax.random.split(jax.random.key(numbers.seed))
    directions = _unit(jax.random.normal(weight_key, (width, pixels)))
    params = {
        "encoder": directions.T,
        "encoder_bias": jnp.zeros(width),
        "decoder": directions,
        "decoder_bias": images.mean(0),
    }
    optimizer = optax.adam(optax.cosine_decay_schedule(numbers.learning_rate, epochs * steps))

    def encode(params, images):
        return jax.nn.relu((images - params["decoder_bias"]) @ params["encoder"] + params["encoder_bias"])

    def decode(params, latents):
        return latents @ params["decoder"] + params["decoder_bias"]

    def count(images):
        return numbers.k if axis == _BY_IMAGE else numbers.k * len(images)

    def choose(latents, step):
        if method in ("top_k", "batch_top_k"):
            return softbin.binary_argmax(latents, count(latents), axis=axis)
        annealed = ANNEALED_FROM ** (1 - step / max(epochs * steps - 1, 1)) if method == "soft" else 1.0
        return softbin.soft_binary_argmax(
            latents, count(latents), numbers.temperature * annealed, axis=axis, straight_through=method != "soft"
        )

    def loss_fn(params, batch, step):
        latents = encode(params, batch)
        chosen = choose(latents, step)
        largest = chosen if method != "soft" else softbin.binary_argmax(latents, numbers.k)
        return jnp.mean((decode(params, latents * chosen) - batch) ** 2), jnp.any((latents * largest) > 0, 0)

    def train_step(learner: _Learner, rows):
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (value, used), gradient = grad_fn(learner.params, images[rows], learner.step)
        updates, opt_state = optimizer.update(gradient, learner.opt_state)
        params = optax.apply_updates(learner.params, updates)
        params |= {"decoder": _unit(params["decoder"])}
        return _Learner(params, opt_state, learner.step + 1, jnp.where(used, 0, learner.unused + 1)), value

    def keep(params, latents):
        if axis == _BY_IMAGE:
            return latents * softbin.binary_argmax(latents, count(latents))
        reference = encode(params, images[:batch_size])
        return jnp.where(latents > softbin.cutoff(reference, count(reference), axis=None), latents, 0)

    def unexplained(params, part):
        kept = keep(params, encode(params, part.pixels))
        error = jnp.mean((decode(params, kept) - part.pixels) ** 2)
        return error / jnp.mean((part.pixels - images.mean(0)) ** 2), jnp.mean(jnp.sum(kept > 0, 1))

    def measure(learner: _Learner):
        error, _ = unexplained(learner.params, split.validation)
        return {"validation_unexplained": error, "dead": jnp.mean(learner.unused >= steps)}

    learner = _Learner(params, optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros(width, jnp.int32))
    passes = {"rows": rows, "batch_size": batch_size, "epochs": epochs}
    learner, history = train_in_epochs(train_step, learner, measure, **passes, key=order_key)
    error, active = unexplained(learner.params, split.test)
    return history | {"test_unexplained": error, "active": active}


def _unit(directions):
    return directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
