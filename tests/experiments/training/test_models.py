import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from softbin.experiments.training import models


def build(name, shape=(28, 28, 1), dtype=jnp.float32):
    return models.build(name, shape, (16,), 10, dtype, seed=0)


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_the_mlp_has_the_widths_of_its_layers():
    assert count(build("mlp")) == 784 * 16 + 16 + 16 * 10 + 10


@pytest.mark.parametrize(("shape", "flat"), [((28, 28, 1), 7 * 7 * 64), ((32, 32, 3), 8 * 8 * 64)])
def test_the_cnn_has_four_convolutions_with_batch_normalisation_and_two_dense_layers(shape, flat):
    convolutions = 9 * shape[-1] * 64 + 64 + 3 * (9 * 64 * 64 + 64)
    assert count(build("cnn", shape)) == convolutions + 4 * 2 * 64 + flat * 512 + 512 + 512 * 10 + 10


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_params_are_float32_whatever_is_computed_in(name, dtype):
    model = build(name, (8, 8, 1), dtype)
    assert model(jnp.ones((2, 8, 8, 1))).dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.float32)}


def test_batch_normalisation_moves_a_tenth_towards_the_batch_and_evaluation_uses_the_averages():
    model = build("cnn", (8, 8, 1))
    normalisation = model.layers[1]
    images = jax.random.normal(jax.random.key(0), (64, 8, 8, 1)) + 3
    of_batch = model.layers[0](images).mean((0, 1, 2))
    model.train()
    model(images)
    np.testing.assert_allclose(normalisation.mean[...], 0.1 * of_batch, rtol=1e-4, atol=1e-6)
    model.eval()
    alone = jnp.concatenate([model(images[:1]), model(images[1:2])])
    np.testing.assert_allclose(model(images)[:2], alone, rtol=1e-4, atol=1e-5)
