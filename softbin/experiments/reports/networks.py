"""The report of runs of networks: tables, tests and figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from softbin.experiments.common import workdir as folder
from softbin.experiments.reports import comparisons, figures, run_table, text
from softbin.experiments.reports.run_table import PAPER, Runs

_READING = f"""\
Accuracies are on the test set. `mean` and `sd` are over the seeds, of each run's maximum over its epochs, as in the
paper: that choice of the epoch sees the test set, so compare `last`, the mean after the last epoch, as well. Tests are
t-tests paired by the seeds that both have; with fewer than two there is none. `p (Holm)` is corrected over all tests
of the table it stands in, and bold below {comparisons.ALPHA}; `p` is not corrected. k is the budget, τ the temperature.
With thresholds the decision is argmax of logits/τ − λ, otherwise argmax of the logits."""


class _Question(NamedTuple):
    """What is compared with what."""

    baseline: Callable[[pd.Series], str | None]
    rows: Callable[[pd.DataFrame], pd.DataFrame]
    summary: tuple[str, ...] = ("mean", "sd", "last")
    when: str = ""  # for sentences, where it is not the maximum over the epochs


_QUESTIONS = {
    "against cross_entropy": _Question(comparisons.cross_entropy, comparisons.compared),
    "against scaled_mse at the same temperature": _Question(comparisons.same_temperature, comparisons.compared),
    "thresholds against argmax": _Question(comparisons.argmax_of_same, lambda rows: rows),
    "after the last epoch, against cross_entropy": _Question(
        comparisons.cross_entropy, comparisons.after_last_epoch, ("mean", "sd"), ", after the last epoch"
    ),
}


class _Section(NamedTuple):
    """One setting with one learning rate for each batch size and variant, and how these compare."""

    name: str
    rows: pd.DataFrame
    tables: dict[str, pd.DataFrame]  # by question


def report(runs: Runs, source: str, workdir: Path) -> list[str]:
    """Write `report.md`, its figures and `runs.csv`.

    Args:
      runs: as of `run_table`.
      source: where they are from, for the title.
      workdir: a folder for the results, made where there is none.

    Returns:
      What the tests carry, in short.

    Raises:
      UserError: the folder cannot be made.
    """
    folder.make(workdir)
    folder.write(workdir / folder.RUN_TABLE_FILE, runs.table.to_csv(index=False))
    rows, repeats = comparisons.without_repeats(comparisons.decisions(runs.table))
    settings = comparisons.by_setting(rows)
    names = text.setting_names(pd.DataFrame([setting.iloc[0] for setting in settings]))
    common, tuned, chapters = [], [], []
    for name, setting in zip(names, settings, strict=True):
        search = comparisons.rate_search(comparisons.compared(setting))
        common.append(_section(name, comparisons.at_common_rates(setting)))
        chosen = comparisons.at_chosen_rates(setting, search)
        is_new = not chosen["run"].isin(common[-1].rows["run"]).all()
        tuned.append(_section(f"{name}, chosen learning rates", chosen if is_new else chosen[:0]))
        chapters += [_chapter(common[-1]), _rates(search, tuned[-1])]
    tuned = [section for section in tuned if any(table["p"].notna().any() for table in section.tables.values())]
    headlines = _headlines(common) + [f"with chosen learning rates, {headline}" for headline in _headlines(tuned)]
    headlines = [headline[0].upper() + headline[1:] for headline in headlines]
    published = None if source == PAPER else run_table.read_results(PAPER)
    pictures = figures.save({each.name: each.rows for each in common}, runs.curves, published, workdir)
    chapters = [
        f"# Report of {source}",
        _READING,
        "## What the tests carry",
        _bullets(headlines),
        "One by one:",
        _bullets(_findings([*common, *tuned])),
        "## What was run",
        text.what_was_run(runs.table),
        *text.left_out(runs, repeats),
        "## What differs from the paper's protocol",
        text.departures(runs.table),
        *chapters,
        "## Figures",
        "" if runs.curves is not None else "None over epochs: a table of runs has no curves.",
        *(f"![{caption}]({file})\n\n{caption}" for file, caption in pictures.items()),
    ]
    folder.write(workdir / folder.REPORT_FILE, "\n\n".join(filter(None, chapters)) + "\n")
    return headlines


def _section(name: str, rows: pd.DataFrame) -> _Section:
    tables = {
        each: comparisons.comparison_table(question.rows(rows), question.baseline)
        for each, question in _QUESTIONS.items()
    }
    always = next(iter(_QUESTIONS))
    shown = {each: table for each, table in tables.items() if each == always or table["baseline"].notna().any()}
    return _Section(name, rows, shown if len(rows) else {})


def _headlines(sections: Sequence[_Section]) -> list[str]:
    tables = {name: [each.tables[name] for each in sections if name in each.tables] for name in _QUESTIONS}
    return [headline for name, found in tables.items() if found for headline in text.headlines(found, name)]


def _findings(sections: Sequence[_Section]) -> list[str]:
    return [
        sentence
        for section in sections
        for question, table in section.tables.items()
        for sentence in text.findings(table, section.name, question, _QUESTIONS[question].when)
    ]


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences) or "There is nothing to compare."


def _chapter(section: _Section) -> str:
    gaps = comparisons.comparison_table(comparisons.gaps(comparisons.compared(section.rows)), comparisons.cross_entropy)
    parts = [
        f"## {section.name}",
        f"Learning rate: {text.rates(section.rows)}.",
        "### Table 1 in the paper's form",
        text.table_1(section.rows),
        *_comparisons(section),
    ]
    if len(gaps):
        parts += [
            "### Gap to the smallest batch",
            "The accuracy lost from the smallest batch size to this one, by seed; below zero, Δ says that less is lost "
            "than with cross_entropy.",
            text.comparison(gaps, ("gap", "sd")),
        ]
    return "\n\n".join(parts)


def _comparisons(section: _Section) -> list[str]:
    return [
        part
        for question, table in section.tables.items()
        for part in (f"### {question.capitalize()}", text.comparison(table, _QUESTIONS[question].summary))
    ]


def _rates(search: pd.DataFrame, tuned: _Section) -> str:
    if search.empty:
        return ""
    parts = [
        "### Learning rates",
        "The maximum validation accuracy at each learning rate that was tried, mean over the seeds that all of the "
        "rates have; the rate where it is highest is chosen.",
        text.search(search),
    ]
    if len(tuned.rows):
        parts += [
            "With the chosen rates, on the same seeds:",
            *(part.replace("### ", "#### ") for part in _comparisons(tuned)),
        ]
    elif search["chosen"].notna().all():
        parts.append("All chosen rates are those of the tables above.")
    return "\n\n".join(parts)
