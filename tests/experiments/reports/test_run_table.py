import json
import shutil

import pandas as pd
import pytest

from softbin.experiments import kinds
from softbin.experiments.reports import results, run_table
from softbin.experiments.runs.errors import UserError
from tests.experiments.reports.sweeps import write_run


def test_a_row_has_the_config_the_results_and_where_they_are_from(tmp_path):
    write_run(tmp_path, 0.9, 0.95, loss="hypersimplex", budget="label_count", seed=3)
    (row,) = run_table.read_workdir(tmp_path).table.to_dict("records")
    expected = {"loss": "hypersimplex", "budget": "label_count", "temperature": 1.5, "seed": 3, "hidden": "16-16"}
    expected |= {"max_test_accuracy": 0.9, "max_test_accuracy_thresholded": 0.95, "max_validation_accuracy": 0.5}
    expected |= {"learning_rate": 1e-3, "augment": False, "jax": "0.10.2", "device": "cpu", "epoch_of_max": 4}
    assert {name: row[name] for name in expected} == expected
    assert list(row) == list(kinds.NETWORKS.columns)


def test_curves_have_a_row_an_evaluation(tmp_path):
    run = write_run(tmp_path, 0.9)
    curves = run_table.read_workdir(tmp_path).curves
    assert curves["run"].unique().tolist() == [run.name]
    assert curves["epoch"].tolist() == [2, 4]
    assert curves["test_accuracy"].tolist() == pytest.approx([0.895, 0.9])


def test_the_stopped_accuracy_is_that_of_the_epoch_with_the_best_validation_accuracy(tmp_path):
    run = write_run(tmp_path, 0.9, 0.95, loss="hypersimplex")
    first, second = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    first["validation_accuracy"] = 0.6
    (run / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    write_run(tmp_path, 0.8)
    table = run_table.read_workdir(tmp_path).table.set_index("loss")
    assert table["stopped_test_accuracy"].to_dict() == {"hypersimplex": 0.895, "cross_entropy": 0.8}
    assert table.loc["hypersimplex", "stopped_test_accuracy_thresholded"] == 0.95
    assert pd.isna(table.loc["cross_entropy", "stopped_test_accuracy_thresholded"])


def test_a_table_that_is_written_is_read_again(tmp_path):
    write_run(tmp_path, 1 / 3, 2 / 3, loss="hypersimplex", budget="0.5")
    write_run(tmp_path, 0.1 + 0.2, label_noise=0.4)
    table = run_table.read_workdir(tmp_path).table
    table.to_csv(tmp_path / "runs.csv", index=False)
    again = run_table.read_results(str(tmp_path / "runs.csv"))
    pd.testing.assert_frame_equal(again.table, table)
    assert again.curves is None


def test_what_older_results_lack_are_the_defaults(tmp_path):
    write_run(tmp_path, 0.9)
    new = ["noise_kind", "trim", "trim_warmup", "trim_by", "trim_per_class", "tail", "last_kept_clean"]
    table = run_table.read_workdir(tmp_path).table
    table.drop(columns=new).to_csv(tmp_path / "runs.csv", index=False)
    (row,) = run_table.read_results(str(tmp_path / "runs.csv")).table[new].to_dict("records")
    assert pd.isna(row.pop("last_kept_clean"))
    assert row == table[new[:-1]].to_dict("records")[0]


def test_failed_and_unfinished_runs_are_listed(tmp_path):
    write_run(tmp_path, 0.9)
    (write_run(tmp_path, 0.9, seed=1) / "summary.json").unlink()
    (tmp_path / "failed.json").write_text('[{"run": "x", "error": "out of memory"}]')
    runs = run_table.read_workdir(tmp_path)
    assert len(runs.table) == 1
    assert runs.failed == ({"run": "x", "error": "out of memory"},)
    assert [name.split("-")[-4] for name in runs.unfinished] == ["1"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="runs has no finished run: give the --workdir of a softbin-sweep"):
        run_table.read_workdir(tmp_path)


@pytest.mark.parametrize("file", ["summary.json", "config.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", ["", '{"epoch": 1', "[1, 2]"])
def test_a_damaged_file_is_named(file, content, tmp_path):
    write_run(tmp_path, 0.9)
    run = write_run(tmp_path, 0.9, seed=1)
    (run / file).write_text(content)
    with pytest.raises(UserError, match=rf"{run.name}/{file} is damaged \(.*\): remove .*{run.name}"):
        run_table.read_workdir(tmp_path)


def test_a_summary_without_a_result_is_damaged(tmp_path):
    run = write_run(tmp_path, 0.9)
    summary = json.loads((run / "summary.json").read_text())
    del summary["max_test_accuracy"]
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"summary.json is damaged \(no max_test_accuracy\)"):
        run_table.read_workdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read .*runs.csv \(No such file or directory\)"),
        ("", "runs.csv is damaged"),
        ("loss,seed\n", "runs.csv has no runs"),
        ("loss,seed\nmse,0\n", r"runs.csv is damaged \(no dataset, batch_size,"),
        ("loss,seed\nmse,zero\n", "runs.csv is damaged"),
    ],
)
def test_a_damaged_table_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "runs.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        run_table.read_results(str(tmp_path / "runs.csv"))


def test_unknown_results_are_refused():
    with pytest.raises(UserError, match=r"unknown results 'papers': choose paper, .*or the path of a CSV file"):
        run_table.read_results("papers")


def test_results_that_are_not_packaged_are_named_by_their_file(monkeypatch, tmp_path):
    shutil.copy(results.FOLDER / "paper_runs.csv", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert results.names() == ["paper"]
    assert run_table.read_results("paper").curves is None
    message = (
        r"the results noise do not come with the package: fetch softbin/experiments/results/noise.csv from its rep"
    )
    with pytest.raises(UserError, match=message):
        run_table.read_results("noise")
    with pytest.raises(UserError, match="unknown results 'noises': choose paper, or the path of a CSV file"):
        run_table.read_results("noises")


def test_packaged_results_are_read():
    for name in results.names():
        runs = run_table.read_results(name)
        table = runs.table
        if runs.kind is kinds.REGRESSION:
            assert (table["test_mae"] > 0).all()
        elif runs.kind is kinds.SPARSITY:
            assert table["test_accuracy"].fillna(table["test_unexplained"]).between(0, 1).all()
        else:
            assert table["best_test_auc" if runs.kind is kinds.BOOSTING else "max_test_accuracy"].between(0, 1).all()
        assert not table.duplicated("run").any()
