"""Linear models and multilayer perceptrons, trained with losses that wrong targets pull at more or less."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int, Real

import softbin
from softbin.experiments.regression.measures import measures
from softbin.experiments.regression.targets import Split
from softbin.experiments.training.epochs import train_in_epochs
from softbin.experiments.training.mlp import mlp

WARM_UP = 0.2
"""The share of the steps over which the kept share of a batch falls from 1."""
LOSSES: dict[str, Callable] = {
    "squared": lambda errors, delta, share: jnp.mean(errors**2),
    "absolute": lambda errors, delta, share: jnp.mean(jnp.abs(errors)),
    "huber": lambda errors, delta, share: jnp.mean(optax.huber_loss(errors, delta=delta)),
    "trimmed": lambda errors, delta, share: softbin.bottom_k_mean(errors**2, softbin.budgets.fraction(share)),
}
"""`(errors of a batch, delta, kept share) -> loss`."""


@partial(jax.jit, static_argnames=("loss", "hidden", "epochs", "batch_size"))
def train(
    split: Split,
    seed: Int[ArrayLike, ""],
    learning_rate: Real[ArrayLike, ""],
    delta: Real[ArrayLike, ""],
    keep: Real[ArrayLike, ""],
    *,
    loss: str,
    hidden: Sequence[int],
    epochs: int,
    batch_size: int,
) -> dict[str, Float[Array, " epochs"]]:
    """Train by Adam, its rate falling to 0 as a cosine, and measure after each epoch.

    One program, for all seeds, rates, deltas and shares.

    Args:
      split: with targets of a scale near 1.
      seed: of the initial weights and the order of the rows.
      learning_rate: the first.
      delta: from which on `huber` counts an error linearly.
      keep: the share of a batch that `trimmed` counts in the end.
      loss: one of `LOSSES`.
      hidden: the widths of the layers; none for a linear model.
      epochs: passes over the training rows, each in a new order; a last batch that is not full is left out.
      batch_size: rows in a batch.

    Returns:
      The mean `loss` of each epoch, and the measures after it.
    """
    rows, features = split.train.features.shape
    steps = rows // batch_size
    model_key, order_key = jax.random.split(jax.random.key(seed))
    graph, params = nnx.split(mlp(features, hidden, 1, jnp.float32, nnx.Rngs(model_key)))
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * steps))
    share = optax.linear_schedule(1.0, keep, math.ceil(WARM_UP * epochs * steps))

    def predict(params, features):
        return nnx.merge(graph, params)(features)[:, 0]

    def loss_fn(params, batch, step):
        return LOSSES[loss](predict(params, batch.features) - batch.targets, delta, share(step))

    def train_step(learner, chosen):
        params, opt_state, step = learner
        batch = jax.tree.map(lambda values: values[chosen], split.train)
        value, gradient = jax.value_and_grad(loss_fn)(params, batch, step)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state, step + 1), value

    def measure(learner):
        return measures(partial(predict, learner[0]), split)

    initial = (params, optimizer.init(params), 0)
    passes = {"rows": rows, "batch_size": batch_size, "epochs": epochs}
    return train_in_epochs(train_step, initial, measure, **passes, key=order_key)[1]
