"""The report of runs of networks: tables, tests and figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from softbin.experiments.reports import capacity, comparisons, figures, frame, run_table, text
from softbin.experiments.reports.results import IN_REPOSITORY, PAPER
from softbin.experiments.reports.run_table import Runs
from softbin.experiments.runs.errors import UserError

_READING = f"""\
Accuracies are on the test set. `mean` and `sd` are over the seeds, of each run's maximum over its epochs, as in the
paper: that choice of the epoch sees the test set, so compare `last`, the mean after the last epoch, as well. Tests are
t-tests paired by the seeds that both have; with fewer than two there is none. `p (Holm)` is corrected over all tests
of the table it stands in, and bold below {comparisons.ALPHA}; `p` is not corrected. k is the budget, τ the temperature.
With thresholds the decision is argmax of logits/τ − λ, otherwise argmax of the logits. Of a loss of the smallest or the
largest only so many examples of a batch of n count."""
_REACHED = """\
Means over the seeds: test accuracy in the `best` and the `last` epoch, and in the one whose validation accuracy is
highest (`stopped`); validation accuracy in the last epoch, on labels as noisy as those of training; the smallest recall
of a class in the best and in the last epoch; the mean of the largest tenth of the cross-entropies of the test examples;
and the share of right labels among the examples kept in the last epoch."""


class _Question(NamedTuple):
    """What is compared with what."""

    baseline: comparisons.Baseline
    rows: Callable[[pd.DataFrame], pd.DataFrame]
    summary: tuple[str, ...] = ("mean", "sd", "last")
    when: str = ""  # for sentences, where it is not the maximum over the epochs


def _questions(reference: str) -> dict[str, _Question]:
    def now(baseline):
        return _Question(baseline, comparisons.compared)

    def after(baseline):
        return _Question(baseline, comparisons.after_last_epoch, ("mean", "sd"), ", after the last epoch")

    named, best = comparisons.named(reference), comparisons.best_of_all_examples
    return {
        f"against {reference}": now(named),
        "against scaled_mse at the same temperature": now(comparisons.same_temperature),
        "thresholds against argmax": _Question(comparisons.argmax_of_same, lambda rows: rows),
        f"after the last epoch, against {reference}": after(named),
        "against the same loss of all examples": now(comparisons.same_of_all_examples),
        "against the best loss of all examples": now(best),
        "after the last epoch, against the best loss of all examples": after(best),
    }


class _Section(NamedTuple):
    """One setting with one learning rate for each batch size and variant, and how these compare."""

    name: str
    rows: pd.DataFrame
    tables: dict[str, pd.DataFrame]  # by question
    questions: dict[str, _Question]


def report(runs: Runs, source: str, workdir: Path, reference: str = "cross_entropy") -> list[str]:
    """Write `report.md`, its figures and `runs.csv`.

    Args:
      runs: as of `run_table`.
      source: where they are from, for the title.
      workdir: a folder for the results, made where there is none.
      reference: the variant that all are compared with, by the name that it has in the tables.

    Returns:
      What the tests carry, in short.

    Raises:
      UserError: no run is of the reference, or the folder cannot be made.
    """
    decisions = comparisons.decisions(runs.table)
    if reference not in {"cross_entropy", *decisions["variant"]}:
        known = ", ".join(map(repr, sorted(decisions["variant"].unique())))
        raise UserError(f"no run is of the reference {reference!r}: choose one of {known}")
    frame.write_runs(runs, workdir)
    rows, repeats = comparisons.without_repeats(decisions)
    settings = comparisons.by_setting(rows)
    names = text.setting_names(pd.DataFrame([setting.iloc[0] for setting in settings]))
    questions = _questions(reference)
    common, tuned, chapters = [], [], []
    for name, setting in zip(names, settings, strict=True):
        search = comparisons.rate_search(comparisons.compared(setting))
        common.append(_section(name, comparisons.at_common_rates(setting), questions))
        chosen = comparisons.at_chosen_rates(setting, search)
        is_new = not chosen["run"].isin(common[-1].rows["run"]).all()
        tuned.append(_section(f"{name}, chosen learning rates", chosen if is_new else chosen[:0], questions))
        chapters += [_chapter(common[-1]), _rates(search, tuned[-1])]
    tuned = [section for section in tuned if any(table["p"].notna().any() for table in section.tables.values())]
    headlines = _headlines(common) + [f"with chosen learning rates, {headline}" for headline in _headlines(tuned)]
    headlines = [headline[0].upper() + headline[1:] for headline in headlines]
    top = capacity.part([runs], workdir)
    headlines += top.findings
    published = None if source == PAPER else run_table.read_results(PAPER)
    pictures = figures.save({each.name: each.rows for each in common}, runs.curves, published, workdir)
    chapters = [
        _READING,
        *frame.findings(headlines),
        "One by one:",
        frame.bullets(_findings([*common, *tuned])),
        *frame.what_was_run(runs, repeats, [["optimizer", "Adam, constant learning rate"]]),
        "## What differs from the paper's protocol",
        text.departures(runs.table),
        *chapters,
        *top.chapter,
        "## Figures",
        "" if runs.curves is not None else _no_curves(source),
        *(f"![{caption}]({file})\n\n{caption}" for file, caption in pictures.items()),
    ]
    frame.write(source, workdir, chapters)
    return headlines


def _no_curves(source: str) -> str:
    if source == PAPER:
        return f"None over epochs: the curves are not in the package, but in its repository, in {IN_REPOSITORY}."
    return "None over epochs: a table of runs has no curves."


def _section(name: str, rows: pd.DataFrame, questions: dict[str, _Question]) -> _Section:
    tables = {
        each: comparisons.comparison_table(question.rows(rows), question.baseline)
        for each, question in questions.items()
    }
    always = next(iter(questions))
    shown = {each: table for each, table in tables.items() if each == always or table["baseline"].notna().any()}
    return _Section(name, rows, shown if len(rows) else {}, questions)


def _headlines(sections: Sequence[_Section]) -> list[str]:
    questions = dict.fromkeys(question for each in sections for question in each.questions)
    tables = {each: [section.tables[each] for section in sections if each in section.tables] for each in questions}
    return [headline for each, found in tables.items() if found for headline in text.headlines(found, each)]


def _findings(sections: Sequence[_Section]) -> list[str]:
    return [
        sentence
        for section in sections
        for question, table in section.tables.items()
        for sentence in text.findings(table, section.name, question, section.questions[question].when)
    ]


def _chapter(section: _Section) -> str:
    gaps = comparisons.comparison_table(comparisons.gaps(comparisons.compared(section.rows)), comparisons.cross_entropy)
    parts = [
        f"## {section.name}",
        f"Learning rate: {text.rates(section.rows)}.",
        *_reached(section),
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


def _reached(section: _Section) -> list[str]:
    table = comparisons.reached(comparisons.compared(section.rows))
    return ["### What each loss reaches", _REACHED, text.reached(table)] if len(table) else []


def _comparisons(section: _Section) -> list[str]:
    return [
        part
        for question, table in section.tables.items()
        for part in (f"### {question.capitalize()}", text.comparison(table, section.questions[question].summary))
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
