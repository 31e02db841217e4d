import math
from functools import cache, partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import PartitionSpec
from scipy.optimize import brentq

import softbin
from softbin import budgets, soft_binary_argmax
from tests import exact
from tests.compiling import AS_USERS_DO
from tests.derivatives import check_derivatives
from tests.hard_cases import REGULARIZERS, solve

PUBLISHED = np.load(Path(__file__).parent / "data" / "operator_cases.npz")
RNG = np.random.default_rng(0)
SCORES = np.float32([3.0, 1.0, 2.0, 0.0, 0.4, 1.3])
WEIGHTS = np.float32([1.0, 2.0, 0.5, 1.0, 0.0, 1.5])
GROUPS = RNG.standard_normal((2, 3, 6)).astype(np.float32)
COTANGENT = RNG.standard_normal(6).astype(np.float32)

each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
properties = settings(max_examples=50, deadline=None, derandomize=True)
project_hypersimplex = jax.jit(softbin.project_hypersimplex)
project = jax.jit(soft_binary_argmax, static_argnames=("axis", "regularizer", "axis_name", "forward_mode"))


@cache
def projection(regularizer):
    """One function, so that what is compiled of it is shared."""
    return partial(soft_binary_argmax, regularizer=regularizer)


@cache
def weighted_projection(regularizer, forward_mode=False):
    def run(scores, k, temperature, weights):
        return projection(regularizer)(scores, k, temperature, weights=weights, forward_mode=forward_mode)

    return run


def pulled_back(cotangent, function, *args):
    """Value, result, and gradients of a loss that is linear in the result."""
    return jax.tree.map(np.asarray, _compiled(cotangent, function, *args))


def _pulled_back(cotangent, function, *args):
    y, pull_back = jax.vjp(function, *args)
    cotangent = jnp.broadcast_to(cotangent, y.shape)
    return jnp.sum(y * cotangent), y, pull_back(cotangent)


_compiled = jax.jit(_pulled_back, static_argnums=1)
_compiled_exactly = jax.jit(_pulled_back, static_argnums=1, compiler_options=AS_USERS_DO)


# Values


@pytest.mark.parametrize("case", range(40))
def test_published_cases(case):
    scores, k, temperature, cotangent, exact_y, published_vjp = (
        PUBLISHED[f"{case}_{key}"] for key in ("scores", "k", "temperature", "cotangent", "exact_y", "published_vjp")
    )
    run = _compiled_exactly if scores.size in (16, 1000) else _compiled  # as users do: a short one and a long one
    _, y, (vjp, *_) = run(cotangent, soft_binary_argmax, scores, np.float32(k), np.float32(temperature))
    np.testing.assert_allclose(y, exact_y, atol=2e-7)
    active = (exact_y > 0) & (exact_y < 1)
    mean = np.mean(cotangent[active], dtype=np.float64) if active.any() else 0
    np.testing.assert_allclose(vjp, np.where(active, (cotangent - mean) / temperature, 0), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(vjp, published_vjp, rtol=1e-6, atol=4e-6)


@properties
@given(
    scores=arrays(np.float32, 16, elements=st.floats(-1e3, 1e3, width=32)),
    k=st.floats(0, 16),
    temperature=st.floats(0.01, 100),
)
def test_result_keeps_order_and_ties_and_sums_to_k(scores, k, temperature):
    for regularizer in REGULARIZERS.values():
        y, _ = map(np.asarray, solve(scores, np.float32(k), np.float32(temperature), regularizer))
        order = np.argsort(scores)
        assert np.all(np.diff(y[order]) >= 0)
        assert np.all(np.diff(y[order])[np.diff(scores[order]) == 0] == 0)
        assert 0 <= y.min() <= y.max() <= 1
        np.testing.assert_allclose(y.sum(dtype=float), k, atol=1e-5)


@properties
@given(point=arrays(np.float32, 16, elements=st.floats(-3, 3, width=32)), k=st.floats(0.01, 15.99))
def test_project_hypersimplex_matches_brentq(point, k):
    found = project_hypersimplex(point, k)
    point, k = point.astype(np.float64), float(np.float32(k))
    root = brentq(lambda s: math.fsum(np.clip(point - s, 0, 1)) - k, point.min() - 2, point.max() + 1, xtol=1e-15)
    np.testing.assert_allclose(found, np.clip(point - root, 0, 1), atol=1e-6)


@properties
@given(
    scores=arrays(np.float32, 16, elements=st.floats(-3, 3, width=32)),
    other=arrays(np.float32, 16, elements=st.floats(-3, 3, width=32)),
)
def test_projection_is_the_nearest_point(scores, other):
    k = np.float32(5)
    nearest, feasible = (np.asarray(solve(x, k, np.float32(1), softbin.euclidean)[0]) for x in (scores, other))
    # The obtuse angle of a projection onto a convex set.
    assert np.sum((scores - nearest) * (feasible - nearest)) <= 1e-5


@each_regularizer
def test_weight_two_is_two_copies(regularizer):
    copies, weights = np.array([0, 1, 1, 2, 3, 3, 4, 5]), np.float32([1, 2, 1, 2, 1, 1])
    value, _, (gradient, *_) = pulled_back(
        COTANGENT * weights, weighted_projection(regularizer), SCORES, 2.7, 0.8, weights
    )
    copied_value, _, (copied, *_) = pulled_back(COTANGENT[copies], projection(regularizer), SCORES[copies], 2.7, 0.8)
    np.testing.assert_allclose(value, copied_value, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.bincount(copies, copied), atol=1e-6)


@each_regularizer
def test_masking_is_removal(regularizer):
    kept = np.array([True, True, False, True, False, True])
    run = projection(regularizer)
    _, y, (gradient, *_) = pulled_back(COTANGENT[kept], run, SCORES[kept], 1.7, 0.8)
    for missing, function, weights in (
        (np.nan, partial(run, where=kept), []),
        (np.nan, weighted_projection(regularizer), [kept.astype(np.float32)]),
        (-np.inf, run, []),
    ):
        scores, cotangent = np.where(kept, SCORES, np.float32(missing)), np.where(kept, COTANGENT, 0)
        _, masked_y, (masked_gradient, *_) = pulled_back(cotangent, function, scores, 1.7, 0.8, *weights)
        np.testing.assert_allclose(masked_y[kept], y, atol=2e-7)
        np.testing.assert_allclose(masked_gradient[kept], gradient, atol=1e-6)
        np.testing.assert_array_equal(masked_y[~kept], 0)
        np.testing.assert_array_equal(masked_gradient[~kept], 0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_any_axis_of_any_shape(axis):
    k, temperature = np.float32(1.2), np.float32(0.7)
    expected = np.apply_along_axis(lambda scores: exact.euclidean(scores, k, temperature).y, axis, GROUPS)
    np.testing.assert_allclose(soft_binary_argmax(GROUPS, k, temperature, axis=axis), expected, atol=1e-6)


def test_each_group_has_its_own_budget_and_temperature():
    k = np.array([[1.0, 2.0, 3.5], [0.0, 6.0, 5.0]], np.float32)
    temperature = np.array([0.5, 1.0, 20.0], np.float32)
    y = np.asarray(project(GROUPS, k, temperature))
    for group in np.ndindex(2, 3):
        expected = exact.euclidean(GROUPS[group], k[group], temperature[group[1]]).y
        np.testing.assert_allclose(y[group], expected, atol=1e-6)


@each_regularizer
def test_traced_numbers_and_scores_compile_once(regularizer):
    compiled = jax.jit(partial(soft_binary_argmax, regularizer=regularizer))
    for k, temperature in ((1.0, 0.5), (2.5, 10.0), (6.0, 1e-3)):
        y = compiled(SCORES, k, temperature)
        np.testing.assert_allclose(y, soft_binary_argmax(SCORES, k, temperature, regularizer=regularizer), atol=1e-6)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_in_is_dtype_out(dtype, x64):
    scores = GROUPS.astype(dtype)
    wide = scores.astype(np.float32 if jnp.finfo(dtype).bits < 32 else dtype)
    y, gradient, threshold = of_scores(scores)
    assert y.dtype == gradient.dtype == threshold.dtype == dtype
    np.testing.assert_array_equal(y, np.asarray(of_scores(wide)[0]).astype(dtype))


@jax.jit
def of_scores(scores):
    gradient = jax.grad(lambda scores: jnp.sum(soft_binary_argmax(scores, 2.5) ** 2))(scores)
    return soft_binary_argmax(scores, 2.5), gradient, softbin.threshold(scores, 2.5)


def test_float64_is_more_accurate_than_float32_can_be(x64):
    scores = np.asarray(GROUPS[0, 0], np.float64) + 1 / 3
    np.testing.assert_allclose(soft_binary_argmax(scores, 2.5, 0.7), exact.euclidean(scores, 2.5, 0.7).y, atol=1e-15)


# Derivatives

ARGUMENTS = (SCORES, 2.3, 0.9, np.float32([1.0, 2.0, 0.5, 1.0, 0.7, 1.5]))


@each_regularizer
def test_first_and_second_derivatives_match_finite_differences(regularizer, x64):
    """In reverse mode, with which forward mode agrees."""
    check_derivatives(weighted_projection(regularizer), ARGUMENTS)


@each_regularizer
def test_modes_agree_on_jacobian_and_hessian(regularizer, x64):
    arguments = jax.tree.map(np.float64, ARGUMENTS)
    reverse, forward = (weighted_projection(regularizer, forward_mode) for forward_mode in (False, True))
    every = range(4)

    @jax.jit
    def derivatives(*arguments):
        jacobians = jax.jacrev(reverse, every), jax.jacfwd(forward, every), jax.jacrev(forward, every)
        hessian = jax.hessian(lambda *args: jnp.sum(reverse(*args) ** 2), every)
        twice = jax.jacfwd(jax.jacfwd(lambda *args: jnp.sum(forward(*args) ** 2), every), every)
        return [f(*arguments) for f in jacobians], [f(*arguments) for f in (hessian, twice)]

    (jacobian, *other_jacobians), (hessian, other_hessian) = derivatives(*arguments)
    for other in other_jacobians:
        chex.assert_trees_all_close(jacobian, other, rtol=1e-10)
    chex.assert_trees_all_close(hessian, other_hessian, rtol=1e-9, atol=1e-12)


def test_jacobian_subtracts_the_mean_over_the_active_set():
    run = partial(soft_binary_argmax, k=2.0, temperature=1.5)
    y, jacobian = jax.jit(lambda x: (run(x), jax.jacrev(run)(x)))(SCORES)
    active = ((np.asarray(y) > 0) & (np.asarray(y) < 1)).astype(np.float32)
    assert 1 < active.sum() < active.size
    expected = (np.diag(active) - np.outer(active, active) / active.sum()) / 1.5
    np.testing.assert_allclose(jacobian, expected, atol=1e-6)


def test_forward_mode_must_be_asked_for():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda scores: soft_binary_argmax(scores, 2), (SCORES,), (SCORES,))


@each_regularizer
def test_vertex_has_zero_derivatives(regularizer):
    for gradient in pulled_back(COTANGENT, projection(regularizer), SCORES, 2.0, 1e-4)[2]:
        np.testing.assert_array_equal(gradient, 0)


class TransformTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_vmap_over_scores_or_budget(self):
        run = self.variant(jax.vmap(soft_binary_argmax, (0, None)))
        np.testing.assert_allclose(run(GROUPS[0], 2.5), soft_binary_argmax(GROUPS[0], 2.5), atol=1e-6)
        budgets = jnp.array([0.0, 1.0, 2.5, 6.0])
        run = self.variant(jax.vmap(soft_binary_argmax, (None, 0)))
        np.testing.assert_allclose(
            run(SCORES, budgets), soft_binary_argmax(jnp.broadcast_to(SCORES, (4, 6)), budgets), atol=1e-6
        )

    @chex.variants(with_jit=True, without_jit=True)
    def test_scan_and_checkpoint_keep_the_gradient(self):
        def plain(scores):
            for _ in range(3):
                scores = scores + soft_binary_argmax(scores, 2.5)
            return jnp.sum(scores * COTANGENT)

        def scanned(scores):
            @jax.checkpoint
            def step(scores, _):
                return scores + soft_binary_argmax(scores, 2.5), None

            return jnp.sum(jax.lax.scan(step, scores, length=3)[0] * COTANGENT)

        np.testing.assert_allclose(self.variant(jax.grad(scanned))(SCORES), jax.jit(jax.grad(plain))(SCORES), rtol=1e-6)


# Groups with nothing to choose, or not a number


@each_regularizer
@pytest.mark.parametrize("argument", ["scores", "k", "temperature"])
def test_nan_poisons_its_own_group_alone(regularizer, argument):
    arguments = {"scores": GROUPS[0], "k": np.full(3, 2.5, np.float32), "temperature": np.ones(3, np.float32)}
    poisoned = {**arguments, argument: arguments[argument].copy()}
    poisoned[argument][(1, 2) if argument == "scores" else 1] = np.nan

    results = [pulled_back(COTANGENT, projection(regularizer), *each.values()) for each in (poisoned, arguments)]
    actual, expected = ((y, *gradients) for _, y, gradients in results)
    assert np.all(np.isnan(actual[0][1]))
    others = np.array([True, False, True])
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a[others], b[others])


@each_regularizer
def test_infinite_scores_are_settled_and_have_finite_derivatives(regularizer):
    scores = SCORES.copy()
    scores[1:3] = np.inf, -np.inf
    finite = np.isfinite(scores)
    run = projection(regularizer)
    _, y, gradient = pulled_back(COTANGENT, run, scores, 2.5, 1.0)
    _, y_of_finite, rest = pulled_back(COTANGENT[finite], run, SCORES[finite], 1.5, 1.0)
    assert (y[1], y[2]) == (1, 0)
    np.testing.assert_allclose(y[finite], y_of_finite, atol=1e-6)
    np.testing.assert_array_equal(gradient[0][~finite], 0)
    chex.assert_trees_all_close((gradient[0][finite], *gradient[1:]), rest, atol=1e-6)


@each_regularizer
def test_empty_group_gives_zeros(regularizer):
    masked = partial(projection(regularizer), where=np.zeros(6, bool))
    weightless = weighted_projection(regularizer)
    for function, weights in ((masked, []), (weightless, [np.zeros(6, np.float32)])):
        _, y, (gradient, *_) = pulled_back(COTANGENT, function, SCORES, 0.0, 1.0, *weights)
        np.testing.assert_array_equal(y, 0)
        np.testing.assert_array_equal(gradient, 0)


@each_regularizer
def test_budget_of_none_and_of_all(regularizer):
    run = projection(regularizer)
    for k in (0.0, 6.0):
        value, _, gradients = pulled_back(np.ones(6, np.float32), run, SCORES, k, 1.0)
        assert value == k
        chex.assert_tree_all_finite(gradients)


@pytest.mark.parametrize(("k", "temperature"), [(-0.1, 1.0), (6.1, 1.0), (2.0, 0.0), (2.0, -1.0), (2.0, np.inf)])
def test_traced_numbers_out_of_range_give_nan(k, temperature):
    assert np.all(np.isnan(project(SCORES, k, temperature)))


def test_traced_weights_below_zero_give_nan_unless_masked():
    negative = WEIGHTS.copy()
    negative[1] = -1
    run = jax.jit(lambda weights, where: soft_binary_argmax(SCORES, 2, weights=weights, where=where))
    assert np.all(np.isnan(np.asarray(run(negative, np.ones(6, bool)))[WEIGHTS > 0]))
    where = np.arange(6) != 1
    np.testing.assert_array_equal(run(negative, where), run(WEIGHTS, where))
    logits, labels = np.stack([SCORES, -SCORES], -1), np.arange(6) % 2
    assert np.isnan(jax.jit(lambda weights: softbin.loss(logits, labels, weights=weights))(negative))


def test_all_are_chosen_where_a_mask_leaves_fewer_than_the_budget():
    where = np.arange(6) < 2
    halves = {"weights": np.full(6, 0.5, np.float32)}
    first = jax.jit(jax.value_and_grad(lambda x, k: soft_binary_argmax(x, k, where=where)[0]))
    np.testing.assert_array_equal(soft_binary_argmax(SCORES, 1.5, where=where, **halves), where)
    for k in (2.0, 2.5, 6.0):
        y, gradient = first(SCORES, k)
        assert y == 1
        assert not np.any(gradient)
    assert np.isnan(first(SCORES, 6.5)[0])


# The threshold


@each_regularizer
def test_threshold_gives_the_selection(regularizer):
    @jax.jit
    def run(scores):
        threshold = softbin.threshold(scores, 2.5, 0.7, regularizer=regularizer)
        y = soft_binary_argmax(scores, 2.5, 0.7, regularizer=regularizer)
        return threshold, regularizer.link(scores / 0.7 - threshold[..., None]), y

    threshold, by_threshold, y = run(GROUPS)
    assert threshold.shape == (2, 3)
    np.testing.assert_allclose(by_threshold, y, atol=1e-6)


@each_regularizer
def test_threshold_at_a_vertex_has_the_widest_margin(regularizer):
    scores, temperature = np.float32([3.0, 2.0, 0.0, -1.0]), np.float32(1e-3)
    u = scores / temperature - np.asarray(softbin.threshold(scores, 2, temperature, regularizer=regularizer))
    half = float(regularizer.inverse_link(*jnp.float32([0.5, 0.5])))
    np.testing.assert_allclose(u[1] - half, half - u[2], rtol=1e-6)


@pytest.mark.parametrize(("k", "expected"), [(0, 3.0 / 0.5), (6, 0.0 / 0.5 - 1)])
def test_threshold_of_none_and_of_all_is_the_nearest_end(k, expected):
    np.testing.assert_allclose(softbin.threshold(SCORES, k, 0.5), expected, rtol=1e-6)


@pytest.mark.parametrize(("k", "expected"), [(0, np.inf), (6, -np.inf)])
def test_threshold_of_a_link_without_ends_is_infinite(k, expected):
    assert softbin.threshold(SCORES, k, regularizer=softbin.binary_entropy) == expected


@each_regularizer
def test_threshold_derivatives_match_finite_differences(regularizer, x64):
    def run(scores, k, temperature, weights):
        return softbin.threshold(scores, k, temperature, weights=weights, regularizer=regularizer)

    check_derivatives(run, ARGUMENTS)


def test_threshold_at_a_vertex_does_not_move():
    np.testing.assert_array_equal(jax.grad(softbin.threshold)(SCORES, 2.0, 1e-3), 0)


# Axes that are split

SPLIT = RNG.standard_normal((3, 8)).astype(np.float32)
SPLIT_ARGUMENTS = (
    SPLIT,
    np.array([2.0, 3.5, 4.0], np.float32),
    np.array([0.5, 1.0, 2.0], np.float32),
    RNG.uniform(0.5, 2, (3, 8)).astype(np.float32),
)


def _over_vmap(run):
    def in_shards(scores, k, temperature, weights):
        scores, weights = (x.reshape(3, 2, 4) for x in (scores, weights))
        return jax.vmap(run, (1, None, None, 1), 1, axis_name="parts")(scores, k, temperature, weights).reshape(3, 8)

    return in_shards


def _over_devices(run):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("parts",))
    by_entry, replicated = PartitionSpec(None, "parts"), PartitionSpec()
    return jax.shard_map(run, mesh=mesh, in_specs=(by_entry, replicated, replicated, by_entry), out_specs=by_entry)


@pytest.mark.parametrize(("name", "over"), [("euclidean", _over_vmap), ("binary_entropy", _over_devices)])
def test_split_axis_equals_the_whole(name, over):
    regularizer = REGULARIZERS[name]

    def run(scores, k, temperature, weights, axis_name=None):
        return soft_binary_argmax(scores, k, temperature, weights=weights, regularizer=regularizer, axis_name=axis_name)

    cotangent = RNG.standard_normal((3, 8)).astype(np.float32)
    functions = over(partial(run, axis_name="parts")), run
    (_, *actual), (_, *expected) = (pulled_back(cotangent, function, *SPLIT_ARGUMENTS) for function in functions)
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-6)
    chex.assert_trees_all_close(actual[1], expected[1], rtol=1e-5, atol=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (ValueError, r"k must be in \[0, n\], got -1", {"k": -1}),
        (ValueError, r"k must be in \[0, n\], got nan", {"k": np.nan}),
        (ValueError, r"k must be at most n = 6, the length of the axis, got 7", {"k": 7}),
        (ValueError, r"k with shape \(2,\) does not broadcast to \(\)", {"k": np.ones(2)}),
        (TypeError, r"k must be real, got bool", {"k": True}),
        (ValueError, r"temperature must be positive and finite, got 0", {"temperature": 0.0}),
        (ValueError, r"temperature must be positive and finite, got -1", {"temperature": -1.0}),
        (ValueError, r"temperature must be positive and finite, got inf", {"temperature": np.inf}),
        (ValueError, r"temperature with shape \(2,\) does not broadcast", {"temperature": np.ones(2)}),
        (ValueError, r"where with shape \(3,\) does not broadcast to scores with shape", {"where": np.ones(3, bool)}),
        (TypeError, r"where must be boolean, got float32", {"where": np.ones(6, np.float32)}),
        (
            ValueError,
            r"weights must not be negative, got -2.0 as the smallest",
            {"weights": np.array([1, -2, 1, 1, 1, 1.0])},
        ),
        (ValueError, r"weights with shape \(3,\) does not broadcast to scores with shape", {"weights": np.ones(3)}),
        (TypeError, r"scores must be floating point, got int32: convert them", {"scores": np.arange(6)}),
        (ValueError, r"scores must have an axis to choose along, got a scalar", {"scores": np.float32(1)}),
        (ValueError, r"axis 1 is not an axis of scores with shape \(6,\)", {"axis": 1}),
        (ValueError, r"scores with shape \(0,\) are empty along axis 0", {"scores": np.zeros(0, np.float32)}),
    ],
)
def test_bad_input_is_named(error, message, changes, no_shape_checks):
    arguments = {"scores": SCORES, "k": 2, "temperature": 1.0, **changes}
    for function in (soft_binary_argmax, softbin.threshold):
        with pytest.raises(error, match=message):
            function(**arguments)


# Straight through


def test_straight_through_chooses_as_the_hard_choice_and_changes_as_the_soft_one():
    scores = np.round(GROUPS, 1)
    share = budgets.fraction(0.5)
    soft = partial(soft_binary_argmax, where=scores > -1.5)
    through = partial(soft, straight_through=True)
    of_share = [lambda x, temperature, run=run: run(x, share, temperature) for run in (through, soft)]
    for functions, whole, k in (
        ((through, soft), 2, [np.float32(2)]),
        ((through, soft), 2, [np.float32(1.7)]),
        (of_share, share, []),
    ):
        (value, y, gradients), (*_, expected) = (pulled_back(COTANGENT, f, scores, *k, 0.7) for f in functions)
        hard = softbin.binary_argmax(scores, whole, where=scores > -1.5)
        np.testing.assert_array_equal(y, hard)
        np.testing.assert_allclose(value, np.sum(hard * COTANGENT), rtol=1e-6)
        chex.assert_trees_all_close(gradients, expected, atol=1e-6)
    np.testing.assert_array_equal(through(scores, 2.0, 0.7), softbin.binary_argmax(scores, 2, where=scores > -1.5))


def test_project_hypersimplex_has_both_modes():
    run = partial(softbin.project_hypersimplex, k=2.3)
    forward, reverse = jax.jit(lambda x: [mode(run)(x) for mode in (jax.jacfwd, jax.jacrev)])(SCORES / 4)
    np.testing.assert_allclose(forward, reverse, atol=1e-6)
    assert np.abs(forward).max() > 0.4


def test_straight_through_has_forward_mode_and_whole_entries():
    through = partial(soft_binary_argmax, k=2, temperature=2.0, straight_through=True)

    @jax.jit
    def changes(scores, tangent):
        soft = partial(soft_binary_argmax, k=2, temperature=2.0)
        return [jax.jvp(partial(f, forward_mode=True), (scores,), (tangent,)) for f in (through, soft)]

    (y, change), (_, expected) = changes(SCORES, np.arange(6, dtype=np.float32))
    np.testing.assert_array_equal(y, softbin.binary_argmax(SCORES, 2))
    np.testing.assert_allclose(change, expected, atol=1e-6)
    with pytest.raises(ValueError, match="whole entries: leave out weights"):
        through(SCORES, weights=WEIGHTS)


def test_straight_through_shows_what_is_out_of_range():
    through = jax.jit(partial(soft_binary_argmax, straight_through=True))
    for k, temperature in ((6.4, 2.0), (-0.4, 2.0), (2.0, -1.0), (2.0, np.nan)):
        assert np.all(np.isnan(through(SCORES, k, temperature)))
