import pytest
from scipy import stats

from softbin.experiments.configs import swap as config
from softbin.experiments.configs import swap_development
from softbin.experiments.reports import run_table, swap
from softbin.experiments.runs.errors import UserError
from tests.experiments.reports.sweeps import write_run

GAINS = (0.01, 0.03, 0.02)  # of the projection over cross-entropy, by seed


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """By validation cross-entropy trains with smoothed labels at 1e-3, and the projection at 1e-2."""
    development, test = (tmp_path_factory.mktemp(name) for name in ("development", "test"))
    projection = {"loss": "hypersimplex", "budget": "0.5"}
    for rate, validation in ((1e-3, 0.7), (1e-2, 0.6)):
        write_run(development, 0.1, 0.1, validation=validation, loss="label_smoothing", learning_rate=rate)
        write_run(development, 0.1, validation=0.5, learning_rate=rate)
        write_run(development, 0.1, 0.1, validation=1 - validation, learning_rate=rate, **projection)
        for seed, gain in enumerate(GAINS):
            run = {"seed": seed, "learning_rate": rate}
            write_run(test, 0.9 if rate == 1e-3 else 0.5, 0.91, loss="label_smoothing", **run)
            write_run(test, 0.5, 0.9 + gain if rate == 1e-2 else 0.5, **projection, **run)
    return [run_table.read_workdir(workdir) for workdir in (development, test)]


def test_each_loss_is_tested_at_the_setting_that_validation_chooses(several):
    development, test = map(swap.contenders, several)
    table = swap.swaps(test, swap.chosen(development)).set_index("contender")
    assert table["learning_rate"].to_dict() == {"cross-entropy": 1e-3, swap.THRESHOLDED: 1e-3, "softbin.loss": 1e-2}
    ours = table.loc["softbin.loss"]
    assert ours["mean"] == pytest.approx(0.92)
    assert ours["difference"] == pytest.approx(0.02)
    assert ours["difference_thresholded"] == pytest.approx(0.01)
    assert ours["p"] == pytest.approx(stats.ttest_1samp(GAINS, 0).pvalue, rel=1e-3)


def test_a_fixed_setting_loses_what_the_best_of_its_loss_has_over_it(several):
    table = swap.fixed_settings(swap.contenders(several[0])).set_index(["contender", "learning_rate"])
    assert table["mean"]["softbin.loss"].to_dict() == pytest.approx({1e-2: 0.0, 1e-3: 0.1})


def test_the_report_has_every_row_and_the_picture(several, tmp_path):
    findings = swap.report(several, "a,b", tmp_path)
    text = (tmp_path / "report.md").read_text()
    row = "| digits | 32 | softbin.loss | hypersimplex (k = n/2, τ = 1.5), thresholds | 0.01 | 0.9200 ± 0.0100 |"
    assert row in text
    assert all(finding in text for finding in findings)
    assert (tmp_path / swap.FIGURE_FILE).read_bytes().startswith(b"\x89PNG")


def test_runs_that_are_no_choice_and_its_test_are_refused(several, tmp_path):
    with pytest.raises(UserError, match="x are not development runs and their test: name two"):
        swap.report([*several, several[0]], "x", tmp_path / "new")
    with pytest.raises(UserError, match="x have no setting in common that the first choose"):
        swap.report([several[0], several[1]._replace(table=several[1].table[:0])], "x", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_each_loss_has_as_many_trials_of_which_the_best_is_run_again():
    development, test = (swap.contenders(run_table.read_results(name)) for name in ("swap_development", "swap"))
    trials = development.groupby(["contender", "dataset", "batch_size"]).size().unstack("contender")
    assert (trials.drop(columns="plain cross-entropy") == 18).all(axis=None)
    table = swap.swaps(test, swap.chosen(development))
    assert len(table) == len(swap.CONTENDERS) * len(swap_development.cells())
    assert (table["seeds"] == len(config.SEEDS)).all()
