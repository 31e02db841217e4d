"""The k-th largest score, the k largest, and the cutoff: exact on every input, by numpy's stable sort."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin import binary_argmax, cutoff, kth_largest, soft_binary_argmax, top_k
from softbin.budgets import fraction
from tests.compiling import AS_USERS_DO, AT_LEVEL_0
from tests.hard_cases import CASES
from tests.test_sharding import MOST_NUMBERS, collectives

RNG = np.random.default_rng(0)
SCORES = jnp.array([3.0, 1.0, 2.0, 0.0, 0.4, 1.3])
ROWS = np.broadcast_to(np.asarray(SCORES), (7, 6))
GROUPS = RNG.standard_normal((2, 3, 6)).astype(np.float32)
TIED = np.round(RNG.standard_normal((16, 96)).astype(np.float32), 1)
TINY, SUBNORMAL = np.finfo(np.float32).tiny, np.float32(1e-40)

BITS = {"bfloat16": (8, 7), "float16": (5, 10)}  # of exponent and mantissa

properties = settings(max_examples=50, deadline=None, derandomize=True)


def all_choices(scores, k, axis=-1, **keywords):
    """The value, the choice, the cutoff, and the gradient of the value's sum."""
    value = partial(kth_largest, k=k, axis=axis, **keywords)
    values, pull_back = jax.vjp(value, scores)
    (gradient,) = pull_back(jax.tree.map(jnp.ones_like, values))
    return values, binary_argmax(scores, k, axis=axis, **keywords), cutoff(scores, k, axis=axis, **keywords), gradient


choose = jax.jit(all_choices, static_argnames="axis")  # most tests share what is compiled for (7, 6)
choose_known = jax.jit(all_choices, static_argnames=("k", "axis"))
hard = jax.jit(binary_argmax)
largest = jax.jit(top_k, static_argnames=("k", "axis"))


def by_sorting(scores, k):
    """The same for one group, by numpy."""
    scores = np.asarray(scores)
    order = np.argsort(-scores, kind="stable")
    chosen, gradient = np.zeros_like(scores), np.zeros_like(scores)
    chosen[order[:k]], gradient[order[k - 1]] = 1, 1
    return scores[order[k - 1]], chosen, scores[order[k]] if k < len(scores) else -np.inf, gradient


def check_row(found, scores, k):
    """One group's value, choice, cutoff and gradient."""
    value, chosen, cut, gradient = found
    expected, expected_chosen, after, expected_gradient = by_sorting(scores, k)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(chosen, expected_chosen)
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert after <= cut <= expected
    assert cut < expected or after == expected
    if after < expected:
        assert np.sum(scores > cut) == k


def check_rows(found, rows, numbers):
    for each, row, number in zip(zip(*map(np.asarray, found), strict=True), rows, numbers, strict=True):
        check_row(each, row, number)


def check_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# Values


@pytest.mark.parametrize("n", sorted({len(case.scores) for case in CASES.values()}))
def test_every_hard_case_is_exact(n):
    rows = [
        (case.scores, k)
        for case in CASES.values()
        if len(case.scores) == n
        for k in sorted({min(max(round(k), 1), n) for k in (case.k, 1, n // 3, n - 1, n)})
        if n < 1000 or k == round(case.k)
    ]
    scores, k = map(np.stack, zip(*rows, strict=True))
    check_rows(choose(scores, k.astype(np.int32)), scores, k)


@given(arrays(np.float32, (7, 6), elements=st.floats(width=32, allow_nan=False, allow_subnormal=False)), st.data())
@properties
def test_any_scores_are_exact(scores, data):
    k = data.draw(arrays(np.int32, 7, elements=st.integers(1, 6)))
    check_rows(choose(scores, k), scores, k)


@given(arrays(np.float32, (7, 6), elements=st.sampled_from(np.float32([-1, -0.0, 0.0, 1, np.inf, -np.inf]))), st.data())
@properties
def test_ties_go_to_the_lower_index(scores, data):
    k = data.draw(arrays(np.int32, 7, elements=st.integers(1, 6)))
    check_rows(choose(scores, k), scores, k)


@pytest.mark.parametrize("k", [1, 2, 4, 5, 6])
def test_a_known_number_chooses_as_a_traced_one(k):
    """Up to 4 of a short group are found one after the other where the number is known."""
    scores = np.round(RNG.standard_normal((7, 6)), 0).astype(np.float32)
    check_same(choose_known(scores, k=k), choose(scores, np.full(7, k, np.int32)))


def test_as_many_are_chosen_of_scores_that_are_nearly_equal():
    """Where two pivots are expected within a rounding of one another."""
    random = np.random.default_rng(1)
    scores = (3 + 1e-6 * random.standard_normal((200, 500))).astype(np.float32)
    k = random.integers(5, 20, 200)
    np.testing.assert_array_equal(np.asarray(hard(scores, k)).sum(1), k)


@pytest.mark.parametrize("k", [2, 4, 5])
def test_subnormal_numbers_and_negative_zero_equal_zero(k):
    zeros = np.float32([0.0, -0.0, SUBNORMAL, -SUBNORMAL])
    scores = np.stack([np.concatenate([[-TINY], np.roll(zeros, shift), [TINY]]) for shift in range(7)])
    for values, chosen, _, gradient in (choose(scores, np.full(7, k, np.int32)), choose_known(scores, k=k)):
        np.testing.assert_array_equal(values, np.zeros(7))
        np.testing.assert_array_equal(chosen, [[0, *[1] * (k - 1), *[0] * (5 - k), 1]] * 7)
        np.testing.assert_array_equal(gradient, [np.eye(6)[k - 1]] * 7)
    np.testing.assert_array_equal(choose(scores, np.full(7, 6, np.int32))[0], np.full(7, -TINY))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_dtype_in_is_dtype_out(dtype, x64):
    scores = (RNG.standard_normal((8, 40)) * 1e-3).astype(dtype)
    found = choose(scores, np.arange(1, 9))
    assert {each.dtype for each in found} == {jnp.dtype(dtype)}
    wide = [np.asarray(each).astype(np.float64) for each in (scores, *found)]
    check_rows(wide[1:], wide[0], range(1, 9))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cutoff_stays_below_the_value_where_no_float_is_between(dtype):
    dtype = jnp.dtype(dtype)
    epsilon = float(jnp.finfo(dtype).eps)
    close = np.array([1 + epsilon, 1, 1 - epsilon / 2, 1 - epsilon]).astype(dtype)
    extremes = np.array([np.inf, 3e38, -3e38, -np.inf]).astype(dtype)
    for scores in (close, extremes):
        cuts = np.asarray(jax.jit(cutoff)(np.stack([scores] * 4), np.arange(4)))
        assert np.sum(scores > cuts[:, None], 1).tolist() == [0, 1, 2, 3]


def test_a_cutoff_of_none_and_of_all_is_infinite_and_does_not_move():
    cuts = np.asarray(choose(ROWS, np.int32([0, 6] + [1] * 5))[2])
    assert cuts[:2].tolist() == [np.inf, -np.inf]
    np.testing.assert_array_equal(jax.jit(jax.grad(cutoff))(SCORES, 2), np.zeros(6))


@pytest.mark.parametrize("axis", [(2, -3), 1])  # all together in a test of shards
def test_any_axes_in_row_major_order(axis):
    scores = TIED[:, :60].reshape(10, 24, 4)
    named = [axis] if isinstance(axis, int) else axis
    along = sorted(each % 3 for each in named)
    front = list(range(3 - len(along), 3))
    rows = np.moveaxis(scores, along, front).reshape(-1, np.prod([scores.shape[each] for each in along]))
    rest = np.moveaxis(scores, along, front).shape
    k = (1 + np.arange(len(rows)) % rows.shape[1]).reshape(rest[: front[0]])
    values, chosen, cuts, gradient = map(np.asarray, choose(scores, k, axis=axis))
    chosen, gradient = (np.moveaxis(each, along, front).reshape(rows.shape) for each in (chosen, gradient))
    check_rows((np.ravel(values), chosen, np.ravel(cuts), gradient), rows, np.ravel(k))


@pytest.mark.parametrize("k", [2, np.arange(7) % 4 + 1])
def test_masking_is_removal(k):
    where = RNG.random((7, 6)) < 0.9
    scores = np.where(RNG.random((7, 6)) < 0.2, -np.inf, RNG.standard_normal((7, 6))).astype(np.float32)
    found = (choose if np.ndim(k) else choose_known)(scores, k=k, where=where)
    for *each, row, mask, number in zip(*map(np.asarray, found), scores, where, np.broadcast_to(k, 7), strict=True):
        value, chosen, cut, gradient = each
        check_row((value, chosen[mask], cut, gradient[mask]), row[mask], number)
        assert not np.any(chosen[~mask])
        assert not np.any(gradient[~mask])


@given(
    arrays(np.float32, (2, 7), elements=st.floats(-2, 2, width=16)),
    arrays(np.int32, (2, 7), elements=st.integers(0, 3)),
    st.data(),
)
@properties
def test_weights_are_repetition(scores, weights, data):
    weights[:, 0] += 1
    k = np.array([data.draw(st.integers(1, int(each))) for each in weights.sum(1)])
    found = map(np.asarray, weighted(scores, k, weights))
    for value, gradient, cut, row, number, repeats in zip(*found, scores, k, weights, strict=True):
        copies = np.repeat(row, repeats)
        expected, _, after, expected_gradient = by_sorting(copies, number)
        assert value == expected
        np.testing.assert_array_equal(gradient, np.bincount(np.repeat(np.arange(7), repeats), expected_gradient, 7))
        assert after <= cut <= expected
        assert after == expected or np.sum(copies > cut) == number


@jax.jit
def weighted(scores, k, weights):
    def value(scores):
        return kth_largest(scores, k, weights=weights)

    gradient = jax.grad(lambda scores: value(scores).sum())(scores)
    return value(scores), gradient, cutoff(scores, k, weights=weights)


def test_real_weights_are_summed_from_the_top():
    weights = np.float32([0.5, 0.25, 0.25, 1, 1, 1])  # of 3, 1, 2, 0, 0.4, 1.3
    found = [float(kth_largest(SCORES, k, weights=weights)) for k in (0.1, 0.5, 0.6, 0.75, 0.8, 1.75, 2, 4)]
    np.testing.assert_array_equal(np.float32(found), np.float32([3, 3, 2, 2, 1.3, 1.3, 1, 0]))


def test_all_of_the_weight_reaches_the_least_though_sums_differ_by_a_rounding():
    random = np.random.default_rng(0)
    scores, weights = np.float32(random.standard_normal((200, 50))), np.float32(random.random((200, 50)))
    np.testing.assert_array_equal(kth_largest(scores, fraction(1.0), weights=weights), scores.min(1))


def test_binary_argmax_is_the_limit_of_a_small_temperature():
    k = np.int32([[0, 1, 3], [6, 2, 5]])
    np.testing.assert_array_equal(hard(GROUPS, k), soft_binary_argmax(GROUPS, k, 1e-6))


def test_binary_argmax_chooses_among_what_takes_part():
    where = np.array([False, True, True, True, False, True])
    np.testing.assert_array_equal(binary_argmax(SCORES, 2, where=where), [0, 0, 1, 0, 0, 1])
    scores = jnp.array([3.0, 1.0, 2.0, -jnp.inf, 0.4, 1.3])
    np.testing.assert_array_equal(binary_argmax(scores, 4, where=where), where)


def test_nothing_is_chosen_of_nothing_and_nothing_reaches_it():
    nothing = np.zeros((7, 6), bool)
    none, one, five = (np.full(7, k, np.int32) for k in (0, 1, 5))
    traced = [choose(ROWS, none), *(choose(ROWS, k, where=nothing) for k in (none, one, five, fraction(0.5)))]
    for values, chosen, cuts, gradient in (*traced, choose_known(ROWS, k=0), choose_known(ROWS, k=2, where=nothing)):
        assert np.all(np.isposinf([values, cuts]))
        assert not np.any(chosen)
        assert not np.any(gradient)


# How many


@pytest.mark.parametrize("k", [2.5, 5.6])
def test_an_array_is_rounded_half_to_even_inside_and_outside_of_a_program(k):
    array = jnp.full(7, k)
    *inside, _ = found = choose(ROWS, array)
    check_rows(found, ROWS, [round(k)] * 7)
    check_same([function(ROWS, array) for function in (kth_largest, binary_argmax, cutoff)], inside)
    narrow = jnp.bfloat16(k)
    check_same([binary_argmax(SCORES, narrow), hard(SCORES, narrow)], [by_sorting(SCORES, round(k))[1]] * 2)


def test_a_schedule_counts_alike_inside_and_outside_of_a_program():
    schedule = optax.linear_schedule(6, 1, 7)
    steps, rows = np.arange(8), np.broadcast_to(SCORES, (8, 6))
    counts = jax.jit(schedule)(steps)
    inside = jax.jit(lambda steps: binary_argmax(rows, schedule(steps)))(steps)
    for chosen in (inside, binary_argmax(rows, counts)):
        np.testing.assert_array_equal(np.sum(chosen, 1), np.round(counts))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.08, 0.09, 0.25, 0.5, 1.0])
def test_a_positive_share_takes_at_least_one_of_a_group_that_has_entries(share):
    where = np.arange(7)[:, None] > np.arange(6)  # of every group one entry more
    whole = np.array([0, *(max(round(share * n), 1) for n in range(1, 7))], np.int32)
    values, chosen, cuts, gradient = map(np.asarray, choose(ROWS, fraction(share), where=where))
    check_same((values, chosen, cuts, gradient), choose(ROWS, whole, where=where))
    np.testing.assert_array_equal(chosen.sum(1), whole)
    np.testing.assert_array_equal(chosen, where & (values[:, None] <= ROWS))
    np.testing.assert_array_equal(binary_argmax(SCORES, fraction(share)), chosen[6])


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("k", [2, 5])
def test_all_are_chosen_where_a_mask_leaves_fewer(traced, k):
    where = np.arange(7)[:, None] > np.arange(6)
    found = choose(ROWS, np.full(7, k, np.int32), where=where) if traced else choose_known(ROWS, k=k, where=where)
    values, chosen, cuts, gradient = map(np.asarray, found)
    short = np.arange(7) <= k
    np.testing.assert_array_equal(chosen[short], where[short])
    np.testing.assert_array_equal(chosen.sum(1), np.minimum(np.arange(7), k))
    np.testing.assert_array_equal(values, [np.inf, *(np.sort(ROWS[n, :n])[-min(n, k)] for n in range(1, 7))])
    np.testing.assert_array_equal(cuts[short], [np.inf, *[-np.inf] * k])
    np.testing.assert_array_equal(gradient.sum(1), np.arange(7) > 0)


def test_all_are_chosen_where_a_mask_leaves_less_weight():
    where = np.arange(6) < 2
    settings = {"weights": jnp.full(6, 0.25), "where": where}
    assert kth_largest(SCORES, 0.9, **settings) == 1
    assert cutoff(SCORES, 0.9, **settings) == -np.inf


# What is wrong


@pytest.mark.parametrize("nan", [np.nan, -np.nan])
@pytest.mark.parametrize("k", [2, np.array([2, 6, 5, 1, 2, 3, 4], np.int32)])
def test_nan_marks_its_own_group_alone(nan, k):
    scores = ROWS.copy()
    scores[0, 4], scores[2, :2] = nan, [np.inf, -np.inf]
    values, chosen, cuts, _ = map(np.asarray, (choose if np.ndim(k) else choose_known)(scores, k=k))
    for each in (values, chosen, cuts):
        np.testing.assert_array_equal(np.isnan(each).reshape(7, -1).all(1), np.arange(7) == 0)
        assert not np.isnan(each[1:]).any()
    _, masked, *_ = choose_known(scores, k=2, where=np.broadcast_to(np.arange(6) != 4, (7, 6)))
    np.testing.assert_array_equal(np.asarray(masked)[0], [1, 0, 1, 0, 0, 0])


@pytest.mark.parametrize("k", [np.int32([-1, 2, 7, 2, 2, 2, 2]), np.float32([-0.6, 2, 6.6, 2, np.nan, 2, np.inf])])
def test_traced_numbers_out_of_range_give_nan(k):
    wrong = ~((k > -0.5) & (k < 6.5))
    for each in choose(ROWS, k)[:3]:
        np.testing.assert_array_equal(np.isnan(each).reshape(7, -1).T, [wrong] * (np.size(each) // 7))


def test_a_traced_number_above_the_length_gives_nan_beside_a_mask_too():
    where = np.broadcast_to(np.arange(6) < 3, (7, 6))
    values, chosen, cuts, _ = map(np.asarray, choose(ROWS, np.full(7, 7, np.int32), where=where))
    assert np.isnan([values, cuts, *chosen.T[:3]]).all()


@pytest.mark.parametrize("k", [1.5, [1, 2.5]])
def test_a_fractional_number_is_refused(k):
    for function in (binary_argmax, kth_largest, cutoff):
        with pytest.raises(ValueError, match=r"must be whole, got .*5"):
            function(jnp.stack([SCORES, SCORES]), np.asarray(k))


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (-1, r"k must be in \[0, n\], got -1"),
        (7, "k must be at most n = 6"),
        (0.5, r"0.5 looks like a share of them: pass softbin.budgets.fraction\(0.5\)"),
        (jnp.float32(0.5), r"0.5 looks like a share of them: pass softbin.budgets.fraction\(0.5\)"),
        (np.array([1, 0.5]), r"looks like a share of them: pass softbin.budgets.prior\(\[1. , 0.5\]\)"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(k, message, no_shape_checks):
    for function in (binary_argmax, kth_largest, cutoff, partial(soft_binary_argmax, straight_through=True)):
        with pytest.raises(ValueError, match=message):
            function(jnp.stack([SCORES, SCORES]) if np.ndim(k) else SCORES, k)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bits_are_refused(dtype, no_shape_checks):
    for function in (binary_argmax, kth_largest, cutoff, top_k, soft_binary_argmax, softbin.top_k_mean):
        with pytest.raises(TypeError, match=f"must have 16 bits or more, got {dtype}: convert them"):
            function(jnp.asarray(SCORES, dtype), 2)


# One value of what is computed


def of_step(values, step):
    return (values + 0.1) * (0.01 * step) + 0.37 * step


FROM_A_STEP = {
    "kth_largest": lambda x, share, step: 0.01 * step * kth_largest(x, share),
    "binary_argmax": lambda x, share, step: binary_argmax(of_step(x, step), share).sum(-1),
    "cutoff": lambda x, share, step: cutoff(x, share),
    "straight_through": lambda x, share, step: soft_binary_argmax(of_step(x, step), share, straight_through=True).sum(
        -1
    ),
    "gradient": lambda x, share, step: jax.grad(lambda x: kth_largest(of_step(x, step), share).sum())(x).sum(-1),
    "in_turn": lambda x, share, step: binary_argmax(of_step(x, step), 3).sum(-1),
    "top_k_mean": lambda x, share, step: softbin.top_k_mean(0.01 * step * x, share),
}


@pytest.mark.parametrize("options", [AS_USERS_DO, AT_LEVEL_0], ids=["as_users_do", "level_0"])
@pytest.mark.parametrize("name", FROM_A_STEP)
def test_what_one_program_computes_has_one_value(name, options):
    """Near counts that are half whole a rounding decides, and compilers may round a product and a sum in two ways."""
    n = 25
    x = RNG.standard_normal((8, n)).astype(np.float32)
    falling = -np.sort(-x.astype(np.float64), 1)

    @partial(jax.jit, compiler_options=options)
    def run(x, step):
        return FROM_A_STEP[name](x, fraction(1 - 0.01 * step), step)

    def expected(k, step):
        match name:
            case "kth_largest":
                return 0.01 * step * falling[:, round(k) - 1]
            case "cutoff":
                return falling[:, round(k) - 1 : round(k) + 1].mean(1)
            case "gradient":
                return np.full(8, 0.01 * step)
            case "in_turn":
                return np.full(8, 3)
            case "top_k_mean":
                return 0.01 * step * (falling * np.clip(k - np.arange(n), 0, 1)).sum(1) / k
        return np.full(8, round(k))

    for step in range(2, 97, 2):
        found = np.asarray(run(x, np.float32(step)))
        k = n * (1 - 0.01 * step)
        ways = [expected(k + error, step) for error in (-1e-5, 1e-5)]
        assert any(np.allclose(found, way, rtol=1e-5, atol=1e-5) for way in ways), (step, k, found)


PRODUCERS = {
    "matmul": lambda a, b: a @ b,
    "layer_norm": lambda a, b: ((a - a.mean(0)) * jax.lax.rsqrt(a.var(0) + 1e-5))[:, :32],
}


def above_cutoff(scores):
    stored = jax.lax.reduce_precision(scores.astype(jnp.float32), *BITS[scores.dtype.name])
    return stored > cutoff(scores, 20, axis=0).astype(jnp.float32)


COUNTS = {
    "of columns": lambda scores: binary_argmax(scores, 20, axis=0).astype(jnp.float32).sum(0),
    "of rows": lambda scores: binary_argmax(scores, 7, axis=1).astype(jnp.float32).sum(1),
    "above a cutoff": lambda scores: above_cutoff(scores).sum(0),
}


@pytest.mark.parametrize(
    ("dtype", "producer", "name"),
    [
        ("bfloat16", "matmul", "of columns"),
        ("bfloat16", "matmul", "above a cutoff"),
        ("bfloat16", "layer_norm", "of columns"),
        ("float16", "matmul", "of rows"),
    ],
)
def test_as_many_are_chosen_of_what_the_program_computes_in_low_precision(dtype, producer, name):
    """XLA keeps digits that a narrow float has not, and would count others than it compares."""
    a, b = (RNG.standard_normal(shape).astype(dtype) for shape in ((32, 128, 64), (32, 64, 32)))
    run = jax.jit(jax.vmap(lambda a, b: COUNTS[name](PRODUCERS[producer](a, b))), compiler_options=AS_USERS_DO)
    counts = np.asarray(run(a, b))
    assert counts.size > 1000
    if name == "above a cutoff":
        assert (counts <= 20).all()  # less where the next score is equal
    else:
        assert (counts == (7 if name == "of rows" else 20)).all()


# Derivatives and transforms


def test_binary_argmax_has_zero_gradient():
    np.testing.assert_array_equal(
        jax.grad(lambda scores: jnp.sum(binary_argmax(scores, 2) * scores))(SCORES), [1, 0, 1, 0, 0, 0]
    )


@pytest.mark.parametrize("k", [2, 5])
def test_both_modes_and_second_derivatives(k):
    @jax.jit
    def derivatives(scores):
        value = partial(kth_largest, k=k)
        return jax.jacfwd(value)(scores), jax.jacrev(value)(scores), jax.hessian(lambda x: value(x) ** 2)(scores)

    forward, reverse, hessian = derivatives(SCORES)
    expected = by_sorting(SCORES, k)[3]
    np.testing.assert_array_equal(forward, expected)
    np.testing.assert_array_equal(reverse, expected)
    np.testing.assert_array_equal(hessian, 2 * np.outer(expected, expected))


def test_gradients_of_the_first_add_up_to_the_choice():
    gradient = jax.jit(jax.grad(kth_largest))
    total = sum(np.asarray(gradient(TIED[0], np.int32(k))) for k in range(1, 31))
    np.testing.assert_array_equal(total, np.asarray(hard(TIED, np.full(16, 30, np.int32)))[0])


def test_vmap_over_scores_and_numbers():
    k = np.arange(1, 17, dtype=np.int32)
    check_same(jax.jit(jax.vmap(all_choices))(TIED, k), choose(TIED, k))


def test_strict_promotion_of_types_and_ranks(x64):
    mask, weights = np.ones((2, 3, 6), bool), np.ones((2, 3, 6), np.float32)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for dtype in ("float32", "float64", "bfloat16"):
            scores = GROUPS.astype(dtype)
            found = jax.eval_shape(lambda x: (*all_choices(x, 5, where=mask), binary_argmax(x, 2)), scores)
            found += (jax.eval_shape(lambda x: kth_largest(x, 5, weights=weights), scores),)
            assert {each.dtype for each in found} == {scores.dtype}
        for k in (2, 5, np.int64(5), np.uint8(5), np.float64(5)):
            assert np.all(np.asarray(binary_argmax(GROUPS, k)).sum(-1) == k)


# Shards


DEVICES = 8
MESHES = {
    kind.name: jax.make_mesh((DEVICES,), ("shards",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit)
}


def in_one_place(k, axis=-1):
    found = choose(TIED, np.full(16, k, np.int32) if axis == -1 else np.int32(k), axis=axis)
    rows = TIED if axis == -1 else TIED.reshape(1, -1)
    values, chosen, cuts, gradient = found
    chosen, gradient = (np.reshape(each, rows.shape) for each in (chosen, gradient))
    check_rows((np.ravel(values), chosen, np.ravel(cuts), gradient), rows, [k] * len(rows))
    return found


@pytest.mark.parametrize(  # every pair of a kind of mesh, an axis, and what is split
    ("kind", "axis", "split"),
    [("Auto", -1, "entries"), ("Auto", None, "groups"), ("Explicit", -1, "groups"), ("Explicit", None, "entries")],
)
def test_a_sharded_axis_has_the_same_bits_and_only_all_reduces(kind, axis, split):
    sharding = NamedSharding(MESHES[kind], PartitionSpec(*{"entries": (None, "shards"), "groups": ("shards",)}[split]))
    scores = jax.device_put(TIED, sharding)
    program = jax.jit(partial(all_choices, k=30, axis=axis)).lower(scores).compile()
    found = program(scores)
    check_same(found, in_one_place(30, axis))
    assert found[1].sharding.is_equivalent_to(sharding, 2)
    assert found[3].sharding.is_equivalent_to(sharding, 2)
    sent = collectives(program.as_text())
    assert {name for name, _ in sent} <= {"all-reduce"}
    assert max([size for _, size in sent], default=0) <= MOST_NUMBERS


@pytest.mark.parametrize("kind", MESHES)
def test_several_values_of_one_sharded_batch_share_the_rounds(kind):
    scores = jax.device_put(TIED, NamedSharding(MESHES[kind], PartitionSpec(None, "shards")))
    largest = jax.jit(lambda scores, ks: jax.vmap(lambda k: kth_largest(scores, k, axis=None))(ks))
    program = largest.lower(scores, np.arange(1, 5)).compile()
    np.testing.assert_array_equal(program(scores, np.arange(1, 5)), -np.sort(-TIED, None)[:4])
    sent = collectives(program.as_text())
    assert {name for name, _ in sent} == {"all-reduce"}
    assert max(size for _, size in sent) <= 4 * MOST_NUMBERS


def test_shards_of_a_mapped_axis_are_one_group():
    over_shards, replicated = PartitionSpec(None, "shards"), PartitionSpec()
    run = partial(all_choices, k=30, axis_name="shards")
    found = jax.jit(
        jax.shard_map(
            run, mesh=MESHES["Auto"], in_specs=over_shards, out_specs=(replicated, over_shards, replicated, over_shards)
        )
    )(TIED)
    check_same(found, in_one_place(30))


def test_shards_of_a_vmapped_axis_are_one_group():
    shards = np.stack(np.split(TIED, 4, 1))
    chosen = jax.jit(jax.vmap(partial(binary_argmax, k=30, axis_name="shards"), axis_name="shards"))(shards)
    np.testing.assert_array_equal(np.concatenate(chosen, 1), hard(TIED, np.full(16, 30, np.int32)))


def test_weights_over_shards():
    weights = RNG.integers(0, 3, TIED.shape).astype(np.float32)
    run = jax.jit(partial(kth_largest, k=40))
    put = partial(jax.device_put, device=NamedSharding(MESHES["Auto"], PartitionSpec(None, "shards")))
    np.testing.assert_array_equal(run(put(TIED), weights=put(weights)), run(TIED, weights=weights))


@pytest.mark.parametrize("choose", [kth_largest, binary_argmax, cutoff])
@pytest.mark.parametrize("k", ["2", None])
def test_what_is_no_number_is_named(choose, k, no_shape_checks):
    with pytest.raises(TypeError, match=f"k must be an array or a number, got {k!r}"):
        choose(np.ones(3, np.float32), k)


@pytest.mark.parametrize(("k", "is_known", "name"), [(2, True, None), (5, False, None), (5, True, "a")])
def test_groups_may_vary_over_a_mapped_axis(k, is_known, name):
    """Of a group that is split, a few are found as many are."""
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    x = np.round(np.random.default_rng(0).standard_normal((16, 4)), 1).astype(np.float32)
    per_group, spec = PartitionSpec("b"), PartitionSpec(name, "b")

    def mapped(x, traced):
        along = {"k": k if is_known else traced, "axis": 0, "axis_name": name}
        if name is None:
            return all_choices(x, **along)
        return kth_largest(x, **along), binary_argmax(x, **along), cutoff(x, **along)

    specs = (per_group, spec, per_group, spec)[: 3 if name else 4]
    run = jax.jit(jax.shard_map(mapped, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=specs))
    check_same(run(x, np.int32(k)), choose(x, np.full(4, k, np.int32), axis=0)[: len(specs)])


# Values with their indices


@properties
@given(arrays(np.float32, (3, 7), elements=st.sampled_from(np.float32([-np.inf, -1, -0.0, 0, 1e-40, 2]))), st.data())
def test_top_k_is_the_binary_argmax_in_falling_order(scores, data):
    where = data.draw(arrays(bool, (3, 7)))
    k = data.draw(st.sampled_from([1, 3, 7]))
    values, indices, mask = map(np.asarray, largest(scores, k, where=where))
    chosen = np.asarray(hard(scores, np.full(3, k, np.int32), where=where))
    for row in range(3):
        count = min(k, where[row].sum())
        assert mask[row].tolist() == [True] * count + [False] * (k - count)
        picked = np.zeros(7)
        picked[indices[row, :count]] = 1
        np.testing.assert_array_equal(picked, chosen[row])
        np.testing.assert_array_equal(values[row, :count], scores[row, indices[row, :count]])
        assert not values[row, count:].any()
        flushed = np.where(np.abs(scores[row]) < TINY, 0, scores[row])[indices[row, :count]]
        assert np.all(flushed[1:] <= flushed[:-1])
        assert len(set(indices[row].tolist())) == k


def test_top_k_has_a_gradient_and_any_axis_and_nan_stay_in_their_group():
    scores = GROUPS.copy()
    scores[1, 2, 0] = np.nan
    values, indices, mask = map(np.asarray, largest(scores, 2, axis=1))
    assert values.shape == indices.shape == mask.shape == (2, 2, 6)
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(np.isnan(scores).any(1, keepdims=True), (2, 2, 6)))
    np.testing.assert_array_equal(values[0], -np.sort(-GROUPS[0], 0)[:2])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(top_k(x, 2, axis=1).values)))(GROUPS)
    np.testing.assert_array_equal(gradient, jax.jit(partial(binary_argmax, k=2, axis=1))(GROUPS))


def test_top_k_needs_a_known_number_and_one_axis(no_shape_checks):
    with pytest.raises(TypeError, match="k must be a concrete integer, got 2"):
        top_k(SCORES, 2.0)
    with pytest.raises(TypeError, match="binary_argmax takes a traced one"):
        jax.jit(top_k)(SCORES, 2)
    with pytest.raises(ValueError, match=r"at most n = 6.*got 7"):
        top_k(SCORES, 7)
    with pytest.raises(ValueError, match="one axis, got None"):
        top_k(SCORES, 2, axis=None)


def test_top_k_along_a_sharded_axis():
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("a",), axis_types=(kind,))
        spread = jax.device_put(TIED, NamedSharding(mesh, PartitionSpec("a")))
        for axis in (0, 1):
            found = jax.jit(partial(top_k, k=3, axis=axis))(spread)
            for part, expected in zip(found, largest(TIED, 3, axis=axis), strict=True):
                np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint64", "bfloat16", "float16"])
def test_a_number_may_be_of_any_real_type(dtype):
    """Also of one that cannot hold the largest integer that a search counts to, and without a warning."""
    assert binary_argmax(SCORES, np.asarray(3).astype(jnp.dtype(dtype))).sum() == 3
