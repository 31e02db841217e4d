"""The solver: the threshold at which the link sums to the budget.

For scores `x`, temperature `τ`, weights `w` and budget `k`, in each group, find the root of the decreasing function

    F(λ) = Σ_i w_i ψ(x_i/τ - λ) - k.

Entries with score `-inf` take no part; that is how a mask is expressed. The same code runs inside the kernels of
`softbin.kernels`, which bring groups of their own.

A float32 threshold cannot separate scores near 1e6, so it is carried in two parts and in the units of the
scores: `τλ = coarse + fine`, and `u = ((x - coarse) - fine)/τ`, where the first difference is exact for the
scores that matter. Where the temperature is so small or so large that these or their squares would leave the range of
floats, scores and temperature are first multiplied by a power of two, the scale.
"""

import math
from collections.abc import Sequence
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
_NEGLIGIBLE = 0.4  # a power of the least float: in sums below it, residuals are as small as they need to be
_FAR = 0.25  # of the budget, or of what it leaves
_PROGRESS = 0.35  # of the residual; in an exponential tail Newton's method leaves 1/e, which would take forever
_PROGRESS_OF_PIECES = 0.5  # near the root of a piecewise linear function, which has no such tail
_ROUNDS_PER_BIT = 4  # a bound that no input comes near; see tests/test_search.py


@runtime_checkable
class Reductions(Protocol):
    """What the search asks of groups; see :class:`softbin.groups.Groups`."""

    def size(self, shape: tuple[int, ...]) -> int:
        """How many entries a group has."""

    def counts_fit(self, shape: tuple[int, ...], dtype) -> bool:
        """Whether floats hold every number of entries."""

    def total(self, values: Float[Array, "*shape"]) -> Float[Array, "*group"]:
        """The sum over each group."""

    def plain_total(self, values: Float[Array, "*shape"]) -> Float[Array, "*group"]:
        """The sum over each group, for which the last digits do not matter, or there are none."""

    def total_flags(self, flags: Sequence[Float[Array, "*shape"]]) -> list[Float[Array, "*group"]]:
        """The sums over each group of zeros and ones, of no more entries than a float can count."""

    def total_in_parts(self, values: Float[Array, "*shape"]) -> tuple[Float[Array, "*group"], ...]:
        """The sum over each group, of more entries than a float can count: as terms that round less than their sum."""

    def largest(self, values: Float[Array, "*shape"]) -> Float[Array, "*group"]:
        """The largest entry of each group."""

    def either_side(
        self, values: Float[Array, "*shape"], k: Float[Array, "*group"]
    ) -> tuple[Float[Array, "*group"], Float[Array, "*group"]] | None:
        """The entries that come k-th and next; None where groups are too long to compare all pairs of entries."""

    def any(self, group_array: Bool[Array, "..."]) -> Bool[Array, ""]:
        """Whether something holds for any group."""


class Point(NamedTuple):
    """The threshold times temperature and scale, as the sum of a float and a correction below its last digit."""

    coarse: Float[Array, "*group"]
    fine: Float[Array, "*group"]

    def __lt__(self, other):
        return (self.coarse < other.coarse) | ((self.coarse == other.coarse) & (self.fine < other.fine))


class Threshold(NamedTuple):
    """A threshold, times temperature and scale, with this scale."""

    coarse: Float[Array, "*group"]
    fine: Float[Array, "*group"]
    scale: Float[Array, "*group"]


class _Sums(NamedTuple):
    residual: Float[Array, "*group"]  # F
    slope: Float[Array, "*group"]  # -F', by u
    rounding: Float[Array, "*group"]  # bounds the error of the residual, in machine epsilons


class _State(NamedTuple):
    below: Point  # F >= 0 here
    above: Point  # F <= 0 here
    trial: Point
    scale: Float[Array, "*group"]
    residual: Float[Array, "*group"]  # at the trial before
    bisected: Bool[Array, "*group"]  # how this trial was chosen
    done: Bool[Array, "*group"]
    rounds: Int[Array, ""]


def excess(scores, threshold: Threshold, temperature) -> Float[Array, "*shape"]:
    """`u = x/τ - λ`, without cancellation."""
    coarse, fine, scale = threshold
    return ((scores * scale - coarse) - fine) / _scaled(temperature, scale)


def _scaled(temperature, scale):
    """And not so small that the budget could not be met: to scores of 1 and more that makes no difference."""
    return jnp.maximum(temperature * scale, _scales(temperature.dtype)[0])


def _scales(dtype) -> tuple[float, float, float]:
    """The least and the largest temperature at a scale of 1, and the scale below it; above it, its inverse."""
    exponents = jnp.finfo(dtype).maxexp
    return 2.0 ** (-15 * exponents // 32), 2.0 ** (15 * exponents // 32), 2.0 ** (3 * exponents // 4)


def ordered(bits):
    """From the bits of a float to an integer in the order of the floats, and back."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _middle(a, b):
    """The float halfway between two floats in the count of floats: the one between them, if there is one."""
    integer = jnp.int32 if a.dtype == jnp.float32 else jnp.int64
    a_bits, b_bits = (ordered(lax.bitcast_convert_type(x, integer)) for x in (a, b))
    return lax.bitcast_convert_type(ordered((a_bits & b_bits) + ((a_bits ^ b_bits) >> 1)), a.dtype)


def _bisect(below: Point, above: Point, start, scale) -> Point:
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
    return Point(coarse, jnp.where(at_gap | same, fine, 0))


def _sqrt(x):
    """For kernels, since Mosaic GPU has no other root."""
    positive = (x > 0) & (x < jnp.inf)
    return jnp.where(positive, x * lax.rsqrt(jnp.where(positive, x, 1)), x)


def probit(share):
    """The normal quantile, within 5e-4 (Abramowitz and Stegun, 26.2.23)."""
    tail = jnp.maximum(jnp.minimum(share, 1 - share), jnp.finfo(share.dtype).tiny)
    t = _sqrt(-2 * jnp.log(tail))
    upper = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    return jnp.where(share < 0.5, -upper, upper)


def _probit_step(sums: _Sums, k, n):
    """Newton's step for the share of the budget in probits: for a normal sample that is a line, tails included."""
    n = jnp.where(n > 0, n, 1)
    quantile = probit((k + sums.residual) / n)
    return (quantile - probit(k / n)) * norm.pdf(quantile) * n / sums.slope


def _shift(point: Point, by) -> Point:
    by = point.fine + by
    coarse = point.coarse + by
    return Point(coarse, by - (coarse - point.coarse))


@partial(jax.jit, static_argnums=(4, 5))
def search(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "..."],
    weights: Float[Array, "*shape"] | None,
    groups: Reductions,
    regularizer: Regularizer,
    k_rest: Float[Array, "*group"] | None = None,
) -> tuple[Threshold, Int[Array, ""]]:
    """The root of F, and the number of rounds (sums over the scores) that finding it took.

    Newton's method, which is exact as soon as the active set is right, inside a bracket that is bisected whenever
    Newton leaves it or makes too little progress. Every array but the scores and weights is a group array; a
    temperature as long as the scores gives each entry its own. A group with NaN ends at once and stays NaN. The rest is
    what a float `k` lacks of a larger budget's digits.
    """
    plain = regularizer.piecewise_linear and weights is None and not _each_its_own(temperature, scores, k)
    sides = groups.either_side(scores, k) if plain else None
    below, start, above, scale, k, size, settled = _bracket(scores, k, temperature, weights, groups, regularizer, sides)
    epsilon, most = jnp.finfo(scores.dtype).eps, _ROUNDS_PER_BIT * jnp.finfo(scores.dtype).bits
    negligible = float(jnp.finfo(scores.dtype).tiny) ** _NEGLIGIBLE
    unit, slope_weights = _slope_units(_scaled(temperature, scale), weights, scores, k)
    countable = groups.counts_fit(scores.shape, scores.dtype)

    def measure(point, scale):
        parts = regularizer.parts(excess(scores, Threshold(*point, scale), temperature))
        fraction, rounding = (groups.total(weighted(part, weights)) for part in (parts.fraction, parts.rounding))
        whole, slope, rest = weighted(parts.whole, weights), None, [] if k_rest is None else [-k_rest]
        if not countable:
            whole, *low = groups.total_in_parts(whole)
            rest += low
        elif weights is not None:
            whole = groups.total(whole)
        elif regularizer.piecewise_linear and slope_weights is None:
            whole, slope = groups.total_flags([whole, parts.slope])
        else:
            (whole,) = groups.total_flags([whole])
        if slope is None:
            slope = groups.total(weighted(parts.slope, slope_weights))
        return _Sums(sum(rest, whole - k) + fraction, slope, rounding)

    def improve(state: _State) -> _State:
        trial = state.trial
        sums = measure(trial, state.scale)
        below = _select(sums.residual > 0, trial, state.below)
        above = _select(sums.residual < 0, trial, state.above)
        noise = _TOLERANCE * epsilon * jnp.maximum(sums.rounding, negligible)
        converged = ~(jnp.abs(sums.residual) > noise)  # so for NaN

        is_sloped = sums.slope > 0
        sums = sums._replace(slope=jnp.where(is_sloped, sums.slope, 1))
        newton = _shift(trial, unit * sums.residual / sums.slope)
        far = jnp.abs(sums.residual) > _FAR * jnp.minimum(k - settled, size - (k - settled))
        if sides is None:
            probit = _shift(trial, unit * _probit_step(sums, k - settled, size))
            newton = _select(far & (below < probit) & (probit < above), probit, newton)
        inside = is_sloped & (below < newton) & (newton < above)
        enough = jnp.where(far, _PROGRESS, _PROGRESS_OF_PIECES) if regularizer.piecewise_linear else _PROGRESS
        progress = state.bisected | (jnp.abs(sums.residual) <= jnp.abs(state.residual) * enough)
        middle = _bisect(below, above, start.coarse, unit / 8)
        exhausted = ~((below < middle) & (middle < above))
        use_newton = inside & (progress | converged | exhausted)

        proposal = _select(use_newton, newton, _select(converged | exhausted, trial, middle))
        return _State(
            below=below,
            above=above,
            trial=_select(state.done, trial, proposal),
            # As it is; but then compilers would scale the scores before the loop, and write them to memory for it.
            scale=jnp.where(state.rounds < most, state.scale, 1),
            residual=sums.residual,
            bisected=~use_newton,
            done=state.done | converged | (exhausted & ~inside),
            rounds=state.rounds + 1,
        )

    initial = _State(
        below=below,
        above=above,
        trial=start,
        scale=scale,
        residual=jnp.full_like(k, jnp.inf),
        bisected=jnp.zeros_like(k, bool),
        done=jnp.zeros_like(k, bool),
        rounds=jnp.zeros((), jnp.int32),
    )
    final = lax.while_loop(lambda state: groups.any(~state.done) & (state.rounds < most), improve, initial)
    return Threshold(*final.trial, scale), final.rounds


def _each_its_own(temperature, scores, k):
    """Whether every entry has a temperature, and not every group."""
    return temperature.shape == scores.shape != k.shape


def _slope_units(temperature, weights, scores, k):
    """`r` and `v` such that `-dF/d(τλ) = Σ v ψ' / r`: with one temperature per group it comes out of the sum."""
    if not _each_its_own(temperature, scores, k):
        return temperature, weights
    return jnp.ones((), temperature.dtype), (1 if weights is None else weights) / temperature


class _Summary(NamedTuple):
    """Of the finite scores, scaled; the others are settled beforehand: `+inf` spends budget, `-inf` takes no part."""

    lowest: Float[Array, "*group"]  # or less
    highest: Float[Array, "*group"]  # or more
    mean: Float[Array, "*group"]
    deviation: Float[Array, "*group"]
    n: Float[Array, "*group"]
    settled: Float[Array, "*group"]  # how many are `+inf`
    scale: Float[Array, "*group"]


def _summarize(scores, k, temperature, weights, groups) -> _Summary:
    """Bounds, moments and counts; from two sums alone where all scores and their squares are finite."""
    limits = jnp.finfo(scores.dtype)
    least, most, scale = _scales(scores.dtype)
    size = groups.size(scores.shape)
    each_its_own = _each_its_own(temperature, scores, k)  # these are not scaled
    group_temperature = jnp.ones_like(k) if each_its_own else temperature

    exact = weights is None and groups.counts_fit(scores.shape, scores.dtype)

    def count(part):
        part = weighted(part.astype(scores.dtype), weights)
        return groups.plain_total(part) if exact else groups.total(part)

    def by_extremes():
        finite = ~jnp.isinf(scores)  # or NaN, which must come through
        ends = -groups.largest(-jnp.where(finite, scores, jnp.inf)), groups.largest(jnp.where(finite, scores, -jnp.inf))
        small, large = group_temperature < least, group_temperature > most
        # Then the threshold is far from zero, and so among scores that would overflow.
        far = lax.cond(
            groups.any(small),
            lambda: (k < count(scores >= 1)) | (k > count(scores > -1)),
            lambda: ends[0] < ends[0],  # false, of the type that the counts have on a mesh
        )
        scales = jnp.where(large, 1 / scale, jnp.where(small & ~far, scale, jnp.ones_like(k)))
        lowest, highest = (jnp.clip(end * scales, -limits.max, limits.max) for end in ends)
        x = scores * scales
        finite = ~jnp.isinf(x)
        reach = jnp.maximum(jnp.maximum(-lowest, highest), limits.tiny)
        n, x = count(finite), jnp.where(finite, x / reach, 0)
        mean, square = (groups.plain_total(weighted(v, weights)) / jnp.where(n > 0, n, 1) for v in (x, x**2))
        deviation = reach * _sqrt(square - mean**2)
        return _Summary(lowest, highest, reach * mean, deviation, n, count(scores * scales == jnp.inf), scales)

    if weights is not None:
        return by_extremes()
    mean, square = groups.total(scores) / size, groups.total(scores**2) / size
    # The total's square might overflow, since compilers divide after they multiply; 4 is for its rounding.
    moderate = square <= limits.max / 4 / size / size  # false for NaN
    mean, square = jnp.where(moderate, mean, 0), jnp.where(moderate, square, 0)

    def by_moments():
        variance = square - mean**2
        reach = _sqrt(size * (jnp.maximum(variance, 0) + 64 * (limits.eps * square + limits.tiny)))  # Samuelson
        zero, one = jnp.zeros_like(mean), jnp.ones_like(mean)
        return _Summary(mean - reach, mean + reach, mean, _sqrt(variance), size * one, zero, one)

    extreme = ~moderate | (group_temperature < least) | (group_temperature > most)
    moments = by_moments()
    return lax.cond(
        groups.any(extreme),
        lambda: jax.tree.map(partial(jnp.where, extreme), by_extremes(), moments),  # no group depends on others
        lambda: moments,
    )


def _bracket(scores, k, temperature, weights, groups, regularizer, sides):
    """Points below, near and above the root, the scale, `k` as far as it can be spent, and the counts behind it.

    With q = k/n and the extremes of the scores, `n ψ(lowest/τ - λ) <= k <= n ψ(highest/τ - λ)` puts the root between
    `lowest - τ ψ⁻¹(q)` and `highest - τ ψ⁻¹(q)`. The start is the root for normal scores of the same moments: the link
    is a distribution function, and so `Σ ψ(x/τ - λ) = n P(X - τ U >= τ λ)`, where U is distributed by it. With the k-th
    and the next score known it is the root for scores far apart. But where U spreads wider than the scores do, the
    start is the root for scores all at their mean.
    """
    limit, epsilon = jnp.finfo(scores.dtype).max, jnp.finfo(scores.dtype).eps
    finite = _summarize(scores, k, temperature, weights, groups)
    temperature = _scaled(temperature, finite.scale)
    k = jnp.clip(k, finite.settled, finite.settled + finite.n)
    n = jnp.where(finite.n != 0, finite.n, 1)
    q = (k - finite.settled) / n
    offset = temperature * regularizer.inverse_link(q, (finite.n - (k - finite.settled)) / n)
    if _each_its_own(temperature, scores, k):
        scale, temperature = finite.scale, groups.largest(temperature)
        finite = _summarize(scores * scale - offset, k, temperature, weights, groups)._replace(scale=scale)
        offset = jnp.zeros_like(k)

    def point(score, direction):
        slack = jnp.minimum(4 * epsilon * (jnp.abs(score) + jnp.abs(offset) + temperature), limit)
        coarse = score - offset + direction * slack
        # Without ends, a link chooses nothing or all at infinity only: out of reach of the largest score, then.
        beyond = jnp.where(offset > 0, -limit, limit)
        fine = jnp.where(jnp.isinf(offset), beyond, jnp.where(jnp.abs(coarse) > limit, direction * slack, 0))
        coarse = jnp.clip(coarse, -limit, limit)
        return Point(jnp.where(finite.n != 0, coarse, 0), jnp.where(finite.n != 0, fine, 0))

    mean = jnp.clip(finite.mean, finite.lowest, finite.highest)
    noise = temperature * math.sqrt(regularizer.variance)
    larger = jnp.maximum(finite.deviation, noise)
    spread = larger * _sqrt((finite.deviation / larger) ** 2 + (noise / larger) ** 2)
    if sides is None:
        quantile = mean - temperature * regularizer.mean - spread * probit(q)
    else:
        half = jnp.full_like(k, 0.5)
        middle = sum(side / 2 * finite.scale for side in sides)
        quantile = middle - temperature * regularizer.inverse_link(half, half)
    use_quantile = (finite.deviation > noise) & (jnp.abs(quantile) <= limit)
    start = jnp.where(use_quantile, jnp.clip(quantile + offset, finite.lowest, finite.highest), mean)
    below, start, above = point(finite.lowest, -1), point(start, 0), point(finite.highest, 1)
    start = _select(q <= 0, above, _select(q >= 1, below, start))
    return below, start, above, finite.scale, k, finite.n, finite.settled


def _select(condition, a: Point, b: Point) -> Point:
    return Point(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))
