"""The page: what was measured, beside what was expected and what a CPU takes, and what is missing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from softbin.experiments.accelerator import roofline
from softbin.experiments.reports.text import NO_VALUE, markdown

_INTERPRETED = """\
**A trial, not a measurement**: kernels were interpreted and sizes are small. It shows that the kit runs, and no time
here means anything."""
_LOSSES = """\
Value and gradient, microseconds a call, of many calls in one program. `softbin-bench`'s own docstring says what is
assumed on paper; two CPU cores are README's."""
_ROWS = """\
Microseconds: `soft_binary_argmax` with the gradient of a sum of squares, hard choices and masks forward alone."""
_SEND = """\
Please open an issue in softbin's repository, attach `accelerator.json`, and say whether the device was shared."""

Size = tuple[int, int]
CPU: dict[str, dict[Size, int]] = {
    "softbin.loss": {(8192, 10): 280, (65_536, 10): 798, (65_536, 1000): 157_453, (2**24, 1): 73_984},
    "optax cross-entropy": {(8192, 10): 245, (65_536, 10): 945, (65_536, 1000): 101_167, (2**24, 1): 245_544},
}
"""Microseconds on two CPU cores, of `results/bench_cpu.json`, which the package does not have."""
Parts = Mapping[str, Mapping[str, Any]]
"""What is known of each part; nothing of one that has not been done."""


def text(figures: Mapping[str, Any]) -> str:
    """The page of what is in `accelerator.json`."""
    environment, parts = figures["environment"], figures["parts"]
    device = roofline.device(environment["device"])
    versions = ", ".join(f"{name} {value}" for name, value in environment["versions"].items() if value)
    blocks = [
        f"# softbin on {environment['device']}",
        f"{environment['date'][:10]}, Python {environment['python']}, {versions}",
        *([_INTERPRETED] if figures["interpret"] else []),
        "## Whether it is right",
        _kernels(parts),
        _checks(parts),
        "## The loss",
        _LOSSES + ("" if device else f" On paper there are {', '.join(roofline.DEVICES)}, and not this device."),
        _losses(parts, device),
        "## Choices in rows",
        _ROWS,
        _choices(parts),
        "## The paper's network",
        _networks(parts),
        "## What failed or is missing",
        _missing(parts),
        "## What to do with it",
        _SEND,
    ]
    return "\n\n".join(blocks) + "\n"


def _of(parts: Parts, field: str) -> list[Mapping[str, Any]]:
    """The parts that have a result and are of a field."""
    return [part for part in parts.values() if field in part and "result" in part]


def _kernels(parts: Parts) -> str:
    records = [record for part in _of(parts, "check") for record in part["result"]]
    if any(record.get("on_chip") and "error" not in record for record in records):
        return "The kernels run on chip."
    return "No kernel was seen to run on chip; where one is asked for, XLA computes what is below."


def _checks(parts: Parts) -> str:
    rows = []
    for part in _of(parts, "check"):
        for record in part["result"]:
            cells = ["failed", "", ""]
            if "largest" in record:
                above = f"{len(record['above'])} of {record['compared']} above {record['tolerance']:g}"
                cells = [f"{record['largest']:.1e}", record["worst"], above]
            rows.append([part["check"], record["implementation"], *cells])
    return markdown(["check", "beside XLA on the device", "largest difference", "where", "too large"], rows)


def _losses(parts: Parts, device: roofline.Device | None) -> str:
    found = _of(parts, "classes")
    sizes = list(dict.fromkeys((part["n"], part["classes"]) for part in found))
    rows = _timed(found, ("n", "classes"), sizes)
    if device is not None:
        steps = [roofline.steps(*size) for size in sizes]
        for way in dict.fromkeys(way for ways in steps for way in ways):
            cells = [f"{1e6 * ways[way].seconds(device):,.1f}" if way in ways else NO_VALUE for ways in steps]
            rows.append([f"on paper: {way}, float32", *cells])
    for name, times in CPU.items():
        cells = [f"{times[size]:,}" if size in times else NO_VALUE for size in sizes]
        rows.append([f"two CPU cores: {name}, float32", *cells])
    return _table(rows, sizes)


def _choices(parts: Parts) -> str:
    found = _of(parts, "length")
    sizes = list(dict.fromkeys((part["rows"], part["length"]) for part in found))
    return _table(_timed(found, ("rows", "length"), sizes), sizes)


def _timed(parts: Sequence[Mapping[str, Any]], fields: tuple[str, str], sizes: Iterable[Size]) -> list[list[str]]:
    """A row for each implementation and type, a cell for each size."""
    cells = {
        (f"{record['implementation']}, {part['dtype']}", (part[fields[0]], part[fields[1]])): _microseconds(record)
        for part in parts
        for record in part["result"]
    }
    names = dict.fromkeys(name for name, _ in cells)
    return [[name, *(cells.get((name, size), NO_VALUE) for size in sizes)] for name in names]


def _table(rows: Iterable[Sequence[str]], sizes: Iterable[Size]) -> str:
    return markdown(["", *(f"{a:,} x {b:,}" for a, b in sizes)], rows)


def _microseconds(record: Mapping[str, Any]) -> str:
    return "failed" if "error" in record else f"{record['microseconds']:,.1f}"


def _networks(parts: Parts) -> str:
    rows, notes = [], dict[str, None]()
    for part in _of(parts, "dataset"):
        if "no_files" in part:
            notes[f"Images are random, and only times mean something: {part['no_files']}"] = None
        result = part["result"]
        accuracies = [NO_VALUE, NO_VALUE]
        if part["whole"]:
            published = result["published_max_test_accuracy"]
            accuracies = [f"{result['max_test_accuracy']:.4f}", f"{min(published):.4f} to {max(published):.4f}"]
        rows.append(
            [part["dataset"], part["loss"], f"{part['batch_size']:,}", f"{result['milliseconds']:,.1f}", *accuracies]
        )
    columns = ["images", "loss", "batch", "milliseconds a step", "largest test accuracy", "published, five seeds"]
    return "\n\n".join([markdown(columns, rows), *notes])


def _missing(parts: Parts) -> str:
    return "\n".join(f"- {line}" for line in _problems(parts)) or "Nothing."


def _problems(parts: Parts) -> Iterator[str]:
    for name, part in parts.items():
        if "error" in part:
            yield f"{name} failed: {part['error']}"
        elif "result" not in part:
            yield f"{name} has not been done: the same command does it"
        elif isinstance(part["result"], list):
            for record in part["result"]:
                if "error" in record:
                    yield f"{name}, {record['implementation']} failed: {record['error']}"
                for case, value in record.get("above", {}).items():
                    yield f"{name}, {record['implementation']}: {case} differs by {value:.1e}"
