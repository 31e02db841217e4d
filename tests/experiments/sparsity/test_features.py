import jax
import jax.numpy as jnp
import numpy as np
from sklearn.feature_selection import f_classif

from softbin.experiments.sparsity import features
from softbin.experiments.sparsity.images import Images, load


def test_filters_rank_as_those_of_scikit_learn_and_numpy():
    images = load("digits", "", 1024, 256, pooled=False).train
    varying = np.asarray(images.pixels.var(0)) > 0
    ratios = f_classif(np.asarray(images.pixels)[:, varying], np.asarray(images.labels))[0]
    ours = features._untrained("f_test", images, jax.random.key(0))[varying]
    np.testing.assert_allclose(ours / ours.max(), ratios / ratios.max(), rtol=1e-3)
    variance = features._untrained("variance", images, jax.random.key(0))
    np.testing.assert_allclose(variance, np.var(images.pixels, 0), atol=1e-6)


def test_a_pixel_that_all_images_share_has_no_importance():
    images = Images(jnp.ones((20, 3)), jnp.arange(20) % 10)
    np.testing.assert_array_equal(features._untrained("f_test", images, jax.random.key(0)), np.zeros(3))
