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
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from softbin.regularizers import Regularizer

_BLOCK = 256
_TOLERANCE = 8  # machine epsilons, relative to the sum of the fractions
_PROGRESS = 0.25  # of the residual; in an exponential tail Newton's method leaves 1/e, which would take forever
_FAR = 0.25  # of the budget, or of what it leaves
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
    while (n := values.shape[axis]) > _BLOCK:
        block = next((b for b in range(_BLOCK, _BLOCK // 8, -1) if n % b == 0), _BLOCK)
        full = n - n % block
        blocks = lax.slice_in_dim(values, 0, full, axis=axis)
        rest = lax.slice_in_dim(values, full, n, axis=axis)
        sums = blocks.reshape(*values.shape[:axis], full // block, block, *values.shape[axis + 1 :]).sum(axis + 1)
        values = sums if full == n else jnp.concatenate([sums, rest.sum(axis, keepdims=True)], axis)
    result = values.sum(axis, keepdims=True)
    return result if axis_name is None else lax.psum(result, axis_name)


def weighted(values, weights):
    """`w v`, where no weights are weights of 1."""
    return values if weights is None else values * weights


def _largest(values, axis, axis_name):
    result = jnp.max(values, axis, keepdims=True)
    return result if axis_name is None else lax.pmax(result, axis_name)


def _smallest(values, axis, axis_name):
    return -_largest(-values, axis, axis_name)


def _ordered(bits):
    """From the bits of a float to an integer in the order of the floats, and back."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _middle(a, b):
    """The float halfway between two floats in the count of floats: 32 halvings reach any float32."""
    integer = jnp.int32 if a.dtype == jnp.float32 else jnp.int64
    a_bits, b_bits = (_ordered(lax.bitcast_convert_type(x, integer)) for x in (a, b))
    return lax.bitcast_convert_type(_ordered((a_bits & b_bits) + ((a_bits ^ b_bits) >> 1)), a.dtype)


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


def _probit_step(sums: _Sums, k, n):
    """Newton's step for the share of the budget in probits: for a normal sample that is a line, tails included."""
    probit = ndtri((k + sums.residual) / n)
    return (probit - ndtri(k / n)) * norm.pdf(probit) * n / sums.slope


def _shift(threshold: Threshold, by) -> Threshold:
    by = threshold.fine + by
    coarse = threshold.coarse + by
    return Threshold(coarse, by - (coarse - threshold.coarse))


@partial(jax.jit, static_argnums=(4, 5, 6))
def search(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "..."],
    weights: Float[Array, "*shape"] | None,
    axis: int,
    regularizer: Regularizer,
    axis_name=None,
) -> tuple[Threshold, Int[Array, ""]]:
    """The root of F, and the number of rounds (sums over the scores) that finding it took.

    Newton's method, which is exact as soon as the active set is right, inside a bracket that is bisected
    in the bits of a float whenever Newton leaves it or makes too little progress. Every array but the
    scores and weights has length one along `axis`; a temperature as long as the scores gives each entry its own.
    A group with NaN ends at once and stays NaN.
    """
    sum_ = partial(total, axis=axis, axis_name=axis_name)
    below, start, above, k, size, settled = _bracket(scores, k, temperature, weights, axis, regularizer, axis_name)
    epsilon = jnp.finfo(scores.dtype).eps
    unit, slope_weights = _slope_units(temperature, weights, axis)

    def measure(threshold):
        parts = regularizer.parts(excess(scores, threshold, temperature))
        whole, fraction, rounding = (
            sum_(weighted(part, weights)) for part in (parts.whole, parts.fraction, parts.rounding)
        )
        return _Sums((whole - k) + fraction, sum_(weighted(parts.slope, slope_weights)), rounding)

    def improve(state: _State) -> _State:
        trial = state.trial
        sums = measure(trial)
        below = _select(sums.residual > 0, trial, state.below)
        above = _select(sums.residual < 0, trial, state.above)
        noise = _TOLERANCE * epsilon * sums.rounding
        converged = ~(jnp.abs(sums.residual) > noise)  # so for NaN

        newton = _shift(trial, unit * sums.residual / sums.slope)
        probit = _shift(trial, unit * _probit_step(sums, k - settled, size))
        far = jnp.abs(sums.residual) > _FAR * jnp.minimum(k - settled, size - (k - settled))
        newton = _select(far & (below < probit) & (probit < above), probit, newton)
        inside = (below < newton) & (newton < above)
        progress = state.bisected | (jnp.abs(sums.residual) <= jnp.abs(state.residual) * _PROGRESS)
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

    initial = _State(
        below=below,
        above=above,
        trial=start,
        residual=jnp.full_like(k, jnp.inf),
        bisected=jnp.zeros_like(k, bool),
        done=jnp.zeros_like(k, bool),
        rounds=jnp.zeros((), jnp.int32),
    )
    most = _ROUNDS_PER_BIT * jnp.finfo(scores.dtype).bits
    final = lax.while_loop(lambda state: jnp.any(~state.done) & (state.rounds < most), improve, initial)
    return final.trial, final.rounds


def _slope_units(temperature, weights, axis):
    """`r` and `v` such that `-dF/d(τλ) = Σ v ψ' / r`: with one temperature per group it comes out of the sum."""
    if temperature.shape[axis] == 1:
        return temperature, weights
    return jnp.ones((), temperature.dtype), (1 if weights is None else weights) / temperature


def _bracket(scores, k, temperature, weights, axis, regularizer, axis_name):
    """Thresholds below, near and above the root, `k` as far as it can be spent, and the counts behind it.

    With q = k/n and the extremes of the scores, `n ψ(lowest/τ - λ) <= k <= n ψ(highest/τ - λ)` puts the root between
    `lowest - τ ψ⁻¹(q)` and `highest - τ ψ⁻¹(q)`. The start, with the mean in place of the extremes, is the root
    itself where all entries are active (euclidean) and share a temperature. Infinite scores are settled beforehand:
    `+inf` spends budget, `-inf` takes no part.
    """
    sum_ = partial(total, axis=axis, axis_name=axis_name)
    limit, epsilon = jnp.finfo(scores.dtype).max, jnp.finfo(scores.dtype).eps
    finite = ~jnp.isinf(scores)  # or NaN, which must come through
    n = sum_(weighted(finite.astype(scores.dtype), weights))
    settled = sum_(weighted((scores == jnp.inf).astype(scores.dtype), weights))
    k = jnp.clip(k, settled, settled + n)

    divisor = jnp.where(n > 0, n, 1)
    offset = temperature * regularizer.inverse_link((k - settled) / divisor, (n - (k - settled)) / divisor)
    if temperature.shape[axis] > 1:
        scores = scores - offset
        offset, temperature = jnp.zeros_like(k), _largest(temperature, axis, axis_name)
    lowest = _smallest(jnp.where(finite, scores, jnp.inf), axis, axis_name)
    highest = _largest(jnp.where(finite, scores, -jnp.inf), axis, axis_name)
    mean = sum_(weighted(jnp.where(finite, scores, 0), weights)) / divisor

    def threshold(score, direction):
        slack = jnp.minimum(4 * epsilon * (jnp.abs(score) + jnp.abs(offset) + temperature), limit)
        coarse = jnp.clip(score - offset + direction * slack, -limit, limit)
        # Without ends, a link chooses nothing or all at infinity only: out of reach of the largest score, then.
        fine = jnp.where(jnp.isinf(offset), -jnp.sign(offset) * limit, 0)
        return Threshold(jnp.where(n > 0, coarse, 0), jnp.where(n > 0, fine, 0))

    below, above = threshold(lowest, -1), threshold(highest, 1)
    start = threshold(jnp.clip(mean, lowest, highest), 0)
    return below, start, above, k, n, settled


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
