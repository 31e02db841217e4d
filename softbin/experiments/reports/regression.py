"""The report of regressions with wrong targets: is the trimmed mean ahead of the best other loss?"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from softbin.experiments.kinds import MEDIAN_ERROR, REGRESSION_MEASURES
from softbin.experiments.regression import linear_models, networks
from softbin.experiments.reports import frame, text
from softbin.experiments.reports.comparisons import ALPHA, best_settings, holm, paired_test
from softbin.experiments.reports.run_table import Runs

_NAMES = dict(zip(REGRESSION_MEASURES, ("MAE", "RMSE"), strict=True))
_TRIMMED = "trimmed"
_SETTING = ["dataset", "corruption", "corrupted", "estimator"]
_TUNED = {"delta": ("huber", *linear_models.MODELS), "learning_rate": tuple(networks.LOSSES)}
"""What is searched, and for which losses."""
_READING = f"""\
Errors are of the test rows, whose targets are right, in the units of the table, mean ± standard deviation over the
seeds; a seed is another random choice of the rows. Where a loss was run with several learning rates or deltas, they are
those with the lowest median error on the validation rows, in the mean over the seeds; some of their targets are wrong.

Δ is the difference of `{_TRIMMED}`, the mean of the smallest squared errors of a batch, to the loss of all examples, or
the model of scikit-learn, with the lowest mean error of the same estimator; that choice, by the test rows, favours the
other. Tests are t-tests paired by the seed, with the correction of Nadeau and Bengio (2003) for splits that overlap.
p is corrected by Holm's method over all tests of the report, and bold below {ALPHA}."""


def report(runs: Runs, source: str, workdir: Path) -> list[str]:
    """Write `report.md` and `runs.csv`.

    Args:
      runs: of regression.
      source: where they are from, for the title.
      workdir: a folder for the results, made where there is none.

    Returns:
      What the tests carry.

    Raises:
      UserError: the folder cannot be made.
    """
    frame.write_runs(runs, workdir)
    table = runs.table.assign(variant=[_variant(*row) for row in runs.table[["loss", "keep"]].itertuples(index=False)])
    repeats = table.duplicated([*_SETTING, "variant", *_TUNED, "seed"])
    compared = comparison(chosen_settings(table[~repeats]))
    findings = _findings(compared)
    parts = [_READING, *frame.findings(findings), *frame.what_was_run(runs, sorted(table.loc[repeats, "run"]))]
    for (dataset, corruption, corrupted), rows in compared.groupby(_SETTING[:3], sort=False):
        wrong = f"{corrupted:.0%} {corruption}" if corrupted else "none"
        parts += [f"## {dataset}, wrong targets: {wrong}", _errors(rows)]
    frame.write(source, workdir, parts)
    return findings


def chosen_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each setting and variant with the learning rate and the delta that validate best.

    They are best in the mean over the seeds that all of them have, or over all seeds where there are none.
    """
    return best_settings(table, [*_SETTING, "variant"], list(_TUNED), MEDIAN_ERROR, lowest=True)


def comparison(chosen: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting, variant and measure; those of `trimmed` with the test against the best other loss.

    Args:
      chosen: as of `chosen_settings`.
    """
    records: list[dict[str, Any]] = []
    for setting, rows in chosen.groupby(_SETTING, sort=False):
        overlap = (rows["held_out_examples"] / rows["train_examples"]).iloc[0]
        for measure in REGRESSION_MEASURES:
            errors = {variant: part.set_index("seed")[measure] for variant, part in rows.groupby("variant", sort=False)}
            others = {variant: errors[variant].mean() for variant in errors if not variant.startswith(_TRIMMED)}
            best = min(others, key=lambda variant: others[variant], default=None)
            for variant, part in rows.groupby("variant", sort=False):
                record = {
                    **dict(zip(_SETTING, setting, strict=True)),
                    **part.iloc[0][["variant", "loss", "keep", *_TUNED]],
                    **{"measure": measure, "seeds": len(part), "mean": part[measure].mean(), "sd": part[measure].std()},
                    **dict.fromkeys(("best", "of_best", "pairs", "difference", "t", "p"), np.nan),
                }
                if best is not None and variant not in others:
                    record |= {"best": best, "of_best": others[best]}
                    record |= paired_test(errors[variant], errors[best], overlap)
                records.append(record)
    table = pd.DataFrame(records)
    return table.assign(p_holm=holm(table["p"]))


def _variant(loss: str, keep: float) -> str:
    return f"{_TRIMMED} (smallest {keep:g} n)" if loss == _TRIMMED else loss


def _errors(compared: pd.DataFrame) -> str:
    cells = []
    for (estimator, variant), part in compared.groupby(["estimator", "variant"], sort=False):
        by_measure = part.set_index("measure")
        figures = []
        for measure in REGRESSION_MEASURES:
            row = by_measure.loc[measure]
            figures += [f"{row['mean']:.4g} ± {text.number(row['sd'], '.2g')}", _difference(row)]
        first = part.iloc[0]
        tuned = [f"{first[name]:g}" if first["loss"] in losses else text.NO_VALUE for name, losses in _TUNED.items()]
        cells.append([f"{estimator}, {variant}", *tuned, str(first["seeds"]), *figures])
    measured = [title for name in _NAMES.values() for title in (name, f"Δ {name} (to what; corrected p)")]
    return text.markdown(["estimator, loss", "delta", "rate", "seeds", *measured], cells)


def _difference(row: pd.Series) -> str:
    if pd.isna(row["difference"]):
        return text.NO_VALUE
    return f"{row['difference']:+.3g} ({row['best']}; {text.corrected_probability(row['p_holm'])})"


def _findings(compared: pd.DataFrame) -> list[str]:
    """A sentence for each estimator, and how many more examples are kept than have right targets."""
    tests = compared.dropna(subset="difference")
    tests = tests.assign(more=(tests["keep"] + tests["corrupted"] - 1).round(6))
    sentences = []
    for (estimator, more), rows in tests.groupby(["estimator", "more"]):
        counts = [f"{_NAMES[measure]} {_count(part)}" for measure, part in rows.groupby("measure", sort=False)]
        kept = f"{abs(more):g} n {'more' if more > 0 else 'fewer'} than are right" if more else "as many as are right"
        sentences.append(f"{estimator}, {_TRIMMED} keeping {kept}, against the best other loss: {'; '.join(counts)}.")
    return sentences


def _count(tests: pd.DataFrame) -> str:
    relative = (tests["difference"] / tests["of_best"])[tests["p_holm"] < ALPHA]
    parts = [
        f"significantly {word} in {len(values)} of {len(tests)} tests (by {values.abs().min():.0%} to "
        f"{values.abs().max():.0%})"
        for word, values in (("lower", relative[relative < 0]), ("higher", relative[relative > 0]))
        if len(values)
    ]
    return " and ".join(parts) or f"significantly different in none of {len(tests)} tests"
