import json

import numpy as np
import pytest
from scipy import stats

from softbin.experiments.kinds import PERCENTAGES
from softbin.experiments.reports import capacity, run_table
from softbin.experiments.reports.boosting import report as boosting_report
from softbin.experiments.reports.networks import report as networks_report
from softbin.experiments.runs.errors import UserError
from tests.experiments.reports.sweeps import write_run
from tests.experiments.reports.test_boosting import write_boosting

NOISE = np.array([0.0, 0.01, -0.01, 0.02])  # of the seeds
GAINS = np.array([0.10, 0.11, 0.12, 0.11])
CAPACITY = "capacity (k = its share of n, τ = 1.5)"


def precisions(test, validation=0.5):
    parts = {"test": test, "validation": validation}
    return {f"at_max_{part}_precision_at_{p}": value for part, value in parts.items() for p in PERCENTAGES}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A linear model in which capacity is ahead where it was told the share, at the rate that validates better."""
    workdir = tmp_path_factory.mktemp("networks")
    for seed, (noise, gain) in enumerate(zip(NOISE, GAINS, strict=True)):
        setting = {"seed": seed, "hidden": [], "dataset": "census"}
        write_run(workdir, 0.9, beside=precisions(0.5 + noise), **setting)
        for budget, more in (("0.02", 0.0), ("0.1", -0.2)):
            told = {"loss": "capacity", "budget": budget, **setting}
            write_run(workdir, 0.9, beside=precisions(0.5 + noise + gain + more, 0.6), learning_rate=1e-2, **told)
            write_run(workdir, 0.9, beside=precisions(0.9, 0.4), learning_rate=1e-1, **told)
    return run_table.read_workdir(workdir), workdir


def write_boosted(workdir):
    for seed, noise in enumerate(NOISE):
        for loss, gain in (("logistic", 0.0), ("hypersimplex", -0.05 + noise)):
            run = write_boosting(workdir, 0.8, loss=loss, seed=seed, dataset="census")
            summary = json.loads((run / "summary.json").read_text())
            (run / "summary.json").write_text(json.dumps(summary | precisions(0.7 + noise + gain)))
    return run_table.read_workdir(workdir)


def row(table, **wanted):
    (found,) = table[(table[list(wanted)] == list(wanted.values())).all(axis=1)].to_dict("records")
    return found


def test_a_loss_is_measured_at_the_share_that_it_was_told(networks):
    runs, _ = networks
    table = capacity.precisions_at_the_top([runs])
    assert table[table["variant"] == CAPACITY]["percentage"].tolist() == [2, 10]
    assert table[table["variant"] == "cross_entropy"]["percentage"].tolist() == [1, 2, 5, 10]
    at_2 = row(table, variant=CAPACITY, percentage=2)
    assert at_2["model"] == "linear"
    assert at_2["learning_rate"] == 1e-2
    assert at_2["seeds"] == 4
    assert at_2["mean"] == pytest.approx(np.mean(0.5 + NOISE + GAINS))
    assert at_2["sd"] == pytest.approx(np.std(NOISE + GAINS, ddof=1))
    assert at_2["difference"] == pytest.approx(GAINS.mean())
    p = stats.ttest_1samp(GAINS, 0).pvalue
    assert at_2["p"] == pytest.approx(p, rel=1e-3)
    assert at_2["p_holm"] == pytest.approx(2 * min(p, stats.ttest_1samp(GAINS - 0.2, 0).pvalue), rel=1e-3)


def test_what_differs_within_a_data_set_is_named_with_it(tmp_path):
    sizes = {"batch_size": 64, "validation_examples": 256}
    for changes in ({}, {"dataset": "census", **sizes}, {"dataset": "census", **sizes, "batch_size": 128}):
        write_run(tmp_path, 0.9, beside=precisions(0.5), **changes)
    table = capacity.precisions_at_the_top([run_table.read_workdir(tmp_path)])
    assert set(table["dataset"]) == {"digits", "census, batch 64", "census, batch 128"}


def test_the_report_of_networks_has_the_table_its_findings_and_a_figure(networks):
    runs, workdir = networks
    findings = networks_report(runs, "networks", workdir)
    text = (workdir / "report.md").read_text()
    assert "| census | linear | cross_entropy | 0.001 | 4 | 0.5050 ± 0.0129 | 0.5050 ± 0.0129 |" in text
    assert f"| census | linear | {CAPACITY} | 0.01 | 4 | – | 0.6150 ± 0.0129 (+0.1100; **" in text
    assert any(
        f"census, linear, {CAPACITY}: +0.1100 at the top 2%, -0.0900 at the top 10%" in each for each in findings
    )
    assert (workdir / "capacity.png").read_bytes().startswith(b"\x89PNG")


def test_networks_and_boosting_stand_in_one_table(networks, sketched, tmp_path):
    runs, _ = networks
    boosted = write_boosted(tmp_path / "boosted")
    capacity.report([runs, boosted], "both", tmp_path / "new")
    text = (tmp_path / "new" / "report.md").read_text()
    assert "| census | lightgbm | logistic | 0.1 | 4 | 0.7050 ± 0.0129 |" in text
    assert "| census | lightgbm | hypersimplex | 0.1 | 4 | 0.6600 ± 0.0258 (-0.0450; " in text
    assert text.index("| census | lightgbm ") < text.index("| census | linear ")
    assert (tmp_path / "new" / "capacity.png").exists()


def test_the_report_of_boosting_has_the_table(tmp_path):
    findings = boosting_report(write_boosted(tmp_path), "boosted", tmp_path)
    assert "## Precision at the top" in (tmp_path / "report.md").read_text()
    assert any(
        each.startswith("precision at the top, against the logistic loss of the same model: ") for each in findings
    )


def test_runs_without_a_precision_at_the_top_are_refused_together_and_have_no_chapter(tmp_path):
    write_run(tmp_path, 0.8)
    runs = run_table.read_workdir(tmp_path)
    with pytest.raises(UserError, match="a and b have no precision at the top"):
        capacity.report([runs, runs], "a and b", tmp_path)
    networks_report(runs, "a", tmp_path)
    assert "Precision at the top" not in (tmp_path / "report.md").read_text()
