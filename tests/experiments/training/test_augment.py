import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin.experiments.training.augment import augment


@pytest.mark.parametrize(("size", "padding"), [(28, 3), (32, 4)])
def test_every_image_is_a_crop_of_its_reflection_and_flipped_or_not(size, padding):
    image = np.random.default_rng(0).random((size, size, 2), np.float32)
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    offsets = range(2 * padding + 1)
    crops = {(r, c): padded[r : r + size, c : c + size] for r in offsets for c in offsets}
    known = {
        view.tobytes(): (*at, flip) for at, crop in crops.items() for flip, view in ((0, crop), (1, crop[:, ::-1]))
    }
    results = np.asarray(jax.jit(augment)(jax.random.key(0), jnp.broadcast_to(image, (2000, size, size, 2))))
    rows, columns, flips = np.array([known[result.tobytes()] for result in results]).T
    assert set(rows) == set(columns) == set(offsets)
    assert np.mean(flips) == pytest.approx(0.5, abs=0.05)
    assert np.mean(rows) == pytest.approx(padding, abs=0.2)
    assert abs(np.corrcoef([rows, columns, flips]) - np.eye(3)).max() < 0.1


def test_a_key_determines_the_result():
    images = jax.random.uniform(jax.random.key(1), (5, 28, 28, 1))
    first, again, other = (augment(jax.random.key(seed), images) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_vmap_over_seeds():
    images = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1))
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(augment, (0, None))(keys, images)
    for key, result in zip(keys, together, strict=True):
        assert np.array_equal(result, augment(key, images))
