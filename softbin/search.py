"""The solver: the threshold at which the link sums to the budget.

For scores `x`, temperature `τ`, weights `w` and budget `k`, in each group, find the root of the decreasing function

    F(λ) = Σ_i w_i ψ(x_i/τ - λ) - k.

Entries with score `-inf` take no part; that is how a mask is expressed. The same code runs inside the kernels of
`softbin.kernels`, which bring groups of their own.

A float32 threshold cannot separate scores near 1e6, so it is carried in two parts and in the units of the
scores: `τλ = coarse + fine`, and `u = ((x - coarse) - fine)/τ`, where the first difference is exact for the
scores that matter.
"""

from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from softbin.groups import weighted
from softbin.regularizers import Regularizer

_TOLERANCE = 8  # machine epsilons, relative to the sum of the fractions
_PROGRESS = 0.35  # of the residual; in an exponential tail Newton's method leaves 1/e, which would take forever
_FAR = 0.25  # of the budget, or of what it leaves
_ROUNDS_PER_BIT = 4  # a bound that no input comes near; see tests/test_search.py


@runtime_checkable
class Reductions(Protocol):
    """What the search asks of groups; see :class:`softbin.groups.Groups`."""

    def size(self, shape: tuple[int, ...]) -> int:
        """How many entries a group has."""

    def total(self, values: Float[Array, "*shape"]) -> Float[Array, "*group"]:
        """The sum over each group."""

    def largest(self, values: Float[Array, "*shape"]) -> Float[Array, "*group"]:
        """The largest entry of each group."""

    def any(self, group_array: Bool[Array, "..."]) -> Bool[Array, ""]:
        """Whether something holds for any group."""


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


def excess(scores, threshold: Threshold, temperature) -> Float[Array, "*shape"]:
    """`u = x/τ - λ`, without cancellation."""
    return ((scores - threshold.coarse) - threshold.fine) / temperature


def _ordered(bits):
    """From the bits of a float to an integer in the order of the floats, and back."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _middle(a, b):
    """The float halfway between two floats in the count of floats: the one between them, if there is one."""
    integer = jnp.int32 if a.dtype == jnp.float32 else jnp.int64
    a_bits, b_bits = (_ordered(lax.bitcast_convert_type(x, integer)) for x in (a, b))
    return lax.bitcast_convert_type(_ordered((a_bits & b_bits) + ((a_bits ^ b_bits) >> 1)), a.dtype)


def _bisect(below: Threshold, above: Threshold, start, scale) -> Threshold:
    """Divide the coarse part until its ends are neighbours, then the gap between them, then the fine part.

    While the ends are further apart than the scale, divides their distances from the start, by the geometric mean.
    """
    half = (above.coarse - below.coarse) / 2
    a, b = below.coarse - start, above.coarse - start
    distance = _sqrt(jnp.maximum(jnp.abs(a), scale)) * _sqrt(jnp.maximum(jnp.abs(b), scale))
    guess = jnp.where(half > scale, start + jnp.where(a + b < 0, -distance, distance), below.coarse + half)
    inside = (below.coarse < guess) & (guess < above.coarse)
    coarse = jnp.where(inside, guess, _middle(below.coarse, above.coarse))
    neighbours = (coarse == below.coarse) & (coarse != above.coarse)
    # The middle of the gap may be written from either end; as the upper end it is written from below.
    from_below = neighbours & (above.fine == -half)
    fine = _middle(below.fine, jnp.where(from_below, half, above.fine))
    at_gap = neighbours & ~from_below
    coarse = jnp.where(at_gap, above.coarse, coarse)
    fine = jnp.where(at_gap, -half, fine)
    same = from_below | (below.coarse == above.coarse)
    return Threshold(coarse, jnp.where(at_gap | same, fine, 0))


def _sqrt(x):
    """For kernels, since Mosaic GPU has no other root."""
    return jnp.where(x > 0, x * lax.rsqrt(x), x)


def _probit(share):
    """The normal quantile, within 5e-4 (Abramowitz and Stegun, 26.2.23)."""
    t = _sqrt(-2 * jnp.log(jnp.minimum(share, 1 - share)))
    upper = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    return jnp.where(share < 0.5, -upper, upper)


def _probit_step(sums: _Sums, k, n):
    """Newton's step for the share of the budget in probits: for a normal sample that is a line, tails included."""
    probit = _probit((k + sums.residual) / n)
    return (probit - _probit(k / n)) * norm.pdf(probit) * n / sums.slope


def _shift(threshold: Threshold, by) -> Threshold:
    by = threshold.fine + by
    coarse = threshold.coarse + by
    return Threshold(coarse, by - (coarse - threshold.coarse))


@partial(jax.jit, static_argnums=(4, 5))
def search(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "..."],
    weights: Float[Array, "*shape"] | None,
    groups: Reductions,
    regularizer: Regularizer,
) -> tuple[Threshold, Int[Array, ""]]:
    """The root of F, and the number of rounds (sums over the scores) that finding it took.

    Newton's method, which is exact as soon as the active set is right, inside a bracket that is bisected whenever
    Newton leaves it or makes too little progress. Every array but the scores and weights is a group array; a
    temperature as long as the scores gives each entry its own. A group with NaN ends at once and stays NaN.
    """
    below, start, above, k, size, settled = _bracket(scores, k, temperature, weights, groups, regularizer)
    epsilon = jnp.finfo(scores.dtype).eps
    unit, slope_weights = _slope_units(temperature, weights, scores)

    def measure(threshold):
        parts = regularizer.parts(excess(scores, threshold, temperature))
        whole, fraction, rounding = (
            groups.total(weighted(part, weights)) for part in (parts.whole, parts.fraction, parts.rounding)
        )
        return _Sums((whole - k) + fraction, groups.total(weighted(parts.slope, slope_weights)), rounding)

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
        middle = _bisect(below, above, start.coarse, unit / 8)
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
    final = lax.while_loop(lambda state: groups.any(~state.done) & (state.rounds < most), improve, initial)
    return final.trial, final.rounds


def _slope_units(temperature, weights, scores):
    """`r` and `v` such that `-dF/d(τλ) = Σ v ψ' / r`: with one temperature per group it comes out of the sum."""
    if temperature.shape != scores.shape:
        return temperature, weights
    return jnp.ones((), temperature.dtype), (1 if weights is None else weights) / temperature


class _Summary(NamedTuple):
    """Of the finite scores; the others are settled beforehand: `+inf` spends budget, `-inf` takes no part."""

    lowest: Float[Array, "*group"]  # or less
    highest: Float[Array, "*group"]  # or more
    sum: Float[Array, "*group"]
    squares: Float[Array, "*group"]  # their sum
    n: Float[Array, "*group"]
    settled: Float[Array, "*group"]  # how many are `+inf`


def _summarize(scores, weights, groups) -> _Summary:
    """Bounds, sums and counts; from two sums alone where all scores and their squares are finite."""
    dtype, epsilon = scores.dtype, jnp.finfo(scores.dtype).eps

    def by_extremes():
        finite = ~jnp.isinf(scores)  # or NaN, which must come through
        known = jnp.where(finite, scores, 0)
        return _Summary(
            lowest=-groups.largest(-jnp.where(finite, scores, jnp.inf)),
            highest=groups.largest(jnp.where(finite, scores, -jnp.inf)),
            sum=groups.total(weighted(known, weights)),
            squares=groups.total(weighted(known**2, weights)),
            n=groups.total(weighted(finite.astype(dtype), weights)),
            settled=groups.total(weighted((scores == jnp.inf).astype(dtype), weights)),
        )

    if weights is not None:
        return by_extremes()
    n, values, squares = groups.size(scores.shape), groups.total(scores), groups.total(scores**2)

    def by_moments():
        mean, square = values / n, squares / n
        variance = jnp.maximum(square - mean**2, 0) + 64 * epsilon * square
        reach = _sqrt(n * variance)  # Samuelson's inequality
        return _Summary(mean - reach, mean + reach, values, squares, jnp.full_like(mean, n), jnp.zeros_like(mean))

    return lax.cond(groups.any(~(squares <= jnp.finfo(dtype).max)), by_extremes, by_moments)


def _bracket(scores, k, temperature, weights, groups, regularizer):
    """Thresholds below, near and above the root, `k` as far as it can be spent, and the counts behind it.

    With q = k/n and the extremes of the scores, `n ψ(lowest/τ - λ) <= k <= n ψ(highest/τ - λ)` puts the root between
    `lowest - τ ψ⁻¹(q)` and `highest - τ ψ⁻¹(q)`. The start is the root for normal scores of the same moments: the link
    is a distribution function, and so `Σ ψ(x/τ - λ) = n P(X - τ U >= τ λ)`, where U is distributed by it. But where U
    spreads wider than the scores do, the start is the root for scores all at their mean.
    """
    limit, epsilon = jnp.finfo(scores.dtype).max, jnp.finfo(scores.dtype).eps
    finite = _summarize(scores, weights, groups)
    k = jnp.clip(k, finite.settled, finite.settled + finite.n)
    n = jnp.where(finite.n > 0, finite.n, 1)
    q = (k - finite.settled) / n
    offset = temperature * regularizer.inverse_link(q, (finite.n - (k - finite.settled)) / n)
    if temperature.shape == scores.shape:
        finite = _summarize(scores - offset, weights, groups)
        offset, temperature = jnp.zeros_like(k), groups.largest(temperature)

    def threshold(score, direction):
        slack = jnp.minimum(4 * epsilon * (jnp.abs(score) + jnp.abs(offset) + temperature), limit)
        coarse = jnp.clip(score - offset + direction * slack, -limit, limit)
        # Without ends, a link chooses nothing or all at infinity only: out of reach of the largest score, then.
        fine = jnp.where(jnp.isinf(offset), jnp.where(offset > 0, -limit, limit), 0)
        return Threshold(jnp.where(finite.n > 0, coarse, 0), jnp.where(finite.n > 0, fine, 0))

    mean = jnp.clip(finite.sum / n, finite.lowest, finite.highest)
    variance, noise = finite.squares / n - mean**2, temperature**2 * regularizer.variance
    quantile = mean - temperature * regularizer.mean - _sqrt(variance + noise) * _probit(q)
    use_quantile = (variance > noise) & (jnp.abs(quantile) <= limit)
    start = jnp.where(use_quantile, jnp.clip(quantile + offset, finite.lowest, finite.highest), mean)
    below, start, above = threshold(finite.lowest, -1), threshold(start, 0), threshold(finite.highest, 1)
    return below, start, above, k, finite.n, finite.settled


def _select(condition, a: Threshold, b: Threshold) -> Threshold:
    return Threshold(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))
