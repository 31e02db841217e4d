"""The folder of a training run, with its config, its metrics as they came and its summary; and that of a sweep."""

import json
import os
from pathlib import Path
from typing import Any

from softbin.experiments.runs.errors import UserError

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
CURVES_FILE = "curves.png"
CHECKPOINTS_FOLDER = "checkpoints"
RUNS_FOLDER = "runs"  # of a sweep, with a folder for each
FAILED_FILE = "failed.json"
REPORT_FILE = "report.md"
RUN_TABLE_FILE = "runs.csv"  # of a report


def check(workdir: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that belongs to another config, and name the fields that differ.

    Raises:
      UserError: it does, or it cannot be read.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    try:
        other = json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is damaged: remove it, or choose another --workdir") from None
    config = json.loads(json.dumps(config))
    fields = sorted(name for name in config.keys() | other.keys() if config.get(name) != other.get(name))
    if fields:
        differences = ", ".join(f"{name} is {other.get(name)!r} there and {config.get(name)!r} here" for name in fields)
        raise UserError(f"{workdir} holds a run of another config ({differences}): choose another --workdir")


def finished(workdir: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a run that is finished, or None.

    Raises:
      UserError: the folder belongs to another config, or cannot be read.
    """
    check(workdir, config)
    path = workdir / SUMMARY_FILE
    return json.loads(path.read_text()) if path.exists() else None


def runs(workdir: Path) -> tuple[list[Path], list[Path]]:
    """The folders of a sweep's runs, those that are finished and those that are not.

    Raises:
      UserError: none is finished.
    """
    folders = sorted(path.parent for path in (workdir / RUNS_FOLDER).glob(f"*/{CONFIG_FILE}"))
    finished = [path for path in folders if (path / SUMMARY_FILE).exists()]
    if not finished:
        raise UserError(f"{workdir / RUNS_FOLDER} has no finished run: give the --workdir of a softbin-sweep")
    return finished, [path for path in folders if path not in finished]


def make(workdir: Path) -> None:
    """Make the folder where there is none.

    Raises:
      UserError: it cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {workdir} ({error.strerror}): choose another --workdir") from None


def start(workdir: Path, config: dict[str, Any]) -> None:
    """Make the folder and write the config into it.

    Raises:
      UserError: the folder cannot be made.
    """
    make(workdir)
    write(workdir / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def read_history(workdir: Path, count: int) -> list[dict[str, Any]]:
    """The first `count` records; later ones, of a run that was cut off, are dropped from the file.

    Raises:
      UserError: there are not so many, or they cannot be read.
    """
    path = workdir / METRICS_FILE
    try:
        lines = path.read_text().splitlines(keepends=True)[:count] if count else []
        records = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        records = []
    if len(records) < count:
        raise UserError(
            f"{path} is damaged, it lacks records from before the last checkpoint: remove {workdir}, or choose another "
            "--workdir"
        )
    write(path, "".join(lines))
    return records


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
