"""The number of devices and processes does not change what is learnt."""

from contextlib import redirect_stdout
from pathlib import Path

import jax
import numpy as np
import pytest

from softbin.experiments.runs.errors import UserError
from softbin.experiments.train import main, train
from tests.experiments import forked
from tests.experiments.training.test_run import CONFIGS, config, losses

pytestmark = pytest.mark.usefixtures("sketched")

CHANGES = {"epochs": 10, "budget": "label_count"}
ARGUMENTS = [f"--config={CONFIGS / 'digits.py'}", *(f"--config.{name}={value}" for name, value in CHANGES.items())]


def command(arguments: list[str], output: Path) -> None:
    with output.open("w") as file, redirect_stdout(file):
        main(arguments)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jax, "device_count", lambda: 1)
        train(config(**CHANGES), workdir)
    return losses(workdir)


def test_eight_devices_learn_what_one_learns(one_device, tmp_path):
    assert jax.device_count() == 8
    train(config(**CHANGES), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), one_device, atol=1e-4)


def test_two_processes_learn_what_one_learns_and_one_of_them_reports(one_device, port, tmp_path):
    group = [f"--coordinator_address=localhost:{port}", "--num_processes=2", f"--workdir={tmp_path}"]
    outputs = [tmp_path / f"output_{i}" for i in range(2)]
    forked.finish(
        *(forked.start(command, [*ARGUMENTS, *group, f"--process_id={i}"], outputs[i]) for i in range(2)),
    )
    np.testing.assert_allclose(losses(tmp_path), one_device, atol=1e-4)
    assert ["digits, hypersimplex" in output.read_text() for output in outputs] == [True, False]


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    with pytest.raises(UserError, match="batch_size 255 does not divide over 8 devices: choose a multiple"):
        train(config(batch_size=255), tmp_path / "run")
