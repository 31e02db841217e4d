"""Independent solutions to compare with: exact integers for euclidean, float64 and brentq for other links."""

import math
from bisect import bisect_left, bisect_right
from fractions import Fraction
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, ndtr


class Solution(NamedTuple):
    y: np.ndarray
    threshold: float


def euclidean(scores, k, temperature=1.0) -> Solution:
    """Project `scores / temperature`, correctly rounded.

    A float is an integer times a power of two, so in a common unit the sums over any active set are Python
    integers, and the root of a piecewise linear function is a ratio of two of them.
    """
    scores = np.asarray(scores, np.float64)
    y = (scores == np.inf).astype(np.float64)
    finite = np.flatnonzero(np.isfinite(scores))
    budget = min(max(Fraction(float(k)) - int(y.sum()), Fraction(0)), Fraction(len(finite)))
    if not len(finite):
        return Solution(y, math.nan)

    order = finite[np.argsort(scores[finite], kind="stable")]
    tau = float(temperature)
    ratios = [x.as_integer_ratio() for x in (*scores[order].tolist(), tau)]
    unit = max(denominator for _, denominator in ratios)
    *xs, width = (numerator * (unit // denominator) for numerator, denominator in ratios)
    sums = [0, *accumulate(xs)]

    def surplus(s):
        """`τ F` at `s = τλ`."""
        low, high = bisect_right(xs, s), bisect_left(xs, s + width)
        return width * (len(xs) - high) + sums[high] - sums[low] - (high - low) * s - width * budget

    def last_above(shift):
        """The largest breakpoint `x_i - shift` where F is not negative."""
        index = bisect_left(range(len(xs)), True, key=lambda i: surplus(xs[i] - shift) < 0)
        return xs[index - 1] - shift if index else -math.inf

    start = max(last_above(0), last_above(width))
    low, high = bisect_right(xs, start), bisect_right(xs, start + width)
    active = high - low
    root = Fraction(start) + (Fraction(surplus(start)) / active if active else 0)
    top, bottom = root.as_integer_ratio()
    scale = width * bottom
    y[order] = [min(max(x * bottom - top, 0), scale) / scale for x in xs]
    return Solution(y, float(root / width))


def laplace_link(u):
    return np.where(u < 0, np.exp(-np.abs(u)) / 2, 1 - np.exp(-np.abs(u)) / 2)


def tsallis_link(u, alpha):
    return np.clip(1 + (alpha - 1) * u, 0, 1) ** (1 / (alpha - 1))


LINKS = {
    "euclidean": lambda u: np.clip(u, 0, 1),
    "binary_entropy": expit,
    "laplace": laplace_link,
    "normal": ndtr,
    "tsallis": partial(tsallis_link, alpha=1.5),
}


def smooth(link, scores, k, temperature=1.0) -> Solution:
    """`link(x/τ - λ)` with its sum at `k`, from float32 scores."""
    scores = np.asarray(scores, np.float64)
    y = (scores == np.inf).astype(np.float64)
    finite = np.isfinite(scores)
    x, budget = scores[finite], float(k) - y.sum()
    if not 0 < budget < len(x):
        y[finite] = budget > 0
        return Solution(y, -math.inf if budget > 0 else math.inf)

    pivot = np.sort(x)[::-1][int(budget)]  # the threshold is not far from it, so `x - pivot` keeps its digits
    u = (x - pivot) / float(temperature)
    width = 800 + float(np.ptp(u))

    def surplus(s):
        return float(np.sum(link(u - s), dtype=np.longdouble) - budget)

    shift = brentq(surplus, -width, width, xtol=1e-300, rtol=1e-15, maxiter=10_000)
    y[finite] = link(u - shift)
    return Solution(y, pivot / float(temperature) + shift)


binary_entropy = partial(smooth, expit)
