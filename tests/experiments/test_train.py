import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softbin.experiments.errors import UserError
from softbin.experiments.objectives import OBJECTIVES
from softbin.experiments.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
COMMAND = [sys.executable, "-c", "from softbin.experiments.train import main; main()"]


def config(name="digits", **changes):
    result = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()
    result.update(changes)
    return result


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "new" / "folder"
    return train(config(epochs=20, budget="label_count"), workdir), workdir


def test_summary_names_the_run_and_its_best_and_last_accuracies(run):
    summary, workdir = run
    assert json.loads((workdir / "summary.json").read_text()) == summary
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 21))
    for name in ("test_accuracy", "test_accuracy_thresholded"):
        assert summary[f"max_{name}"] == max(record[name] for record in records)
        assert summary[f"last_{name}"] == records[-1][name]
    assert summary["train_seconds"] == records[-1]["train_seconds"] > 0
    expected = {"dataset": "digits", "loss": "hypersimplex", "budget": "label_count", "temperature": 1.5}
    expected |= {"batch_size": 256, "seed": 0, "epochs": 20}
    assert {name: summary[name] for name in expected} == expected


def test_thresholds_repair_the_decisions_of_label_counts(run):
    summary, _ = run
    assert summary["last_test_accuracy_thresholded"] > 0.9
    assert summary["last_test_accuracy_thresholded"] > summary["last_test_accuracy"] + 0.02


def test_curves_and_tensorboard_events_are_written(run):
    _, workdir = run
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    (events,) = workdir.glob("events.out.tfevents.*")
    assert b"test_accuracy_thresholded" in events.read_bytes()
    assert {path.suffix for path in workdir.iterdir()}.isdisjoint({".tmp"})


def test_the_same_seed_gives_the_same_run(run, tmp_path):
    summary, _ = run
    again = train(config(epochs=20, budget="label_count"), tmp_path)
    assert {**again, "train_seconds": 0} == {**summary, "train_seconds": 0}


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_every_loss_learns(loss, tmp_path):
    summary = train(config(loss=loss, epochs=15, train_examples=512), tmp_path)
    best = summary["max_test_accuracy_thresholded"] or summary["max_test_accuracy"]
    assert best > 0.85
    assert (summary["budget"] is None) == (loss not in ("hypersimplex", "fenchel_young"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "focal"}, "unknown loss 'focal'"),
        ({"batch_size": 1438}, r"batch_size 1438 is outside \[1, 1437\]"),
        ({"batch_size": 0}, "batch_size 0 is outside"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"microbatch_size": -1}, "microbatch_size must be at least 0, got -1"),
        ({"dataset": "mnist"}, "unknown dataset 'mnist'"),
        ({"dataset": "fashion_mnist", "data_dir": "/nowhere"}, "Fashion-MNIST is not in /nowhere"),
    ],
)
def test_a_request_that_cannot_be_met_leaves_nothing_behind(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_results_of_another_config_are_kept(run):
    _, workdir = run
    before = (workdir / "metrics.jsonl").read_bytes()
    message = r"holds a run of another config \(batch_size is 256 there and 128 here, seed is 0 there and 1 here\)"
    with pytest.raises(UserError, match=message):
        train(config(epochs=20, budget="label_count", batch_size=128, seed=1), workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_is_not_run_again(run):
    summary, workdir = run
    before = (workdir / "metrics.jsonl").stat().st_mtime_ns
    assert train(config(epochs=20, budget="label_count"), workdir) == summary
    assert (workdir / "metrics.jsonl").stat().st_mtime_ns == before


def test_microbatches_leave_the_curve_as_it_is(run, tmp_path):
    _, workdir = run
    train(config(epochs=20, budget="label_count", microbatch_size=48), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(workdir), atol=1e-4)


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        train(config(), tmp_path / "file")


def test_fashion_mnist_config_is_of_the_same_form():
    assert set(config("fashion_mnist").keys()) == set(config().keys())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.loss=focal"], "error: unknown loss 'focal': choose one of"),
        (["--config.los=mse"], "error: the config has no field 'los' Did you mean \"loss\""),
        (["--config=configs/nothing.py"], "error: cannot read the config: "),
        (["more"], "error: unexpected arguments more: settings are given as --config.field=value"),
    ],
)
def test_the_command_reports_a_mistake_in_one_line(arguments, message, tmp_path):
    command = [*COMMAND, f"--config={CONFIGS / 'digits.py'}", f"--workdir={tmp_path / 'run'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_command_trains_and_prints_the_accuracy(tmp_path):
    arguments = [f"--config={CONFIGS / 'digits.py'}", f"--workdir={tmp_path}", "--config.epochs=2"]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert f"test accuracy {summary['last_test_accuracy']:.4f}, with thresholds" in done.stdout
