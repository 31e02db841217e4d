from types import SimpleNamespace

import numpy as np
import pytest

from softbin.experiments.boosting import losses
from softbin.experiments.boosting.tables import Rows
from softbin.experiments.runs.errors import UserError


def rows(classes, n=60):
    rng = np.random.default_rng(classes)
    labels = np.tile(np.arange(classes, dtype=np.int32), n // classes)
    shape = (n,) if classes == 2 else (n, classes)
    return rng.normal(scale=0.05, size=shape), Rows(None, labels)  # so near each other that no bound is reached


def dataset(labels):
    return SimpleNamespace(get_label=lambda: labels, get_weight=lambda: None)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", list(losses.PROJECTED))
def test_without_saturation_the_projection_is_the_centred_squared_error(classes, name):
    margins, training = rows(classes)
    ours, baseline = (losses.loss(each, "lightgbm", "unit") for each in (name, losses.CENTRED))
    for found, expected in zip(
        *(each.objective(margins, dataset(training.labels)) for each in (ours, baseline)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    others = np.random.default_rng(9).normal(scale=0.5, size=margins.shape)
    assert np.array_equal(ours.decisions(margins, training)(others), baseline.decisions(margins, training)(others))


def test_a_budget_is_a_share_of_the_training_rows():
    margins, labels = np.linspace(0, 9, 50), np.arange(50) % 2
    share, positives = (
        losses.loss("hypersimplex", "lightgbm", "unit", budget).objective(margins, dataset(labels))[0]
        for budget in ("0.1", "")
    )
    assert np.flatnonzero(share).mean() == pytest.approx(50 - 5, abs=1)  # about the fifth from the top
    assert np.flatnonzero(positives).mean() == pytest.approx(25, abs=1)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_logistic_loss_has_its_own_probabilities_and_decides_at_one_half(classes):
    margins, training = rows(classes)
    loss = losses.loss("logistic", "xgboost", "unit")
    assert loss.objective is None
    p = loss.probabilities(margins, training)(margins)
    np.testing.assert_allclose(p.sum(1), 1)
    logits = np.stack([np.zeros(len(margins)), margins], 1) if classes == 2 else margins
    np.testing.assert_allclose(p, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    assert np.array_equal(loss.decisions(margins, training)(margins), logits.argmax(1))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_others_have_probabilities_by_calibration(classes):
    _, training = rows(classes)
    informative = (training.labels == 1) * 4.0 if classes == 2 else 4.0 * (training.labels[:, None] == range(classes))
    p = losses.loss("hypersimplex", "xgboost", "unit").probabilities(informative, training)(informative)
    assert p.shape == (60, classes)
    assert np.array_equal(p.argmax(1), training.labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hinge", "lightgbm", "unit"), "unknown loss 'hinge': choose one of hypersimplex, fenchel_young, logistic"),
        (("logistic", "catboost", "unit"), "unknown booster 'catboost': choose one of lightgbm, xgboost"),
        (
            ("hypersimplex", "lightgbm", "unit", "2%"),
            r"unknown budget '2%': choose a share of the training rows in \[0, 1\]",
        ),
        (("hypersimplex", "lightgbm", "full"), "unknown hessian 'full': choose one of unit, gauss_newton"),
    ],
)
def test_unknown_names_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        losses.loss(*arguments)
