import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from softbin.experiments.configs import regression_diamonds
from softbin.experiments.reports import run_table
from softbin.experiments.reports.regression import chosen_settings, comparison, report

NOISE = np.array([0.0, 0.01, -0.01, 0.02])  # of the seeds, in what is reached
GAINS = np.array([0.10, 0.11, 0.12, 0.11])  # of the trimmed mean over the best other loss, by seed
SETTING = {"estimator": "linear", "corruption": "random", "keep": 0.7}


def write_regression(workdir, error, **changes):
    config = {**regression_diamonds.get_config().to_dict(), **SETTING, **changes}
    fields = ("loss", "estimator", "keep", "learning_rate", "seed", "corrupted")
    run = workdir / "runs" / "-".join(str(config[name]) for name in fields)
    run.mkdir(parents=True)
    summary = {
        **config,
        **{"validation_median_error": error, "test_mae": error, "test_rmse": 0.5},
        "train_seconds": 1.0,
        "versions": {"softbin": "0.1.0", "jax": "0.10.2", "scikit-learn": "1.9.1"},
        "date": "2026-11-26T12:00:00+00:00",
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def workdir(tmp_path):
    """In every seed trimmed squares err less than the absolute error, and squares more; one rate is better."""
    for seed, (noise, gain) in enumerate(zip(NOISE, GAINS, strict=True)):
        for rate, more in ((0.1, 0.3), (0.3, 0.0)):
            for loss, error in (("squared", 1.2), ("absolute", 1.0), ("trimmed", 1.0 - gain)):
                write_regression(tmp_path, error + noise + more, loss=loss, learning_rate=rate, seed=seed)
    return tmp_path


def test_the_settings_that_validate_best_are_chosen(workdir):
    chosen = chosen_settings(run_table.read_workdir(workdir).table.assign(variant=lambda table: table["loss"]))
    assert chosen["learning_rate"].tolist() == [0.3] * 12


def test_the_trimmed_mean_is_tested_against_the_best_other_loss(workdir):
    table = run_table.read_workdir(workdir).table.assign(variant=lambda table: table["loss"])
    tests = comparison(chosen_settings(table)).set_index(["variant", "measure"])
    row = tests.loc["trimmed", "test_mae"]
    assert row["best"] == "absolute"
    assert row["difference"] == pytest.approx(-GAINS.mean())
    t = -GAINS.mean() / np.sqrt(GAINS.var(ddof=1) * (1 / 4 + 5120 / 10240))
    assert row["t"] == pytest.approx(t)
    assert row["p_holm"] == pytest.approx(2 * stats.t.sf(-t, 3))  # all RMSE are the same, and have no test
    assert tests["difference"].notna().sum() == 2  # of the trimmed mean alone


def test_the_report_says_what_is_significant(workdir):
    findings = report(run_table.read_workdir(workdir), "sweep", workdir)
    text = (workdir / "report.md").read_text()
    assert findings == [
        "linear, trimmed keeping as many as are right, against the best other loss: MAE significantly lower in 1 of 1 "
        "tests (by 11% to 11%); RMSE significantly different in none of 1 tests."
    ]
    assert f"- {findings[0]}\n" in text
    assert "## diamonds, wrong targets: 30% random" in text
    assert "| linear, trimmed (smallest 0.7 n) | – | 0.3 | 4 | 0.895 ± 0.017 | -0.11 (absolute; **< 0.001**)" in text
    assert "| linear, squared | – | 0.3 | 4 | 1.205 ± 0.013 | – |" in text


def test_shares_are_told_from_that_of_right_targets(workdir):
    for seed, noise in enumerate(NOISE):
        for keep, error in ((0.6, 1.1), (0.8, 0.9)):
            write_regression(workdir, error + noise**2, loss="trimmed", keep=keep, learning_rate=0.3, seed=seed)
    fewer, right, more = report(run_table.read_workdir(workdir), "sweep", workdir)
    assert (
        "keeping 0.1 n fewer than are right, against the best other loss: MAE significantly higher in 1 of 1" in fewer
    )
    assert "keeping as many as are right, against the best other loss: MAE significantly lower in 1 of 1" in right
    assert "keeping 0.1 n more than are right, against the best other loss: MAE significantly lower in 1 of 1" in more


def test_without_another_loss_there_is_nothing_to_compare(tmp_path):
    write_regression(tmp_path, 0.8)
    assert report(run_table.read_workdir(tmp_path), "one", tmp_path) == []
    assert "There is nothing to compare." in (tmp_path / "report.md").read_text()


def test_a_run_that_repeats_another_is_left_out_and_named(workdir):
    table = run_table.read_workdir(workdir).table
    findings = report(run_table.Runs(table), "once", workdir)
    twice = pd.concat([table, table.iloc[:1].assign(run="again", test_mae=0.1)], ignore_index=True)
    assert report(run_table.Runs(twice), "twice", workdir) == findings
    assert "again" in (workdir / "report.md").read_text().split("## What was run")[1].split("##")[0]


def test_a_table_that_is_written_is_reported_again(workdir):
    runs = run_table.read_workdir(workdir)
    findings = report(runs, "sweep", workdir)
    again = run_table.read_results(str(workdir / "runs.csv"))
    assert again.kind.name == "regression"
    pd.testing.assert_frame_equal(again.table, runs.table)
    assert report(again, "sweep", workdir) == findings
