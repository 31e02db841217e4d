"""Groups that are short enough to need no search: a quarter of a minute, most of it XLA's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin._engine import short_groups
from softbin._engine.groups import Groups
from tests import exact
from tests.compiling import AS_USERS_DO

ROWS = 60
each_length = pytest.mark.parametrize("n", [1, 2, 5, short_groups.LONGEST])


@partial(jax.jit, compiler_options=AS_USERS_DO)
def project(scores, k, temperature, weights=None):
    return softbin.soft_binary_argmax(scores, k, temperature, weights=weights)


def draw(n, seed=0):
    """Rows of scores with ties, of any magnitude; budgets, some of them whole; and temperatures."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((ROWS, n)) * 10 ** rng.uniform(-3, 3, (ROWS, 1))
    scores = np.where(rng.random((ROWS, n)) < 0.3, np.round(scores), scores).astype(np.float32)
    k = rng.uniform(0, n, ROWS)
    k = np.where(rng.random(ROWS) < 0.3, np.round(k), k).astype(np.float32)
    return scores, k, (10 ** rng.uniform(-4, 3, ROWS)).astype(np.float32)


def expected(scores, k, temperature):
    """Row by row; infinite scores are settled beforehand."""
    y = (scores == np.inf).astype(float)
    finite = np.isfinite(scores)
    for i, row in enumerate(y):
        left = np.clip(k[i] - row.sum(), 0, finite[i].sum())
        if 0 < left < finite[i].sum():
            row[finite[i]] = exact.euclidean(scores[i, finite[i]], np.float64(left), temperature[i]).y
        else:
            row[finite[i]] = left > 0
    return y


def test_they_are_found_without_a_loop():
    scores, k, temperature = draw(5)
    assert "while" not in project.lower(scores, k, temperature).as_text()
    assert "while" in project.lower(*draw(short_groups.LONGEST + 1)).as_text()
    assert not short_groups.fits((5, 3), Groups((0,), "shards"), softbin.euclidean)
    assert not short_groups.fits((5, 3), Groups((0,)), softbin.binary_entropy)


@each_length
def test_they_keep_the_numerical_contract(n):
    scores, k, temperature = draw(n)
    y = np.asarray(project(scores, k, temperature))
    np.testing.assert_allclose(y, expected(scores, k, temperature), atol=1e-6)
    np.testing.assert_allclose(y.sum(-1), k, atol=1e-6 * n)


@each_length
def test_infinite_scores_are_settled_and_nan_poisons_its_own_row(n):
    scores, k, temperature = draw(n, seed=1)
    rng = np.random.default_rng(2)
    scores[rng.random((ROWS, n)) < 0.1] = np.inf
    scores[rng.random((ROWS, n)) < 0.1] = -np.inf
    np.testing.assert_allclose(project(scores, k, temperature), expected(scores, k, temperature), atol=1e-6)
    scores[3, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(project(scores, k, temperature)).any(-1), np.arange(ROWS) == 3)


def test_a_weight_of_two_is_two_entries_and_of_none_no_entry():
    scores, k, temperature = draw(5)
    weights = np.tile(np.float32([1, 2, 0, 1, 1]), (ROWS, 1))
    y = np.asarray(project(scores, k, temperature, weights))
    copies = project(scores[:, [0, 1, 1, 3, 4]], k, temperature)
    np.testing.assert_allclose(y[:, [0, 1, 1, 3, 4]], copies, atol=1e-6)


def test_gradients_are_those_of_a_search():
    """Of the same entries in a row that masked ones make too long to do without."""
    scores, k, temperature = draw(8)
    scores, k, temperature = np.clip(scores, -9, 9), np.clip(k, 0.5, 7.5), np.maximum(temperature, 0.1)
    cotangent = np.cos(np.arange(8, dtype=np.float32))

    def total(scores, k, temperature):
        longer = jnp.pad(scores, [(0, 0), (0, 8)])
        where = np.arange(16) < 8
        return jnp.sum(softbin.soft_binary_argmax(longer, k, temperature, where=where)[:, :8] * cotangent)

    def short(scores, k, temperature):
        return jnp.sum(softbin.soft_binary_argmax(scores, k, temperature) * cotangent)

    for a, b in zip(*(jax.jit(jax.grad(f, (0, 1, 2)))(scores, k, temperature) for f in (short, total)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
