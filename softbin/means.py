"""Means of the largest and of the smallest values: exact, or smoothed over the hypersimplex."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from softbin._engine import meshes, thresholds
from softbin._engine.arguments import Arguments, Count, groups_along, prepare, prepare_choice
from softbin._engine.checks import (
    check_entries,
    check_floating,
    check_per_group,
    check_regularizer,
    check_taken,
    check_temperature,
    is_zero_temperature,
)
from softbin._engine.choices import expected_choice, known_few
from softbin._engine.groups import Groups, weighted
from softbin._engine.projections import solve
from softbin.regularizers import Regularizer, euclidean


def top_k_mean(
    values: Float[ArrayLike, "*shape"],
    k: Count,
    temperature: Real[ArrayLike, "..."] = 0.0,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Float[Array, "..."]:
    r"""The mean of the `k` largest values of each group: of losses, the average top-k loss, or CVaR.

    .. math::
        M_0 = \frac1k \max_{y \in [0, 1]^n,\ \sum_i w_i y_i = k} \sum_i w_i v_i y_i, \qquad
        M_\tau = \frac1k \max_y \sum_i w_i \left( v_i y_i - \tau (\varphi(y_i) - \varphi(q)) \right),
        \quad q = k / \textstyle\sum_i w_i.

    At temperature 0, the default, it is exact and takes no sort: the mean of the values above the k-th largest and of
    as many equal to it as are left, a part of one if `k` is fractional. It is the conditional value at risk (CVaR,
    expected shortfall) at level `1 - k/n`. A positive temperature smooths it: `M_τ` is convex in the values, falls from
    the exact value to the mean of all as the temperature grows, and with `softbin.euclidean` and a whole `k` is at
    most `τ (1 - k/n) / 2` below the exact value.

    The gradient by the values is `w y / k`, with the maximizing `y`: at temperature 0 the choice of the `k` largest, in
    which equal values share alike, and above it :func:`softbin.soft_binary_argmax`. Forward and reverse mode,
    second derivatives and `vmap` work. A sharded axis takes a few small all-reduces.

    Args:
      values: floating point, any shape; groups lie along `axis`. NaN makes its own group NaN.
      k: how many values count, real, above 0 and at most n; a number, an array that broadcasts to the shape of
        `values` without `axis`, or a share, `softbin.budgets.fraction(0.1)`, of the entries that exist, over all
        shards. May be traced, so that a schedule can drive it, and has a gradient.
      temperature: 0, or positive, of the kind and shape of `k`, in units of the values. Only a concrete temperature can
        be 0; a traced one must be positive.
      axis: the axis that groups lie along, a tuple of axes, or None for all.
      where: broadcasts to `values`. Entries where it is false do not exist; where fewer than `k` exist, the mean is
        that of all that do.
      weights: non-negative, broadcasts to `values`. An entry of weight 2 acts as two equal entries.
      regularizer: where the temperature is positive, `softbin.euclidean`, `softbin.binary_entropy`, or another of
        `softbin.regularizers`.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split; the note on `axis_name` in
        :func:`softbin.loss` holds for the gradient.

    Returns:
      The means, in the dtype of `values`, without `axis`; 0 for a group that is masked whole, NaN where a traced `k`
      or temperature is out of range. Infinite values that count make the mean infinite, whatever the temperature, or
      NaN if both signs count.

    Raises:
      TypeError: `values` is not floating point, or `where` is not boolean.
      ValueError: a concrete `k` or temperature is out of range, or shapes do not fit.

    Example:
      The mean, and the gradient, of the largest quarter of the losses of a batch:

      >>> import softbin
      >>> losses = jnp.array([0.1, 3.0, 0.2, 2.0, 0.4, 0.3, 0.9, 0.1])
      >>> print(top_k_mean(losses, softbin.budgets.fraction(0.25)))
      2.5
      >>> print(jax.grad(top_k_mean)(losses, 2.5))
      [0.  0.4 0.  0.4 0.  0.  0.2 0. ]
      >>> print(f"{top_k_mean(losses, 2, temperature=0.5):.3f} {losses.mean():.3f}")
      2.312 0.875

      The hardest half of the tokens of each sequence, where padding does not count:

      >>> losses = jnp.array([[1.0, 3.0, 2.0, 4.0], [5.0, 1.0, 9.0, 9.0]])
      >>> tokens = jnp.array([[True, True, True, True], [True, True, False, False]])
      >>> print(top_k_mean(losses, softbin.budgets.fraction(0.5), where=tokens))
      [3.5 5. ]

    References:
      Fan, Lyu, Ying, Hu, `Learning with Average Top-k Loss <https://arxiv.org/abs/1705.08826>`_, 2017;
      Rockafellar, Uryasev, `Optimization of Conditional Value-at-Risk <https://doi.org/10.21314/JOR.2000.038>`_, 2000.
    """
    check_regularizer(regularizer)
    groups = groups_along(axis, values, axis_name, name="values")
    check_entries("values", values, where, weights, groups)
    check_taken(k, "values", values, groups, weights)
    check_temperature(temperature, zero=True)
    check_per_group("temperature", temperature, "values", values, groups)
    if is_zero_temperature(temperature):
        mean = partial(_exact_mean, few=known_few(k, weights, jnp.shape(values), groups))
        return meshes.run(mean, groups.sharding, values, k, where, weights, groups=groups)
    mean = partial(_smooth_mean, regularizer=regularizer)
    return meshes.run(mean, groups.sharding, values, k, temperature, where, weights, groups=groups)


def bottom_k_mean(
    values: Float[ArrayLike, "*shape"],
    k: Count,
    temperature: Real[ArrayLike, "..."] = 0.0,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Float[Array, "..."]:
    r"""The mean of the `k` smallest values of each group, `-top_k_mean(-values, k)`: of losses, the trimmed loss.

    This is for a batch in which a known number of labels is right: the examples with the smallest losses are trusted,
    and the gradient is theirs alone (trimmed loss minimisation, small-loss selection). Begin with all examples, since a
    small loss means nothing before anything is learned. If all labels are right, it costs accuracy. Hard classes may
    lose all of their examples; taking the same share of every class keeps some.

    Args, returns and raises: as for :func:`top_k_mean`. With a temperature it is concave in the values.

    Example:
      Six tenths of the labels are right; the share that counts falls from all of them to that:

      >>> import optax
      >>> import softbin
      >>> share = optax.linear_schedule(1.0, 0.6, transition_steps=100)
      >>> def train_loss(logits, labels, step):
      ...     losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      ...     return bottom_k_mean(losses, softbin.budgets.fraction(share(step)))
      >>> logits = jnp.array([[3.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 1.0], [1.0, 0.0]])
      >>> labels = jnp.array([0, 0, 1, 0, 1])
      >>> print(*(f"{jax.jit(train_loss)(logits, labels, step):.4f}" for step in (0, 50, 100)))
      0.5858 0.4039 0.1008

      The same share of every class: each class is a row, in which the examples of other classes do not exist:

      >>> losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      >>> of_class = jnp.arange(2)[:, None] == labels
      >>> each = bottom_k_mean(jnp.broadcast_to(losses, (2, 5)), softbin.budgets.fraction(0.5), where=of_class)
      >>> print(each.round(4))
      [0.0747 0.1269]

      The selection as weights of the HyperSimplex loss. Rank by the terms of that loss: errors of the raw logits also
      depend on a constant per class, which it leaves undetermined.

      >>> errors = softbin.per_example_loss(logits, labels)
      >>> kept = softbin.binary_argmax(-errors, softbin.budgets.fraction(0.6))
      >>> print(kept, f"{softbin.loss(logits, labels, weights=kept):.4f}")
      [1. 1. 1. 0. 0.] 0.0625

      Exact gradients of the whole batch, two examples at a time:

      >>> def trimmed(logits, labels):
      ...     losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      ...     return bottom_k_mean(losses, softbin.budgets.fraction(0.6))
      >>> step = softbin.large_batch.value_and_grad(lambda w, x: x @ w, trimmed, microbatch_size=2)
      >>> value, gradient = step(jnp.eye(2), logits, labels)
      >>> print(f"{value:.4f}")
      0.1008

      A batch that is spread over the devices of a mesh:

      >>> mesh = jax.make_mesh((jax.device_count(),), ("batch",))
      >>> spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
      >>> losses = jax.device_put(jnp.arange(16 * jax.device_count(), dtype=jnp.float32), spread)
      >>> print(bottom_k_mean(losses, 5))
      2.0

    References:
      Shen, Sanghavi, `Learning with Bad Training Data via Iterative Trimmed Loss Minimization
      <https://arxiv.org/abs/1810.11874>`_, 2019; Han et al., `Co-teaching <https://arxiv.org/abs/1804.06872>`_, 2018.
    """
    settings = {"axis": axis, "where": where, "weights": weights, "regularizer": regularizer, "axis_name": axis_name}
    check_floating("values", values)
    return -top_k_mean(-jnp.asarray(values), k, temperature, **settings)


@partial(jax.jit, static_argnames=("groups", "few"))
def _exact_mean(
    values: Float[Array, "*shape"],
    k: Count,
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    groups: Groups,
    few: int | None,
) -> Float[Array, "..."]:
    choice = prepare_choice(values, k, groups, where, weights, divisible=True)
    value, y = expected_choice(choice, groups, few)
    reference = jnp.where(jnp.isfinite(value), value, 0)
    total = groups.total(weighted(y * _above(choice.scores, reference, y), choice.weights))
    k = jnp.where(jnp.isnan(value), jnp.nan, choice.k)
    return _mean(total, reference, k, choice.size, groups, values)


@partial(jax.jit, static_argnames=("groups", "regularizer"))
def _smooth_mean(
    values: Float[Array, "*shape"],
    k: Count,
    temperature: Real[Array, "..."],
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    groups: Groups,
    regularizer: Regularizer,
) -> Float[Array, "..."]:
    problem = prepare(Arguments(values, k, temperature, where, weights), groups)
    scores, temperature, weights, mask = problem.scores, problem.temperature, problem.weights, problem.mask
    count, others = _sizes(scores, mask, weights, groups)
    k = jnp.where(count > 0, problem.k, 0)
    solution = solve(problem._replace(k=k), regularizer)
    y = solution.projected()
    y = y if mask is None else jnp.where(mask, y, 0)
    q = jnp.minimum(k / jnp.where(count > 0, count, 1), 1)
    multiplier = thresholds.multiplier(solution.found, temperature) + regularizer.inverse_link(q, 1 - q)
    multiplier = temperature * multiplier
    ends = _range(scores, mask, groups)
    multiplier = jnp.clip(multiplier, *ends)  # it has lost its digits where τ is huge
    reference = lax.stop_gradient(jnp.where(jnp.isfinite(multiplier), multiplier, 0))
    total = _smooth_total(scores, k, temperature, weights, mask, reference, y, q, multiplier, groups, regularizer)
    infinite = lax.stop_gradient(_infinite(ends, k, others))
    return _mean(total, reference + infinite, k, count, groups, values)


def _sizes(
    scores: Float[Array, "*shape"],
    mask: Bool[Array, "*shape"] | None,
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
) -> tuple[Float[Array, "..."], Float[Array, "*group"]]:
    """How many values there are, and how many above `-inf`, or what they weigh; in one pass."""
    each = jnp.ones((), scores.dtype) if weights is None else weights
    above = jnp.where(scores > -jnp.inf, each, 0)
    if mask is None:
        return jnp.asarray(groups.size(scores.shape), scores.dtype), groups.total(above)
    count, others = groups.totals([jnp.where(mask, each, 0), above])
    return count, others


def _infinite(
    ends: tuple[Float[Array, "*group"], Float[Array, "*group"]],
    k: Float[Array, "*group"],
    others: Float[Array, "*group"],
) -> Float[Array, "*group"]:
    """What infinite values make of the mean of the `k` largest, whatever the temperature, and 0 where it is finite.

    Args:
      ends: the smallest and the largest value of each group.
      k: how many values count.
      others: how many are above `-inf`, or what they weigh.
    """
    needed = (ends[0] == -jnp.inf) & (k > others)
    zero = jnp.zeros_like(k)
    return jnp.where(ends[1] == jnp.inf, jnp.inf, zero) - jnp.where(needed, jnp.inf, zero)


@partial(jax.custom_jvp, nondiff_argnums=(9, 10))
def _smooth_total(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    mask: Bool[Array, "*shape"] | None,
    reference: Float[Array, "*group"],
    y: Float[Array, "*shape"],
    q: Float[Array, "*group"],
    multiplier: Float[Array, "*group"],
    groups: Groups,
    regularizer: Regularizer,
) -> Float[Array, "*group"]:
    """`Σ w ((x - r) y - τ D(y, q))` at its maximum over `Σ w y = k`; `multiplier - r` is its derivative by `k`.

    The Bregman divergence is `φ(y) - φ(q)` up to a part that adds up to zero, and has the digits that these lose where
    the temperature is large. Above the multiplier, `r`, errors of `y` cancel. By the envelope theorem `y`, `q` and the
    multiplier have no part in the derivative.
    """
    bound = jnp.where(y == q, 0, jnp.maximum((y - q) * (scores - reference), 0))  # where y - q is all rounding
    cost = jnp.minimum(temperature * _divergence(y, q, mask, regularizer), bound)
    return groups.total(weighted(y * _above(scores, reference, y) - cost, weights))


@partial(_smooth_total.defjvp, symbolic_zeros=True)
def _smooth_total_jvp(
    groups: Groups, regularizer: Regularizer, primals: tuple, tangents: tuple
) -> tuple[Float[Array, "*group"], Float[Array, "*group"]]:
    scores, k, temperature, weights, mask, reference, y, q, multiplier = primals
    dscores, dk, dtemperature, dweights, *_ = tangents
    total = _smooth_total(*primals, groups, regularizer)
    divergence = _divergence(y, q, mask, regularizer)
    change = jnp.zeros_like(total)
    if not isinstance(dscores, SymbolicZero):
        change += groups.plain_total(weighted(y, weights) * dscores)
    if not isinstance(dk, SymbolicZero):
        of_all = total / jnp.where(k > 0, k, 1)  # where all are chosen, whose multiplier may be infinite: no change
        change += jnp.where(jnp.isfinite(multiplier), multiplier - reference, of_all) * dk
    if not isinstance(dtemperature, SymbolicZero):
        change -= groups.total(weighted(divergence, weights)) * dtemperature
    if weights is not None and not isinstance(dweights, SymbolicZero):
        by_weights = y * _above(scores, multiplier, y) - temperature * divergence
        change += groups.plain_total(by_weights * dweights)
    return total, change


def _range(
    scores: Float[Array, "*shape"], mask: Bool[Array, "*shape"] | None, groups: Groups
) -> tuple[Float[Array, "*group"], Float[Array, "*group"]]:
    """The smallest and the largest score of each group."""
    scores = lax.stop_gradient(scores)
    negative = -scores if mask is None else jnp.where(mask, -scores, -jnp.inf)
    return -groups.largest(negative), groups.largest(scores)


def _above(
    scores: Float[Array, "*shape"], reference: Float[Array, "*group"], y: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """How far the scores that are chosen are above a reference, which may be less than 0."""
    return jnp.where(y == 0, 0, scores - reference)


def _divergence(
    y: Float[Array, "*shape"], q: Float[Array, "*group"], mask: Bool[Array, "*shape"] | None, regularizer: Regularizer
) -> Float[Array, "*shape"]:
    divergence = regularizer.divergence(y, q)
    return divergence if mask is None else jnp.where(mask, divergence, 0)


def _mean(
    total: Float[Array, "*group"],
    reference: Float[Array, "*group"],
    k: Float[Array, "*group"],
    count: Real[Array, "..."],
    groups: Groups,
    values: Float[Array, "*shape"],
) -> Float[Array, "..."]:
    """`reference + total / k`, 0 for a group that is masked whole, and NaN for a `k` that is out of range."""
    mean = reference + total / jnp.where(k > 0, k, 1)
    mean = jnp.where(k > 0, mean, jnp.nan)
    return jnp.squeeze(jnp.where(count > 0, mean, 0), groups.axes).astype(jnp.result_type(values))
