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
    np.testing.assert_allclose(ALL_REGULARIZERS[name].link(jnp.asarray(U)), exact.LINKS[name](U), atol=1e-7)


@each_regularizer
def test_parts_add_up_and_have_the_slope_of_the_link(name, x64):
    regularizer, u = ALL_REGULARIZERS[name], jnp.asarray(U, float) + 0.01
    parts = regularizer.parts(u)
    np.testing.assert_array_equal(parts.whole + parts.fraction, regularizer.link(u))
    assert set(np.unique(parts.whole)) == {0, 1}
    assert (set(np.unique(parts.slope)) == {0, 1}) == regularizer.piecewise_linear
    np.testing.assert_allclose(parts.slope, jax.vmap(jax.grad(regularizer.link))(u), rtol=1e-12)


@each_regularizer
def test_parts_are_what_one_of_your_own_would_give(name):
    assert type(ALL_REGULARIZERS[name].parts(jnp.asarray(U))) is softbin.regularizers.LinkParts


@each_regularizer
def test_inverse_link_undoes_the_link(name):
    y = jnp.linspace(0.01, 0.99, 33)
    regularizer = ALL_REGULARIZERS[name]
    np.testing.assert_allclose(regularizer.link(regularizer.inverse_link(y, 1 - y)), y, rtol=1e-6)


@each_regularizer
def test_penalty_has_the_inverse_link_as_derivative(name, x64):
    y = jnp.linspace(0.01, 0.99, 33)
    regularizer = ALL_REGULARIZERS[name]
    np.testing.assert_allclose(
        jax.vmap(jax.grad(regularizer.penalty))(y), regularizer.inverse_link(y, 1 - y), rtol=1e-9
    )


@each_regularizer
def test_infinite_arguments_saturate_and_nan_stays(name):
    u = jnp.array([-jnp.inf, -3e38, 3e38, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(ALL_REGULARIZERS[name].link(u), [0, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(ALL_REGULARIZERS[name].parts(u).slope[:4], 0)


@each_regularizer
def test_divergence_is_the_difference_and_keeps_the_digits_that_it_loses(name, x64):
    regularizer = ALL_REGULARIZERS[name]
    q = jnp.linspace(0.02, 0.98, 25)[:, None]
    for distance in np.logspace(-6, -0.5, 12):
        y = jnp.concatenate([q + distance, q - distance], 1).astype(jnp.float32)
        inside = (y >= 0) & (y <= 1)
        single = q.astype(jnp.float32)
        found, exact_one = (regularizer.divergence(y.astype(d), single.astype(d)) for d in (jnp.float32, float))
        np.testing.assert_allclose(jnp.where(inside, found, 0), jnp.where(inside, exact_one, 0), rtol=2e-4)
        wide, base = y.astype(float), single.astype(float)
        difference = regularizer.penalty(wide) - regularizer.penalty(base)
        difference -= regularizer.inverse_link(base, 1 - base) * (wide - base)
        np.testing.assert_allclose(jnp.where(inside, exact_one, 0), jnp.where(inside, difference, 0), atol=1e-14)


@pytest.mark.parametrize("alpha", [1, 2.1, np.nan])
def test_alpha_of_tsallis_is_checked(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \(1, 2\], got"):
        softbin.tsallis(alpha)


def test_tsallis_of_two_is_euclidean():
    u = jnp.asarray(U)
    np.testing.assert_allclose(softbin.tsallis(2).link(u - 1), softbin.euclidean.link(u), atol=1e-7)
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
    fraction = softbin.binary_entropy.parts(jnp.float32(40)).fraction
    np.testing.assert_allclose(fraction, -expit(-40.0), rtol=1e-5)


def test_a_distribution_without_a_variance_is_refused():
    with pytest.raises(
        ValueError, match="variance must be finite, got inf: a link's tails must fall at least exponentially"
    ):
        Regularizer(jnp.square, lambda y, complement: y, lambda u: u, mean=0.0, variance=jnp.inf)
