"""Ranks and what lies between two entries, against fractions of integers."""

from fractions import Fraction
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softbin._engine import exact_ranks
from softbin._engine.exact_ranks import METHODS, Level, known_level, place, traced_level
from tests.compiling import AS_USERS_DO

N = 16  # of them at once
SIZES = st.one_of(st.integers(1, 40), st.integers(2**24 - 2, 2**24 + 3), st.integers(2**31 - 8, 2**31 - 1))
LADDER = [0.0, 1.0, 0.5, 0.25, 0.75, 0.29, 1 / 3, 2 / 3, 0.1, 0.9, 1 - 2.0**-24, 2.0**-24, 1e-9, 1e-30]
ENDS = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 3e38, -3e38, 2e-38, -1e-20, 1 / 3]
WAYS = [*product(METHODS, (1, 100))]

properties = settings(max_examples=60, deadline=None, derandomize=True)


LEVELS = st.lists(st.one_of(st.sampled_from(LADDER), st.floats(2.0**-120, 1)), min_size=N, max_size=N)


@partial(jax.jit, static_argnames=("method", "divisor"))
def placed(level, sizes, method, divisor):
    of_each = jax.vmap(lambda level, size: place(level, size, method, divisor, jnp.float32)[:2])
    return of_each(level, sizes)


@partial(jax.jit, static_argnames=("method", "divisor"))
def placed_when_run(q, sizes, method, divisor):
    return placed(traced_level(q, divisor), sizes, method, divisor)


def expected_place(q, size, method, divisor):
    """The lower entry, and how far the quantile is from it."""
    h = Fraction(float(q)) * (size if method == "inverted_cdf" else size - 1) / divisor
    below = h.numerator // h.denominator
    rest = h - below
    match method:
        case "higher":
            below += rest > 0
        case "nearest":
            below = round(h)
        case "inverted_cdf":
            below = max(below - (rest == 0), 0)
        case "midpoint":
            rest = Fraction(int(rest > 0), 2)
    return below, rest


def check_places(found, q, sizes, method, divisor):
    for below, digits, level, size in zip(*map(np.asarray, found), q, sizes, strict=True):
        expected, rest = expected_place(level, int(size), method, divisor)
        assert below == expected, (level, size)
        if method in ("linear", "midpoint"):
            value = sum(Fraction(int(digit), 4096**place) for place, digit in enumerate(digits, 1))
            assert abs(value - rest) <= Fraction(1, 2**192)
            assert (value == 0) == (rest == 0)


@jax.jit
def placed_every_way(levels, sizes):
    return [placed(levels[divisor], sizes, method, divisor) for method, divisor in WAYS]


@given(LEVELS, st.lists(SIZES, min_size=N, max_size=N))
@properties
def test_the_rank_of_a_known_level_is_the_exact_product(q, sizes):
    q, sizes = np.array(q), np.array(sizes, np.int32)
    levels = {divisor: known_level(q * divisor) for divisor in (1, 100)}
    for (method, divisor), found in zip(WAYS, placed_every_way(levels, sizes), strict=True):
        check_places(found, q * divisor, sizes, method, divisor)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@given(LEVELS, st.lists(SIZES, min_size=N, max_size=N))
@properties
def test_the_rank_of_a_traced_level_is_the_exact_product(dtype, q, sizes):
    q, sizes = np.array(q).astype(dtype), np.array(sizes, np.int32)
    for method in ("linear", "nearest"):
        check_places(placed_when_run(q, sizes, method, 1), q, sizes, method, 1)


def test_a_level_of_float64_keeps_all_of_its_digits(x64):
    q, sizes = np.array(LADDER), np.full(len(LADDER), 2**31 - 1, np.int32)
    check_places(placed_when_run(q, sizes, "linear", 1), q, sizes, "linear", 1)


@pytest.mark.parametrize("n", [2**24 + 2, 2**31 - 1])
def test_the_last_of_more_entries_than_floats_count_is_the_maximum(n):
    level, size = Level(known_level(np.ones(1)).digits, np.ones(1, bool), None), np.int32([n])
    for found in (placed(level, size, "linear", 1), placed_when_run(np.ones(1, np.float32), size, "linear", 1)):
        assert np.asarray(found[0]) == n - 1


def test_a_level_out_of_range_is_not_valid():
    valid = jax.jit(lambda q: traced_level(q, 1).valid)
    assert valid(np.float32([-0.1, 1.1, np.nan, 1.0])).tolist() == [False, False, False, True]


def interpolated(low, high, q):
    """One by one and side by side: compilers make one operation of a product and a sum here, and not there."""
    digits = placed(q, jnp.full(N, 2), "linear", 1)[1]
    return exact_ranks.interpolate(low, high, digits.T), jax.vmap(exact_ranks.interpolate)(low, high, digits)


interpolate = jax.jit(interpolated, compiler_options=AS_USERS_DO)


def check_between(low, high, q, values, dtype):
    tiny = Fraction(float(np.finfo(dtype).tiny))
    for a, b, level, value in zip(low, high, q, np.asarray(values), strict=True):
        exact = Fraction(float(a)) + Fraction(float(level)) * (Fraction(float(b)) - Fraction(float(a)))
        slack = Fraction(max(abs(float(a)), abs(float(b)))) / 2**68  # where nearly all digits cancel
        ulp = max(Fraction(float(np.spacing(np.abs(dtype(float(exact)))))), tiny)
        assert abs(Fraction(float(value)) - exact) <= ulp + slack, (a, b, level)
        assert a <= value <= b


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
PAIRS = st.lists(st.tuples(*[st.one_of(FINITE, st.sampled_from(ENDS))] * 2), min_size=N, max_size=N)


@given(PAIRS, LEVELS)
@properties
def test_between_two_entries_the_value_is_right_to_an_ulp(ends, q):
    low, high = np.sort(np.array(ends, np.float32), 1).T
    q = np.where(np.array(q) < 1, q, 0)  # at 1 the other end is the lower one
    for values in interpolate(low, high, known_level(q)):
        check_between(low, high, q, values, np.float32)


def test_between_opposite_entries_what_cancels_is_right_too():
    q = np.resize([1 / 3, 2 / 3, 0.1, 0.25], N)
    low = np.float32([-q / (1 - q)]).ravel()
    for values in interpolate(low, np.ones(N, np.float32), known_level(q)):
        check_between(low, np.ones(N), q, values, np.float32)


def test_between_two_entries_of_float64_the_value_is_right_to_an_ulp(x64):
    random = np.random.default_rng(0)
    compiled = jax.jit(interpolated)
    for scale in (1.0, 1e300, 1e-290):
        low, high = np.sort(random.standard_normal((N, 2)) * scale, 1).T
        q = random.random(N)
        for values in compiled(low, high, known_level(q)):
            check_between(low, high, q, values, np.float64)


def test_the_value_does_not_fall_as_the_level_rises():
    q = 0.3 + np.arange(N) * 2.0**-54
    low, high = np.full(N, -1 / 3, np.float32), np.full(N, 0.7, np.float32)
    for values in interpolate(low, high, known_level(q)):
        assert np.all(np.diff(values) >= 0)


def test_a_share_of_a_total_is_rounded_up():
    share = jax.jit(lambda total, digits: exact_ranks.share(total, digits, 1))
    for total, q in product([10.0, 3.0, 7.5, 2.0**24], LADDER):
        found = np.asarray(share(np.float32([total]), known_level(np.array(q)).digits))
        exact = Fraction(q) * Fraction(total)
        assert Fraction(float(found[0])) >= exact
        assert Fraction(float(np.nextafter(np.float32(found[0]), np.float32(-1)))) < exact or exact == 0
