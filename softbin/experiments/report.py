"""`softbin-report`: tables, tests and figures of a sweep's runs, or of packaged results."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import app, flags, logging

from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import UserError, exit_on_user_error
from softbin.experiments.reports import boosting, networks, run_table


def _run(arguments: Sequence[str], workdir, results) -> None:
    logging.set_verbosity(logging.WARNING)
    if len(arguments) > 1:
        raise UserError(f"unexpected arguments {' '.join(arguments[1:])}")
    place = Path(workdir.value)
    if results.value:
        runs, source = run_table.read_results(results.value), results.value
    else:
        runs, source = run_table.read_workdir(place), place.name
    for sentence in (boosting if runs.are_of_boosting else networks).report(runs, source, place):
        print(sentence)
    print(f"{len(runs.table)} runs; results in {place / folder.REPORT_FILE}")


def main() -> None:
    """The command."""
    workdir = flags.DEFINE_string("workdir", None, "The folder of a softbin-sweep; where the report goes.")
    results = flags.DEFINE_string(
        "results", "", "Report these instead of the runs in the workdir: paper, other packaged results, or a CSV file."
    )
    flags.mark_flag_as_required("workdir")
    exit_on_user_error(partial(app.run, lambda arguments: _run(arguments, workdir, results)))
