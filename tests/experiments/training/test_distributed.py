"""The number of devices and processes does not change what is learnt."""

import os
import subprocess

import jax
import numpy as np
import pytest

from softbin.experiments.runs.errors import UserError
from softbin.experiments.train import train
from tests import compiling
from tests.experiments.training.test_run import COMMAND, CONFIGS, config, losses

CHANGES = {"epochs": 10, "budget": "label_count"}
ARGUMENTS = [f"--config={CONFIGS / 'digits.py'}", *(f"--config.{name}={value}" for name, value in CHANGES.items())]


def start(workdir, *arguments) -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": compiling.flags(devices=1)}
    command = [*COMMAND, *ARGUMENTS, f"--workdir={workdir}", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen) -> list[str]:
    outputs = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    return [output for output, _ in outputs]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    finish(start(workdir))
    return losses(workdir)


def test_eight_devices_learn_what_one_learns(one_device, tmp_path):
    assert jax.device_count() == 8
    train(config(**CHANGES), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), one_device, atol=1e-4)


def test_two_processes_learn_what_one_learns_and_one_of_them_reports(one_device, port, tmp_path):
    group = [f"--coordinator_address=localhost:{port}", "--num_processes=2"]
    outputs = finish(*(start(tmp_path, *group, f"--process_id={i}") for i in range(2)))
    np.testing.assert_allclose(losses(tmp_path), one_device, atol=1e-4)
    assert ["digits, hypersimplex" in output for output in outputs] == [True, False]


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    with pytest.raises(UserError, match="batch_size 255 does not divide over 8 devices: choose a multiple"):
        train(config(batch_size=255), tmp_path / "run")
