"""The threshold as a function of the problem, with its derivatives.

`solve` is the root of F of `softbin.search` with its implicit derivative, `centre` picks the middle where the root is
an interval. Both work on any axis in place, without a sort and without a transposition, and return group arrays. The
tangent of a threshold's `fine` is that of `τλ` itself, since no scale keeps all derivatives in the range of floats.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from softbin import search as solver
from softbin.groups import Groups, weighted
from softbin.regularizers import Regularizer
from softbin.search import Threshold, search

IMPLEMENTATIONS = (None, "xla", "pallas", "interpret_tpu", "interpret_gpu")
"""None is "xla"; the last two are the kernels of "pallas", interpreted."""
CHECKPOINT_NAME = "softbin_threshold"
"""By which a policy of `jax.checkpoint` can save thresholds, so that a backward pass does not search for them again."""


@jax.custom_jvp
def excess(scores, threshold: Threshold, temperature) -> Float[Array, "*shape"]:
    """`u = x/τ - λ`; an infinite one has zero derivatives, and not NaN."""
    return solver.excess(scores, threshold, temperature)


@excess.defjvp
def _excess_jvp(primals, tangents):
    scores, threshold, temperature = primals
    dscores, dthreshold, dtemperature = tangents
    u = excess(scores, threshold, temperature)
    infinite = jnp.isinf(u)
    change = (dscores - dthreshold.fine) - jnp.where(infinite, 0, u) * dtemperature
    return u, jnp.where(infinite, 0, change / temperature)


@jax.custom_jvp
def multiplier(threshold: Threshold, temperature) -> Float[Array, "*group"]:
    """`λ`."""
    return (threshold.coarse + threshold.fine) / (temperature * threshold.scale)


@multiplier.defjvp
def _multiplier_jvp(primals, tangents):
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
def _solve(scores, k, temperature, weights, groups, regularizer, implementation, k_rest):
    run = chosen_kernels(implementation, scores, groups)
    if run is None:
        return search(scores, k, temperature, weights, groups, regularizer, k_rest)[0]

    def compute(group_arrays, entries, reductions):
        scores, weights = [entry[...] for entry in entries] if len(entries) > 1 else (entries[0][...], None)
        return search(scores, *group_arrays, weights, reductions, regularizer)[0], ()

    entries = [scores] if weights is None else [scores, weights]
    found, _ = run(compute, [k, temperature], entries, groups)
    return Threshold(*found)


@_solve.defjvp
def _solve_jvp(groups, regularizer, implementation, primals, tangents):
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
    return threshold, Threshold(zero, dfine, zero)


def chosen_kernels(implementation: str | None, scores, groups: Groups) -> Callable | None:
    """The `run` of `softbin.kernels.on_chip` that is chosen, where it can take these groups, else None.

    Raises:
      ValueError: there is no such implementation.
    """
    check_implementation(implementation)
    if implementation in (None, "xla"):
        return None
    from softbin.kernels import on_chip  # loads Pallas

    return on_chip.RUNS[implementation] if on_chip.fits(scores, groups) else None


def check_implementation(implementation) -> None:
    """Refuse the name of one that there is not."""
    if implementation not in IMPLEMENTATIONS:
        names = ", ".join(f'"{name}"' for name in IMPLEMENTATIONS[1:-1])
        raise ValueError(f'implementation must be None, {names} or "{IMPLEMENTATIONS[-1]}", got {implementation!r}')


def safe_ratio(numerator, slope):
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
    vertex = groups.total(weighted(parts.slope, weights)) == 0
    below = groups.largest(jnp.where(parts.whole == 0, scores, -jnp.inf))
    above = -groups.largest(-jnp.where(parts.whole == 1, scores, jnp.inf))
    one, half, zero = jnp.ones_like(below), jnp.full_like(below, 0.5), jnp.zeros_like(below)
    middle = (below / 2 + above / 2) / temperature - regularizer.inverse_link(half, half)
    middle = jnp.where(jnp.isfinite(above), middle, below / temperature - regularizer.inverse_link(zero, one))
    middle = jnp.where(jnp.isfinite(below), middle, above / temperature - regularizer.inverse_link(one, zero))
    return jnp.where(vertex, lax.stop_gradient(middle), multiplier(threshold, temperature))
