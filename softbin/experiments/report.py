"""`softbin-report`: tables, tests and figures of a sweep's runs, or of packaged results."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from softbin.experiments import kinds
from softbin.experiments.reports import results
from softbin.experiments.runs import command_line
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.errors import exit_on_user_error


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
        f"{', '.join(results.names())}, or the path of a CSV file; of several, with a comma between them, the "
        "precision at the top together, or of swap_development,swap what each loss chooses and reaches",
    )
    parser.add_argument(
        "--reference",
        default="cross_entropy",
        help="compare every loss with this one, by its name in the report's tables; of networks only",
    )
    return parser


def _run(arguments: Sequence[str] | None) -> None:
    flags = _parser().parse_args(arguments)
    place, names = Path(flags.workdir), flags.results.split(",") if flags.results else []
    for name in names:
        results.path(name)
    if not names:
        folder.runs(place)
    from softbin.experiments.reports import capacity, run_table, swap  # loads all that draws

    several = [run_table.read_results(name) for name in names] or [run_table.read_workdir(place)]
    source = " and ".join(names) or place.name
    if len(several) > 1:
        reporter = swap if capacity.precisions_at_the_top(several).empty else capacity
        sentences = reporter.report(several, source, place)
    else:
        (runs,) = several
        room = import_module(f"softbin.experiments.reports.{runs.kind.name}")
        chosen = {"reference": flags.reference} if runs.kind is kinds.NETWORKS else {}
        sentences = room.report(runs, source, place, **chosen)
    for sentence in sentences:
        print(sentence)
    print(f"{sum(len(each.table) for each in several)} runs; results in {place / folder.REPORT_FILE}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
