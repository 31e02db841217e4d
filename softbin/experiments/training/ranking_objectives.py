"""Losses that rank, for two classes: who stands above a threshold that the scores of the batch set.

A function of the scores, of which examples are positive, of how many are chosen, where it asks, and of the temperature.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

import softbin

Scores = Float[Array, " n"]
Positives = Bool[Array, " n"]
Number = Float[Array, ""]
Ranking = Callable[[Scores, Positives, Any, float], Number]


def capacity(scores: Scores, positives: Positives, k: Number, temperature: float) -> Number:
    """`softbin.loss` with `k` as its budget: at a vertex it is the precision at `k`, but for constants."""
    return softbin.loss(scores, positives, budget=k, temperature=temperature)


def pat_mat(scores: Scores, positives: Positives, k: Number, temperature: float) -> Number:
    """Pat&Mat: `t` is where `max(0, 1 + score - t)`, summed over all examples, is `k`.

    So `t` is the threshold of a projection onto a simplex, a hypersimplex whose upper bound is out of reach: here no
    entry is above one half.

    References:
      Mácha, Adam, Šmídl, `DeepTopPush: Simple and Scalable Method for Accuracy at the Top
      <https://arxiv.org/abs/2006.12293>`_, 2020.
    """
    return _below(2 * k * softbin.threshold(1 + scores, 0.5, 2 * k), scores, positives)


def top_push(scores: Scores, positives: Positives, k: Number | None, temperature: float) -> Number:
    """DeepTopPush: `t` is the largest score of a negative.

    References:
      Mácha, Adam, Šmídl, `DeepTopPush: Simple and Scalable Method for Accuracy at the Top
      <https://arxiv.org/abs/2006.12293>`_, 2020.
    """
    return _below(jnp.max(scores, initial=-jnp.inf, where=~positives), scores, positives)


def top_mean(scores: Scores, positives: Positives, k: Number, temperature: float) -> Number:
    """`t` is the mean of the `k` largest scores.

    References:
      Adam, Mácha, Šmídl, Komárek, `General Framework for Binary Classification on Top Samples
      <https://arxiv.org/abs/2002.10923>`_, 2020.
    """
    return _below(softbin.top_k_mean(scores, k), scores, positives)


def _below(t: Number, scores: Scores, positives: Positives) -> Number:
    """The hinge loss of the positives that are not above `t` by 1, averaged over them; 0 where there are none."""
    return jnp.sum(jax.nn.relu(1 + t - scores), where=positives) / jnp.maximum(1, jnp.sum(positives))


RANKINGS: dict[str, Ranking] = {
    "capacity": capacity,
    "pat_mat": pat_mat,
    "top_push": top_push,
    "top_mean": top_mean,
}
