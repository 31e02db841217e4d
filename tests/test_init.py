import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import softbin

LOADED = "import softbin, sys; softbin.{used}; print([name for name in {names} if name in sys.modules])"


@pytest.mark.parametrize(("used", "lighter"), [("__version__", ["jax", "numpy"]), ("loss", [])])
def test_import_is_light(used, lighter):
    names = [*lighter, "flax", "optax", "matplotlib", "sklearn", "scipy.optimize", "lightgbm"]
    command = [sys.executable, "-c", LOADED.format(used=used, names=names)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_type_checkers_are_told_of_every_name_where_it_is():
    told = [node for node in ast.walk(ast.parse(inspect.getsource(softbin))) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in told for alias in node.names if node.module.startswith("softbin")}
    assert sorted(homes) == sorted(softbin.__all__)
    for name, home in homes.items():
        assert getattr(softbin, name) is getattr(importlib.import_module(home), name)


def test_names_are_listed_and_others_are_refused():
    assert {*softbin.__all__, "losses", "regularizers"} <= set(dir(softbin))
    assert softbin.losses.loss is softbin.loss
    with pytest.raises(AttributeError, match="module 'softbin' has no attribute 'los'"):
        _ = softbin.los


def test_type_checkers_see_the_signatures():
    assert Path(softbin.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("name", softbin.__all__)
def test_public_names_exist_and_are_described(name):
    value = getattr(softbin, name)
    assert isinstance(value, softbin.Regularizer) or value.__doc__
