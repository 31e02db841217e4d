"""The frame of a report: how all of them begin, and where they are written."""

from collections.abc import Sequence
from pathlib import Path

from softbin.experiments.reports import text
from softbin.experiments.reports.run_table import Runs
from softbin.experiments.runs import workdir as folder


def write_runs(runs: Runs, workdir: Path) -> None:
    """Write `runs.csv` into a folder, which is made where there is none.

    Raises:
      UserError: it cannot be made.
    """
    folder.make(workdir)
    folder.write(workdir / folder.RUN_TABLE_FILE, runs.table.to_csv(index=False))


def write(source: str, workdir: Path, chapters: Sequence[str]) -> None:
    """Write `report.md`, of the chapters that say anything."""
    folder.write(workdir / folder.REPORT_FILE, "\n\n".join([f"# Report of {source}", *filter(None, chapters)]) + "\n")


def findings(sentences: Sequence[str]) -> list[str]:
    """The chapter of what the tests carry."""
    return ["## What the tests carry", bullets(sentences)]


def bullets(sentences: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {sentence}" for sentence in sentences) or "There is nothing to compare."


def what_was_run(runs: Runs, repeats: Sequence[str], more: Sequence[Sequence[str]] = ()) -> list[str]:
    """The chapter of the fields of the runs with all their values, and of the runs that stand in no table.

    Args:
      runs: of one kind.
      repeats: the names of those that another run is like.
      more: fields that no config has, and their values.
    """
    kind = runs.kind
    of_a_run = {"run", "epoch_of_max", "best_round", "train_seconds", "date", *kind.measured}
    recorded = [name for name in kind.columns if name not in of_a_run]
    rows = [*text.field_values(runs.table, recorded), *more]
    return ["## What was run", text.run_fields(runs.table, rows), *text.left_out(runs, repeats)]
