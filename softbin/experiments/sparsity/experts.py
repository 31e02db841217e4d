"""A mixture of experts that classifies, its images on shards that differ: who balances the load of the experts?"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

import softbin
from softbin.experiments.datasets.images import Images, Split
from softbin.experiments.sparsity.numbers import Numbers
from softbin.experiments.training.epochs import train_in_epochs
from softbin.routing import gates, quantile_bias

SHARDS = 8
BINS = 1000
HIDDEN = 16
"""The units of an expert."""
CLASSES = 10
MIXED = 3.0
"""By how many classes the images are out of the order of their labels; the shards are the eighths of that order."""
_AXIS = "shards"


def _stays(logits, bias, numbers: Numbers):
    return bias


def _by_sign(logits, bias, numbers: Numbers):
    """A constant step towards balance, `penalty`."""
    load = lax.pmean(jnp.mean(softbin.binary_argmax(logits + bias, numbers.k), 0), _AXIS)
    return bias + numbers.penalty * jnp.sign(jnp.mean(load) - load)


def _local(logits, bias, numbers: Numbers):
    return lax.pmean(quantile_bias(logits, bias, numbers.k), _AXIS)


def _exact(logits, bias, numbers: Numbers):
    return quantile_bias(logits, bias, numbers.k, axis_name=_AXIS)


def _from_bins(logits, bias, numbers: Numbers):
    """The quantiles of all shards from histograms between the least and the largest margin of an expert."""
    margins = logits - softbin.cutoff(logits + bias, numbers.k)[:, None]
    low, high = lax.pmin(jnp.min(margins, 0), _AXIS), lax.pmax(jnp.max(margins, 0), _AXIS)
    places = jnp.clip(((margins - low) / (high - low) * BINS).astype(jnp.int32), 0, BINS - 1)
    experts = jnp.arange(logits.shape[1])
    counts = lax.psum(jnp.zeros((logits.shape[1], BINS)).at[experts, places].add(1.0), _AXIS)
    below = jnp.cumsum(counts, 1) / jnp.sum(counts, 1, keepdims=True)
    quantile = jnp.argmax(below >= 1 - numbers.k / len(experts), 1)
    moved = -(low + (quantile + 0.5) / BINS * (high - low))
    return moved - jnp.mean(moved)


METHODS: dict[str, Callable] = {
    "unbalanced": _stays,
    "auxiliary_loss": _stays,
    "sign": _by_sign,
    "local_quantiles": _local,
    "bins": _from_bins,
    "exact_quantiles": _exact,
}
"""`(logits of a shard, bias, numbers) -> bias` for the next batch, after a step."""


class _Learner(NamedTuple):
    params: dict[str, Array]
    opt_state: Any
    bias: Array
    load: Array  # of the experts, in the epoch
    largest: Array  # load of an expert in a batch, added up over the epoch
    step: Array


@partial(jax.jit, static_argnames=("method", "width", "epochs", "batch_size"))
def train(
    split: Split, numbers: Numbers, *, method: str, width: int, epochs: int, batch_size: int
) -> dict[str, Float[Array, "..."]]:
    """Train by Adam with cross-entropy, its rate falling to 0 as a cosine.

    An image goes to `k` of `width` experts, each of one hidden layer, whose logits are added by their gates. A mapped
    axis stands for the devices: each shard has images of other classes, and knows those of the others only by
    collectives.

    Args:
      split: the images.
      numbers: `k`, the first rate, the seed, and the penalty: the weight of the auxiliary loss, in which the load is
        that of all shards, or the step of `sign`.
      method: one of `METHODS`.
      width: how many experts there are.
      epochs: passes over the training images.
      batch_size: images of all shards together.

    Returns:
      For each epoch `validation_accuracy`, the load of the busiest and of the idlest expert over the images of the
      epoch, `load_max` and `load_min`, and that of the busiest in a batch in the mean over the batches,
      `batch_load_max`; a load of 1 is balance. After the last epoch `test_accuracy`.
    """
    model_key, shard_key, order_key = jax.random.split(jax.random.key(numbers.seed), 3)
    images = _sharded(split.train, shard_key)
    rows, steps = images.labels.shape[1], images.labels.shape[1] // (batch_size // SHARDS)
    optimizer = optax.adam(optax.cosine_decay_schedule(numbers.learning_rate, epochs * steps))
    params = _initial(model_key, images.pixels.shape[-1], width)

    def shard_loss(params, bias, batch: Images):
        logits = batch.pixels @ params["router"]
        shares = gates(logits, bias, numbers.k, where=None)
        outputs = _mixed(params, batch.pixels, shares)
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, batch.labels))
        load = jnp.mean(shares > 0, 0) * width / numbers.k
        if method == "auxiliary_loss":
            value += numbers.penalty * jnp.sum(lax.pmean(load, _AXIS) * jnp.mean(jax.nn.softmax(logits), 0))
        return value, load, METHODS[method](lax.stop_gradient(logits), bias, numbers)

    def loss_fn(params, bias, batch: Images):
        value, load, bias = jax.vmap(shard_loss, (None, None, 0), (0, 0, None), axis_name=_AXIS)(params, bias, batch)
        return jnp.mean(value), (jnp.mean(load, 0), bias)

    def train_step(learner: _Learner, chosen):
        batch = jax.tree.map(lambda values: values[:, chosen], images)
        (value, (load, bias)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(learner.params, learner.bias, batch)
        updates, opt_state = optimizer.update(gradient, learner.opt_state)
        begins = learner.step % steps == 0
        return _Learner(
            optax.apply_updates(learner.params, updates),
            opt_state,
            bias,
            jnp.where(begins, 0, learner.load) + load / steps,
            jnp.where(begins, 0, learner.largest) + jnp.max(load) / steps,
            learner.step + 1,
        ), value

    def accuracy(learner: _Learner, part: Images):
        shares = gates(part.pixels @ learner.params["router"], learner.bias, numbers.k, where=None)
        return jnp.mean(jnp.argmax(_mixed(learner.params, part.pixels, shares), 1) == part.labels)

    def measure(learner: _Learner):
        return {
            "validation_accuracy": accuracy(learner, split.validation),
            "load_max": jnp.max(learner.load),
            "load_min": jnp.min(learner.load),
            "batch_load_max": learner.largest,
        }

    nothing = jnp.zeros(width)
    learner = _Learner(params, optimizer.init(params), nothing, nothing, jnp.zeros(()), jnp.zeros((), jnp.int32))
    passes = {"rows": rows, "batch_size": batch_size // SHARDS, "epochs": epochs}
    learner, history = train_in_epochs(train_step, learner, measure, **passes, key=order_key)
    return history | {"test_accuracy": accuracy(learner, split.test)}


def _sharded(images: Images, key) -> Images:
    """With the shards as a leading axis; images that are left over are left out."""
    place = images.labels + MIXED * jax.random.normal(key, images.labels.shape)
    order = jnp.argsort(place)[: len(place) // SHARDS * SHARDS].reshape(SHARDS, -1)
    return jax.tree.map(lambda values: values[order], images)


def _initial(key, pixels: int, experts: int) -> dict[str, Array]:
    router, first, second = jax.random.split(key, 3)
    return {
        "router": jax.random.normal(router, (pixels, experts)) / pixels**0.5,
        "first": jax.random.normal(first, (experts, pixels, HIDDEN)) * (2 / pixels) ** 0.5,
        "first_bias": jnp.zeros((experts, HIDDEN)),
        "second": jax.random.normal(second, (experts, HIDDEN, CLASSES)) / HIDDEN**0.5,
        "second_bias": jnp.zeros((experts, CLASSES)),
    }


def _mixed(params, pixels, shares):
    """The logits of the experts, added by their gates; every expert computes, as none is on another device."""
    hidden = jax.nn.relu(jnp.einsum("np,eph->enh", pixels, params["first"]) + params["first_bias"][:, None])
    logits = jnp.einsum("enh,ehc->enc", hidden, params["second"]) + params["second_bias"][:, None]
    return jnp.einsum("ne,enc->nc", shares, logits)
