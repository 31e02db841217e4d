import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin.experiments.benchmark.numpy_projections import (
    exact_choice,
    exact_projection,
    isotonic_projection,
    laplace_link,
)
from tests import exact


def points():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(64)
    return {
        "normal": normal,
        "spread": 5 * normal,
        "ties": np.round(3 * normal),
        "equal": np.ones(64),
        "offset": normal + 1e4,
        "vertex": 10.0 * rng.permutation(64),
    }


@pytest.mark.parametrize("k", [0, 1, 7, 20.5, 63, 64])
@pytest.mark.parametrize("name", points())
def test_exact_projection_is_exact(name, k):
    point = points()[name]
    np.testing.assert_allclose(exact_projection(point, float(k)), exact.euclidean(point, k).y, atol=1e-11)


@pytest.mark.parametrize("k", [1, 20.5, 63])
@pytest.mark.parametrize("name", points())
def test_exact_choice_is_exact(name, k):
    point = points()[name].astype(np.float32)
    expected = exact.smooth(exact.laplace_link, point, k).y
    np.testing.assert_allclose(exact_choice(laplace_link, point, float(k)), expected, atol=1e-11)


@pytest.mark.parametrize("k", [0, 1, 7, 20, 63, 64])
@pytest.mark.parametrize("name", points())
def test_isotonic_projection_has_the_value_and_gradient_of_soft_binary_argmax(name, k, x64):
    point, cotangent = points()[name], np.random.default_rng(1).standard_normal(64)
    y, transposed_jacobian = isotonic_projection(point, k)
    expected, vjp = jax.vjp(lambda x: softbin.soft_binary_argmax(x, k), jnp.asarray(point))
    np.testing.assert_allclose(y, expected, atol=1e-11)
    if name != "ties":  # there entries at 0 and 1 are tied with the ends of the active set, at a kink
        np.testing.assert_allclose(transposed_jacobian(cotangent), *vjp(jnp.asarray(cotangent)), atol=1e-11)


def test_isotonic_gradient_is_zero_for_tied_saturated_entries():
    _, transposed_jacobian = isotonic_projection(np.array([5.0, 5.0, 0.6, 0.5, -4.0, -4.0]), 3)
    np.testing.assert_allclose(transposed_jacobian(np.arange(6.0)), [0, 0, -0.5, 0.5, 0, 0])
