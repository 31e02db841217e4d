"""Inputs on which float32 projections lose digits. `python -m tests.hard_cases` prints how softbin does."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softbin import binary_entropy, euclidean, laplace, normal, soft_binary_argmax, tsallis
from softbin.arguments import prepare
from softbin.groups import Groups
from softbin.search import search
from tests import exact
from tests.compiling import AS_USERS_DO

REGULARIZERS = {"euclidean": euclidean, "binary_entropy": binary_entropy}
"""One that saturates and one that does not."""
ALL_REGULARIZERS = {**REGULARIZERS, "laplace": laplace, "normal": normal, "tsallis": tsallis(1.5)}
_REFERENCES = {ALL_REGULARIZERS[name]: partial(exact.smooth, link) for name, link in exact.LINKS.items()}
_REFERENCES[euclidean] = exact.euclidean
_N = 512


class Case(NamedTuple):
    scores: np.ndarray
    k: float
    temperature: float = 1.0


class Outcome(NamedTuple):
    error: float
    budget_error: float  # |Σy - k| / n
    rounds: int


@partial(jax.jit, static_argnames="regularizer", compiler_options=AS_USERS_DO)
def solve(scores, k, temperature, regularizer=euclidean):
    """The projection, and the rounds that the search for it took."""
    problem, _ = prepare(scores, k, temperature, Groups((0,)), None, None)
    return soft_binary_argmax(scores, k, temperature, regularizer=regularizer), search(*problem, regularizer)[1]


def measure(case: Case, regularizer) -> Outcome:
    scores, k, temperature = case.scores, np.float32(case.k), np.float32(case.temperature)
    y, rounds = solve(jnp.asarray(scores), k, temperature, regularizer)
    y = np.asarray(y, np.float64)
    exact_y = _REFERENCES[regularizer](scores, k, temperature).y
    spent = max(float(k), np.sum(scores == np.inf))
    return Outcome(np.abs(y - exact_y).max(), abs(y.sum() - spent) / y.size, int(rounds))


def _cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(_N).astype(np.float32)
    cauchy = rng.standard_cauchy(_N).astype(np.float32)
    steps = np.arange(_N, dtype=np.float32)
    clusters = normal + np.float32(1e6) * (steps < 100)

    def with_values(*values):
        return np.concatenate([np.float32(values), normal[len(values) :]])

    return {
        "normal": Case(normal, 200),
        "real k": Case(normal, 100.3),
        "k = 0": Case(normal, 0),
        "k = 1e-6": Case(normal, 1e-6),
        "k = 1": Case(normal, 1),
        "k = n - 1": Case(normal, _N - 1),
        "k = n": Case(normal, _N),
        "n = 1": Case(np.float32([0.3]), 0.25),
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


def _print_table():
    for name, regularizer in ALL_REGULARIZERS.items():
        print(f"{name:26} {'max error':>10} {'|sum-k|/n':>10} {'rounds':>7}")
        for case_name, case in CASES.items():
            error, budget_error, rounds = measure(case, regularizer)
            print(f"{case_name:26} {error:10.1e} {budget_error:10.1e} {rounds:7d}")


if __name__ == "__main__":
    _print_table()
