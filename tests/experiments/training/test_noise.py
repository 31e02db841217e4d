import numpy as np
import pytest

from softbin.experiments.datasets import data
from softbin.experiments.training import noise
from tests.experiments.datasets.test_data import balanced

VALIDATION = 2000


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", validation_examples=300)


def clean(examples: int) -> data.Dataset:
    """As many of each class, with validation examples."""
    dataset, held_out = balanced(examples), balanced(VALIDATION)
    return dataset._replace(validation_images=held_out.train_images, validation_labels=held_out.train_labels)


def test_symmetric_noise_replaces_its_share_by_uniformly_random_classes():
    before = clean(20_000)
    noisy = noise.with_label_noise(before, "digits", "symmetric", 0.4, seed=0)
    changed = noisy.train_labels != before.train_labels
    assert changed.mean() == pytest.approx(0.4 * 0.9, abs=0.01)  # a tenth of what is replaced keeps its class
    assert np.allclose(np.bincount(noisy.train_labels[changed]) / changed.sum(), 0.1, atol=0.01)
    assert np.array_equal(before.train_labels, np.arange(20_000) % 10)


def test_all_labels_can_be_noise():
    noisy = noise.with_label_noise(clean(20_000), "digits", "symmetric", 1.0, seed=0)
    assert noisy.train_clean.mean() == pytest.approx(0.1, abs=0.01)


def test_pair_noise_gives_its_share_the_next_class():
    before = clean(1000)
    noisy = noise.with_label_noise(before, "digits", "pair", 0.3, seed=0)
    changed = noisy.train_labels != before.train_labels
    assert changed.sum() == 300
    assert np.array_equal(noisy.train_labels[changed], (before.train_labels[changed] + 1) % 10)


def test_pairs_of_fashion_mnist_are_similar_classes_that_swap():
    before = clean(1000)
    noisy = noise.with_label_noise(before, "fashion_mnist", "pair", 1.0, seed=0)
    swapped = dict(zip(before.train_labels.tolist(), noisy.train_labels.tolist(), strict=True))
    t_shirt, pullover, coat, shirt, sneaker, boot = 0, 2, 4, 6, 7, 9
    assert (swapped[t_shirt], swapped[pullover], swapped[sneaker]) == (shirt, coat, boot)
    assert all(swapped[swapped[label]] == label != swapped[label] for label in range(10))


def test_instance_noise_changes_its_share_of_the_hard_examples_to_likely_classes(digits):
    noisy = noise.with_label_noise(digits, "digits", "instance", 0.3, seed=0)
    wrong = ~noisy.train_clean
    assert wrong.sum() == round(0.3 * len(wrong))
    centres = np.stack([digits.train_images[digits.train_labels == c].mean(0) for c in range(10)])
    distances = np.sum((digits.train_images[:, None] - centres) ** 2, (2, 3, 4))
    own, given = (distances[np.arange(len(wrong)), labels] for labels in (digits.train_labels, noisy.train_labels))
    ranks = np.sum(distances[wrong] < given[wrong, None], 1)
    assert own[wrong].mean() > 1.03 * own[~wrong].mean()
    assert ranks.mean() < 4  # of 10 classes; by chance 5


@pytest.mark.parametrize("kind", noise.KINDS)
def test_validation_labels_are_as_noisy_as_training_labels_and_test_labels_are_right(kind, digits):
    noisy = noise.with_label_noise(digits, "digits", kind, 0.4, seed=0)
    kept = 0.64 if kind == "symmetric" else 0.6
    assert noisy.train_clean.mean() == pytest.approx(kept, abs=0.02)
    assert np.array_equal(noisy.train_clean, noisy.train_labels == digits.train_labels)
    assert np.mean(noisy.validation_labels == digits.validation_labels) == pytest.approx(kept, abs=0.05)
    assert noisy.test_labels is digits.test_labels
    assert noisy.train_images is digits.train_images


@pytest.mark.parametrize("kind", noise.KINDS)
def test_a_seed_determines_the_noise(kind, digits):
    first, again, other = (noise.with_label_noise(digits, "digits", kind, 0.4, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train_labels, again.train_labels)
    assert np.array_equal(first.validation_labels, again.validation_labels)
    assert not np.array_equal(first.train_labels, other.train_labels)


def test_training_labels_do_not_depend_on_the_number_of_validation_examples():
    first, second = (
        noise.with_label_noise(dataset, "digits", "symmetric", 0.4, seed=0) for dataset in (clean(500), balanced(500))
    )
    assert np.array_equal(first.train_labels, second.train_labels)


def test_a_class_that_no_training_example_has_is_drawn_by_no_small_model(digits):
    few = digits._replace(train_labels=digits.train_labels % 9, validation_labels=digits.validation_labels % 9)
    noisy = noise.with_label_noise(few, "digits", "instance", 0.4, seed=0)
    assert noisy.train_labels.max() == 8
