import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

import softbin
from softbin.regularizers import Regularizer
from tests import exact
from tests.hard_cases import ALL_REGULARIZERS

U = np.linspace(-3, 3, 41, dtype=np.float32)  # without 0 and 1, where a slope may jump

each_regularizer = pytest.mark.parametrize("name", ALL_REGULARIZERS)


@each_regularizer
def test_link_matches_reference(name):
    np.testing.assert_allclose(jax.jit(ALL_REGULARIZERS[name].link)(U), exact.LINKS[name](U), atol=1e-7)


@each_regularizer
def test_parts_add_up_and_have_the_slope_of_the_link(name, x64):
    regularizer, u = ALL_REGULARIZERS[name], jnp.asarray(U.astype(float) + 0.01)
    parts = regularizer.parts(u)
    assert type(parts) is softbin.regularizers.LinkParts  # as one of your own would give
    whole, fraction, slope = map(np.asarray, parts)
    np.testing.assert_array_equal(whole + fraction, regularizer.link(u))
    assert set(np.unique(whole)) == {0, 1}
    assert (set(np.unique(slope)) == {0, 1}) == regularizer.piecewise_linear
    np.testing.assert_allclose(slope, jax.jit(jax.vmap(jax.grad(regularizer.link)))(u), rtol=1e-12)


@each_regularizer
def test_inverse_link_undoes_the_link(name):
    y, regularizer = np.linspace(0.01, 0.99, 33, dtype=np.float32), ALL_REGULARIZERS[name]
    back = jax.jit(lambda y, complement: regularizer.link(regularizer.inverse_link(y, complement)))
    np.testing.assert_allclose(back(y, 1 - y), y, rtol=1e-6)


@each_regularizer
def test_penalty_has_the_inverse_link_as_derivative(name, x64):
    y, regularizer = np.linspace(0.01, 0.99, 33), ALL_REGULARIZERS[name]
    both = jax.jit(lambda y: (jax.vmap(jax.grad(regularizer.penalty))(y), regularizer.inverse_link(y, 1 - y)))
    np.testing.assert_allclose(*both(y), rtol=1e-9)


@each_regularizer
def test_infinite_arguments_saturate_and_nan_stays(name):
    u, regularizer = np.float32([-np.inf, -3e38, 3e38, np.inf, np.nan]), ALL_REGULARIZERS[name]
    link, slope = jax.jit(lambda u: (regularizer.link(u), regularizer.parts(u).slope))(u)
    np.testing.assert_array_equal(link, [0, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(slope[:4], 0)


@each_regularizer
def test_divergence_is_the_difference_and_keeps_the_digits_that_it_loses(name, x64):
    regularizer = ALL_REGULARIZERS[name]
    q = np.linspace(0.02, 0.98, 25, dtype=np.float32)[:, None]
    distances = np.logspace(-6, -0.5, 12)[:, None, None]
    y = (q + distances * [1, -1]).astype(np.float32)

    @jax.jit
    def run(y, q):
        wide, base = y.astype(float), q.astype(float)
        difference = regularizer.penalty(wide) - regularizer.penalty(base)
        difference -= regularizer.inverse_link(base, 1 - base) * (wide - base)
        return regularizer.divergence(y, q), regularizer.divergence(wide, base), difference

    found, in_double, difference = (np.where((y >= 0) & (y <= 1), values, 0) for values in run(y, q))
    np.testing.assert_allclose(found, in_double, rtol=2e-4)
    np.testing.assert_allclose(in_double, difference, atol=1e-14)


@pytest.mark.parametrize("alpha", [1, 2.1, np.nan])
def test_alpha_of_tsallis_is_checked(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \(1, 2\], got"):
        softbin.tsallis(alpha)


def test_tsallis_of_two_is_euclidean():
    links = jax.jit(lambda u: (softbin.tsallis(2).link(u - 1), softbin.euclidean.link(u)))
    np.testing.assert_allclose(*links(U), atol=1e-7)
    assert softbin.tsallis(1.5) == softbin.tsallis(1.5) != softbin.tsallis(1.6)


@pytest.mark.parametrize("alpha", [1.000001, 1.01, 1.1, 1.9])
def test_tsallis_keeps_its_digits_for_every_alpha(alpha):
    scores = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    y = softbin.soft_binary_argmax(scores, 16.5, 0.7, regularizer=softbin.tsallis(alpha))

    def link(u):
        return np.where(
            u > -1 / (alpha - 1), np.exp(np.log1p((alpha - 1) * np.clip(u, -1 / (alpha - 1), 0)) / (alpha - 1)), 0
        )

    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(y, exact.smooth(link, scores, 16.5, np.float32(0.7)).y, atol=1e-6)


def test_binary_entropy_keeps_the_digits_of_a_small_complement():
    fraction = jax.jit(lambda u: softbin.binary_entropy.parts(u).fraction)(np.float32(40))
    np.testing.assert_allclose(fraction, -expit(-40.0), rtol=1e-5)


def test_a_distribution_without_a_variance_is_refused():
    with pytest.raises(
        ValueError, match="variance must be finite, got inf: a link's tails must fall at least exponentially"
    ):
        Regularizer(jnp.square, lambda y, complement: y, lambda u: u, mean=0.0, variance=jnp.inf)
