import jax
import jax.numpy as jnp
import numpy as np
from sklearn.feature_selection import f_classif

from softbin.experiments.datasets.images import Images, load
from softbin.experiments.sparsity import features

untrained = jax.jit(features._untrained, static_argnums=0)


def test_filters_rank_as_those_of_scikit_learn_and_numpy():
    images = load("digits", "", 1024, 256, 0, pooled=False).train
    varying = np.asarray(images.pixels).var(0) > 0
    ratios = f_classif(np.asarray(images.pixels)[:, varying], np.asarray(images.labels))[0]
    ours = np.asarray(untrained("f_test", images, jax.random.key(0)))[varying]
    np.testing.assert_allclose(ours / ours.max(), ratios / ratios.max(), rtol=1e-3)
    variance = untrained("variance", images, jax.random.key(0))
    np.testing.assert_allclose(variance, np.var(images.pixels, 0), atol=1e-6)


def test_a_pixel_that_all_images_share_has_no_importance():
    images = Images(jnp.ones((20, 3)), jnp.asarray(np.arange(20) % 10))
    np.testing.assert_array_equal(untrained("f_test", images, jax.random.key(0)), np.zeros(3))


def test_forward_takes_first_what_lowers_the_error_of_least_squares_most():
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((200, 5)).astype(np.float32)
    pixels[:, 3] = pixels[:, 0] + 0.01 * pixels[:, 3]  # says nothing that the first does not
    targets = np.stack([3 * pixels[:, 0] + pixels[:, 1], 0.3 * pixels[:, 4]], 1)
    pixels, targets = pixels - pixels.mean(0), targets - targets.mean(0)
    ours = np.argsort(-np.asarray(jax.jit(features._forward)(pixels, targets)))[:3].tolist()

    greedy: list[int] = []
    for _ in range(3):
        errors = {
            j: np.linalg.lstsq(pixels[:, [*greedy, j]], targets, rcond=None)[1].sum()
            for j in range(5)
            if j not in greedy
        }
        greedy.append(min(errors, key=errors.get))
    assert ours == greedy


def test_images_of_another_seed_are_others_and_those_for_testing_are_the_same():
    first, again, other = (load("digits", "", 100, 256, seed, pooled=False) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.train.pixels, again.train.pixels)
    assert np.any(np.asarray(first.train.pixels) != np.asarray(other.train.pixels))
    np.testing.assert_array_equal(first.test.pixels, other.test.pixels)
