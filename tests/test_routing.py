"""Quantile balancing, against loads that are counted; and gates, against their definition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin._engine.groups import Groups
from softbin.routing import bias_from_margins, gates, margins, quantile_bias, router_scores
from tests.compiling import AS_USERS_DO
from tests.test_sharding import collectives

TOKENS, EXPERTS, K, SHARDS = 1024, 16, 3, 8
RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((TOKENS, EXPERTS)) + RNG.standard_normal(EXPERTS)  # some experts are preferred by all
SCORES += np.repeat(RNG.standard_normal((SHARDS, EXPERTS)) / 2, TOKENS // SHARDS, 0)  # and others on each shard
SCORES = SCORES.astype(np.float32)
WHERE = np.arange(TOKENS) % 4 > 0
MASKED = np.where(np.random.default_rng(2).random((TOKENS, EXPERTS)) < 0.8, SCORES, -np.inf).astype(np.float32)
"""Scores of which each token can use but a part."""

ZEROS = np.zeros(EXPERTS, np.float32)

step = jax.jit(partial(quantile_bias, k=K))


def loads(bias, where=True):
    chosen = np.asarray(softbin.binary_argmax(SCORES + bias, K)) * np.broadcast_to(where, TOKENS)[:, None]
    return np.sum(chosen, 0)


@pytest.mark.parametrize("where", [None, WHERE], ids=["all tokens", "masked"])
def test_steps_lead_to_the_same_load_for_every_expert(where):
    bias = ZEROS
    share = (TOKENS if where is None else where.sum()) * K / EXPERTS
    mask = True if where is None else where
    assert loads(bias, mask).max() > 1.5 * share
    for _ in range(40):
        bias = step(SCORES, bias, where=where)
    assert np.abs(loads(bias, mask) - share).max() <= 2
    np.testing.assert_allclose(np.mean(bias), 0, atol=1e-6)


def test_a_step_is_by_the_quantiles_of_numpy():
    bias = RNG.standard_normal(EXPERTS).astype(np.float32)
    biased = np.sort(SCORES + bias, 1)
    margins = np.sort(SCORES - biased[:, -K - 1 : -K + 1 or None].mean(1, keepdims=True), 0)
    first = TOKENS - TOKENS * K // EXPERTS
    expected = -margins[first - 1 : first + 1].mean(0)
    np.testing.assert_allclose(step(SCORES, bias), expected - expected.mean(), atol=1e-5)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_shards_have_the_bias_of_the_whole_and_are_not_gathered(kind):
    mesh = jax.make_mesh((SHARDS,), ("tokens",), axis_types=(kind,))
    spread = jax.device_put(SCORES, NamedSharding(mesh, PartitionSpec("tokens")))
    bias = jax.device_put(ZEROS, NamedSharding(mesh, PartitionSpec()))
    program = step.lower(spread, bias).compile()
    np.testing.assert_array_equal(program(spread, bias), step(SCORES, ZEROS))
    sizes = [size for _, size in collectives(program.as_text())]
    assert max(sizes) <= 8 * EXPERTS


def test_shards_of_a_map_have_the_bias_of_the_whole():
    mesh = jax.make_mesh((SHARDS,), ("tokens",), axis_types=(AxisType.Auto,))
    by_token, replicated = PartitionSpec("tokens"), PartitionSpec()
    mapped = jax.shard_map(
        partial(quantile_bias, k=K, axis_name="tokens"),
        mesh=mesh,
        in_specs=(by_token, replicated),
        out_specs=replicated,
    )
    np.testing.assert_array_equal(jax.jit(mapped)(SCORES, ZEROS), step(SCORES, ZEROS))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("experts", ["experts", None])
def test_experts_may_be_sharded_and_the_bias_comes_back_as_it_was(kind, experts):
    mesh = jax.make_mesh((2, 4), ("tokens", "experts"), axis_types=(kind,) * 2)

    def put(array, *spec):
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))

    scores, where = put(MASKED, "tokens", "experts"), put(WHERE, "tokens")
    bias = put(ZEROS, experts)
    expected, shares = step(MASKED, ZEROS, where=WHERE), gates(MASKED, ZEROS, K, where=WHERE)

    @jax.jit
    def run(scores, bias, where):
        pooled = bias_from_margins(margins(scores, bias, K, where=where), bias, K)
        return (quantile_bias(scores, bias, K, where=where), pooled), gates(scores, bias, K, where=where)

    moved, gated = run(scores, bias, where)
    np.testing.assert_allclose(gated, shares, atol=1e-6)
    if kind == AxisType.Auto:  # whose places are known outside of jit only
        moved = *moved, quantile_bias(scores, bias, K, where=where)
    for each in moved:
        np.testing.assert_allclose(each, expected, atol=1e-6)
    for each in moved if kind == AxisType.Explicit else moved[2:]:
        assert each.sharding.is_equivalent_to(bias.sharding, 1)


def test_shards_that_count_unequally_have_the_bias_of_the_whole():
    mesh = jax.make_mesh((SHARDS,), ("tokens",), axis_types=(AxisType.Auto,))
    by_token, replicated = PartitionSpec("tokens"), PartitionSpec()
    where = RNG.random(TOKENS) < np.repeat(np.arange(SHARDS) / SHARDS, TOKENS // SHARDS)  # none of the first shard
    mapped = jax.shard_map(
        lambda scores, bias, where: quantile_bias(scores, bias, K, where=where, axis_name="tokens"),
        mesh=mesh,
        in_specs=(by_token, replicated, by_token),
        out_specs=replicated,
    )
    np.testing.assert_array_equal(jax.jit(mapped)(MASKED, ZEROS, where), step(MASKED, ZEROS, where=where))


def preferred(key, experts, tokens=256):
    """Logits of which the experts after the first are preferred unequally, as all tokens do."""
    preference = jnp.linspace(-1, 1, experts).at[0].set(0)
    return jax.random.normal(key, (tokens, experts)) + preference


@partial(jax.jit, static_argnames=("experts", "k", "masked"))
def trained(experts, k, coverages, masked):
    """The bias after each of 300 steps on masked logits, and the load of the busiest expert once nothing is masked."""

    def run(coverage):
        def body(bias, key):
            logits = masked(preferred(key, experts), coverage, jax.random.fold_in(key, 1))
            bias = quantile_bias(logits, bias, k)
            return bias, bias

        bias, history = jax.lax.scan(body, jnp.zeros(experts), jax.random.split(jax.random.key(0), 300))
        chosen = gates(preferred(jax.random.key(1), experts), bias, k) > 0
        return history, jnp.mean(jnp.max(jnp.sum(chosen, 0)) / jnp.mean(jnp.sum(chosen, 0)))

    return jax.vmap(run)(coverages)


def first_expert(logits, coverage, key):
    """A share of the tokens can use the first expert, and all the others."""
    can = jax.random.uniform(key, logits.shape[:1]) < coverage
    return logits.at[:, 0].set(jnp.where(can, logits[:, 0], -jnp.inf))


def halves(logits, spread, key):
    """Half of the tokens can use half of the experts each, and differ more about the first half."""
    first = jnp.arange(logits.shape[1]) < logits.shape[1] // 2
    logits = jnp.where(first, logits * spread, logits)
    return jnp.where(first == (jax.random.uniform(key, (len(logits), 1)) < 0.5), logits, -jnp.inf)


@pytest.mark.parametrize(("experts", "k"), [(4, 1), (6, 2), (16, 4)])
def test_the_bias_of_a_masked_expert_settles_and_no_expert_is_overrun_once_it_is_back(experts, k):
    coverages = np.array([0, 0.1, 0.25, 0.5], np.float32)
    histories, busiest = map(np.asarray, trained(experts, k, coverages, first_expert))
    assert np.all(busiest <= 2)
    assert np.abs(histories).max() < 2
    assert np.abs(histories[:, -100:].mean(1) - histories[:, -200:-100].mean(1)).max() < 0.1
    assert not histories[0, :, 0].any()


def test_experts_that_no_token_can_use_together_settle_too():
    (history,) = np.asarray(trained(6, 1, np.array([3.0]), halves)[0])
    assert np.abs(history).max() < 4  # with k / E of those that can use an expert as its target 105, and growing
    assert np.abs(history[-100:].mean(0) - history[-200:-100].mean(0)).max() < 0.5


def test_forced_choices_count_to_the_target():
    """Tokens that can use only the first two of four experts have no choice; the others leave these to them."""
    scores = RNG.standard_normal((512, 4)).astype(np.float32)
    forced = np.arange(512) < 200
    scores[forced, 2:] = -np.inf

    @jax.jit
    def run(scores):
        bias = jax.lax.fori_loop(0, 40, lambda _, bias: quantile_bias(scores, bias, 2), jnp.zeros(4))
        return gates(scores, bias, 2)

    chosen = np.asarray(run(scores)) > 0
    target = 200 + 312 / 2, 312 / 2
    assert np.abs(np.sum(chosen, 0) - np.repeat(target, 2)).max() <= 3


@pytest.mark.parametrize("experts", [3, 6, 7])
@pytest.mark.parametrize("k", [1, 2])
def test_targets_are_the_loads_of_an_even_spread(experts, k):
    usable = RNG.random((8, 300, experts)) < 0.7
    usable[4:] = True

    @jax.jit
    def targets(*parts):
        return [softbin.routing._targets(part, k, Groups((0, 1))) for part in parts]

    count = np.maximum(usable.sum(-1, keepdims=True), 1)
    exact = np.sum(np.where(usable, np.minimum(k / count, 1), 0), (0, 1))
    of_some, of_all, of_none = map(np.asarray, targets(usable, usable[4:], usable[:0]))
    assert np.abs(of_some - exact).max() <= 0.501
    np.testing.assert_array_equal(of_all, round(1200 * k / experts - 1e-3))
    np.testing.assert_array_equal(of_none, 0)


def test_a_bias_of_minus_infinity_is_an_expert_that_none_can_use():
    out = np.arange(EXPERTS) == 3
    bias = np.where(out, np.float32(-np.inf), ZEROS)
    scores = np.where(out, np.float32(-np.inf), SCORES)
    np.testing.assert_array_equal(step(SCORES, bias), np.where(out, -np.inf, step(scores, ZEROS)))
    assert not np.any(np.asarray(gates(SCORES, bias, K))[:, 3])


@pytest.mark.parametrize("where", [None, WHERE], ids=["all tokens", "masked"])
def test_margins_of_microbatches_make_the_step_of_the_whole_batch(where):
    bias = jnp.asarray(RNG.standard_normal(EXPERTS), jnp.float32)
    parts = jax.tree.map(lambda part: part.reshape(8, -1, *part.shape[1:]), (MASKED, where))

    @jax.jit
    def pooled(parts, bias):
        _, kept = jax.lax.scan(lambda carry, part: (carry, margins(part[0], bias, K, where=part[1])), None, parts)
        return bias_from_margins(kept, bias, K)

    np.testing.assert_array_equal(pooled(parts, bias), step(MASKED, bias, where=where))


def test_margins_mark_what_does_not_count():
    nan, inf = np.nan, np.inf
    scores = np.array([[3, 1, 0], [2, -inf, 1], [-inf, 1, -inf], [nan, 1, 0], [9] * 3], np.float32)
    marked = jax.jit(partial(margins, k=1))(scores, np.zeros(3, np.float32), where=np.arange(5) < 4)
    np.testing.assert_array_equal(marked, [[1, -1, -2], [0.5, -inf, -0.5], [-inf, inf, -inf], [nan] * 3, [-inf] * 3])


def test_steps_have_no_gradient_and_export_takes_any_number_of_tokens():
    gradient = jax.jit(jax.grad(lambda scores: jnp.sum(quantile_bias(scores, ZEROS, K) ** 2)))(SCORES)
    assert not np.any(gradient)
    (tokens,) = export.symbolic_shape("tokens")
    shapes = jax.ShapeDtypeStruct((tokens, EXPERTS), jnp.float32), jax.ShapeDtypeStruct((EXPERTS,), jnp.float32)
    exported = export.export(step)(*shapes)
    np.testing.assert_array_equal(exported.call(MASKED, ZEROS), step(MASKED, ZEROS))


class TestGates:
    BIAS = np.random.default_rng(1).standard_normal(EXPERTS).astype(np.float32)

    @pytest.mark.parametrize("where", [None, WHERE], ids=["all tokens", "masked"])
    def test_the_bias_chooses_and_does_not_weigh(self, where):
        for gate, scores, weights in (
            ("softmax", SCORES, np.exp(SCORES)),
            ("sigmoid", 1 / (1 + np.exp(-SCORES)), 1 / (1 + np.exp(-SCORES))),
        ):
            chosen = np.asarray(softbin.binary_argmax(scores + self.BIAS, K))
            expected = 2.5 * chosen * weights / np.sum(chosen * weights, 1, keepdims=True)
            expected *= True if where is None else where[:, None]
            actual = gates(SCORES, self.BIAS, K, gate=gate, scale=2.5, where=where)
            np.testing.assert_allclose(actual, expected, atol=1e-6)

    def test_the_largest_gates_are_the_experts_that_are_chosen_with_the_bias(self):
        shares = gates(MASKED, self.BIAS, K, gate="sigmoid")
        weights, experts, _ = softbin.top_k(shares, K)
        back = np.zeros_like(MASKED)
        np.put_along_axis(back, np.asarray(experts), np.asarray(weights), 1)
        np.testing.assert_array_equal(back, shares)
        np.testing.assert_array_equal(
            back > 0, softbin.binary_argmax(router_scores(MASKED, gate="sigmoid") + self.BIAS, K)
        )

    @pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
    def test_logits_of_any_size_have_gates_and_gradients(self, gate):
        inf = np.inf
        logits = np.array([[-200, -201, -300, -inf], [200, 0, -1, -inf], [3] + [-inf] * 3, [-inf] * 4], np.float32)
        bias = np.array([0, 0, 0, 5], np.float32)  # none that lifts an expert that a token cannot use

        @jax.jit
        def run(logits):
            shares, pull_back = jax.vjp(lambda logits: gates(logits, bias, 2, gate=gate), logits)
            return shares, pull_back(2 * shares)[0]

        shares, gradient = map(np.asarray, run(logits))
        assert not np.any(shares[:, 3])
        np.testing.assert_allclose(shares.sum(1), [1, 1, 1, 0], atol=1e-6)
        np.testing.assert_allclose(shares[0, :2], np.exp([0, -1]) / (1 + np.exp(-1)), rtol=1e-5)
        assert np.all(np.isfinite(gradient))

    def test_balance_is_of_the_sigmoids(self):
        bias = ZEROS
        moves = jax.jit(lambda logits, bias: quantile_bias(router_scores(logits, gate="sigmoid"), bias, K))
        for _ in range(40):
            bias = moves(SCORES, bias)
        loads = np.sum(np.asarray(gates(SCORES, bias, K, gate="sigmoid")) > 0, 0)
        assert np.abs(loads - TOKENS * K / EXPERTS).max() <= 2

    @pytest.mark.parametrize(("gate", "dtype"), [("softmax", jnp.float16), ("sigmoid", jnp.bfloat16)])
    def test_low_precision_is_computed_in_float32(self, dtype, gate):
        rng = np.random.default_rng(2)
        left, right = (jnp.asarray(rng.standard_normal((64, n)), dtype) for n in (64, EXPERTS))
        program = jax.jit(lambda a, b: gates(a @ b, self.BIAS, K, gate=gate), compiler_options=AS_USERS_DO)
        actual, wide = program(left, right), np.asarray(left @ right, np.float32)
        assert actual.dtype == dtype
        expected = jax.jit(partial(gates, k=K, gate=gate))(wide, self.BIAS)
        np.testing.assert_array_equal(actual, np.asarray(expected).astype(dtype))

    def test_arguments_are_named_as_the_caller_does(self, no_shape_checks):
        with_words = partial(gates, SCORES, self.BIAS, 1)
        for error, message, call in (
            (TypeError, "logits must be floating point, got int32", lambda: gates(SCORES.astype(int), self.BIAS, 1)),
            (ValueError, r"logits must be \(..., experts\) and bias", lambda: gates(SCORES, self.BIAS[:4], 1)),
            (ValueError, 'gate must be "softmax" or "sigmoid", got .tanh.', lambda: with_words(gate="tanh")),
            (ValueError, 'gate must be "softmax" or "sigmoid", got None', lambda: router_scores(SCORES, gate=None)),
            (ValueError, "scale must be positive and finite, got 0", lambda: with_words(scale=0)),
            (ValueError, "scale must be positive and finite, got nan", lambda: with_words(scale=np.nan)),
            (TypeError, "scale must be a positive number, got '1'", lambda: with_words(scale="1")),
            (TypeError, "scale must be a positive number, got", lambda: with_words(scale=np.ones(3))),
            (ValueError, "k must be one number", lambda: gates(SCORES, self.BIAS, np.ones(16, int))),
            (TypeError, "experts that a token chooses, got '2'", lambda: gates(SCORES, self.BIAS, "2")),
            (TypeError, "experts that a token chooses, got None", lambda: quantile_bias(SCORES, self.BIAS, None)),
            (ValueError, r"margins must be \(..., experts\)", lambda: bias_from_margins(SCORES, self.BIAS[:4], 1)),
        ):
            with pytest.raises(error, match=message):
                call()


def test_a_number_of_experts_may_be_an_array_that_is_known():
    bias = jax.jit(lambda scores, bias: quantile_bias(scores, bias, jnp.asarray(K)))(SCORES, ZEROS)
    np.testing.assert_array_equal(bias, step(SCORES, ZEROS))


def test_a_batch_that_says_nothing_leaves_the_bias():
    bias = np.arange(8, dtype=np.float32) - 3.5

    @jax.jit
    def run(scores):
        few = [quantile_bias(scores[:tokens], bias, 1) for tokens in (0, 1, 4)]
        return *few, quantile_bias(scores, bias, 1, where=jnp.zeros(len(scores), bool))

    for moved in run(SCORES[:9, :8]):
        np.testing.assert_array_equal(moved, bias)


def test_nan_that_counts_leaves_the_bias():
    scores, bias, others = SCORES.copy(), np.linspace(-1, 1, EXPERTS, dtype=np.float32), np.arange(TOKENS) != 3
    expected = step(scores, bias, where=others)
    assert not np.array_equal(expected, bias)
    scores[3, 2] = np.nan
    np.testing.assert_array_equal(step(scores, bias), bias)
    np.testing.assert_array_equal(step(scores, bias, where=others), expected)


def test_the_bias_keeps_its_dtype(x64):
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            moved = jax.eval_shape(partial(quantile_bias, k=1), jnp.ones((9, 4), dtype), jnp.zeros(4, jnp.float32))
            assert moved.dtype == jnp.float32


def test_axes_of_tokens_are_one(no_shape_checks):
    of_two = step(SCORES.reshape(32, 32, EXPERTS), ZEROS, where=WHERE.reshape(32, 32))
    np.testing.assert_array_equal(of_two, step(SCORES, ZEROS, where=WHERE))


@pytest.mark.parametrize(
    ("scores", "experts", "k", "message"),
    [
        (SCORES, EXPERTS, 0, "k must be at least 1 and less than the number of experts, 16, got 0"),
        (SCORES, EXPERTS, 2.5, "k must be whole, got 2.5"),
        (SCORES, EXPERTS, EXPERTS, "less than the number of experts, 16, got 16"),
        (SCORES, 4, K, r"got shapes \(1024, 16\) and \(4,\)"),
        (SCORES[0], EXPERTS, K, r"got shapes \(16,\) and \(16,\)"),
    ],
)
def test_what_cannot_be_balanced_is_named(scores, experts, k, message, no_shape_checks):
    with pytest.raises(ValueError, match=message):
        quantile_bias(scores, np.zeros(experts, np.float32), k)


def test_what_is_no_share_of_experts_or_mask_of_tokens_is_named(no_shape_checks):
    with pytest.raises(TypeError, match="k must be the number of experts that a token chooses, got"):
        quantile_bias(SCORES, ZEROS, softbin.budgets.fraction(0.5))
    with pytest.raises(ValueError, match=r"where with shape \(3,\) must have one entry per token: shape \(1024,\)"):
        quantile_bias(SCORES, ZEROS, K, where=jnp.ones(3, bool))
