"""Choices of k of n in numpy and float64: exact, to check others, and by isotonic regression."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, isotonic_regression


def exact_projection(point: np.ndarray, k: float) -> np.ndarray:
    """Project a point onto `{y in [0, 1]^n : Σ y = k}`: bisection on the threshold, with sums over the sorted point."""
    point = np.asarray(point, np.float64)
    ordered = np.sort(point)
    sums = np.concatenate([[0], np.cumsum(ordered)])

    def surplus(threshold):
        low, high = np.searchsorted(ordered, [threshold, threshold + 1])
        return (len(ordered) - high) + (sums[high] - sums[low] - (high - low) * threshold) - k

    below, above = ordered[0] - 1, ordered[-1]
    while below < (middle := (below + above) / 2) < above:
        below, above = (middle, above) if surplus(middle) > 0 else (below, middle)
    return np.clip(point - middle, 0, 1)


def exact_choice(link: Callable[[np.ndarray], np.ndarray], point: np.ndarray, k: float) -> np.ndarray:
    """`link(point - λ)` with the sum `k`, for a link of unbounded support and `0 < k < n`: Brent's method."""
    point = np.asarray(point, np.float64)
    width = 100  # beyond it no link has as much as a share k / n, nor leaves as little as 1 - k / n
    threshold = brentq(lambda t: np.sum(link(point - t)) - k, point.min() - width, point.max() + width, xtol=1e-14)
    return link(point - threshold)


def laplace_link(u: np.ndarray) -> np.ndarray:
    """Laplace's distribution function."""
    tail = np.exp(-np.abs(u)) / 2
    return np.where(u < 0, tail, 1 - tail)


def isotonic_projection(point: np.ndarray, k: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The same for a whole k, by sort and pool adjacent violators, the classical way; with its transposed Jacobian.

    The hypersimplex is the permutahedron of `w = (1, ..., 1, 0, ..., 0)`, so for `z` in decreasing order `y = z - v`,
    with `v` the decreasing isotonic regression of `z - w` (Blondel et al., arXiv:2002.08871, prop. 3). The Jacobian
    subtracts the mean over the block that pools entries on both sides of the step of `w`: the active set. All other
    blocks are saturated, and larger than one entry only where scores are tied.
    """
    order = np.argsort(-point)
    ordered = point[order]
    dual = isotonic_regression(ordered - (np.arange(len(point)) < k), increasing=False)
    y = np.empty_like(ordered)
    y[order] = ordered - dual.x

    def transposed_jacobian(cotangent: np.ndarray) -> np.ndarray:
        result = np.zeros_like(cotangent)
        edge = np.searchsorted(dual.blocks, k)
        if dual.blocks[edge] != k:
            active = order[dual.blocks[edge - 1] : dual.blocks[edge]]
            result[active] = cotangent[active] - cotangent[active].mean()
        return result

    return y, transposed_jacobian
