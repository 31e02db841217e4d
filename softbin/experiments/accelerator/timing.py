"""Times on a device: many calls inside one compiled program, so that dispatch does not count."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from softbin.experiments.runs.errors import one_line

_FEW, _MOST = 4, 10_000  # calls inside a program
_ROUNDS = 5
_NOTHING = 1e-30  # that a compiler does not know to be nothing


def records(functions: Mapping[str, Callable], arguments: Sequence[jax.Array], seconds: float) -> list[dict[str, Any]]:
    """The time of each function by its name, or the error of one that fails: the others go on."""
    result = []
    for name, function in functions.items():
        try:
            found = measure(function, arguments, seconds)
        except Exception as error:  # of a compiler, perhaps
            found = {"error": named(error)}
        result.append({"implementation": name, **found})
    return result


def named(error: Exception) -> str:
    """An error in a line: a compiler's may have thousands."""
    return f"{type(error).__name__}: {one_line(error)[:2000]}"


def measure(function: Callable, arguments: Sequence[jax.Array], seconds: float) -> dict[str, Any]:
    """The median time of a call, in a program of as many calls as take about so many seconds, but a few at least."""
    calls, (program, compile_s) = _FEW, _compiled(function, arguments, _FEW)
    wanted = min(math.ceil(seconds * calls / _seconds(program, arguments)), _MOST)
    if wanted > 2 * calls:
        calls, (program, _) = wanted, _compiled(function, arguments, wanted)
    times = [_seconds(program, arguments) for _ in range(_ROUNDS)]
    return {"microseconds": 1e6 * statistics.median(times) / calls, "calls": calls, "compile_s": compile_s}


def _compiled(function, arguments, calls: int):
    start = time.perf_counter()
    program = jax.jit(lambda *arguments: repeated(function, arguments, calls)).lower(*arguments).compile()
    compile_s = time.perf_counter() - start
    jax.block_until_ready(program(*arguments))  # the first run loads it
    return program, compile_s


def _seconds(program, arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start


def repeated(function: Callable, arguments: Sequence[jax.Array], calls: int) -> Any:
    """The results of the last of so many calls, each of which waits for the one before.

    Every call writes all its results, and changes an entry of every argument of the next: nothing can be left out or
    moved out of the loop, and no argument is copied. The number of calls is fixed, so that a GPU need not ask the host
    after each whether there is another.
    """

    def call(_, carry):
        arguments, _ = carry
        results = function(*arguments)
        last = sum(_first(result).astype(jnp.float32) for result in jax.tree.leaves(results))
        return [_changed(argument, _NOTHING * last) for argument in arguments], results

    start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function, *arguments))
    return lax.fori_loop(0, calls, call, (list(arguments), start))[1]


def _first(array):
    return array[(0,) * array.ndim]


def _changed(array, by):
    return array.at[(0,) * array.ndim].add(by.astype(array.dtype))
