"""The threshold as a function of the problem, with its derivatives.

`solve` is the root of F of the search with its implicit derivative, `centre` picks the middle where the root is
an interval. Both work on any axis in place, without a sort and without a transposition, and return group arrays. The
tangent of a threshold's `fine` is that of `τλ` itself, since no scale keeps all derivatives in the range of floats.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from softbin._engine import meshes, short_groups
from softbin._engine import search as solver
from softbin._engine.groups import Groups, is_symbolic, weighted
from softbin._engine.kernels import Interpreted
from softbin._engine.search import Equation, Reductions, Threshold, search
from softbin.regularizers import Regularizer

IMPLEMENTATIONS = (None, "xla", "pallas")
"""None is "xla". Tests also take the kernels of "pallas" `Interpreted`."""
_SHORT = 32  # entries of a row, up to which it pays to turn rows into columns
CHECKPOINT_NAME = "softbin_threshold"
"""By which a policy of `jax.checkpoint` can save thresholds, so that a backward pass does not search for them again."""


@jax.custom_jvp
def excess(
    scores: Float[Array, "*shape"], threshold: Threshold, temperature: Float[Array, "*group"]
) -> Float[Array, "*shape"]:
    """`u = x/τ - λ`; an infinite one has zero derivatives, and not NaN."""
    del temperature  # whose derivative it has
    return solver.excess(scores, threshold)


@excess.defjvp
def _excess_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    scores, threshold, temperature = primals
    dscores, dthreshold, dtemperature = tangents
    u = excess(scores, threshold, temperature)
    infinite = jnp.isinf(u)
    change = (dscores - dthreshold.fine) - jnp.where(infinite, 0, u) * dtemperature
    return u, jnp.where(infinite, 0, change / temperature)


@jax.custom_jvp
def multiplier(threshold: Threshold, temperature: Float[Array, "*group"]) -> Float[Array, "*group"]:
    """`λ`; infinite where none are chosen, or all."""
    centre = threshold.centre / threshold.scale / temperature
    end = jnp.abs(threshold.fine) >= jnp.finfo(threshold.fine.dtype).max
    return jnp.where(end, jnp.where(threshold.fine > 0, jnp.inf, -jnp.inf), centre + threshold.fine)


@multiplier.defjvp
def _multiplier_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    threshold, temperature = primals
    dthreshold, dtemperature = tangents
    value = multiplier(threshold, temperature)
    return value, (dthreshold.fine - value * dtemperature) / temperature


def solve(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None = None,
    k_rest: Float[Array, "*group"] | None = None,
) -> Threshold:
    """The root of F with its implicit derivative; arguments as for `search`.

    With `s = τλ`, `d = ψ'(u)` and `D = Σ w d`, differentiating `F = 0` gives

        ds = (Σ w d (dx - u dτ) + τ (Σ ψ dw - dk)) / D,

    and zero where D = 0: at a vertex of the hypersimplex the threshold is free to move.

    Raises:
      ValueError: there is no such implementation.
    """
    found = _solve(scores, k, temperature, weights, groups, regularizer, implementation, k_rest)
    return jax.tree.map(partial(checkpoint_name, name=CHECKPOINT_NAME), found)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def _solve(
    scores: Float[Array, "*shape"],
    k: Float[Array, "*group"],
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
    implementation: str | None,
    k_rest: Float[Array, "*group"] | None,
) -> Threshold:
    run = chosen_kernels(implementation, scores, groups, regularizer)
    if run is None:
        return find(Equation(scores, k, temperature, weights, groups, regularizer, k_rest), groups)[0]

    def compute(
        group_arrays: Sequence[Array], entries: Sequence[Any], reductions: Reductions
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        scores, weights = [entry[...] for entry in entries] if len(entries) > 1 else (entries[0][...], None)
        return search(scores, *group_arrays, weights, reductions, regularizer)[0], ()

    entries = [scores] if weights is None else [scores, weights]
    found, _ = run(compute, [k, temperature], entries, groups)
    return Threshold(*found)


def find(equation: Equation, groups: Groups) -> tuple[Threshold, Int[Array, ""]]:
    """The root of F by XLA, without a derivative, and the number of rounds that it took.

    Short rows are turned into columns: there compilers vectorise over all of them.
    """
    axis = equation.scores.ndim - 1
    n = equation.scores.shape[axis]
    if not axis or groups.axes != (axis,) or is_symbolic(n) or n > _SHORT:
        return _found(equation, groups)
    groups = groups._replace(axes=(0,))
    weights = None if equation.weights is None else jnp.moveaxis(equation.weights, axis, 0)
    scores, k, temperature = (jnp.moveaxis(x, axis, 0) for x in equation[:3])
    found, rounds = _found(Equation(scores, k, temperature, weights, groups, equation.regularizer), groups)
    return Threshold(*(jnp.moveaxis(x, 0, axis) for x in found)), rounds


def _found(equation: Equation, groups: Groups) -> tuple[Threshold, Int[Array, ""]]:
    if short_groups.fits(equation.scores.shape, groups, equation.regularizer):
        return short_groups.solve(equation), jnp.zeros((), jnp.int32)
    with meshes.named():
        return search(*equation)


@_solve.defjvp
def _solve_jvp(
    groups: Groups, regularizer: Regularizer, implementation: str | None, primals: tuple, tangents: tuple
) -> tuple[Threshold, Threshold]:
    scores, k, temperature, weights, k_rest = primals
    dscores, dk, dtemperature, dweights, _ = tangents
    threshold = solve(scores, k, temperature, weights, groups, regularizer, implementation, k_rest)
    u = excess(scores, threshold, temperature)
    parts = regularizer.parts(u)
    change = dscores - jnp.where(jnp.isinf(u), 0, u) * dtemperature
    change = weighted(parts.slope * change, weights)
    if weights is not None:
        change = change + temperature * (parts.whole + parts.fraction) * dweights
    slope = groups.total(weighted(parts.slope, weights))
    dfine = safe_ratio(groups.plain_total(change) - temperature * dk, slope)
    zero = jnp.zeros_like(dfine)
    return threshold, Threshold(zero, dfine, zero, zero)


def chosen_kernels(
    implementation: str | None, scores: Float[Array, "*shape"], groups: Groups, regularizer: Regularizer
) -> Callable | None:
    """The `run` of `softbin._engine.kernels.on_chip` that is chosen, where it can take these groups, else None.

    Raises:
      ValueError: there is no such implementation.
    """
    check_implementation(implementation)
    if implementation in (None, "xla"):
        return None
    from softbin._engine.kernels import on_chip  # loads Pallas

    return on_chip.RUNS[implementation] if on_chip.fits(scores, groups, regularizer) else None


def check_implementation(implementation: Any) -> None:
    """Refuse the name of one that there is not."""
    if not isinstance(implementation, Interpreted) and implementation not in IMPLEMENTATIONS:
        names = ", ".join(f'"{name}"' for name in IMPLEMENTATIONS[1:-1])
        raise ValueError(f'implementation must be None, {names} or "{IMPLEMENTATIONS[-1]}", got {implementation!r}')


def safe_ratio(numerator: Float[Array, "..."], slope: Float[Array, "..."]) -> Float[Array, "..."]:
    """`numerator / slope`, and zero with zero derivative where the slope is zero: at a vertex."""
    return jnp.where(slope > 0, numerator / jnp.where(slope > 0, slope, 1), 0)


def centre(
    scores: Float[Array, "*shape"],
    threshold: Threshold,
    temperature: Float[Array, "*group"],
    weights: Float[Array, "*shape"] | None,
    groups: Groups,
    regularizer: Regularizer,
) -> Float[Array, "*group"]:
    """`λ`, and the middle of its interval where F vanishes on one, as between two separated clusters.

    The derivative is that of `solve` over `τ`, and zero in the middle of an interval.
    """
    scores = lax.stop_gradient(scores)
    parts = regularizer.parts(excess(scores, threshold, temperature))
    slope, y = parts.slope, parts.whole + parts.fraction
    if regularizer.piecewise_linear:  # one entry may be off by a rounding, at an end of the interval
        slope = jnp.where(jnp.minimum(y, 1 - y) <= 4 * jnp.finfo(y.dtype).eps, 0, slope)
    vertex = groups.total(weighted(slope, weights)) == 0
    below = groups.largest(jnp.where(y < 0.5, scores, -jnp.inf))
    above = -groups.largest(-jnp.where(y >= 0.5, scores, jnp.inf))
    one, half, zero = jnp.ones_like(below), jnp.full_like(below, 0.5), jnp.zeros_like(below)
    middle = (below / 2 + above / 2) / temperature - regularizer.inverse_link(half, half)
    middle = jnp.where(jnp.isfinite(above), middle, below / temperature - regularizer.inverse_link(zero, one))
    middle = jnp.where(jnp.isfinite(below), middle, above / temperature - regularizer.inverse_link(one, zero))
    return jnp.where(vertex, lax.stop_gradient(middle), multiplier(threshold, temperature))
