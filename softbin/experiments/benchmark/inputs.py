"""Kinds of logits: what serving engines meet, and what makes a search for a threshold long."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

Inputs = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
"""`(generator, shape) -> logits` in float32."""

_OUTLIERS = 1e-4  # of the entries
_OUTLIER = 1e6


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _peaked(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Of which a few entries of each row have nearly all of the probability."""
    return 10 * _normal(rng, shape)


def _flat(width: float) -> Inputs:
    return lambda rng, shape: 3 + np.float32(width) * _normal(rng, shape)


def _bfloat16(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Of eight bits of precision, and so with ties by the hundred."""
    return np.asarray(_normal(rng, shape).astype(jnp.bfloat16), np.float32)


def _zipf(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The logarithms of one over the rank, as words of a language have it."""
    ranks = np.broadcast_to(np.arange(1, shape[1] + 1), shape)
    return rng.permuted(-np.log(ranks), axis=1).astype(np.float32)


def _with_outliers(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    values = _normal(rng, shape)
    return np.where(rng.random(shape) < _OUTLIERS, np.float32(_OUTLIER), 1) * values


INPUTS: Mapping[str, Inputs] = {
    "normal": _normal,
    "peaked": _peaked,
    "flat, 1e-3": _flat(1e-3),
    "flat, 1e-6": _flat(1e-6),
    "bfloat16": _bfloat16,
    "Zipf": _zipf,
    "outliers": _with_outliers,
}
"""By the names that tables have."""
