import json
from contextlib import nullcontext
from pathlib import Path

import jax
import ml_collections
import pytest

from softbin.experiments import sweep as module
from softbin.experiments.runs.checkpoints import Checkpoints
from softbin.experiments.runs.errors import UserError
from softbin.experiments.sweep import sweep
from softbin.experiments.train import train
from tests.experiments.conftest import sketch
from tests.experiments.training.test_run import config, metrics, without_times

pytestmark = pytest.mark.usefixtures("sketched")

RUN = {"epochs": 2, "hidden": (), "train_examples": 256, "checkpoint_every": 1}
BLOCK = {"variants": ({"loss": "mse"}, {"loss": "centred_scaled_mse", "temperature": 5.0}), "seed": (0, 1)}
NAMES = ["mse-s0", "centred_scaled_mse-t5-s0", "mse-s1", "centred_scaled_mse-t5-s1"]


def sweep_config(block=BLOCK, **changes):
    return ml_collections.ConfigDict({"run": config(**{**RUN, **changes}), "grid": {"block": block}})


def results(workdir):
    """Of every run of a sweep its summary and its metrics, without times."""
    return {
        path.name: (
            without_times(json.loads((path / "summary.json").read_text())),
            [without_times(record) for record in metrics(path)],
        )
        for path in (workdir / "runs").iterdir()
    }


def cache():
    return jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs


@pytest.fixture(scope="module")
def undisturbed_and_programs(tmp_path_factory):
    """A finished sweep, how many programs of an epoch were kept after each of its runs, and JAX's cache before it."""
    workdir, counts, before = tmp_path_factory.mktemp("undisturbed"), [], cache()

    def count_programs(settings, workdir):
        summary = train(settings, workdir)
        folder = Path(jax.config.jax_compilation_cache_dir)
        counts.append(len(list(folder.glob("jit_train_epoch-*"))))
        return summary

    with pytest.MonkeyPatch.context() as patched:
        sketch(patched)
        patched.setattr(module, "train", count_programs)
        patched.setattr(module, "LEAST_SECONDS", 0.0)  # however fast the machine is
        assert sweep(sweep_config(), workdir) == []
    return workdir, counts, before


@pytest.fixture
def undisturbed(undisturbed_and_programs, monkeypatch):
    """A finished sweep; those that follow compile nothing that another test has compiled."""
    monkeypatch.setattr(module, "_compiled_once", nullcontext)
    return undisturbed_and_programs[0]


def test_a_sweep_has_a_folder_for_each_run_as_training_alone_writes_it(undisturbed, tmp_path):
    assert sorted(path.name for path in (undisturbed / "runs").iterdir()) == sorted(NAMES)
    assert not (undisturbed / "failed.json").exists()
    alone = config(**RUN, loss="centred_scaled_mse", temperature=5.0, seed=1)
    train(alone, tmp_path / "runs" / NAMES[3])
    assert results(tmp_path)[NAMES[3]] == results(undisturbed)[NAMES[3]]
    written = {path.name for path in (undisturbed / "runs" / NAMES[3]).iterdir() if "tfevents" not in path.name}
    assert written == {"config.json", "metrics.jsonl", "summary.json", "curves.png", "checkpoints"}


def test_an_interrupted_sweep_ends_with_the_results_of_one_that_was_not(undisturbed, tmp_path, monkeypatch):
    saved = []

    class Interrupted(Checkpoints):
        def save(self, epoch, state):
            super().save(epoch, state)
            saved.append(epoch)
            if len(saved) == 3:  # in the middle of the second run
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("softbin.experiments.runs.checkpoints.Checkpoints", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep(sweep_config(), tmp_path)
    assert {path.parent.name for path in tmp_path.rglob("summary.json")} == {NAMES[0]}
    assert sweep(sweep_config(), tmp_path) == []
    assert results(tmp_path) == results(undisturbed)


def test_finished_runs_are_skipped(undisturbed, monkeypatch):
    monkeypatch.setattr(module, "train", None)
    assert sweep(sweep_config(), undisturbed) == []


def test_a_sweep_goes_on_past_a_failed_run_and_tries_it_again_next_time(undisturbed, tmp_path, monkeypatch):
    def fail_in_one(settings, workdir):
        if workdir.name == NAMES[1]:
            raise RuntimeError("out of memory")
        return train(settings, workdir)

    with monkeypatch.context() as patched:
        patched.setattr(module, "train", fail_in_one)
        failed = sweep(sweep_config(), tmp_path)
    assert failed == [{"run": NAMES[1], "error": "RuntimeError: out of memory"}]
    assert json.loads((tmp_path / "failed.json").read_text()) == failed
    assert {path.parent.name for path in tmp_path.rglob("summary.json")} == {NAMES[0], *NAMES[2:]}
    assert sweep(sweep_config(), tmp_path) == []
    assert not (tmp_path / "failed.json").exists()
    assert results(tmp_path) == results(undisturbed)


def test_the_folder_of_another_sweep_is_refused_before_anything_is_run(undisturbed):
    before = results(undisturbed)
    with pytest.raises(UserError, match=r"mse-s0 holds a run of another config \(epochs is 2 there and 5 here\)"):
        sweep(sweep_config(epochs=5, block={**BLOCK, "seed": (7, 0)}), undisturbed)
    assert results(undisturbed) == before


def test_a_program_is_compiled_once_for_all_seeds_and_jax_is_left_as_it_was(undisturbed_and_programs):
    _, counts, before = undisturbed_and_programs
    assert counts == [1, 2, 2, 2]
    assert cache() == before
