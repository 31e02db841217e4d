import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import dump_svmlight_file, load_breast_cancer
from sklearn.metrics import roc_auc_score

from softbin.experiments.boosting import boosters, losses, run, tables
from softbin.experiments.runs.errors import UserError
from softbin.experiments.train import train
from tests.experiments.boosting.test_boosters import split
from tests.libraries import BOOSTERS, needs_lightgbm

pytestmark = pytest.mark.usefixtures("sketched")

CONFIGS = Path(__file__).parents[3] / "configs"
TIMES = ("train_seconds", "date")


def config(**changes):
    result = runpy.run_path(str(CONFIGS / "boosting_breast_cancer.py"))["get_config"]()
    result.update(
        {"rounds": 6, "fixed_rounds": 3, "evaluate_every": 2, "checkpoint_every": 2, "loss": "logistic", **changes}
    )
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
    best = max(records.values(), key=lambda record: record["validation_precision_at_10"])
    assert summary["at_max_test_precision_at_10"] == best["test_precision_at_10"]
    assert (summary["train_examples"], summary["validation_examples"], summary["test_examples"]) == (341, 114, 114)
    assert summary["versions"]["lightgbm"]
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")


@needs_lightgbm
def test_a_finished_run_is_not_run_again(finished, monkeypatch):
    summary, workdir = finished
    monkeypatch.setattr(tables, "load", None)
    assert train(config(), workdir) == summary
    with pytest.raises(UserError, match="rounds is 6 there and 7 here"):
        train(config(rounds=7), workdir)


def results(workdir):
    records = [*metrics(workdir), json.loads((workdir / "summary.json").read_text())]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def cut_off(settings, workdir, after, monkeypatch):
    """Run, and stop in the round after `after` rounds."""
    grow, rounds = boosters.BOOSTERS[settings.booster].grow, iter(range(after))

    def interrupted(self):
        if next(rounds, None) is None:
            raise KeyboardInterrupt
        grow(self)

    with monkeypatch.context() as patched:
        patched.setattr(boosters.BOOSTERS[settings.booster], "grow", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings, workdir)


@pytest.mark.parametrize("booster", BOOSTERS)
@pytest.mark.parametrize("changes", [{"loss": "hypersimplex"}, {"loss": "logistic", "dataset": "diamonds"}])
def test_a_run_that_was_cut_off_ends_with_the_results_of_one_that_was_not(booster, changes, tmp_path, monkeypatch):
    if changes.get("dataset"):
        monkeypatch.setattr(tables, "load", lambda *_: split(classes=3))
    settings = config(booster=booster, **changes)
    cut_off(settings, tmp_path / "cut", 5, monkeypatch)
    assert [record["round"] for record in metrics(tmp_path / "cut")] == [2, 3, 4]
    train(settings, tmp_path / "cut")
    train(settings, tmp_path / "whole")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A run of XGBoost that was stopped in its sixth round."""
    workdir = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patched:
        cut_off(config(booster="xgboost"), workdir, 5, patched)
    return workdir


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    train(config(booster="xgboost"), workdir)
    return workdir


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-40],
        lambda content: content[:90] + b"?" + content[91:],
        lambda content: content.replace(b"\x2d\x03\x2d\x00", b"\x2d\x03\xff\x00"),  # of a later version of zip
    ],
)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_it_used(damage, cut, whole, tmp_path, capsys):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "checkpoints" / "4.npz"
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    train(config(booster="xgboost"), tmp_path)
    assert results(tmp_path) == results(whole)
    message = r"checkpoint \S+4.npz is damaged \(.+\), moved to damaged-4.npz: boosting goes on from round 2\n"
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("booster", BOOSTERS)
@pytest.mark.parametrize("loss", ["hypersimplex", "centred_squared_error"])
def test_every_loss_learns(booster, loss, tmp_path):
    summary = train(config(booster=booster, loss=loss, learning_rate=0.3), tmp_path)
    assert summary["best_test_auc"] > 0.95
    assert max(summary["best_test_error"], summary["best_test_error_thresholded"]) < 0.1


@pytest.mark.parametrize("content", [None, "", '{"round": 2}\n{"rou'])
def test_a_run_without_its_records_is_refused(content, cut, tmp_path):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    (tmp_path / "metrics.jsonl").unlink()
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged, it lacks records .* remove .*, or choose another"):
        train(config(booster="xgboost"), tmp_path)


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
