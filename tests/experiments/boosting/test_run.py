import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import dump_svmlight_file, load_breast_cancer
from sklearn.metrics import roc_auc_score

from softbin.experiments.boosting import boosters, losses, run, tables
from softbin.experiments.common.errors import UserError
from softbin.experiments.train import train
from tests.libraries import BOOSTERS, needs_lightgbm

CONFIGS = Path(__file__).parents[3] / "configs"


def config(**changes):
    result = runpy.run_path(str(CONFIGS / "boosting_breast_cancer.py"))["get_config"]()
    result.update({"rounds": 6, "fixed_rounds": 3, "evaluate_every": 2, "loss": "logistic", **changes})
    return result


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "new"
    return train(config(), workdir), workdir


@needs_lightgbm
def test_the_summary_has_the_fixed_and_the_best_round(finished):
    summary, workdir = finished
    assert json.loads((workdir / "summary.json").read_text()) == summary
    records = {record["round"]: record for record in metrics(workdir)}
    assert list(records) == [2, 3, 4, 6]
    best = max(records, key=lambda done: records[done]["validation_auc"])
    assert summary["best_round"] == best
    for stop, done in (("fixed", 3), ("best", best)):
        for name in ("validation_auc", "test_auc", "test_log_loss", "test_error", "test_error_thresholded"):
            assert summary[f"{stop}_{name}"] == records[done][name]
    assert (summary["train_examples"], summary["validation_examples"], summary["test_examples"]) == (341, 114, 114)
    assert summary["versions"]["lightgbm"]
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")


@needs_lightgbm
def test_a_finished_run_is_not_run_again_and_one_that_was_cut_off_starts_anew(finished, tmp_path, monkeypatch):
    summary, _ = finished
    with monkeypatch.context() as patched:
        patched.setattr(boosters._LightGBM, "margins", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config(), tmp_path)
    again = train(config(), tmp_path)
    times = ("train_seconds", "date")
    assert {k: v for k, v in again.items() if k not in times} == {k: v for k, v in summary.items() if k not in times}
    monkeypatch.setattr(tables, "load", None)
    assert train(config(), tmp_path) == again
    with pytest.raises(UserError, match="rounds is 6 there and 7 here"):
        train(config(rounds=7), tmp_path)


@pytest.mark.parametrize("booster", BOOSTERS)
@pytest.mark.parametrize("loss", ["hypersimplex", "centred_squared_error"])
def test_every_loss_learns(booster, loss, tmp_path):
    summary = train(config(booster=booster, loss=loss, learning_rate=0.3), tmp_path)
    assert summary["best_test_auc"] > 0.95
    assert max(summary["best_test_error"], summary["best_test_error_thresholded"]) < 0.1


def test_measures_are_those_of_the_held_out_rows():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], 50))
    parts = [tables.Rows(None, labels) for _ in range(3)]
    margins = [labels + rng.normal(size=100) for _ in range(3)]
    found = run.measures(margins, tables.Split(*parts, classes=2), losses.loss("logistic", "lightgbm", "unit"))
    for name, margin in zip(("validation", "test"), margins[1:], strict=True):
        assert found[f"{name}_auc"] == pytest.approx(roc_auc_score(labels, margin))
        assert found[f"{name}_error"] == pytest.approx(np.mean((margin > 0) != labels))
        signed = np.where(labels == 1, margin, -margin)
        assert found[f"{name}_log_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-signed))))
    assert found["test_error"] != found["validation_error"]


@needs_lightgbm
def test_a_libsvm_file_replaces_the_data_set(tmp_path):
    features, labels = load_breast_cancer(return_X_y=True)
    dump_svmlight_file(features, labels * 2 - 1, str(tmp_path / "tumours.txt"))
    summary = train(config(data=str(tmp_path / "tumours.txt")), tmp_path / "run")
    assert summary["dataset"] == "tumours"
    assert "data" not in summary
    assert summary["best_test_auc"] > 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed_rounds": 7}, "fixed_rounds 7 is more than rounds 6: lower it"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"temperature": 1.5}, "unknown fields temperature: see .*boosting_breast_cancer.py"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"dataset": "iris"}, "unknown dataset 'iris'"),
    ],
)
def test_bad_configs_are_refused_and_nothing_is_written(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(UserError, match="the booster xgboost is not installed: pip install xgboost"):
        train(config(booster="xgboost"), tmp_path / "run")
