import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin.experiments.benchmark.lapsum import lapsum


@pytest.mark.parametrize("k", [1, 7, 20.5, 63])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2, 1e4])  # from all thresholds beyond the point to gaps that underflow
def test_lapsum_has_the_value_and_gradient_of_laplace(scale, k, x64):
    rng = np.random.default_rng(0)
    point, cotangent = jnp.asarray(scale * rng.standard_normal((3, 64))), jnp.asarray(rng.standard_normal((3, 64)))
    y, vjp = jax.vjp(lambda x: lapsum(x, k), point)
    expected, expected_vjp = jax.vjp(lambda x: softbin.soft_binary_argmax(x, k, regularizer=softbin.laplace), point)
    np.testing.assert_allclose(y, expected, atol=1e-11)
    np.testing.assert_allclose(*vjp(cotangent), *expected_vjp(cotangent), atol=1e-11)


def test_lapsum_of_ties():
    np.testing.assert_allclose(lapsum(jnp.array([1.0, 1.0, 1.0, 1.0]), 1), 0.25)
