"""The solver: the threshold at which the link sums to the budget.

For scores `x`, temperature `τ`, weights `w` and budget `k`, in each group, find the root of the decreasing function

    F(λ) = Σ_i w_i ψ(x_i/τ - λ) - k.

Entries with score `-inf` take no part; that is how a mask is expressed. The same code runs inside the kernels of
`softbin._engine.kernels`, which bring groups of their own.

A float32 threshold cannot separate scores near 1e6, so it is carried as a centre, in the units of the scores, and a
fine part, in temperatures: `u = (x - centre)/τ - fine`, where the difference is exact for the scores that matter. Where
the difference or the quotient leaves the range of floats, the entry is saturated, as it should be.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from softbin._engine.groups import weighted
from softbin.regularizers import Regularizer

_LINEAR_TOLERANCE = 4  # machine epsilons of the slope, of a piecewise linear link
_TOLERANCE = 8  # where the slope of a link may jump, the last step of Newton's may end on the other side
_SMOOTH_TOLERANCE = 1.4  # roots of the machine epsilon: Newton's last step squares it
_NEGLIGIBLE = 0.4  # a power of the least float: a residual that is as small as it needs to be
_PROGRESS = 0.35  # of the residual, at most, a step of Newton's leaves: in an exponential tail 1/e, for ever
_PROGRESS_OF_PIECES = 0.5  # where the link is piecewise linear, and has no such tail
_FAR = 4  # temperatures from the centre, beyond which it is moved
_HOPELESS = 3  # rounds that left the bracket open on a side where nothing changes
_LONG = 10  # rounds that left it open on a side where something does, as where all that exist are chosen
_ROUNDS_PER_BIT = 4  # a bound that no input comes near; see tests/_engine/test_search.py


@runtime_checkable
class Reductions(Protocol):
    """What the search asks of groups; see :class:`softbin._engine.groups.Groups`."""

    def size(self, shape: tuple[int, ...]) -> Any:
        """How many entries a group has."""

    def counts_fit(self, shape: tuple[int, ...], dtype: Any) -> bool:
        """Whether floats hold every number of entries."""

    def totals(
        self, values: Sequence[Float[Array, "*shape"]], *, in_parts: bool = False
    ) -> list[Float[Array, "*group"]]:
        """The sums over each group of several arrays; the first as two terms if it is of more than floats count."""

    def sample(self, values: Float[Array, "*shape"]) -> Float[Array, "*sample"]:
        """Some entries of each group."""

    def stack(self, group_arrays: Sequence[Float[Array, "*group"]]) -> Any:
        """Several group arrays as the state of a loop."""

    def unstack(self, stacked: Any) -> Sequence[Float[Array, "*group"]]:
        """The group arrays again."""

    def any(self, group_array: Bool[Array, "..."]) -> Bool[Array, ""]:
        """Whether something holds for any group."""


class Threshold(NamedTuple):
    """A threshold in the terms of :func:`excess`: `τλ = centre / scale + temperature · fine`."""

    centre: Float[Array, "*group"]  # times the scale
    fine: Float[Array, "*group"]  # in temperatures
    scale: Float[Array, "*group"]  # a power of two, that keeps the others in the range of floats
    inverse: Float[Array, "*group"]  # of temperature and scale


class Equation(NamedTuple):
    """What the search solves; see :func:`search` for what its parts are."""

    scores: Float[Array, "*shape"]
    k: Float[Array, "*group"]
    temperature: Float[Array, "*group"]
    weights: Float[Array, "*shape"] | None
    groups: Reductions
    regularizer: Regularizer
    k_rest: Float[Array, "*group"] | None = None
    steepness: Float[Array, "*shape"] | None = None


class _Sums(NamedTuple):
    """What a round measures, before its step, of all groups: those that are done too."""

    residual: Float[Array, "*group"]  # F
    fraction: Float[Array, "*group"]  # of F, what entries that are not whole add
    slope: Float[Array, "*group"]  # -F', by u


class _State(NamedTuple):
    centre: Float[Array, "*group"]
    fine: Float[Array, "*group"]
    below: Float[Array, "*group"]  # F >= 0 here, or it is -inf; in scores, rounded outwards
    above: Float[Array, "*group"]  # F <= 0 here, or it is inf
    fine_below: Float[Array, "*group"]  # the same ends, in temperatures from the centre
    fine_above: Float[Array, "*group"]
    inverse: Float[Array, "*group"]  # of the temperature and the scale of this centre
    residual: Float[Array, "*group"]  # |F| where Newton's step led here from; inf after a bisection, -1 at the end


class _Limits(NamedTuple):
    """What floats of a dtype can hold."""

    most: float
    tiny: float
    epsilon: float
    exponents: int

    @classmethod
    def of(cls, dtype: Any) -> "_Limits":
        limits = jnp.finfo(dtype)
        return cls(float(limits.max), float(limits.tiny), float(limits.eps), int(limits.maxexp))


def excess(scores: Array, threshold: Threshold, steepness: Array | None = None) -> Array:
    """`u = x/τ - λ`, without cancellation."""
    u = (scores * threshold.scale - threshold.centre) * threshold.inverse - threshold.fine
    return u if steepness is None else u * steepness


def ordered(bits: Int[Array, "..."]) -> Int[Array, "..."]:
    """From the bits of a float to an integer in the order of the floats, and back."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def sqrt(x: Float[Array, "*group"]) -> Float[Array, "*group"]:
    """For kernels, since Mosaic GPU has no other root."""
    positive = (x > 0) & (x < jnp.inf)
    return jnp.where(positive, x * lax.rsqrt(jnp.where(positive, x, 1)), x)


def probit(share: Float[Array, "*group"]) -> Float[Array, "*group"]:
    """The normal quantile, within 5e-4 (Abramowitz and Stegun, 26.2.23)."""
    tail = jnp.maximum(jnp.minimum(share, 1 - share), jnp.finfo(share.dtype).tiny)
    t = sqrt(-2 * jnp.log(tail))
    upper = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    return jnp.where(share < 0.5, -upper, upper)


@partial(jax.jit, static_argnames=("groups", "regularizer"))
def search(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Reductions,
    regularizer: Regularizer,
    k_rest: Float[Array, "*group"] | None = None,
    steepness: Float[Array, "*shape"] | None = None,
) -> tuple[Threshold, Int[Array, ""]]:
    """The root of F, and the number of rounds (sums over the scores) that finding it took.

    Newton's method, which is exact as soon as the active set is right, inside a bracket that is bisected whenever
    Newton leaves it or makes too little progress. A group with NaN ends at once and stays NaN.

    Args:
      scores, k, temperature, weights: `k` and temperature are group arrays, weights like the scores or None.
      groups: where the groups lie.
      regularizer: whose link it is.
      k_rest: what a float `k` lacks of a larger budget's digits.
      steepness: where entries have temperatures of their own, the group's over the entry's; at most 1 is best.
    """
    equation = Equation(scores, k, temperature, weights, groups, regularizer, k_rest, steepness)
    first, spread = _start(equation)
    most = most_rounds(scores.dtype)

    def proceed(stacked: Any, rounds: Int[Array, ""]) -> tuple[Any, Int[Array, ""]]:
        state = _State(*groups.unstack(stacked))
        sums = _measure(state, equation)
        return groups.stack(_step(state, sums, first.centre, spread, rounds, equation)), rounds + 1

    def unfinished(stacked: Any, rounds: Int[Array, ""]) -> Bool[Array, ""]:
        return groups.any(_State(*groups.unstack(stacked)).residual >= 0) & (rounds < most)

    start = groups.stack(first), jnp.zeros((), jnp.int32)
    stacked, rounds = lax.while_loop(lambda s: unfinished(*s), lambda s: proceed(*s), start)
    final = _State(*groups.unstack(stacked))
    return _threshold(final, equation), rounds


def most_rounds(dtype: Any) -> int:
    """The bound on the number of rounds."""
    return _ROUNDS_PER_BIT * jnp.finfo(dtype).bits


def _threshold(state: _State, equation: Equation) -> Threshold:
    """The terms of `excess` for a centre in scores and a fine part in temperatures."""
    scale = scale_of(state.centre, equation)
    return Threshold(state.centre * scale, state.fine, scale, state.inverse)


def reciprocal(centre: Array, equation: Equation) -> Array:
    """Of the temperature and the scale."""
    return 1 / (_widened(centre, equation) * scale_of(centre, equation))


def scale_of(centre: Array, equation: Equation) -> Array:
    """A power of two that keeps differences of scores, and their quotients by the temperature, in range."""
    magnitude = jnp.maximum(jnp.abs(centre), equation.temperature)
    exponents = _Limits.of(magnitude.dtype).exponents
    huge, small = 2.0 ** (3 * exponents // 4), 2.0 ** (-15 * exponents // 32)
    return jnp.where(
        magnitude > huge, 2.0 ** (-exponents // 16), jnp.where(magnitude < small, 2.0 ** (5 * exponents // 16), 1.0)
    ).astype(magnitude.dtype)


def _widened(centre: Array, equation: Equation) -> Array:
    """The temperature, but not so far below the last digit of the centre that the fine part grows out of hand.

    Different scores are some temperatures apart then, for a smooth link so many that they are saturated.
    """
    if equation.steepness is not None:  # of which it is a part
        return equation.temperature
    digits = 2.0**-3 if equation.regularizer.piecewise_linear else 2.0**-7
    return jnp.maximum(equation.temperature, jnp.abs(centre) * (jnp.finfo(centre.dtype).eps * digits))


def _start(equation: Equation) -> tuple[_State, Float[Array, "*group"]]:
    """Where the root is for normal scores of the moments of a sample; and the deviation of `x - τ U`.

    The link is a distribution function, and so `Σ ψ(x/τ - λ) = n P(X - τ U >= τ λ)`, where U is distributed by it. But
    where U spreads wider than the scores do, the start is the root for scores all at their mean.
    """
    scores, k, temperature, regularizer = equation.scores, equation.k, equation.temperature, equation.regularizer
    limits = _Limits.of(scores.dtype)
    mean, spread, is_wide, size = _moments(equation)
    least = 0.5 / equation.groups.size(scores.shape)
    share = jnp.clip(k / size, least, 1 - least)
    quantile = mean - temperature * regularizer.mean - spread * probit(share)
    quantile = jnp.clip(quantile, -limits.most, limits.most)
    centre = jnp.where(is_wide, quantile, mean)
    fine = jnp.where(is_wide, 0, -regularizer.inverse_link(share, 1 - share)).astype(k.dtype)
    # Nothing and all are chosen at infinity.
    is_all = jnp.zeros_like(k, bool) if equation.weights is not None else k >= equation.groups.size(scores.shape)
    end = jnp.where(k <= 0, limits.most, jnp.where(is_all, -limits.most, 0)).astype(k.dtype)
    centre, fine = jnp.where(end == 0, centre, end), jnp.where(end == 0, fine, end)
    infinite = jnp.full_like(k, jnp.inf)
    first = _State(
        centre=centre,
        fine=fine,
        below=-infinite,
        above=infinite,
        fine_below=-infinite,
        fine_above=infinite,
        inverse=reciprocal(centre, equation),
        residual=infinite,
    )
    return first, spread


def _moments(equation: Equation) -> tuple[Array, Array, Array, Array]:
    """Of a sample: the mean of the finite scores, the deviation of `x - τ U`, and whether most of that is theirs.

    And how many finite scores there are in all, or what they weigh, by that sample.
    """
    limits, groups = _Limits.of(equation.scores.dtype), equation.groups
    scores = groups.sample(equation.scores)
    weights = None if equation.weights is None else groups.sample(equation.weights)
    is_finite = jnp.abs(scores) <= limits.most
    counts = weighted(is_finite.astype(scores.dtype), weights)
    most = groups.size(scores.shape)
    finite = jnp.where(is_finite, scores, 0)
    moments = groups.totals([counts, *(weighted(x / most, weights) for x in (finite, finite**2))])
    count = jnp.where(moments[0] > 0, moments[0], 1)
    known = [jnp.abs(moment) <= limits.most for moment in moments[1:]]  # sums of large scores may not be
    mean, square = (
        jnp.clip(jnp.where(is_known, moment, other) * (most / count), -limits.most, limits.most)
        for moment, is_known, other in zip(moments[1:], known, (0, limits.most), strict=True)
    )
    variance = jnp.maximum(square - mean**2, 0)  # a guess, where the mean is far from 0
    noise = equation.regularizer.variance * equation.temperature**2
    is_wide = (variance > noise) & (square < limits.most)
    size = count * (groups.size(equation.scores.shape) / most)
    return mean, sqrt(jnp.minimum(variance + noise, limits.most)), is_wide, size


def _measure(state: _State, equation: Equation) -> _Sums:
    """F and its slope, in one pass over the scores."""
    groups, weights = equation.groups, equation.weights
    threshold = _threshold(state, equation)
    parts = equation.regularizer.parts(excess(equation.scores, threshold, equation.steepness))
    slope = parts.slope if equation.steepness is None else parts.slope * equation.steepness
    values = [weighted(part, weights) for part in (parts.whole, parts.fraction, slope)]
    in_parts = not groups.counts_fit(equation.scores.shape, equation.scores.dtype)
    totals = groups.totals(values, in_parts=in_parts)
    others = len(values) - 1  # after the first, which may come as two terms
    whole, *rest = totals[:-others]
    fraction, slope = totals[-others:]
    residual = whole - equation.k
    for term in rest if equation.k_rest is None else [*rest, -equation.k_rest]:
        residual = residual + term
    return _Sums(residual + fraction, fraction, slope)


def _step(
    state: _State,
    sums: _Sums,
    origin: Float[Array, "*group"],
    spread: Float[Array, "*group"],
    rounds: Int[Array, ""],
    equation: Equation,
) -> _State:
    """One round: the ends move by the sign of F; then Newton's step, or a bisection where it does not do."""
    limits = _Limits.of(equation.k.dtype)
    residual, slope = sums.residual, sums.slope
    magnitude = jnp.abs(residual)
    tolerance = _tolerance(slope, equation)
    converged = ~(magnitude > tolerance)  # so for NaN
    narrowed = _narrow(state, residual, equation)
    is_over = state.residual < 0

    newton = state.fine + residual / jnp.where(slope > 0, slope, 1)
    inside = (slope > 0) & (narrowed.fine_below < newton) & (newton < narrowed.fine_above)
    if not equation.regularizer.smooth:
        converged &= ~(inside & (magnitude > _harmless(sums, equation)) & (state.residual > tolerance))
    enough = _PROGRESS_OF_PIECES if equation.regularizer.piecewise_linear else _PROGRESS
    by_newton = inside & (magnitude <= jnp.where(converged, _relative(equation) * slope, enough * state.residual))
    jump = _bisect(narrowed, origin, spread, rounds, equation)
    width = _widened(state.centre, equation)
    far_apart = narrowed.above / 2 - narrowed.below / 2 > width
    far_apart &= (narrowed.below < jump) & (jump < narrowed.above) & (jump != state.centre)
    bounded = (narrowed.fine_below > -jnp.inf) & (narrowed.fine_above < jnp.inf)
    half = sum(jnp.where(bounded, end, 0) / 2 for end in (narrowed.fine_below, narrowed.fine_above))
    divides = bounded & (narrowed.fine_below < half) & (half < narrowed.fine_above)
    stuck = ~(by_newton | converged | far_apart | divides)
    end = _hopeless(state, narrowed, sums, rounds, stuck)
    done = is_over | converged | (stuck & (end == 0))

    fine = jnp.where(by_newton | (residual != residual), newton, jnp.where(converged | stuck, state.fine, half))
    jumps = (far_apart & ~by_newton) | (end != 0)
    target = jnp.where(end != 0, end, jnp.where(jumps, jump, state.centre + width * fine))
    within = by_newton | ((narrowed.below < target) & (target < narrowed.above))
    moves = (jumps | ((jnp.abs(fine) > _FAR) & within)) & ~done
    moves &= (end != 0) | ((target != state.centre) & (jnp.abs(target) <= limits.most))
    centre = jnp.where(moves, target, state.centre)
    # Floats may lie some temperatures apart: what the centre rounds off stays in the fine part.
    scale = scale_of(state.centre, equation)
    shift = (centre * scale - state.centre * scale) * state.inverse
    inverse = reciprocal(centre, equation)
    moved = _recentred(narrowed, centre, inverse, shift, equation)
    return _State(
        centre=centre,
        fine=jnp.where(is_over, state.fine, jnp.where(moves, jnp.where(jumps, end, fine - shift), fine)),
        below=narrowed.below,
        above=narrowed.above,
        fine_below=jnp.where(moves, moved[0], narrowed.fine_below),
        fine_above=jnp.where(moves, moved[1], narrowed.fine_above),
        inverse=inverse,
        residual=jnp.where(done, -1, jnp.where(by_newton, magnitude, jnp.inf)),
    )


def _hopeless(
    state: _State, narrowed: _State, sums: _Sums, rounds: Int[Array, ""], stuck: Bool[Array, "*group"]
) -> Float[Array, "*group"]:
    """The end of all floats where nothing changes on a side that is open, else 0: only infinite scores may be left."""
    most = _Limits.of(state.centre.dtype).most
    open_above = (sums.residual > 0) & (narrowed.above == jnp.inf) & (state.fine < most)
    open_below = (sums.residual < 0) & (narrowed.below == -jnp.inf) & (state.fine > -most)
    is_late = stuck | (rounds >= jnp.where(sums.slope == 0, _HOPELESS, _LONG))  # Mosaic TPU cannot select conditions
    return jnp.where(is_late & open_above, most, jnp.where(is_late & open_below, -most, 0)).astype(state.centre.dtype)


def _tolerance(slope: Float[Array, "*group"], equation: Equation) -> Float[Array, "*group"]:
    """How small a residual ends the search, after one more step of Newton's where that is small."""
    return _relative(equation) * slope + _Limits.of(slope.dtype).tiny ** _NEGLIGIBLE


def _relative(equation: Equation) -> float:
    """How long the last step may be, in temperatures."""
    epsilon = _Limits.of(equation.k.dtype).epsilon
    if equation.regularizer.piecewise_linear:
        return _LINEAR_TOLERANCE * epsilon
    return _SMOOTH_TOLERANCE * math.sqrt(epsilon) if equation.regularizer.smooth else _TOLERANCE * epsilon


def _harmless(sums: _Sums, equation: Equation) -> Float[Array, "*group"] | float:
    """How small a residual is too small for anything on the other side of a kink to be off by much.

    No entry is off by more than the residual. And of a piecewise linear link, entries that the last step takes across
    a kink leave a slope of no less than what all that are active lack of being chosen, or have.
    """
    epsilon = _Limits.of(sums.slope.dtype).epsilon
    if not equation.regularizer.piecewise_linear:
        return 4 * epsilon
    left = jnp.where(sums.residual > 0, sums.fraction, sums.slope - sums.fraction)
    return 4 * epsilon * jnp.maximum(left, 1)


def _narrow(state: _State, residual: Float[Array, "*group"], equation: Equation) -> _State:
    """Move the end that the sign of F allows to where it was measured."""
    limits = _Limits.of(residual.dtype)
    width = _widened(state.centre, equation)
    point = jnp.clip(state.centre + width * state.fine, -limits.most, limits.most)
    digits = 4 * limits.epsilon * (jnp.abs(state.centre) + width * jnp.abs(state.fine)) + limits.tiny
    lower = jnp.where(state.fine >= 0, jnp.maximum(state.centre, point - digits), point - digits)
    upper = jnp.where(state.fine <= 0, jnp.minimum(state.centre, point + digits), point + digits)
    lower, upper = (jnp.clip(end, -limits.most, limits.most) for end in (lower, upper))
    furthest = jnp.where(jnp.abs(state.centre) == limits.most, _beyond(limits), limits.most)
    fine = jnp.clip(state.fine, -furthest, furthest)
    up, down = residual > 0, residual < 0
    return state._replace(
        below=jnp.where(up, jnp.maximum(state.below, lower), state.below),
        above=jnp.where(down, jnp.minimum(state.above, upper), state.above),
        fine_below=jnp.where(up, fine, state.fine_below),
        fine_above=jnp.where(down, fine, state.fine_above),
    )


def _bisect(
    state: _State,
    origin: Float[Array, "*group"],
    spread: Float[Array, "*group"],
    rounds: Int[Array, ""],
    equation: Equation,
) -> Float[Array, "*group"]:
    """A score between the ends: at the middle float of their distances from the start, or the middle float of theirs.

    An end that is not known is some deviations away, and further after every step.
    """
    limits = _Limits.of(origin.dtype)
    least = jnp.maximum(_widened(origin, equation) / 8, limits.tiny)
    reach = 4 * (spread + _widened(state.centre, equation))
    is_known = state.below > -jnp.inf, state.above < jnp.inf
    down, up = (
        jnp.where(known, end, origin) - origin for known, end in zip(is_known, (state.below, state.above), strict=True)
    )
    lower = jnp.where(is_known[0], down, -reach - 8 * jnp.abs(up))
    upper = jnp.where(is_known[1], up, reach + 8 * jnp.abs(down))
    distance = _middle(jnp.maximum(jnp.abs(lower), least), jnp.maximum(jnp.abs(upper), least))
    guess = origin + jnp.where(lower + upper < 0, -distance, distance)
    middle = _middle(state.below, state.above)
    guess = jnp.where(rounds & 3 == 3, middle, guess)
    return jnp.where((state.below < guess) & (guess < state.above), guess, middle)


def _middle(a: Float[Array, "*group"], b: Float[Array, "*group"]) -> Float[Array, "*group"]:
    """The float halfway between two floats in the count of floats: the one between them, if there is one."""
    dtype, most = a.dtype, float(jnp.finfo(a.dtype).max)
    integer = jnp.int32 if dtype == jnp.float32 else jnp.int64
    a, b = (ordered(lax.bitcast_convert_type(jnp.clip(x, -most, most), integer)) for x in (a, b))
    return lax.bitcast_convert_type(ordered((a & b) + ((a ^ b) >> 1)), dtype)


def _recentred(
    state: _State,
    centre: Float[Array, "*group"],
    inverse: Float[Array, "*group"],
    shift: Float[Array, "*group"],
    equation: Equation,
) -> list[Float[Array, "*group"]]:
    """The ends in temperatures from another centre, rounded outwards.

    Where floats lie some temperatures apart, those that were known in temperatures are the closer ones.
    """
    limits, scale = _Limits.of(centre.dtype), scale_of(centre, equation)
    ratio = (_widened(state.centre, equation) * scale) * inverse
    slack = 8 * limits.epsilon
    ends = []
    for end, fine, sign in ((state.below, state.fine_below, -1), (state.above, state.fine_above, 1)):
        coarse = (end * scale - centre * scale) * inverse
        # An end at the end of all floats stands for what is beyond, too.
        coarse += sign * (slack * jnp.abs(coarse) + jnp.where(end == sign * limits.most, _beyond(limits), 0))
        kept = (fine - shift + sign * slack * (jnp.abs(fine) + jnp.abs(shift))) * ratio
        closer = jnp.minimum(coarse, kept) if sign > 0 else jnp.maximum(coarse, kept)
        ends.append(jnp.where(kept == kept, closer, coarse))
    return ends


def _beyond(limits: _Limits) -> float:
    """How many temperatures beyond all scores a threshold may be, of a link with exponential tails."""
    return -1.5 * math.log(limits.tiny)
