"""The k-th largest score, the k largest, and the cutoff: exact on every input, by numpy's stable sort."""

from functools import cache, partial

import chex
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


choose = jax.jit(all_choices, static_argnames="axis")
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
    value, chosen, cut, gradient = map(np.asarray, found)
    expected, expected_chosen, after, expected_gradient = by_sorting(scores, k)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(chosen, expected_chosen)
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert after <= cut <= expected
    assert cut < expected or after == expected
    if after < expected:
        assert np.sum(scores > cut) == k


def check_rows(found, rows, numbers):
    for each, row, number in zip(zip(*found, strict=True), rows, numbers, strict=True):
        check_row(each, row, number)


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


@given(arrays(np.float32, (4, 9), elements=st.floats(width=32, allow_nan=False, allow_subnormal=False)), st.data())
@properties
def test_any_scores_are_exact(scores, data):
    k = data.draw(arrays(np.int32, 4, elements=st.integers(1, 9)))
    check_rows(choose(scores, k), scores, k)


@given(arrays(np.float32, (4, 9), elements=st.sampled_from(np.float32([-1, -0.0, 0.0, 1, np.inf, -np.inf]))), st.data())
@properties
def test_ties_go_to_the_lower_index(scores, data):
    k = data.draw(arrays(np.int32, 4, elements=st.integers(1, 9)))
    check_rows(choose(scores, k), scores, k)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 96])
def test_a_known_number_chooses_as_a_traced_one(k):
    for known, traced in zip(jax.jit(partial(all_choices, k=k))(TIED), choose(TIED, np.full(16, k)), strict=True):
        np.testing.assert_array_equal(known, traced)


def test_as_many_are_chosen_of_scores_that_are_nearly_equal():
    """Where two pivots are expected within a rounding of one another."""
    random = np.random.default_rng(1)
    scores = (3 + 1e-6 * random.standard_normal((200, 500))).astype(np.float32)
    k = random.integers(5, 20, 200)
    np.testing.assert_array_equal(jax.jit(binary_argmax)(scores, k).sum(1), k)


def test_subnormal_numbers_and_negative_zero_equal_zero():
    zeros = np.float32([0.0, -0.0, SUBNORMAL, -SUBNORMAL])
    scores = np.stack([np.concatenate([[-TINY], np.roll(zeros, shift), [TINY]]) for shift in range(4)])
    for k in range(2, 6):
        for values, chosen, _, gradient in (choose(scores, np.full(4, k)), jax.jit(partial(all_choices, k=k))(scores)):
            np.testing.assert_array_equal(values, np.zeros(4))
            np.testing.assert_array_equal(chosen, [[0, *[1] * (k - 1), *[0] * (5 - k), 1]] * 4)
            np.testing.assert_array_equal(gradient, [np.eye(6)[k - 1]] * 4)
    np.testing.assert_array_equal(kth_largest(scores, 6), np.full(4, -TINY))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_in_is_dtype_out(dtype, x64):
    scores = jnp.asarray(RNG.standard_normal((8, 40)) * 1e-3, dtype)
    found = choose(scores, np.arange(1, 9))
    assert {each.dtype for each in found} == {jnp.dtype(dtype)}
    for row, k, each in zip(np.asarray(scores.astype(jnp.float64)), range(1, 9), zip(*found, strict=True), strict=True):
        check_row([x.astype(jnp.float64) for x in each], row, k)


def test_a_cutoff_stays_below_the_value_where_no_float_is_between():
    for dtype in ("float32", "bfloat16"):
        one, epsilon = jnp.ones((), dtype), jnp.finfo(dtype).eps
        scores = jnp.stack([one + epsilon, one, one - epsilon / 2])
        assert [int(jnp.sum(scores > cutoff(scores, k))) for k in range(4)] == [0, 1, 2, 3]
    extremes = jnp.array([jnp.inf, 3e38, -3e38, -jnp.inf])
    assert [int(jnp.sum(extremes > cutoff(extremes, k))) for k in range(4)] == [0, 1, 2, 3]


def test_a_cutoff_of_none_and_of_all_is_infinite_and_does_not_move():
    assert cutoff(SCORES, 0) == np.inf
    assert cutoff(SCORES, 6) == -np.inf
    np.testing.assert_array_equal(jax.grad(cutoff)(SCORES, 2), jnp.zeros(6))


@pytest.mark.parametrize("axis", [(0, 2), (1, 0), None, 1, -3])
def test_any_axes_in_row_major_order(axis):
    scores = TIED[:, :60].reshape(10, 24, 4)
    named = [axis] if isinstance(axis, int) else range(3) if axis is None else axis
    along = sorted(each % 3 for each in named)
    front = list(range(3 - len(along), 3))
    rows = np.moveaxis(scores, along, front).reshape(-1, np.prod([scores.shape[each] for each in along]))
    rest = np.moveaxis(scores, along, front).shape
    k = (1 + np.arange(len(rows)) % rows.shape[1]).reshape(rest[: front[0]])
    values, chosen, cuts, gradient = choose(scores, k, axis=axis)
    chosen, gradient = (np.moveaxis(each, along, front).reshape(rows.shape) for each in (chosen, gradient))
    check_rows((np.ravel(values), chosen, np.ravel(cuts), gradient), rows, np.ravel(k))


@pytest.mark.parametrize("k", [2, np.array([1, 2, 5])])
def test_masking_is_removal(k):
    where = RNG.random((3, 6)) < 0.9
    scores = np.where(RNG.random((3, 6)) < 0.2, -np.inf, GROUPS[0])
    found = jax.jit(partial(all_choices, k=k) if np.ndim(k) == 0 else all_choices)(
        scores, where=where, **({} if np.ndim(k) == 0 else {"k": k})
    )
    for *each, row, mask, number in zip(*found, scores, where, np.broadcast_to(k, 3), strict=True):
        value, chosen, cut, gradient = map(np.asarray, each)
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
    found = weighted(scores, k, weights)
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
    for k in (0, 1, 3, 6):
        np.testing.assert_array_equal(binary_argmax(GROUPS, k), soft_binary_argmax(GROUPS, k, 1e-6))


def test_binary_argmax_chooses_among_what_takes_part():
    where = np.array([False, True, True, True, False, True])
    np.testing.assert_array_equal(binary_argmax(SCORES, 2, where=where), [0, 0, 1, 0, 0, 1])
    scores = jnp.array([3.0, 1.0, 2.0, -jnp.inf, 0.4, 1.3])
    np.testing.assert_array_equal(binary_argmax(scores, 4, where=where), where)


def test_nothing_is_chosen_of_nothing_and_nothing_reaches_it():
    nothing = np.zeros(6, bool)
    for k, where in ((0, None), (0, nothing), (1, nothing), (5, nothing), (fraction(0.5), nothing)):
        values, chosen, cut, gradient = all_choices(SCORES, k, where=where)
        assert values == cut == np.inf
        assert not chosen.any()
        assert not gradient.any()


# How many


@pytest.mark.parametrize("k", [2.5, 5.6])
def test_an_array_is_rounded_half_to_even_inside_and_outside_of_a_program(k):
    for array in (jnp.asarray(k), jnp.bfloat16(k), jnp.full(3, k)):
        row = jnp.broadcast_to(SCORES, (*array.shape, 6))
        expected = all_choices(row, round(k))
        for found in (all_choices(row, array), choose(row, array)):
            chex.assert_trees_all_equal(found, expected)


def test_a_schedule_counts_alike_inside_and_outside_of_a_program():
    schedule = optax.linear_schedule(6, 1, 7)
    traced = jax.jit(lambda step: binary_argmax(SCORES, schedule(step)).sum())
    for step in range(8):
        assert traced(step) == binary_argmax(SCORES, schedule(step)).sum() == jnp.round(schedule(step))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.08, 0.09, 0.25, 0.5, 1.0])
def test_a_positive_share_takes_at_least_one_of_a_group_that_has_entries(share):
    scores = np.broadcast_to(np.asarray(SCORES), (7, 6))
    where = np.arange(7)[:, None] > np.arange(6)  # of every group one entry more
    whole = np.array([0, *(max(round(share * n), 1) for n in range(1, 7))])
    values, chosen, cuts, gradient = choose(scores, fraction(share), where=where)
    expected = choose(scores, whole, where=where)
    chex.assert_trees_all_equal((values, chosen, cuts, gradient), expected)
    np.testing.assert_array_equal(chosen.sum(1), whole)
    np.testing.assert_array_equal(chosen, where & (scores >= values[:, None]))
    chex.assert_trees_all_equal(all_choices(scores[6], fraction(share)), tuple(each[6] for each in expected))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("k", [2, 5])
def test_all_are_chosen_where_a_mask_leaves_fewer(traced, k):
    where = np.arange(7)[:, None] > np.arange(6)
    scores = np.broadcast_to(np.asarray(SCORES), (7, 6))
    values, chosen, cuts, gradient = (choose if traced else all_choices)(scores, k, where=where)
    short = np.arange(7) <= k
    np.testing.assert_array_equal(chosen[short], where[short])
    np.testing.assert_array_equal(chosen.sum(1), np.minimum(np.arange(7), k))
    np.testing.assert_array_equal(values, [np.inf, *(np.sort(scores[n, :n])[-min(n, k)] for n in range(1, 7))])
    np.testing.assert_array_equal(cuts[short], [np.inf, *[-np.inf] * k])
    np.testing.assert_array_equal(gradient.sum(1), np.arange(7) > 0)


def test_all_are_chosen_where_a_mask_leaves_less_weight():
    where = np.arange(6) < 2
    settings = {"weights": jnp.full(6, 0.25), "where": where}
    assert kth_largest(SCORES, 0.9, **settings) == 1
    assert cutoff(SCORES, 0.9, **settings) == -np.inf


# What is wrong


@pytest.mark.parametrize("nan", [np.nan, -np.nan])
@pytest.mark.parametrize("k", [2, np.array([2, 6, 5], np.int32)])
def test_nan_marks_its_own_group_alone(nan, k):
    scores = np.stack([np.asarray(SCORES)] * 3)
    scores[0, 4], scores[2, :2] = nan, [np.inf, -np.inf]
    values, chosen, cuts, _ = choose(scores, k) if np.ndim(k) else jax.jit(partial(all_choices, k=k))(scores)
    for each in (values, chosen, cuts):
        np.testing.assert_array_equal(np.isnan(each).reshape(3, -1).all(1), [True, False, False])
        assert not np.isnan(each[1:]).any()
    masked = binary_argmax(scores[0], 2, where=np.arange(6) != 4)
    np.testing.assert_array_equal(masked, [1, 0, 1, 0, 0, 0])


@pytest.mark.parametrize("k", [-1, 7, -0.6, 6.6, np.nan, np.inf])
def test_traced_numbers_out_of_range_give_nan(k):
    for each in choose(SCORES, k)[:3]:
        assert np.isnan(each).all()


def test_a_traced_number_above_the_length_gives_nan_beside_a_mask_too():
    values, chosen, cut, _ = choose(SCORES, 7, where=np.arange(6) < 3)
    assert np.isnan([values, cut, *chosen[:3]]).all()


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


@pytest.mark.parametrize(
    ("dtype", "producer"), [("bfloat16", "matmul"), ("bfloat16", "layer_norm"), ("float16", "matmul")]
)
def test_as_many_are_chosen_of_what_the_program_computes_in_low_precision(dtype, producer):
    """XLA keeps digits that a narrow float has not, and would count others than it compares; some 10 s in all."""
    a, b = (RNG.standard_normal(shape).astype(dtype) for shape in ((32, 128, 64), (32, 64, 32)))

    @partial(jax.jit, compiler_options=AS_USERS_DO)
    @jax.vmap
    def counts(a, b):
        scores = PRODUCERS[producer](a, b)
        stored = jax.lax.reduce_precision(scores.astype(jnp.float32), *BITS[dtype])
        above = stored > cutoff(scores, 20, axis=0).astype(jnp.float32)
        columns, rows = (binary_argmax(scores, k, axis=axis) for k, axis in ((20, 0), (7, 1)))
        return [jnp.sum(each.astype(jnp.float32), axis) for each, axis in ((columns, 0), (rows, 1), (above, 0))]

    columns, rows, above = map(np.asarray, counts(a, b))
    assert columns.size > 1000
    assert (columns == 20).all()
    assert (rows == 7).all()
    assert (above <= 20).all()  # less where the next score is equal


# Derivatives and transforms


def test_binary_argmax_has_zero_gradient():
    np.testing.assert_array_equal(
        jax.grad(lambda scores: jnp.sum(binary_argmax(scores, 2) * scores))(SCORES), [1, 0, 1, 0, 0, 0]
    )


@pytest.mark.parametrize("k", [2, 5])
def test_both_modes_and_second_derivatives(k):
    value = partial(kth_largest, k=k)
    expected = by_sorting(SCORES, k)[3]
    np.testing.assert_array_equal(jax.jacfwd(value)(SCORES), expected)
    np.testing.assert_array_equal(jax.jacrev(value)(SCORES), expected)
    np.testing.assert_array_equal(jax.hessian(lambda x: value(x) ** 2)(SCORES), 2 * np.outer(expected, expected))


def test_gradients_of_the_first_add_up_to_the_choice():
    row = jnp.asarray(TIED[0])
    gradient = jax.jit(jax.grad(kth_largest))
    total = sum(gradient(row, np.int32(k)) for k in range(1, 31))
    np.testing.assert_array_equal(total, binary_argmax(row, 30))


def test_vmap_over_scores_and_numbers():
    k = np.arange(1, 17)
    mapped = jax.jit(jax.vmap(all_choices))(TIED, k)
    for a, b in zip(mapped, choose(TIED, k), strict=True):
        np.testing.assert_array_equal(a, b)


def test_strict_promotion_of_types_and_ranks(x64):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for scores in (GROUPS, GROUPS.astype(np.float64), jnp.asarray(GROUPS, jnp.bfloat16)):
            for k in (2, 5, np.int64(5), np.uint8(5), np.float64(5)):
                assert np.all(np.asarray(binary_argmax(scores, k), np.float32).sum(-1) == k)
            mask = np.ones((2, 3, 6), bool)
            assert kth_largest(scores, 5, where=mask).shape == cutoff(scores, 5, where=mask).shape == (2, 3)
            kth_largest(scores, 5, weights=np.ones((2, 3, 6), np.float32))


# Shards


DEVICES = 8
MESHES = {
    kind.name: jax.make_mesh((DEVICES,), ("shards",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit)
}


@cache
def in_one_place(k, axis=-1):
    return jax.jit(partial(all_choices, k=k, axis=axis))(TIED)


@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("k", [2, 30])
def test_a_sharded_axis_has_the_same_bits_and_only_all_reduces(kind, k):
    for axis in (-1, None):
        run, expected = jax.jit(partial(all_choices, k=k, axis=axis)), in_one_place(k, axis)
        for spec in (PartitionSpec(None, "shards"), PartitionSpec("shards")):
            sharding = NamedSharding(MESHES[kind], spec)
            scores = jax.device_put(TIED, sharding)
            program = run.lower(scores).compile()
            found = program(scores)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
            assert found[1].sharding.is_equivalent_to(sharding, 2)
            assert found[3].sharding.is_equivalent_to(sharding, 2)
            assert {name for name, _ in collectives(program.as_text())} <= {"all-reduce"}
            assert max([size for _, size in collectives(program.as_text())], default=0) <= MOST_NUMBERS


@pytest.mark.parametrize("k", [2, 30])
def test_shards_of_a_mapped_axis_are_one_group(k):
    expected = in_one_place(k)
    over_shards, replicated = PartitionSpec(None, "shards"), PartitionSpec()
    run = partial(all_choices, k=k, axis_name="shards")
    found = jax.jit(
        jax.shard_map(
            run, mesh=MESHES["Auto"], in_specs=over_shards, out_specs=(replicated, over_shards, replicated, over_shards)
        )
    )(TIED)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_shards_of_a_vmapped_axis_are_one_group():
    shards = np.stack(np.split(TIED, 4, 1))
    chosen = jax.jit(jax.vmap(partial(binary_argmax, k=30, axis_name="shards"), axis_name="shards"))(shards)
    np.testing.assert_array_equal(np.concatenate(chosen, 1), binary_argmax(TIED, 30))


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


@pytest.mark.parametrize("k", [2, 5])
def test_groups_may_vary_over_a_mapped_axis(k):
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    x = np.round(np.random.default_rng(0).standard_normal((16, 4)), 1).astype(np.float32)

    def choose(x, k, axis_name=None):
        along = {"axis": 0, "axis_name": axis_name}
        gradient = jax.grad(lambda x: jnp.sum(kth_largest(x, k, **along)))(x) if axis_name is None else x
        return (kth_largest(x, k, **along), cutoff(x, k, **along)), (binary_argmax(x, k, **along), gradient)

    wanted = choose(x, k)
    for spec, name in ((PartitionSpec(None, "b"), None), (PartitionSpec("a", "b"), "a")):
        for function in (lambda x, traced: choose(x, k, name), lambda x, traced: choose(x, traced, name)):  # noqa: B023
            mapped = jax.shard_map(
                function, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=(PartitionSpec("b"), spec)
            )
            values, entries = jax.jit(mapped)(x, jnp.int32(k))
            for a, b in zip((*values, entries[0]), (*wanted[0], wanted[1][0]), strict=True):
                np.testing.assert_array_equal(a, b)
            if name is None:
                np.testing.assert_array_equal(entries[1], wanted[1][1])


# Values with their indices


@properties
@given(arrays(np.float32, (3, 7), elements=st.sampled_from(np.float32([-np.inf, -1, -0.0, 0, 1e-40, 2]))), st.data())
def test_top_k_is_the_binary_argmax_in_falling_order(scores, data):
    where = data.draw(arrays(bool, (3, 7)))
    k = data.draw(st.sampled_from([1, 3, 7]))
    values, indices, mask = largest(scores, k, where=where)
    for row in range(3):
        count = min(k, where[row].sum())
        assert mask[row].tolist() == [True] * count + [False] * (k - count)
        chosen = np.zeros(7)
        chosen[indices[row, :count]] = 1
        np.testing.assert_array_equal(chosen, binary_argmax(scores[row], count, where=where[row]))
        np.testing.assert_array_equal(values[row, :count], scores[row, indices[row, :count]])
        assert not values[row, count:].any()
        flushed = np.where(np.abs(scores[row]) < TINY, 0, scores[row])[indices[row, :count]]
        assert np.all(flushed[1:] <= flushed[:-1])
        assert len(set(indices[row].tolist())) == k


def test_top_k_has_a_gradient_and_any_axis_and_nan_stay_in_their_group():
    scores = jnp.asarray(GROUPS).at[1, 2, 0].set(jnp.nan)
    values, indices, mask = largest(scores, 2, axis=1)
    assert values.shape == indices.shape == mask.shape == (2, 2, 6)
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(np.isnan(scores).any(1, keepdims=True), (2, 2, 6)))
    np.testing.assert_array_equal(values[0], -np.sort(-GROUPS[0], 0)[:2])
    gradient = jax.grad(lambda x: jnp.sum(top_k(x, 2, axis=1).values))(jnp.asarray(GROUPS))
    np.testing.assert_array_equal(gradient, binary_argmax(GROUPS, 2, axis=1))


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
