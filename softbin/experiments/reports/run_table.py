"""The runs that a report is about, as a table with one row a run, and their curves."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from softbin.experiments.boosting.run import MEASURES, STOPS
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import UserError, one_line
from softbin.experiments.common.precision import AT_BEST
from softbin.experiments.regression import measures as regression
from softbin.experiments.regression.measures import VALIDATION
from softbin.experiments.reports import paper
from softbin.experiments.sparsity import run as sparsity
from softbin.experiments.training import measures

PAPER = "paper"
SETTING = (
    "dataset",
    "train_examples",
    "validation_examples",
    "label_noise",
    "noise_kind",
    "imbalance",
    "model",
    "hidden",
    "augment",
    "mixed_precision",
    "epochs",
    "evaluate_every",
)
"""The fields in which runs that are compared agree."""
VARIANT = ("loss", "budget", "temperature", "trim", "trim_warmup", "trim_by", "trim_per_class", "tail")
_ACCURACIES = ("test_accuracy", "test_accuracy_thresholded", "validation_accuracy", "validation_accuracy_thresholded")
_BEST_AND_LAST = [f"{which}_{name}" for name in _ACCURACIES for which in ("max", "last")]
_STOPPED = [f"stopped_test_accuracy{rule}" for rule in ("", "_thresholded")]
_BESIDE = [f"{which}_{name}" for name in measures.BESIDE for which in ("at_max", "last")]
_DECIMALS = 6  # of what is measured; float32 has no more
_TEXT, _INTEGER, _NUMBER, _FLAG = "string", "Int64", "float64", "boolean"
COLUMNS = {
    "run": _TEXT,
    "dataset": _TEXT,
    "train_examples": _INTEGER,
    "validation_examples": _INTEGER,
    "label_noise": _NUMBER,
    "noise_kind": _TEXT,
    "imbalance": _NUMBER,
    "model": _TEXT,
    "hidden": _TEXT,
    "augment": _FLAG,
    "mixed_precision": _FLAG,
    "loss": _TEXT,
    "budget": _TEXT,
    "temperature": _NUMBER,
    "trim": _NUMBER,
    "trim_warmup": _NUMBER,
    "trim_by": _TEXT,
    "trim_per_class": _FLAG,
    "tail": _NUMBER,
    "batch_size": _INTEGER,
    "microbatch_size": _INTEGER,
    "epochs": _INTEGER,
    "evaluate_every": _INTEGER,
    "learning_rate": _NUMBER,
    "seed": _INTEGER,
    "epoch_of_max": _INTEGER,
    **dict.fromkeys([*_BEST_AND_LAST, *_STOPPED, *_BESIDE], _NUMBER),
    "train_seconds": _NUMBER,
    "softbin": _TEXT,
    "jax": _TEXT,
    "flax": _TEXT,
    "optax": _TEXT,
    "device": _TEXT,
    "date": _TEXT,
}
"""The columns of `runs.csv` and their types."""
_MEASURED = [f"{stop}_{part}_{name}" for stop in STOPS for part in ("validation", "test") for name in MEASURES]
BOOSTING_COLUMNS = {
    "run": _TEXT,
    "booster": _TEXT,
    "dataset": _TEXT,
    "classes": _INTEGER,
    "train_examples": _INTEGER,
    "validation_examples": _INTEGER,
    "test_examples": _INTEGER,
    "loss": _TEXT,
    "budget": _TEXT,
    "hessian": _TEXT,
    "learning_rate": _NUMBER,
    "rounds": _INTEGER,
    "fixed_rounds": _INTEGER,
    "evaluate_every": _INTEGER,
    "seed": _INTEGER,
    "best_round": _INTEGER,
    **dict.fromkeys([*_MEASURED, *AT_BEST], _NUMBER),
    "train_seconds": _NUMBER,
    "softbin": _TEXT,
    "jax": _TEXT,
    "lightgbm": _TEXT,
    "xgboost": _TEXT,
    "date": _TEXT,
}
"""The same where the runs are of boosting."""
_ERRORS = [VALIDATION, *regression.MEASURES]
REGRESSION_COLUMNS = {
    "run": _TEXT,
    "dataset": _TEXT,
    "train_examples": _INTEGER,
    "held_out_examples": _INTEGER,
    "corruption": _TEXT,
    "corrupted": _NUMBER,
    "estimator": _TEXT,
    "loss": _TEXT,
    "keep": _NUMBER,
    "delta": _NUMBER,
    "learning_rate": _NUMBER,
    "hidden": _TEXT,
    "epochs": _INTEGER,
    "batch_size": _INTEGER,
    "seed": _INTEGER,
    **dict.fromkeys(_ERRORS, _NUMBER),
    "train_seconds": _NUMBER,
    "softbin": _TEXT,
    "jax": _TEXT,
    "flax": _TEXT,
    "optax": _TEXT,
    "scikit-learn": _TEXT,
    "device": _TEXT,
    "date": _TEXT,
}
"""The same where the runs are of regression."""


SPARSITY_COLUMNS = {
    "run": _TEXT,
    "task": _TEXT,
    "method": _TEXT,
    "dataset": _TEXT,
    "train_examples": _INTEGER,
    "validation_examples": _INTEGER,
    "k": _NUMBER,
    "width": _INTEGER,
    "temperature": _NUMBER,
    "penalty": _NUMBER,
    "learning_rate": _NUMBER,
    "epochs": _INTEGER,
    "batch_size": _INTEGER,
    "seed": _INTEGER,
    **dict.fromkeys(sparsity.MEASURES, _NUMBER),
    "train_seconds": _NUMBER,
    "softbin": _TEXT,
    "jax": _TEXT,
    "flax": _TEXT,
    "optax": _TEXT,
    "device": _TEXT,
    "date": _TEXT,
}
"""The same where the runs are of networks that choose inside."""


class _Schema(NamedTuple):
    """What a table of runs must look like."""

    kind: str  # of runs
    columns: dict[str, str]
    required: tuple[str, ...]
    rounded: list[str]
    defaults: dict[str, Any]  # of columns that older results lack


_NETWORKS = _Schema(
    "networks",
    COLUMNS,
    ("dataset", "loss", "batch_size", "learning_rate", "epochs", "seed", "max_test_accuracy"),
    [*_BEST_AND_LAST, *_STOPPED, *_BESIDE],
    {"noise_kind": "symmetric", "trim": 1.0, "trim_warmup": 0.2, "trim_by": "", "trim_per_class": False, "tail": 1.0},
)
_BOOSTING = _Schema(
    "boosting",
    BOOSTING_COLUMNS,
    ("booster", "dataset", "loss", "hessian", "learning_rate", "seed", *_MEASURED),
    [*_MEASURED, *AT_BEST],
    {},
)
_REGRESSION = _Schema(
    "regression",
    REGRESSION_COLUMNS,
    (
        *("dataset", "train_examples", "held_out_examples", "corruption", "corrupted", "estimator", "loss"),
        *("keep", "delta", "learning_rate", "seed", *_ERRORS),
    ),
    _ERRORS,
    {},
)
_SPARSITY = _Schema(
    "sparsity",
    SPARSITY_COLUMNS,
    ("task", "method", "k", "temperature", "penalty", "learning_rate", "seed"),
    list(sparsity.MEASURES),
    {},
)
_SCHEMAS = {"booster": _BOOSTING, "estimator": _REGRESSION, "task": _SPARSITY}
"""By a field that only runs of the kind have."""


def _schema(fields: Container[str]) -> _Schema:
    return next((schema for field, schema in _SCHEMAS.items() if field in fields), _NETWORKS)


class Runs(NamedTuple):
    """What a report is made from."""

    table: pd.DataFrame  # of the columns above
    curves: pd.DataFrame | None = None  # run, epoch, and the accuracies of the epoch
    failed: tuple[dict[str, str], ...] = ()  # the run and the error of each
    unfinished: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """`networks`, `boosting`, `regression` or `sparsity`."""
        return _schema(self.table).kind


def read_workdir(workdir: Path) -> Runs:
    """The finished runs of a sweep.

    Raises:
      UserError: there are none, or a file is damaged.
    """
    folders = sorted(path.parent for path in (workdir / folder.RUNS_FOLDER).glob(f"*/{folder.CONFIG_FILE}"))
    finished = [path for path in folders if (path / folder.SUMMARY_FILE).exists()]
    if not finished:
        raise UserError(f"{workdir / folder.RUNS_FOLDER} has no finished run: give the --workdir of a softbin-sweep")
    failed = workdir / folder.FAILED_FILE
    configs = [_read_json(path / folder.CONFIG_FILE, dict) for path in finished]
    kinds = {_schema(config).kind for config in configs}
    if len(kinds) > 1:
        raise UserError(f"{workdir} has runs of {' and of '.join(sorted(kinds))}: report them from a folder each")
    schema = _schema(configs[0])
    table = pd.DataFrame([_row(path, config, schema) for path, config in zip(finished, configs, strict=True)])
    curves = None
    if schema is _NETWORKS:
        curves = pd.concat([_curve(path) for path in finished], ignore_index=True)
        table = table.join(_stopped(curves), on="run")
    return Runs(
        table=_typed(table, str(workdir), schema),
        curves=curves,
        failed=tuple(_read_json(failed, list)) if failed.exists() else (),
        unfinished=tuple(path.name for path in folders if path not in finished),
    )


def read_results(name: str) -> Runs:
    """The paper's runs by the name `paper`, other packaged results by theirs, or a `runs.csv` by its path.

    Raises:
      UserError: there are no such results, or the file is damaged.
    """
    if name == PAPER:
        return Runs(_typed(paper.runs(), name, _NETWORKS), paper.curves())
    if name.endswith(".csv"):
        return Runs(_read_csv(Path(name)))
    if name not in packaged():
        raise UserError(f"unknown results {name!r}: choose {', '.join(packaged())}, or the path of a CSV file")
    return Runs(_read_csv(paper.RESULTS_FOLDER / f"{name}.csv"))


def packaged() -> list[str]:
    """The names of the packaged results."""
    stems = (path.stem for path in sorted(paper.RESULTS_FOLDER.glob("*.csv")))
    return [PAPER, *(stem for stem in stems if stem != "paper_runs")]


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={**COLUMNS, **BOOSTING_COLUMNS, **REGRESSION_COLUMNS, **SPARSITY_COLUMNS})
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give the runs.csv of a softbin-report") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): give the runs.csv of a softbin-report") from None
    if table.empty:
        raise UserError(f"{path} has no runs: give the runs.csv of a softbin-report")
    return _typed(table, str(path), _schema(table))


def _row(path: Path, config: dict[str, Any], schema: _Schema) -> dict[str, Any]:
    summary = _read_json(path / folder.SUMMARY_FILE, dict)
    fields = {**config, **summary, **summary.get("versions", {})}
    missing = [name for name in schema.required if fields.get(name) is None]
    if missing:
        raise _damaged(path / folder.SUMMARY_FILE, f"no {', '.join(missing)}")
    hidden = fields.get("hidden")
    fields["hidden"] = "-".join(map(str, hidden)) if isinstance(hidden, list | tuple) else hidden
    return {"run": path.name, **{name: fields[name] for name in schema.columns if name in fields}}


def _curve(path: Path) -> pd.DataFrame:
    metrics = path / folder.METRICS_FILE
    try:
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        names = ["epoch", *(name for name in _ACCURACIES if name in records[0])]
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


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if not isinstance(content, kind):
        raise _damaged(path, f"not a {kind.__name__}")
    return content


def _typed(table: pd.DataFrame, source: str, schema: _Schema) -> pd.DataFrame:
    missing = [name for name in schema.required if name not in table or table[name].isna().any()]
    if missing:
        raise UserError(f"{source} is damaged (no {', '.join(missing)}): give the runs.csv of a softbin-report")
    table = table.assign(**{name: value for name, value in schema.defaults.items() if name not in table})
    try:
        table = table.reindex(columns=list(schema.columns)).astype(schema.columns)
    except (ValueError, TypeError) as error:
        raise UserError(f"{source} is damaged ({one_line(error)}): give the runs.csv of a softbin-report") from None
    text = [name for name, kind in schema.columns.items() if kind == _TEXT]
    table[text] = table[text].fillna("")
    table[schema.rounded] = table[schema.rounded].round(_DECIMALS)
    return table


def _damaged(path: Path, reason) -> UserError:
    return UserError(f"{path} is damaged ({one_line(reason)}): remove {path.parent} and run softbin-sweep again")
