"""Quantiles of prepared entries at one level: two adjacent order statistics, and what lies between them."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float, Real

from softbin._engine import exact_ranks
from softbin._engine.arguments import Arguments, Choice, prepare
from softbin._engine.choices import kth_value, neighbours
from softbin._engine.exact_ranks import Level, Rank
from softbin._engine.groups import Groups
from softbin._engine.projections import solve
from softbin.regularizers import euclidean

BETWEEN = ("linear", "midpoint")
"""Methods that take two entries."""


def of_entries(choice: Choice, level: Level, method: str, divisor: int, groups: Groups) -> Float[Array, "*group"]:
    """The quantile of each group; NaN with NaN, without entries, and where the level was out of range."""
    size = choice.size
    rank = exact_ranks.place(level, size, method, divisor, choice.scores.dtype)
    if method in BETWEEN:
        value = _between(choice, rank, groups)
    else:
        value = kth_value(_with_k(choice, size - rank.below), groups, None)
    return jnp.where(level.valid & (size > 0), value, jnp.nan)


def of_weighted(negative: Choice, level: Level, divisor: int, groups: Groups) -> Float[Array, "*group"]:
    """The least entry that, with all below, has a share of the weight; of entries that were negated.

    So it is the largest of these by which the weight from above reaches the share.
    """
    total = negative.size
    k = exact_ranks.share(lax.stop_gradient(total), level.digits, divisor)
    k = jnp.where(k > 0, k, jnp.finfo(k.dtype).tiny)  # the first that there is
    value = kth_value(_with_k(negative, k), groups, None)
    value = jnp.where(value == 0, 0, -value)
    return jnp.where(level.valid & (total > 0) & jnp.isfinite(total), value, jnp.nan)


def smooth(
    choice: Choice, level: Level, temperature: Real[ArrayLike, "..."], divisor: int, groups: Groups
) -> Float[Array, "*group"]:
    """`τ (λ + 1/2)`, where `λ` is the threshold of a budget by which an entry of a whole rank is chosen by half."""
    size, dtype = choice.size, choice.scores.dtype
    rank = exact_ranks.place(level, size, "linear", divisor, dtype)
    above = jnp.maximum(size - 1, 0) - rank.below
    k = above.astype(dtype) + (0.5 - rank.fraction)
    rest = None
    if not groups.counts_fit(choice.scores.shape, dtype):
        whole = above.astype(dtype)
        rest = (above - whole.astype(jnp.int32)).astype(dtype) + lax.stop_gradient(0.5 - rank.fraction - (k - whole))
    k = jnp.squeeze(k, groups.axes) if k.ndim else k
    problem = prepare(Arguments(choice.scores, k, temperature, choice.mask, None, rest), groups)
    half = euclidean.inverse_link(*[jnp.full((), 0.5, dtype)] * 2)
    value = problem.temperature * (solve(problem, euclidean).centre() + half)
    return jnp.where(level.valid & (size > 0), value, jnp.nan)


def _with_k(choice: Choice, k: Array) -> Choice:
    """The choice of so many of each group, of at least one."""
    k = jnp.maximum(k, 1) if jnp.issubdtype(k.dtype, jnp.integer) else k
    return choice._replace(k=jnp.broadcast_to(k, choice.k.shape))


def _between(choice: Choice, rank: Rank, groups: Groups) -> Float[Array, "*group"]:
    above = choice.size - 1 - rank.below
    low, high = neighbours(_with_k(choice, above), groups)
    low = jnp.where(above > 0, low, high)  # there is none after the largest
    value = _interpolate(lax.stop_gradient(choice), low, high, rank, groups)
    return jnp.where(jnp.isnan(high), jnp.nan, value)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _interpolate(
    choice: Choice, low: Float[Array, "*group"], high: Float[Array, "*group"], rank: Rank, groups: Groups
) -> Float[Array, "*group"]:
    """The quantile; by its level, its derivative is the slope, and where slopes meet the mean of the two."""
    del choice, groups
    return exact_ranks.interpolate(low, high, rank.digits)


@partial(_interpolate.defjvp, symbolic_zeros=True)
def _interpolate_jvp(groups: Groups, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    choice, low, high, rank = primals
    _, of_low, of_high, of_rank = tangents
    value = _interpolate(choice, low, high, rank, groups)
    change = jnp.zeros_like(value)
    if not isinstance(of_low, SymbolicZero):
        change += (1 - rank.fraction) * of_low
    if not isinstance(of_high, SymbolicZero):
        change += rank.fraction * of_high
    if not isinstance(of_rank.fraction, SymbolicZero):
        change += _slope(choice, low, high, rank, groups) * of_rank.fraction
    return value, change


def _slope(
    choice: Choice, low: Float[Array, "*group"], high: Float[Array, "*group"], rank: Rank, groups: Groups
) -> Float[Array, "*group"]:
    """By the rank. At an entry there is a slope to either side, but for the first and the last."""
    size, index = choice.size, rank.below
    before = kth_value(_with_k(choice, jnp.minimum(size - index + 1, size)), groups, None)
    right, left = _rise(low, high), _rise(before, low)
    mean = (right + left) / 2
    mean = jnp.where(index == 0, right, jnp.where(index >= size - 1, left, mean))
    return jnp.where(jnp.any(rank.digits > 0, 0), right, mean)


def _rise(low: Float[Array, "*group"], high: Float[Array, "*group"]) -> Float[Array, "*group"]:
    return jnp.where(low == high, 0, high - low)
