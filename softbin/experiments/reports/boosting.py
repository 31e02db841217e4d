"""The report of runs of gradient boosting: what each loss reaches, and whether the differences are significant."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from softbin.experiments.boosting.losses import CENTRED, LOGISTIC, PROJECTED
from softbin.experiments.kinds import BOOSTING_MEASURES, STOPS
from softbin.experiments.reports import capacity, frame, text
from softbin.experiments.reports.comparisons import (
    ALPHA,
    BOOSTED_VARIANT,
    best_settings,
    boosted_variant_name,
    holm,
    paired_test,
)
from softbin.experiments.reports.run_table import Runs
from softbin.experiments.runs.curves import write_figure

FIGURE_FILE = "differences.png"
_NAMES = dict(zip(BOOSTING_MEASURES, ("AUC", "log loss", "error at 1/2", "error by thresholds"), strict=True))
_READING = f"""\
All figures are of the test rows, mean ± standard deviation over the seeds; a seed is another random split of the rows.
The learning rate of a loss, and of its hessian, is the one with the highest mean AUC on the validation rows; so is the
best round, run by run. The probabilities of `logistic` are its own; those of the others, for the log loss and the error
at 1/2, are by a logistic regression on the margins of the validation rows. Decisions by thresholds take them from the
training rows; for `logistic` they are those at 1/2. `{CENTRED}` is `hypersimplex` without the bounds 0 and 1.

Tests are t-tests paired by the seed, with the correction of Nadeau and Bengio (2003) for splits that overlap.
p is corrected by Holm's method over all tests of the table it stands in, and bold below {ALPHA}."""
_RUN = ("booster", "dataset", "loss", "budget", "hessian", "learning_rate", "seed")  # what tells runs from each other


def report(runs: Runs, source: str, workdir: Path) -> list[str]:
    """Write `report.md`, its figure and `runs.csv`.

    Args:
      runs: of boosting.
      source: where they are from, for the title.
      workdir: a folder for the results, made where there is none.

    Returns:
      What the tests carry.

    Raises:
      UserError: the folder cannot be made.
    """
    frame.write_runs(runs, workdir)
    repeats = runs.table.duplicated(list(_RUN))
    settings = dict(_settings(runs.table[~repeats]))
    chapters, findings = [], []
    for name, rows in settings.items():
        chapters.append(f"## {name}")
        for stop, chosen in _stops(rows).items():
            chapters += [f"### {stop}", _reached(chosen)]
            for baseline in (LOGISTIC, CENTRED):
                tests = comparison(chosen, baseline)
                if len(tests):
                    chapters += [f"Against `{baseline}`:", _tests(tests)]
                    findings.append(_finding(f"{name}, {stop.lower()}, against {baseline}", tests))
    _save_figure(settings, workdir / FIGURE_FILE)
    top = capacity.part([runs], workdir)
    findings += top.findings
    parts = [
        _READING,
        *frame.findings(findings),
        f"![Differences]({FIGURE_FILE})\n\nThe difference to `{LOGISTIC}` of each seed, and their mean (bar).",
        *frame.what_was_run(runs, sorted(runs.table.loc[repeats, "run"])),
        *chapters,
        *top.chapter,
    ]
    frame.write(source, workdir, parts)
    return findings


def chosen_rates(rows: pd.DataFrame, stop: str) -> pd.DataFrame:
    """The rows of each variant with the learning rate that validates best, with the measures of `stop` by their names.

    Args:
      rows: of one table and booster.
      stop: `fixed` or `best`.
    """
    rows = rows.assign(
        variant=[boosted_variant_name(*row) for row in rows[list(BOOSTED_VARIANT)].itertuples(index=False)],
        round=rows["fixed_rounds"] if stop == "fixed" else rows["best_round"],
        **{measure: rows[f"{stop}_test_{measure}"] for measure in BOOSTING_MEASURES},
    )
    return best_settings(rows, ["variant"], ["learning_rate"], f"{stop}_validation_auc")


def comparison(chosen: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """A row for each variant and measure, with its difference to the baseline and the paired test.

    Args:
      chosen: as of `chosen_rates`.
      baseline: a variant; only the losses with a projection are compared with one other than `logistic`.
    """
    reference = chosen[chosen["variant"] == baseline].set_index("seed")
    others = chosen[chosen["variant"] != baseline]
    if baseline != LOGISTIC:
        others = others[others["loss"].isin(PROJECTED)]
    if reference.empty or others.empty:
        return pd.DataFrame()
    sizes = chosen.iloc[0]
    records: list[dict[str, Any]] = [
        {
            "variant": variant,
            "measure": measure,
            **paired_test(
                part.set_index("seed")[measure], reference[measure], sizes["test_examples"] / sizes["train_examples"]
            ),
        }
        for variant, part in others.groupby("variant", sort=False)
        for measure in BOOSTING_MEASURES
    ]
    table = pd.DataFrame(records)
    return table.assign(p_holm=holm(table["p"]))


def _settings(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for (dataset, booster), rows in table.groupby(["dataset", "booster"], sort=False):
        yield f"{dataset}, {booster}", rows


def _stops(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    rounds = ", ".join(map(str, sorted(rows["fixed_rounds"].unique())))
    titles = (f"After {rounds} rounds", f"After the best of up to {rows['rounds'].max():,} rounds")
    return {title: chosen_rates(rows, stop) for title, stop in zip(titles, STOPS, strict=True)}


def _reached(chosen: pd.DataFrame) -> str:
    cells = []
    for variant, part in chosen.groupby("variant", sort=False):
        figures = [f"{part[measure].mean():.4f} ± {part[measure].std():.4f}" for measure in BOOSTING_MEASURES]
        settings = [f"{part['learning_rate'].iloc[0]:g}", f"{part['round'].mean():.0f}", str(len(part))]
        cells.append([str(variant), *settings, *figures])
    return text.markdown(["loss", "learning rate", "rounds", "seeds", *_NAMES.values()], cells)


def _tests(tests: pd.DataFrame) -> str:
    cells = [
        f"{row.difference:+.4f} ({text.number(row.t, '.2f')}; {text.corrected_probability(row.p_holm)})"
        for row in tests.itertuples()
    ]
    table = tests.assign(cell=cells).pivot(index="variant", columns="measure", values="cell")
    rows = [[str(variant), *row[list(BOOSTING_MEASURES)]] for variant, row in table.iterrows()]
    return text.markdown(["Δ (t; corrected p)", *_NAMES.values()], rows)


def _finding(question: str, tests: pd.DataFrame) -> str:
    if tests["p_holm"].isna().all():
        return f"{question}: {text.NO_TEST}"
    significant = tests[tests["p_holm"] < ALPHA]
    if significant.empty:
        return f"{question}: no difference is significant (smallest corrected p {tests['p_holm'].min():.3f})."
    parts = [
        f"{row.variant} has {_NAMES[row.measure]} {row.difference:+.4f} (corrected p {text.probability(row.p_holm)})"
        for row in significant.itertuples()
    ]
    return f"{question}: {'; '.join(parts)}."


def _save_figure(settings: dict[str, pd.DataFrame], path: Path) -> None:
    figure = Figure(figsize=(3.1 * len(BOOSTING_MEASURES), 2.1 * len(settings) * len(STOPS)), layout="constrained")
    panels = figure.subplots(len(settings) * len(STOPS), len(BOOSTING_MEASURES), squeeze=False, sharey="row")
    stops = [(name, stop, chosen) for name, rows in settings.items() for stop, chosen in _stops(rows).items()]
    for row, (name, stop, chosen) in zip(panels, stops, strict=True):
        baseline = chosen[chosen["variant"] == LOGISTIC].set_index("seed")
        others = chosen[chosen["variant"] != LOGISTIC].set_index("seed")
        variants = list(others["variant"].unique())[::-1]
        row[0].set_yticks(range(len(variants)), variants, fontsize=8)
        row[0].set_ylabel(f"{name}\n{stop.lower()}", fontsize=8)
        for axes, measure in zip(row, BOOSTING_MEASURES, strict=True):
            axes.axvline(0, color="#bbbbbb", linewidth=0.8)
            axes.set_title(_NAMES[measure], fontsize=9)
            axes.tick_params(axis="x", labelsize=7)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.spines[["top", "right"]].set_visible(False)
            for height, variant in enumerate(variants):
                difference = (others.loc[others["variant"] == variant, measure] - baseline[measure]).dropna()
                color = "#0072b2" if variant.split(",")[0] in PROJECTED else "#d55e00"
                axes.plot(difference, np.full(len(difference), height), "o", color=color, markersize=3, alpha=0.6)
                axes.plot(difference.mean(), height, "|", color=color, markersize=14, markeredgewidth=2)
            axes.set_ylim(-0.6, len(variants) - 0.4)
    write_figure(path, figure)
