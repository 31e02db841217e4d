"""What a case of `softbin-bench` is made of: a problem, a batch of it, and an implementation made ready for that."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Size(NamedTuple):
    """The problem and its shape.

    A `loss` projects each class over the examples, a `selection` each example; a `hard choice` takes some entries of
    each example, and a `hard choice by columns` a sixteenth of the examples for each class. A `trimmed mean` is that of
    the smaller half of all logits, and a `quantile` is one of all. `top-k`, `top-p` and both are masks of each example.
    """

    case: str
    n: int  # even for losses
    classes: int
    inputs: str = "normal"  # of what kind the logits are: see `inputs`


class Batch(NamedTuple):
    """Logits and uniform labels: class numbers (n,), or zeros and ones (n, 1) for a single class."""

    logits: jax.Array
    labels: jax.Array


class Errors(NamedTuple):
    """Of a projection: the largest."""

    entry: float | None  # None where the exact solution is another function
    total: float  # |Σ y - k|


class Program(NamedTuple):
    """An implementation made ready for one batch: calls that return when the result is there."""

    forward: Callable[[], Any] | None
    forward_backward: Callable[[], Any]
    errors: Callable[[], Errors] | None = None  # of the projection; None where there is none
    compile_s: float | None = None  # tracing and compiling the forward and backward program
    temporary_bytes: int | None = None  # that this program needs besides its arguments and results
    device: str | None = None  # where it runs, if not where JAX does


class Implementation(NamedTuple):
    """How to make a program, and what it takes."""

    build: Callable[[Batch], Program]
    needs: tuple[str, ...] = ()  # optional packages
    on_chip: bool = False  # by kernels for accelerators, as far as groups fit
    may_be_slow: bool = False  # then it is left out where one call takes too long, or timed once if it is the baseline


def without_gradient(function: Callable[..., Any], *arguments: jax.Array) -> Program:
    """A choice, which has no gradient, of its arguments."""
    start = time.perf_counter()
    compiled = jax.jit(lambda *anew: function(*anew)).lower(*arguments).compile()  # which no other size has compiled
    compile_s = time.perf_counter() - start
    memory = compiled.memory_analysis()
    return Program(
        forward=None,
        forward_backward=lambda: jax.block_until_ready(compiled(*arguments)),
        compile_s=compile_s,
        temporary_bytes=memory.temp_size_in_bytes if memory else None,
    )
