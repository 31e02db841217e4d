"""Inputs on which float32 projections lose digits."""

from typing import NamedTuple

import numpy as np

_N = 512


class Case(NamedTuple):
    """A group, what to choose of it, and how softly."""

    scores: np.ndarray
    k: float
    temperature: float = 1.0


def _cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(_N).astype(np.float32)
    cauchy = rng.standard_cauchy(_N).astype(np.float32)
    steps = np.arange(_N, dtype=np.float32)
    clusters = normal + np.float32(1e6) * (steps < 100)

    def with_values(*values):
        return np.concatenate([np.array(values, np.float32), normal[len(values) :]])

    return {
        "normal": Case(normal, 200),
        "real k": Case(normal, 100.3),
        "k = 0": Case(normal, 0),
        "k = 1e-6": Case(normal, 1e-6),
        "k = 1": Case(normal, 1),
        "k = n - 1": Case(normal, _N - 1),
        "k = n": Case(normal, _N),
        "n = 1": Case(np.array([0.3], np.float32), 0.25),
        "n = 1e6": Case(rng.standard_normal(1_000_000).astype(np.float32), 300_000),
        "n = 1e6, Cauchy": Case(rng.standard_cauchy(1_000_000).astype(np.float32), 300_000.5, 10),
        "offset 1e4": Case(normal + np.float32(1e4), 200),
        "offset 1e6": Case(normal + np.float32(1e6), 200),
        "outlier 1e8": Case(with_values(1e8), 200),
        "outlier 1e30": Case(with_values(1e30), 200),
        "outliers -1e30 and 1e30": Case(with_values(-1e30, 1e30), 200),
        "infinite scores": Case(with_values(np.inf, np.inf, -np.inf), 200),
        "more +inf than k": Case(with_values(np.inf, np.inf), 1),
        "three values": Case(np.sign(np.trunc(normal)), 200),
        "ties": Case(np.round(normal), 200, 0.5),
        "all equal": Case(np.full(_N, 3.7, np.float32), 200),
        "all at the least float": Case(np.full(_N, np.finfo(np.float32).min), 300.5),
        "all equal to 1e30": Case(np.full(_N, 1e30, np.float32), 200.5),
        "Cauchy": Case(cauchy, 200),
        "Cauchy, scale 1e6": Case(np.float32(1e6) * cauchy, 200),
        "temperature 1e-6": Case(normal, 200, 1e-6),
        "temperature 1e-6, real k": Case(normal, 200.5, 1e-6),
        "temperature 1e6": Case(normal, 200, 1e6),
        "near 1e30": Case(np.float32(1e30) * (1 + np.abs(normal)), 200),
        "near 1e30, real k": Case(np.float32(1e30) * (1 + np.abs(normal)), 200.5),
        "spacing 1e8": Case(np.float32(1e8) * steps, 200),
        "spacing 1e8, real k": Case(np.float32(1e8) * steps, 200.5),
        "clusters, k between": Case(clusters, 100, 1e-3),
        "clusters, k inside": Case(clusters, 60, 1e-3),
        "magnitudes 1e-30 to 1e30": Case(np.logspace(-30, 30, _N, dtype=np.float32), 200),
    }


CASES = _cases()
