import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from softbin.experiments.kinds import BOOSTING_MEASURES, STOPS
from softbin.experiments.reports import run_table
from softbin.experiments.reports.boosting import chosen_rates, comparison, report
from softbin.experiments.runs import grids
from softbin.experiments.runs.errors import UserError
from tests.experiments.reports.sweeps import write_run

CONFIGS = Path(__file__).parents[3] / "configs"
CONFIG = {
    "booster": "lightgbm",
    "dataset": "flights",
    "data": "",
    "loss": "logistic",
    "budget": "",
    "hessian": "unit",
    "learning_rate": 0.1,
    "rounds": 100,
    "fixed_rounds": 50,
    "evaluate_every": 10,
    "seed": 0,
}
NOISE = np.array([0.0, 0.001, -0.001, 0.002])  # of the seeds, in what is reached
GAINS = np.array([0.010, 0.011, 0.012, 0.011])  # of the projection in the AUC, by seed


def write_boosting(workdir, auc, **changes):
    config = {**CONFIG, **changes}
    run = workdir / "runs" / "-".join(str(config[name]) for name in ("loss", "hessian", "learning_rate", "seed"))
    run.mkdir(parents=True)
    measured = {"auc": auc, "log_loss": 1 - auc, "error": 0.2, "error_thresholded": 0.2}
    summary = {
        **{name: value for name, value in config.items() if name != "data"},
        **{"train_examples": 600, "validation_examples": 200, "test_examples": 200, "classes": 2, "best_round": 70},
        **{
            f"{stop}_{part}_{m}": measured[m]
            for stop in STOPS
            for part in ("validation", "test")
            for m in BOOSTING_MEASURES
        },
        "train_seconds": 1.0,
        "versions": {"softbin": "0.1.0", "jax": "0.10.2", "lightgbm": "4.7.0"},
        "date": "2026-11-23T12:00:00+00:00",
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.fixture
def workdir(tmp_path):
    """The projection has a higher AUC than the logistic loss in every seed, at the rate that validates better."""
    for seed, (noise, gain) in enumerate(zip(NOISE, GAINS, strict=True)):
        for rate, loss_of_rate in ((0.1, 0.1), (0.3, 0.0)):
            write_boosting(tmp_path, 0.8 + noise - loss_of_rate, seed=seed, learning_rate=rate)
            changes = {"seed": seed, "learning_rate": rate, "loss": "hypersimplex"}
            write_boosting(tmp_path, 0.8 + noise + gain - loss_of_rate, **changes)
    return tmp_path


def test_the_rate_that_validates_best_is_chosen(workdir):
    for stop, done in (("fixed", 50), ("best", 70)):
        chosen = chosen_rates(run_table.read_workdir(workdir).table, stop)
        assert chosen["learning_rate"].tolist() == [0.3] * 8
        assert set(chosen["round"]) == {done}


def test_tests_are_paired_corrected_for_overlap_and_for_their_number(workdir):
    chosen = chosen_rates(run_table.read_workdir(workdir).table, "best")
    tests = comparison(chosen, "logistic").set_index("measure")
    auc = tests.loc["auc"]
    assert auc["difference"] == pytest.approx(GAINS.mean())
    t = GAINS.mean() / np.sqrt(GAINS.var(ddof=1) * (1 / 4 + 200 / 600))
    assert auc["t"] == pytest.approx(t)
    assert auc["p"] == pytest.approx(2 * stats.t.sf(t, 3))
    assert auc["p_holm"] == pytest.approx(2 * auc["p"])  # the errors are all the same, and have no test
    assert np.isnan(tests.loc["error", "p"])


def test_the_report_says_what_is_significant(workdir):
    findings = report(run_table.read_workdir(workdir), "sweep", workdir)
    text = (workdir / "report.md").read_text()
    assert findings[0].startswith("flights, lightgbm, after 50 rounds, against logistic: hypersimplex has AUC +0.0110")
    assert "hypersimplex has log loss -0.0110" in findings[0]
    assert "error" not in findings[0]
    assert f"- {findings[0]}\n" in text
    assert "| hypersimplex | 0.3 | 50 | 4 | 0.8115 ± 0.0013 |" in text
    assert "| hypersimplex | 0.3 | 70 | 4 |" in text
    assert (workdir / "differences.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_claimed_of_what_does_not_differ(sketched, tmp_path):
    for seed, noise in enumerate(NOISE):
        write_boosting(tmp_path, 0.8 + noise, seed=seed)
        write_boosting(tmp_path, 0.8 + NOISE[-1 - seed], seed=seed, loss="hypersimplex")
        write_boosting(tmp_path, 0.8 + NOISE[seed - 1], seed=seed, loss="centred_squared_error")
    findings = report(run_table.read_workdir(tmp_path), "sweep", tmp_path)
    assert len(findings) == 4
    assert all("no difference is significant" in finding for finding in findings)


def test_a_single_run_has_nothing_to_compare_with(sketched, tmp_path):
    write_boosting(tmp_path, 0.8)
    assert report(run_table.read_workdir(tmp_path), "one", tmp_path) == []
    assert "There is nothing to compare." in (tmp_path / "report.md").read_text()


def test_rates_without_a_common_seed_are_compared_by_the_seeds_they_have(tmp_path):
    write_boosting(tmp_path, 0.8, seed=0, learning_rate=0.1)
    write_boosting(tmp_path, 0.9, seed=1, learning_rate=0.3)
    chosen = chosen_rates(run_table.read_workdir(tmp_path).table, "best")
    assert chosen["learning_rate"].tolist() == [0.3]


def test_a_run_that_repeats_another_is_left_out_and_named(workdir):
    table = run_table.read_workdir(workdir).table
    findings = report(run_table.Runs(table), "once", workdir)
    twice = pd.concat([table, table.iloc[:1].assign(run="again", best_test_auc=0.5)], ignore_index=True)
    assert report(run_table.Runs(twice), "twice", workdir) == findings
    assert "again" in (workdir / "report.md").read_text().split("## What was run")[1].split("##")[0]


def test_a_table_that_is_written_is_reported_again(workdir):
    runs = run_table.read_workdir(workdir)
    findings = report(runs, "sweep", workdir)
    again = run_table.read_results(str(workdir / "runs.csv"))
    assert again.kind.name == "boosting"
    pd.testing.assert_frame_equal(again.table, runs.table)
    assert report(again, "sweep", workdir) == findings


def test_runs_of_networks_among_those_of_boosting_are_refused(workdir):
    write_run(workdir, 0.9)
    with pytest.raises(UserError, match="has runs of boosting and of networks: report them from a folder each"):
        run_table.read_workdir(workdir)


def test_the_packaged_runs_are_the_whole_sweep():
    table = run_table.read_results("boosting_tables").table
    config = runpy.run_path(str(CONFIGS / "boosting_tables.py"))["get_config"]()
    assert sorted(table["run"]) == sorted(grids.expand(config))
    assert (table["softbin"] != "").all()
    assert (table["date"] != "").all()
