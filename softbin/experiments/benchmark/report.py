"""The results of `softbin-bench`: where they were taken, as tables and as a picture."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.optimize import isotonic_regression

import softbin
from softbin.experiments.runs.curves import write_figure

_PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scipy", "jaxopt", "torch", "entmax", "ott-jax", "softjax")
_SHOWN_CLASSES = 10
_LABEL_GAP = 0.055  # of the picture's height
_LABELS = {"copy": "copy: the logits read and written once"}  # where the name alone does not say it


class Record(NamedTuple):
    """One implementation at one size; None where there is nothing to measure, or where it was skipped."""

    case: str
    n: int
    classes: int
    implementation: str
    device: str
    compile_s: float | None = None
    forward_ms: float | None = None
    forward_backward_ms: float | None = None
    ratio: float | None = None  # of the forward and backward times, over the baseline
    baseline: str | None = None
    rounds: int | None = None
    temporary_bytes: int | None = None
    max_error: float | None = None
    sum_error: float | None = None
    skipped: str | None = None  # the reason
    inputs: str = "normal"  # of what kind the logits are
    forward_cpu_ms: float | None = None  # of the processor, in all threads of the process
    forward_backward_cpu_ms: float | None = None
    cpu_ratio: float | None = None


class CompileRecord(NamedTuple):
    """What it takes to compile a program: medians over processes; None where there is nothing to measure."""

    program: str
    device: str
    processes: int
    total_s: float  # to trace and to compile: seconds of the processor in all threads
    trace_s: float | None = None
    compile_s: float | None = None
    instructions: int | None = None
    fusions: int | None = None
    temporary_bytes: int | None = None
    over_cross_entropy: float | None = None  # of the total; a first call over the first call
    over_top_k: float | None = None  # over as many hard choices, with a softmax where there is a gradient
    over_bisection: float | None = None  # over the same mask or quantile by a bisection of bits


def environment() -> dict[str, Any]:
    """What a reader needs to compare the times with others."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "platform": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {"softbin": softbin.__version__, **{name: _version(name) for name in _PACKAGES}},
    }


def _processor() -> str | None:
    """The processor's name, as far as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def show(records: Sequence[Record], console: Console) -> None:
    """Print the records of one size as a table, and under it what was skipped and why."""
    title = _title(records[0])
    if any(record.skipped is None for record in records):
        console.print(_table(records, title))
    else:
        console.print(title)
    skipped: dict[str, list[str]] = {}
    for record in records:
        if record.skipped:
            skipped.setdefault(record.skipped, []).append(record.implementation)
    for reason, names in skipped.items():
        console.print(f"skipped {'all' if len(names) == len(records) else ', '.join(names)}: {reason}", highlight=False)
    console.print()


def _title(record: Record) -> str:
    case = record.case if record.inputs == "normal" else f"{record.case} ({record.inputs})"
    if record.case in ("trimmed mean", "quantile"):
        return f"{case}: of {record.n * record.classes:,} values"
    if record.case == "loss":
        return f"{case}: {record.n:,} examples, {record.classes:,} {'class' if record.classes == 1 else 'classes'}"
    rows, entries = "row" if record.n == 1 else "rows", "entry" if record.classes == 1 else "entries"
    return f"{case}: {record.n:,} {rows} of {record.classes:,} {entries}"


def _table(records: Sequence[Record], title: str) -> Table:
    headings = ("compile", "fwd ms", "+ bwd ms", "ratio", "CPU ms", "ratio", "MiB", "error", "of sum")
    result = _empty_table(title, headings)
    for record in records:
        result.add_row(
            record.implementation,
            _shown(record.compile_s, ".2f"),
            _shown(record.forward_ms, ".3f"),
            _shown(record.forward_backward_ms, ".3f"),
            _ratio(record.ratio),
            _shown(record.forward_backward_cpu_ms, ".3f"),
            _ratio(record.cpu_ratio),
            _mebibytes(record.temporary_bytes),
            _shown(record.max_error, ".0e"),
            _shown(record.sum_error, ".0e"),
        )
    return result


def show_compile_times(records: Sequence[CompileRecord], console: Console) -> None:
    """Print what it takes to compile as a table."""
    processes = f"{records[0].processes} {'process' if records[0].processes == 1 else 'processes'}"
    result = _empty_table(
        f"compilation: seconds of the processor, HLO instructions, temporary MiB; medians of {processes}",
        ("trace", "compile", "total", "HLO", "fusions", "MiB", "/Optax", "/top_k", "/bits"),
        "program",
    )
    for record in records:
        result.add_row(
            record.program,
            _shown(record.trace_s, ".2f"),
            _shown(record.compile_s, ".2f"),
            _shown(record.total_s, ".2f"),
            _shown(record.instructions, ",.0f"),
            _shown(record.fusions, ",.0f"),
            _mebibytes(record.temporary_bytes),
            _shown(record.over_cross_entropy, ".2f"),
            _shown(record.over_top_k, ".2f"),
            _shown(record.over_bisection, ".2f"),
        )
    console.print(result)
    console.print()


def _empty_table(title: str, headings: Sequence[str], first: str = "implementation") -> Table:
    result = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, show_edge=False, pad_edge=False
    )
    result.add_column(first, no_wrap=True)
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True)
    return result


def _mebibytes(count: float | int | None) -> str:
    return "" if count is None else format(count / 2**20, ",.2f" if count < 1000 * 2**20 else ",.0f")


def _ratio(value: float | None) -> str:
    return _shown(value, ".2f" if value is None or value >= 0.1 else ".4f")


def _shown(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)


def save_plot(records: Sequence[Record], environment: Mapping[str, Any], path: Path) -> None:
    """Plot the forward and backward times of the losses with ten classes against the batch size into a PNG file."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if (record.case, record.classes) == ("loss", _SHOWN_CLASSES) and record.forward_backward_ms is not None:
            lines.setdefault(record.implementation, []).append((record.n, record.forward_backward_ms))
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=_width(name))
    axes.set(xscale="log", yscale="log", title=_where_and_when(environment))
    axes.set(xlabel=f"examples in the batch ({_SHOWN_CLASSES} classes)", ylabel="forward and backward, ms")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(which="major", alpha=0.3)
    _label_ends(axes, lines)
    write_figure(path, figure)


def _where_and_when(environment: Mapping[str, Any]) -> str:
    device = environment["device"]
    if device == "cpu":
        device = f"{environment['processor'] or environment['machine']}, {environment['cores']} cores"
    return f"softbin {environment['versions']['softbin']} on {device}, {environment['date'][:10]}"


def _width(name: str) -> float:
    return 2.5 if name.startswith("softbin") else 1.2


def _label_ends(axes, lines: dict[str, list[tuple[int, float]]]) -> None:
    """Name each line at the right, in the order of the last points and far enough apart to read."""
    bottom, top = (math.log10(limit) for limit in axes.get_ylim())
    ends = {name: (math.log10(points[-1][1]) - bottom) / (top - bottom) for name, points in lines.items()}
    colors = {name: line.get_color() for name, line in zip(lines, axes.get_lines(), strict=True)}
    names = sorted(ends, key=ends.__getitem__)
    for name, height in zip(names, spread([ends[name] for name in names], _LABEL_GAP), strict=True):
        axes.annotate(
            _LABELS.get(name, name),
            xy=lines[name][-1],
            xytext=(1.04, height),
            textcoords="axes fraction",
            color=colors[name],
            verticalalignment="center",
            fontweight="bold" if name.startswith("softbin") else "normal",
            arrowprops={"arrowstyle": "-", "color": colors[name], "linewidth": 0.5, "relpos": (0, 0.5)},
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The nearest heights that are at least the gap apart, for heights in increasing order."""
    places = gap * np.arange(len(heights))
    return (isotonic_regression(np.asarray(heights) - places).x + places).tolist()
