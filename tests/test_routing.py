"""Quantile balancing, against loads that are counted. Two programs, some seconds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin.routing import quantile_bias
from tests.test_sharding import collectives

TOKENS, EXPERTS, K, SHARDS = 1024, 16, 3, 8
RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((TOKENS, EXPERTS)) + RNG.standard_normal(EXPERTS)  # some experts are preferred by all
SCORES += np.repeat(RNG.standard_normal((SHARDS, EXPERTS)) / 2, TOKENS // SHARDS, 0)  # and others on each shard
SCORES = SCORES.astype(np.float32)
WHERE = np.arange(TOKENS) % 4 > 0

step = jax.jit(partial(quantile_bias, k=K))


def loads(bias, where=True):
    chosen = softbin.binary_argmax(SCORES + bias, K) * np.broadcast_to(where, TOKENS)[:, None]
    return np.asarray(jnp.sum(chosen, 0))


@pytest.mark.parametrize("where", [None, WHERE], ids=["all tokens", "masked"])
def test_steps_lead_to_the_same_load_for_every_expert(where):
    bias = jnp.zeros(EXPERTS)
    share = (TOKENS if where is None else where.sum()) * K / EXPERTS
    counted = True if where is None else where
    assert loads(bias, counted).max() > 1.5 * share
    for _ in range(40):
        bias = step(SCORES, bias, where=where)
    assert np.abs(loads(bias, counted) - share).max() <= 2
    np.testing.assert_allclose(jnp.mean(bias), 0, atol=1e-6)


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
    bias = jax.device_put(jnp.zeros(EXPERTS), NamedSharding(mesh, PartitionSpec()))
    program = step.lower(spread, bias).compile()
    np.testing.assert_array_equal(program(spread, bias), step(SCORES, jnp.zeros(EXPERTS)))
    sizes = [size for _, size in collectives(program.as_text())]
    assert max(sizes) <= 4 * EXPERTS


def test_shards_of_a_map_have_the_bias_of_the_whole():
    mesh = jax.make_mesh((SHARDS,), ("tokens",), axis_types=(AxisType.Auto,))
    by_token, whole = PartitionSpec("tokens"), PartitionSpec()
    mapped = jax.shard_map(
        partial(quantile_bias, k=K, axis_name="tokens"), mesh=mesh, in_specs=(by_token, whole), out_specs=whole
    )
    zeros = jnp.zeros(EXPERTS)
    np.testing.assert_array_equal(jax.jit(mapped)(SCORES, zeros), step(SCORES, zeros))


def test_a_number_of_experts_may_be_an_array_that_is_known():
    bias = jax.jit(lambda scores, bias: quantile_bias(scores, bias, jnp.asarray(K)))(SCORES, jnp.zeros(EXPERTS))
    np.testing.assert_array_equal(bias, step(SCORES, jnp.zeros(EXPERTS)))


@pytest.mark.parametrize("tokens", [0, 1, 4])
def test_a_batch_that_says_nothing_leaves_the_bias(tokens):
    bias = jnp.arange(8.0) - 3.5
    scores = jnp.asarray(RNG.standard_normal((tokens, 8)), jnp.float32)
    np.testing.assert_array_equal(quantile_bias(scores, bias, 1), bias)
    masked = quantile_bias(SCORES[:9, :8], bias, 1, where=jnp.zeros(9, bool))
    np.testing.assert_array_equal(masked, bias)


def test_an_expert_with_nan_stays_and_the_others_move():
    scores = SCORES.copy()
    scores[3, 2] = np.nan
    moved = step(scores, jnp.zeros(EXPERTS))
    assert np.all(np.isfinite(moved))


def test_the_bias_keeps_its_dtype(x64):
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            moved = jax.eval_shape(partial(quantile_bias, k=1), jnp.ones((9, 4), dtype), jnp.zeros(4, jnp.float32))
            assert moved.dtype == jnp.float32


def test_axes_of_tokens_are_one(no_shape_checks):
    np.testing.assert_array_equal(
        quantile_bias(SCORES.reshape(32, 32, EXPERTS), jnp.zeros(EXPERTS), K, where=WHERE.reshape(32, 32)),
        quantile_bias(SCORES, jnp.zeros(EXPERTS), K, where=WHERE),
    )


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
        quantile_bias(scores, jnp.zeros(experts), k)
    with pytest.raises(TypeError, match="k must be the number of experts that a token chooses, got"):
        quantile_bias(SCORES, jnp.zeros(EXPERTS), softbin.budgets.fraction(0.5))
    with pytest.raises(ValueError, match=r"where with shape \(3,\) must have one entry per token: shape \(1024,\)"):
        quantile_bias(SCORES, jnp.zeros(EXPERTS), K, where=jnp.ones(3, bool))
