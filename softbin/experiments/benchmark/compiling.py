"""What it takes to compile a program: seconds of the processor, and how large the result is."""

import gc
import random
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from softbin.experiments.benchmark.programs import PROGRAMS, Compiled, installed
from softbin.experiments.benchmark.report import CompileRecord

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?\S+ = ", re.MULTILINE)


class Cost(NamedTuple):
    """Of one compilation. Seconds are those of the processor in all threads: XLA compiles in several."""

    total_s: float
    trace_s: float | None = None  # None of a first call, which is many programs
    compile_s: float | None = None
    instructions: int | None = None
    fusions: int | None = None
    temporary_bytes: int | None = None


def compile_times(names: Sequence[str], processes: int) -> list[CompileRecord]:
    """A record for each program whose packages are installed: medians over fresh processes, one after another.

    Each process compiles all programs.
    """
    device, costs = "", []
    for seed in range(processes):
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            device, of_all = fresh.submit(in_this_process, names, seed).result()
        costs.append(of_all)
    return [record(name, device, costs) for name in installed(names)]


def in_this_process(names: Sequence[str], seed: int) -> tuple[str, dict[str, Cost]]:
    """The device, and what each program costs, in a random order: the first pays for what JAX loads late."""
    jax.config.update("jax_enable_compilation_cache", False)
    jax.jit(jnp.sort).lower(jnp.zeros(8)).compile()
    names = installed(names)  # which imports what they need, before a clock runs
    order = random.Random(seed).sample(names, len(names))
    return jax.devices()[0].device_kind, {name: cost(PROGRAMS[name]) for name in order}


def cost(program: Compiled) -> Cost:
    """Of a program, with nothing left that others have traced or compiled."""
    arguments = [jnp.zeros(each.shape, each.dtype) for each in program.arguments if program.first_call]
    jax.clear_caches()
    gc.collect()
    start = time.process_time()
    if program.first_call:
        jax.block_until_ready(program.function(*arguments))
        return Cost(time.process_time() - start)
    lowered = jax.jit(program.function).lower(*program.arguments)
    traced = time.process_time()
    compiled = lowered.compile()
    end = time.process_time()
    memory, text = compiled.memory_analysis(), compiled.as_text() or ""
    return Cost(
        end - start,
        traced - start,
        end - traced,
        instructions=len(_INSTRUCTION.findall(text)),
        fusions=text.count(" fusion("),
        temporary_bytes=memory.temp_size_in_bytes if memory else None,
    )


def record(name: str, device: str, costs: Sequence[Mapping[str, Cost]]) -> CompileRecord:
    """Of a program, from what each process found; a ratio is the median of the ratios of the processes."""

    def over(other: str | None) -> float | None:
        return _median([each[name].total_s / each[other].total_s for each in costs if other and other in each])

    own, program = [each[name] for each in costs], PROGRAMS[name]
    medians: dict[str, Any] = {field: _median([getattr(each, field) for each in own]) for field in Cost._fields}
    return CompileRecord(
        name,
        device,
        len(costs),
        **medians,
        over_cross_entropy=over(program.cross_entropy),
        over_top_k=over(program.top_k),
        over_bisection=over(program.bisection),
    )


def _median(values: Sequence[float | int | None]) -> float | int | None:
    known = [value for value in values if value is not None]
    if len(set(known)) <= 1:  # counts, which stay whole
        return known[0] if known else None
    return statistics.median(known)
