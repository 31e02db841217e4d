from functools import partial

import jax
import numpy as np
import pytest

import softbin
from softbin.experiments.benchmark.lapsum import lapsum


@partial(jax.jit, static_argnames="k")
def both(point, cotangent, k):
    """Value and gradient of LapSum, and of the choice."""
    y, vjp = jax.vjp(lambda x: lapsum(x, k), point)
    expected, expected_vjp = jax.vjp(lambda x: softbin.soft_binary_argmax(x, k, regularizer=softbin.laplace), point)
    return (y, *vjp(cotangent)), (expected, *expected_vjp(cotangent))


@pytest.mark.parametrize("k", [1, 7, 20.5, 63])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2, 1e4])  # from all thresholds beyond the point to gaps that underflow
def test_lapsum_has_the_value_and_gradient_of_laplace(scale, k, x64):
    rng = np.random.default_rng(0)
    point, cotangent = scale * rng.standard_normal((3, 64)), rng.standard_normal((3, 64))
    for actual, expected in zip(*both(point, cotangent, k), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-11)


def test_lapsum_of_ties():
    np.testing.assert_allclose(jax.jit(lapsum, static_argnums=1)(np.ones(4, np.float32), 1), 0.25)
