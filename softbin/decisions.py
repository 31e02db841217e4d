"""Decisions: the thresholds that make a model's predictions right, and what to watch while it trains."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real, Shaped

from softbin import budgets
from softbin._engine import meshes
from softbin._engine.arguments import as_computed, convert
from softbin._engine.batches import Budget, batch_mean, check_batch, prepare_batch, prepare_targets, run_on_batch
from softbin._engine.checks import check_floating, check_real, check_regularizer, check_temperature
from softbin._engine.projections import prepare_projection, solve, solve_in_rounds
from softbin._engine.search import most_rounds
from softbin._records import documented
from softbin.regularizers import Regularizer, euclidean


@documented
class Diagnosis(NamedTuple):
    """What the projection does to a batch: its thresholds, and how many of its entries learn.

    `active`, `saturated_right` and `saturated_wrong` add up to 1.

    Attributes:
      thresholds: `λ` per class, as :func:`decision_thresholds` finds them for this batch.
      active: share of the entries strictly between 0 and 1, which pass a gradient.
      saturated_right: share of the entries at 0 or 1 that agree with their label.
      saturated_wrong: share of the entries at 0 or 1 that contradict their label; `softbin.loss` has no gradient there.
        If it grows, raise the temperature or take `softbin.fenchel_young_loss`.
      rounds: how often the search for the thresholds went through the scores: 3 or 4 times on most batches.
      converged: whether the search ended by itself, as it does on all scores that we know of, slowly on strange ones.
    """

    thresholds: Float[Array, "..."]
    active: Float[Array, ""]
    saturated_right: Float[Array, ""]
    saturated_wrong: Float[Array, ""]
    rounds: Int[Array, ""]
    converged: Bool[Array, ""]


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
    the loss that the model was trained with.

    For a binary problem the *soft* entries sum to `k`; the decisions do not. :func:`predict` takes the entries above
    1/2, and at a large temperature many small ones are a part of the sum: of 10,000 normal scores, with
    `budgets.fraction(0.02)`, it takes some 125 at temperature 1.5, and about 200 at 0.1. To take exactly `k`, ties
    aside, decide by `scores > softbin.cutoff(scores, k)`.

    Args:
      logits: (..., C), or (n,) for a binary problem.
      labels: as for :func:`softbin.loss`. Only a budget that counts labels needs them.
      temperature: that of the loss.
      budget: `k` per class over this data set: a number of examples, an array (C,) of them, or a callable of
        `softbin.budgets`; where a mask leaves less than a number, all. The default is that of :func:`softbin.loss`;
        that of :func:`softbin.fenchel_young_loss` is `budgets.label_count`.
      where, weights, regularizer, axis_name: as for :func:`softbin.loss`.

    Returns:
      `λ` of shape (C,), or () for a binary problem, in units of `logits / temperature`: decisions by it need the
      same temperature.

    Raises:
      TypeError, ValueError: as for :func:`softbin.loss`; also for a budget that needs labels if there are none.

    Example:
      >>> logits = jnp.array([[2.0, 7.0], [1.0, 6.0], [-1.0, 9.0], [-2.0, 8.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> lam = decision_thresholds(logits, labels, budget=budgets.label_count, temperature=1.0)
      >>> print(lam, predict(logits, lam, 1.0), jnp.argmax(logits, -1))
      [-0.5  7. ] [0 0 1 1] [1 1 1 1]
    """
    settings = {"axis_name": axis_name, "regularizer": regularizer}
    arguments = logits, labels, budget, temperature, where, weights
    return run_on_batch(_thresholds, _of_classes, *arguments, needs_labels=False, **settings)


def _of_classes(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*spec[1:][-1:])


@partial(jax.jit, static_argnames=("axis_name", "regularizer"))
def _thresholds(
    logits: Float[Array, "*examples classes"],
    labels: Shaped[Array, "..."] | None,
    budget: Budget,
    temperature: Real[Array, "..."],
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    axis_name: Any,
    regularizer: Regularizer,
) -> Float[Array, "..."]:
    batch, problem = prepare_projection(logits, labels, budget, temperature, where, weights, axis_name)
    lam = solve(problem, regularizer).centre()
    return batch.groups.gather(lam).reshape(jnp.shape(logits)[1:][-1:])


def predict(
    logits: Float[ArrayLike, "..."],
    thresholds: Float[ArrayLike, "..."],
    temperature: Real[ArrayLike, "..."],
    *,
    multi_label: bool = False,
    regularizer: Regularizer = euclidean,
) -> Int[Array, "..."]:
    """The predicted classes of a model: `argmax_c logits_c / τ - λ_c`; for a binary problem, `ψ(logits / τ - λ) > 1/2`.

    With `multi_label` every class is a binary problem of its own, as for multi-hot labels: an example may have several
    labels, or none.

    The shape of the thresholds says which problem it is. With thresholds (C,) the last axis of the logits is that of
    the classes, even for a single example, so that `jax.vmap` over examples gives what a call on all of them gives.
    With a threshold of shape () every logit is a binary decision, whatever the shape of the logits.

    The number of positive decisions of a binary problem is not its budget, see :func:`decision_thresholds`. To get
    exactly `k`, ties aside, decide by `scores > softbin.cutoff(scores, k)`.

    Args:
      logits: (..., C), or of any shape for a binary problem.
      thresholds: (C,), or () for a binary problem, from :func:`decision_thresholds`.
      temperature: that of the loss and the thresholds; a number, or an array (C,) with thresholds (C,).
      multi_label: decide each class by itself. Needs thresholds (C,).
      regularizer: that of the loss and the thresholds; matters to binary decisions only.

    Returns:
      Class numbers of shape (...), or 0 and 1 of the shape of the logits for binary decisions.

    Raises:
      TypeError: logits are not floating point.
      ValueError: shapes do not fit; there is a single class to choose from (pass `logits[..., 0]` and a threshold of
        shape ()); or a concrete temperature is not positive.

    Example:
      >>> logits, thresholds = jnp.array([[2.0, 7.0], [-1.0, 9.0]]), jnp.array([0.0, 8.0])
      >>> print(predict(logits, thresholds, 1.0), predict(logits[0], thresholds, 1.0))
      [0 1] 0
      >>> print(predict(logits[:, 0], 0.5, 1.0))
      [1 0]
      >>> print(predict(logits, thresholds, 1.0, multi_label=True).tolist())
      [[1, 0], [0, 1]]
    """
    check_floating("logits", logits)
    check_real("thresholds", thresholds)
    check_temperature(temperature)
    check_regularizer(regularizer)
    shape, classes = jnp.shape(logits), jnp.shape(thresholds)
    if len(classes) > 1:
        raise ValueError(
            f"thresholds with shape {classes} must have the shape (C,), or () for a binary problem; "
            "for several sets of thresholds use jax.vmap"
        )
    if multi_label and not classes:
        raise ValueError(
            "multi_label decides each class by a threshold of its own: thresholds must have the shape (C,), got ()"
        )
    if classes and (1,) in (classes, shape[-1:]) and not multi_label:
        raise ValueError(
            f"logits with shape {shape} and thresholds with shape {classes} have a single class: pass logits[..., 0] "
            "and a threshold of shape ()"
        )
    if classes and shape[-1:] != classes:
        raise ValueError(
            f"thresholds with shape {classes} do not fit logits with shape {shape}: expected {shape[-1:] or ()}, one "
            "for each class, or () for a binary problem"
        )
    if jnp.shape(temperature) not in ((), classes):
        raise ValueError(
            f"temperature with shape {jnp.shape(temperature)} does not fit thresholds with shape {classes}: "
            "pass a number, or one for each class"
        )

    def of_decisions(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*(spec[:-1] if classes and not multi_label else spec))

    settings = {"by_class": bool(classes) and not multi_label, "regularizer": regularizer}
    return meshes.run(_predict, of_decisions, logits, thresholds, temperature, **settings)


@partial(jax.jit, static_argnames=("by_class", "regularizer"))
def _predict(
    logits: Float[Array, "*examples classes"],
    thresholds: Float[Array, "..."],
    temperature: Real[Array, "..."],
    *,
    by_class: bool,
    regularizer: Regularizer,
) -> Int[Array, "..."]:
    logits = as_computed(logits)
    temperature, lam = (jnp.broadcast_to(convert(x, logits.dtype), logits.shape) for x in (temperature, thresholds))
    u = logits / temperature - lam
    if by_class:
        return jnp.argmax(u, -1)
    return (regularizer.link(u) > 0.5).astype(jnp.int32)


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
      logits, labels, where: as for :func:`softbin.loss`. Soft labels give the expected error, multi-hot labels the
        one-error.
      thresholds: (C,), or () for a binary problem, from :func:`decision_thresholds`. None decides by argmax over the
        logits, or by `logits > 0`.
      temperature: that of the thresholds; needed only with them.
      regularizer: as for :func:`predict`; used only with thresholds.

    Returns:
      A scalar in [0, 1]; its gradient is zero. NaN where a traced label that counts is out of range.

    Raises:
      TypeError: as for :func:`softbin.loss`; or there are thresholds without their temperature.
      ValueError: as for :func:`softbin.loss`; or the thresholds do not fit the logits.

    Example:
      >>> print(zero_one_loss(jnp.array([[2.0, 7.0], [-1.0, 9.0]]), jnp.array([0, 1])))
      0.5
    """
    check_batch(logits, labels, where, None)
    check_regularizer(regularizer)
    if jnp.ndim(logits) > 1 and jnp.shape(logits)[-1] == 1:
        raise ValueError(
            f"logits with shape {jnp.shape(logits)} have a single class: pass logits[..., 0] and its labels"
        )
    if thresholds is not None:
        if temperature is None:
            raise TypeError(
                "thresholds are in units of logits / temperature, and no temperature was given: "
                "pass the one that decision_thresholds was called with, zero_one_loss(..., temperature=...)"
            )
        check_real("thresholds", thresholds)
        check_temperature(temperature)
        expected = jnp.shape(logits)[1:][-1:]
        if jnp.shape(thresholds) != expected:
            raise ValueError(
                f"thresholds with shape {jnp.shape(thresholds)} do not fit logits with shape {jnp.shape(logits)}: "
                f"expected {expected}, " + ("one for each class" if expected else "as for a binary problem")
            )
    return meshes.run(
        _zero_one_loss, lambda spec: PartitionSpec(), logits, labels, thresholds, temperature, where,
        regularizer=regularizer,
    )  # fmt: skip


@partial(jax.jit, static_argnames="regularizer")
def _zero_one_loss(
    logits: Float[Array, "*examples classes"],
    labels: Shaped[Array, "..."],
    thresholds: Float[Array, "..."] | None,
    temperature: Any,
    where: Bool[Array, "..."] | None,
    *,
    regularizer: Regularizer,
) -> Float[Array, ""]:
    logits = lax.stop_gradient(logits)
    batch = prepare_batch(logits, labels, where, None)
    if thresholds is not None:
        chosen = predict(logits, thresholds, temperature, regularizer=regularizer)
    elif logits.ndim == 1:
        chosen = logits > 0
    else:
        chosen = jnp.argmax(logits, -1)
    chosen = prepare_targets(chosen, logits, batch)
    wrong = jnp.abs(batch.targets - chosen) if logits.ndim == 1 else chosen * (1 - batch.targets)
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

    Args and raises: as for :func:`softbin.loss`.

    Returns:
      A :class:`Diagnosis`, without a gradient.

    Example:
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> print(diagnose(logits, jnp.array([0, 0, 1, 1]), temperature=0.1).saturated_right)
      1.0
    """
    settings = {"axis_name": axis_name, "regularizer": regularizer}
    return run_on_batch(_diagnose, _of_diagnosis, logits, labels, budget, temperature, where, weights, **settings)


def _of_diagnosis(spec: PartitionSpec) -> Diagnosis:
    return Diagnosis._make([_of_classes(spec), *[PartitionSpec()] * 5])


@partial(jax.jit, static_argnames=("axis_name", "regularizer"))
def _diagnose(
    logits: Float[Array, "*examples classes"],
    labels: Shaped[Array, "..."],
    budget: Budget,
    temperature: Real[Array, "..."],
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    axis_name: Any,
    regularizer: Regularizer,
) -> Diagnosis:
    logits = lax.stop_gradient(jnp.asarray(logits))
    batch, problem = prepare_projection(logits, labels, budget, temperature, where, weights, axis_name)
    solution, rounds = solve_in_rounds(problem, regularizer)
    p, lam = solution.projected(), solution.centre()
    active = (p > 0) & (p < 1)
    right = p == batch.targets

    def share(entries: Bool[Array, "rows row"]) -> Float[Array, ""]:
        return batch_mean(entries.astype(p.dtype), batch) / batch.classes

    return Diagnosis(
        thresholds=batch.groups.gather(lam).reshape(logits.shape[1:][-1:]),
        active=share(active),
        saturated_right=share(~active & right),
        saturated_wrong=share(~active & ~right),
        rounds=rounds,
        converged=rounds < most_rounds(p.dtype),
    )
