import json
import re

import numpy as np
import pytest
from scipy import special

from softbin.experiments.reports import figures, run_table
from softbin.experiments.reports.networks import report
from softbin.experiments.runs.errors import UserError
from tests.experiments.reports.sweeps import write_run

pytestmark = pytest.mark.usefixtures("sketched")

SPREAD = np.array([0.0, 0.001, -0.001])  # of the seeds, the same for every loss


def write_sweep(workdir):
    """The projection is above cross-entropy by 0.02 at batch 64, and like it at 32; so is scaled_mse."""
    for batch_size, gain in ((32, 0.0), (64, 0.02)):
        for seed in range(3):
            changes = {"batch_size": batch_size, "seed": seed}
            jitter = {name: SPREAD[(seed + shift) % 3] / 10 for shift, name in enumerate(("ours", "theirs"))}
            write_run(workdir, 0.90 + SPREAD[seed] - gain / 2, **changes)
            write_run(
                workdir,
                0.90 + SPREAD[seed] + gain / 2 + jitter["ours"],
                0.91 + SPREAD[seed] + gain / 2,
                loss="hypersimplex",
                budget="0.5",
                **changes,
            )
            write_run(workdir, 0.90 + SPREAD[seed] + gain / 2 + jitter["theirs"], loss="scaled_mse", **changes)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep")
    write_sweep(workdir)
    return report(run_table.read_workdir(workdir), "sweep", workdir), workdir


def leave_out_figures(patched):
    """For tests that read the tables: making figures takes longer."""
    patched.setattr(figures, "save", lambda *_: {})


@pytest.fixture
def without_figures(monkeypatch):
    leave_out_figures(monkeypatch)


def section(text, *headings):
    for heading in headings:
        text = text.split(f"# {heading}\n", 1)[1]
    return re.split(r"\n#+ ", text)[0]


def cells(text, name, batch):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} | {batch} |"))
    return line.split(" | ")


def test_the_tables_have_means_differences_and_tests(sweep):
    _, workdir = sweep
    against = section((workdir / "report.md").read_text(), "Against cross_entropy")
    row = cells(against, "hypersimplex (k = n/2, τ = 1.5)", 64)
    difference = 0.02 + SPREAD / 10
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(3))
    p = 2 * special.stdtr(2, -t)
    expected = ["3", "0.9100", f"{1.1 * SPREAD.std(ddof=1):.4f}", "0.9100", "0.8900", "+0.0200", "3", f"{t:.2f}"]
    assert row[2:10] == expected
    assert row[10] == "< 0.001"
    assert p < 0.001
    assert row[11] == "**< 0.001** |"


def test_only_significant_differences_are_claimed(sweep):
    headlines, workdir = sweep
    text = section((workdir / "report.md").read_text(), "What the tests carry")
    assert (
        "digits, batch 64: hypersimplex (k = n/2, τ = 1.5) is higher than cross_entropy by 0.0200 (paired t, n = 3"
        in text
    )
    assert "digits, against scaled_mse at the same temperature: no difference is significant" not in text
    assert "is lower than" not in text
    assert headlines[0].startswith("Against cross_entropy, a loss with a projection: ")
    assert all(headline in text for headline in headlines)


def test_what_was_run_and_what_differs_is_stated(sweep):
    _, workdir = sweep
    text = (workdir / "report.md").read_text()
    run = section(text, "What was run")
    for line in (
        "| runs | 18 |",
        "| seed | 0, 1, 2 |",
        "| learning_rate | 0.001 |",
        "| jax | 0.10.2 |",
        "| date | 2026-11-23 |",
    ):
        assert line in run
    differs = section(text, "What differs from the paper's protocol")
    for line in (
        "| model | cnn | mlp |",
        "| epochs | 600 | 4 |",
        "| learning_rate | 0.0001 | 0.001 |",
        "| augment | yes | no |",
    ):
        assert line in differs
    assert "label_noise" not in differs


def test_figures_are_written_and_shown(sweep):
    _, workdir = sweep
    text = (workdir / "report.md").read_text()
    files = {path.name for path in workdir.glob("*.png")}
    assert files == {"curves.png", "epochs_1.png", "batch_size.png", "gap.png", "decisions.png"}
    assert set(re.findall(r"\]\((.*?\.png)\)", text)) == files
    assert all((workdir / file).read_bytes().startswith(b"\x89PNG") for file in files)
    assert not list(workdir.glob("*.tmp"))


def test_the_report_of_a_table_is_that_of_its_runs(sweep, tmp_path):
    headlines, workdir = sweep
    runs = run_table.read_results(str(workdir / "runs.csv"))
    assert report(runs, "sweep", tmp_path) == headlines
    assert (tmp_path / "runs.csv").read_bytes() == (workdir / "runs.csv").read_bytes()
    tables = [(folder / "report.md").read_text().split("## Figures")[0] for folder in (workdir, tmp_path)]
    assert tables[0] == tables[1]
    assert {path.name for path in tmp_path.glob("*.png")} == {"batch_size.png", "gap.png", "decisions.png"}


def test_one_seed_gives_means_but_no_test(without_figures, tmp_path):
    write_run(tmp_path, 0.8)
    write_run(tmp_path, 0.9, loss="mse")
    headlines = report(run_table.read_workdir(tmp_path), "one", tmp_path)
    assert len(headlines) == 2
    assert all(headline.endswith("two seeds that both have, and differences that vary.") for headline in headlines)
    row = cells(section((tmp_path / "report.md").read_text(), "Against cross_entropy"), "mse", 32)
    assert row[2:] == ["1", "0.9000", "–", "0.9000", "0.8000", "+0.1000", "1", "–", "–", "– |"]


def test_a_difference_that_is_not_significant_is_not_claimed(without_figures, tmp_path):
    for seed, (baseline, accuracy) in enumerate([(0.80, 0.85), (0.82, 0.81), (0.81, 0.84)]):
        write_run(tmp_path, baseline, seed=seed)
        write_run(tmp_path, accuracy, loss="mse", seed=seed)
    headlines = report(run_table.read_workdir(tmp_path), "none", tmp_path)
    assert len(headlines) == 2
    assert all(headline.endswith(": not significant in the only test.") for headline in headlines)
    text = section((tmp_path / "report.md").read_text(), "What the tests carry")
    assert "digits, against cross_entropy: no difference is significant (tests: 1; smallest p 0.3" in text
    assert "higher" not in text


def test_the_last_epoch_has_a_table_of_its_own(without_figures, tmp_path):
    for seed in range(3):
        write_run(tmp_path, 0.8 + SPREAD[seed], seed=seed)
        run = write_run(tmp_path, 0.9, loss="mse", seed=seed)
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps({**summary, "last_test_accuracy": 0.7}))
    report(run_table.read_workdir(tmp_path), "last", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "digits, batch 32: mse is higher than cross_entropy by 0.1000" in text
    assert "digits, batch 32, after the last epoch: mse is lower than cross_entropy by 0.1000" in text
    assert cells(section(text, "After the last epoch, against cross_entropy"), "mse", 32)[3] == "0.7000"


def test_noise_and_imbalance_have_tables_of_their_own(without_figures, tmp_path):
    for changes in ({}, {"label_noise": 0.4}, {"imbalance": 0.1, "train_examples": 400}):
        write_run(tmp_path, 0.8, **changes)
    report(run_table.read_workdir(tmp_path), "settings", tmp_path)
    headings = re.findall(r"^## (digits.*)$", (tmp_path / "report.md").read_text(), re.MULTILINE)
    assert headings == ["digits", "digits, imbalance 0.1", "digits, 40% label noise"]


def test_thresholds_are_compared_with_argmax_and_stand_for_label_counts(without_figures, tmp_path):
    for seed in range(3):
        write_run(tmp_path, 0.9 + SPREAD[seed], seed=seed)
        counts = {"loss": "hypersimplex", "budget": "label_count", "seed": seed}
        write_run(tmp_path, 0.7 + SPREAD[seed] / 2, 0.9, **counts)
    report(run_table.read_workdir(tmp_path), "decisions", tmp_path)
    text = (tmp_path / "report.md").read_text()
    name = "hypersimplex (k = label counts, τ = 1.5)"
    assert f"| {name} |" not in section(text, "Against cross_entropy")
    assert cells(section(text, "Against cross_entropy"), f"{name}, thresholds", 32)[3] == "0.9000"
    row = cells(section(text, "Thresholds against argmax"), f"{name}, thresholds", 32)
    assert row[6:8] == ["0.7000", "+0.2000"]
    assert f"{name}, thresholds is higher than {name} by 0.2000 (paired t, n = 3" in text


def test_learning_rates_are_chosen_by_validation_and_have_a_table(without_figures, tmp_path):
    for seed in range(2):
        for rate, validation, accuracy in ((1e-3, 0.6, 0.8), (1e-2, 0.7, 0.7)):
            write_run(tmp_path, accuracy, validation=validation, learning_rate=rate, seed=seed)
            write_run(tmp_path, accuracy + 0.1 * rate * seed, loss="mse", learning_rate=rate, seed=seed)
    report(run_table.read_workdir(tmp_path), "rates", tmp_path)
    text = (tmp_path / "report.md").read_text()
    rates = section(text, "Learning rates")
    assert "| cross_entropy | 32 | 2 | 0.6000 | 0.7000 | 0.01 (at the edge) |" in rates
    assert "| mse | 32 | 2 | 0.5000 | 0.5000 | 0.001 (at the edge) |" in rates
    chosen = section(text, "Learning rates", "Against cross_entropy")
    assert cells(chosen, "cross_entropy", 32)[3] == "0.7000"
    assert cells(chosen, "mse", 32)[3] == "0.8001"


BESIDE = {"at_max_test_worst_class": 0.6, "last_test_worst_class": 0.5, "last_test_tail_loss": 2.0}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Two kinds of noise: a trimmed loss is ahead of the others, and at its own learning rate."""
    workdir = tmp_path_factory.mktemp("noisy")
    for kind in ("symmetric", "pair"):
        for seed in range(3):
            setting = {"label_noise": 0.4, "noise_kind": kind, "seed": seed}
            kept = {"loss": "scaled_mse", "trim": 0.6, "learning_rate": 3e-3}
            write_run(workdir, 0.80 + SPREAD[seed], beside=BESIDE, **setting)
            write_run(workdir, 0.82 - SPREAD[seed], beside=BESIDE, loss="scaled_mse", **setting)
            write_run(workdir, 0.85 + SPREAD[seed], beside={**BESIDE, "last_kept_clean": 0.9}, **kept, **setting)
    reference = "scaled_mse (τ = 1.5, smallest 0.6 n)"
    with pytest.MonkeyPatch.context() as patched:
        leave_out_figures(patched)
        return report(run_table.read_workdir(workdir), "noisy", workdir, reference), workdir


def test_a_setting_says_what_each_loss_reaches(noisy):
    _, workdir = noisy
    text = (workdir / "report.md").read_text()
    headings = re.findall(r"^## (digits.*)$", text, re.MULTILINE)
    assert headings == ["digits, 40% label noise", "digits, 40% pair label noise"]
    reached = section(text, "digits, 40% pair label noise", "What each loss reaches")
    accuracies, classes = "best | last | stopped | last validation", "worst class | last worst class"
    columns = f"| variant | batch | seeds | {accuracies} | {classes} | last tail loss | right labels kept |"
    assert columns in reached.splitlines()
    measured = ["0.8500", "0.8500", "0.8500", "0.5000", "0.6000", "0.5000", "2.0000", "0.9000 |"]
    assert cells(reached, "scaled_mse (τ = 1.5, smallest 0.6 n)", 32)[2:] == ["3", *measured]
    assert cells(reached, "cross_entropy", 32)[-1] == "– |"


def test_every_variant_stands_in_the_tables_with_its_learning_rate(noisy):
    _, workdir = noisy
    text = (workdir / "report.md").read_text()
    assert "Learning rate: 0.001; 0.003 for scaled_mse (τ = 1.5, smallest 0.6 n)." in text


def test_a_loss_of_chosen_examples_is_tested_against_the_best_of_all(noisy):
    headlines, workdir = noisy
    text = (workdir / "report.md").read_text()
    for question in (
        "Against the best loss of all examples",
        "After the last epoch, against the best loss of all examples",
    ):
        row = cells(section(text, question), "scaled_mse (τ = 1.5, smallest 0.6 n)", 32)
        assert row[-6:-4] == ["0.8200", "+0.0300"]
    assert "Against the best loss of all examples: significant in 2 of 2 tests; higher in 2, by 0.0300." in headlines


def test_all_are_compared_with_the_reference(noisy):
    headlines, workdir = noisy
    against = section((workdir / "report.md").read_text(), "Against scaled_mse (τ = 1.5, smallest 0.6 n)")
    assert cells(against, "cross_entropy", 32)[6:8] == ["0.8500", "-0.0500"]
    assert headlines[0].startswith("Against scaled_mse (τ = 1.5, smallest 0.6 n): ")


def test_results_of_accuracies_alone_have_no_table_of_what_else_is_reached(sweep):
    _, workdir = sweep
    assert "What each loss reaches" not in (workdir / "report.md").read_text()


def test_an_unknown_reference_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run is of the reference 'adam': choose one of 'cross_entropy', 'hinge', "):
        report(run_table.read_results("paper"), "paper", tmp_path, "adam")


def test_runs_that_repeat_another_are_named_and_counted_once(without_figures, tmp_path):
    write_run(tmp_path, 0.8)
    repeat = write_run(tmp_path, 0.8, temperature=5.0)
    report(run_table.read_workdir(tmp_path), "repeats", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert f"In no table, as another run has the same setting, variant and seed: {repeat.name}." in text
    assert cells(section(text, "Against cross_entropy"), "cross_entropy", 32)[2] == "1"


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        report(run_table.read_results("paper"), "paper", tmp_path / "file")
