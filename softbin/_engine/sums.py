"""Sums along an axis, in an order that is exact, quick to compile and quick to run.

Several sums are one reduction of several operands, over blocks of eight: compilers unroll so short an axis and
vectorise over what is beside it, and what is summed is never written to memory. Nor do many terms meet in one float one
by one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

BLOCK = 8  # so many terms are unrolled; a plain reduction of 16 takes four times as long with some links
_FEW = 64  # partial sums, at most, that are left to one plain reduction


class Statistic(NamedTuple):
    """What to make of several entries."""

    combine: Callable[[Any, Any], Any]
    neutral: Callable[[Any], Any]  # of a dtype: what changes nothing


SUM = Statistic(lax.add, lambda dtype: 0)
LARGEST = Statistic(lax.max, lambda dtype: -np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min)


def hidden(number: Any, dtype: Any) -> Shaped[Array, ""]:
    """A number that XLA does not know while it compiles: it would work out what follows, an entry at a time.

    Of 2^24 labels, weights or places that a program knows, that takes minutes (jaxlib 0.10.2).
    """
    return lax.optimization_barrier(jnp.asarray(number, dtype))


def reduce(
    operands: Sequence[Shaped[Array, "*shape"]], *axes: int, kinds: Sequence[Statistic] | None = None
) -> Sequence[Shaped[Array, "..."]]:
    """A statistic of each of several operands along some axes, the sum unless told otherwise."""
    kinds = [SUM] * len(operands) if kinds is None else kinds

    def combine(a: Sequence[Any], b: Sequence[Any]) -> tuple:
        return tuple(kind.combine(x, y) for kind, x, y in zip(kinds, a, b, strict=True))

    neutral = tuple(np.asarray(kind.neutral(x.dtype), x.dtype) for kind, x in zip(kinds, operands, strict=True))
    return lax.reduce(tuple(operands), neutral, combine, axes)


def reduce_blocks(operands: Sequence[Shaped[Array, "*shape"]], axis: int, parts: int) -> list[Shaped[Array, "..."]]:
    """Add up a long axis by blocks, until few partial sums are left, of all operands at once.

    Args:
      axis: of a length that is known.
      parts: that many parts of it, of equal length, may lie on different devices: each is reduced by itself.
    """
    shape = operands[0].shape
    last, length = axis == len(shape) - 1, shape[axis] // parts
    if length < 2 * BLOCK:
        return list(operands)
    if parts > 1:
        operands = [x.reshape(*shape[:axis], parts, length, *shape[axis + 1 :]) for x in operands]
        axis += 1
    while True:
        full = length - length % BLOCK
        heads = [lax.slice_in_dim(x, 0, full, axis=axis) for x in operands] if full < length else operands
        blocks = (BLOCK, full // BLOCK) if last else (full // BLOCK, BLOCK)
        heads = [x.reshape(*x.shape[:axis], *blocks, *x.shape[axis + 1 :]) for x in heads]
        heads = list(reduce(heads, axis if last else axis + 1))
        if full < length:
            tails = [lax.slice_in_dim(x, full, length, axis=axis) for x in operands]
            heads = [jnp.concatenate(both, axis) for both in zip(heads, tails, strict=True)]
        operands, length = list(heads), heads[0].shape[axis]
        if length <= _FEW:
            break
    return list(operands) if parts == 1 else [lax.collapse(x, axis - 1, axis + 1) for x in operands]


def add_neighbours(values: Shaped[Array, "*shape"], axis: int, parts: int) -> Shaped[Array, "..."]:
    """Add up a long axis of numbers that are not negative, as far as it can be cut evenly: one integer operand.

    Of one operand compilers make one reduction of all levels, slow and in fusions of its own. What is added by hand,
    and what something stands behind, stays in the loop that makes the numbers.
    """
    n = values.shape[axis]
    if n <= BLOCK or n % (BLOCK * parts):
        return values
    values = values.reshape(*values.shape[:axis], n // BLOCK, BLOCK, *values.shape[axis + 1 :])
    values = functools.reduce(lax.add, (lax.index_in_dim(values, i, axis + 1, False) for i in range(BLOCK)))
    n //= BLOCK
    block = max(b for b in range(1, 4 * BLOCK + 1) if n % (b * parts) == 0)
    values = values.reshape(*values.shape[:axis], n // block, block, *values.shape[axis + 1 :])
    return jnp.maximum(values.sum(axis + 1, dtype=values.dtype), 0)


def strided(values: Shaped[Array, "*shape"], axis: int, parts: int, most: int) -> Shaped[Array, "..."]:
    """At least `most` entries along an axis, or all, at even distances; as many of each part."""
    length = values.shape[axis]
    if parts == 1:
        return lax.slice_in_dim(values, 0, length, max(length // most, 1), axis)
    strides = [s for s in range(1, max(length // most, 1) + 1) if length // parts % s == 0]
    stride = max(strides)
    values = values.reshape(*values.shape[:axis], length // stride, stride, *values.shape[axis + 1 :])
    return lax.index_in_dim(values, 0, axis + 1, keepdims=False)
