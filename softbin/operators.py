"""Soft-Binary-Argmax and its relatives: choosing k of n, softly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from softbin._engine import meshes, thresholds
from softbin._engine.arguments import Arguments, Count, checked_arguments, prepare
from softbin._engine.checks import check_regularizer
from softbin._engine.groups import Groups, weighted
from softbin._engine.projections import solve
from softbin.hard_choices import binary_argmax
from softbin.regularizers import Regularizer, euclidean


def soft_binary_argmax(
    scores: Float[ArrayLike, "*shape"],
    k: Count,
    temperature: Real[ArrayLike, "..."] = 1.0,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
    straight_through: bool = False,
    forward_mode: bool = False,
    implementation: str | None = None,
) -> Float[Array, "*shape"]:
    r"""Choose `k` of `n`, differentiably: project the scores onto the hypersimplex.

    .. math::
        y = \arg\max_{y \in [0, 1]^n,\ \sum_i w_i y_i = k}\
            \sum_i w_i \left( \tfrac{x_i}{\tau} y_i - \varphi(y_i) \right),
        \qquad y_i = \psi(x_i / \tau - \lambda).

    With the default regularizer this is the Euclidean projection of `scores / temperature` onto the
    (n, k)-hypersimplex. It keeps the order of the scores; most entries are exactly 0 or 1 at a small temperature, and
    all approach `k / n` at a large one. For a hard choice, without a gradient, use :func:`softbin.binary_argmax`. The
    threshold `λ` is found without sorting, in O(n).

    The derivatives are closed forms, with `d = ψ'(x/τ - λ)` and `D = Σ w d`: `(diag(d) - d (w d)ᵀ / D) / τ`
    by the scores, `d / D` by `k`. They are zero where every entry is saturated. A float32 result is within 1e-6
    of the exact one on any finite input of normal numbers; smaller ones count as zero.

    Under `jax.checkpoint` the backward pass searches again, unless a policy saves the thresholds, which are few:
    `jax.checkpoint_policies.save_only_these_names("softbin_threshold")`. The same holds for
    the losses and for smooth means.

    Args:
      scores: floating point, any shape; groups lie along `axis`. `+inf` is always chosen (and spends budget),
        `-inf` never; NaN makes its own group NaN. bfloat16 and float16 are computed in float32.
      k: how many to choose, real, in [0, n]: a number, an array that broadcasts to the shape of `scores` without
        `axis`, or a share of the entries that exist, `softbin.budgets.fraction(0.1)`. The number 0.1 is a tenth of one
        entry. May be traced; has a gradient.
      temperature: positive, of the kind and shape of `k`. May be traced, and has a gradient.
      axis: the axis to choose along, a tuple of axes to choose along together, or None for all.
      where: broadcasts to `scores`. Entries where it is false do not exist: result and gradient are 0. Where fewer than
        `k` exist, all that exist are 1.
      weights: non-negative, broadcasts to `scores`. An entry of weight 2 acts as two equal entries.
      regularizer: `softbin.euclidean`, `softbin.binary_entropy`, or another of `softbin.regularizers`.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split. Inside the map, take the
        gradient of a function of the shard's own part of `y`: it is that of the sum of these over all shards.
      straight_through: make the hard choice of :func:`softbin.binary_argmax`, whose rule for `k` then holds (whole, or
        a JAX array, which is rounded), and keep the derivatives of the soft choice (Bengio et al., arXiv:1308.3432).
        Cannot be combined with weights.
      forward_mode: use `jax.custom_jvp` in place of `jax.custom_vjp`, as `jax.jvp` and `jax.jacfwd` need.
      implementation: None or "xla" runs everywhere. "pallas" searches for the threshold in a kernel for TPUs, and for
        GPUs from Hopper on, that reads the scores once; it takes float32 groups of up to 8,192 entries on one device,
        of a regularizer other than `normal` and `tsallis`, and leaves everything else to "xla".

    Returns:
      `y`, with the shape and dtype of `scores`. NaN where a traced `k` is outside [0, n] (with a mask and weights:
      negative or infinite) or a traced temperature is not positive. A group that is masked whole gives 0.

    Raises:
      TypeError: `scores` is not floating point, or `where` is not boolean.
      ValueError: a concrete `k` or temperature is out of range, shapes do not fit, `implementation` is unknown, or
        `straight_through` is combined with weights.

    Example:
      >>> scores = jnp.array([3.0, 1.0, 2.0, 0.0])
      >>> print(soft_binary_argmax(scores, k=2, temperature=0.5))
      [1. 0. 1. 0.]
      >>> print(soft_binary_argmax(scores, k=2, temperature=2.0))
      [1.   0.25 0.75 0.  ]

      Hard forward, soft backward:

      >>> def chosen(scores):
      ...     return soft_binary_argmax(scores, k=2, temperature=2.0, straight_through=True)
      >>> print(chosen(scores), jax.grad(lambda scores: chosen(scores)[2])(scores)[1:3])
      [1. 0. 1. 0.] [-0.25  0.25]

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, eq. 9 and Algorithm 1.
    """
    check_regularizer(regularizer)
    arguments, groups = checked_arguments(
        "scores", scores, k, temperature, axis=axis, where=where, weights=weights, axis_name=axis_name
    )
    thresholds.check_implementation(implementation)
    settings = {"regularizer": regularizer, "forward_mode": forward_mode, "implementation": implementation}
    hard = None
    if straight_through:
        if weights is not None:
            raise ValueError("straight_through chooses whole entries: leave out weights, or choose softly")
        hard = binary_argmax(scores, k, axis=axis, where=where, axis_name=axis_name)
    return meshes.run(_soft_binary_argmax, _of_scores, arguments, hard, groups=groups, **settings)


def _of_scores(specs: Any) -> PartitionSpec:
    return specs.scores


@partial(jax.jit, static_argnames=("groups", "regularizer", "forward_mode", "implementation"))
def _soft_binary_argmax(
    arguments: Arguments,
    hard: Float[Array, "*shape"] | None,
    *,
    groups: Groups,
    regularizer: Regularizer,
    forward_mode: bool,
    implementation: str | None,
) -> Float[Array, "*shape"]:
    problem = prepare(arguments, groups)
    arrays = problem.scores, problem.k, problem.temperature, problem.weights
    project = _project_forward_mode if forward_mode else _project
    y = project(*arrays, groups, regularizer, implementation, problem.k_rest)
    if hard is not None:
        valid = ~(jnp.isnan(problem.k) | jnp.isnan(problem.temperature))
        y = _straight_through(jnp.where(valid, hard.astype(y.dtype), jnp.nan), y)
    if problem.mask is not None:
        y = jnp.where(problem.mask, y, 0)
    return y.astype(jnp.result_type(arguments.scores))


@jax.custom_jvp
def _straight_through(hard: Float[Array, "*shape"], soft: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The hard choice with the derivative of the soft one, which is not worked out where none is asked for."""
    del soft
    return hard


_straight_through.defjvps(None, lambda tangent, *_: tangent)


def threshold(
    scores: Float[ArrayLike, "*shape"],
    k: Count,
    temperature: Real[ArrayLike, "..."] = 1.0,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    regularizer: Regularizer = euclidean,
    axis_name: Any = None,
) -> Float[Array, "..."]:
    r"""The threshold `λ` between what :func:`soft_binary_argmax` chooses and the rest: `Σ w ψ(x/τ - λ) = k`.

    Where a whole interval of thresholds gives the same selection (every entry saturated), its middle is
    returned: the threshold with the widest margin. At `k = 0` and `k = n` it is the nearest end.

    Args and raises: as for :func:`soft_binary_argmax`. With an `axis_name` every shard gets the same thresholds; the
    note on `axis_name` in :func:`softbin.loss` holds for their gradient.

    Returns:
      `λ`, in units of `scores / temperature`, without `axis`. A single float cannot hold it to full accuracy
      when the scores share a large offset; :func:`soft_binary_argmax` itself does not use this float.

    Example:
      >>> scores = jnp.array([3.0, 1.0, 2.0, 0.0])
      >>> lam = threshold(scores, k=2, temperature=2.0)
      >>> print(lam, euclidean.link(scores / 2.0 - lam))
      0.25 [1.   0.25 0.75 0.  ]

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026.
    """
    check_regularizer(regularizer)
    arguments, groups = checked_arguments(
        "scores", scores, k, temperature, axis=axis, where=where, weights=weights, axis_name=axis_name
    )

    def of_groups(specs: Any) -> PartitionSpec:
        return groups.sharding(specs.scores)

    return meshes.run(_threshold, of_groups, arguments, groups=groups, regularizer=regularizer)


@partial(jax.jit, static_argnames=("groups", "regularizer"))
def _threshold(arguments: Arguments, *, groups: Groups, regularizer: Regularizer) -> Float[Array, "..."]:
    centre = solve(prepare(arguments, groups), regularizer).centre()
    return jnp.squeeze(centre, groups.axes).astype(jnp.result_type(arguments.scores))


def project_hypersimplex(
    point: Float[ArrayLike, "*shape"],
    k: Count,
    *,
    axis: int | Sequence[int] | None = -1,
    where: Bool[ArrayLike, "..."] | None = None,
) -> Float[Array, "*shape"]:
    r"""The point of the hypersimplex `{y in [0, 1]^n : Σ y = k}` that is nearest to a given point.

    .. math:: \arg\min_{y \in [0, 1]^n,\ \sum_i y_i = k} \lVert y - x \rVert_2.

    This is :func:`soft_binary_argmax` of `point` at temperature 1, differentiable in forward and in reverse mode.

    Args and raises: as for :func:`soft_binary_argmax`.

    Returns:
      The nearest point, with the shape and dtype of `point`.

    Example:
      >>> print(project_hypersimplex(jnp.array([1.0, 0.25, 0.5]), k=1))
      [0.75 0.   0.25]

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, eq. 9.
    """
    arguments, groups = checked_arguments("point", point, k, axis=axis, where=where)
    settings = {"regularizer": euclidean, "forward_mode": True, "implementation": None}
    return meshes.run(_soft_binary_argmax, _of_scores, arguments, None, groups=groups, **settings)


def _project_forward_mode(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
    k_rest: Float[Array, "*group"] | None,
) -> Float[Array, "*shape"]:
    found = thresholds.solve(scores, k, temperature, weights, groups, regularizer, implementation, k_rest)
    return regularizer.link(thresholds.excess(scores, found, temperature))


_project = jax.custom_vjp(_project_forward_mode, nondiff_argnums=(4, 5, 6))


def _project_fwd(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
    k_rest: Float[Array, "*group"] | None,
) -> tuple[Float[Array, "*shape"], tuple]:
    found = thresholds.solve(scores, k, temperature, weights, groups, regularizer, implementation, k_rest)
    y = regularizer.link(thresholds.excess(scores, found, temperature))
    return y, (scores, found, temperature, weights, k_rest)


def _project_bwd(
    groups: Groups, regularizer: Regularizer, implementation: str | None, residuals: tuple, g: Float[Array, "*shape"]
) -> tuple:
    scores, found, temperature, weights, k_rest = residuals
    u = thresholds.excess(scores, found, temperature)
    return *pull_back(u, temperature, weights, g, groups, regularizer), jax.tree.map(jnp.zeros_like, k_rest)


_project.defvjp(_project_fwd, _project_bwd)


def pull_back(
    u: Float[Array, "*shape"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    g: Float[Array, "*shape"],
    groups: Groups,
    regularizer: Regularizer,
) -> tuple[Float[Array, "*shape"], Float[Array, "*group"], Float[Array, "*group"], Any]:
    """The transposed Jacobian of `y` at `u = x/τ - λ`: `g` by the entries to that by scores, `k`, temperature, weights.

    With `d = ψ'(u)`, `D = Σ w d` and `c = Σ d g / D`, by the scores it is `d (g - w c) / τ`.
    """
    whole, fraction, slope = regularizer.parts(u)
    by_k = thresholds.safe_ratio(*groups.totals([slope * g, weighted(slope, weights)]))
    by_scores = slope * (g - weighted(by_k, weights)) * (1 / temperature)
    by_temperature = -groups.total(by_scores * jnp.where(jnp.isinf(u), 0, u))
    by_weights = None if weights is None else -by_k * (whole + fraction)
    return by_scores, by_k, by_temperature, by_weights
