"""Thresholds of short groups without a search: of a piecewise linear link, where F bends is known.

F is linear between the places where an entry begins to be chosen and where it is chosen whole. All of these are tried
at once, by comparing every entry with every other, and the root is in closed form next to the last at which F is not
negative. To as few as ten entries that is quicker than a loop, and a tenth of its program.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from softbin._engine import sums
from softbin._engine.groups import Groups, is_symbolic, weighted
from softbin._engine.search import Equation, Threshold, excess, reciprocal, scale_of
from softbin.regularizers import Regularizer

LONGEST = 10  # entries, since pairs of them grow as the square


def fits(shape: tuple[Any, ...], groups: Groups, regularizer: Regularizer) -> bool:
    """Whether these groups are that short, whole in one place, and lie along the first axis."""
    n = shape[0]
    is_plain = groups.axes == (0,) and groups.axis_name is None and groups.lanes == 1
    return bool(is_plain and regularizer.piecewise_linear and not is_symbolic(n) and n <= LONGEST)


def solve(equation: Equation) -> Threshold:
    """The root of F, for groups along the first axis."""
    scores, most = equation.scores, float(jnp.finfo(equation.scores.dtype).max)
    begins, ends = _residuals(equation)
    is_finite = jnp.abs(scores) <= most
    never = -jnp.inf
    begin, end, least = _largest(
        jnp.where(is_finite & (begins >= 0), scores, never),
        jnp.where(is_finite & (ends >= 0), scores, never),
        jnp.where(is_finite, -scores, never),
    )
    end = jnp.maximum(end, -least)  # where more are asked for than there are, all
    end = jnp.where(jnp.abs(end) <= most, end, 0)
    scale = scale_of(end, equation)
    ends_later = (begin == never) | ((end * scale - begin * scale) * reciprocal(end, equation) > 1)
    return _closed_form(jnp.where(ends_later, end, begin), -ends_later.astype(scores.dtype), equation)


def _residuals(equation: Equation) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """F where each entry begins to be chosen, and where it is chosen whole."""
    scores, k, parts = equation.scores, equation.k, equation.regularizer.parts
    weights = None if equation.weights is None else equation.weights[:, None]
    scale, first = scale_of(scores, equation), equation.regularizer.mean - 0.5
    apart = (scores[:, None] * scale[None] - (scores * scale)[None]) * reciprocal(scores, equation)[None]
    apart = jnp.where(scores[:, None] == scores[None], 0, apart)  # infinite ones too
    at_begin, at_end = parts(apart + first), parts(apart + (first + 1))
    terms = at_begin.whole, at_begin.fraction, at_end.whole, at_end.fraction
    whole, fraction, whole_at_end, fraction_at_end = sums.reduce([weighted(term, weights) for term in terms], 0)
    return (whole - k) + fraction, (whole_at_end - k) + fraction_at_end


def _largest(*operands: Float[Array, "*shape"]) -> tuple[Float[Array, "*group"], ...]:
    return tuple(x[None] for x in sums.reduce(operands, 0, kinds=[sums.LARGEST] * len(operands)))


def _closed_form(centre: Float[Array, "*group"], fine: Float[Array, "*group"], equation: Equation) -> Threshold:
    """The root on the piece of F above a place where it bends."""
    scale, first = scale_of(centre, equation), equation.regularizer.mean - 0.5
    bend = Threshold(centre * scale, fine - first, scale, reciprocal(centre, equation))
    u = excess(equation.scores, bend)
    parts = equation.regularizer.parts(u)
    is_active = (u > first) & (u <= first + 1)
    whole, fraction = jnp.where(is_active, 0, parts.whole), jnp.where(is_active, u - first, parts.fraction)
    terms = [weighted(term, equation.weights) for term in (whole, fraction, is_active.astype(u.dtype))]
    whole, fraction, slope = (total[None] for total in sums.reduce(terms, 0))
    residual = (whole - equation.k) + fraction
    step = residual / jnp.where(slope > 0, slope, jnp.inf)  # NaN for NaN
    return bend._replace(fine=bend.fine + step)
