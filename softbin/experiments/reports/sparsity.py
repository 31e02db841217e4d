"""The report of networks that choose inside: where is the soft gradient, or the exact quantile, ahead?"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from softbin.experiments.reports import frame, text
from softbin.experiments.reports.comparisons import ALPHA, best_settings, holm, paired_test
from softbin.experiments.reports.run_table import Runs
from softbin.experiments.sparsity.run import ERRORS, TASKS

OURS = ("soft", "straight_through", "straight_through_batch", "exact_quantiles")
UNBOUND = ("dense", "unbalanced")
"""The methods that keep all weights, or let the load be as it is: no rivals."""
_SETTING = ["task", "k", "dataset", "train_examples", "width", "epochs", "batch_size"]
_TUNED = ["temperature", "penalty", "learning_rate"]
_BESIDE = ("dead", "active", "load_max", "load_min", "batch_load_max")
_READING = f"""\
After the last epoch, mean ± standard deviation over the seeds. Where a method was run with several temperatures,
penalties or learning rates, they are those that are best on the validation images, in the mean over the seeds.

Δ is the difference of {", ".join(OURS)}
to the best of the other methods, without {", ".join(UNBOUND)}; that choice, by the
test images, favours the other. Tests are t-tests paired by the seed. p is corrected by Holm's method over all tests of
the report, and bold below {ALPHA}."""


def report(runs: Runs, source: str, workdir: Path) -> list[str]:
    """Write `report.md` and `runs.csv`.

    Args:
      runs: of networks that choose inside.
      source: where they are from, for the title.
      workdir: a folder for the results, made where there is none.

    Returns:
      What the tests carry.

    Raises:
      UserError: the folder cannot be made.
    """
    frame.write_runs(runs, workdir)
    repeats = runs.table.duplicated([*_SETTING, "method", *_TUNED, "seed"])
    compared = comparison(chosen_settings(runs.table[~repeats]))
    findings = _findings(compared)
    parts = [_READING, *frame.findings(findings), *frame.what_was_run(runs, sorted(runs.table.loc[repeats, "run"]))]
    for (task, k, *_), rows in compared.groupby(_SETTING, sort=False):
        parts += [f"## {task}, k = {k:g}", _methods(rows)]
    frame.write(source, workdir, parts)
    return findings


def chosen_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each method with what validates best, in the mean over the seeds."""
    parts = []
    for task, rows in table.groupby("task", sort=False):
        measure = TASKS[task].measure
        of_each = [*_SETTING, "method"]
        parts.append(best_settings(rows, of_each, _TUNED, f"validation_{measure}", lowest=measure in ERRORS))
    return pd.concat(parts)


def comparison(chosen: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting and method; those of `OURS` with the test against the best other method.

    Args:
      chosen: as of `chosen_settings`.
    """
    records: list[dict[str, Any]] = []
    for (task, *rest), rows in chosen.groupby(_SETTING, sort=False):
        measure = f"test_{TASKS[task].measure}"
        reached = {method: part.set_index("seed")[measure] for method, part in rows.groupby("method", sort=False)}
        others = {method: reached[method].mean() for method in reached if method not in (*OURS, *UNBOUND)}
        best_of = min if TASKS[task].measure in ERRORS else max
        best = best_of(others, key=lambda method: others[method], default=None)
        for method, part in rows.groupby("method", sort=False):
            record = {
                **dict(zip(_SETTING, (task, *rest), strict=True)),
                **{"method": method, "seeds": len(part), "measure": measure},
                **part.iloc[0][_TUNED],
                **{"mean": part[measure].mean(), "sd": part[measure].std()},
                **{name: part[name].mean() for name in _BESIDE},
                **dict.fromkeys(("best", "pairs", "difference", "t", "p"), np.nan),
            }
            if best is not None and method in OURS:
                record |= {"best": best, **paired_test(reached[method], reached[best])}
            records.append(record)
    table = pd.DataFrame(records)
    return table.assign(p_holm=holm(table["p"]))


def _methods(rows: pd.DataFrame) -> str:
    beside = [name for name in _BESIDE if rows[name].notna().any()]
    cells = [
        [
            row["method"],
            *(f"{row[name]:g}" for name in _TUNED),
            str(row["seeds"]),
            f"{row['mean']:.4f} ± {text.number(row['sd'])}",
            _difference(row),
            *(text.number(row[name], ".3f") for name in beside),
        ]
        for _, row in rows.iterrows()
    ]
    measure = rows["measure"].iloc[0].replace("_", " ")
    columns = ["method", *(name.replace("_", " ") for name in _TUNED), "seeds", measure]
    return text.markdown([*columns, "Δ (to what; corrected p)", *(name.replace("_", " ") for name in beside)], cells)


def _difference(row: pd.Series) -> str:
    if pd.isna(row["difference"]):
        return text.NO_VALUE
    return f"{row['difference']:+.4f} ({row['best']}; {text.corrected_probability(row['p_holm'])})"


def _findings(compared: pd.DataFrame) -> list[str]:
    return [
        f"{row['task']}, k = {row['k']:g}: {row['measure'].replace('_', ' ')} of {row['method']} less that of "
        f"{row['best']} {row['difference']:+.4f} (corrected p {text.probability(row['p_holm'])})."
        for _, row in compared.dropna(subset="difference").iterrows()
    ]
