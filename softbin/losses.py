"""Losses: projected scores against labels, over a whole batch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin import budgets, thresholds
from softbin.operators import check_mask, prepare, soft_binary_argmax
from softbin.regularizers import Regularizer, euclidean

Budget = Callable[..., Array] | Real[ArrayLike, "..."]


class Batch(NamedTuple):
    """A checked batch: examples on the first axis, classes on the second."""

    logits: Float[Array, "n classes"]
    weights: Float[Array, "n 1"] | None  # zero for a masked example


def loss(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."],
    *,
    budget: Budget = budgets.fraction(0.5),
    temperature: Real[ArrayLike, "..."] = 1.5,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Float[Array, ""]:
    r"""The HyperSimplex loss: the squared error of the projected batch.

    .. math::
        L = \frac1n \sum_i \tfrac12 \lVert p_i - Y_i \rVert^2, \qquad
        p_{:,c} = \text{soft-binary-argmax}(\text{logits}_{:,c},\ k_c,\ \tau).

    Each class is projected over the examples of the batch, so the loss couples them: it is one number for a
    batch, and no mean of per-example terms.

    The defaults are the setting of the paper's published experiments, `k_c = n/2` and `τ = 1.5`. (Their code
    averages over n C entries without the factor one half: 2/C of this value.) The paper's text chooses
    `k_c` as the expected number of positives instead: `budget=softbin.budgets.label_count` or
    `softbin.budgets.prior(...)`.

    At prediction time, subtract the thresholds: the loss does not see a constant added to the logits of one
    class, so the comparison between classes is only right after
    `softbin.predict(logits, softbin.decision_thresholds(train_logits, train_labels, ...), temperature)`, with
    the same keywords as here. What plain argmax loses depends on the data; in the README's runs on digits it was
    more with label counts than with `k_c = n/2`.

    The gradient is zero at a saturated entry, also a confidently wrong one: a small temperature ignores
    outliers and label noise, and can stall; `softbin.diagnose` shows it.

    Args:
      logits: (..., C); every axis but the last counts as examples. Or (n,): one binary problem.
      labels: integers (...) in [0, C), or labels of the shape of `logits` with values in [0, 1]: one-hot,
        multi-hot, soft, or binary.
      budget: `k` per class: a number, an array (C,), or a callable of `softbin.budgets`.
      temperature: positive; a number or an array (C,). May be traced, and has a gradient.
      where: which examples count, shape (...).
      weights: non-negative, shape (...); an example of weight 2 acts as two.
      regularizer: `softbin.euclidean` or `softbin.binary_entropy`.
      axis_name: mapped axes over which the examples are split; every shard gets the loss of the whole batch.

    Returns:
      A scalar of at least float32 precision; 0 for an empty batch, NaN where a traced label that counts is out
      of range.

    Raises:
      TypeError: logits are not floating point, or the labels' dtype is neither integer, boolean nor floating.
      ValueError: shapes do not fit, or a value known when traced (a label too) is out of range.

    Example:
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> print(f"{loss(logits, labels):.4f}")
      0.0347

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, section 4.
    """
    batch = prepare_batch(logits, where, weights)
    targets = prepare_targets(labels, logits, batch)
    k = batch_budget(batch, targets, budget, axis_name)
    p = soft_binary_argmax(
        batch.logits, k, temperature, axis=0, weights=batch.weights, regularizer=regularizer, axis_name=axis_name
    )
    return batch_mean((p - targets) ** 2 / 2, batch, axis_name)


def fenchel_young_loss(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."],
    *,
    budget: Budget = budgets.label_count,
    temperature: Real[ArrayLike, "..."] = 1.0,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Float[Array, ""]:
    r"""The Fenchel-Young loss of the hypersimplex: convex in the logits, with gradient `(p - Y) / n`.

    .. math::
        L = \frac{\tau}{n} \sum_c \left[ \Omega^*(x_c/\tau) + \Omega(Y_c) - \langle x_c/\tau, Y_c \rangle \right],
        \qquad \Omega(y) = \sum_i \varphi(y_i) \text{ on } \Delta(n, k_c).

    Unlike :func:`loss` it pulls on every wrong entry, also a saturated one. It is proper, and not negative, where
    the labels lie on the hypersimplex, `Σ_i Y_ic = k_c`; the default budget sees to that.

    Arguments, prediction and errors are those of :func:`loss`; labels and weights are constants to its derivative.

    Returns:
      A scalar of at least float32 precision. 0 where the projection is the labels.

    Example:
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> print(f"{fenchel_young_loss(logits, labels):.4f}")
      0.0156

    References:
      Blondel, Martins, Niculae, `Learning with Fenchel-Young losses <https://arxiv.org/abs/1901.02324>`_, 2020,
      definition 1.
    """
    batch = prepare_batch(logits, where, weights)
    targets = prepare_targets(labels, logits, batch)
    k = batch_budget(batch, targets, budget, axis_name)
    (scores, k, temperature, weights, _), _ = prepare(batch.logits, k, temperature, 0, None, batch.weights, axis_name)
    targets, weights = lax.stop_gradient((targets, weights))
    values = _fenchel_young(scores, k, temperature, weights, targets, regularizer, axis_name)
    return jnp.sum(values) / batch_size(batch, axis_name)


@partial(jax.custom_jvp, nondiff_argnums=(5, 6))
def _fenchel_young(scores, k, temperature, weights, targets, regularizer, axis_name):
    """`τ (Ω*(x/τ) + Ω(Y) - <x/τ, Y>)` per class, times n.

    With `u = x/τ - λ` every term `φ(Y) - φ(p) - u (Y - p)` is a Bregman divergence, so nothing cancels; the
    multiplier pays for labels off the hypersimplex.
    """
    return _fenchel_young_value(scores, k, temperature, weights, targets, regularizer, axis_name)[0]


def _fenchel_young_value(scores, k, temperature, weights, targets, regularizer, axis_name):
    found = thresholds.solve(scores, k, temperature, weights, 0, regularizer, axis_name)
    u = thresholds.excess(scores, found, temperature)
    p = regularizer.link(u)
    missing = thresholds.weighted(targets - p, weights)
    change = thresholds.weighted(regularizer.penalty(targets) - regularizer.penalty(p), weights)
    divergence = change - jnp.where(missing == 0, 0, u * missing)
    sum_ = partial(thresholds.total, axis=0, axis_name=axis_name)
    multiplier = found.coarse + found.fine
    value = temperature * sum_(divergence) - multiplier * (sum_(thresholds.weighted(targets, weights)) - k)
    return value, (missing, sum_(change), multiplier)


@_fenchel_young.defjvp
def _fenchel_young_jvp(regularizer, axis_name, primals, tangents):
    dscores, dk, dtemperature, _, _ = tangents
    value, (missing, change, multiplier) = _fenchel_young_value(*primals, regularizer, axis_name)
    by_scores = thresholds.total(jnp.where(missing == 0, 0, -missing * dscores), 0, axis_name)
    return value, by_scores + change * dtemperature + multiplier * dk


def prepare_batch(logits, where, weights) -> Batch:
    """Check a batch and flatten its examples."""
    dtype = jnp.result_type(logits)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {dtype}: convert them, for example to float32")
    shape = jnp.shape(logits)
    if not shape:
        raise ValueError("logits must have an axis of examples, got a scalar")
    dtype = jnp.promote_types(dtype, jnp.float32)
    examples, classes = (shape, 1) if len(shape) == 1 else (shape[:-1], shape[-1])
    weights = _example_weights(where, weights, examples, dtype)
    return Batch(jnp.reshape(jnp.asarray(logits, dtype), (-1, classes)), weights)


def prepare_targets(labels, logits, batch: Batch) -> Float[Array, "n classes"]:
    """Check the labels of a batch and write them as one row an example, zero where masked, NaN where out of range."""
    shape, classes = jnp.shape(logits), batch.logits.shape[1]
    _check_labels(labels, shape, classes, batch.weights)
    if jnp.shape(labels) == shape:
        targets = jnp.reshape(jnp.asarray(labels, batch.logits.dtype), (-1, classes))
        targets = jnp.where((targets >= 0) & (targets <= 1), targets, jnp.nan)
    else:
        labels = jnp.reshape(jnp.asarray(labels), (-1, 1))
        one_hot = (labels == jnp.arange(classes)).astype(batch.logits.dtype)
        targets = jnp.where((labels >= 0) & (labels < classes), one_hot, jnp.nan)
    return targets if batch.weights is None else jnp.where(batch.weights > 0, targets, 0)


def batch_budget(batch: Batch, targets, budget, axis_name) -> Real[ArrayLike, "..."]:
    """`k` of the whole batch, over all shards."""
    if not callable(budget):
        return budget
    weights = jnp.ones_like(batch.logits[:, :1]) if batch.weights is None else batch.weights
    k = budget(targets, weights[:, 0])
    return k if axis_name is None else lax.psum(k, axis_name)


def _check_labels(labels, shape, classes, weights):
    kind = jnp.result_type(labels)
    if not any(jnp.issubdtype(kind, allowed) for allowed in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"labels must be integer, boolean or floating point, got {kind}")
    dense = jnp.shape(labels) == shape
    if not dense and jnp.shape(labels) != shape[:-1]:
        raise ValueError(
            f"labels with shape {jnp.shape(labels)} do not fit logits with shape {shape}: "
            f"expected integers of shape {shape[:-1]} or labels of shape {shape}"
        )
    if not dense and not jnp.issubdtype(kind, jnp.integer):
        raise TypeError(f"labels of shape {shape[:-1]} are class numbers and must be integer, got {kind}")
    if isinstance(labels, jax.core.Tracer) or isinstance(weights, jax.core.Tracer):
        return
    rows = np.reshape(np.asarray(labels), (-1, classes if dense else 1))
    if weights is not None:
        rows = rows[np.asarray(weights)[:, 0] > 0]
    wrong = rows[~((rows >= 0) & (rows <= 1 if dense else rows < classes))]
    if wrong.size:
        allowed = "[0, 1]" if dense else f"[0, {classes})"
        raise ValueError(f"label {wrong[0]} is outside {allowed}: correct it, or mask its example with where")


def _example_weights(where, weights, examples, dtype):
    """One weight per example, zero where masked; None where all count alike."""
    for name, value in (("where", where), ("weights", weights)):
        if value is not None and jnp.shape(value) != examples:
            raise ValueError(f"{name} with shape {jnp.shape(value)} must have one entry per example: shape {examples}")
    if weights is not None and not isinstance(weights, jax.core.Tracer) and not np.all(np.asarray(weights) >= 0):
        raise ValueError(f"weights must not be negative, got a smallest of {np.min(weights)}")
    if where is not None:
        check_mask(where)
        weights = jnp.where(where, 1 if weights is None else weights, 0)
    return None if weights is None else jnp.reshape(jnp.asarray(weights, dtype), (-1, 1))


def batch_mean(values: Float[Array, "n classes"], batch: Batch, axis_name=None) -> Float[Array, ""]:
    """The mean over the examples of the sum over the classes; 0 for an empty batch."""
    if batch.weights is not None:
        values = jnp.where(batch.weights > 0, values * batch.weights, 0)
    return jnp.sum(thresholds.total(values, 0, axis_name)) / batch_size(batch, axis_name)


def batch_size(batch: Batch, axis_name):
    """How many examples count, over all shards; 1 where none does."""
    if batch.weights is None:
        return len(batch.logits) * (1 if axis_name is None else lax.psum(1, axis_name))
    size = thresholds.total(batch.weights, 0, axis_name)[0, 0]
    return jnp.where(size > 0, size, 1)
