import functools

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
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(experts.SHARDS, 400, EXPERTS))
SHIFTED = np.float32(LOGITS + 0.5 * RNG.normal(size=(experts.SHARDS, 1, EXPERTS)))  # shards differ
TOGETHER = SHIFTED.reshape(-1, EXPERTS)
BIAS = np.linspace(-0.3, 0.3, EXPERTS, dtype=np.float32)


def moved(method):
    """From the shards of a mapped axis."""
    biases = _steps()[method]
    np.testing.assert_array_equal(biases, np.broadcast_to(biases[0], biases.shape))
    return biases[0]


@functools.cache
def _steps():
    @jax.jit
    def steps(logits, bias):
        def in_shards(step):
            return jax.vmap(lambda logits: step(logits, bias, NUMBERS), axis_name=experts._AXIS)(logits)

        return {method: in_shards(step) for method, step in experts.METHODS.items()}

    return jax.device_get(steps(SHIFTED, BIAS))


def test_exact_quantiles_are_those_of_all_tokens_bins_are_near_and_local_ones_are_not():
    wanted = jax.device_get(jax.jit(quantile_bias, static_argnums=2)(TOGETHER, BIAS, K))
    errors = {method: np.abs(moved(method) - wanted).max() for method in ("exact_quantiles", "bins", "local_quantiles")}
    assert errors["exact_quantiles"] < 1e-6
    assert 1e-6 < errors["bins"] < 0.01  # a bin is 0.008 wide
    assert errors["local_quantiles"] > 0.01


@pytest.mark.parametrize("method", ["unbalanced", "auxiliary_loss"])
def test_without_balance_by_bias_it_stays(method):
    np.testing.assert_array_equal(moved(method), BIAS)


def test_a_step_by_sign_is_towards_balance():
    chosen = np.argsort(-(TOGETHER + BIAS))[:, :K]
    load = np.bincount(chosen.ravel(), minlength=EXPERTS) / chosen.size
    np.testing.assert_allclose(moved("sign") - BIAS, 0.01 * np.sign(load.mean() - load), atol=1e-7)


def test_shards_have_images_of_other_classes():
    labels = np.tile(np.arange(10), 80)
    images = Images(jnp.asarray(labels[:, None], jnp.float32), jnp.asarray(labels))
    shards = np.asarray(jax.jit(experts._sharded)(images, jax.random.key(0)).labels)
    assert shards.shape == (experts.SHARDS, 100)
    assert sorted(shards.ravel().tolist()) == sorted(labels.tolist())
    assert np.all(np.diff(shards.mean(1)) > 0)
