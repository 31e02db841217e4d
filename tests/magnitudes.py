"""Scores and temperatures of every magnitude. `python -m tests.magnitudes` prints how softbin does, e by e.

Normal scores times 10^e, at the temperatures 10^(e+d).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softbin import soft_binary_argmax
from tests import exact
from tests.compiling import AS_USERS_DO
from tests.hard_cases import REGULARIZERS

EXPONENTS = {np.float32: range(-37, 39), np.float64: range(-307, 309)}
BUDGETS = (1, 7.3, 32.5, 63)
TOLERANCES = {np.float32: 1e-6, np.float64: 1e-12}
_N = 64
_NORMAL = np.random.default_rng(0).standard_normal(_N)


class Cases(NamedTuple):
    exponents: np.ndarray
    scores: np.ndarray
    k: np.ndarray
    temperatures: np.ndarray


class Outcome(NamedTuple):
    errors: np.ndarray
    finite: np.ndarray  # whether the gradient is, or need not be


def cases(dtype, exponents, distances=range(-6, 7)) -> Cases:
    """Every combination whose scores and temperature are normal numbers."""
    limits = np.finfo(dtype)
    e, d, k = (a.ravel() for a in np.meshgrid(np.array(exponents), np.array(distances), BUDGETS, indexing="ij"))
    scores = (_NORMAL * np.longdouble(10) ** e[:, None]).clip(-limits.max, limits.max).astype(dtype)
    temperatures = np.longdouble(10) ** (e + d)
    normal = (temperatures >= limits.tiny) & (temperatures <= limits.max)
    normal &= np.all(np.abs(scores) >= limits.tiny, axis=1)
    return Cases(e[normal], scores[normal], k[normal].astype(dtype), temperatures[normal].astype(dtype))


@partial(jax.jit, static_argnames="regularizer", compiler_options=AS_USERS_DO)
def _project(scores, k, temperatures, cotangent, regularizer):
    y, pull_back = jax.vjp(lambda x: soft_binary_argmax(x, k, temperatures, regularizer=regularizer), scores)
    return y, pull_back(jnp.broadcast_to(cotangent, y.shape))[0]


def measure(cases: Cases, name: str) -> Outcome:
    """Against bisection in numbers of a range that nothing leaves."""
    link = exact.LINKS[name] if name == "euclidean" else lambda u: exact.LINKS[name](u.astype(float))
    _, scores, k, temperatures = cases
    wide = scores.astype(np.longdouble)
    temperature = temperatures.astype(np.longdouble)[:, None]
    pivot = np.take_along_axis(np.sort(wide)[:, ::-1], np.minimum(k.astype(int), _N - 1)[:, None], 1)
    u = (wide - pivot) / temperature
    below, above = u.min(1) - 60, u.max(1) + 60
    for _ in range(140):
        middle = (below + above) / 2
        more = link(u - middle[:, None]).sum(1) > k
        below, above = np.where(more, middle, below), np.where(more, above, middle)
    expected = link(u - middle[:, None])

    cotangent = np.cos(np.arange(_N)).astype(scores.dtype)
    y, gradient = _project(scores, k, temperatures, cotangent, REGULARIZERS[name])
    steepest = 2 * np.abs(cotangent).max() / temperature  # bounds every gradient
    finite = np.isfinite(gradient) | (steepest > np.finfo(scores.dtype).max)
    return Outcome(np.abs(np.asarray(y) - expected).max(1).astype(float), finite.all(1))


def _print_table():
    for dtype, exponents in EXPONENTS.items():
        with jax.enable_x64(dtype == np.float64):
            every = cases(dtype, exponents if dtype == np.float32 else exponents[::3])
            for name in REGULARIZERS:
                errors, finite = measure(every, name)
                bad = ~(errors <= TOLERANCES[dtype])
                print(
                    f"{dtype.__name__}, {name}: {bad.sum()} of {bad.size} out of contract, {(~finite).sum()} gradients"
                )
                for e in np.unique(every.exponents):
                    print(f"{e:5d} {errors[every.exponents == e].max():8.1e}")


if __name__ == "__main__":
    _print_table()
