"""Running decision thresholds as pure functions: what the Flax modules keep as state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin._engine import meshes
from softbin._engine.arguments import as_computed
from softbin._engine.batches import (
    Budget,
    as_argument,
    batch_budget,
    batch_size,
    prepare_batch,
    run_with_budget,
)
from softbin._engine.checks import check_regularizer, check_size
from softbin._engine.shares import brief
from softbin._records import documented
from softbin.decisions import decision_thresholds
from softbin.regularizers import Regularizer


@documented
class RunningThresholds(NamedTuple):
    """An exponential average of the thresholds of the batches so far, without the bias of its start.

    In float32: a state that was cast is read as it is, and comes back in float32.

    Attributes:
      thresholds: `λ` per class, or of shape () for a binary problem.
      weight: `1 - momentum^t` per class, after `t` batches that determined its threshold.
    """

    thresholds: Float[Array, "..."]
    weight: Float[Array, "..."]


def initial_thresholds(num_classes: int | None, regularizer: Regularizer) -> RunningThresholds:
    """The state before any batch: thresholds that leave logits as they are; None for a binary problem."""
    check_regularizer(regularizer)
    if num_classes is not None:
        check_size("num_classes", num_classes)
    shape = () if num_classes is None else (num_classes,)
    return RunningThresholds(jnp.full(shape, -_half(regularizer), jnp.float32), jnp.zeros(shape, jnp.float32))


def check_momentum(momentum: int | float) -> None:
    """At 1 the average would never move."""
    try:
        valid = 0 <= momentum < 1
    except (TypeError, ValueError):  # neither what is no number, nor one that is not known yet
        raise TypeError(f"momentum must be a concrete number in [0, 1), got {brief(momentum)}") from None
    if not valid:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")


def check_classes(logits: Float[ArrayLike, "*shape"], thresholds: Float[ArrayLike, "..."]) -> None:
    """Refuse a batch of logits of other classes than the thresholds'."""
    if jnp.shape(logits)[1:][-1:] != jnp.shape(thresholds):
        raise ValueError(
            f"logits with shape {jnp.shape(logits)} do not fit thresholds with shape {jnp.shape(thresholds)}"
        )


def update_thresholds(
    running: RunningThresholds,
    logits: Float[ArrayLike, "*shape"],
    labels: Shaped[ArrayLike, "..."] | None,
    momentum: int | float,
    *,
    budget: Budget,
    where: Bool[ArrayLike, "..."] | None,
    weights: Real[ArrayLike, "..."] | None,
    axis_name: Any,
    **keywords: Any,
) -> RunningThresholds:
    """Average in the thresholds of one batch; keywords as for `softbin.decision_thresholds`.

    A batch says nothing about a class of which its budget takes none or all (under `label_count`, a class that it
    does not hold): any threshold beyond the logits would do. Such a class keeps what it has.
    """
    check_classes(logits, running.thresholds)
    shape = jnp.shape(running.thresholds)
    logits = lax.stop_gradient(jnp.asarray(logits))
    now = decision_thresholds(
        logits, labels, budget=budget, where=where, weights=weights, axis_name=axis_name, **keywords
    )
    budget = as_argument(budget, (logits, labels, where, weights))

    def update(
        logits: Float[ArrayLike, "*shape"],
        labels: Shaped[ArrayLike, "..."] | None,
        budget: Any,
        where: Bool[ArrayLike, "..."] | None,
        weights: Real[ArrayLike, "..."] | None,
        running: RunningThresholds,
        now: Float[Array, "..."],
    ) -> RunningThresholds:
        batch = prepare_batch(logits, labels, where, weights, axis_name)
        k = jnp.broadcast_to(batch_budget(batch, budget), shape or (1,)).reshape(shape)
        determined = (k > 0) & (k < batch_size(batch))
        average, weight, now = (jnp.asarray(x).astype(jnp.float32) for x in (*running, now))
        return RunningThresholds(*average_in(average, weight, now, determined, momentum))

    state = jax.tree.map(meshes.spec_of, running)
    arrays = logits, labels, budget, where, weights, running, now
    moved = run_with_budget(update, lambda spec: state, budget, *arrays)
    return meshes.placed_as(moved, running)


def average_in(
    average: Float[Array, "..."],
    weight: Float[Array, "..."],
    now: Float[Array, "..."],
    determined: Bool[Array, "..."],
    momentum: int | float,
) -> tuple[Array, Array]:
    """An exponential average without the bias of its start, and its weight; both stay where nothing is determined."""
    new_weight = momentum * weight + (1 - momentum)
    new = average + (jnp.where(determined, now, average) - average) * ((1 - momentum) / new_weight)
    return jnp.where(determined, new, average), jnp.where(determined, new_weight, weight)


def subtract_thresholds(
    logits: Float[ArrayLike, "*shape"],
    thresholds: Float[ArrayLike, "..."],
    temperature: int | float,
    regularizer: Regularizer,
) -> Array:
    """`τ (x/τ - λ - ψ⁻¹(1/2))`: logits to decide on as usual, by argmax, or by their sign where classes are binary."""
    if jnp.shape(thresholds) not in ((), jnp.shape(logits)[-1:]):
        raise ValueError(
            f"logits with shape {jnp.shape(logits)} do not fit thresholds with shape {jnp.shape(thresholds)}"
        )

    def subtract(logits: Float[Array, "*shape"], thresholds: Float[ArrayLike, "..."]) -> Float[Array, "*shape"]:
        wide = as_computed(logits)
        half = _half(regularizer).astype(wide.dtype)
        return (wide - temperature * (jnp.asarray(thresholds).astype(wide.dtype) + half)).astype(logits.dtype)

    return meshes.run(subtract, lambda spec: spec, jnp.asarray(logits), thresholds)


def _half(regularizer: Regularizer) -> Float[Array, ""]:
    half = jnp.full((), 0.5, jnp.float32)
    return regularizer.inverse_link(half, half)
