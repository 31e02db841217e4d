"""Routers of mixtures of experts: gates, and biases that balance the load of the experts over all tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from softbin._engine import meshes
from softbin._engine.arguments import as_computed
from softbin._engine.checks import check_axis_name, check_floating, check_gate, check_router, known_value
from softbin._engine.counting import SUM, arrange, statistics
from softbin._engine.groups import Groups, is_symbolic
from softbin.hard_choices import binary_argmax, cutoff

__all__ = [  # noqa: RUF022 (as the pages show them)
    "gates",
    "router_scores",
    "quantile_bias",
    "margins",
    "bias_from_margins",
]

_Chosen = int | Int[Array, ""]
"""How many experts a token chooses: known, or not yet."""


def gates(
    logits: Float[ArrayLike, "*tokens experts"],
    bias: Float[ArrayLike, " experts"],
    k: Real[ArrayLike, ""],
    *,
    gate: str = "softmax",
    scale: Real[ArrayLike, ""] = 1.0,
    where: Bool[ArrayLike, "*tokens"] | None = None,
) -> Float[Array, "*tokens experts"]:
    r"""The weight with which each token goes to each expert: the bias takes part in the choice, not in the weight.

    A bias that balances the load of the experts must not change what an expert contributes once it is chosen. So a
    token chooses the `k` experts with the largest `scores + bias`, and its gates come from the scores alone, normalised
    over the chosen. With the scores :math:`s_j`, the logits under `"softmax"` and their sigmoid under `"sigmoid"`,

    .. math::
        g_j = \mathrm{scale} \cdot \frac{w_j}{\sum_{l \text{ chosen}} w_l} \; \text{ for chosen } j, \text{ else } 0,
        \qquad w_j = e^{s_j} \text{ under "softmax", } s_j \text{ under "sigmoid".}

    For dispatch, `softbin.top_k(gates, k)` has the weights and the experts of each token. Where groups of experts are
    chosen first, set the logits of the others to `-inf`. For weights that are not normalised, such as plain sigmoids or
    a softmax over all experts, multiply these by `softbin.binary_argmax(scores + bias, k)`.

    Args:
      logits: floating point; the last axis is that of the experts, all others are tokens. A token cannot use an expert
        whose logit is `-inf`: that gate is 0, and a token that can use fewer than `k` experts goes to all of those.
      bias: one number per expert, which the tokens choose with: from :func:`quantile_bias` of :func:`router_scores`, or
        zeros. It gets no gradient.
      k: how many experts a token chooses, whole, at least 1 and less than the number of experts. May be traced.
      gate: `"softmax"`, or `"sigmoid"`, as in DeepSeek-V3 and its descendants.
      scale: what the gates of a token add up to, positive.
      where: of the shape of the tokens; the gates of tokens where it is false are 0.

    Returns:
      The gates, in the dtype of `logits`, computed in float32 at least; NaN for a token with NaN.

    Raises:
      TypeError: `logits` or `bias` is not floating point, `where` is not boolean, or `k` or `scale` is not a number.
      ValueError: `gate` is unknown, a concrete `scale` is not positive, a concrete `k` is out of range or not whole, or
        shapes do not fit.

    Example:
      >>> logits, bias = jnp.array([3.0, 1.0, 1.0]), jnp.array([-9.0, 0.0, 0.0])
      >>> print(gates(logits[None], bias, k=2), gates(logits[None], 0 * bias, k=1, gate="sigmoid", scale=2.5))
      [[0.  0.5 0.5]] [[2.5 0.  0. ]]

    References:
      DeepSeek-AI, `DeepSeek-V3 Technical Report <https://arxiv.org/abs/2412.19437>`_, 2024, eq. 12 to 16.
    """
    check_gate(gate, scale)
    check_router(logits, bias, k, where, name="logits")
    return meshes.run_with_k(partial(_gates, gate=gate), _same, _rounded(k), logits, bias, scale, where)


def router_scores(
    logits: Float[ArrayLike, "*tokens experts"], *, gate: str = "softmax"
) -> Float[Array, "*tokens experts"]:
    """The scores that a router adds its bias to, and that :func:`quantile_bias` balances: logits, or their sigmoid.

    Args:
      logits: floating point; `-inf` for an expert that a token cannot use.
      gate: that of :func:`gates`.

    Returns:
      The logits under `"softmax"`, their sigmoid under `"sigmoid"`, in float32 at least. Where a logit is `-inf`, so is
      the score, and no bias lifts it.

    Raises:
      TypeError: `logits` is not floating point.
      ValueError: `gate` is unknown.

    Example:
      >>> print(router_scores(jnp.array([0.0, -jnp.inf]), gate="sigmoid"))
      [ 0.5 -inf]
    """
    check_gate(gate)
    check_floating("logits", logits)
    return meshes.run(_scored, _same, logits, gate=gate)


def quantile_bias(
    scores: Float[ArrayLike, "*tokens experts"],
    bias: Float[ArrayLike, " experts"],
    k: Real[ArrayLike, ""],
    *,
    where: Bool[ArrayLike, "*tokens"] | None = None,
    axis_name: Any = None,
) -> Float[Array, " experts"]:
    r"""One step of quantile balancing: towards biases with which equally many tokens choose each expert.

    A token chooses the `k` experts with the largest `scores + bias`. With the cutoff :math:`\alpha_i` of each token, in
    the middle between its k-th largest and the next, the new bias of an expert is

    .. math::
        b_j = -\operatorname{cutoff}_{m_j} \{ x_{ij} - \alpha_i : i \}, \qquad m_j = \sum_i \min(k / u_i, 1),

    where :func:`softbin.cutoff` is in the middle between the m-th largest over all tokens that can use the expert and
    the next, and :math:`u_i` is the number of experts that a token can use. So the target of an expert is the load that
    it would have if all tokens spread their choices evenly: `n k / E` of `n` tokens if each can use all `E` experts.
    This is coordinate descent on the dual of the balanced assignment; once nothing changes any more, each expert has
    its target. In each step of training make one such step: begin with zeros, choose with the current bias, and keep
    the new one for the next batch, in a variable that no optimizer sees.

    A token can use the experts whose score is not `-inf`. A batch says nothing about an expert that no token can use,
    or whose target rounds to none or to all of the tokens that can use it: that expert keeps its bias. The others move,
    and their mean stays; where all move, the mean becomes 0. If a score that counts is NaN, the whole bias stays as it
    is.

    There is no sort, and on a sharded batch no gather: each round of the search is an all-reduce of a few numbers per
    expert. For one step from microbatches, pool their :func:`margins`.

    Args:
      scores: floating point; the last axis is that of the experts, all others are tokens. For a router with sigmoids,
        take :func:`router_scores`.
      bias: one number per expert, which the tokens choose with now.
      k: how many experts a token chooses, whole, at least 1 and less than the number of experts. May be traced.
      where: of the shape of the tokens; those where it is false do not count.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which the first axis is split.

    Returns:
      The new bias, in the dtype of `bias`, sharded as it is, and without a gradient.

    Raises:
      TypeError: `scores` or `bias` is not floating point, `where` is not boolean, or `k` is not a number.
      ValueError: a concrete `k` is out of range or not whole, or shapes do not fit.

    Example:
      >>> import softbin
      >>> scores = jnp.array([[3.0, 1.0, 0.0], [2.0, 1.5, 0.1], [4.0, 1.0, 3.0]])  # all tokens prefer the first expert
      >>> bias = jnp.zeros(3)
      >>> for _ in range(3):
      ...     bias = quantile_bias(scores, bias, k=1)
      >>> print(*(f"{b:.2f}" for b in bias), softbin.binary_argmax(scores + bias, k=1).sum(0))
      -1.03 0.22 0.81 [1. 1. 1.]

    References:
      The balanced assignment is that of Lewis et al., `BASE Layers <https://arxiv.org/abs/2103.16716>`_, 2021; the step
      is Su's quantile balancing, 2026.
    """
    check_router(scores, bias, k, where)
    check_axis_name(axis_name)
    moved = meshes.run_with_k(partial(_stepped, axis_name=axis_name), _same, _rounded(k), bias, scores, where)
    return meshes.placed_as(moved, bias)


def margins(
    scores: Float[ArrayLike, "*tokens experts"],
    bias: Float[ArrayLike, " experts"],
    k: Real[ArrayLike, ""],
    *,
    where: Bool[ArrayLike, "*tokens"] | None = None,
) -> Float[Array, "*tokens experts"]:
    r"""The first half of :func:`quantile_bias`: what to keep of each microbatch, for one step by the whole batch.

    Where a step of training works through microbatches, the bias should move once, by all of them: a bias that moves
    after each would be that of the last. Keep the margins of each, and hand all to :func:`bias_from_margins`. That is
    the step of the whole batch, as long as all microbatches choose with the same bias. The margin of a token and an
    expert,

    .. math::
        x_{ij} - \alpha_i,

    is how far its score is above the cutoff between those that the token chooses and the others.

    Args:
      scores, bias, k, where: as for :func:`quantile_bias`. No `axis_name` is needed, since a token has its margins by
        itself.

    Returns:
      The margins, in float32 at least, without a gradient. `-inf` marks what does not count: a token that is masked, or
      an expert that a token cannot use. `inf` marks what is chosen whatever the bias, where a token can use no more
      than `k` experts. A token with NaN has NaN in every place. So the margins include the mask, and nothing else has
      to be kept.

    Raises:
      TypeError, ValueError: as for :func:`quantile_bias`.

    Example:
      >>> import jax
      >>> microbatches = jnp.array([[[3.0, 1.0, 0.0], [2.0, 1.5, 0.1]], [[4.0, 1.0, 3.0], [0.5, 0.2, 0.3]]])
      >>> bias = jnp.zeros(3)
      >>> _, kept = jax.lax.scan(lambda carry, part: (carry, margins(part, bias, k=1)), None, microbatches)
      >>> moved, expected = bias_from_margins(kept, bias, k=1), quantile_bias(microbatches, bias, k=1)
      >>> print(*(f"{b:.2f}" for b in moved), moved == expected)
      -0.68 0.30 0.38 [ True  True  True]
    """
    check_router(scores, bias, k, where)
    return meshes.run_with_k(_margins, _same, _rounded(k), scores, bias, where)


def bias_from_margins(
    margins: Float[ArrayLike, "*tokens experts"],
    bias: Float[ArrayLike, " experts"],
    k: Real[ArrayLike, ""],
    *,
    axis_name: Any = None,
) -> Float[Array, " experts"]:
    """The second half of :func:`quantile_bias`: the bias that balances the margins of all tokens.

    Args:
      margins: from :func:`margins`; the last axis is that of the experts, all others are tokens, such as those of a
        `jax.lax.scan` over microbatches. `-inf` where they do not count.
      bias, k: those that the margins were taken with.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which the tokens are split.

    Returns:
      The new bias, as from :func:`quantile_bias`.

    Raises:
      TypeError, ValueError: as for :func:`quantile_bias`.

    Example:
      >>> scores, bias = jnp.array([[3.0, 1.0, 0.0], [2.0, 1.5, 0.1], [4.0, 1.0, 3.0]]), jnp.zeros(3)
      >>> print(bias_from_margins(margins(scores, bias, k=1), bias, k=1) == quantile_bias(scores, bias, k=1))
      [ True  True  True]
    """
    check_router(margins, bias, k, None, name="margins")
    check_axis_name(axis_name)
    moved = meshes.run_with_k(partial(_balanced, axis_name=axis_name), _same, _rounded(k), bias, margins)
    return meshes.placed_as(moved, bias)


def _same(spec: PartitionSpec) -> PartitionSpec:
    return spec


def _rounded(k: Real[ArrayLike, ""]) -> Any:
    known = known_value(k)
    return jnp.round(k).astype(jnp.int32) if known is None else int(np.round(known))


def _scored(logits: Float[ArrayLike, "*tokens experts"], *, gate: str) -> Float[Array, "*tokens experts"]:
    logits = as_computed(logits)
    return jnp.where(logits == -jnp.inf, logits, jax.nn.sigmoid(logits)) if gate == "sigmoid" else logits


def _gates(
    logits: Float[ArrayLike, "*tokens experts"],
    bias: Float[ArrayLike, " experts"],
    scale: Real[ArrayLike, ""],
    where: Bool[ArrayLike, "*tokens"] | None,
    *,
    k: _Chosen,
    gate: str,
) -> Float[Array, "*tokens experts"]:
    dtype, logits = jnp.result_type(logits), as_computed(logits)
    if where is not None:
        where = jnp.asarray(where)[..., None]
        logits = jnp.where(where, logits, 0)
    scores = lax.stop_gradient(_scored(logits, gate=gate) + jnp.asarray(bias).astype(logits.dtype))
    chosen = binary_argmax(scores, k)
    taken = (chosen > 0) & (scores > -jnp.inf)
    some = jnp.any(taken, -1, keepdims=True)
    powers = jnp.where(taken, logits, 0)  # w as exp(power): exact where a sigmoid underflows
    powers = jax.nn.log_sigmoid(powers) if gate == "sigmoid" else powers
    shares = jnp.where(some, jax.nn.softmax(powers, where=taken | ~some), 0) * jnp.asarray(scale, logits.dtype)
    shares = jnp.where(jnp.isnan(chosen), chosen, shares)
    return (shares if where is None else jnp.where(where, shares, 0)).astype(dtype)


def _stepped(
    bias: Float[ArrayLike, " experts"],
    scores: Float[ArrayLike, "*tokens experts"],
    where: Bool[ArrayLike, "*tokens"] | None,
    *,
    k: _Chosen,
    axis_name: Any,
) -> Float[Array, " experts"]:
    return _balanced(bias, _margins(scores, bias, where, k=k), k=k, axis_name=axis_name)


def _margins(
    scores: Float[ArrayLike, "*tokens experts"],
    bias: Float[ArrayLike, " experts"],
    where: Bool[ArrayLike, "*tokens"] | None,
    *,
    k: _Chosen,
) -> Float[Array, "*tokens experts"]:
    scores = lax.stop_gradient(as_computed(scores))
    biased = scores + lax.stop_gradient(jnp.asarray(bias).astype(scores.dtype))
    if 0 in scores.shape:
        return scores
    found = scores - cutoff(biased, k, axis=-1)[..., None]
    found = jnp.where(jnp.isinf(biased), biased, found)
    return found if where is None else jnp.where(jnp.asarray(where)[..., None], found, -jnp.inf)


def _balanced(
    bias: Float[ArrayLike, " experts"], margins: Float[ArrayLike, "*tokens experts"], *, k: _Chosen, axis_name: Any
) -> Float[Array, " experts"]:
    bias, margins = lax.stop_gradient((jnp.asarray(bias), as_computed(margins)))
    if 0 in margins.shape:
        return bias
    before, tokens = bias.astype(margins.dtype), tuple(range(margins.ndim - 1))
    targets = _targets(margins != -jnp.inf, k, Groups(tokens, axis_name))
    found = -cutoff(margins, targets, axis=tokens, axis_name=axis_name)
    moves = jnp.isfinite(found) & jnp.isfinite(before)
    kept = jnp.where(jnp.all(moves), 0, before)  # a shift of all changes no choice
    shift = jnp.sum(jnp.where(moves, found - kept, 0)) / jnp.maximum(jnp.sum(moves), 1).astype(found.dtype)
    return jnp.where(moves, found - shift, before).astype(bias.dtype)


def _targets(usable: Bool[Array, "*tokens experts"], k: _Chosen, groups: Groups) -> Int[Array, " experts"]:
    """How many tokens an expert has if each spreads its `k` evenly over those it can use, halves rounded down.

    In integers, the digits behind the point in two parts, so that the sum is the same in whatever order it is taken.
    """
    n = groups.size(usable.shape)
    digits = 10 if is_symbolic(n) else max(min(10, 30 - n.bit_length()), 1)
    experts = jnp.maximum(jnp.sum(usable, -1, keepdims=True, dtype=jnp.int32), 1)
    share = jnp.minimum(k, experts) << digits
    parts = lax.div(share, experts), lax.div(lax.rem(share, experts) << digits, experts)
    layout = arrange(usable.shape, groups, manual=meshes.is_manual(usable))
    entries = [(SUM, layout.enter(jnp.where(usable, part, 0), 0)) for part in parts]
    coarse, fine = (jnp.squeeze(layout.leave_groups(total), groups.axes) for total in statistics(entries, layout))
    return (coarse + (fine >> digits) + (1 << digits - 1) - 1) >> digits
