"""The numerical contract at every magnitude of scores and temperatures, and in groups longer than a float can count."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import softbin
from tests import exact, magnitudes
from tests.compiling import AS_USERS_DO
from tests.hard_cases import REGULARIZERS, solve


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contract_holds_at_every_magnitude(dtype, name, x64):
    exponents = magnitudes.EXPONENTS[dtype][:: 3 if dtype == np.float32 else 28]
    errors, finite = magnitudes.measure(magnitudes.cases(dtype, exponents, range(-6, 7, 2)), name)
    assert errors.max() <= magnitudes.TOLERANCES[dtype]
    assert finite.all()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    scores=arrays(np.float32, 16, elements=st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)),
    k=st.integers(0, 64),
    temperature=st.floats(2.0**-126, 2.0**127, width=32, allow_subnormal=False),
)
def test_contract_holds_where_magnitudes_mix(scores, k, temperature):
    y, _ = solve(scores, np.float32(k / 4), np.float32(temperature), softbin.euclidean)
    np.testing.assert_allclose(y, exact.euclidean(scores, k / 4, temperature).y, atol=1e-6, rtol=0)


def test_subnormal_numbers_count_as_zero():
    scores = np.float32([1e-39, -1e-40, 3e-42, 0] + [-np.inf] * 12)
    for regularizer in REGULARIZERS.values():
        y, _ = solve(scores, np.float32(1), np.float32(1.2e-38), regularizer)
        np.testing.assert_allclose(y[:4], 0.25, atol=1e-7)


def test_no_group_depends_on_the_magnitude_of_another():
    scores = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    project = jax.jit(softbin.soft_binary_argmax, compiler_options=AS_USERS_DO)
    alone = project(scores, np.float32(5), np.ones(3, np.float32))
    scores[1] *= 1e30
    beside = project(scores, np.float32(5), np.float32([1, 1e-30, 1]))
    np.testing.assert_array_equal(alone[::2], beside[::2])


def test_budget_of_a_group_that_floats_cannot_count():
    n = 2**24 + 2
    assert float(np.float32(n / 2 + 0.5)) != n / 2 + 0.5
    scores = np.arange(n).astype(np.float32) / np.float32(n)  # equal ones share the half
    y = np.asarray(softbin.soft_binary_argmax(scores, n / 2 + 0.5, temperature=1e-8))
    assert abs(np.sum(y, dtype=float) - (n / 2 + 0.5)) <= 1e-3
