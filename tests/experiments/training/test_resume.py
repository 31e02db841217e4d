"""Training that is killed goes on as if nothing had happened."""

import json
import shutil
from multiprocessing.process import BaseProcess
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from softbin.experiments.runs.checkpoints import Checkpoints
from softbin.experiments.runs.errors import UserError
from softbin.experiments.train import train
from tests.experiments import forked
from tests.experiments.runs.test_checkpoints import truncate
from tests.experiments.training.test_run import config, losses, metrics, without_times

pytestmark = pytest.mark.usefixtures("sketched")

EPOCHS = 100
CHANGES = {"epochs": EPOCHS, "checkpoint_every": 5, "hidden": (32,), "budget": "label_count"}
CNN = {"model": "cnn", "augment": True, "train_examples": 256, "batch_size": 64, "epochs": 4, "temperature": 5.0}
TRIMMED = {"epochs": 4, "label_noise": 0.4, "trim": 0.6, "trim_warmup": 1.0}  # a share that every step changes


def start(workdir: Path) -> BaseProcess:
    return forked.start(train, config(**CHANGES), workdir)


def final_state(workdir: Path, epochs: int = EPOCHS) -> list[np.ndarray]:
    one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    arguments = ocp.args.StandardRestore(fallback_sharding=one_device)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        state = checkpointer.restore((workdir / "checkpoints" / str(epochs) / "state").absolute(), args=arguments)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def results(workdir: Path):
    records = metrics(workdir)
    for record in records:
        del record["train_seconds"]
    return records, without_times(json.loads((workdir / "summary.json").read_text()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    forked.finish(start(workdir))
    return workdir


def epochs_done(workdir: Path) -> int:
    metrics = workdir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def kill_after(process: BaseProcess, workdir: Path, epochs: int, seconds: float) -> bool:
    """Kill a run some time after it has done some more epochs; whether it was still running."""
    target = epochs_done(workdir) + epochs
    while epochs and epochs_done(workdir) < target and process.is_alive():
        process.join(0.01)
    process.join(seconds)
    killed = process.is_alive()
    process.kill()
    process.join()
    return killed


def test_a_run_killed_again_and_again_ends_with_the_bits_of_an_undisturbed_one(undisturbed, tmp_path):
    rng = np.random.default_rng(0)
    epochs = [0, 7, 3]  # the first while it starts up
    kills = [kill_after(start(tmp_path), tmp_path, wait, rng.uniform(0, 0.05 if wait else 1)) for wait in epochs]
    assert any(kills[1:])  # a busy machine may be late for others
    forked.finish(start(tmp_path))

    for actual, expected in zip(final_state(tmp_path), final_state(undisturbed), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert results(tmp_path) == results(undisturbed)


@pytest.mark.parametrize(("changes", "reached"), [(CNN, 0.6), (TRIMMED, 0.4)], ids=["cnn", "trimmed"])
def test_a_run_learns_and_goes_on_where_it_was(changes, reached, tmp_path, monkeypatch):
    settings = config(**changes, checkpoint_every=2, evaluate_every=3)

    class Copied(Checkpoints):
        def save(self, epoch, state):
            super().save(epoch, state)
            if epoch == 2:  # what a run that is killed now leaves
                shutil.copytree(tmp_path / "whole", tmp_path / "cut")

    with monkeypatch.context() as patched:
        patched.setattr("softbin.experiments.runs.checkpoints.Checkpoints", Copied)
        summary = train(settings, tmp_path / "whole")
    assert summary["max_test_accuracy_thresholded"] > reached
    train(settings, tmp_path / "cut")
    assert [record["epoch"] for record in metrics(tmp_path / "cut")] == [3, 4]
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    for actual, expected in zip(*(final_state(tmp_path / name, 4) for name in ("cut", "whole")), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before_it(tmp_path, capfd):
    settings = config(**TRIMMED, checkpoint_every=3)
    expected = without_times(train(settings, tmp_path))
    before = losses(tmp_path)
    (tmp_path / "summary.json").unlink()
    for path in (tmp_path / "checkpoints" / "4" / "state").rglob("d/*"):
        truncate(path)

    assert without_times(train(settings, tmp_path)) == expected
    assert "training goes on from epoch 3\n" in capfd.readouterr().err
    assert losses(tmp_path) == before


def test_a_damaged_config_of_a_folder_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is damaged: remove it, or choose another --workdir"):
        train(config(), tmp_path)
