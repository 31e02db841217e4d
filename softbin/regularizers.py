"""Regularizers: what Soft-Binary-Argmax adds to the linear programme to make it smooth.

With a separable, strictly convex penalty `φ` on [0, 1] the optimum is `y_i = ψ(x_i/τ - λ)`, where the
link `ψ = (φ')⁻¹` increases from 0 to 1. The solver needs nothing of a regularizer but the link, in parts
that can be summed without losing digits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlog1py, xlogy
from jaxtyping import Array, Float


class LinkParts(NamedTuple):
    """The link `ψ(u) = whole + fraction`, entry by entry, and what the solver must know about it.

    A saturated entry is a whole number, so that counting a million of them is exact and only the
    fractions round.

    Attributes:
      whole: 0 or 1.
      fraction: what is left, in [-1, 1], small near saturation.
      slope: the derivative `ψ'(u)`.
      rounding: bounds the rounding error of `fraction`, in units of the machine epsilon.
    """

    whole: Float[Array, "*shape"]
    fraction: Float[Array, "*shape"]
    slope: Float[Array, "*shape"]
    rounding: Float[Array, "*shape"]


@dataclass(frozen=True)
class Regularizer:
    """A separable regulariser of the hypersimplex: one penalty and its link.

    There are two: `softbin.euclidean`, `φ(y) = y²/2`, and `softbin.binary_entropy`, `φ(y) = y log y + (1-y) log(1-y)`.
    Made of functions that a module names, it can be pickled.

    Attributes:
      penalty: `φ`, on [0, 1].
      divergence: `φ(y) - φ(q) - φ'(q) (y - q)`, with the digits that the difference would lose where `y` is near `q`.
      inverse_link: `φ' = ψ⁻¹` as a function of `y` and of `1 - y`, which near one has the digits that `y`
        has lost; infinite at an end that the link never reaches.
      parts: `u -> LinkParts`.
      mean, variance: of the distribution whose distribution function `ψ` is.
      name: what `repr` shows.
    """

    penalty: Callable[[Array], Array]
    divergence: Callable[[Array, Array], Array]
    inverse_link: Callable[[Array, Array], Array]
    parts: Callable[[Array], LinkParts]
    mean: float
    variance: float
    name: str = field(default="Regularizer", compare=False)

    def __repr__(self):
        return self.name

    def link(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`ψ(u)`, in [0, 1]."""
        parts = self.parts(u)
        return parts.whole + parts.fraction


def _euclidean_penalty(y):
    return y**2 / 2


def _euclidean_divergence(y, q):
    return (y - q) ** 2 / 2


def _euclidean_inverse_link(y, complement):
    del complement
    return y


def _euclidean_parts(u: Array) -> LinkParts:
    one = u >= 1
    saturated = one | (u <= 0)  # false for NaN, which must come through
    fraction = jnp.where(saturated, 0, u)
    slope = jnp.where(saturated, 0, jnp.ones_like(u))
    return LinkParts(one.astype(u.dtype), fraction, slope, rounding=fraction)


def _binary_entropy_penalty(y):
    return xlogy(y, y) + xlog1py(1 - y, -y)


def _binary_entropy_divergence(y, q):
    return _relative_entropy(y, q, y - q) + _relative_entropy(1 - y, 1 - q, q - y)


def _relative_entropy(p, q, difference):
    """`p log(p / q)`, where `difference` has more digits of `p - q` than these."""
    near = jnp.abs(difference) < q / 2
    return jnp.where(near, xlog1py(p, difference / jnp.where(near, q, jnp.inf)), xlogy(p, p / jnp.where(q > 0, q, 1)))


def _binary_entropy_inverse_link(y, complement):
    return jnp.log(y) - jnp.log(complement)


def _binary_entropy_parts(u: Array) -> LinkParts:
    upper = u >= 0
    tail = jax.nn.sigmoid(jnp.where(upper, -u, u))
    fraction = jnp.where(upper, -tail, tail)
    slope = tail * (1 - tail)
    # The rounding of u itself reaches the tail through the slope; the cap keeps 0 * inf out.
    rounding = tail * (1 + jnp.minimum(jnp.abs(u), 1e3))
    return LinkParts(upper.astype(u.dtype), fraction, slope, rounding)


euclidean = Regularizer(
    penalty=_euclidean_penalty,
    divergence=_euclidean_divergence,
    inverse_link=_euclidean_inverse_link,
    parts=_euclidean_parts,
    mean=1 / 2,
    variance=1 / 12,
    name="softbin.euclidean",
)
"""`φ(y) = y²/2`, `ψ(u) = clip(u, 0, 1)`: the Euclidean projection (arXiv:2602.23336, eq. 9)."""

binary_entropy = Regularizer(
    penalty=_binary_entropy_penalty,
    divergence=_binary_entropy_divergence,
    inverse_link=_binary_entropy_inverse_link,
    parts=_binary_entropy_parts,
    mean=0.0,
    variance=math.pi**2 / 3,
    name="softbin.binary_entropy",
)
"""`φ(y) = y log y + (1-y) log(1-y)`, `ψ(u) = sigmoid(u)`: the LML layer (Amos et al., arXiv:1906.08707)."""
