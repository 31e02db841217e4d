import subprocess
import sys

import pytest

import softbin

LOADED = "import softbin, sys; print([name for name in {names} if name in sys.modules])"


def test_import_is_light():
    names = ["flax", "optax", "matplotlib", "sklearn", "scipy.optimize", "lightgbm"]
    command = [sys.executable, "-c", LOADED.format(names=names)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name", softbin.__all__)
def test_public_names_exist_and_are_described(name):
    value = getattr(softbin, name)
    assert isinstance(value, softbin.Regularizer) or value.__doc__
