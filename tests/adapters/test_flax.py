"""Both Flax adapters: the layer is the operator, and running thresholds lead to the decisions of whole-set ones."""

import inspect
import operator
from functools import cache, partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin.adapters import flax_linen, flax_nnx
from softbin.experiments.datasets import data
from softbin.experiments.training.mlp import mlp
from tests.compiling import AS_USERS_DO

SCORES = np.asarray(jax.random.normal(jax.random.key(0), (4, 7)))
LOGITS = np.asarray(jax.random.normal(jax.random.key(1), (64, 5))) + np.arange(5, dtype=np.float32)
LABELS = np.asarray(jax.random.randint(jax.random.key(2), (64,), 0, 5))
OPTIONS = {"budget": softbin.budgets.label_count, "temperature": 0.7}


class Layer(NamedTuple):
    """One interface to both libraries: train and evaluate take and return the state."""

    start: Any
    train: Any
    evaluate: Any


def nnx_layer(name, x, *sizes, **options) -> Layer:
    graph, start = nnx.split(getattr(flax_nnx, name)(*sizes, **options))

    def merged(state):
        return nnx.merge(graph, jax.tree.map(lambda leaf: leaf, state))

    def train(state, x, *labels, **keywords):
        module = merged(state)
        return module(x, *labels, **keywords), nnx.state(module)

    def evaluate(state, x, **keywords):
        module = merged(state)
        if hasattr(nnx, "view"):
            module = nnx.view(module, use_running_average=True)
        else:  # an older flax
            module.eval()
        result = module(x, **keywords)
        assert all(map(operator.is_, jax.tree.leaves(nnx.state(module)), jax.tree.leaves(state)))
        return result

    return Layer(start, train, evaluate)


def linen_layer(name, x, *sizes, **options) -> Layer:
    module = getattr(flax_linen, name)(*sizes, **options)
    start = module.init(jax.random.key(0), x, use_running_average=False)
    train = partial(module.apply, mutable=["batch_stats"], use_running_average=False)
    return Layer(start, train, partial(module.apply, use_running_average=True))


@pytest.fixture(params=[nnx_layer, linen_layer], ids=["nnx", "linen"])
def make_layer(request):
    return request.param


@pytest.fixture
def make_tracker(make_layer):
    def make(classes, **options):
        example = np.zeros((3, classes) if isinstance(classes, int) else 3, np.float32)
        return make_layer("DecisionThresholds", example, classes, **options)

    return make


def tracked(state):
    """What is averaged: cutoffs or thresholds, the first of a state."""
    return np.asarray(jax.tree.leaves(state)[0])


def in_bfloat16(state):
    """What casts a model, state and all, leaves."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state)


def dtypes(state):
    return {leaf.dtype for leaf in jax.tree.leaves(state)}


def batches(count):
    return LOGITS + 0.3 * np.random.default_rng(5).standard_normal((count, *LOGITS.shape), np.float32)


LIBRARIES = {"nnx": flax_nnx, "linen": flax_linen}
POSITIONAL = {
    "SoftBinaryArgmax": ((2.5, 0.6), {"axis": 0}, (SCORES,)),
    "TopK": ((2,), {"momentum": 0.5}, (LOGITS,)),
    "BalancedTopK": ((5, 2), {"gate": "sigmoid"}, (LOGITS,)),
    "DecisionThresholds": ((5,), {"temperature": 1.5}, (LOGITS, LABELS)),
}
"""What a layer is made with, in order and by name, and called with."""


@pytest.mark.parametrize("name", POSITIONAL)
class TestBothLibraries:
    def test_layers_take_the_same_arguments_in_the_same_order(self, name):
        def parameters(method, besides=("parent", "name")):  # those of every Linen module
            found = inspect.signature(method).parameters.values()
            defaults = {"use_running_average": None}  # in Linen either the layer or the call says so
            found = [each.replace(default=defaults.get(each.name, each.default)) for each in found]
            return [(each.name, each.kind, each.default) for each in found if each.name not in besides]

        of_nnx, of_linen = (getattr(library, name) for library in LIBRARIES.values())
        assert parameters(of_nnx.__init__) == parameters(of_linen.__init__)
        assert parameters(of_nnx.__call__) == parameters(of_linen.__call__)

    def test_the_same_arguments_make_the_same_layer(self, name):
        made, options, called = POSITIONAL[name]
        of_nnx, of_linen = (getattr(library, name)(*made, **options) for library in LIBRARIES.values())
        modes = [{}] if name == "SoftBinaryArgmax" else [{"use_running_average": mode} for mode in (False, True)]
        variables = of_linen.init(jax.random.key(0), *called, **modes[-1])
        for mode in modes:
            expected = of_nnx(*called, **mode)
            actual, updated = of_linen.apply(variables, *called, **mode, mutable=["batch_stats"])
            np.testing.assert_array_equal(actual, expected)
            variables = variables | updated
        for library in LIBRARIES.values():
            with pytest.raises(TypeError, match="positional argument"):
                getattr(library, name)(*made, None, **options)


@pytest.mark.parametrize("name", ["TopK", "BalancedTopK", "DecisionThresholds"])
def test_nnx_switches_every_layer_that_tracks(name):
    made, options, called = POSITIONAL[name]
    layer = getattr(flax_nnx, name)(*made, **options)
    layer(*called)
    moved = (called[0] + np.arange(5, dtype=np.float32) ** 2, *called[1:])

    def tracks(**keywords):
        before = [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(layer))]
        layer(*moved, **keywords)
        return any(map(np.any, map(np.not_equal, jax.tree.leaves(nnx.state(layer)), before)))

    assert tracks()
    assert not tracks(use_running_average=True)
    layer.eval()
    assert not tracks()
    assert tracks(use_running_average=False)
    layer.train()
    assert tracks()
    layer.set_view(use_running_average=True)
    layer.set_view()
    assert not tracks()


@pytest.fixture(params=["nnx", "linen"])
def learn(request):
    """What a layer's one parameter is after 200 steps on a loss of its output."""

    def learned(scores, loss, *made, **options):
        if request.param == "nnx":
            graph, start = nnx.split(flax_nnx.SoftBinaryArgmax(*made, **options), nnx.Param)
            apply = nnx.merge
        else:
            graph = flax_linen.SoftBinaryArgmax(*made, **options)
            start = graph.init(jax.random.key(0), scores)

            def apply(layer, params):
                return partial(layer.apply, params)

        optimizer = optax.adam(0.05)

        def step(carry, _):
            params, state = carry
            gradient = jax.grad(lambda params: loss(apply(graph, params)(scores)))(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        trained = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), length=200)[0])
        (parameter,) = jax.tree.leaves(trained(start)[0])
        return np.asarray(parameter)

    return learned


class TestSoftBinaryArgmax:
    @pytest.mark.parametrize("regularizer", [softbin.euclidean, softbin.binary_entropy])
    def test_is_the_operator(self, regularizer):
        options = {"k": 2.5, "temperature": 0.6, "axis": 0, "regularizer": regularizer}
        where = SCORES > -1.5
        expected = softbin.soft_binary_argmax(SCORES, **options, where=where)
        np.testing.assert_array_equal(flax_nnx.SoftBinaryArgmax(**options)(SCORES, where=where), expected)
        np.testing.assert_array_equal(flax_linen.SoftBinaryArgmax(**options).apply({}, SCORES, where=where), expected)

    def test_a_fixed_temperature_has_no_parameters(self):
        assert not jax.tree.leaves(nnx.state(flax_nnx.SoftBinaryArgmax(2)))
        assert not flax_linen.SoftBinaryArgmax(2).init(jax.random.key(0), SCORES)

    def test_a_temperature_can_be_learned(self, learn):
        target = np.asarray(softbin.soft_binary_argmax(SCORES, 2, 3.0))
        log_temperature = learn(SCORES, lambda y: jnp.mean((y - target) ** 2), 2, 1.0, learn_temperature=True)
        np.testing.assert_allclose(np.exp(log_temperature), 3.0, rtol=1e-2)

    @pytest.mark.parametrize("straight_through", [False, True])
    def test_how_many_to_choose_can_be_learned(self, learn, straight_through):
        worth = np.sort(SCORES)[:, ::-1] + np.float32(0.3)  # as long as it is positive, choosing pays
        options = {"learn_k": True, "temperature": 0.5, "straight_through": straight_through}
        logit = learn(worth, lambda y: -jnp.sum(y * worth), softbin.budgets.fraction(0.9), **options)
        gains = [np.sum(worth[:, :k]) for k in range(8)]
        assert abs(7 / (1 + np.exp(-logit)) - np.argmax(gains)) < 0.75

    def test_what_is_learned_is_a_share_between_its_ends(self):
        with pytest.raises(TypeError, match="learn_k learns one share"):
            flax_nnx.SoftBinaryArgmax(2, learn_k=True)
        with pytest.raises(ValueError, match="must begin between 0 and 1, got 1"):
            flax_linen.SoftBinaryArgmax(softbin.budgets.fraction(1.0), learn_k=True).init(jax.random.key(0), SCORES)

    def test_a_temperature_must_be_positive(self):
        with pytest.raises(ValueError, match="temperature must be positive and finite, got -1"):
            flax_nnx.SoftBinaryArgmax(2, -1.0, learn_temperature=True)
        with pytest.raises(ValueError, match="temperature must be positive and finite, got -1"):
            flax_linen.SoftBinaryArgmax(2, -1.0, learn_temperature=True).init(jax.random.key(0), SCORES)


LAYERS = {
    "TopK": ((), {"k": 20, "axis": 0, "shape": (8,), "momentum": 0.5}),
    "BalancedTopK": ((8,), {"k": 2}),
}


AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
PLACES = {"whole": ((None, "experts"), (None,)), "sharded": (("tokens", "experts"), ("experts",))}
"""The axes of values and of a state."""


def step_and_evaluation(layer, state, x):
    kept, after = layer.train(state, x)
    return kept, after, layer.evaluate(after, x)


class TestMeshes:
    """Experts sharded, or tokens and experts; the state whole, or sharded."""

    X = np.tile(LOGITS, 2)[:, :8] + np.arange(8, dtype=np.float32) / 8

    @staticmethod
    @cache
    def expected(name):
        layer = nnx_layer(name, TestMeshes.X, *LAYERS[name][0], **LAYERS[name][1])
        return jax.tree.leaves(jax.jit(partial(step_and_evaluation, layer))(layer.start, TestMeshes.X))

    def check(self, name, make_layer, kind, places, compiled):
        of_x, of_state = PLACES[places]
        mesh = jax.make_mesh((2, 4), ("tokens", "experts"), axis_types=(kind,) * 2)
        x = jax.device_put(self.X, NamedSharding(mesh, PartitionSpec(*of_x)))
        placed = NamedSharding(mesh, PartitionSpec(*of_state))
        layer = make_layer(name, self.X, *LAYERS[name][0], **LAYERS[name][1])
        program = partial(step_and_evaluation, layer)
        actual = (jax.jit(program) if compiled else program)(jax.device_put(layer.start, placed), x)
        for leaf, expected in zip(jax.tree.leaves(actual), self.expected(name), strict=True):
            np.testing.assert_allclose(leaf, expected, atol=1e-5)
        np.testing.assert_allclose(actual[-1], self.expected(name)[-1], atol=1e-6)
        if not compiled or kind == EXPLICIT:
            assert all(leaf.sharding.is_equivalent_to(placed, leaf.ndim) for leaf in jax.tree.leaves(actual[1]))

    # Outside of jit a router is `gates` and `quantile_bias`, which tests/test_routing.py puts on meshes.
    @pytest.mark.parametrize(("kind", "places"), [(AUTO, "whole"), (AUTO, "sharded"), (EXPLICIT, "sharded")])
    def test_state_comes_back_as_it_was(self, make_layer, kind, places):
        self.check("TopK", make_layer, kind, places, compiled=False)

    @pytest.mark.parametrize(
        ("name", "of", "kind", "places"),
        [
            ("TopK", nnx_layer, AUTO, "sharded"),
            ("TopK", linen_layer, EXPLICIT, "whole"),
            ("BalancedTopK", linen_layer, AUTO, "whole"),
            ("BalancedTopK", nnx_layer, EXPLICIT, "sharded"),
        ],
    )
    def test_a_compiled_step_is_that_of_one_device(self, name, of, kind, places):
        self.check(name, of, kind, places, compiled=True)


class TestTopK:
    @pytest.mark.parametrize(("axis", "shape", "k"), [(-1, (), 2), (None, (), 90), (0, (5,), 20), (1, (64,), 2)])
    def test_keeps_the_largest_in_training_and_what_is_above_their_mean_cutoff_afterwards(
        self, make_layer, axis, shape, k
    ):
        layer = make_layer("TopK", LOGITS, k=k, axis=axis, shape=shape, momentum=0.5)
        np.testing.assert_array_equal(layer.evaluate(layer.start, LOGITS), LOGITS)
        state, cutoffs = layer.start, []
        for x in batches(4):
            kept, state = layer.train(state, x)
            np.testing.assert_array_equal(kept, x * np.asarray(softbin.binary_argmax(x, k, axis=axis)))
            cutoffs.append(np.mean(softbin.cutoff(x, k, axis=axis), axis=0 if axis == -1 else ()))
        cutoff = np.average(cutoffs, 0, 0.5 ** np.arange(4)[::-1])
        cutoff = cutoff[:, None] if axis == 1 else cutoff
        np.testing.assert_allclose(layer.evaluate(state, LOGITS), LOGITS * (cutoff < LOGITS), atol=1e-6)

    def test_learns_in_bfloat16_and_a_schedule_may_lower_k(self, make_layer):
        x = LOGITS.astype(jnp.bfloat16)
        layer = make_layer("TopK", x, k=100, axis=None, momentum=0.999)

        @jax.jit
        def train(state, schedule):
            state, kept = jax.lax.scan(lambda state, k: layer.train(state, x, k=k)[::-1], state, schedule)
            return kept[-1], state

        kept, state = train(layer.start, np.arange(100, 50, -1))
        assert kept.dtype == jnp.bfloat16
        assert np.count_nonzero(kept) == 51
        before = np.count_nonzero(layer.evaluate(state, x))
        for _ in range(20):
            _, state = train(state, np.full(50, 51))
        assert 51 <= np.count_nonzero(layer.evaluate(state, x)) < before

    def test_a_schedule_that_is_traced_and_not_whole_is_rounded(self, make_layer):
        layer = make_layer("TopK", LOGITS, k=100, axis=None)
        schedule = optax.linear_schedule(64, 8, 100)  # 63.44 after a step
        train = jax.jit(lambda state, step: layer.train(state, LOGITS, k=schedule(step)))
        for step in (0, 1, 25):
            kept, state = train(layer.start, step)
            k = np.round(schedule(step))
            assert np.count_nonzero(kept) == k
            eager, _ = layer.train(layer.start, LOGITS, k=schedule(step))
            np.testing.assert_array_equal(kept, eager)
            expected = np.mean(np.sort(LOGITS, None)[-int(k) - 1 : -int(k) + 1])
            np.testing.assert_allclose(tracked(state), expected, rtol=1e-6)
        kept, _ = layer.train(layer.start, LOGITS, k=jnp.float32(3.6), where=LOGITS < 3)
        assert np.count_nonzero(kept) == 4
        with pytest.raises(ValueError, match=r"k must be whole, got 3.6"):
            layer.train(layer.start, LOGITS, k=3.6, where=LOGITS < 3)

    def test_magnitudes_are_kept_with_their_signs(self, make_layer):
        x = LOGITS - 2
        layer = make_layer("TopK", x, k=2, magnitude=True, momentum=0.5)
        kept, state = layer.train(layer.start, x)
        np.testing.assert_array_equal(kept, x * np.asarray(softbin.binary_argmax(np.abs(x), 2)))
        assert np.any(np.asarray(kept) < 0)
        cutoff = np.mean(softbin.cutoff(np.abs(x), 2))
        np.testing.assert_allclose(layer.evaluate(state, x), x * (np.abs(x) > cutoff), atol=1e-6)
        gradient = jax.grad(lambda x: jnp.sum(layer.train(layer.start, x)[0]))(x)
        np.testing.assert_array_equal(gradient, np.asarray(kept) != 0)

    def test_evaluation_is_by_the_cutoff_or_exact(self, make_layer):
        by_cutoff, exact = (make_layer("TopK", LOGITS, k=2, exact=exact) for exact in (False, True))
        _, state = exact.train(exact.start, LOGITS)
        chosen = exact.evaluate(state, LOGITS + 1)
        np.testing.assert_array_equal(chosen, (LOGITS + 1) * np.asarray(softbin.binary_argmax(LOGITS, 2)))
        np.testing.assert_array_equal(np.count_nonzero(exact.evaluate(state, LOGITS, k=jnp.float32(2.6)), -1), 3)
        for each in (by_cutoff, exact):  # the state is the same
            chex.assert_trees_all_close(each.train(each.start, LOGITS)[1], state)
        above = by_cutoff.evaluate(state, LOGITS)
        np.testing.assert_array_equal(by_cutoff.evaluate(state, LOGITS, k=1), above)
        assert (np.count_nonzero(above, -1) != 2).any()

    def test_the_average_does_not_stall_in_a_model_that_was_cast(self, make_layer):
        layer = make_layer("TopK", LOGITS, k=2)
        _, state = layer.train(layer.start, 0.85 * LOGITS)
        _, state = layer.train(in_bfloat16(state), LOGITS)
        again = jax.jit(lambda state: jax.lax.fori_loop(0, 1200, lambda _, state: layer.train(state, LOGITS)[1], state))
        state = again(state)
        assert dtypes(state) == {jnp.dtype(jnp.float32)}
        expected = np.mean(softbin.cutoff(LOGITS, 2))
        np.testing.assert_allclose(tracked(state), expected, rtol=1e-4)
        with pytest.raises(TypeError, match="carry"):  # of a scan, whose dtype cannot change
            jax.lax.scan(lambda state, x: layer.train(state, x)[::-1], in_bfloat16(state), LOGITS[None])

    @pytest.mark.parametrize(("make_layer", "dtype"), [(nnx_layer, jnp.bfloat16), (linen_layer, jnp.float16)])
    def test_chooses_as_many_of_what_the_same_program_computes(self, make_layer, dtype):
        left, right = (jax.random.normal(jax.random.key(seed), (128, 128), dtype) for seed in range(2))
        layer = make_layer("TopK", left, k=20, axis=0, shape=(128,), momentum=0.0)

        @partial(jax.jit, compiler_options=AS_USERS_DO)
        def program(state, left, right):
            x = left @ right
            kept, state = layer.train(state, x)
            return x, kept, state

        x, kept, state = program(layer.start, left, right)
        np.testing.assert_array_equal(np.count_nonzero(kept, 0), 20)
        ordered = np.sort(np.asarray(x, np.float32), 0)
        tied = ordered[-20] == ordered[-21]

        @partial(jax.jit, compiler_options=AS_USERS_DO)
        def evaluated(left, right):
            return layer.train(state, left @ right, use_running_average=True)[0]

        above = np.count_nonzero(evaluated(left, right), 0)
        np.testing.assert_array_equal(above[~tied], 20)

    def test_arguments_are_named_as_the_caller_does(self, make_layer, no_shape_checks):
        layer = make_layer("TopK", LOGITS, k=2)
        for error, message, keywords in (
            (
                ValueError,
                r"where with shape \(3,\) does not broadcast to x with shape \(64, 5\)",
                {"where": jnp.ones(3, bool)},
            ),
            (TypeError, "where must be boolean", {"where": jnp.ones((64, 5))}),
            (ValueError, r"k with shape \(3,\) does not broadcast to \(64,\), the shape of x", {"k": jnp.ones(3, int)}),
            (ValueError, r"k with shape \(2,\) does not broadcast to", {"k": softbin.budgets.prior([0.1, 0.2])}),
            (ValueError, "k must be whole, got 2.5", {"k": 2.5}),
            (ValueError, "k must be at most n = 5", {"k": 7}),
        ):
            with pytest.raises(error, match=message):
                layer.train(layer.start, LOGITS, **keywords)
        with pytest.raises(ValueError, match=r"x with shape \(64, 0\) is empty along axis 1"):
            layer.train(layer.start, LOGITS[:, :0])
        with pytest.raises(TypeError, match=r"momentum must be a concrete number in \[0, 1\), got '0.9'"):
            make_layer("TopK", LOGITS, k=2, momentum="0.9")
        with pytest.raises(TypeError, match="shape must be that of the cutoffs, a tuple of whole numbers"):
            make_layer("TopK", LOGITS, k=2, shape=("a",))

    def test_masked_entries_are_never_kept_and_a_choice_of_all_sets_no_cutoff(self, make_layer):
        where = LOGITS < 3
        layer = make_layer("TopK", LOGITS, k=softbin.budgets.fraction(0.25), axis=None)
        kept, state = layer.train(layer.start, LOGITS, where=where)
        assert np.count_nonzero(kept) == round(0.25 * int(where.sum()))
        for x in (kept, layer.evaluate(state, LOGITS, where=where)):
            assert not np.any(np.where(where, 0, x))
        _, after = layer.train(state, LOGITS, k=softbin.budgets.fraction(1.0))
        np.testing.assert_array_equal(layer.evaluate(after, LOGITS), layer.evaluate(state, LOGITS))

    def test_all_of_a_group_that_has_fewer_are_kept(self, make_layer):
        where = np.array([[True, False, False], [True, True, True]])
        x = np.array([[3.0, 1.0, 0.5], [4.0, 5.0, 0.1]], np.float32)
        layer = make_layer("TopK", x, k=2)
        kept, state = jax.jit(layer.train)(layer.start, x, where=where)
        np.testing.assert_array_equal(kept, [[3, 0, 0], [4, 5, 0]])
        np.testing.assert_array_equal(layer.evaluate(state, x), x * (x > np.float32(2.05)))  # between 4 and 0.1

    def test_nan_stays_and_huge_values_do_not_spoil_the_cutoff(self, make_layer):
        x = np.array([[3e38, 2e38, 1.0], [3e38, 2.5e38, np.nan], [3.0, 2.0, 1.0]], np.float32)
        layer = make_layer("TopK", x, k=1, momentum=0.5)
        kept, state, above = jax.jit(partial(step_and_evaluation, layer))(layer.start, x)
        np.testing.assert_array_equal(np.isnan(kept), np.isnan(x).any(1, keepdims=True) & np.ones_like(x, bool))
        np.testing.assert_array_equal(np.isnan(above), np.isnan(x))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))

    def test_shards_of_the_examples_share_the_mean_cutoff(self):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
        layer = flax_linen.TopK(k=2, batch_axis_name="batch")
        start = layer.init(jax.random.key(0), LOGITS, use_running_average=True)
        train = partial(layer.apply, use_running_average=False, mutable="batch_stats")
        by_example, replicated = PartitionSpec("batch"), PartitionSpec()
        mapped = jax.shard_map(train, mesh=mesh, in_specs=(replicated, by_example), out_specs=(by_example, replicated))
        kept, state = jax.jit(mapped)(start, LOGITS)
        expected, of_all = flax_linen.TopK(k=2).apply(start, LOGITS, use_running_average=False, mutable="batch_stats")
        np.testing.assert_array_equal(kept, expected)
        chex.assert_trees_all_close(state, of_all, rtol=1e-6)

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
    def test_promotion_may_be_strict(self, make_layer, dtype, x64):
        x = LOGITS.astype(dtype)
        with jax.numpy_dtype_promotion("strict"):
            for name, sizes, options in (("TopK", (), {"k": 2}), ("BalancedTopK", (5,), {"k": 2})):
                layer = make_layer(name, LOGITS, *sizes, **options)
                kept, state, evaluated = jax.eval_shape(partial(step_and_evaluation, layer), layer.start, x)
                assert kept.dtype == evaluated.dtype == dtype
                assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [jnp.float32] * len(jax.tree.leaves(state))

    def test_cutoffs_must_fit_the_groups(self, make_layer, no_shape_checks):
        layer = make_layer("TopK", LOGITS[:, :4], k=2, axis=0, shape=(4,))
        with pytest.raises(ValueError, match=r"groups with shape \(5,\) do not fit cutoffs with shape \(4,\)"):
            layer.train(layer.start, LOGITS)


@cache
def of_the_first_forty():
    """The gates of so many tokens without a bias, and the bias that they lead to."""
    bias = np.zeros(5, np.float32)
    both = jax.jit(lambda x: (softbin.routing.gates(x, bias, 2), softbin.routing.quantile_bias(x, bias, 2)))
    return both(LOGITS[:40])


class TestBalancedTopK:
    def test_gates_are_the_softmax_over_the_chosen_by_the_bias_so_far(self, make_layer):
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2)
        bias, state = np.zeros(5, np.float32), layer.start
        for x in batches(3):
            shares, state = layer.train(state, x)
            chosen = np.asarray(softbin.binary_argmax(x + bias, 2)) > 0
            weights = np.where(chosen, np.exp(x), 0)
            np.testing.assert_allclose(shares, weights / weights.sum(1, keepdims=True), atol=1e-6)
            bias = np.asarray(softbin.routing.quantile_bias(x, bias, 2))
        np.testing.assert_allclose(tracked(state), bias, atol=1e-6)

    def test_balances_in_training_and_stays_afterwards(self, make_layer):
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2)
        before = np.count_nonzero(layer.evaluate(layer.start, LOGITS), 0)
        state = layer.start
        for _ in range(20):
            _, state = layer.train(state, LOGITS)
        loads = np.count_nonzero(layer.evaluate(state, LOGITS), 0)
        assert before.max() > 50
        assert np.abs(loads - 64 * 2 / 5).max() <= 2

    def test_masked_tokens_have_no_gates_and_no_say(self, make_layer):
        where = np.arange(64) < 40
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2)
        shares, state = layer.train(layer.start, np.where(where[:, None], LOGITS, np.float32(1e3)), where=where)
        np.testing.assert_allclose(np.sum(shares, 1), where, atol=1e-6)
        alone, of_part = of_the_first_forty()
        np.testing.assert_array_equal(np.asarray(shares)[:40], alone)
        np.testing.assert_array_equal(tracked(state), of_part)

    def test_masked_nan_has_no_gradient_and_a_masked_batch_leaves_the_router(self, make_layer):
        where = np.arange(64) > 0
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2)
        wrong = np.where(where[:, None], LOGITS, np.float32(np.nan))
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(layer.train(layer.start, x, where=where)[0] ** 2)))(wrong)
        assert not np.any(gradient[0])
        assert np.all(np.isfinite(gradient))
        _, state = layer.train(layer.start, LOGITS, where=np.zeros(64, bool))
        shares = layer.evaluate(state, LOGITS)
        np.testing.assert_array_equal(np.count_nonzero(shares, 1), 2)
        assert np.all(np.isnan(np.asarray(layer.train(state, wrong)[0])[0]))

    @pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
    def test_balances_what_it_chooses_by(self, make_layer, gate):
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2, gate=gate, scale=2.5)
        state = layer.start
        for _ in range(20):
            shares, state = layer.train(state, LOGITS)
        np.testing.assert_allclose(np.sum(shares, 1), 2.5, rtol=1e-6)
        loads = np.count_nonzero(layer.evaluate(state, LOGITS), 0)
        assert np.abs(loads - 64 * 2 / 5).max() <= 2
        (bias,) = jax.tree.leaves(state)
        expected = softbin.routing.gates(LOGITS, bias, 2, gate=gate, scale=2.5)
        np.testing.assert_array_equal(layer.evaluate(state, LOGITS), expected)

    def test_the_bias_is_in_float32_in_a_model_that_was_cast(self, make_layer):
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2)
        _, state = layer.train(layer.start, LOGITS)
        shares, moved = jax.eval_shape(layer.train, in_bfloat16(state), LOGITS.astype(jnp.bfloat16))
        assert dtypes(moved) == {jnp.dtype(jnp.float32)}
        assert shares.dtype == jnp.bfloat16

    def test_arguments_are_named_as_the_caller_does(self, make_layer, no_shape_checks):
        for error, message, options in (
            (TypeError, "k must be the number of experts that a token chooses, got '2'", {"k": "2"}),
            (TypeError, "k must be the number of experts that a token chooses, got None", {"k": None}),
            (ValueError, "k must be whole, got 2.5", {"k": 2.5}),
            (ValueError, "k must be one number, for all tokens", {"k": np.array([1, 2])}),
            (ValueError, 'gate must be "softmax" or "sigmoid", got .relu.', {"k": 2, "gate": "relu"}),
            (ValueError, "scale must be positive and finite, got -1", {"k": 2, "scale": -1}),
        ):
            with pytest.raises(error, match=message):
                make_layer("BalancedTopK", LOGITS, 5, **options)
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2)
        with pytest.raises(TypeError, match="logits must be floating point, got int32"):
            layer.train(layer.start, LABELS[:, None] * np.ones(5, int))
        with pytest.raises(ValueError, match=r"logits must be \(..., experts\)"):
            layer.train(layer.start, LOGITS[0])
        with pytest.raises(TypeError, match="num_experts must be a whole number, got '5'"):
            make_layer("BalancedTopK", LOGITS, "5", 2)

    def test_the_number_of_experts_is_checked(self, make_layer, no_shape_checks):
        with pytest.raises(ValueError, match="less than the number of experts, 5, got 5"):
            make_layer("BalancedTopK", LOGITS, 5, k=5)
        layer = make_layer("BalancedTopK", LOGITS, 5, k=2)
        for wrong in (
            lambda: layer.train(layer.start, LOGITS[:, :4]),
            lambda: flax_linen.BalancedTopK(5, 2).init(jax.random.key(0), LOGITS[:, :4], use_running_average=True),
        ):
            with pytest.raises(ValueError, match=r"bias \(experts,\), got shapes \(64, 4\) and \(5,\)"):
                wrong()


@cache
def of_eight_classes():
    """Thresholds after a batch in which the last three classes have no example."""
    thresholds = softbin.decision_thresholds(TestDecisionThresholds.EIGHT, LABELS, **OPTIONS)
    return np.where(np.arange(8) < 5, thresholds, -0.5)


class TestDecisionThresholds:
    EIGHT = np.tile(LOGITS, 2)[:, :8] + np.arange(8, dtype=np.float32)

    def test_training_passes_logits_through(self, make_tracker):
        tracker = make_tracker(5, **OPTIONS)
        logits, _ = tracker.train(tracker.start, LOGITS, LABELS)
        np.testing.assert_array_equal(logits, LOGITS)

    def test_untrained_changes_nothing(self, make_tracker):
        tracker = make_tracker(5, **OPTIONS)
        np.testing.assert_array_equal(tracker.evaluate(tracker.start, LOGITS), LOGITS)

    @pytest.mark.parametrize("regularizer", [softbin.euclidean, softbin.binary_entropy])
    def test_after_one_batch_decides_as_predict(self, make_tracker, regularizer):
        tracker = make_tracker(5, **OPTIONS, regularizer=regularizer)
        _, state = tracker.train(tracker.start, LOGITS, LABELS)
        thresholds = softbin.decision_thresholds(LOGITS, LABELS, **OPTIONS, regularizer=regularizer)
        np.testing.assert_allclose(tracked(state), thresholds, rtol=1e-6)
        decided = np.argmax(tracker.evaluate(state, LOGITS), -1)
        np.testing.assert_array_equal(decided, softbin.predict(LOGITS, thresholds, 0.7))

    @pytest.mark.parametrize("regularizer", [softbin.euclidean, softbin.binary_entropy])
    def test_a_binary_problem_is_decided_by_the_sign(self, make_tracker, regularizer):
        labels = (LABELS == 0).astype(np.int32)
        tracker = make_tracker(None, **OPTIONS, regularizer=regularizer)
        _, state = tracker.train(tracker.start, LOGITS[:, 0], labels)
        expected = softbin.predict(LOGITS[:, 0], tracked(state), 0.7, regularizer=regularizer)
        assert 0 < np.sum(expected) < len(expected)
        np.testing.assert_array_equal(np.asarray(tracker.evaluate(state, LOGITS[:, 0])) > 0, expected)

    def test_averages_without_the_bias_of_its_start(self, make_tracker):
        tracker = make_tracker(5, **OPTIONS, momentum=0.8)
        state, powers = tracker.start, 0.8 ** np.arange(6)[::-1]
        each = []
        for logits in batches(6):
            _, state = tracker.train(state, logits, LABELS)
            each.append(softbin.decision_thresholds(logits, LABELS, **OPTIONS))
        expected = np.average(np.stack(each), axis=0, weights=powers)
        np.testing.assert_allclose(tracked(state), expected, rtol=1e-5)

    def test_a_class_absent_from_the_batch_keeps_its_threshold(self, make_tracker):
        tracker = make_tracker(5, **OPTIONS, regularizer=softbin.binary_entropy)
        _, before = tracker.train(tracker.start, LOGITS, LABELS)
        _, after = tracker.train(before, LOGITS + 1, np.where(LABELS == 3, 0, LABELS))
        moved = tracked(after) != tracked(before)
        np.testing.assert_array_equal(moved, [True, True, True, False, True])

    def test_masks_and_weights_count_as_in_the_loss(self, make_tracker):
        where, weights = np.arange(64) % 3 > 0, np.arange(64, dtype=np.float32) % 4
        tracker = make_tracker(5, **OPTIONS)
        _, state = tracker.train(tracker.start, LOGITS, LABELS, where=where, weights=weights)
        expected = softbin.decision_thresholds(LOGITS, LABELS, **OPTIONS, where=where, weights=weights)
        np.testing.assert_allclose(tracked(state), expected, rtol=1e-6)

    def test_what_is_no_budget_is_named(self, make_tracker, no_shape_checks):
        with pytest.raises(ValueError, match=r"pass softbin.budgets.fraction\(0.5\)"):
            make_tracker(5, temperature=1.5, budget=0.5)
        with pytest.raises(TypeError, match=r"one of softbin.budgets.label_count, .*, got 'label_count'"):
            make_tracker(5, temperature=1.5, budget="label_count")

    def test_a_budget_that_does_not_count_needs_no_labels(self, make_tracker):
        tracker = make_tracker(5, temperature=1.5)
        _, state = tracker.train(tracker.start, LOGITS)
        expected = softbin.decision_thresholds(LOGITS, temperature=1.5)
        np.testing.assert_allclose(tracked(state), expected, rtol=1e-6)
        with pytest.raises(ValueError, match="label_count counts labels"):
            make_tracker(5, **OPTIONS).train(tracker.start, LOGITS)

    def test_has_no_gradient_of_its_own(self, make_tracker):
        tracker = make_tracker(5, **OPTIONS)

        def through(logits):
            passed, state = tracker.train(tracker.start, logits, LABELS)
            return jnp.sum(passed) + jnp.sum(jax.tree.leaves(state)[0])

        np.testing.assert_array_equal(jax.grad(through)(LOGITS), np.ones_like(LOGITS))

    def test_thresholds_are_in_float32_in_a_model_that_was_cast(self, make_tracker):
        tracker = make_tracker(5, **OPTIONS)
        _, state = tracker.train(tracker.start, 0.85 * LOGITS, LABELS)
        train = jax.jit(tracker.train)
        state = in_bfloat16(state)
        for _ in range(150):
            _, state = train(state, LOGITS, LABELS)
        assert dtypes(state) == {jnp.dtype(jnp.float32)}
        expected = softbin.decision_thresholds(LOGITS, LABELS, **OPTIONS)
        np.testing.assert_allclose(tracked(state), expected, rtol=1e-4)

    @pytest.mark.parametrize(
        ("make_layer", "kind", "examples", "axes", "of_state"),
        [
            (nnx_layer, AUTO, (64,), ("examples", "classes"), None),
            (linen_layer, AUTO, (8, 8), (None, "classes"), "classes"),
            (nnx_layer, EXPLICIT, (8, 8), ("examples", "classes"), None),
            (linen_layer, EXPLICIT, (64,), (None, "classes"), "classes"),
            (linen_layer, EXPLICIT, (8, 8), ("examples", None), None),
        ],
    )
    def test_examples_and_classes_may_be_sharded(self, make_tracker, kind, examples, axes, of_state):
        mesh = jax.make_mesh((2, 4), ("examples", "classes"), axis_types=(kind,) * 2)

        def placed(array, *axes):
            return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes)))

        more = (None,) * (len(examples) - 1)
        x = placed(self.EIGHT.reshape(*examples, 8), axes[0], *more, axes[1])
        y = placed(LABELS.reshape(examples), axes[0])
        tracker = make_tracker(8, **OPTIONS)
        state = placed(tracker.start, of_state)
        _, after = (jax.jit(tracker.train) if kind == EXPLICIT else tracker.train)(state, x, y)
        thresholds = of_eight_classes()
        np.testing.assert_allclose(tracked(after), thresholds, rtol=1e-5)
        pairs = zip(*map(jax.tree.leaves, (after, state)), strict=True)
        assert all(leaf.sharding.is_equivalent_to(before.sharding, leaf.ndim) for leaf, before in pairs)
        decided = np.reshape(tracker.evaluate(after, x), (64, 8))
        np.testing.assert_allclose(decided, self.EIGHT - OPTIONS["temperature"] * (thresholds + 0.5), atol=1e-5)

    def test_one_example_is_decided_as_it_is_among_others(self, make_tracker, no_shape_checks):
        tracker = make_tracker(5, **OPTIONS)
        _, state = tracker.train(tracker.start, LOGITS, LABELS)
        np.testing.assert_array_equal(
            tracker.evaluate(state, LOGITS[0]), np.asarray(tracker.evaluate(state, LOGITS))[0]
        )
        for call in (tracker.evaluate, tracker.train):
            with pytest.raises(
                ValueError, match=r"logits with shape \(64, 4\) do not fit thresholds with shape \(5,\)"
            ):
                call(state, LOGITS[:, :4])
            with pytest.raises(TypeError, match="logits must be"):
                call(state, None)

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
    def test_logits_keep_their_dtype_and_promotion_may_be_strict(self, make_tracker, dtype, x64):
        tracker = make_tracker(5, **OPTIONS)
        logits = LOGITS.astype(dtype)
        with jax.numpy_dtype_promotion("strict"):
            passed, state = jax.eval_shape(tracker.train, tracker.start, logits, LABELS)
            assert passed.dtype == jax.eval_shape(tracker.evaluate, state, logits).dtype == dtype
        assert dtypes(state) == {jnp.dtype(jnp.float32)}

    def test_a_sharded_batch_gives_the_thresholds_of_the_whole(self, make_tracker):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
        by_example, replicated = PartitionSpec("batch"), PartitionSpec()
        tracker = make_tracker(5, **OPTIONS, axis_name="batch")
        train = jax.shard_map(
            tracker.train, mesh=mesh, in_specs=(replicated, by_example, by_example), out_specs=(by_example, replicated)
        )
        _, state = jax.jit(train)(tracker.start, LOGITS, LABELS)
        expected = softbin.decision_thresholds(LOGITS, LABELS, **OPTIONS)
        np.testing.assert_allclose(tracked(state), expected, rtol=1e-6)

    def test_scan_and_jit(self, make_tracker):
        tracker = make_tracker(5, **OPTIONS)
        state = tracker.start
        train = jax.jit(tracker.train)
        for logits in batches(3):
            _, state = train(state, logits, LABELS)
        scanned, _ = jax.lax.scan(lambda s, x: tracker.train(s, x, LABELS)[::-1], tracker.start, batches(3))
        np.testing.assert_allclose(tracked(scanned), tracked(state), rtol=1e-6)

    def test_orbax_brings_it_back(self, make_tracker, tmp_path):
        tracker = make_tracker(5, **OPTIONS)
        _, state = tracker.train(tracker.start, LOGITS, LABELS)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", state)
            checkpointer.wait_until_finished()
            restored = checkpointer.restore(tmp_path / "state", jax.tree.map(jnp.zeros_like, state))
        np.testing.assert_array_equal(tracker.evaluate(restored, LOGITS), tracker.evaluate(state, LOGITS))

    @pytest.mark.parametrize("momentum", [1.0, -0.1, float("nan")])
    def test_momentum_out_of_range_is_named(self, make_tracker, momentum):
        with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got"):
            make_tracker(5, temperature=1.0, momentum=momentum)

    def test_another_number_of_classes_is_named(self, make_tracker):
        tracker = make_tracker(4, **OPTIONS)
        with pytest.raises(ValueError, match=r"logits with shape \(64, 5\) do not fit thresholds with shape \(4,\)"):
            tracker.train(tracker.start, LOGITS, LABELS)
        with pytest.raises(ValueError, match=r"logits with shape \(64, 5\) do not fit thresholds with shape \(4,\)"):
            flax_linen.DecisionThresholds(4, **OPTIONS).init(jax.random.key(0), LOGITS, use_running_average=False)

    def test_what_is_no_number_of_classes_is_named(self, make_tracker, no_shape_checks):
        with pytest.raises(TypeError, match=r"num_classes must be a whole number, got 2\.5"):
            make_tracker(2.5, temperature=1.0)


class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(5, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 5, rngs=rngs)
        self.thresholds = flax_nnx.DecisionThresholds(5, **OPTIONS)

    def __call__(self, inputs, labels=None):
        return self.thresholds(self.out(nnx.relu(self.norm(self.hidden(inputs)))), labels)


class TestNnxTransforms:
    def test_train_and_eval_switch_it_with_batch_norm(self):
        model = Classifier(nnx.Rngs(0))
        model.train()
        model(LOGITS, LABELS)
        model.eval()
        before = model.thresholds.thresholds[...]
        model(LOGITS + 1)
        np.testing.assert_array_equal(model.thresholds.thresholds[...], before)
        assert np.all(before != flax_nnx.DecisionThresholds(5, temperature=1.5).thresholds[...])

    def test_nnx_jit_and_grad_update_it_in_place(self):
        model = Classifier(nnx.Rngs(0))

        @nnx.jit
        def step(model, inputs, labels):
            return nnx.value_and_grad(lambda model: softbin.loss(model(inputs, labels), labels, **OPTIONS))(model)

        value, gradient = step(model, LOGITS, LABELS)
        assert np.isfinite(value)
        assert "thresholds" not in gradient
        np.testing.assert_array_equal(model.thresholds.weight[...], np.full(5, 0.1, np.float32))

    def test_nnx_scan_carries_it(self):
        looped, scanned = Classifier(nnx.Rngs(0)), Classifier(nnx.Rngs(0))
        for logits in batches(3):
            looped(logits, LABELS)

        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(model, logits):
            model(logits, LABELS)
            return model

        run(scanned, batches(3))
        expected = looped.thresholds.thresholds[...]
        np.testing.assert_allclose(scanned.thresholds.thresholds[...], expected, rtol=1e-5)

    def test_split_and_merge(self):
        model = Classifier(nnx.Rngs(0))
        model(LOGITS, LABELS)
        graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        assert "thresholds" in stats
        merged = nnx.merge(graph, params, stats)
        merged.eval(), model.eval()
        np.testing.assert_array_equal(merged(LOGITS), model(LOGITS))


class LinenClassifier(linen.Module):
    @linen.compact
    def __call__(self, inputs, labels=None, *, train):
        hidden = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(inputs))
        thresholds = flax_linen.DecisionThresholds(5, **OPTIONS, use_running_average=not train)
        return thresholds(linen.Dense(5)(linen.relu(hidden)), labels)


def test_linen_init_and_apply_inside_a_model():
    model = LinenClassifier()
    variables = model.init(jax.random.key(0), LOGITS, train=False)
    assert set(variables) == {"params", "batch_stats"}
    logits, updated = model.apply(variables, LOGITS, LABELS, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(
        updated["batch_stats"]["DecisionThresholds_0"]["thresholds"],
        softbin.decision_thresholds(logits, LABELS, **OPTIONS),
        rtol=1e-6,
    )


def test_on_digits_tracked_thresholds_decide_like_those_of_the_training_set():
    digits = jax.tree.map(jnp.asarray, data.load("digits"))
    options = {"budget": softbin.budgets.label_count, "temperature": 1.5}
    network = mlp(64, (64,), 10, jnp.float32, nnx.Rngs(0))
    tracker = flax_nnx.DecisionThresholds(10, **options)
    model = network, tracker, nnx.Optimizer(network, optax.adam(1e-3), wrt=nnx.Param)
    graph, state = nnx.split(model)

    def step(state, batch):
        network, tracker, optimizer = model = nnx.merge(graph, state)
        images, labels = digits.train_images[batch], digits.train_labels[batch]

        def loss_fn(network, tracker):
            return softbin.loss(tracker(network(images), labels), labels, **options)

        optimizer.update(network, nnx.grad(loss_fn)(network, tracker))
        return nnx.state(model), None

    @jax.jit
    def trained(state, batches):
        """Running thresholds and those of the training set; decisions without any, by the latter, and by the former."""
        network, tracker, _ = nnx.merge(graph, jax.lax.scan(step, state, batches)[0])
        whole = softbin.decision_thresholds(network(digits.train_images), digits.train_labels, **options)
        logits = network(digits.test_images)
        decided = softbin.predict(logits, whole, 1.5), tracker(logits, use_running_average=True).argmax(-1)
        return tracker.thresholds[...], whole, logits.argmax(-1), *decided

    random = np.random.default_rng(0)
    epochs = [random.permutation(1437)[:1280].reshape(5, 256) for _ in range(60)]
    running, whole, *decisions = trained(state, np.concatenate(epochs))
    np.testing.assert_allclose(running, whole, atol=0.15)
    plain, by_whole, by_running = (np.mean(decided == digits.test_labels) for decided in map(np.asarray, decisions))
    assert abs(by_running - by_whole) <= 0.01
    assert by_running > plain + 0.03
