import runpy

import ml_collections
import pytest

from softbin.experiments.kinds import BOOSTING, NETWORKS
from softbin.experiments.runs import grids
from softbin.experiments.runs.errors import UserError
from tests.experiments.training.test_run import CONFIGS, config


def sweep_config(**blocks):
    return ml_collections.ConfigDict({"run": config(), "grid": blocks})


SIMPLEX = {"loss": "hypersimplex", "budget": "label_count", "temperature": 5.0}


def test_a_block_is_a_product_with_seeds_outermost_and_variants_innermost():
    block = {"variants": ({"loss": "mse"}, SIMPLEX), "seed": (0, 1), "batch_size": (64, 128)}
    runs = grids.expand(sweep_config(block=block))
    assert list(runs) == [
        "mse-b64-s0",
        "hypersimplex-label_count-t5-b64-s0",
        "mse-b128-s0",
        "hypersimplex-label_count-t5-b128-s0",
        "mse-b64-s1",
        "hypersimplex-label_count-t5-b64-s1",
        "mse-b128-s1",
        "hypersimplex-label_count-t5-b128-s1",
    ]
    expected = config(**SIMPLEX, batch_size=128, seed=1)
    assert runs["hypersimplex-label_count-t5-b128-s1"].to_dict() == expected.to_dict()


def test_a_run_of_several_blocks_is_run_once_and_all_of_a_seed_come_first():
    rates = {"learning_rate": (1e-4, 1e-3), "seed": (0,)}
    assert list(grids.expand(sweep_config(a={"seed": (0, 1)}, b=rates))) == ["s0", "lr0.0001-s0", "s1"]


def test_names_say_only_what_varies_and_fit_every_file_system():
    block = {"data_dir": ("/a b/c", "d:e"), "hidden": ((8,), (16, 8)), "epochs": (3,), "imbalance": (0.02, 1.0)}
    names = list(grids.expand(sweep_config(block=block)))
    assert names[0] == "data_dir_a_b_c-hidden8-imbalance0.02"
    assert names[-1] == "data_dird_e-hidden16x8-imbalance1"


def test_a_single_run_is_called_run():
    assert list(grids.expand(sweep_config(block={"epochs": (3,)}))) == ["run"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"epochs": 3}, r"config.grid.block.epochs is 3: make it a tuple of values"),
        ({"dropout": (0.5,)}, "the grid of the config varies dropout, which its run does not have"),
        ({"epochs": ("many",)}, "the grid of the config has a value for epochs of another type"),
        ({"epochs": ()}, "the grid of the config has no runs"),
        ({"data_dir": ("a/b", "a:b")}, "2 runs of the grid have the name data_dira_b"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(block, message):
    with pytest.raises(UserError, match=message):
        grids.expand(sweep_config(block=block))


def test_a_config_of_a_single_run_is_refused():
    with pytest.raises(UserError, match="the config is not a sweep, with a run and a grid: give it to softbin-train"):
        grids.expand(config())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("large_batch_cpu", 264),
        ("noise_development", 77),
        ("noise", 720),
        ("capacity_development", 72),
        ("capacity", 480),
        ("paper/fashion_mnist", 385),
        ("paper/cifar10", 385),
    ],
)
def test_the_sweeps_that_are_shipped_have_as_many_runs_as_they_say(name, count):
    settings = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()
    runs = grids.expand(settings)
    assert len(runs) == count
    assert set(settings.run.keys()) == NETWORKS.fields.keys()
    assert max(map(len, runs)) < 100


def test_the_sweep_of_boosting_with_a_capacity_has_as_many_runs_as_it_says():
    settings = runpy.run_path(str(CONFIGS / "boosting_capacity.py"))["get_config"]()
    assert len(grids.expand(settings)) == 240
    assert set(settings.run.keys()) == BOOSTING.fields.keys()
