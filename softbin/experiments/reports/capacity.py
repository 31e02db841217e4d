"""Precision at the top: which loss finds the most, where only a share of the cases can be acted on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from softbin.experiments.boosting.losses import LOGISTIC
from softbin.experiments.kinds import AT_BEST, BOOSTING, PERCENTAGES
from softbin.experiments.reports import frame, style, text
from softbin.experiments.reports.comparisons import (
    ALPHA,
    BOOSTED_VARIANT,
    best_settings,
    boosted_variant_name,
    holm,
    paired_test,
    variant_name,
)
from softbin.experiments.reports.run_table import VARIANT, Runs
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.curves import write_figure
from softbin.experiments.runs.errors import UserError
from softbin.experiments.training.objectives import CHOOSING

FIGURE_FILE = "capacity.png"
BASELINES = ("cross_entropy", LOGISTIC)
"""The logistic loss, by its names for networks and for boosting."""
_ITS_SHARE = "its share of"
_LINEAR = "linear"
_MARKERS = "os^D"  # of variants of one loss
_MORE_COLORS = ["#56b4e9", "#b2df8a", "#8c564b"]  # of those after the first
_READING = f"""\
Of the test rows with the highest scores, 1% to 10% of all, the share of positives: mean ± standard deviation over the
seeds, and in brackets the gain over the logistic loss (`{BASELINES[0]}`, `{BASELINES[1]}`) of the same model and its p.
The epoch, or the round, and the learning rate are those with the best precision at that share on the validation rows. A
loss with `k = {_ITS_SHARE} n` was trained for the share at which it is measured.

A seed is another start and order of a network, on the same rows, and another draw of the training rows for boosting.
Tests are t-tests paired by the seed, for boosting with the correction of Nadeau and Bengio (2003). p is corrected by
Holm's method over the table, and bold below {ALPHA}."""


class Part(NamedTuple):
    """What a report says of the precision at the top; nothing where it was not measured."""

    chapter: list[str]
    findings: list[str]


def report(several: Sequence[Runs], source: str, workdir: Path) -> list[str]:
    """Write `report.md` and its figure, of runs of networks and of boosting together.

    Args:
      several: the runs.
      source: where they are from, for the title.
      workdir: a folder for the results, made where there is none.

    Returns:
      What the tests carry.

    Raises:
      UserError: no run has a precision at the top, or the folder cannot be made.
    """
    folder.make(workdir)
    chapter, findings = part(several, workdir)
    if not chapter:
        raise UserError(
            f"{source} have no precision at the top, which runs of two classes have: report them one by one"
        )
    frame.write(source, workdir, chapter)
    return findings


def part(several: Sequence[Runs], workdir: Path) -> Part:
    """Write the figure, and say what there is to say."""
    table = precisions_at_the_top(several)
    if table.empty:
        return Part([], [])
    write_figure(workdir / FIGURE_FILE, _figure(table))
    caption = (
        "The gain over the logistic loss by what the model can fit, mean over the seeds; filled where the loss was "
        "trained for the share."
    )
    findings = _findings(table)
    picture = f"![{caption}]({FIGURE_FILE})\n\n{caption}"
    return Part(["## Precision at the top", _READING, frame.bullets(findings), _markdown(table), picture], findings)


def precisions_at_the_top(several: Sequence[Runs]) -> pd.DataFrame:
    """A row for each data set, model, percentage and variant.

    It has the `learning_rate` chosen, `seeds`, `mean` and `sd` of the precision, and the paired test against the
    logistic loss of the same model; `p_holm` is corrected over all of them.
    """
    rows = pd.concat([_rows(runs) for runs in several], ignore_index=True)
    records: list[dict[str, Any]] = []
    for percentage in PERCENTAGES:
        for (dataset, model), cell in _measured(rows, percentage).groupby(["dataset", "model"], sort=False):
            best = best_settings(cell, ["variant"], ["learning_rate"], "validation")
            chosen = dict(iter(best.groupby("variant", sort=False)))
            baseline = next((chosen[name] for name in BASELINES if name in chosen), None)
            for variant, found in chosen.items():
                test = found.set_index("seed")["test"]
                record = {"dataset": dataset, "model": model, "percentage": percentage, "variant": variant}
                record |= {name: found[name].iloc[0] for name in ("loss", "learning_rate")}
                record |= {"seeds": len(test), "mean": test.mean(), "sd": test.std()}
                if baseline is not None and variant not in BASELINES:
                    overlap = found["test_to_train"].iloc[0]
                    record |= paired_test(test, baseline.set_index("seed")["test"], overlap)
                records.append(record)
    if not records:
        return pd.DataFrame()
    table = pd.DataFrame(records).reindex(columns=list(dict.fromkeys([*records[0], "difference", "p"])))
    return table.assign(p_holm=holm(table["p"].astype(float)))


def _rows(runs: Runs) -> pd.DataFrame:
    """The runs with a precision at the top; each setting counts as a data set of its own."""
    table = runs.table[runs.table[AT_BEST[0]].notna()]
    told = table["loss"].isin(CHOOSING) & (table["budget"] != "label_count")
    if runs.kind is BOOSTING:
        told = table["budget"] != ""
        names = table.assign(budget=table["budget"].mask(told, _ITS_SHARE))[list(BOOSTED_VARIANT)]
        variants = [boosted_variant_name(*row) for row in names.itertuples(index=False)]
        models, datasets = table["booster"], table["dataset"]
        overlap = table["test_examples"] / table["train_examples"]
    else:
        names = table.assign(budget=table["budget"].mask(told, _ITS_SHARE))[list(VARIANT)]
        variants = [variant_name(*row) for row in names.itertuples(index=False)]
        models = table["model"].where(table["model"] != "mlp", "mlp " + table["hidden"]).replace("mlp ", _LINEAR)
        datasets, overlap = _datasets(table), 0.0
    table = table.assign(dataset=datasets, model=models, variant=variants, told=told, test_to_train=overlap)
    return table.drop_duplicates(["dataset", "model", "variant", "budget", "learning_rate", "seed"])


def _datasets(table: pd.DataFrame) -> pd.Series:
    """The data set of each run, with what else its runs differ in."""
    names = table["dataset"].copy()
    for _, rows in table.assign(model="", hidden="").groupby("dataset"):
        names[rows.index] = text.setting_names(rows)
        if rows["batch_size"].nunique() > 1:
            names[rows.index] += rows["batch_size"].map(", batch {:,}".format)
    return names


def _measured(rows: pd.DataFrame, percentage: int) -> pd.DataFrame:
    """The rows of a percentage: of a loss that was told a share, those that were told this one."""
    shares = pd.to_numeric(rows["budget"], errors="coerce").astype(float)
    rows = rows[~rows["told"] | np.isclose(shares, percentage / 100)]
    return rows.assign(
        validation=rows[f"at_max_validation_precision_at_{percentage}"],
        test=rows[f"at_max_test_precision_at_{percentage}"],
    )


def _markdown(table: pd.DataFrame) -> str:
    cells = []
    for (dataset, model, variant), found in table.groupby(["dataset", "model", "variant"], sort=False):
        by_percentage = {row.percentage: _cell(row) for row in found.itertuples()}
        seeds = ", ".join(map(str, sorted(found["seeds"].unique())))
        figures = [by_percentage.get(percentage, text.NO_VALUE) for percentage in PERCENTAGES]
        cells.append([dataset, model, variant, _rates(found), seeds, *figures])
    cells.sort(key=lambda cell: cell[:2])
    shares = [f"top {percentage}%" for percentage in PERCENTAGES]
    return text.markdown(["data", "model", "loss", "learning rate", "seeds", *shares], cells)


def _rates(found: pd.DataFrame) -> str:
    return ", ".join(f"{rate:g}" for rate in dict.fromkeys(found.sort_values("percentage")["learning_rate"]))


def _cell(row) -> str:
    reached = f"{row.mean:.4f} ± {text.number(row.sd)}"
    if pd.isna(row.difference):
        return reached
    return f"{reached} ({row.difference:+.4f}; {text.corrected_probability(row.p_holm)})"


def _findings(table: pd.DataFrame) -> list[str]:
    question = "precision at the top, against the logistic loss of the same model"
    tests = table["p_holm"].notna().sum()
    if not tests:
        return [f"{question}: {text.NO_TEST}"]
    significant = table[table["p_holm"] < ALPHA]
    if significant.empty:
        smallest = text.probability(table["p_holm"].min())
        return [f"{question}: none of {tests} differences is significant (smallest corrected p {smallest})."]
    return [f"{question}: {len(significant)} of {tests} differences are significant."] + [
        f"{dataset}, {model}, {variant}: "
        + ", ".join(f"{row.difference:+.4f} at the top {row.percentage}%" for row in found.itertuples())
        + f" (corrected p at most {text.probability(found['p_holm'].max())})."
        for (dataset, model, variant), found in significant.groupby(["dataset", "model", "variant"], sort=False)
    ]


def _figure(table: pd.DataFrame) -> Figure:
    datasets = list(table["dataset"].unique())
    models = sorted(table["model"].unique(), key=lambda model: (model != _LINEAR, not model.startswith("mlp"), model))
    places = {model: place for place, model in enumerate(models)}
    alike = table.drop_duplicates("variant").groupby("loss")["variant"].unique()
    markers = {variant: _MARKERS[i % len(_MARKERS)] for variants in alike for i, variant in enumerate(variants)}
    more = {variant: _MORE_COLORS[i % len(_MORE_COLORS)] for found in alike for i, variant in enumerate(found[1:])}
    figure, panels = style.grid(len(datasets), len(PERCENTAGES), width=3.2, height=2.4, sharex=True, sharey="row")
    for row, dataset in zip(panels, datasets, strict=True):
        row[0].set_ylabel(f"{dataset}\ngain in precision", fontsize=8)
        for axes, percentage in zip(row, PERCENTAGES, strict=True):
            shown = table[(table["dataset"] == dataset) & (table["percentage"] == percentage)]
            axes.axhline(0, color="#bbbbbb", linewidth=0.8)
            axes.set_title(f"top {percentage}%", fontsize=9)
            axes.set_xticks(range(len(models)), models, fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            for variant, found in shown.dropna(subset="difference").groupby("variant", sort=False):
                color = more.get(variant, style.COLORS.get(found["loss"].iloc[0], "#999999"))
                inside, size = (color, 4) if _ITS_SHARE in variant else ("none", 6)  # each shows within the other
                dots = {"color": color, "markerfacecolor": inside, "markersize": size, "label": variant}
                found = found.assign(place=found["model"].map(places)).sort_values("place")
                axes.plot(found["place"], found["difference"], "-", marker=markers[variant], **dots)
    style.legend(figure)
    return figure
