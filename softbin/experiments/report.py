"""`softbin-report`: tables, tests and figures of a sweep's runs, or of packaged results."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from softbin.experiments.common import command_line
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import exit_on_user_error
from softbin.experiments.reports import boosting, networks, run_table


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        "softbin-report",
        "Write tables, paired tests and figures of the finished runs of a sweep, or of other results.",
        "--workdir=runs/large_batch",
    )
    parser.add_argument(
        "--workdir", required=True, help="the folder of a softbin-sweep; the report goes there, as report.md"
    )
    parser.add_argument(
        "--results",
        default="",
        help="report these instead of the runs in the folder: "
        f"{', '.join(run_table.packaged())}, or the path of a CSV file",
    )
    return parser


def _run(arguments: Sequence[str] | None) -> None:
    flags = _parser().parse_args(arguments)
    place = Path(flags.workdir)
    if flags.results:
        runs, source = run_table.read_results(flags.results), flags.results
    else:
        runs, source = run_table.read_workdir(place), place.name
    for sentence in (boosting if runs.are_of_boosting else networks).report(runs, source, place):
        print(sentence)
    print(f"{len(runs.table)} runs; results in {place / folder.REPORT_FILE}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
