import json
import runpy
from datetime import datetime
from pathlib import Path

import jax
import numpy as np
import pytest

from softbin.experiments.datasets import data, readers
from softbin.experiments.runs.errors import UserError
from softbin.experiments.train import train
from softbin.experiments.training import tasks
from softbin.experiments.training.objectives import OBJECTIVES
from softbin.experiments.training.ranking_objectives import RANKINGS

CONFIGS = Path(__file__).parents[3] / "configs"
pytestmark = pytest.mark.usefixtures("sketched")


def config(name="digits", **changes):
    result = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()
    result.update(changes)
    return result


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    return [record["loss"] for record in metrics(workdir)]


def without_times(summary):
    return {name: value for name, value in summary.items() if name not in ("train_seconds", "date")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "new" / "folder"
    return train(config(epochs=20, budget="label_count"), workdir), workdir


def test_summary_names_the_run_and_its_best_and_last_accuracies(run):
    summary, workdir = run
    assert json.loads((workdir / "summary.json").read_text()) == summary
    records = metrics(workdir)
    assert [record["epoch"] for record in records] == list(range(1, 21))
    for name in ("test_accuracy", "test_accuracy_thresholded"):
        assert summary[f"max_{name}"] == max(record[name] for record in records)
        assert summary[f"last_{name}"] == records[-1][name]
    assert summary["train_seconds"] == records[-1]["train_seconds"] > 0
    assert summary["epoch_of_max"] == 1 + np.argmax([record["test_accuracy"] for record in records])
    settings = config(epochs=20, budget="label_count", train_examples=1437).to_dict()
    settings = {**settings, "hidden": list(settings["hidden"])}
    del settings["data_dir"]
    assert {name: summary[name] for name in settings} == settings
    assert summary["versions"]["jax"] == jax.__version__
    assert summary["device"] == "cpu"
    assert datetime.fromisoformat(summary["date"])


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


LINEAR = {"hidden": (), "learning_rate": 3e-2}


@pytest.mark.parametrize("loss", sorted(set(OBJECTIVES) - {"hypersimplex", *RANKINGS}))
def test_every_other_loss_learns(loss, tmp_path):
    summary = train(config(loss=loss, epochs=15, train_examples=512, **LINEAR), tmp_path)
    best = summary["max_test_accuracy_thresholded"] or summary["max_test_accuracy"]
    assert best > 0.85
    assert summary["budget"] == {"fenchel_young": "label_count"}.get(loss)


@pytest.fixture
def nines(monkeypatch):
    """Is a digit a nine?"""

    def read(data_dir):
        raw = readers.digits(data_dir)
        return raw._replace(train_labels=raw.train_labels == 9, test_labels=raw.test_labels == 9)

    monkeypatch.setitem(readers.READERS, "nines", read)


def test_the_epoch_of_a_precision_is_the_best_for_the_validation_examples(nines, tmp_path):
    changes = {"loss": "capacity", "budget": "0.1", "epochs": 15, "validation_examples": 237}
    summary = train(config(dataset="nines", **changes, **LINEAR), tmp_path)
    assert summary["at_max_test_precision_at_5"] > 0.9
    assert summary["budget"] == "0.1"
    records = metrics(tmp_path)
    for part in ("validation", "test"):
        best = max(records, key=lambda record: record["validation_precision_at_5"])
        assert summary[f"at_max_{part}_precision_at_5"] == best[f"{part}_precision_at_5"]
        assert summary[f"last_{part}_precision_at_5"] == records[-1][f"{part}_precision_at_5"]


def test_without_validation_no_epoch_is_the_best_for_a_precision(nines, tmp_path):
    summary = train(config(dataset="nines", loss="top_push", epochs=15, **LINEAR), tmp_path)
    assert summary["last_test_precision_at_5"] > 0.9
    assert summary["at_max_test_precision_at_5"] is None
    assert summary["budget"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "poly"}, "unknown loss 'poly'"),
        ({"batch_size": 1438}, r"batch_size 1438 is outside \[1, 1437\]"),
        ({"batch_size": 0}, "batch_size 0 is outside"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"microbatch_size": -1}, "microbatch_size must be at least 0, got -1"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"label_noise": 1.5}, r"label_noise must be in \[0, 1\], got 1.5"),
        ({"noise_kind": "random"}, "unknown noise_kind 'random': choose one of symmetric, pair, instance"),
        ({"trim": 0.0}, r"trim must be in \(0, 1\], a share of the batch, got 0.0: 1 takes all of it"),
        ({"tail": 1.5}, r"tail must be in \(0, 1\], a share of the batch, got 1.5"),
        ({"trim": float("nan")}, r"trim must be in \(0, 1\], a share of the batch, got nan"),
        ({"trim_warmup": -0.1}, r"trim_warmup must be in \[0, 1\], a share of the steps, got -0.1"),
        ({"trim_by": "loss"}, "unknown trim_by 'loss': choose one of cross_entropy, scaled_squares, projection, or"),
        ({"loss": "mse", "trim": 0.5, "tail": 0.5}, "trim 0.5 and tail 0.5 exclude each other: set one of them to 1"),
        ({"loss": "tilted", "trim": 0.5}, "trim chooses examples by their terms, and tilted is no mean of terms: set"),
        (
            {"loss": "capacity"},
            "the loss capacity ranks the examples of two classes, and the data have 10: choose data",
        ),
        ({"loss": "centred_scaled_mse", "trim": 0.5}, "and centred_scaled_mse is no mean of terms: set trim to 1, or"),
        ({"loss": "hypersimplex", "tail": 0.5}, "tail chooses examples by their terms, and hypersimplex is no mean"),
        ({"imbalance": 0.0}, r"imbalance must be in \(0, 1\], 1 for none, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive and finite, got -1.0"),
        ({"hidden": (8, 0)}, r"hidden must be widths of at least 1, such as \(128, 128\), got \(8, 0\)"),
        ({"hidden": ("8",)}, r"hidden must be widths of at least 1, such as \(128, 128\), got \('8',\)"),
        ({"model": "resnet"}, "unknown model 'resnet': choose one of mlp, cnn"),
        ({"model": "cnn", "microbatch_size": 64}, "microbatch_size does not go with the cnn: its batch normalisation"),
        ({"dataset": "letter", "model": "cnn"}, "letter is a table and has no images: set model to mlp"),
        ({"dataset": "letter", "augment": True}, "letter is a table and has no images"),
        ({"dataset": "mnist"}, "unknown dataset 'mnist'"),
        ({"dataset": "fashion_mnist", "data_dir": "/nowhere"}, "Fashion-MNIST is not in /nowhere"),
    ],
)
def test_a_request_that_cannot_be_met_leaves_nothing_behind(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_without_a_field_or_with_an_unknown_one_is_refused(tmp_path):
    settings = config()
    del settings.label_noise
    with pytest.raises(UserError, match="the config has no field label_noise: see"):
        train(settings, tmp_path / "run")
    settings = config()
    settings.dropout = 0.5
    with pytest.raises(UserError, match="the config has unknown fields dropout: see"):
        train(settings, tmp_path / "run")


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


def test_the_same_seed_evaluated_now_and_then_gives_the_records_of_these_epochs_and_the_last(run, tmp_path):
    _, workdir = run
    train(config(epochs=20, budget="label_count", evaluate_every=6), tmp_path)
    expected = [record for record in metrics(workdir) if record["epoch"] in (6, 12, 18, 20)]
    actual = metrics(tmp_path)
    for record in (*expected, *actual):
        del record["train_seconds"]
    assert actual == expected


HELD_OUT = {"loss": "cross_entropy", "validation_examples": 200, "batch_size": 64}


def test_validation_accuracy_is_of_examples_that_training_does_not_see(tmp_path, monkeypatch):
    seen = []
    load = data.load

    def spoilt(*arguments):
        seen.append(load(*arguments))
        wrong = (seen[0].validation_labels + 1) % 10
        return seen[0]._replace(validation_labels=wrong)

    summary = train(config(**HELD_OUT, epochs=5), tmp_path / "right")
    monkeypatch.setattr(data, "load", spoilt)
    wrong = train(config(**HELD_OUT, epochs=5), tmp_path / "wrong")
    assert len(seen[0].train_labels) == summary["train_examples"] == 1237
    assert losses(tmp_path / "right") == losses(tmp_path / "wrong")
    assert summary["max_validation_accuracy"] > 0.9
    assert wrong["max_validation_accuracy"] < 0.3
    assert summary["max_test_accuracy"] == wrong["max_test_accuracy"]


def test_noise_reaches_training_and_validation_and_imbalance_training_only(tmp_path):
    noisy = train(config(**HELD_OUT, epochs=3, label_noise=1.0), tmp_path / "noisy")
    rare = train(config(**HELD_OUT, epochs=3, imbalance=0.1), tmp_path / "rare")
    assert noisy["max_test_accuracy"] < 0.4
    assert noisy["max_validation_accuracy"] < 0.4
    assert noisy["train_examples"] == 1237
    assert rare["train_examples"] < 700
    assert rare["max_test_accuracy"] > 0.25


NOISY = {"label_noise": 0.4, "train_examples": 1024, "validation_examples": 200, "evaluate_every": 5}


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trimmed")
    return train(config(**NOISY, loss="hypersimplex", trim=0.6, trim_warmup=0.5), workdir), workdir


def test_what_is_kept_is_cleaner_as_less_is_kept(trimmed, run):
    summary, workdir = trimmed
    shares = [record["kept_clean"] for record in metrics(workdir)]
    assert shares[0] == pytest.approx(0.64, abs=0.1)
    assert summary["last_kept_clean"] == shares[-1] > 0.85
    assert summary["last_test_accuracy_thresholded"] > 0.85
    assert summary["budget"] == "0.5"
    assert run[0]["last_kept_clean"] is None
    assert "kept_clean" not in metrics(run[1])[0]


def test_tail_loss_and_worst_class_are_of_the_last_and_of_the_best_epoch(trimmed):
    summary, workdir = trimmed
    records = metrics(workdir)
    for name, by in (
        ("test_worst_class", "test_accuracy"),
        ("test_worst_class_thresholded", "test_accuracy_thresholded"),
        ("test_tail_loss", "test_accuracy"),
        ("kept_clean", "test_accuracy"),
    ):
        assert summary[f"last_{name}"] == records[-1][name]
        assert summary[f"at_max_{name}"] == max(records, key=lambda record: record[by])[name]
    assert all(record["test_worst_class"] <= record["test_accuracy"] for record in records)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "cross_entropy", "trim": 0.6, "noise_kind": "pair"},
        {"loss": "scaled_mse", "trim": 0.6, "trim_by": "projection", "trim_per_class": True, "microbatch_size": 48},
        {"loss": "cross_entropy", "tail": 0.5, "noise_kind": "instance"},
    ],
)
def test_every_way_to_choose_examples_learns(changes, tmp_path):
    summary = train(config(**{**NOISY, **LINEAR, "label_noise": 0.2, "epochs": 20, **changes}), tmp_path)
    assert (summary["max_test_accuracy_thresholded"] or summary["max_test_accuracy"]) > 0.8


@pytest.mark.parametrize(
    ("trim", "by", "name"), [(0.5, "", None), (0.5, "projection", "0.5"), (1.0, "projection", None)]
)
def test_the_budget_of_a_ranking_by_projections_is_named(trim, by, name):
    assert tasks.budget_name(config(loss="mse", trim=trim, trim_by=by)) == name


@pytest.mark.parametrize(
    ("changes", "decides"),
    [({}, False), ({"budget": "label_count"}, True), ({"trim": 0.5, "trim_by": "projection"}, False)],
)
def test_cross_entropy_decides_by_thresholds_where_the_config_has_a_budget(changes, decides):
    settings = config(loss="cross_entropy", **changes)
    assert (tasks.prepare(settings).thresholds is not None) == decides
    assert tasks.budget_name(settings) == ("0.5" if "trim" in changes else changes.get("budget"))


def test_mixed_precision_learns_nearly_the_same(run, tmp_path):
    _, workdir = run
    train(config(epochs=20, budget="label_count", mixed_precision=True), tmp_path)
    assert losses(tmp_path) != losses(workdir)
    np.testing.assert_allclose(losses(tmp_path), losses(workdir), rtol=0.05)


def test_augmentation_changes_what_is_learnt_and_is_reproducible(run, tmp_path):
    _, workdir = run
    for name in ("first", "again"):
        train(config(epochs=2, budget="label_count", augment=True), tmp_path / name)
    assert losses(tmp_path / "first") == losses(tmp_path / "again")
    assert losses(tmp_path / "first") != losses(workdir)[:2]


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        train(config(), tmp_path / "file")


def test_fashion_mnist_config_is_of_the_same_form():
    assert set(config("fashion_mnist").keys()) == set(config().keys())
