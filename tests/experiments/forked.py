"""Processes of their own for runs, forked from one that has imported what they need and nothing more."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from unittest import mock

import jax

from softbin.experiments import sweep
from tests import compiling

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["orbax.checkpoint", "sklearn.datasets", "softbin.experiments.training.run", "tensorboardX"]
)


def start(function: Callable, *arguments) -> BaseProcess:
    """Call it in a process with one device."""
    process = _CONTEXT.Process(target=function, args=arguments, daemon=True)
    with mock.patch.dict(os.environ, _environment()):  # of all of them, from the first one on
        process.start()
    return process


def _environment() -> dict[str, str]:
    return {
        "XLA_FLAGS": compiling.flags(devices=1),
        "JAX_COMPILATION_CACHE_DIR": f"{jax.config.jax_compilation_cache_dir}-by-processes",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": f"{sweep.LEAST_SECONDS}",
    }


def finish(*processes: BaseProcess) -> None:
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes)
