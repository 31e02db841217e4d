"""`softbin-bench`: what the losses cost, beside cross-entropy, other projections and a copy of the same bytes.

Times are medians over rounds. A round times one warm call of every implementation, in a random order, and a ratio is
the median of the rounds' ratios: a machine that slows down slows all of them. A pass forward and backward is
`jax.value_and_grad` by the logits. `copy` reads the logits and writes as many bytes, as any such pass must.

Scale on paper
--------------

With a batch of n examples over P devices, a step of `softbin.loss` takes an all-reduce before the search, one for each
of its rounds (about 3 with k = n/2, 4 or 5 with label counts) and one after it, each of at most 4 numbers per class in
float32; under `jax.jit`, which leaves the order to the compiler, of 4 numbers for each of about a hundred entries
where the classes are fewer. A projection that sorts gathers the logits first, 4 n C (P - 1)/P bytes into each device,
and then holds and sorts the whole batch on every one. For C = 10 classes and k = n/2, bytes per device and step:

    ==========  =============  =================  =======================  ============================
    examples n  gather, P = 8  gather, P = 1,024  5 all-reduces, jax.jit   5 all-reduces, jax.shard_map
    ==========  =============  =================  =======================  ============================
    1e6         35 MB          40 MB              11 kB                    560 B
    1e7         350 MB         400 MB             11 kB                    560 B
    1e8         3.5 GB         4.0 GB             11 kB                    560 B
    1e9         35 GB          40 GB              11 kB                    560 B
    ==========  =============  =================  =======================  ============================

The all-reduces cost their latency alone, and it does not grow with the batch. (On the wire, a ring moves up to twice
an all-reduce's bytes.)
"""

import json
import operator
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags, logging
from rich.console import Console

from softbin.experiments import bench_report as report
from softbin.experiments import workdir as folder
from softbin.experiments.bench_cases import (
    BASELINES,
    IMPLEMENTATIONS,
    Program,
    Size,
    make_batch,
    missing_packages,
    runnable,
)
from softbin.experiments.bench_report import Record
from softbin.experiments.errors import UserError, exit_on_user_error

_FEWEST_ROUNDS = 5
_MEMORY_PER_LOGIT = 64  # bytes: the logits, their gradient, and what the implementations keep in between


class Plan(NamedTuple):
    """What to measure, and for how long."""

    sizes: Sequence[Size]
    seconds: float  # of rounds at each size
    most_rounds: int
    slow_seconds: float  # of one call, beyond which an implementation that may be slow is left out


FULL = Plan(
    sizes=(
        *(Size("loss", n, 10) for n in (128, 1024, 8192, 65_536, 1_048_576)),
        Size("loss", 8192, 1000),
        Size("loss", 65_536, 1000),
        Size("loss", 16_777_216, 1),
        *(Size("selection", 8192, entries) for entries in (128, 1024, 16_384)),
    ),
    seconds=20.0,
    most_rounds=300,
    slow_seconds=4.0,
)
QUICK = Plan(
    sizes=(*(Size("loss", n, 10) for n in (128, 1024, 8192, 65_536)), Size("selection", 8192, 128)),
    seconds=4.0,
    most_rounds=50,
    slow_seconds=1.0,
)


class _Times(NamedTuple):
    forward: list[float]
    forward_backward: list[float]


def bench(plan: Plan, workdir: Path, console: Console) -> dict[str, Any]:
    """Measure a plan, print a table for each size, and write `bench.json` and `bench.png`.

    Returns:
      What is in `bench.json`: the environment and one record for each size and implementation.

    Raises:
      UserError: the folder cannot be made. Nothing has been measured then.
    """
    folder.make(workdir)
    environment, records = report.environment(), []
    for size in plan.sizes:
        measured = measure(size, plan)
        report.show(measured, console)
        records += measured
        result = {"environment": environment, "records": [record._asdict() for record in records]}
        folder.write(workdir / "bench.json", json.dumps(result, indent=2) + "\n")  # at every size: it can be a long run
    title = f"softbin {environment['versions']['softbin']} on {environment['device']}, {environment['date'][:10]}"
    report.save_plot(records, title, workdir / "bench.png")
    missing = {name for each in IMPLEMENTATIONS.values() for i in each.values() for name in missing_packages(i)}
    if missing:
        console.print(f"Not installed, and their implementations left out: {', '.join(sorted(missing))}.")
    return result


def measure(size: Size, plan: Plan) -> list[Record]:
    """A record for each implementation whose packages are installed; where it was not measured, with the reason."""
    implementations = runnable(size)
    records = {name: Record(*size, name, jax.devices()[0].device_kind) for name in implementations}
    needed, available = size.n * size.classes * _MEMORY_PER_LOGIT, available_bytes()
    if available is not None and needed > available:
        reason = f"needs about {needed / 2**30:.1f} GiB of memory, and {available / 2**30:.1f} GiB are available"
        return [record._replace(skipped=reason) for record in records.values()]

    batch = make_batch(size)
    programs: dict[str, Program] = {}
    for name, implementation in implementations.items():
        program = implementation.build(batch)
        seconds = _seconds(program.forward_backward)
        if implementation.may_be_slow and seconds > plan.slow_seconds:
            reason = f"one call took {seconds:.1f} s, more than {plan.slow_seconds:g} s"
            records[name] = records[name]._replace(skipped=reason)
        else:
            programs[name] = program
    times = interleave(programs, plan.seconds, plan.most_rounds)
    baseline = BASELINES[size.case]
    for name, program in programs.items():
        records[name] = _record(records[name], program, times[name], baseline, times[baseline])
    return list(records.values())


def _record(blank: Record, program: Program, times: _Times, baseline: str, baseline_times: _Times) -> Record:
    ratios = map(operator.truediv, times.forward_backward, baseline_times.forward_backward)
    return blank._replace(
        device=program.device or blank.device,
        compile_s=program.compile_s,
        forward_ms=1e3 * statistics.median(times.forward) if times.forward else None,
        forward_backward_ms=1e3 * statistics.median(times.forward_backward),
        ratio=statistics.median(ratios),
        baseline=baseline,
        rounds=len(times.forward_backward),
        temporary_bytes=program.temporary_bytes,
        max_error=program.max_error and program.max_error(),
    )


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


def _seconds_when_warm(call: Callable[[], Any]) -> float:
    """The first call in a turn finds caches and threads as another program left them, and does not count."""
    call()
    return _seconds(call)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


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


def _run(arguments: Sequence[str], workdir, quick) -> None:
    logging.set_verbosity(logging.WARNING)
    if len(arguments) > 1:
        raise UserError(f"unexpected arguments {' '.join(arguments[1:])}")
    console = Console() if sys.stdout.isatty() else Console(width=120)
    bench(QUICK if quick.value else FULL, Path(workdir.value), console)
    console.print(f"Results in {workdir.value}.", highlight=False)


def main() -> None:
    """The command."""
    workdir = flags.DEFINE_string("workdir", None, "Where bench.json and bench.png go.")
    quick = flags.DEFINE_bool("quick", False, "Fewer sizes and rounds, within two minutes.")
    flags.mark_flag_as_required("workdir")
    exit_on_user_error(partial(app.run, lambda arguments: _run(arguments, workdir, quick)))
