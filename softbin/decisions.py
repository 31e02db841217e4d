"""Decisions: the thresholds that make a model's predictions right, and what to watch while it trains."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real, Shaped

from softbin import budgets, meshes
from softbin import thresholds as solver
from softbin.arguments import check_regularizer, check_temperature, prepare
from softbin.batches import (
    Batch,
    Budget,
    batch_budget,
    batch_mean,
    check_batch,
    prepare_batch,
    prepare_targets,
    run_on_batch,
)
from softbin.regularizers import Regularizer, euclidean


class Diagnosis(NamedTuple):
    """How a batch meets the projection; the three shares add up to 1.

    Attributes:
      thresholds: `λ` per class, as :func:`decision_thresholds` of this batch.
      active: share of the entries strictly between 0 and 1, which pass a gradient.
      saturated_right: share of the entries at 0 or 1 that agree with their label.
      saturated_wrong: share of those that do not; `softbin.loss` has no gradient there. If it grows, raise the
        temperature or take `softbin.fenchel_young_loss`.
    """

    thresholds: Float[Array, "..."]
    active: Float[Array, ""]
    saturated_right: Float[Array, ""]
    saturated_wrong: Float[Array, ""]


def decision_thresholds(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."] | None = None,
    *,
    temperature: Real[ArrayLike, "..."],
    budget: Budget = budgets.fraction(0.5),
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Float[Array, "..."]:
    """The threshold of each class over a data set: `λ_c` with `Σ_i ψ(x_ic/τ - λ_c) = k_c`.

    A loss on projected logits leaves a constant per class undetermined; these are the constants that
    :func:`predict` subtracts. Compute them over the training set, or a large part of it, with the keywords of
    the loss that the model was trained with; the default budget is that of :func:`softbin.loss`.

    The entries `ψ(x_i/τ - λ)` sum to `k`, the decisions need not: more or fewer than `k` of them can be above one half,
    the further from `k` the larger the temperature. For exactly `k` positives of a binary problem, on these scores,
    decide by `scores > softbin.cutoff(scores, k)`.

    Args:
      logits: (..., C), or (n,) for a binary problem.
      labels: as for :func:`softbin.loss`; needed by a budget that counts them, otherwise None.
      temperature: that of the loss.
      budget: `k` per class over this data set: a number, an array (C,), or a callable of `softbin.budgets`.
      where, weights, regularizer, axis_name: as for :func:`softbin.loss`.

    Returns:
      `λ` of shape (C,), or () for a binary problem, in units of `logits / temperature`.

    Raises:
      TypeError, ValueError: as :func:`softbin.loss`; and for a budget that needs labels where there are none.

    Example:
      >>> logits = jnp.array([[2.0, 7.0], [1.0, 6.0], [-1.0, 9.0], [-2.0, 8.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> lam = decision_thresholds(logits, labels, budget=budgets.label_count, temperature=1.0)
      >>> print(lam, predict(logits, lam, 1.0), jnp.argmax(logits, -1))
      [-0.5  7. ] [0 0 1 1] [1 1 1 1]
    """
    settings = {"axis_name": axis_name, "regularizer": regularizer}
    return run_on_batch(_thresholds, _of_classes, logits, labels, budget, temperature, where, weights, **settings)


def _of_classes(spec):
    return PartitionSpec(*spec[1:][-1:])


@partial(jax.jit, static_argnames=("axis_name", "regularizer"))
def _thresholds(logits, labels, budget, temperature, where, weights, *, axis_name, regularizer):
    batch = prepare_batch(logits, where, weights, axis_name)
    targets = None if labels is None else prepare_targets(labels, logits, batch)
    return _project(batch, targets, budget, temperature, regularizer)[1].reshape(jnp.shape(logits)[1:][-1:])


def predict(
    logits: Float[ArrayLike, "..."],
    thresholds: Float[ArrayLike, "..."],
    temperature: Real[ArrayLike, "..."],
    *,
    regularizer: Regularizer = euclidean,
) -> Int[Array, "..."]:
    """The decision: `argmax_c logits_c / τ - λ_c`; for a binary problem, whether `ψ(logits / τ - λ) > 1/2`.

    The shape of the thresholds says which: a single number is that of a binary problem, an array has one per class.

    Args:
      logits: (..., C) with C of at least 2, or (n,) or () for a binary problem.
      thresholds: (C,), or () for a binary problem, from :func:`decision_thresholds`.
      temperature: that of the loss and the thresholds.
      regularizer: that of the loss and the thresholds; matters to a binary problem only.

    Returns:
      Class numbers of shape (...), or 0 and 1 of the shape of `logits`. What is true of :func:`decision_thresholds`
      holds here: of a batch with budget `k` not exactly `k` are chosen.

    Raises:
      ValueError: the thresholds do not fit the logits; or there is a single class: pass `logits[..., 0]`.

    Example:
      >>> print(predict(jnp.array([[2.0, 7.0], [-1.0, 9.0]]), jnp.array([0.0, 8.0]), 1.0))
      [0 1]
    """
    check_regularizer(regularizer)
    check_temperature(temperature)
    logits, thresholds = jnp.asarray(logits), jnp.asarray(thresholds)
    binary = thresholds.ndim == 0
    expected = () if logits.ndim < 2 and binary else logits.shape[-1:]
    if thresholds.shape != expected:
        raise ValueError(
            f"thresholds with shape {thresholds.shape} do not fit logits with shape {logits.shape}: expected "
            f"{expected}, one for each class, or a single number with the logits of a binary problem, of one dimension"
        )
    if not binary and logits.shape[-1] == 1:
        raise ValueError(f"logits with shape {logits.shape} have a single class: pass logits[..., 0], of one dimension")
    temperature, thresholds = (jnp.asarray(value, logits.dtype) for value in (temperature, thresholds))
    u = logits / _as_rows(temperature, logits) - _as_rows(thresholds, logits)
    return (regularizer.link(u) > 0.5).astype(jnp.int32) if binary else jnp.argmax(u, -1)


def _as_rows(by_class, logits):
    """In as many dimensions as the logits, which `jax.numpy_rank_promotion` asks for."""
    return by_class.reshape((1,) * (logits.ndim - by_class.ndim) + by_class.shape)


def zero_one_loss(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."],
    *,
    thresholds: Float[ArrayLike, "..."] | None = None,
    temperature: Real[ArrayLike, "..."] | None = None,
    where: Bool[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
) -> Float[Array, ""]:
    """The error rate of the decisions: the share of examples whose predicted class is not a label.

    Args:
      logits, labels, where: as for :func:`softbin.loss`. With soft labels the expected error, with multi-hot labels
        the one-error.
      thresholds: from :func:`decision_thresholds`; None decides by argmax over the logits, or by `logits > 0`.
      temperature, regularizer: as for :func:`predict`, with thresholds only; then the temperature must be given.

    Returns:
      A scalar in [0, 1]; its gradient is zero. NaN where a traced label that counts is out of range.

    Raises:
      TypeError, ValueError: as :func:`softbin.loss`.

    Example:
      >>> print(zero_one_loss(jnp.array([[2.0, 7.0], [-1.0, 9.0]]), jnp.array([0, 1])))
      0.5
    """
    check_batch(logits, labels, where, None)
    if thresholds is not None and temperature is None:
        raise ValueError(
            "thresholds are in units of logits / temperature: pass the temperature that they were made with"
        )
    return meshes.run(
        _zero_one_loss, lambda spec: PartitionSpec(), logits, labels, thresholds, temperature, where,
        regularizer=regularizer,
    )  # fmt: skip


@partial(jax.jit, static_argnames="regularizer")
def _zero_one_loss(logits, labels, thresholds, temperature, where, *, regularizer):
    logits = lax.stop_gradient(logits)
    batch = prepare_batch(logits, where, None)
    targets = prepare_targets(labels, logits, batch)
    if thresholds is not None:
        chosen = predict(logits, thresholds, temperature, regularizer=regularizer)
    elif logits.ndim == 1:
        chosen = logits > 0
    else:
        chosen = jnp.argmax(logits, -1)
    chosen = prepare_targets(chosen, logits, batch)
    wrong = jnp.abs(targets - chosen) if logits.ndim == 1 else chosen * (1 - targets)
    return batch_mean(wrong, batch)


def diagnose(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."],
    *,
    budget: Budget = budgets.fraction(0.5),
    temperature: Real[ArrayLike, "..."] = 1.5,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Diagnosis:
    """What to log beside the loss: thresholds, and how much of the batch passes a gradient.

    Arguments and errors are those of :func:`softbin.loss`; nothing here has a gradient.

    Example:
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> print(diagnose(logits, jnp.array([0, 0, 1, 1]), temperature=0.1).saturated_right)
      1.0
    """
    settings = {"axis_name": axis_name, "regularizer": regularizer}
    return run_on_batch(_diagnose, _of_diagnosis, logits, labels, budget, temperature, where, weights, **settings)


def _of_diagnosis(spec):
    return Diagnosis(_of_classes(spec), PartitionSpec(), PartitionSpec(), PartitionSpec())


@partial(jax.jit, static_argnames=("axis_name", "regularizer"))
def _diagnose(logits, labels, budget, temperature, where, weights, *, axis_name, regularizer):
    logits = lax.stop_gradient(jnp.asarray(logits))
    batch = prepare_batch(logits, where, weights, axis_name)
    targets = prepare_targets(labels, logits, batch)
    p, lam = _project(batch, targets, budget, temperature, regularizer)
    active = (p > 0) & (p < 1)
    right = p == targets

    def share(entries):
        return batch_mean(entries.astype(p.dtype), batch) / batch.classes

    return Diagnosis(
        thresholds=lam.reshape(logits.shape[1:][-1:]),
        active=share(active),
        saturated_right=share(~active & right),
        saturated_wrong=share(~active & ~right),
    )


def _project(batch: Batch, targets, budget, temperature, regularizer):
    """The projected batch and its thresholds, from one search."""
    k = batch_budget(batch, targets, budget)
    problem, _ = prepare(batch.logits, k, temperature, batch.groups, None, batch.weights)
    scores, _, temperature, weights, groups = problem
    found = solver.solve(*problem, regularizer)
    p = regularizer.link(solver.excess(scores, found, temperature))
    return p, groups.gather(solver.centre(scores, found, temperature, weights, groups, regularizer))
