"""Running decision thresholds as pure functions: what the Flax modules keep as state."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from softbin.batches import batch_budget, batch_size, prepare_batch, prepare_targets
from softbin.decisions import decision_thresholds
from softbin.regularizers import Regularizer


class RunningThresholds(NamedTuple):
    """An exponential average of the thresholds of the batches so far, without the bias of its start.

    Attributes:
      thresholds: `λ` per class, or of shape () for a binary problem.
      weight: `1 - momentum^t` per class, after `t` batches that determined its threshold.
    """

    thresholds: Float[Array, "..."]
    weight: Float[Array, "..."]


def initial_thresholds(shape: tuple[int, ...], regularizer: Regularizer) -> RunningThresholds:
    """Before any batch: the thresholds that leave logits as they are."""
    return RunningThresholds(jnp.full(shape, -_half(regularizer), jnp.float32), jnp.zeros(shape, jnp.float32))


def check_momentum(momentum: int | float) -> None:
    """At 1 the average would never move."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")


def update_thresholds(
    running: RunningThresholds, logits, labels, momentum, *, budget, where, weights, axis_name, **keywords
) -> RunningThresholds:
    """Average in the thresholds of one batch; keywords as for `softbin.decision_thresholds`.

    A batch says nothing about a class of which its budget takes none or all (under `label_count`, a class that it
    does not hold): any threshold beyond the logits would do. Such a class keeps what it has.
    """
    logits = lax.stop_gradient(jnp.asarray(logits))
    shape = running.thresholds.shape
    if logits.shape[1:][-1:] != shape:
        raise ValueError(f"logits with shape {logits.shape} do not fit thresholds with shape {shape}")
    batch = prepare_batch(logits, where, weights, axis_name)
    targets = None if labels is None else prepare_targets(labels, logits, batch)
    k = jnp.broadcast_to(batch_budget(batch, targets, budget), shape or (1,)).reshape(shape)
    determined = (k > 0) & (k < batch_size(batch))
    now = decision_thresholds(
        logits, labels, budget=budget, where=where, weights=weights, axis_name=axis_name, **keywords
    )
    return RunningThresholds(*average_in(running.thresholds, running.weight, now, determined, momentum))


def average_in(average, weight, now, determined, momentum) -> tuple[Array, Array]:
    """An exponential average without the bias of its start, and its weight; both stay where nothing is determined."""
    new_weight = momentum * weight + (1 - momentum)
    new = average + (jnp.where(determined, now, average) - average) * ((1 - momentum) / new_weight)
    return jnp.where(determined, new, average), jnp.where(determined, new_weight, weight)


def subtract_thresholds(logits, thresholds, temperature, regularizer: Regularizer) -> Array:
    """`τ (x/τ - λ - ψ⁻¹(1/2))`: logits to decide on as usual, by argmax, or by their sign where classes are binary."""
    logits = jnp.asarray(logits)
    shift = temperature * (thresholds + _half(regularizer))
    return (logits - shift).astype(logits.dtype)


def _half(regularizer: Regularizer):
    half = jnp.full((), 0.5)
    return regularizer.inverse_link(half, half)
