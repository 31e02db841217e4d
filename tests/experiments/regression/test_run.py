import json
import re

import numpy as np
import pandas as pd
import pytest

from softbin.experiments.configs import regression, regression_development, regression_diamonds
from softbin.experiments.kinds import MEDIAN_ERROR, REGRESSION_MEASURES
from softbin.experiments.regression import targets
from softbin.experiments.regression.run import ESTIMATORS, sentence
from softbin.experiments.runs import grids
from softbin.experiments.runs.errors import UserError
from softbin.experiments.train import train

pytestmark = pytest.mark.usefixtures("sketched")

SLOPE = 3.0


@pytest.fixture(autouse=True, scope="module")
def line():
    """Targets on a line, but for noise that is small beside its slope."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 1200)
    frame = pd.DataFrame({"x": x, "side": pd.Categorical(np.where(x > 0, "right", "left"))})
    right = 10 + SLOPE * x + 0.1 * rng.normal(size=1200)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(targets.TABLES, "line", lambda: (frame, right))
        yield


def config(**changes):
    result = regression_diamonds.get_config()
    small = {
        "estimator": "linear",
        "train_examples": 600,
        "held_out_examples": 300,
        "epochs": 100,
        "batch_size": 200,
        "hidden": (8,),
    }
    result.update({"dataset": "line", "learning_rate": 0.1, **small, **changes})
    return result


@pytest.fixture(scope="module")
def finished(line, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("line")
    return train(config(), workdir), workdir


def test_trimmed_squares_recover_a_line_from_shifted_targets_and_squares_do_not(tmp_path):
    trimmed = train(config(keep=0.65), tmp_path / "trimmed")
    squared = train(config(loss="squared"), tmp_path / "squared")
    assert trimmed["test_mae"] < 0.1
    assert trimmed["test_rmse"] < 0.13  # the noise has 0.1
    assert squared["test_mae"] > 1.5  # a third of the shift, about 5 * 3 / 1.349


@pytest.mark.parametrize(
    ("estimator", "loss"), [(estimator, loss) for estimator, losses in ESTIMATORS.items() for loss in losses]
)
def test_every_loss_learns_a_line_from_right_targets(estimator, loss, tmp_path):
    summary = train(config(estimator=estimator, loss=loss, corrupted=0.0, delta=1.1, keep=0.9), tmp_path)
    assert summary["test_mae"] < 0.15


def test_the_summary_is_that_of_the_last_epoch_and_in_the_units_of_the_table(finished, tmp_path, monkeypatch):
    summary, workdir = finished
    assert json.loads((workdir / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 101))
    assert {name: records[-1][name] for name in (MEDIAN_ERROR, *REGRESSION_MEASURES)} == {
        name: summary[name] for name in (MEDIAN_ERROR, *REGRESSION_MEASURES)
    }
    assert re.fullmatch(r"line, linear, trimmed: test MAE 0\.\d+, RMSE 0\.\d+", sentence(summary))
    frame, right = targets.TABLES["line"]()
    monkeypatch.setitem(targets.TABLES, "line", lambda: (frame, 60 * right))
    other_units = train(config(), tmp_path)
    for name in (MEDIAN_ERROR, *REGRESSION_MEASURES):
        assert other_units[name] == pytest.approx(60 * summary[name], rel=0.02)


def test_a_run_is_repeated_exactly_and_a_finished_one_is_not_run_again(finished, tmp_path):
    first, workdir = finished
    again = train(config(), tmp_path)
    assert {**first, "train_seconds": 0, "date": ""} == {**again, "train_seconds": 0, "date": ""}
    assert train(config(), workdir)["train_seconds"] == first["train_seconds"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimator": "tree"}, "unknown estimator 'tree': choose one of linear, mlp"),
        ({"estimator": "mlp", "loss": "ransac"}, "the estimator mlp has no loss 'ransac': choose one of squared, abs"),
        ({"keep": 1.1}, r"keep must be a share of the batch, at most 1, got 1\.1"),
        ({"keep": 0.0}, r"keep must be positive and finite, got 0\.0"),
        ({"delta": float("nan")}, "delta must be positive and finite, got nan"),
        ({"batch_size": 601}, "batch_size 601 is more than train_examples 600: lower it"),
        ({"loss": "huber_regressor", "delta": 0.5}, r"the delta of huber_regressor must be at least 1, got 0\.5"),
        ({"corrupted": 2.0}, r"corrupted must be a share of the targets in \[0, 1\], got 2\.0"),
        ({"hidden": (8, 0)}, r"hidden must be widths of at least 1, such as \(128, 128\), got \(8, 0\)"),
        ({"temperature": 1.0}, "unknown fields temperature: see .*regression_diamonds.py"),
    ],
)
def test_bad_configs_are_refused_and_nothing_is_written(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_sweep_has_seeds_of_its_own_and_every_loss_at_settings_that_were_searched():
    development, confirmation = (grids.expand(each.get_config()) for each in (regression_development, regression))
    assert not {run.seed for run in development.values()} & {run.seed for run in confirmation.values()}
    for estimator, losses in ESTIMATORS.items():
        found = {run.loss for run in confirmation.values() if run.estimator == estimator}
        assert found == set(losses)
    tuned = ("estimator", "loss", "delta", "learning_rate")
    searched = {tuple(run[name] for name in tuned) for run in development.values()}
    assert {tuple(run[name] for name in tuned) for run in confirmation.values()} <= searched
