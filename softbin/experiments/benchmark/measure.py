"""Times, memory and errors of implementations, measured side by side."""

import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from softbin.experiments.benchmark import long_rows, peers, programs, report
from softbin.experiments.benchmark.cases import BASELINES, IMPLEMENTATIONS, make_batch, runnable
from softbin.experiments.benchmark.compiling import compile_times
from softbin.experiments.benchmark.inputs import INPUTS
from softbin.experiments.benchmark.problems import Program, Size
from softbin.experiments.benchmark.report import Record
from softbin.experiments.runs import workdir as folder

_FEWEST_ROUNDS = 5
_MEMORY_PER_LOGIT = 64  # bytes: the logits, their gradient, and what the implementations keep in between


_MASKS = ("top-p", "top-k", "top-k and top-p")


class Plan(NamedTuple):
    """What to measure, and for how long."""

    sizes: Sequence[Size]
    seconds: float  # of rounds at each size
    long_rows_seconds: float  # the same for masks and quantiles of long rows
    most_rounds: int
    slow_seconds: float  # of one call, beyond which an implementation that may be slow is left out
    compiled: Sequence[str]  # programs, by name
    compile_processes: int  # that each compile all of them


FULL = Plan(
    sizes=(
        *(Size("loss", n, 10) for n in (128, 1024, 8192, 65_536, 1_048_576)),
        Size("loss", 8192, 1000),
        Size("loss", 65_536, 1000),
        Size("loss", 16_777_216, 1),
        Size("selection", 8192, 8),
        Size("selection", 2048, 64),
        Size("selection", 2048, 1024),
        Size("selection", 256, 4096),
        Size("selection", 256, 16_384),
        Size("hard choice", 8192, 64),
        Size("hard choice", 8192, 256),
        Size("hard choice", 2048, 1024),
        Size("hard choice by columns", 65_536, 64),
        Size("hard choice by columns", 16_777_216, 1),
        *(Size("trimmed mean", n, 1) for n in (65_536, 1_048_576, 16_777_216)),
        *(Size(case, *shape) for case in _MASKS for shape in ((8, 151_936), (32, 32_000), (1, 151_936))),
        *(Size(case, 8, 151_936, kind) for case in _MASKS[:2] for kind in INPUTS if kind != "normal"),
        *(Size("quantile", n, 1) for n in (2**22, 2**24)),
    ),
    seconds=20.0,
    long_rows_seconds=4.0,
    most_rounds=300,
    slow_seconds=4.0,
    compiled=tuple(programs.PROGRAMS),
    compile_processes=5,
)
QUICK = Plan(
    sizes=(
        *(Size("loss", n, 10) for n in (128, 8192, 65_536)),
        Size("selection", 2048, 64),
        Size("hard choice", 8192, 256),
        Size("trimmed mean", 65_536, 1),
        Size("top-p", 8, 32_000),
    ),
    seconds=4.0,
    long_rows_seconds=4.0,
    most_rounds=50,
    slow_seconds=1.0,
    compiled=(
        programs.CROSS_ENTROPY,
        "softbin.loss",
        programs.TOP_K_SOFTMAX,
        "softbin.soft_binary_argmax, rows of 10",
        programs.TOP_K,
        "softbin.kth_largest, columns",
        programs.BISECTION_P,
        "softbin.sampling.top_p_mask",
    ),
    compile_processes=1,
)


class Seconds(NamedTuple):
    """How long something takes, and how long the processor works for it in all threads of this process."""

    clock: float
    cpu: float


class _Times(NamedTuple):
    forward: list[Seconds]
    forward_backward: list[Seconds]


def bench(plan: Plan, workdir: Path, console: Console) -> dict[str, Any]:
    """Measure a plan, print a table of compilation and one for each size, and write `bench.json` and `bench.png`.

    Returns:
      What is in `bench.json`: the environment, one record for each program that is compiled, and one for each size and
      implementation.

    Raises:
      UserError: the folder cannot be made. Nothing has been measured then.
    """
    folder.make(workdir)
    compiled = compile_times(plan.compiled, plan.compile_processes)  # while the device is free
    report.show_compile_times(compiled, console)
    environment, records = report.environment(), []
    for size in plan.sizes:
        measured = measure(size, plan)
        report.show(measured, console)
        records += measured
        result = {
            "environment": environment,
            "compilation": [record._asdict() for record in compiled],
            "records": [record._asdict() for record in records],
        }
        folder.write(workdir / "bench.json", json.dumps(result, indent=2) + "\n")  # at every size: it can be a long run
    report.save_plot(records, environment, workdir / "bench.png")
    if missing := _missing(plan):
        console.print(f"Not installed, and their implementations left out: {', '.join(missing)}.")
    return result


def _missing(plan: Plan) -> list[str]:
    timed = {name for case in IMPLEMENTATIONS.values() for each in case.values() for name in each.needs}
    return sorted(peers.missing(timed.union(*(programs.PROGRAMS[name].needs for name in plan.compiled))))


def measure(size: Size, plan: Plan) -> list[Record]:
    """A record for each implementation whose packages are installed; where it was not measured, with the reason."""
    implementations, baseline = runnable(size), BASELINES[size.case]
    device = jax.devices()[0].device_kind
    records = {name: Record(*size[:3], name, device, inputs=size.inputs) for name in implementations}
    if reason := _too_large(size.n * size.classes * _MEMORY_PER_LOGIT):
        return [record._replace(skipped=reason) for record in records.values()]

    batch = make_batch(size)
    programs: dict[str, Program] = {}
    once: dict[str, _Times] = {}
    for name, implementation in implementations.items():
        program = implementation.build(batch)
        reason = _too_large(program.temporary_bytes or 0)
        if not reason:
            seconds = _seconds(program.forward_backward)
            slow = implementation.may_be_slow and seconds.clock > plan.slow_seconds
            if slow and name == baseline:
                once[name] = _Times([], [seconds])
            elif slow:
                reason = f"one call took {seconds.clock:.1f} s, more than {plan.slow_seconds:g} s"
        if reason:
            records[name] = records[name]._replace(skipped=reason)
        else:
            programs[name] = program
    many = {name: program for name, program in programs.items() if name not in once}
    available = plan.long_rows_seconds if size.case in long_rows.IMPLEMENTATIONS else plan.seconds
    times = interleave(many, available, plan.most_rounds) | once
    for name, program in programs.items():
        records[name] = _record(records[name], program, times[name], baseline, times[baseline])
    return list(records.values())


def _too_large(needed: int) -> str | None:
    available = available_bytes()
    if available is None or needed <= available:
        return None
    return f"needs about {needed / 2**30:.1f} GiB of memory, and {available / 2**30:.1f} GiB are available"


def _record(blank: Record, program: Program, times: _Times, baseline: str, baseline_times: _Times) -> Record:
    errors = program.errors and program.errors()
    forward, both = _median_ms(times.forward), _median_ms(times.forward_backward)
    rounds = list(zip(times.forward_backward, itertools.cycle(baseline_times.forward_backward)))
    return blank._replace(
        device=program.device or blank.device,
        compile_s=program.compile_s,
        forward_ms=forward and forward.clock,
        forward_backward_ms=both and both.clock,
        ratio=_ratio([(own.clock, base.clock) for own, base in rounds]),
        baseline=baseline,
        rounds=len(times.forward_backward),
        temporary_bytes=program.temporary_bytes,
        max_error=errors and errors.entry,
        sum_error=errors and errors.total,
        forward_cpu_ms=forward and forward.cpu,
        forward_backward_cpu_ms=both and both.cpu,
        cpu_ratio=_ratio([(own.cpu, base.cpu) for own, base in rounds]),
    )


def _median_ms(times: Sequence[Seconds]) -> Seconds | None:
    return Seconds(*(1e3 * statistics.median(each) for each in zip(*times, strict=True))) if times else None


def _ratio(rounds: Sequence[tuple[float, float]]) -> float | None:
    """The median of the rounds' ratios, but for rounds whose baseline was too short for the clock."""
    ratios = [own / base for own, base in rounds if base > 0]
    return statistics.median(ratios) if ratios else None


def interleave(programs: Mapping[str, Program], seconds: float, most_rounds: int) -> dict[str, _Times]:
    """Time every program once a round, in a random order; as many rounds as fit into the time, but at least five."""
    times = {name: _Times([], []) for name in programs}
    order = random.Random(0)
    start, rounds = time.perf_counter(), 0
    while rounds < _FEWEST_ROUNDS or (rounds < most_rounds and time.perf_counter() - start < seconds):
        for name in order.sample(list(programs), len(programs)):
            program = programs[name]
            if program.forward is not None:
                times[name].forward.append(_seconds_when_warm(program.forward))
            times[name].forward_backward.append(_seconds_when_warm(program.forward_backward))
        rounds += 1
    return times


def _seconds_when_warm(call: Callable[[], Any]) -> Seconds:
    """The first call in a turn finds caches and threads as another program left them, and does not count."""
    call()
    return _seconds(call)


def _seconds(call: Callable[[], Any]) -> Seconds:
    start, cpu_start = time.perf_counter(), time.process_time()
    call()
    cpu_end, end = time.process_time(), time.perf_counter()
    return Seconds(end - start, cpu_end - cpu_start)


def available_bytes() -> int | None:
    """Memory for arrays on JAX's device, or None where the system does not say."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
