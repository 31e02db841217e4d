import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin.experiments.datasets.images import Images
from softbin.experiments.sparsity import experts
from softbin.experiments.sparsity.numbers import Numbers
from softbin.routing import quantile_bias

K, EXPERTS = 2, 6
NUMBERS = Numbers(*(jnp.float32(value) for value in (K, 1, 0.01, 1e-3, 0)))
LOGITS = jax.random.normal(jax.random.key(0), (experts.SHARDS, 400, EXPERTS))
SHIFTED = LOGITS + 0.5 * jax.random.normal(jax.random.key(1), (experts.SHARDS, 1, EXPERTS))  # shards differ
BIAS = jnp.linspace(-0.3, 0.3, EXPERTS)


def moved(method):
    """From the shards of a mapped axis."""
    step = jax.vmap(lambda logits: experts.METHODS[method](logits, BIAS, NUMBERS), axis_name=experts._AXIS)
    biases = step(SHIFTED)
    np.testing.assert_array_equal(biases, jnp.broadcast_to(biases[0], biases.shape))
    return biases[0]


def test_exact_quantiles_are_those_of_all_tokens_bins_are_near_and_local_ones_are_not():
    wanted = quantile_bias(SHIFTED.reshape(-1, EXPERTS), BIAS, K)
    errors = {
        method: jnp.abs(moved(method) - wanted).max() for method in ("exact_quantiles", "bins", "local_quantiles")
    }
    assert errors["exact_quantiles"] < 1e-6
    assert 1e-6 < errors["bins"] < 0.01  # a bin is 0.008 wide
    assert errors["local_quantiles"] > 0.01


@pytest.mark.parametrize("method", ["unbalanced", "auxiliary_loss"])
def test_without_balance_by_bias_it_stays(method):
    np.testing.assert_array_equal(moved(method), BIAS)


def test_a_step_by_sign_is_towards_balance():
    load = jnp.mean(jax.nn.one_hot(jax.lax.top_k(SHIFTED + BIAS, K)[1], EXPERTS), (0, 1, 2))
    np.testing.assert_allclose(moved("sign") - BIAS, 0.01 * jnp.sign(load.mean() - load), atol=1e-7)


def test_shards_have_images_of_other_classes():
    labels = jnp.tile(jnp.arange(10), 80)
    shards = experts._sharded(Images(labels[:, None].astype(jnp.float32), labels), jax.random.key(0)).labels
    assert shards.shape == (experts.SHARDS, 100)
    assert sorted(shards.ravel().tolist()) == sorted(labels.tolist())
    assert jnp.all(jnp.diff(shards.mean(1)) > 0)
