"""The Optax projections against brute force, their optimality conditions and finite differences."""

import re
from functools import partial

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq

import softbin
from softbin.adapters.optax import (
    keep_params_in_hypersimplex,
    keep_top_k,
    projection_box_section,
    projection_hypersimplex,
)
from tests.compiling import AS_USERS_DO
from tests.derivatives import check_derivatives

INF = np.inf
FIRST = np.arange(20) < 7
TREE = {"a": np.float32([[0.9, -0.3], [0.2, 0.4]]), "b": (np.array(2.0, np.float32), np.array([0.1], jnp.bfloat16))}


def exact_box_section(x, lower, upper, weights, total):
    """By bisection of `<w, clip(x - w s, l, u)> = total` in float64."""
    x, lower, upper, weights = np.broadcast_arrays(*(np.asarray(v, float) for v in (x, lower, upper, weights)))

    def point(s):
        return np.clip(x - weights * s, lower, upper)

    def excess(s):
        return np.sum(weights * point(s)) - total

    reach = 1.0
    while excess(-reach) < -1e-9 or excess(reach) > 1e-9:
        reach *= 2
        assert reach < 1e15
    ends = excess(-reach), excess(reach)
    return point(-reach if ends[0] <= 0 else reach if ends[1] >= 0 else brentq(excess, -reach, reach, xtol=1e-14))


def entries(tree):
    return np.concatenate([np.ravel(np.asarray(leaf, np.float32)) for leaf in jax.tree.leaves(tree)])


class TestProjectionHypersimplex:
    def test_is_the_projection_of_all_leaves_together(self):
        projected = projection_hypersimplex(TREE, 2.5)
        chex.assert_trees_all_equal_shapes_and_dtypes(projected, TREE)
        expected = softbin.project_hypersimplex(entries(TREE), 2.5)
        np.testing.assert_allclose(entries(projected), expected, atol=4e-3)

    def test_k_may_be_a_share_of_all_entries(self):
        chex.assert_trees_all_equal(
            projection_hypersimplex(TREE, softbin.budgets.fraction(0.5)), projection_hypersimplex(TREE, 3)
        )

    def test_projection_of_a_point_inside_is_the_point(self):
        point = jnp.array([0.25, 0.5, 0.75, 0.5])
        np.testing.assert_allclose(projection_hypersimplex(point, 2.0), point, atol=1e-7)

    def test_gradients_in_both_modes(self):
        x, k = np.float32([0.3, -0.9, 1.4, 0.1, 0.6]), 2.0
        point = np.asarray(projection_hypersimplex(x, k))
        free = (point > 0) & (point < 1)
        expected = np.diag(free.astype(float)) - np.outer(free, free) / free.sum()
        modes = [jacobian(projection_hypersimplex, argnums=(0, 1)) for jacobian in (jax.jacfwd, jax.jacrev)]
        for by_x, by_k in jax.jit(lambda x, k: [mode(x, k) for mode in modes])(x, k):
            np.testing.assert_allclose(by_x, expected, atol=1e-6)
            np.testing.assert_allclose(by_k, free / free.sum(), atol=1e-6)

    def test_leaves_that_are_not_floating_point_are_left_alone(self):
        tree = {
            "a": jnp.array([0.9, -0.3, 0.2]),
            "n": 2,
            "flag": jnp.array([True]),
            "key": jax.random.key(0),
            "no": None,
        }
        projected = projection_hypersimplex(tree, 1.5)
        np.testing.assert_array_equal(projected["a"], softbin.project_hypersimplex(tree["a"], 1.5))
        assert {name: projected[name] is tree[name] for name in tree if name != "a"} == dict.fromkeys(
            ("n", "flag", "key", "no"), True
        )

    def test_narrow_and_wide_leaves_keep_their_dtypes(self, x64):
        tree = {
            kind: np.array([0.9, 0.1], jnp.dtype(kind)) for kind in ("float16", "float32", "float64", "float8_e5m2")
        }
        with jax.numpy_dtype_promotion("strict"):
            projected = projection_hypersimplex(tree, 3)
        chex.assert_trees_all_equal_dtypes(projected, tree)
        expected = softbin.project_hypersimplex(np.concatenate([np.asarray(x, float) for x in tree.values()]), 3)
        np.testing.assert_allclose(projected["float64"], expected[4:6], atol=1e-15)

    def test_more_entries_than_floats_count(self):
        """A known budget keeps its digits, though a jitted function works it out."""
        n = 2**24 + 2**16
        projected = projection_hypersimplex([jnp.ones(n - 8), np.zeros(8, np.float32)], n - 3)
        np.testing.assert_allclose(projected[1], 5 / 8, atol=1e-6)

    def test_bad_input_is_named(self, no_shape_checks):
        with pytest.raises(ValueError, match=r"at most n = 6, the number of entries of tree, got 7"):
            projection_hypersimplex(TREE, 7)
        for tree, kinds in (
            (jnp.arange(3), "int32"),
            ({"a": 2, "b": jnp.array([True])}, "bool, int32"),
            ({}, "none"),
        ):
            with pytest.raises(
                TypeError, match=f"tree must have a floating point array to project, got {kinds}: convert"
            ):
                projection_hypersimplex(tree, 1)
        with pytest.raises(TypeError, match=r"tree\['a'\] must be an array or a number, got 'float32'"):
            projection_hypersimplex({"a": "float32"}, 1)
        with pytest.raises(ValueError, match="tree has no entries to project"):
            projection_hypersimplex(np.zeros((0, 3), np.float32), 0)
        for k in (np.ones(2, np.float32), softbin.budgets.prior([0.5, 0.5])):
            with pytest.raises(ValueError, match="k must be one number, or one share"):
                projection_hypersimplex(TREE, k)
        for k in ("label_count", None):
            with pytest.raises(TypeError, match=rf"k must be an array or a number, got {re.escape(repr(k))}"):
                projection_hypersimplex(TREE, k)


class TestProjectionBoxSection:
    @pytest.mark.parametrize(
        ("lower", "upper", "weights", "total"),
        [
            (0, 1, 1, 3.5),
            (-1, 2, np.linspace(0.1, 3, 20), 10),
            (-np.arange(20.0), np.arange(20.0) + 1, 1, -7),
            (0, INF, 1, 1),
            (-INF, 0, np.linspace(0.5, 2, 20), -3),
            (-1, 1, np.linspace(-2, 2, 20), 5),
            (-1, 1, np.arange(20.0) - 10, 0),
            (np.where(FIRST, 0, -INF), np.where(FIRST, INF, 0), np.where(FIRST, 1, -1), 4),
            (np.where(FIRST, -INF, 0), np.where(FIRST, INF, 1), np.where(FIRST, 0, 1), 6),
            (np.where(FIRST, 0.3, 0), np.where(FIRST, 0.3, 1), 1, 6),
            (0, 1, 1, 0),
            (0, 1, 1, 20),
        ],
    )
    def test_agrees_with_bisection(self, lower, upper, weights, total):
        x = 2 * np.random.default_rng(0).standard_normal(20).astype(np.float32)
        expected = exact_box_section(x, lower, upper, weights, total)
        arguments = [np.broadcast_to(v, 20).astype(np.float32) for v in (lower, upper, weights)]  # one program for all
        np.testing.assert_allclose(projection_box_section(x, lower, upper, weights, total), expected, atol=3e-6)
        actual = jax.jit(projection_box_section)(x, *arguments, np.float32(total))
        np.testing.assert_allclose(actual, expected, atol=3e-6)

    @settings(max_examples=50)
    @given(data=st.data())
    def test_meets_its_constraints_and_the_exact_point(self, data):
        size = data.draw(st.sampled_from([1, 2, 30]))  # each is compiled once

        def draw(low, high):
            numbers = st.floats(low, high, width=32, allow_subnormal=False)
            return data.draw(hnp.arrays(np.float32, size, elements=numbers))

        x, lower, width, weights = (draw(*ends).astype(float) for ends in ((-8, 8), (-4, 4), (0, 4), (-2, 2)))
        weights = np.where(np.abs(weights) < 0.01, 0, weights)
        upper = lower + width
        ends = np.sort(np.stack([weights * lower, weights * upper]), 0).sum(1)
        total = float(ends[0] + data.draw(st.floats(0, 1)) * (ends[1] - ends[0]))
        point = np.asarray(projection_box_section(x.astype(np.float32), lower, upper, weights, total), float)
        assert np.all((point >= lower - 1e-5) & (point <= upper + 1e-5))
        np.testing.assert_allclose(np.sum(weights * point), total, atol=1e-4)
        # A rounding of the sum in its last digit may all fall to the entry of the least weight.
        rounding = np.spacing(np.float32(np.abs(ends).max())) / np.abs(weights).min(initial=1, where=weights != 0)
        expected = exact_box_section(x, lower, upper, weights, total)
        np.testing.assert_allclose(point, expected, atol=max(2e-4, 2 * rounding))

    def test_a_box_of_one_point_whose_terms_cancel_is_met(self):
        lower, weights = np.float32([0.7268104, 0.7268104]), np.float32([-0.7268104, 0.75])
        total = float(np.sum(lower.astype(float) * weights))
        point = projection_box_section(
            np.zeros(2, np.float32), lower.astype(float), lower.astype(float), weights, total
        )
        np.testing.assert_allclose(point, lower, rtol=1e-6)

    def test_contains_the_hypersimplex_and_the_simplex(self):
        x = np.random.default_rng(1).standard_normal(50).astype(np.float32)

        @jax.jit
        def both(x):
            section = projection_box_section
            expected = softbin.project_hypersimplex(x, 7.3), optax.projections.projection_simplex(x)
            return (section(x, 0, 1, 1, 7.3), section(x, 0, INF, 1, 1)), expected

        for actual, expected in zip(*both(x), strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-6)

    def test_trees_keep_structure_and_dtypes(self):
        bounds = jax.tree.map(lambda leaf: np.full_like(leaf, 0.5), TREE)
        projected = projection_box_section(TREE, -1, bounds, bounds, 0.25)
        chex.assert_trees_all_equal_shapes_and_dtypes(projected, TREE)
        np.testing.assert_allclose(entries(projected).sum(), 0.5, atol=1e-2)

    def test_gradients_by_every_argument(self, x64):
        arguments = (
            [0.3, -0.9, 1.4, 0.1, 0.6],
            [-0.5, -0.4, 0.0, -1.0, -0.3],
            [0.9, 1.0, 0.7, 0.8, 0.65],
            [1.0, 0.7, 1.3, -0.8, 0.0],
            0.6,
        )
        check_derivatives(projection_box_section, arguments, modes=("rev", "fwd"))

    def test_gradients_at_the_simplex_are_those_of_optax(self):
        x = np.random.default_rng(2).standard_normal(9).astype(np.float32)
        of_section = jax.jacrev(lambda x: projection_box_section(x, 0, INF, 1, 1))
        of_simplex = jax.jacfwd(optax.projections.projection_simplex)
        actual, expected = jax.jit(lambda x: (of_section(x), of_simplex(x)))(x)
        np.testing.assert_allclose(actual, expected, atol=1e-6)

    def test_gradients_are_finite_beside_unbounded_and_unweighted_entries(self):
        gradient = jax.grad(lambda *args: jnp.sum(projection_box_section(*args) ** 2), argnums=(0, 1, 2, 3, 4))
        x, lower, upper, weights = np.float32([[0.3, -0.9, 1.4], [0, -INF, 0], [INF, 0, INF], [1, 0, 2]])
        chex.assert_tree_all_finite(jax.jit(gradient)(x, lower, upper, weights, 1.5))

    def test_vmap(self):
        x = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)
        totals = np.float32([0.5, 1, 2, 3])
        mapped = jax.jit(jax.vmap(lambda x, total: projection_box_section(x, 0, 1, 1, total)))(x, totals)
        looped = np.stack([projection_box_section(a, 0, 1, 1, t) for a, t in zip(x, totals, strict=True)])
        np.testing.assert_allclose(mapped, looped, atol=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 1, 1, 4), r"total must be in \[0.0, 3.0\], .* got 4"),
            ((0, 1, -1, 1), r"\[-3.0, 0.0\]"),
            ((1, 0, 1, 1), "lower must be at most upper, got lower 1"),
            ((np.nan, 1, 1, 1), r"lower and upper must be numbers, got lower nan, .* for tree\[0\]"),
            ((0, jnp.array([1, np.nan, 1]), 1, 1), r"lower and upper must be numbers, .* upper nan .* for tree\[1\]"),
            ((0, 1, np.inf, 1), "weights must be finite"),
            ((-INF, INF, 1, 1), "unbounded both ways"),
            ((np.zeros(4), 1, 1, 1), r"lower with shape \(4,\) does not broadcast to \(3,\), the shape of tree"),
            ((0, np.ones((2, 3)), 1, 1), r"upper with shape \(2, 3\) does not broadcast to \(3,\), the shape of tree"),
            (({"a": 0}, 1, 1, 1), "lower must be a scalar or have the structure of the tree"),
            ((0, None, 1, 1), "upper must be a scalar or have the structure of the tree, .* got None"),
            ((0, 1, [1, 1, 1], 1), "weights must be a scalar or have the structure of the tree"),
            ((0, 1, 1, np.nan), "total must be finite, got nan"),
            ((0, 1, 1, INF), "total must be finite, got inf"),
            ((0, 1, 1, np.ones(2, np.float32)), r"total must be one number, got an array of shape \(2,\)"),
        ],
    )
    def test_bad_input_is_named(self, arguments, message, no_shape_checks):
        with pytest.raises(ValueError, match=message):
            projection_box_section(np.zeros(3, np.float32), *arguments)

    @pytest.mark.parametrize(
        ("tree", "arguments", "message"),
        [
            (np.zeros(3, np.float32), ("low", 1, 1, 1), "lower must be an array or a number, got 'low'"),
            (np.zeros(3, np.float32), (0, 1, 1j, 1), "weights must be real, got complex64"),
            (np.zeros(3, np.float32), (0, 1, np.ones(3, bool), 1), "weights must be real, got bool"),
            (np.zeros(3, np.float32), (0, 1, 1, None), "total must be an array or a number, got None"),
            (np.zeros(3, np.float32), (0, 1, 1, "one"), "total must be an array or a number, got 'one'"),
            (
                {"a": np.zeros(3, np.float32)},
                ({"a": "low"}, 1, 1, 1),
                r"lower\['a'\] must be an array or a number, got 'low'",
            ),
            (jnp.arange(3), (0, 1, 1, 1), "tree must have a floating point array to project, got int32"),
            (None, (0, 1, 1, 1), "tree must have a floating point array to project, got none"),
        ],
    )
    def test_wrong_types_are_named(self, tree, arguments, message, no_shape_checks):
        with pytest.raises(TypeError, match=message):
            projection_box_section(tree, *arguments)

    def test_leaves_that_are_not_floating_point_are_left_alone(self):
        tree, counter = {"a": jnp.array([0.9, -0.3, 0.2]), "n": jnp.array(7)}, {"n": jnp.array(100)}
        bounds = {"a": jnp.array([0.5, 1.0, 1.0]), **counter}
        projected = projection_box_section(tree, 0, bounds, bounds, 0.8)
        np.testing.assert_array_equal(
            projected["a"], projection_box_section(tree["a"], 0, bounds["a"], bounds["a"], 0.8)
        )
        assert projected["n"] is tree["n"]

    @pytest.mark.parametrize("arguments", [(0, 1, 1, 4), (1, 0, 1, 1), (-INF, INF, 1, 1), (0, 1, 1, np.nan)])
    def test_what_only_run_time_knows_gives_nan(self, arguments):
        arguments = [jnp.asarray(value, jnp.float32) for value in arguments]
        assert np.all(np.isnan(jax.jit(projection_box_section)(np.zeros(3, np.float32), *arguments)))


class TestKeepParamsInHypersimplex:
    @pytest.mark.parametrize("base", [optax.sgd(0.5), optax.adam(0.3)], ids=["sgd", "adam"])
    def test_descends_to_the_best_vertex(self, base):
        cost = jnp.array([3.0, -1.0, 2.0, -2.0, 0.5])
        optimizer = optax.chain(base, keep_params_in_hypersimplex(2))

        @jax.jit
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(lambda p: p @ cost)(params), state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        params = np.full(5, 0.4, np.float32)
        _, path = jax.lax.scan(step, (params, optimizer.init(params)), length=50)
        path = np.asarray(path)
        assert np.all((path >= 0) & (path <= 1))
        np.testing.assert_allclose(path.sum(1), 2, atol=1e-5)
        np.testing.assert_array_equal(path[-1], [0, 1, 0, 1, 0])

    def test_what_is_not_floating_point_or_has_no_update_is_left_alone(self):
        params = {
            "a": jnp.array([0.9, -0.3, 0.2]),
            "n": jnp.array(7),
            "frozen": np.ones(2, np.float32),
            "masked": np.ones(3, np.float32),
        }
        updates = {"a": np.full(3, 0.1, np.float32), "n": jnp.array(1), "frozen": None, "masked": optax.MaskedNode()}
        optimizer = keep_params_in_hypersimplex(1.5)
        changes, _ = optimizer.update(updates, optimizer.init(params), params)
        expected = softbin.project_hypersimplex(params["a"] + 0.1, 1.5) - params["a"]
        np.testing.assert_allclose(changes.pop("a"), expected, atol=1e-7)
        assert changes == {"n": 1, "frozen": None, "masked": optax.MaskedNode()}
        nothing = {"a": None, "n": jnp.array(1), "frozen": None, "masked": None}
        assert optimizer.update(nothing, optax.EmptyState(), params)[0] is nothing
        with pytest.raises(TypeError, match="params must have a floating point array to project, got int32"):
            optimizer.update({"n": jnp.array(1)}, optax.EmptyState(), {"n": jnp.array(7)})
        with pytest.raises(ValueError, match="updates must have the structure of params"):
            optimizer.update({"a": np.ones(3, np.float32)}, optax.EmptyState(), params)

    def test_k_may_be_injected(self):
        params, zeros = np.float32([0.9, 0.6, 0.4]), np.zeros(3, np.float32)
        for k, counts in ((2, (2, 2)), (optax.linear_schedule(1.0, 2.0, 2), (1, 1.5))):
            optimizer = optax.inject_hyperparams(keep_params_in_hypersimplex)(k=k)
            state, update = optimizer.init(params), jax.jit(optimizer.update)
            for count in counts:
                updates, state = update(zeros, state, params)
                np.testing.assert_allclose(
                    params + np.asarray(updates), softbin.project_hypersimplex(params, count), atol=1e-6
                )

    def test_masked_leaves_the_rest_alone(self):
        params = {"mask": np.full(4, 0.5, np.float32), "free": np.ones(2, np.float32)}
        optimizer = optax.masked(keep_params_in_hypersimplex(2), {"mask": True, "free": False})
        updates = jax.tree.map(lambda leaf: np.full_like(leaf, 3), params)
        updates, _ = optimizer.update(updates, optimizer.init(params), params)
        np.testing.assert_allclose(updates["mask"], np.zeros(4), atol=1e-6)
        np.testing.assert_array_equal(updates["free"], [3, 3])

    def test_needs_the_parameters(self):
        optimizer = keep_params_in_hypersimplex(1)
        with pytest.raises(ValueError, match="update\\(updates, state, params\\)"):
            optimizer.update(np.zeros(3, np.float32), optimizer.init(np.zeros(3, np.float32)))


class TestPrograms:
    """Called outside `jax.jit`, as users try things out, with new shapes and then with new values."""

    @pytest.mark.parametrize(
        "function",
        [
            lambda tree, k: projection_hypersimplex(tree, k),
            lambda tree, k: projection_box_section(tree, 0, {"a": k, "b": np.full(9, k)}, 1, k),
            lambda tree, k: keep_params_in_hypersimplex(k).update(tree, optax.EmptyState(), tree),
        ],
        ids=["hypersimplex", "box section", "keep_params"],
    )
    def test_one_program_for_all_values(self, function, caplog):
        tree = {"a": np.ones((7, 3), np.float32), "b": np.ones(9, np.float32)}
        other = {"a": np.ones((7, 3), np.float32) / 2, "b": np.arange(9, dtype=np.float32)}
        assert programs(lambda: function(tree, 2.5), caplog) == 1
        assert programs(lambda: function(other, 1.5), caplog) == 0

    def test_pruning(self, caplog):
        params = {"a": np.ones((7, 3), np.float32), "b": np.arange(9, dtype=np.float32)}
        state = keep_top_k(1).init(params)
        assert programs(lambda: keep_top_k(4).update(params, state, params), caplog) <= 5
        assert programs(lambda: keep_top_k(7).update(params, state, params), caplog) == 0


def programs(function, caplog) -> int:
    """How many programs are compiled."""
    caplog.clear()
    with jax.log_compiles():
        function()
    return sum(record.message.startswith("Finished XLA compilation") for record in caplog.records)


def test_any_schedule_is_a_temperature_of_the_loss():
    schedule = optax.cosine_decay_schedule(4.0, decay_steps=10, alpha=0.1)
    logits, labels = np.random.default_rng(0).standard_normal((12, 3), np.float32), np.arange(12) % 3
    scheduled = jax.jit(lambda step: softbin.loss(logits, labels, temperature=schedule(step)))
    for step in (0, 5, 20):
        expected = softbin.loss(logits, labels, temperature=float(schedule(step)))
        np.testing.assert_allclose(scheduled(step), expected, rtol=1e-6)
    assert scheduled._cache_size() == 1


class TestKeepTopK:
    def test_keeps_the_largest_of_the_whole_tree(self):
        rng = np.random.default_rng(0)
        params = {"a": rng.standard_normal((30, 4)), "b": [rng.standard_normal(50), rng.standard_normal(())]}
        params = jax.tree.map(lambda p: np.asarray(p, np.float32), params)
        updates = jax.tree.map(lambda p: np.asarray(0.5 * np.sin(9 * p), np.float32), params)
        moved = jax.tree.map(np.add, params, updates)
        magnitudes = np.sort(np.abs(entries(moved)))[::-1]
        optimizer = keep_top_k(lambda step: jnp.array([171, 20, 1, 0])[step])

        @jax.jit
        def step(state):
            kept, state = optimizer.update(updates, state, params)
            return optax.apply_updates(params, kept), state

        state = optimizer.init(params)
        assert entries(state.mask).all()
        for k in (171, 20, 1, 0):
            after, state = step(state)
            least = magnitudes[k - 1] if k else np.inf
            chex.assert_trees_all_equal(state.mask, jax.tree.map(lambda m, least=least: np.abs(m) >= least, moved))
            chex.assert_trees_all_close(after, jax.tree.map(np.multiply, moved, state.mask), atol=1e-7)
            assert entries(state.mask).sum() == k

    def test_k_may_be_a_share_and_equal_magnitudes_are_kept_together(self):
        params = jnp.array([2.0, -2.0, 1.0, 0.5, 0.0, 0.0], jnp.bfloat16)
        for k, expected in ((softbin.budgets.fraction(0.5), 3), (1, 2), (5, 6)):
            optimizer = keep_top_k(k)
            updates, state = optimizer.update(jnp.zeros(6, jnp.bfloat16), optimizer.init(params), params)
            assert np.sum(state.mask) == expected
            assert updates.dtype == params.dtype

    def test_an_array_is_rounded_and_a_share_takes_at_least_one(self):
        params, zeros = np.arange(1, 11, dtype=np.float32), np.zeros(10, np.float32)
        schedule = optax.linear_schedule(7.0, 1.0, 4)  # 7, 5.5, 4, 2.5, 1
        optimizer = keep_top_k(schedule)
        for update in (optimizer.update, jax.jit(optimizer.update)):
            state = optimizer.init(params)
            for expected in (7, 6, 4, 2, 1):
                _, state = update(zeros, state, params)
                assert np.sum(state.mask) == expected

        share = jax.jit(lambda share: keep_top_k(softbin.budgets.fraction(share)).update(zeros, state, params)[1].mask)
        for value, expected in ((0.0, 0), (0.01, 1), (0.25, 2), (0.35, 4), (0.96, 10), (1.0, 10)):
            fixed = keep_top_k(softbin.budgets.fraction(value))
            assert np.sum(fixed.update(zeros, state, params)[1].mask) == expected
            assert np.sum(share(value)) == expected

        traced = jax.jit(lambda k: keep_top_k(k).update(zeros, state, params))
        for k, expected in ((-3, 0), (0, 0), (4, 4), (11, 10), (np.int32(2**31 - 1), 10)):
            assert np.sum(traced(k)[1].mask) == expected
        for k, expected in ((-0.6, 0), (0.5, 0), (1.5, 2), (2.5, 2), (1e30, 10)):
            assert np.sum(traced(k)[1].mask) == expected
        assert np.all(np.isnan(traced(np.nan)[0]))
        for k in (3.0, np.float32(3), np.int8(3), jnp.bfloat16(3), np.uint32(3)):
            assert np.sum(keep_top_k(k).update(zeros, state, params)[1].mask) == 3

    def test_hyperparameters_may_be_injected(self):
        params, zeros = np.arange(1, 11, dtype=np.float32), np.zeros(10, np.float32)
        fall = optax.linear_schedule(8.0, 2.0, 4)  # 8, 6.5

        def share(step):
            return softbin.budgets.fraction(0.8 - 0.14 * step)

        for k, counts in ((4, (4, 4)), (fall, (8, 6)), (share, (8, 7))):
            optimizer = optax.inject_hyperparams(keep_top_k)(k=k)
            for update in (optimizer.update, jax.jit(optimizer.update)):
                state = optimizer.init(params)
                for expected in counts:
                    _, state = update(zeros, state, params)
                    assert np.sum(state.inner_state.mask) == expected
        with pytest.raises(ValueError, match=r"looks like a share of them: pass softbin.budgets.fraction\(0.4"):
            optax.inject_hyperparams(keep_top_k)(k=0.4).init(params)

    def test_what_has_no_update_is_left_alone(self):
        params = {
            "a": jnp.array([3.0, 1.0, 2.0]),
            "frozen": np.ones(2, np.float32),
            "masked": np.ones(3, np.float32),
            "none": None,
        }
        updates = {"a": np.zeros(3, np.float32), "frozen": None, "masked": optax.MaskedNode(), "none": None}
        optimizer = keep_top_k(softbin.budgets.fraction(0.4))
        for update in (optimizer.update, jax.jit(optimizer.update)):
            kept, state = update(updates, optimizer.init(params), params)
            np.testing.assert_array_equal(kept.pop("a"), [0, -1, -2])
            assert kept == {"frozen": None, "masked": optax.MaskedNode(), "none": None}
            assert jax.tree.structure(state.mask) == jax.tree.structure(params)
            assert state.mask["frozen"].all()
            assert state.mask["masked"].all()

    def test_groups_of_parameters_have_their_own(self):
        """In which the other transformations see no updates of theirs."""
        params = {"a": jnp.array([3.0, 1.0, 2.0]), "b": jnp.array([0.9, 0.6])}
        transforms = {"prune": keep_top_k(1), "project": keep_params_in_hypersimplex(1)}
        optimizer = optax.multi_transform(transforms, {"a": "prune", "b": "project"})
        updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)
        after = optax.apply_updates(params, updates)
        np.testing.assert_allclose(after["a"], [3, 0, 0], atol=1e-6)
        np.testing.assert_allclose(after["b"], [0.65, 0.35], atol=1e-6)

    def test_the_mask_is_of_what_was_counted(self):
        """However often the compiler works out the parameters and what they become, and rounds them."""
        optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), keep_top_k(lambda step: 20 + step))

        @partial(jax.jit, compiler_options=AS_USERS_DO)
        def step(params, gradient, state, rate):
            moved = 1.7 * params + 0.3 * gradient
            updates, state = optimizer.update(rate * gradient + 0.2, state, moved)
            return state[-1].mask, optax.apply_updates(moved, updates)

        start = optimizer.init(np.zeros(64, np.float32))
        for turn, (params, gradient) in enumerate(np.random.default_rng(0).standard_normal((40, 2, 64), np.float32)):
            state = *start[:-1], start[-1]._replace(step=np.int32(turn))
            mask, after = step(params, gradient, state, 1.1)
            assert np.sum(mask) == 20 + turn
            np.testing.assert_array_equal(np.asarray(after) != 0, mask)

    def test_a_parameter_comes_back(self):
        optimizer = optax.chain(optax.sgd(1.0), keep_top_k(1))
        params = jnp.array([1.0, 0.5])
        state = optimizer.init(params)
        for gradient, expected in (([0.0, 0.0], [1.0, 0.0]), ([0.5, -0.75], [0.0, 0.75])):
            updates, state = optimizer.update(jnp.array(gradient), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_array_equal(params, expected)

    def test_bad_input_is_named(self, no_shape_checks):
        params = np.ones(3, np.float32)
        with pytest.raises(ValueError, match=r"call update\(updates, state, params\)"):
            keep_top_k(1).update(params, keep_top_k(1).init(params))
        with pytest.raises(ValueError, match="n = 3 parameters, got 4"):
            keep_top_k(4).update(params, keep_top_k(4).init(params), params)
        for k in (None, "half", True, 1j, np.ones(2, np.float32), softbin.budgets.prior([0.5, 0.5])):
            with pytest.raises(TypeError, match="a whole number of parameters, or a share of them"):
                keep_top_k(k)
        for k in (2.5, np.float32(1.01), np.nan):
            with pytest.raises(ValueError, match=f"k must be whole, got {k}"):
                keep_top_k(k)
        share = r"0.5 looks like a share of them: pass softbin.budgets.fraction\(0.5\)"
        for k in (0.5, np.float32(0.5), jnp.array(0.5)):
            with pytest.raises(ValueError, match=share):
                keep_top_k(k)
        scheduled = keep_top_k(optax.linear_schedule(1.0, 0.0, 2))
        state = scheduled.update(params, scheduled.init(params), params)[1]
        with pytest.raises(ValueError, match=share):
            scheduled.update(params, state, params)
        scheduled = keep_top_k(lambda step: "half")
        with pytest.raises(TypeError, match="or a schedule of either, got 'half'"):
            scheduled.update(params, scheduled.init(params), params)
        with pytest.raises(ValueError, match="updates must have the structure of params"):
            keep_top_k(1).update({"a": params}, keep_top_k(1).init(params), params)
        with pytest.raises(TypeError, match=r"updates\['a'\] must be an array or a number, got 'none'"):
            keep_top_k(1).update({"a": "none"}, keep_top_k(1).init(params), {"a": params})

    def test_double_precision_and_other_leaves(self, x64):
        params = {"a": np.array([1, 1 + 1e-9, 1 + 2e-9]), "b": np.float32([1, 3]), "steps": np.array([7, 8])}
        zeros = jax.tree.map(np.zeros_like, params)
        optimizer = keep_top_k(2)
        with jax.numpy_dtype_promotion("strict"):
            updates, state = optimizer.update(zeros, optimizer.init(params), params)
        chex.assert_trees_all_equal(
            jax.tree.map(lambda mask: mask.tolist(), state.mask),
            {"a": [False, False, True], "b": [False, True], "steps": [True, True]},
        )
        chex.assert_trees_all_equal_dtypes(updates, params)
