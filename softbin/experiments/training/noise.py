"""Wrong labels for the training and the validation examples; the test examples keep theirs."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softbin.experiments.datasets.data import Dataset, class_count

PARTNERS = {"fashion_mnist": (6, 3, 4, 1, 2, 8, 0, 9, 5, 7)}
"""For pair noise, the similar class of each: of Fashion-MNIST T-shirt and shirt, trouser and dress, pullover and coat,
sneaker and ankle boot, and what is left, sandal and bag."""
_FITTED = 2500  # examples, by the small models of instance noise


class _Change(NamedTuple):
    """How the labels of the training examples, followed by the validation examples, change."""

    weights: np.ndarray | None  # how likely each is to be chosen, up to a factor
    draw: Callable[[np.ndarray, np.random.Generator], np.ndarray]  # new labels for the examples at some places


def with_label_noise(dataset: Dataset, name: str, kind: str, share: float, seed: int) -> Dataset:
    """Change the labels of a random `share` of the training examples, and of the validation examples.

    Args:
      dataset: with right labels.
      name: that of the data set.
      kind: `symmetric`: a uniformly random class, which may be their own; `pair`: the similar class, or where there is
        no table of these the next; `instance`: hard examples are chosen, and confused as a small model does.
      share: how many of the examples are chosen.
      seed: it determines the noise.
    """
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels])
    change = KINDS[kind](dataset, name, seed)
    rng = np.random.default_rng(seed)
    start, changed = 0, labels.copy()
    for size in (len(dataset.train_labels), len(dataset.validation_labels)):
        weights = None if change.weights is None else change.weights[start : start + size]
        p = None if weights is None or not size else weights / weights.sum()
        chosen = start + rng.choice(size, round(share * size), replace=False, p=p)
        changed[chosen] = change.draw(chosen, rng)
        start += size
    train, validation = np.split(changed, [len(dataset.train_labels)])
    return dataset._replace(train_labels=train, validation_labels=validation, train_clean=train == dataset.train_labels)


def _symmetric(dataset: Dataset, name: str, seed: int) -> _Change:
    classes = class_count(dataset)
    return _Change(None, lambda chosen, rng: rng.integers(0, classes, len(chosen)))


def _pair(dataset: Dataset, name: str, seed: int) -> _Change:
    classes = class_count(dataset)
    partners = np.array(PARTNERS.get(name, [*range(1, classes), 0]))
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels])
    return _Change(None, lambda chosen, rng: partners[labels[chosen]])


def _instance(dataset: Dataset, name: str, seed: int) -> _Change:
    """An example is chosen by how improbable its label is to a small model, and gets another by its probabilities."""
    images = np.concatenate([dataset.train_images, dataset.validation_images])
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels])
    others = _out_of_sample(images.reshape(len(images), -1), labels, class_count(dataset), seed)
    others[np.arange(len(labels)), labels] = 0
    doubts = others.sum(1)

    def draw(chosen, rng):
        cumulative = np.cumsum(others[chosen], 1)
        return np.argmax(cumulative > rng.random((len(chosen), 1)) * cumulative[:, -1:], 1)

    return _Change(doubts, draw)


def _out_of_sample(features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Probabilities of the classes, of shape (n, classes), by a logistic regression that did not see the example.

    It is fitted to a small part of the examples; that part is predicted by a fit to another one. No probability is 0,
    so that any number of examples can be chosen.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    parts = max(2, math.ceil(len(labels) / _FITTED))
    folds = StratifiedKFold(parts, shuffle=True, random_state=seed).split(features, labels)
    (rest, first), (_, second), *_ = folds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a rough model is enough
        model = LogisticRegression(max_iter=20)
        p = cross_val_predict(model, features, labels, cv=[(first, rest), (second, first)], method="predict_proba")
    result = np.full((len(labels), classes), 1e-9)
    result[:, np.unique(labels)] += p
    return result


KINDS: dict[str, Callable[[Dataset, str, int], _Change]] = {
    "symmetric": _symmetric,
    "pair": _pair,
    "instance": _instance,
}
