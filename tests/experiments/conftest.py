import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(autouse=True, scope="module")
def compiled_once(tmp_path_factory):
    """A program that one test of this folder has compiled, another finds."""
    configure(str(tmp_path_factory.getbasetemp() / "compiled"))
    yield
    configure(None)


def configure(path: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", path)
    compilation_cache.reset_cache()
