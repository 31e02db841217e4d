"""Routers of mixtures of experts: biases that balance the load of the experts over all tokens."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from softbin import budgets
from softbin.arguments import check_floating, check_mask, computed_in, known_value
from softbin.hard_choices import cutoff


def quantile_bias(
    scores: Float[ArrayLike, "*tokens experts"],
    bias: Float[ArrayLike, " experts"],
    k: Real[ArrayLike, ""],
    *,
    where: Bool[ArrayLike, "*tokens"] | None = None,
    axis_name: Any = None,
) -> Float[Array, " experts"]:
    r"""One step of quantile balancing: biases under which all experts are chosen by as many tokens.

    A token chooses the `k` experts with the largest `scores + bias`. With the cutoff :math:`\alpha_i` of each token, in
    the middle between its k-th largest and the next, the new bias of an expert is

    .. math::
        b_j = -\operatorname{cutoff}_m \{ x_{ij} - \alpha_i : i \}, \qquad m = n k / E,

    less the mean of all, where :func:`softbin.cutoff` is in the middle between the m-th largest over all `n` tokens and
    the next. It is coordinate descent on the dual of the balanced assignment. Where nothing changes any more, each of
    `E` experts has `n k / E` tokens. A step of training makes one step: begin with zeros, choose with the bias that
    there is, and keep the new one for the next batch, as a variable that no optimizer sees. An expert of which a batch
    says nothing keeps its bias: where `m` rounds to none or all of the tokens, or a score that counts is NaN.

    No sort, and on a sharded batch no gather: each round of the search is an all-reduce of a few numbers per expert.

    Args:
      scores: floating point, the last axis is that of the experts; all others are tokens.
      bias: that the tokens choose with now.
      k: how many experts a token chooses, whole, at least 1 and less than there are.
      where: of the shape of the tokens; those where it is false do not count.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which the first axis is split.

    Returns:
      The new bias, in the dtype of `bias` and without a gradient.

    Raises:
      TypeError: `scores` or `bias` is not floating point, `where` is not boolean, or `k` is a share.
      ValueError: `k` is known when traced, and out of range or not whole, or shapes do not fit.

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
    if 0 in jnp.shape(scores):
        return jnp.asarray(bias)
    dtype = computed_in(scores)
    scores, before = (lax.stop_gradient(jnp.asarray(value, dtype)) for value in (scores, bias))
    of_token = cutoff(scores + before, k, axis=-1)
    margins = scores - of_token[..., None]
    where = None if where is None else jnp.asarray(where)[..., None]
    tokens = tuple(range(scores.ndim - 1))
    share = budgets.fraction(k / scores.shape[-1])
    moved = -cutoff(margins, share, axis=tokens, where=where, axis_name=axis_name)
    moved = jnp.where(jnp.isfinite(moved), moved, before)
    return (moved - jnp.mean(moved)).astype(jnp.result_type(bias))


def check_router(scores, bias, k, where) -> None:
    """Refuse what is known to be wrong before anything is traced."""
    check_floating("scores", scores)
    check_floating("bias", bias)
    check_mask(where)
    shape = jnp.shape(scores)
    if len(shape) < 2 or jnp.shape(bias) != shape[-1:]:
        raise ValueError(f"scores must be (..., experts) and bias (experts,), got shapes {shape} and {jnp.shape(bias)}")
    if where is not None and jnp.shape(where) != shape[:-1]:
        raise ValueError(f"where with shape {jnp.shape(where)} must have one entry per token: shape {shape[:-1]}")
    check_experts(shape[-1], k)


def check_experts(num_experts: int, k: Any) -> None:
    """With none or all of them chosen there is nothing to balance."""
    if isinstance(k, budgets.Share) or callable(k):
        raise TypeError(f"k must be the number of experts that a token chooses, got {k!r}")
    known = known_value(k)
    if known is not None and not 1 <= known < num_experts:
        raise ValueError(f"k must be at least 1 and less than the number of experts, {num_experts}, got {k}")
