"""How softbin does on the hard cases: `python -m tests.hard_cases` prints it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softbin import binary_entropy, euclidean, laplace, normal, soft_binary_argmax, tsallis
from softbin._engine.arguments import Arguments, prepare
from softbin._engine.groups import Groups
from softbin._engine.search import search
from softbin.experiments.accelerator.hard_cases import CASES, Case
from tests import exact
from tests.compiling import AS_USERS_DO

REGULARIZERS = {"euclidean": euclidean, "binary_entropy": binary_entropy}
"""One that saturates and one that does not."""
ALL_REGULARIZERS = {**REGULARIZERS, "laplace": laplace, "normal": normal, "tsallis": tsallis(1.5)}
_REFERENCES = {ALL_REGULARIZERS[name]: partial(exact.smooth, link) for name, link in exact.LINKS.items()}
_REFERENCES[euclidean] = exact.euclidean


class Outcome(NamedTuple):
    error: float
    budget_error: float  # |Σy - k| / n
    rounds: int


@partial(jax.jit, static_argnames="regularizer", compiler_options=AS_USERS_DO)
def solve(scores, k, temperature, regularizer=euclidean):
    """The projection, and the rounds that the search for it took."""
    problem = prepare(Arguments(scores, k, temperature), Groups((0,)))
    _, rounds = search(problem.scores, problem.k, problem.temperature, None, problem.groups, regularizer)
    return soft_binary_argmax(scores, k, temperature, regularizer=regularizer), rounds


def measure(case: Case, regularizer) -> Outcome:
    scores, k, temperature = case.scores, np.float32(case.k), np.float32(case.temperature)
    y, rounds = solve(jnp.asarray(scores), k, temperature, regularizer)
    y = np.asarray(y, np.float64)
    exact_y = _REFERENCES[regularizer](scores, k, temperature).y
    spent = max(float(k), np.sum(scores == np.inf))
    return Outcome(np.abs(y - exact_y).max(), abs(y.sum() - spent) / y.size, int(rounds))


def _print_table():
    for name, regularizer in ALL_REGULARIZERS.items():
        print(f"{name:26} {'max error':>10} {'|sum-k|/n':>10} {'rounds':>7}")
        for case_name, case in CASES.items():
            error, budget_error, rounds = measure(case, regularizer)
            print(f"{case_name:26} {error:10.1e} {budget_error:10.1e} {rounds:7d}")


if __name__ == "__main__":
    _print_table()
