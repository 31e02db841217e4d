import sys

import numpy as np
import pytest
import xgboost

from softbin.experiments.boosting import boosters, losses, tables
from softbin.experiments.runs.errors import UserError
from tests.libraries import BOOSTERS, lightgbm

RATE, ROUNDS = 0.3, 6


def split(classes):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 100, 4)).astype(np.float32)
    labels = np.tile(np.arange(classes, dtype=np.int32), 100)[:100]
    features[..., 0] += labels
    return tables.Split(*(tables.Rows(part, labels) for part in features), classes=classes)


def by_their_own_train(name, parts, objective):
    several = {"num_class": parts.classes} if parts.classes > 2 else {}
    if name == "lightgbm":
        built_in = "multiclass" if several else "binary"
        parameters = {"learning_rate": RATE, "verbosity": -1, "objective": objective or built_in, **several}
        model = lightgbm.train(parameters, lightgbm.Dataset(*parts.train), ROUNDS)
        return [model.predict(rows.features, raw_score=True) for rows in parts[:3]]
    built_in = {} if objective else {"objective": "multi:softprob" if several else "binary:logistic"}
    matrices = [xgboost.DMatrix(*rows) for rows in parts[:3]]
    model = xgboost.train({"learning_rate": RATE, **built_in, **several}, matrices[0], ROUNDS, obj=objective)
    return [model.predict(matrix, output_margin=True) for matrix in matrices]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["logistic", "hypersimplex"])
@pytest.mark.parametrize("name", BOOSTERS)
def test_growing_round_by_round_with_a_new_start_between_is_the_libraries_own_training(name, loss, classes):
    parts = split(classes)
    booster = boosters.BOOSTERS[name](parts, losses.loss(loss, name, "unit").objective, RATE)
    for done in range(ROUNDS):
        booster.grow()
        if done in (1, 4):
            booster.margins()
        if done == 2:
            booster.go_on_from(booster.margins())
    expected = by_their_own_train(name, parts, losses.loss(loss, name, "unit").objective)
    for margins, reference in zip(booster.margins(), expected, strict=True):
        assert np.ptp(margins) > 0.5
        np.testing.assert_allclose(margins, reference, rtol=1e-5, atol=1e-5)
    for margins, again in zip(booster.margins(), booster.margins(), strict=True):
        assert np.array_equal(margins, again)


def test_the_system_library_that_a_booster_needs_is_named(tmp_path, monkeypatch):
    (tmp_path / "lightgbm.py").write_text("import ctypes; ctypes.CDLL('libnowhere.so.1')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    with pytest.raises(UserError, match=r"lightgbm does not load \(libnowhere.so.1: .*apt-get install libgomp1"):
        boosters.library("lightgbm")
