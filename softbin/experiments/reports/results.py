"""The results that are at hand, by their names: all in a checkout, the paper's alone where softbin is installed."""

from pathlib import Path

from softbin.experiments.runs import config_files
from softbin.experiments.runs.errors import UserError

IN_REPOSITORY = "softbin/experiments/results"
"""The folder with those that are not packaged, as they are large."""
FOLDER = Path(__file__).parents[1] / "results"
PAPER = "paper"


def names() -> list[str]:
    """Of the results that are at hand."""
    stems = (path.stem for path in sorted(FOLDER.glob("*.csv")))
    return [PAPER, *(stem for stem in stems if stem != "paper_runs")]


def path(name: str) -> Path:
    """The file of results by their name, or of others by its path.

    Raises:
      UserError: there are no such results.
    """
    if name.endswith(".csv"):
        return Path(name)
    if name not in names() and name in config_files.names():
        raise UserError(
            f"the results {name} do not come with the package: fetch {IN_REPOSITORY}/{name}.csv from its repository, "
            "and give the path of that file"
        )
    if name not in names():
        raise UserError(f"unknown results {name!r}: choose {', '.join(names())}, or the path of a CSV file")
    return FOLDER / ("paper_runs.csv" if name == PAPER else f"{name}.csv")
