"""`softbin-report`: tables, tests and figures of a sweep's runs, or of packaged results."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from softbin.experiments.common import command_line
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import exit_on_user_error
from softbin.experiments.reports import boosting, capacity, networks, regression, run_table, sparsity


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
        f"{', '.join(run_table.packaged())}, or the path of a CSV file; of several, with a comma between them, the "
        "precision at the top together",
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
        names = flags.results.split(",")
        several, source = [run_table.read_results(name) for name in names], " and ".join(names)
    else:
        several, source = [run_table.read_workdir(place)], place.name
    runs = several[0]
    if len(several) > 1:
        sentences = capacity.report(several, source, place)
    elif runs.kind == "boosting":
        sentences = boosting.report(runs, source, place)
    elif runs.kind == "regression":
        sentences = regression.report(runs, source, place)
    elif runs.kind == "sparsity":
        sentences = sparsity.report(runs, source, place)
    else:
        sentences = networks.report(runs, source, place, flags.reference)
    for sentence in sentences:
        print(sentence)
    print(f"{sum(len(each.table) for each in several)} runs; results in {place / folder.REPORT_FILE}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
