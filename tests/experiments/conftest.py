import sys

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from softbin.experiments import sweep


@pytest.fixture(autouse=True, scope="module")
def compiled_once(tmp_path_factory):
    """A program that one test of this folder has compiled, another finds."""
    configure(str(tmp_path_factory.getbasetemp() / "compiled"), sweep.LEAST_SECONDS)
    yield
    configure(None, 1.0)


@pytest.fixture
def sketched(monkeypatch):
    """Pictures are empty files, as drawing takes longer than learning; fixtures of modules draw theirs."""
    sketch(monkeypatch)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a folder for the data of a package, which seems to be installed and must not be imported."""

    def make(name):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
        return tmp_path / name / "data"

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return make


def sketch(patched: pytest.MonkeyPatch) -> None:
    patched.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: path.touch())


def configure(path: str | None, least_seconds: float) -> None:
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)
    compilation_cache.reset_cache()
