"""Data sets as arrays in memory, and what is done to them before training: imbalance, standardisation."""

from typing import NamedTuple

import numpy as np

from softbin.experiments.datasets.readers import READERS
from softbin.experiments.runs.errors import UserError


class Dataset(NamedTuple):
    """Images of shape (n, height, width, channels) as float32, labels of shape (n,) as int32.

    Pixels are in [0, 1]; the features of a table, an image of a single row, have mean 0 and variance 1.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    train_clean: np.ndarray  # of shape (n,): whether the label of a training example is right


def load(name: str, data_dir: str = "", train_examples: int = 0, validation_examples: int = 0) -> Dataset:
    """Load a data set by name.

    Args:
      name: `digits`, `fashion_mnist`, `fashion_mnist_shirts`, `cifar10`, or a table: `letter`, `optdigits`, `satimage`,
        `flights_one_hour`, `flights_before_departure`, `flights_two_hours`, `census`.
      data_dir: the folder of its files.
      train_examples: how many of the first examples to train on; 0 for all but the validation examples.
      validation_examples: how many to validate on, from the end of the training set.

    Raises:
      UserError: the name is unknown, files are missing or damaged, or there are not as many examples.
    """
    if name not in READERS:
        raise UserError(f"unknown dataset {name!r}: choose one of {', '.join(READERS)}")
    raw = READERS[name](data_dir)
    size = len(raw.train_labels)
    if not 0 <= validation_examples < size:
        raise UserError(
            f"validation_examples {validation_examples} is outside [0, {size - 1}]: {name} has {size} examples"
        )
    available = size - validation_examples
    if not 0 <= train_examples <= available:
        raise UserError(
            f"train_examples {train_examples} is outside [0, {available}], the size of {name}"
            + (f" less {validation_examples} validation_examples" if validation_examples else "")
            + "; 0 takes all"
        )
    train, validation, everything = slice(train_examples or available), slice(available, size), slice(None)

    def part(images: np.ndarray, labels: np.ndarray, examples: slice) -> tuple[np.ndarray, np.ndarray]:
        # one pass, so that no second copy in float32 is ever in memory, and only what is asked for is converted
        scaled = np.divide(images[examples], raw.peak, dtype=np.float32, order="C")
        return scaled, labels[examples].astype(np.int32)

    train_images, train_labels = part(raw.train_images, raw.train_labels, train)
    validation_images, validation_labels = part(raw.train_images, raw.train_labels, validation)
    test_images, test_labels = part(raw.test_images, raw.test_labels, everything)
    return Dataset(
        train_images,
        train_labels,
        validation_images,
        validation_labels,
        test_images,
        test_labels,
        np.ones(len(train_labels), bool),
    )


def class_count(dataset: Dataset) -> int:
    """How many classes the labels have, which are 0, 1, ... ."""
    return 1 + int(max(dataset.train_labels.max(), dataset.test_labels.max()))


def with_imbalance(dataset: Dataset, ratio: float, seed: int) -> Dataset:
    """Keep `m ratio^(c/(C-1))` random training examples of class `c`, with `m` as large as the classes allow.

    So the rarest class, the last, has `ratio` times the examples of the commonest, the first.

    References:
      Cui et al., `Class-Balanced Loss Based on Effective Number of Samples <https://arxiv.org/abs/1901.05555>`_,
      2019, section 5.1.
    """
    rng = np.random.default_rng(seed)
    classes = class_count(dataset)
    profile = ratio ** (np.arange(classes) / (classes - 1))
    counts = np.bincount(dataset.train_labels, minlength=classes)
    sizes = np.round(profile * np.min(counts / profile)).astype(int)
    of_class = (np.flatnonzero(dataset.train_labels == c) for c in range(classes))
    kept = np.sort(np.concatenate([rng.choice(c, n, replace=False) for c, n in zip(of_class, sizes, strict=True)]))
    return dataset._replace(
        train_images=dataset.train_images[kept],
        train_labels=dataset.train_labels[kept],
        train_clean=dataset.train_clean[kept],
    )


def standardised(dataset: Dataset) -> Dataset:
    """Shift and scale every channel so that the training pixels have mean 0 and variance 1."""
    train = dataset.train_images
    pixels = train[..., 0].size
    mean = train.sum((0, 1, 2), dtype=np.float64) / pixels
    variance = np.einsum("nhwc,nhwc->c", train, train, dtype=np.float64) / pixels - mean**2
    scale = 1 / np.sqrt(variance)

    def apply(images: np.ndarray) -> np.ndarray:
        result = images * scale.astype(np.float32)
        result -= (mean * scale).astype(np.float32)
        return result

    return dataset._replace(
        train_images=apply(train),
        validation_images=apply(dataset.validation_images),
        test_images=apply(dataset.test_images),
    )
