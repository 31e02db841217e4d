import numpy as np
import pytest

from softbin.experiments.datasets import data
from softbin.experiments.runs.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def balanced(examples: int) -> data.Dataset:
    """As many examples of each class, whose images are their numbers."""
    images = np.arange(examples, dtype=np.float32).reshape(-1, 1, 1, 1)
    labels = np.arange(examples, dtype=np.int32) % 10
    return data.Dataset(images, labels, images[:0], labels[:0], images[:5], labels[:5], np.ones(examples, bool))


def test_digits_have_ten_classes_and_pixels_in_the_unit_interval(digits):
    assert digits.train_images.shape == (1437, 8, 8, 1)
    assert digits.validation_images.shape == (0, 8, 8, 1)
    assert digits.test_images.shape == (360, 8, 8, 1)
    assert digits.train_images.dtype == np.float32
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 1)
    assert set(digits.test_labels) == set(range(10))


def test_train_examples_takes_the_first_and_validation_examples_the_last(digits):
    dataset = data.load("digits", train_examples=100, validation_examples=37)
    assert np.array_equal(dataset.train_images, digits.train_images[:100])
    assert np.array_equal(dataset.train_labels, digits.train_labels[:100])
    assert np.array_equal(dataset.validation_images, digits.train_images[1400:])
    assert np.array_equal(dataset.validation_labels, digits.train_labels[1400:])


def test_what_is_for_validation_is_not_for_training(digits):
    dataset = data.load("digits", validation_examples=37)
    assert np.array_equal(dataset.train_images, digits.train_images[:1400])


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({"train_examples": -1}, r"train_examples -1 is outside \[0, 1437\], the size of digits; 0 takes all"),
        ({"train_examples": 1438}, r"train_examples 1438 is outside \[0, 1437\]"),
        ({"train_examples": 1401, "validation_examples": 37}, r"\[0, 1400\], the size of digits less 37 validation"),
        ({"validation_examples": 1437}, r"validation_examples 1437 is outside \[0, 1436\]: digits has 1437"),
        ({"validation_examples": -1}, r"validation_examples -1 is outside"),
    ],
)
def test_more_examples_than_there_are_are_refused(examples, message):
    with pytest.raises(UserError, match=message):
        data.load("digits", **examples)


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(
        UserError, match="unknown dataset 'mnist': choose one of digits, fashion_mnist, fashion_mnist_shirts, cifar10, "
    ):
        data.load("mnist")


def test_the_classes_are_counted(digits):
    assert data.class_count(digits) == 10
    assert (
        data.class_count(digits._replace(train_labels=digits.train_labels % 3, test_labels=digits.test_labels % 4)) == 4
    )


def test_a_seed_determines_imbalance():
    first, again, other = (data.with_imbalance(balanced(1000), 0.4, seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.train_images, other.train_images)


def test_imbalance_is_the_rarest_class_over_the_commonest_on_an_exponential_profile():
    counts = np.bincount(data.with_imbalance(balanced(10_000), 0.01, seed=0).train_labels)
    assert (counts[0], counts[9]) == (1000, 10)
    assert np.allclose(counts[1:] / counts[:-1], 0.01 ** (1 / 9), rtol=0.05)


def test_imbalance_is_right_also_where_a_class_had_few_examples():
    dataset = balanced(1000)
    few = data.with_imbalance(dataset, 0.1, seed=0)
    reversed_labels = few._replace(train_labels=9 - few.train_labels)
    counts = np.bincount(data.with_imbalance(reversed_labels, 0.5, seed=0).train_labels)
    assert (counts[0], counts[9]) == (10, 5)


def test_imbalance_leaves_the_test_set_and_pairs_of_image_and_label():
    dataset = balanced(1000)
    few = data.with_imbalance(dataset, 0.1, seed=0)
    assert np.array_equal(few.train_images.ravel() % 10, few.train_labels)
    assert len(np.unique(few.train_images)) == len(few.train_images)
    assert len(few.train_clean) == len(few.train_labels)
    assert few.test_images is dataset.test_images


def test_standardised_pixels_have_mean_0_and_variance_1_in_every_channel():
    images = np.random.default_rng(0).random((50, 4, 4, 3), np.float32) * np.array([1, 0.1, 0.5], np.float32) + 0.3
    labels = np.zeros(50, np.int32)
    result = data.standardised(
        data.Dataset(images, labels, images[:0], labels[:0], images[:10], labels[:10], labels == 0)
    )
    np.testing.assert_allclose(result.train_images.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.train_images.std((0, 1, 2)), 1, atol=1e-5)
    assert np.array_equal(result.test_images, result.train_images[:10])
    assert result.train_images.dtype == np.float32
