"""Thresholds bit by bit, as serving engines find them: a comparison and a sum of the whole vocabulary for each bit.

Rows are transposed first, so that sums run over the first axis, and neighbours in memory belong to different rows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

_BITS = 32
_SIGN = np.uint32(1 << 31)
_LOWEST = np.uint32((1 << 23) - 1)  # stands for minus infinity; what is below, for no number


def top_k_mask(logits: Float[Array, "rows n"], k: Int[Array, " rows"]) -> Bool[Array, "rows n"]:
    """The k largest of each row, and what equals the last of them."""
    return logits >= _kth_largest(logits.T, k)[:, None]


def top_p_mask(logits: Float[Array, "rows n"], p: Float[Array, " rows"]) -> Bool[Array, "rows n"]:
    """The largest of each row that have a probability of p together, and what equals the last of them."""
    probabilities = jax.nn.softmax(logits)
    columns = probabilities.T
    cut = _largest(lambda value: jnp.where(columns >= value, columns, 0).sum(0) >= p, p)
    return probabilities >= cut[:, None]


def truncate(
    logits: Float[Array, "rows n"], k: Int[Array, " rows"], p: Float[Array, " rows"]
) -> Float[Array, "rows n"]:
    """The k largest of each row, and of these those that have a share of p; the others at minus infinity."""
    logits = jnp.where(top_k_mask(logits, k), logits, -jnp.inf)
    return jnp.where(top_p_mask(logits, p), logits, -jnp.inf)


def quantile(values: Float[Array, " n"], level: Float[Array, ""]) -> Float[Array, ""]:
    """Between the entries on both sides of a level; its rank is in float32."""
    rank = level * (values.size - 1)
    below = jnp.floor(rank)
    k = values.size - below.astype(jnp.int32)
    low = _kth_largest(values[:, None], k[None])[0]
    high = jnp.min(jnp.where(values > low, values, jnp.inf))
    tied = (values > low).sum() < k - 1  # with the next one, or there is none
    return low + jnp.where(tied | (rank == below), 0, (rank - below) * (high - low))


def _kth_largest(columns: Float[Array, "n rows"], k: Int[Array, " rows"]) -> Float[Array, " rows"]:
    return _largest(lambda value: (columns >= value).sum(0) >= k, k)


def _largest(enough: Callable[[Array], Array], like: Array) -> Float[Array, " rows"]:
    """The largest number that leaves enough, as all smaller ones do: each bit is set if it then still does."""

    def set_bit(place: Array, code: Array) -> Array:
        candidate = code | lax.shift_right_logical(_SIGN, place.astype(jnp.uint32))
        return jnp.where(enough(_number(candidate)), candidate, code)

    return _number(lax.fori_loop(0, _BITS, set_bit, jnp.zeros(like.shape, jnp.uint32)))


def _number(code: UInt32[Array, " rows"]) -> Float[Array, " rows"]:
    """Of integers in the order of floats."""
    code = jnp.maximum(code, _LOWEST)
    return lax.bitcast_convert_type(jnp.where(code >= _SIGN, code ^ _SIGN, ~code), jnp.float32)
