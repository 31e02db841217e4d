import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import softbin
from tests.hard_cases import ALL_REGULARIZERS, CASES, REGULARIZERS, Case, measure, solve

N = 16
LONG = 33  # too many to compare all pairs
MOST_ROUNDS = 96  # three quarters of the solver's bound
each_regularizer = pytest.mark.parametrize("regularizer", ALL_REGULARIZERS.values(), ids=ALL_REGULARIZERS)
each_search = pytest.mark.parametrize(
    ("regularizer", "length"),
    [*((regularizer, N) for regularizer in ALL_REGULARIZERS.values()), (softbin.euclidean, LONG)],
    ids=[*ALL_REGULARIZERS, "euclidean-long"],
)
properties = settings(max_examples=100, deadline=None, derandomize=True)
temperatures = st.floats(-6, 6).map(lambda power: 10**power)
finite_scores = arrays(np.float32, N, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
any_bits = arrays(np.uint32, N, elements=st.integers(0, 2**32 - 1)).map(lambda bits: bits.view(np.float32))


@pytest.mark.parametrize(
    ("name", "regularizer"),
    [
        pytest.param(case, regularizer, id=f"{case}-{name}")
        for case in CASES
        for name, regularizer in (REGULARIZERS if case == "n = 1" else ALL_REGULARIZERS).items()
    ],
)
def test_hard_cases_keep_the_numerical_contract(name, regularizer):
    outcome = measure(CASES[name], regularizer)
    assert outcome.error <= 1e-6
    assert outcome.budget_error <= 1e-6
    assert outcome.rounds <= 52


def _masked_up_to(length, scores):
    return np.pad(scores, (0, length - N), constant_values=-np.inf)


@each_search
@properties
@given(scores=finite_scores, k=st.floats(0, N), temperature=temperatures)
def test_any_finite_scores_keep_the_numerical_contract(regularizer, length, scores, k, temperature):
    outcome = measure(Case(_masked_up_to(length, scores), k, temperature), regularizer)
    assert outcome.error <= 1e-6
    assert outcome.budget_error <= 1e-6
    assert outcome.rounds <= MOST_ROUNDS


@each_search
@properties
@given(scores=any_bits, k=st.floats(0, N), temperature=temperatures)
def test_search_ends_on_any_bits(regularizer, length, scores, k, temperature):
    y, rounds = solve(_masked_up_to(length, scores), np.float32(k), np.float32(temperature), regularizer)
    assert rounds <= MOST_ROUNDS
    assert np.all(np.isnan(y)) == np.any(np.isnan(scores))
    if not np.any(np.isnan(scores)):
        assert np.all((y >= 0) & (y <= 1))


@each_regularizer
def test_a_negligible_budget_ends_early(regularizer):
    scores = np.where(np.arange(N) < 10, 0, -1.7560797e20).astype(np.float32)
    outcome = measure(Case(scores, 6.4264994e-38, 70024.445), regularizer)
    assert outcome.budget_error <= 1e-20
    assert outcome.rounds <= MOST_ROUNDS


@each_regularizer
@pytest.mark.parametrize("k", [0.0, 3.0])
@pytest.mark.parametrize("score", [1.23e18, 3e18])
def test_totals_whose_squares_overflow_keep_the_numerical_contract(regularizer, score, k):
    outcome = measure(Case(np.where(np.arange(N) > 0, score, 0).astype(np.float32), k, 1.0), regularizer)
    assert outcome.error <= 1e-6
    assert outcome.budget_error <= 1e-6


@each_regularizer
def test_search_ends_at_once_on_nan(regularizer):
    _, rounds = solve(np.full(N, np.nan, np.float32), np.float32(3), np.float32(1), regularizer)
    assert rounds == 1


@each_regularizer
@pytest.mark.parametrize("chosen", [1, 5, N - 1])
def test_separated_clusters_end_early(regularizer, chosen):
    first = np.arange(N) < chosen
    for gap in np.logspace(2, 6, 200, dtype=np.float32):
        y, rounds = solve(gap * first, np.float32(chosen), np.float32(1), regularizer)
        assert rounds <= MOST_ROUNDS
        assert np.all(np.abs(y - first) <= 1e-6)


@each_regularizer
def test_a_few_far_above_the_others_end_early(regularizer):
    scores = np.full_like(CASES["n = 1e6"].scores, -np.inf)  # of the length of a program that there is
    scores[:6400] = np.where(np.arange(6400) < 64, 100, 0)
    _, rounds = solve(scores, np.float32(64), np.float32(1), regularizer)
    assert rounds <= 12


@each_regularizer
def test_neighbouring_floats_at_a_small_temperature_end_early(regularizer):
    scores = np.full(N, -1376425, np.float32)
    scores[1:] = np.nextafter(scores[0], np.float32(-np.inf))
    y, rounds = solve(scores, np.float32(1), np.float32(3.2e-6), regularizer)
    assert rounds <= MOST_ROUNDS
    np.testing.assert_allclose(y, np.arange(N) == 0, atol=1e-15)
