"""`softbin-report`: tables, tests and figures of a sweep's runs, or of packaged results."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from softbin.experiments.common import command_line
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import exit_on_user_error
from softbin.experiments.reports import boosting, networks, regression, run_table


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
    parser.add_argument(
        "--reference",
        default="cross_entropy",
        help="compare every loss with this one, by its name in the report's tables; of networks only",
    )
    return parser


def _run(arguments: Sequence[str] | None) -> None:
    flags = _parser().parse_args(arguments)
    place = Path(flags.workdir)
    if flags.results:
        runs, source = run_table.read_results(flags.results), flags.results
    else:
        runs, source = run_table.read_workdir(place), place.name
    match runs.kind:
        case "boosting":
            sentences = boosting.report(runs, source, place)
        case "regression":
            sentences = regression.report(runs, source, place)
        case _:
            sentences = networks.report(runs, source, place, flags.reference)
    for sentence in sentences:
        print(sentence)
    print(f"{len(runs.table)} runs; results in {place / folder.REPORT_FILE}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
