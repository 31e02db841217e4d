"""Regularizers: what Soft-Binary-Argmax adds to the linear programme to make it smooth.

With a separable, strictly convex penalty `φ` on [0, 1] the optimum is `y_i = ψ(x_i/τ - λ)`, where the
link `ψ = (φ')⁻¹` increases from 0 to 1. The solver needs nothing of a regularizer but the link, in parts
that can be summed without losing digits. The distribution function of a continuous distribution can serve as a link, if
its tails end or fall at least exponentially: scores that floats can hardly tell apart count as saturated.

The regularizers that softbin has are also in `softbin` itself. To write your own, make a :class:`Regularizer` whose
`parts` return :class:`LinkParts`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from softbin._records import documented

__all__ = [  # noqa: RUF022 (as the pages show them)
    "Regularizer",
    "LinkParts",
    "euclidean",
    "binary_entropy",
    "laplace",
    "normal",
    "tsallis",
]


@documented
class LinkParts(NamedTuple):
    """The link `ψ(u) = whole + fraction`, entry by entry, and what the solver must know about it.

    A saturated entry is a whole number, so that counting a million of them is exact and only the
    fractions round.

    Attributes:
      whole: 0 or 1.
      fraction: the rest of the link, in [-1, 1], small near saturation.
      slope: the derivative `ψ'(u)`.
    """

    whole: Float[Array, "*shape"]
    fraction: Float[Array, "*shape"]
    slope: Float[Array, "*shape"]


@dataclass(frozen=True)
class Regularizer:
    """A separable regulariser of the hypersimplex: one penalty and its link.

    It says how soft a choice is, and how its entries approach 0 and 1. softbin has `softbin.euclidean`,
    `softbin.binary_entropy`, `softbin.laplace`, `softbin.normal` and `softbin.tsallis(alpha)`.

    To make another, pass functions of float32 and float64 arrays that `jax.grad` can differentiate; it can be pickled
    if they are functions of a module. The penalty must be strictly convex, so that the link is continuous, and the link
    must reach 0 and 1, or approach them at least exponentially. `tests/test_regularizers.py` checks what else must
    hold, and `tests/_engine/test_search.py` the search with it.

    Attributes:
      penalty: `φ`, finite on [0, 1].
      inverse_link: `φ' = ψ⁻¹` as a function of `y` and of `1 - y`, which has the digits that `y` loses near 1; infinite
        at an end that the link never reaches.
      parts: a function from `u` to :class:`LinkParts`.
      mean, variance: of the distribution whose distribution function `ψ` is. The search starts there.
      divergence: `φ(y) - φ(q) - φ'(q) (y - q)`, with the digits that the difference would lose where `y` is near `q`.
        If it is left out, it is worked out from the others; the link must then be smooth inside (0, 1).
      piecewise_linear: whether all slopes are 0 or 1. These are quicker to sum, and the search takes fewer rounds.
      smooth: whether the slope has no jumps, and changes by no more than itself where `u` changes by one, as in
        exponential tails: the search then ends a round earlier. If in doubt, leave it out: the result is the same.
      name: what `repr` shows.

    Raises:
      TypeError: `penalty`, `inverse_link` or `parts` is not callable, or `mean` or `variance` is not one concrete
        number.
      ValueError: `mean` or `variance` is not finite.

    Example:
      The logistic distribution at half its width, `φ(y) = (y log y + (1-y) log(1-y)) / 2`:

      >>> def penalty(y):
      ...     return binary_entropy.penalty(y) / 2
      >>> def inverse_link(y, complement):
      ...     return binary_entropy.inverse_link(y, complement) / 2
      >>> def parts(u):
      ...     whole, fraction, slope = binary_entropy.parts(2 * u)
      ...     return LinkParts(whole, fraction, 2 * slope)
      >>> steep = Regularizer(penalty, inverse_link, parts, mean=0.0, variance=math.pi**2 / 12)
      >>> import softbin
      >>> scores = jnp.array([3.0, 1.0, 2.0, 0.0])
      >>> print(*(f"{y:.4f}" for y in softbin.soft_binary_argmax(scores, 2, regularizer=steep)))
      0.9526 0.2689 0.7311 0.0474
      >>> print(*(f"{y:.4f}" for y in softbin.soft_binary_argmax(scores, 2, 0.5, regularizer=binary_entropy)))
      0.9526 0.2689 0.7311 0.0474
    """

    penalty: Callable[[Array], Array]
    inverse_link: Callable[[Array, Array], Array]
    parts: Callable[[Array], LinkParts]
    mean: float
    variance: float
    divergence: Callable[[Array, Array], Array] = field(default=None, kw_only=True)  # type: ignore[assignment]
    piecewise_linear: bool = field(default=False, kw_only=True)
    smooth: bool = field(default=False, kw_only=True)
    name: str = field(default="Regularizer", compare=False, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("penalty", "inverse_link", "parts"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} must be a function of arrays, got {getattr(self, name)!r}")
        for name in ("mean", "variance"):
            number = _known_number(name, getattr(self, name))
            if not math.isfinite(number):
                raise ValueError(
                    f"{name} must be finite, got {number}: a link's tails must fall at least exponentially"
                )
            object.__setattr__(self, name, number)
        if self.divergence is None:
            divergence = _With(_divergence_of, (self.penalty, self.inverse_link, self.parts))
            object.__setattr__(self, "divergence", divergence)

    def __repr__(self) -> str:
        return self.name

    def link(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`ψ(u)`, in [0, 1]."""
        parts = self.parts(u)
        return parts.whole + parts.fraction


def _known_number(name: str, value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError):  # what is traced, or a ragged list
        known = np.asarray(value)
        real = jnp.issubdtype(known.dtype, jnp.floating) or jnp.issubdtype(known.dtype, jnp.integer)
        if real and known.ndim == 0:
            return float(known)
    raise TypeError(f"{name} must be one concrete number, got {value!r}")


@dataclass(frozen=True)
class _With:
    """A function with its last arguments. Unlike that of `functools`, it is equal to another such one."""

    function: Callable
    last: tuple

    def __call__(self, *first: Any) -> Any:
        return self.function(*first, *self.last)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(7)


def _divergence_of(
    y: Array, q: Array, penalty: Callable, inverse_link: Callable, parts: Callable[[Array], LinkParts]
) -> Array:
    def curvature(y: Array) -> Array:
        return 1 / parts(inverse_link(y, 1 - y)).slope

    difference = penalty(y) - penalty(q) - inverse_link(q, 1 - q) * (y - q)
    near = jnp.abs(y - q) < jnp.minimum(q, 1 - q) / 4
    return jnp.where(y == q, 0, jnp.where(near, _integrated(curvature, y, q, near), difference))


def _integrated(curvature: Callable[[Array], Array], y: Array, q: Array, near: Array) -> Array:
    """The divergence where `y` is near `q`: `(y - q)² ∫ (1 - s) φ''(q + s (y - q)) ds` over [0, 1]."""
    y, q = jnp.where(near, y, 0.5), jnp.where(near, q, 0.5)
    points = ((float(1 + x) / 2, float(w) / 2) for x, w in zip(_NODES, _WEIGHTS, strict=True))
    integral = sum(w * (1 - s) * curvature(q + s * (y - q)) for s, w in points)
    return (y - q) ** 2 * integral


def _euclidean_penalty(y: Array) -> Array:
    return y**2 / 2


def _euclidean_divergence(y: Array, q: Array) -> Array:
    return (y - q) ** 2 / 2


def _euclidean_inverse_link(y: Array, complement: Array) -> Array:
    del complement
    return y


def _euclidean_parts(u: Array) -> LinkParts:
    one = u >= 1
    saturated = one | (u <= 0)  # false for NaN, which must come through
    fraction = jnp.where(saturated, 0, u)
    slope = jnp.where(saturated, 0, jnp.ones_like(u))
    return LinkParts(one.astype(u.dtype), fraction, slope)


def _times_log(x: Array, y: Array) -> Array:
    """`x log y`, and 0 at `x = 0`: without the NaN on the way that `xlogy` of JAX has, and `checkify` reports."""
    return x * jnp.log(jnp.where(x == 0, 1, y))


def _binary_entropy_penalty(y: Array) -> Array:
    return _times_log(y, y) + (1 - y) * jnp.log1p(-jnp.where(y == 1, 0, y))


def _binary_entropy_inverse_link(y: Array, complement: Array) -> Array:
    return jnp.log(y) - jnp.log(complement)


def _binary_entropy_parts(u: Array) -> LinkParts:
    upper = u >= 0
    tail = lax.logistic(-jnp.abs(u))
    fraction = jnp.where(upper, -tail, tail)
    slope = tail * (1 - tail)
    return LinkParts(upper.astype(u.dtype), fraction, slope)


def _laplace_penalty(y: Array) -> Array:
    tail = jnp.minimum(y, 1 - y)
    return _times_log(tail, 2 * tail) - tail


def _laplace_divergence(y: Array, q: Array) -> Array:
    """From one side of 1/2 to the other by way of 1/2, where `φ'` is 0 and `φ''` has a kink."""
    y, q = jnp.where(q <= 0.5, y, 1 - y), jnp.minimum(q, 1 - q)
    beyond = jnp.maximum(y - 0.5, 0)
    below = _laplace_divergence_below(0.5 - beyond, jnp.full_like(y, 0.5))
    across = below - jnp.log(2 * jnp.where(beyond > 0, q, 1)) * beyond
    return _laplace_divergence_below(jnp.minimum(y, 0.5), q) + jnp.where(beyond > 0, across, 0)


def _laplace_divergence_below(y: Array, q: Array) -> Array:
    near = jnp.abs(y - q) < q / 4
    difference = _times_log(y, y / jnp.where(q > 0, q, 1)) - (y - q)
    difference = jnp.where((q == 0) & (y > 0), jnp.inf, difference)
    return jnp.where(near, _integrated(jnp.reciprocal, y, q, near), difference)


def _laplace_inverse_link(y: Array, complement: Array) -> Array:
    return jnp.where(y < complement, jnp.log(2 * y), -jnp.log(2 * complement))


def _laplace_parts(u: Array) -> LinkParts:
    upper = u >= 0
    tail = jnp.exp(-jnp.abs(u)) / 2
    return LinkParts(upper.astype(u.dtype), jnp.where(upper, -tail, tail), tail)


def _normal_penalty(y: Array) -> Array:
    inside = (y > 0) & (y < 1)
    return jnp.where(inside, -norm.pdf(ndtri(jnp.where(inside, y, 0.5))), 0)


def _normal_inverse_link(y: Array, complement: Array) -> Array:
    return jnp.where(y < complement, ndtri(y), -ndtri(complement))


def _normal_parts(u: Array) -> LinkParts:
    upper = u >= 0
    tail = ndtr(-jnp.abs(u))
    return LinkParts(upper.astype(u.dtype), jnp.where(upper, -tail, tail), norm.pdf(u))


def _tsallis_penalty(y: Array, alpha: float) -> Array:
    return y * (_tsallis_inverse_link(y, 1 - y, alpha) - 1) / alpha


def _tsallis_divergence(y: Array, q: Array, alpha: float) -> Array:
    difference = _tsallis_penalty(y, alpha) - _tsallis_penalty(q, alpha)
    difference -= _tsallis_inverse_link(q, 1 - q, alpha) * (y - q)
    near = jnp.abs(y - q) < q / 4
    return jnp.where(y == q, 0, jnp.where(near, _integrated(lambda y: y ** (alpha - 2), y, q, near), difference))


def _tsallis_inverse_link(y: Array, complement: Array, alpha: float) -> Array:
    upper = y > complement
    log = jnp.where(upper, jnp.log1p(-jnp.where(upper, complement, 0)), jnp.log(jnp.where(upper, 1, y)))
    return jnp.expm1((alpha - 1) * log) / (alpha - 1)


def _tsallis_parts(u: Array, alpha: float) -> LinkParts:
    v = (alpha - 1) * jnp.minimum(u, 0)
    none = v <= -1  # false for NaN, which must come through
    inside = jnp.where(none, -0.5, v)
    log = jnp.log1p(inside) / (alpha - 1)
    y = jnp.where(none, 0, jnp.exp(log))
    upper = y >= 0.5
    fraction = jnp.where(upper, jnp.expm1(jnp.where(none, 0, log)), y)
    slope = jnp.where(none | (u >= 0), 0, jnp.exp((2 - alpha) * log))
    return LinkParts(upper.astype(u.dtype), fraction, slope)


euclidean = Regularizer(
    penalty=_euclidean_penalty,
    divergence=_euclidean_divergence,
    inverse_link=_euclidean_inverse_link,
    parts=_euclidean_parts,
    mean=1 / 2,
    variance=1 / 12,
    piecewise_linear=True,
    name="softbin.euclidean",
)
"""`φ(y) = y²/2`, `ψ(u) = clip(u, 0, 1)`: the Euclidean projection (arXiv:2602.23336, eq. 9)."""

binary_entropy = Regularizer(
    penalty=_binary_entropy_penalty,
    inverse_link=_binary_entropy_inverse_link,
    parts=_binary_entropy_parts,
    mean=0.0,
    variance=math.pi**2 / 3,
    smooth=True,
    name="softbin.binary_entropy",
)
"""`φ(y) = y log y + (1-y) log(1-y)`, `ψ(u) = sigmoid(u)`: the LML layer (Amos et al., arXiv:1906.08707)."""

laplace = Regularizer(
    penalty=_laplace_penalty,
    divergence=_laplace_divergence,
    inverse_link=_laplace_inverse_link,
    parts=_laplace_parts,
    mean=0.0,
    variance=2.0,
    smooth=True,
    name="softbin.laplace",
)
"""`φ(y) = m log 2m - m`, `m = min(y, 1-y)`; `ψ(u)` is Laplace's distribution function: LapSum (arXiv:2503.06242)."""

normal = Regularizer(
    penalty=_normal_penalty,
    inverse_link=_normal_inverse_link,
    parts=_normal_parts,
    mean=0.0,
    variance=1.0,
    smooth=True,
    name="softbin.normal",
)
"""`φ(y) = -pdf(Φ⁻¹(y))`, `ψ(u) = Φ(u)`: the normal distribution, a probit in place of a logit."""


def tsallis(alpha: int | float) -> Regularizer:
    """A family of sparse regularizers, between exponential weights (`α` near 1) and `softbin.euclidean` (`α = 2`).

    `φ(y) = (y^α - α y) / (α (α - 1))`, `ψ(u) = clip(1 + (α-1) u, 0, 1)^(1/(α-1))`. Entries leave 0 smoothly and reach 1
    with a kink. At `α = 2` the choices are those of `softbin.euclidean`, and the thresholds are larger by 1.

    Args:
      alpha: in (1, 2], a concrete number.

    Returns:
      A :class:`Regularizer`.

    Raises:
      TypeError: `alpha` is not one concrete number.
      ValueError: `alpha` is outside (1, 2].

    Example:
      >>> import softbin
      >>> y = softbin.soft_binary_argmax(jnp.array([3.0, 1.0, 2.0, 0.0]), 2, 2.0, regularizer=tsallis(1.5))
      >>> print(*(f"{y:.3f}" for y in y))
      1.000 0.292 0.624 0.084

    References:
      Peters, Niculae, Martins, `Sparse Sequence-to-Sequence Models <https://arxiv.org/abs/1905.05702>`_, 2019.
    """
    alpha = _known_number("alpha", alpha)
    if not 1 < alpha <= 2:
        raise ValueError(f"alpha must be in (1, 2], got {alpha}: 2 is softbin.euclidean")
    last = (alpha,)
    return Regularizer(
        penalty=_With(_tsallis_penalty, last),
        divergence=_With(_tsallis_divergence, last),
        inverse_link=_With(_tsallis_inverse_link, last),
        parts=_With(_tsallis_parts, last),
        mean=-1 / alpha,
        variance=1 / ((2 * alpha - 1) * alpha**2),
        name=f"softbin.tsallis({alpha!r})",
    )
