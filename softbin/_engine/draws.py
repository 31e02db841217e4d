"""Random numbers of which a token's depends on the key of its row and on its place alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32

from softbin._engine.groups import Groups


def gumbel(
    words: UInt32[Array, "..."], impl: Any, shape: tuple[Any, ...], groups: Groups, dtype: Any
) -> Float[Array, "*shape"]:
    """Gumbel noise for logits of a shape, by one key, or by one for each row.

    One key stands for as many as there are rows, each folded in with its number: so a row's noise does not depend on
    how many there are, nor, as random bits are those of their places, on how long they are. It is worked out of 31
    bits in float32, such that what is large, and decides, has most digits: ties are one in a million draws.
    """
    rows, (axis,) = groups.without(shape), groups.axes
    keys = jax.random.wrap_key_data(words) if impl is None else jax.random.wrap_key_data(words, impl=impl)
    if keys.shape == rows:
        keys = keys.reshape(-1)
    else:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(keys, jnp.arange(math.prod(rows)))
    n = groups.size(shape)
    bits = jax.vmap(lambda key: jax.random.bits(key, (n,), jnp.uint32))(keys)
    if (
        groups.axis_name is not None
    ):  # every shard draws the whole row, which is quicker than to send it, and takes its part
        start = lax.axis_index(groups.axis_name) * shape[axis]
        bits = lax.dynamic_slice_in_dim(bits, start, shape[axis], axis=1)
    uniform = ((bits >> 1).astype(jnp.int32).astype(jnp.float32) + 0.5) * 2.0**-31
    exponential = -jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24))
    noise = -jnp.log(exponential).reshape(*rows, shape[axis])
    return jnp.moveaxis(noise, -1, axis).astype(dtype)
