import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin.experiments.configs import sparse_autoencoder, sparsity, sparsity_development
from softbin.experiments.datasets.images import load
from softbin.experiments.kinds import SPARSITY_MEASURES
from softbin.experiments.runs import grids
from softbin.experiments.runs.errors import UserError
from softbin.experiments.sparsity.numbers import Numbers
from softbin.experiments.sparsity.run import TASKS, sentence
from softbin.experiments.train import train

pytestmark = pytest.mark.usefixtures("sketched")

EPOCHS = 30
SMALL = {"dataset": "digits", "train_examples": 1024, "validation_examples": 256, "batch_size": 128, "epochs": EPOCHS}
CHANGES = {
    "autoencoder": {"method": "straight_through", "k": 4, "width": 64},
    "experts": {"method": "exact_quantiles", "k": 2, "width": 8, "learning_rate": 1e-2},
    "features": {"method": "soft", "k": 20, "width": 32, "temperature": 0.1, "learning_rate": 1e-2},
    "pruning": {"method": "global", "k": 0.1, "width": 32, "learning_rate": 1e-2},
}


def config(task, **changes):
    result = sparse_autoencoder.get_config()
    result.update({**SMALL, "task": task, **CHANGES[task], **changes})
    result.k = float(result.k)
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of each task."""
    folders = {task: tmp_path_factory.mktemp(task) for task in TASKS}
    return {task: (folder, train(config(task), folder)) for task, folder in folders.items()}


def test_each_task_learns(finished):
    reached = {task: summary[f"test_{TASKS[task].measure}"] for task, (_, summary) in finished.items()}
    assert reached["autoencoder"] < 0.4  # of the variance, by 4 of 64 directions
    assert min(reached["experts"], reached["features"], reached["pruning"]) > 0.75


def test_experts_are_about_equally_busy(finished):
    _, summary = finished["experts"]
    assert 0.7 < summary["load_min"] <= 1 <= summary["load_max"] < 1.3


def test_the_summary_is_that_of_the_last_epoch(finished):
    for task, (folder, summary) in finished.items():
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [record["epoch"] for record in records] == list(range(1, EPOCHS + 1))
        validation = f"validation_{TASKS[task].measure}"
        assert records[-1][validation] == summary[validation]
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((folder / "summary.json").read_text()) == summary
        assert sentence(summary).startswith(f"{task}, {CHANGES[task]['method']}: test {TASKS[task].measure} 0.")


def test_a_run_is_repeated_exactly_and_a_finished_one_is_not_run_again(finished, tmp_path):
    folder, first = finished["pruning"]
    again = train(config("pruning"), tmp_path)
    assert {**first, "train_seconds": 0, "date": ""} == {**again, "train_seconds": 0, "date": ""}
    assert train(config("pruning"), folder) == first


@pytest.mark.parametrize(("task", "method"), [(task, method) for task in TASKS for method in TASKS[task].methods])
def test_every_method_has_the_measures_of_its_task(task, method):
    settings = config(task, method=method)
    split = load("digits", "", 1024, 256, 0, pooled=TASKS[task].pooled)
    numbers = Numbers(*(jnp.float32(settings[name]) for name in Numbers._fields))._replace(seed=jnp.int32(0))
    sizes = {name: settings[name] for name in ("method", "width", "epochs", "batch_size")}
    results = jax.eval_shape(lambda: TASKS[task].train(split, numbers, **sizes))
    validation, test = (f"{part}_{TASKS[task].measure}" for part in ("validation", "test"))
    assert {validation, test} <= set(results) <= {"loss", *SPARSITY_MEASURES}
    assert (results[validation].shape, results[test].shape) == ((EPOCHS,), ())


@pytest.mark.parametrize(
    ("of", "changes", "message"),
    [
        ("pruning", {"task": "distillation"}, "unknown task 'distillation': choose one of autoencoder, experts, featu"),
        ("pruning", {"method": "l1"}, "pruning has no method 'l1': choose one of global, by_layer"),
        ("pruning", {"k": 2.0}, r"k must be a share of the weights, at most 1, got 2\.0"),
        ("features", {"k": 2.5}, r"k must be a whole number, got 2\.5"),
        ("experts", {"k": 8}, r"k must be less than the width, 8, got 8\.0"),
        ("experts", {"batch_size": 4}, r"batch_size must be in \[8, 1024\], the training examples, got 4"),
        ("features", {"temperature": 0.0}, r"temperature must be positive and finite, got 0\.0"),
        ("features", {"penalty": -1.0}, r"penalty must be finite and not negative, got -1\.0"),
        ("features", {"k": 65.0}, "k must be at most the number of pixels, 64, got 65"),
        ("features", {"train_examples": 1400}, "train_examples 1400 is more than the 1181 that digits has: lower it"),
        ("features", {"loss": "hinge"}, "unknown fields loss: see .*sparse_autoencoder.py"),
    ],
)
def test_bad_configs_are_refused_and_nothing_is_written(of, changes, message, tmp_path):
    settings = config(of)
    settings.update(changes)
    with pytest.raises(UserError, match=message):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pooled_images_are_the_means_of_four_pixels():
    whole, pooled = (load("digits", "", 8, 1, 0, pooled=pooled).train.pixels for pooled in (False, True))
    assert (whole.shape, pooled.shape) == ((8, 64), (8, 16))
    np.testing.assert_allclose(pooled[:, 5], whole.reshape(8, 8, 8)[:, 2:4, 2:4].mean((1, 2)), rtol=1e-6)


def test_the_sweep_has_seeds_of_its_own_and_every_method_at_settings_that_were_searched():
    development, confirmation = (grids.expand(each.get_config()) for each in (sparsity_development, sparsity))
    assert not {run.seed for run in development.values()} & {run.seed for run in confirmation.values()}
    for task in TASKS:
        assert {run.method for run in confirmation.values() if run.task == task} == set(TASKS[task].methods)
    fields = [name for name in next(iter(development.values())) if name != "seed"]
    searched = {tuple(run[name] for name in fields) for run in development.values()}
    assert {tuple(run[name] for name in fields) for run in confirmation.values()} <= searched
