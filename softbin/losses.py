"""Losses on a batch: every class is projected over the examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin import budgets
from softbin._engine import search, thresholds
from softbin._engine.arguments import Problem
from softbin._engine.batches import Budget, batch_size, by_example, run_on_batch, sum_of_means
from softbin._engine.groups import Groups, weighted
from softbin._engine.projections import prepare_projection, solve
from softbin._engine.search import Reductions
from softbin.operators import pull_back
from softbin.regularizers import Regularizer, euclidean


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
    implementation: str | None = None,
) -> Float[Array, ""]:
    r"""The HyperSimplex loss: the squared error of the projected batch, made to follow the zero-one error.

    .. math::
        L = \frac1n \sum_i \tfrac12 \lVert p_i - Y_i \rVert^2, \qquad
        p_{:,c} = \text{soft-binary-argmax}(\text{logits}_{:,c},\ k_c,\ \tau).

    Each class is projected over the examples of the batch, so the loss couples them: it is one number for a batch, and
    the error of an example depends on all the others.

    The defaults are the setting of the paper's published experiments, `k_c = n/2` and `τ = 1.5`. (Their code
    averages over n C entries without the factor one half: 2/C of this value.) The paper's text chooses
    `k_c` as the expected number of positives instead: `budget=softbin.budgets.label_count` or
    `softbin.budgets.prior(...)`.

    At prediction time, subtract the thresholds: the loss does not see a constant added to the logits of one
    class, so the comparison between classes is only right after
    `softbin.predict(logits, softbin.decision_thresholds(train_logits, train_labels, ...), temperature)`, with
    the same keywords as here. What plain argmax loses depends on the data; in softbin's runs on Fashion-MNIST it
    was more with label counts than with `k_c = n/2`.

    Where only a limited number of cases can be acted on, that number is the budget of a binary problem. With `P`
    positives and all entries 0 or 1, `TP` of the `k` ones being positives, the loss is

    .. math:: L = \frac{k + P}{2n} - \frac{TP}{n},

    so that the smaller it is, the larger the precision `TP / k`, which :func:`softbin.precision_at_k` measures. This is
    for models that cannot fit the data; one that gives right probabilities ranks as well by any proper loss.

    The gradient is zero at a saturated entry, even if it is confidently wrong: a small temperature ignores outliers and
    label noise, and can stall the training; `softbin.diagnose` shows it.

    Args:
      logits: floating point, (..., C); every axis but the last counts as examples. Or (n,): one binary problem.
      labels: integers (...) in [0, C), or labels of the shape of `logits` with values in [0, 1]: one-hot,
        multi-hot, soft, or binary.
      budget: `k` per class: a number of examples, an array (C,) of them, or a callable of `softbin.budgets`; half the
        batch is `budgets.fraction(0.5)`, and the number 0.5 is refused. All that count are chosen where a mask or
        weights of zero leave less than a number; one that all examples would not reach gives NaN, if it is traced.
      temperature: positive; a number or an array (C,). May be traced, and has a gradient.
      where: which examples count, shape (...); or which entries do, of the shape of `logits`, where labels are
        missing: `n` is then the number of examples of each class.
      weights: non-negative, of one of these shapes; an example, or an entry, of weight 2 acts as two.
      regularizer: `softbin.euclidean`, `softbin.binary_entropy`, or another of `softbin.regularizers`.
      axis_name: mapped axes over which the examples are split; every shard gets the loss of the whole batch. In
        `jax.shard_map` its gradient needs no care. In `jax.vmap` and `jax.pmap`, and with `check_vma=False`, JAX adds
        up the gradients of every shard's copy of the loss: the usual `lax.pmean` of the gradient by the parameters is
        then that of the whole batch, and a gradient by the logits is too large by a factor of the number of shards.
      implementation: as for :func:`softbin.soft_binary_argmax`; with "pallas" the value and the gradient by the
        logits leave the kernel together.

    Returns:
      A scalar of at least float32 precision; 0 for an empty batch (unless its budget is a number), NaN where a traced
      budget or temperature, or a traced label that counts, is out of range.

    Raises:
      TypeError: logits are not floating point, or the labels' dtype is neither integer, boolean nor floating.
      ValueError: shapes do not fit, or a concrete value, such as a label, is out of range.

    Example:
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> print(f"{loss(logits, labels):.4f}")
      0.0347

      Two cases can be looked at each day. A day is a row, and on some days fewer cases come in:

      >>> scores = jnp.array([[3.0, 1.0, 2.0, 0.0], [1.0, 2.0, 0.5, 0.0]])
      >>> late = jnp.array([[1, 0, 0, 1], [0, 1, 0, 0]])
      >>> came_in = jnp.array([[True, True, True, True], [True, True, True, False]])
      >>> of_day = partial(loss, budget=2, temperature=0.1)
      >>> losses = jax.vmap(lambda scores, late, where: of_day(scores, late, where=where))(scores, late, came_in)
      >>> n, positives, hits = jnp.array([4, 3]), jnp.array([2, 1]), jnp.array([1, 1])
      >>> print(losses, (2 + positives) / (2 * n) - hits / n)
      [0.25       0.16666667] [0.25       0.16666666]

      Where cases arrive one by one, decide by the cutoff of a reference set. Of the same number of new cases of the
      same kind it takes `k` with a standard deviation of about `sqrt(2 k (1 - k/n))`: here 20 of 1,000, give or take 6.

      >>> import softbin
      >>> reference, arriving = jax.random.normal(jax.random.key(0), (2, 1000))
      >>> print(jnp.sum(arriving > softbin.cutoff(reference, 20)))
      20

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, section 4.
    """
    settings = {"axis_name": axis_name, "regularizer": regularizer, "implementation": implementation}
    return run_on_batch(_loss, _scalar, logits, labels, budget, temperature, where, weights, **settings)


@partial(jax.jit, static_argnames=("axis_name", "regularizer", "implementation"))
def _loss(
    logits: Float[Array, "*examples classes"],
    labels: Shaped[Array, "..."],
    budget: Budget,
    temperature: Real[Array, "..."],
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    axis_name: Any,
    regularizer: Regularizer,
    implementation: str | None,
) -> Float[Array, ""]:
    batch, problem = prepare_projection(logits, labels, budget, temperature, where, weights, axis_name)
    totals = _of_problem(_squared_errors, problem, batch.targets, regularizer, implementation)
    return sum_of_means(totals, batch)


def _of_problem(
    function: Callable[..., Array],
    problem: Problem,
    targets: Float[Array, "rows row"],
    regularizer: Regularizer,
    implementation: str | None,
) -> Float[Array, "*group"]:
    """What a function that has derivatives of its own, and so takes arrays, gives for each class."""
    arrays = problem.scores, problem.k, problem.temperature, problem.weights, targets
    return function(*arrays, problem.groups, regularizer, implementation)


def _scalar(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec()


def per_example_loss(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."],
    *,
    budget: Budget = budgets.fraction(0.5),
    temperature: Real[ArrayLike, "..."] = 1.5,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Float[Array, "..."]:
    r"""Which examples of a batch the model gets wrong, and how much: the terms of which :func:`loss` is the mean.

    .. math::
        e_i = \tfrac12 \lVert p_i - Y_i \rVert^2, \qquad L = \frac{\sum_i w_i e_i}{\sum_i w_i}.

    Use these to rank examples, or to choose those with the smallest errors: the loss leaves a constant per class
    undetermined, so that any error of the raw logits, cross-entropy too, ranks by that constant as well. A term depends
    on the other examples too, since the batch is projected as a whole.

    Args and raises: as for :func:`loss`. With an `axis_name` every shard gets the terms of its own examples.

    Returns:
      The terms, of shape (...), or (n,) for a binary problem, of at least float32 precision; 0 for an example that
      `where` excludes. If the mask or the weights have the shape of the logits, the terms include them,
      :math:`e_i = \sum_c n \frac{w_{ic}}{\sum_j w_{jc}} \tfrac12 (p_{ic} - Y_{ic})^2`, and the plain mean over all `n`
      examples is the loss.

    Example:
      Learn from the three quarters of the examples with the smallest errors:

      >>> import softbin
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> labels = jnp.array([0, 0, 1, 0])
      >>> errors = per_example_loss(logits, labels)
      >>> print(*(f"{error:.3f}" for error in errors), f"{errors.mean():.4f} {loss(logits, labels):.4f}")
      0.000 0.069 0.014 0.722 0.2014 0.2014
      >>> kept = softbin.binary_argmax(-errors, softbin.budgets.fraction(0.75))
      >>> print(kept, f"{loss(logits, labels, weights=kept):.4f}")
      [1. 1. 1. 0.] 0.0833

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, section 4.
    """
    settings = {"axis_name": axis_name, "regularizer": regularizer}
    arguments = logits, labels, budget, temperature, where, weights
    errors = run_on_batch(_per_example_loss, _of_examples, *arguments, **settings)
    examples = jnp.shape(logits)[:-1] or jnp.shape(logits)
    return jnp.zeros(examples, errors.dtype) if 0 in examples else errors


def _of_examples(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*(spec[:-1] or spec))


@partial(jax.jit, static_argnames=("axis_name", "regularizer"))
def _per_example_loss(
    logits: Float[Array, "*examples classes"],
    labels: Shaped[Array, "..."],
    budget: Budget,
    temperature: Real[Array, "..."],
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    axis_name: Any,
    regularizer: Regularizer,
) -> Float[Array, "..."]:
    batch, problem = prepare_projection(logits, labels, budget, temperature, where, weights, axis_name)
    squares = (solve(problem, regularizer).projected() - batch.targets) ** 2 / 2
    if batch.weights is not None:
        share = batch.weights if batch.by_entry else jnp.ones_like(batch.weights)
        squares = jnp.where(batch.weights != 0, squares * share, 0)
    if batch.by_entry:
        squares = squares * batch.groups.size(batch.logits.shape) / batch.groups.spread(batch_size(batch)[None])
    errors = jnp.sum(by_example(squares, batch.groups.lanes), -1)
    return errors.reshape(jnp.shape(logits)[:-1] or jnp.shape(logits))


@partial(jax.custom_jvp, nondiff_argnums=(5, 6, 7))
def _squared_errors(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    targets: Float[Array, "*shape"],
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
) -> Float[Array, "*group"]:
    """`Σ w (p - Y)²/2` per class, with the derivatives in closed form once the threshold is known.

    The gradient by the scores is worked out with the value, so that what reverse mode keeps is that one array.
    """
    u = _excess(scores, k, temperature, weights, groups, regularizer, implementation)
    return _half_squares(u, targets, weights, groups, regularizer)[0]


@partial(_squared_errors.defjvp, symbolic_zeros=True)
def _squared_errors_jvp(
    groups: Groups, regularizer: Regularizer, implementation: str | None, primals: tuple, tangents: tuple
) -> tuple[Any, Any]:
    scores, k, temperature, weights, targets = primals
    dscores, dk, dtemperature, dweights, dtargets = tangents
    others = (dk, dtemperature, dtargets) if weights is None else (dk, dtemperature, dtargets, dweights)
    if not _is_zero(dscores) and all(_is_zero(d) for d in others):
        arguments = scores, k, temperature, weights, targets, groups, regularizer, implementation
        values, by_scores = _values_and_gradient(*arguments)
        return values, groups.plain_total(by_scores * dscores)

    u = _excess(scores, k, temperature, weights, groups, regularizer, implementation)
    values, wrong = _half_squares(u, targets, weights, groups, regularizer)
    by_p = weighted(wrong, weights)
    by_scores, by_k, by_temperature, by_weights = pull_back(u, temperature, weights, by_p, groups, regularizer)
    over_batch = [(by_scores, dscores), (-by_p, dtargets)]
    if weights is not None:
        over_batch.append((by_weights + wrong**2 / 2, dweights))
    changes = [groups.plain_total(by * d) for by, d in over_batch if not _is_zero(d)]
    changes += [by * d for by, d in ((by_k, dk), (by_temperature, dtemperature)) if not _is_zero(d)]
    return values, sum(changes, jnp.zeros_like(values))


def _values_and_gradient(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    targets: Float[Array, "*shape"],
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
) -> tuple[Float[Array, "*group"], Float[Array, "*shape"]]:
    """The value per class, and the gradient by the scores."""
    run = thresholds.chosen_kernels(implementation, scores, groups, regularizer)
    if run is not None:
        return _value_and_gradient_on_chip(scores, k, temperature, weights, targets, groups, regularizer, run)
    found = thresholds.solve(scores, k, temperature, weights, groups, regularizer, implementation)
    u = thresholds.excess(scores, found, temperature)
    again = thresholds.excess(lax.optimization_barrier(scores), found, temperature)
    return _half_squares_and_gradient(u, again, temperature, weights, targets, groups, regularizer)


@partial(jax.custom_jvp, nondiff_argnums=(5, 6, 7))
def _value_and_gradient_on_chip(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    targets: Float[Array, "*shape"],
    groups: Groups,
    regularizer: Regularizer,
    run: Callable[..., Any],
) -> tuple[Array, Array]:
    def compute(
        group_arrays: Sequence[Array], entries: Sequence[Any], reductions: Reductions
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        k, temperature = group_arrays
        scores, weights = entries[0][...], None if len(entries) < 3 else entries[2][...]
        found, _ = search.search(scores, k, temperature, weights, reductions, regularizer)
        u = search.excess(scores, found)
        values, by_scores = _half_squares_and_gradient(
            u, u, temperature, weights, entries[1][...], reductions, regularizer
        )
        return [values], [by_scores]

    entries = [scores, targets] if weights is None else [scores, targets, weights]
    (values,), (by_scores,) = run(compute, [k, temperature], entries, groups)
    return values, by_scores


@_value_and_gradient_on_chip.defjvp
def _value_and_gradient_on_chip_jvp(
    groups: Groups, regularizer: Regularizer, run: Callable[..., Any], primals: tuple, tangents: tuple
) -> tuple[Any, Any]:
    def by_xla(
        scores: Array, k: Array, temperature: Array, weights: Array | None, targets: Array
    ) -> tuple[Array, Array]:
        return _values_and_gradient(scores, k, temperature, weights, targets, groups, regularizer, "xla")

    return jax.jvp(by_xla, primals, tangents)


def _excess(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
) -> Float[Array, "*shape"]:
    found = thresholds.solve(scores, k, temperature, weights, groups, regularizer, implementation)
    return thresholds.excess(scores, found, temperature)


def _half_squares(
    u: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
) -> tuple[Float[Array, "*group"], Float[Array, "*shape"]]:
    """Per class, and what is wrong with each entry."""
    wrong = regularizer.link(u) - targets
    return groups.total(weighted(wrong**2 / 2, weights)), wrong


def _half_squares_and_gradient(
    u: Float[Array, "*shape"],
    again: Float[Array, "*shape"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    targets: Float[Array, "*shape"],
    groups: Reductions,
    regularizer: Regularizer,
) -> tuple[Float[Array, "*group"], Float[Array, "*shape"]]:
    """As `_half_squares` and `pull_back`, in one pass.

    `again` is `u`, worked out from the scores a second time: to keep it would be to write it to memory.
    """

    def parts(u: Float[Array, "*shape"]) -> tuple[Array, Array]:
        whole, fraction, slope = regularizer.parts(u)
        return whole + fraction - targets, slope

    wrong, slope = parts(u)
    of_entries = wrong**2 / 2, slope * wrong, slope
    values, change, slopes = groups.totals([weighted(value, weights) for value in of_entries])
    wrong, slope = parts(again)
    by_scores = slope * weighted(wrong - thresholds.safe_ratio(change, slopes), weights) * (1 / temperature)
    return values, by_scores


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


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
    implementation: str | None = None,
) -> Float[Array, ""]:
    r"""The Fenchel-Young loss of the hypersimplex: convex in the logits, with gradient `(p - Y) / n`.

    .. math::
        L = \frac{\tau}{n} \sum_c \left[ \Omega^*(x_c/\tau) + \Omega(Y_c) - \langle x_c/\tau, Y_c \rangle \right],
        \qquad \Omega(y) = \sum_i \varphi(y_i) \text{ on } \Delta(n, k_c).

    Unlike :func:`loss` it pulls on every wrong entry, even on a saturated one. It is proper, and not negative, where
    the labels lie on the hypersimplex, `Σ_i Y_ic = k_c`; the default budget makes sure that they do.

    Args and raises: as for :func:`loss`, and predictions need thresholds in the same way. Labels and weights count as
    constants when the loss is differentiated.

    Returns:
      A scalar of at least float32 precision; 0 where the projection equals the labels.

    Example:
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> print(f"{fenchel_young_loss(logits, labels):.4f}")
      0.0156

    References:
      Blondel, Martins, Niculae, `Learning with Fenchel-Young losses <https://arxiv.org/abs/1901.02324>`_, 2020,
      definition 1.
    """
    settings = {"axis_name": axis_name, "regularizer": regularizer, "implementation": implementation}
    return run_on_batch(_fenchel_young_loss, _scalar, logits, labels, budget, temperature, where, weights, **settings)


@partial(jax.jit, static_argnames=("axis_name", "regularizer", "implementation"))
def _fenchel_young_loss(
    logits: Float[Array, "*examples classes"],
    labels: Shaped[Array, "..."],
    budget: Budget,
    temperature: Real[Array, "..."],
    where: Bool[Array, "..."] | None,
    weights: Real[Array, "..."] | None,
    *,
    axis_name: Any,
    regularizer: Regularizer,
    implementation: str | None,
) -> Float[Array, ""]:
    batch, problem = prepare_projection(logits, labels, budget, temperature, where, weights, axis_name)
    targets, weights = lax.stop_gradient((batch.targets, problem.weights))
    problem = problem._replace(weights=weights)
    values = _of_problem(_fenchel_young, problem, targets, regularizer, implementation)
    return sum_of_means(values, batch)


@partial(jax.custom_jvp, nondiff_argnums=(5, 6, 7))
def _fenchel_young(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    targets: Float[Array, "*shape"],
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
) -> Float[Array, "*group"]:
    """`τ (Ω*(x/τ) + Ω(Y) - <x/τ, Y>)` per class, times n.

    With `u = x/τ - λ` every term `φ(Y) - φ(p) - u (Y - p)` is a Bregman divergence, so nothing cancels; the
    multiplier pays for labels off the hypersimplex. Any threshold does, and at a budget of none or all, which a link
    without ends reaches at infinity only, it is zero; a piecewise linear one has ends.
    """
    return _fenchel_young_value(scores, k, temperature, weights, targets, groups, regularizer, implementation)[0]


def _fenchel_young_value(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    targets: Float[Array, "*shape"],
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
) -> tuple[Float[Array, "*group"], tuple[Array, Array, Array]]:
    found = thresholds.solve(scores, k, temperature, weights, groups, regularizer, implementation)
    u = thresholds.excess(scores, found, temperature)
    p = regularizer.link(u)
    missing = weighted(targets - p, weights)
    change = weighted(regularizer.penalty(targets) - regularizer.penalty(p), weights)
    multiplier = thresholds.multiplier(found, temperature)
    infinite = jnp.isinf(multiplier)
    multiplier = jnp.where(infinite, 0, multiplier)
    u = jnp.where(infinite, scores / temperature, u)
    divergence = change - jnp.where(missing == 0, 0, u) * missing
    value, change, chosen = groups.totals([divergence, change, weighted(targets, weights)])
    return temperature * (value - multiplier * (chosen - k)), (missing, change, temperature * multiplier)


@_fenchel_young.defjvp
def _fenchel_young_jvp(
    groups: Groups, regularizer: Regularizer, implementation: str | None, primals: tuple, tangents: tuple
) -> tuple[Any, Any]:
    scores, k, temperature, weights, targets = primals
    dscores, dk, dtemperature, _, _ = tangents
    arguments = scores, k, temperature, weights, targets, groups, regularizer, implementation
    value, (missing, change, multiplier) = _fenchel_young_value(*arguments)
    by_scores = groups.plain_total(-missing * dscores)
    return value, by_scores + change * dtemperature + multiplier * dk
