import subprocess
import sys
from pathlib import Path

import pytest

import softbin

LOADED = "import softbin, sys; print([name for name in {names} if name in sys.modules])"


def test_import_is_light():
    names = ["flax", "optax", "matplotlib", "sklearn", "scipy.optimize", "lightgbm"]
    command = [sys.executable, "-c", LOADED.format(names=names)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_type_checkers_see_the_signatures():
    assert Path(softbin.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("name", softbin.__all__)
def test_public_names_exist_and_are_described(name):
    value = getattr(softbin, name)
    assert isinstance(value, softbin.Regularizer) or value.__doc__
