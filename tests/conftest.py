import gc
import os
import socket

import jax
import jaxtyping
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import compiling

os.environ.setdefault("OMP_NUM_THREADS", "1")  # boosters' threads would wait for cores that other tests keep busy
os.environ.setdefault("KERAS_BACKEND", "jax")  # for examples in docstrings
# The threads of XLA's CPU devices. With one for each of eight, JAX 0.7 may start all-reduces that do not depend on one
# another in another order on each, and then all wait, until it aborts after ten seconds.
os.environ.setdefault("NPROC", "32")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {compiling.flags(devices=8)}"  # read when first used

jax.config.update("jax_traceback_in_locations_limit", 0)  # compilation takes a sixth longer with lines of Python
jax.config.update("jax_traceback_filtering", "off")  # an expected error takes twice as long with it

install_import_hook("softbin", "beartype.beartype")
settings.register_profile("always alike", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("always alike")


def pytest_collection_finish():
    """Look seldom for garbage, and never among what was imported, which is most that there is."""
    gc.set_threshold(100_000, 20, 20)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Unmap what a module has compiled: a process may map only so much memory, and all tests together compile more."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def x64():
    enable = getattr(jax, "enable_x64", None)
    if enable is None:  # before jax 0.8
        from jax.experimental import enable_x64 as enable
    with enable(True):
        yield


@pytest.fixture
def no_shape_checks():
    """Let a wrong argument through to softbin's own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def port():
    """A free port, at which processes may meet; on CPU they find one another by the machine's own name."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except socket.gaierror:
        pytest.skip(f"the machine does not know its own name: add the line 127.0.1.1 {name} to /etc/hosts")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]
