"""Masks of the largest of each row by a sort, and a cumulative sum where it is of probabilities."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def top_k_mask(logits: Float[Array, "rows n"], k: Int[Array, " rows"]) -> Bool[Array, "rows n"]:
    """The k largest of each row, by a sort."""
    return logits >= jnp.take_along_axis(jnp.sort(logits), logits.shape[-1] - k[:, None], -1)


def top_p_mask(logits: Float[Array, "rows n"], p: Float[Array, " rows"]) -> Bool[Array, "rows n"]:
    """The largest of each row that have a probability of p together, by a sort and a cumulative sum."""
    falling = jnp.sort(logits, descending=True)
    return logits >= jnp.take_along_axis(falling, _last(jnp.cumsum(jax.nn.softmax(falling), -1), p), -1)


def truncate(
    logits: Float[Array, "rows n"], k: Int[Array, " rows"], p: Float[Array, " rows"]
) -> Float[Array, "rows n"]:
    """The k largest of each row, and of these those that have a share of p; the others at minus infinity."""
    falling = jnp.sort(logits, descending=True)
    mass = jnp.cumsum(jax.nn.softmax(falling), -1)
    p = p * jnp.take_along_axis(mass, k[:, None] - 1, -1)[:, 0]
    return jnp.where(logits >= jnp.take_along_axis(falling, _last(mass, p), -1), logits, -jnp.inf)


def _last(mass: Float[Array, "rows n"], p: Float[Array, " rows"]) -> Int[Array, "rows 1"]:
    """The place of the first sum that is large enough."""
    short = jnp.sum(mass < p[:, None], -1, keepdims=True)
    return jnp.minimum(short, mass.shape[-1] - 1)
