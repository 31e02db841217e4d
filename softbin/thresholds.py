"""The solver: the threshold at which the link sums to the budget.

For scores `x`, temperature `τ`, weights `w` and budget `k`, along one axis, find the root of the decreasing
function (design: one scalar equation)

    F(λ) = Σ_i w_i ψ(x_i/τ - λ) - k.

`search` finds it, `solve` is the same with its implicit derivative, `centre` picks the middle where the
root is an interval. All three work on any axis in place, without a sort and without a transposition, and
keep that axis with length one. Entries with score `-inf` take no part; that is how a mask is expressed.

A float32 threshold cannot separate scores near 1e6, so it is carried in two parts and in the units of the
scores: `τλ = coarse + fine`, and `u = ((x - coarse) - fine)/τ`, where the first difference is exact for the
scores that matter.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from softbin.regularizers import Regularizer

_BLOCK = 256
_TOLERANCE = 8  # machine epsilons, relative to the sum of the fractions
_ROUNDS_PER_BIT = 4  # a bound that no input comes near; see tests/test_thresholds.py


class Threshold(NamedTuple):
    """The threshold times the temperature, as the sum of a float and a correction below its last digit."""

    coarse: Float[Array, "*group"]
    fine: Float[Array, "*group"]

    def __lt__(self, other):
        return (self.coarse < other.coarse) | ((self.coarse == other.coarse) & (self.fine < other.fine))


class _Sums(NamedTuple):
    residual: Float[Array, "*group"]  # F
    slope: Float[Array, "*group"]  # -F', by u
    rounding: Float[Array, "*group"]  # bounds the error of the residual, in machine epsilons


class _State(NamedTuple):
    below: Threshold  # F >= 0 here
    above: Threshold  # F <= 0 here
    trial: Threshold
    residual: Float[Array, "*group"]  # at the trial before
    bisected: Bool[Array, "*group"]  # how this trial was chosen
    done: Bool[Array, "*group"]
    rounds: Int[Array, ""]


@jax.custom_jvp
def excess(scores, threshold: Threshold, temperature) -> Float[Array, "*shape"]:
    """`u = x/τ - λ`, without cancellation; an infinite one has zero derivatives, and not NaN."""
    return ((scores - threshold.coarse) - threshold.fine) / temperature


@excess.defjvp
def _excess_jvp(primals, tangents):
    scores, threshold, temperature = primals
    dscores, dthreshold, dtemperature = tangents
    u = excess(scores, threshold, temperature)
    infinite = jnp.isinf(u)
    change = (dscores - dthreshold.coarse - dthreshold.fine) - jnp.where(infinite, 0, u) * dtemperature
    return u, jnp.where(infinite, 0, change / temperature)


def total(values, axis: int, axis_name=None) -> Float[Array, "*group"]:
    """Sum along `axis`, kept with length one, and over the mapped axis `axis_name`.

    Sums in blocks, since XLA's CPU backend adds one by one and would lose digits on long axes. The block
    divides the length where it can, so that a sharded axis stays sharded.
    """
    partial_sums = values
    while (n := partial_sums.shape[axis]) > _BLOCK:
        block = next((b for b in range(_BLOCK, _BLOCK // 8, -1) if n % b == 0), None)
        if block is None:
            full = n - n % _BLOCK
            rest = lax.slice_in_dim(partial_sums, full, n, axis=axis)
            partial_sums = lax.slice_in_dim(partial_sums, 0, full, axis=axis)
            n, block = full, _BLOCK
        else:
            rest = None
        shape = partial_sums.shape
        partial_sums = jnp.sum(partial_sums.reshape(*shape[:axis], n // block, block, *shape[axis + 1 :]), axis + 1)
        if rest is not None:
            partial_sums = jnp.concatenate([partial_sums, jnp.sum(rest, axis, keepdims=True)], axis)
    result = jnp.sum(partial_sums, axis, keepdims=True)
    return result if axis_name is None else lax.psum(result, axis_name)


def weighted(values, weights):
    """`w v`, where no weights are weights of 1."""
    return values if weights is None else values * weights


def _largest(values, axis, axis_name):
    result = jnp.max(values, axis, keepdims=True)
    return result if axis_name is None else lax.pmax(result, axis_name)


def _smallest(values, axis, axis_name):
    return -_largest(-values, axis, axis_name)


def _ordered_bits(x):
    """Integers in the order of the floats, neighbours next to each other; its own inverse on the bits."""
    bits = lax.bitcast_convert_type(x, jnp.int32 if x.dtype == jnp.float32 else jnp.int64)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _middle(a, b):
    """The float halfway between two floats in the count of floats: 32 halvings reach any float32."""
    a_bits, b_bits = _ordered_bits(a), _ordered_bits(b)
    bits = (a_bits & b_bits) + ((a_bits ^ b_bits) >> 1)
    return lax.bitcast_convert_type(jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits), a.dtype)


def _bisect(below: Threshold, above: Threshold) -> Threshold:
    """Halve the coarse part until its ends are neighbours, then the gap between them, then the fine part."""
    half = (above.coarse - below.coarse) / 2
    coarse = _middle(below.coarse, above.coarse)
    neighbours = (coarse == below.coarse) & (coarse != above.coarse)
    # The middle of the gap may be written from either end; as the upper end it is written from below.
    from_below = neighbours & (above.fine == -half)
    fine = _middle(below.fine, jnp.where(from_below, half, above.fine))
    at_gap = neighbours & ~from_below
    coarse = jnp.where(at_gap, above.coarse, coarse)
    fine = jnp.where(at_gap, -half, fine)
    same = from_below | (below.coarse == above.coarse)
    return Threshold(coarse, jnp.where(at_gap | same, fine, 0))


def _shift(threshold: Threshold, by) -> Threshold:
    by = threshold.fine + by
    coarse = threshold.coarse + by
    return Threshold(coarse, by - (coarse - threshold.coarse))


def search(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    axis: int,
    regularizer: Regularizer,
    axis_name=None,
) -> tuple[Threshold, Int[Array, ""]]:
    """The root of F, and the number of rounds (sums over the scores) that finding it took.

    Newton's method, which is exact as soon as the active set is right, inside a bracket that is bisected
    in the bits of a float whenever Newton leaves it or does not halve the residual. Every array but the
    scores and weights has length one along `axis`. A group with NaN ends at once and stays NaN.
    """
    dtype = scores.dtype
    limit = jnp.finfo(dtype).max
    sum_ = partial(total, axis=axis, axis_name=axis_name)

    # Infinite scores are settled: +inf spends budget, -inf takes no part. The others see what is left.
    free = jnp.isfinite(scores) | jnp.isnan(scores)
    size = sum_(weighted(free.astype(dtype), weights))
    settled = sum_(weighted((scores == jnp.inf).astype(dtype), weights))
    k = jnp.clip(k, settled, settled + size)
    divisor = jnp.where(size > 0, size, 1)
    mean = sum_(weighted(jnp.where(free, scores, 0), weights)) / divisor
    lowest = _smallest(jnp.where(free, scores, jnp.inf), axis, axis_name)
    highest = _largest(jnp.where(free, scores, -jnp.inf), axis, axis_name)

    # n ψ(lowest/τ - λ) <= k <= n ψ(highest/τ - λ) brackets the root; if all entries are active it is at
    # the mean (euclidean).
    share, rest = (k - settled) / divisor, (size - (k - settled)) / divisor
    offset = temperature * regularizer.inverse_link(share, rest)

    def end(extreme, direction):
        slack = 4 * jnp.finfo(dtype).eps * (jnp.abs(extreme) + jnp.abs(offset) + temperature)
        value = jnp.clip(extreme - offset + direction * slack, -limit, limit)
        return Threshold(jnp.where(size > 0, value, 0), jnp.zeros_like(value))

    def measure(threshold):
        parts = regularizer.parts(excess(scores, threshold, temperature))
        whole, fraction, slope, rounding = (sum_(weighted(part, weights)) for part in parts)
        return _Sums((whole - k) + fraction, slope, rounding)

    def improve(state: _State) -> _State:
        trial = state.trial
        sums = measure(trial)
        below = _select(sums.residual > 0, trial, state.below)
        above = _select(sums.residual < 0, trial, state.above)
        noise = _TOLERANCE * jnp.finfo(dtype).eps * sums.rounding
        converged = ~(jnp.abs(sums.residual) > noise)  # so for NaN

        newton = _shift(trial, temperature * sums.residual / sums.slope)
        inside = (below < newton) & (newton < above)
        progress = state.bisected | (jnp.abs(sums.residual) <= jnp.abs(state.residual) / 2)
        middle = _bisect(below, above)
        exhausted = ~((below < middle) & (middle < above))
        use_newton = inside & (progress | converged | exhausted)

        proposal = _select(use_newton, newton, _select(converged | exhausted, trial, middle))
        return _State(
            below=below,
            above=above,
            trial=_select(state.done, trial, proposal),
            residual=sums.residual,
            bisected=~use_newton,
            done=state.done | converged | (exhausted & ~inside),
            rounds=state.rounds + 1,
        )

    below, above = end(lowest, -1), end(highest, 1)
    start = jnp.where(size > 0, jnp.clip(mean - offset, below.coarse, above.coarse), 0)
    initial = _State(
        below=below,
        above=above,
        trial=Threshold(start, jnp.zeros_like(start)),
        residual=jnp.full_like(start, jnp.inf),
        bisected=jnp.zeros_like(start, bool),
        done=jnp.zeros_like(start, bool),
        rounds=jnp.zeros((), jnp.int32),
    )
    limit_rounds = _ROUNDS_PER_BIT * jnp.finfo(dtype).bits
    final = lax.while_loop(lambda s: jnp.any(~s.done) & (s.rounds < limit_rounds), improve, initial)
    return final.trial, final.rounds


def _select(condition, a: Threshold, b: Threshold) -> Threshold:
    return Threshold(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))


@partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def solve(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    axis: int,
    regularizer: Regularizer,
    axis_name=None,
) -> Threshold:
    """The root of F with its implicit derivative; arguments as for `search`.

    With `s = τλ`, `d = ψ'(u)` and `D = Σ w d`, differentiating `F = 0` gives

        ds = (Σ w d (dx - u dτ) + τ (Σ ψ dw - dk)) / D,

    and zero where D = 0: at a vertex of the hypersimplex the threshold is free to move.
    """
    return search(scores, k, temperature, weights, axis, regularizer, axis_name)[0]


@solve.defjvp
def _solve_jvp(axis, regularizer, axis_name, primals, tangents):
    scores, k, temperature, weights = primals
    dscores, dk, dtemperature, dweights = tangents
    threshold = solve(scores, k, temperature, weights, axis, regularizer, axis_name)
    u = excess(scores, threshold, temperature)
    parts = regularizer.parts(u)
    change = dscores - jnp.where(jnp.isinf(u), 0, u) * dtemperature
    change = weighted(parts.slope * change, weights)
    if weights is not None:
        change = change + temperature * (parts.whole + parts.fraction) * dweights
    slope = total(weighted(parts.slope, weights), axis, axis_name)
    dfine = safe_ratio(total(change, axis, axis_name) - temperature * dk, slope)
    return threshold, Threshold(jnp.zeros_like(threshold.coarse), dfine)


def safe_ratio(numerator, slope):
    """`numerator / slope`, and zero with zero derivative where the slope is zero: at a vertex."""
    return jnp.where(slope > 0, numerator / jnp.where(slope > 0, slope, 1), 0)


def centre(
    scores: Float[Array, "*shape"],
    threshold: Threshold,
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    axis: int,
    regularizer: Regularizer,
    axis_name=None,
) -> Float[Array, "*group"]:
    """`λ`, and the middle of its interval where F vanishes on one, as between two separated clusters.

    The derivative is that of `solve` over `τ`, and zero in the middle of an interval.
    """
    scores = lax.stop_gradient(scores)
    parts = regularizer.parts(excess(scores, threshold, temperature))
    vertex = total(weighted(parts.slope, weights), axis, axis_name) == 0
    below = _largest(jnp.where(parts.whole == 0, scores, -jnp.inf), axis, axis_name)
    above = _smallest(jnp.where(parts.whole == 1, scores, jnp.inf), axis, axis_name)
    one, half, zero = jnp.ones_like(below), jnp.full_like(below, 0.5), jnp.zeros_like(below)
    middle = (below / 2 + above / 2) / temperature - regularizer.inverse_link(half, half)
    middle = jnp.where(jnp.isfinite(above), middle, below / temperature - regularizer.inverse_link(zero, one))
    middle = jnp.where(jnp.isfinite(below), middle, above / temperature - regularizer.inverse_link(one, zero))
    return jnp.where(vertex, lax.stop_gradient(middle), (threshold.coarse + threshold.fine) / temperature)
