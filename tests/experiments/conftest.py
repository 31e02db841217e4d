import sys

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(autouse=True, scope="module")
def compiled_once(tmp_path_factory):
    """A program that one test of this folder has compiled, another finds."""
    configure(str(tmp_path_factory.getbasetemp() / "compiled"))
    yield
    configure(None)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a folder for the data of a package, which seems to be installed and must not be imported."""

    def make(name):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
        return tmp_path / name / "data"

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return make


def configure(path: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", path)
    compilation_cache.reset_cache()
