"""The runs that a report is about, as a table with one row a run, and their curves."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from softbin.experiments import kinds
from softbin.experiments.kinds import Kind
from softbin.experiments.reports import paper, results
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.errors import UserError, one_line

SETTING = kinds.NETWORKS.part(kinds.SETTING)
"""The fields in which runs that are compared agree."""
VARIANT = kinds.NETWORKS.part(kinds.VARIANT)
_COLUMNS = {name: column for kind in kinds.KINDS for name, column in kind.columns.items()}
_DECIMALS = 6  # of what is measured; float32 has no more


class Runs(NamedTuple):
    """What a report is made from."""

    table: pd.DataFrame  # of the columns above
    curves: pd.DataFrame | None = None  # run, epoch, and the accuracies of the epoch
    failed: tuple[dict[str, str], ...] = ()  # the run and the error of each
    unfinished: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Of all of them."""
        return kinds.of(self.table)


def read_workdir(workdir: Path) -> Runs:
    """The finished runs of a sweep.

    Raises:
      UserError: there are none, or a file is damaged.
    """
    finished, unfinished = folder.runs(workdir)
    failed = workdir / folder.FAILED_FILE
    configs = [_read_json(path / folder.CONFIG_FILE, dict) for path in finished]
    names = {kinds.of(config).name for config in configs}
    if len(names) > 1:
        raise UserError(f"{workdir} has runs of {' and of '.join(sorted(names))}: report them from a folder each")
    kind = kinds.of(configs[0])
    table = pd.DataFrame([_row(path, config, kind) for path, config in zip(finished, configs, strict=True)])
    curves = None
    if kind is kinds.NETWORKS:
        curves = pd.concat([_curve(path) for path in finished], ignore_index=True)
        table = table.join(_stopped(curves), on="run")
    return Runs(
        table=_typed(table, str(workdir), kind),
        curves=curves,
        failed=tuple(_read_json(failed, list)) if failed.exists() else (),
        unfinished=tuple(path.name for path in unfinished),
    )


def read_results(name: str) -> Runs:
    """The paper's runs by the name `paper`, other packaged results by theirs, or a `runs.csv` by its path.

    Raises:
      UserError: there are no such results, or the file is damaged.
    """
    path = results.path(name)
    if name == results.PAPER:
        return Runs(_typed(paper.runs(), name, kinds.NETWORKS), paper.curves())
    return Runs(_read_csv(path))


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=_COLUMNS)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give the runs.csv of a softbin-report") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): give the runs.csv of a softbin-report") from None
    if table.empty:
        raise UserError(f"{path} has no runs: give the runs.csv of a softbin-report")
    return _typed(table, str(path), kinds.of(table))


def _row(path: Path, config: dict[str, Any], kind: Kind) -> dict[str, Any]:
    summary = _read_json(path / folder.SUMMARY_FILE, dict)
    fields = {**config, **summary, **summary.get("versions", {})}
    missing = [name for name in kind.needed if fields.get(name) is None]
    if missing:
        raise _damaged(path / folder.SUMMARY_FILE, f"no {', '.join(missing)}")
    hidden = fields.get("hidden")
    fields["hidden"] = "-".join(map(str, hidden)) if isinstance(hidden, list | tuple) else hidden
    return {"run": path.name, **{name: fields[name] for name in kind.columns if name in fields}}


def _curve(path: Path) -> pd.DataFrame:
    metrics = path / folder.METRICS_FILE
    try:
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        names = ["epoch", *(name for name in kinds.ACCURACIES if name in records[0])]
        return pd.DataFrame({"run": path.name, **{name: [record[name] for record in records] for name in names}})
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _damaged(metrics, error) from None


def _stopped(curves: pd.DataFrame) -> pd.DataFrame:
    """By run, the test accuracies of the first epoch in which the validation accuracy is highest."""
    found = {}
    for rule in ("", "_thresholded"):
        test, validation = (f"{part}_accuracy{rule}" for part in ("test", "validation"))
        if validation in curves:
            best = curves.dropna(subset=validation).groupby("run")[validation].idxmax()
            found[f"stopped_{test}"] = curves.loc[best].set_index("run")[test]
    return pd.DataFrame(found)


def _read_json(path: Path, of: type) -> Any:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if not isinstance(content, of):
        raise _damaged(path, f"not a {of.__name__}")
    return content


def _typed(table: pd.DataFrame, source: str, kind: Kind) -> pd.DataFrame:
    missing = [name for name in kind.needed if name not in table or table[name].isna().any()]
    if missing:
        raise UserError(f"{source} is damaged (no {', '.join(missing)}): give the runs.csv of a softbin-report")
    table = table.assign(**{name: value for name, value in kind.defaults.items() if name not in table})
    try:
        table = table.reindex(columns=list(kind.columns)).astype(kind.columns)
    except (ValueError, TypeError) as error:
        raise UserError(f"{source} is damaged ({one_line(error)}): give the runs.csv of a softbin-report") from None
    text = [name for name, column in kind.columns.items() if column == kinds.TEXT]
    table[text] = table[text].fillna("")
    measured = list(kind.measured)
    table[measured] = table[measured].round(_DECIMALS)
    return table


def _damaged(path: Path, reason) -> UserError:
    return UserError(f"{path} is damaged ({one_line(reason)}): remove {path.parent} and run softbin-sweep again")
