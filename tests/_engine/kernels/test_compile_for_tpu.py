import os
import subprocess
import sys

import pytest


def test_kernels_compile_for_tpu_where_its_compiler_is_installed():
    pytest.importorskip("libtpu")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # some of which it lacks
    command = [sys.executable, "-m", "tests._engine.kernels.compile_for_tpu", "v5e:2x2"]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    assert outcome.stdout.count("TPU v5 lite") == 6
