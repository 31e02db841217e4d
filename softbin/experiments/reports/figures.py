"""The figures of a report: accuracy against epochs and batch sizes here, dot plots in `dots`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from softbin.experiments.reports import comparisons, dots, paper, style
from softbin.experiments.reports.comparisons import PROJECTED
from softbin.experiments.reports.run_table import Runs
from softbin.experiments.runs.curves import write_figure

_FEW = 5  # lines, which one panel holds
_WARM_UP = 0.1  # share of the epochs that may run out of the picture below


def save(
    settings: Mapping[str, pd.DataFrame], curves: pd.DataFrame | None, published: Runs | None, workdir: Path
) -> dict[str, str]:
    """Write the figures that the rows allow.

    Args:
      settings: the rows of `comparisons.decisions` by the name of their setting, with one learning rate each.
      curves: of the runs; without them there are no figures over epochs.
      published: the paper's runs, to stand beside these.
      workdir: where the figures go.

    Returns:
      The captions by file name.
    """
    compared = {name: comparisons.compared(rows) for name, rows in settings.items()}
    published_rows = [] if published is None else [comparisons.decisions(published.table)]
    styles = style.styles_of(pd.concat([*settings.values(), *published_rows]))
    figures: dict[str, tuple[Figure, str]] = {}
    if curves is not None:
        figures["curves.png"] = _largest_batch(compared, curves, published, styles)
        for index, (name, rows) in enumerate(compared.items(), 1):
            figures[f"epochs_{index}.png"] = _epochs(name, rows, curves, styles)
    several = {name: rows for name, rows in compared.items() if rows["batch_size"].nunique() > 1}
    if several:
        figures["batch_size.png"] = _batch_sizes(several, styles)
        figures["gap.png"] = dots.gaps(several)
    decided = {name: rows for name, rows in settings.items() if (rows["decision"] == "thresholds").any()}
    if decided:
        figures["decisions.png"] = dots.decisions(decided)
    for file, (figure, _) in figures.items():
        write_figure(workdir / file, figure)
    return {file: caption for file, (_, caption) in figures.items()}


def _with_epochs(rows: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row for each evaluated epoch of each row, with its accuracy."""
    both = rows.drop(columns="accuracy").merge(curves, on="run")
    thresholded = both.get("test_accuracy_thresholded", both["test_accuracy"])
    return both.assign(accuracy=both["test_accuracy"].where(both["decision"] == "argmax", thresholded))


def _draw(axes: Axes, rows: pd.DataFrame, x: str, styles: style.Styles, marker: str = "") -> None:
    """The mean over seeds of each variant against x, with a band of one standard deviation to either side."""
    for variant, line in styles.items():
        part = rows.loc[rows["variant"] == variant, [x, "accuracy"]].groupby(x)["accuracy"]
        if part.ngroups:
            mean, sd = part.mean(), part.std().fillna(0)
            width = 1.5 if marker else 1.1
            axes.plot(mean.index, mean, label=variant, marker=marker, markersize=4, linewidth=width, **line)
            axes.fill_between(mean.index, mean - sd, mean + sd, color=line["color"], alpha=0.15, linewidth=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _label_outer(panels: np.ndarray) -> None:
    """Leave out the labels between panels that share their axes."""
    if panels.shape[1] > 1:
        for axes in panels.flat:
            axes.label_outer()


def _above_warm_up(axes: Axes, rows: pd.DataFrame) -> None:
    """Cut the picture off below what the lines pass in their first epochs."""
    late = rows[rows["epoch"] > _WARM_UP * rows["epoch"].max()]
    means = late.groupby(["variant", "epoch"])["accuracy"].mean()
    margin = 0.05 * (means.max() - means.min()) + 1e-3
    axes.set_ylim(means.min() - margin, means.max() + margin)


def _panels(styles: style.Styles, rows: pd.DataFrame) -> dict[str, style.Styles]:
    """The variants of each panel: all in one where they are few and differ, otherwise by kind beside the baseline."""
    present = {variant: line for variant, line in styles.items() if (rows["variant"] == variant).any()}
    different = {str(line) for line in present.values()}
    if len(different) == len(present) <= _FEW:
        return {"": present}
    baseline = {style.BASELINE: present.pop(style.BASELINE)} if style.BASELINE in present else {}
    first = rows.drop_duplicates("variant").set_index("variant")
    panels: dict[str, style.Styles] = {}
    for variant, line in present.items():
        loss, budget = first.loc[variant, ["loss", "budget"]]
        kind = f"{loss}, k = {comparisons.budget_name(budget)}" if loss in PROJECTED else "no projection"
        kind = "of chosen examples" if comparisons.chooses(first.loc[variant]) else kind
        panels.setdefault(kind, dict(baseline))[variant] = line
    return panels


def _largest_batch(
    settings: Mapping[str, pd.DataFrame], curves: pd.DataFrame, published: Runs | None, styles: style.Styles
) -> tuple[Figure, str]:
    """The paper's figure, where its curves are at hand, and the same of the first setting."""
    if published is None or published.curves is None:
        parts = [(name, rows, curves) for name, rows in settings.items()]
    else:
        of_datasets = comparisons.by_setting(comparisons.decisions(published.table))
        parts = [(f"the paper's runs: {rows['dataset'].iloc[0]}", rows, published.curves) for rows in of_datasets]
        name, rows = next(iter(settings.items()))
        parts.append((f"these runs: {name}", rows, curves))
    parts = [(name, rows[shown], curves) for name, rows, curves in parts if (shown := _in_papers_figure(rows)).any()]
    figure, panels = style.grid(len(parts), 1, width=4.0, height=3.4)
    for axes, (name, rows, curves) in zip(panels[:, 0], parts, strict=True):
        lines = _with_epochs(rows, curves)
        _draw(axes, lines, "epoch", styles)
        _above_warm_up(axes, lines)
        axes.set_xlabel("epoch")
        axes.set_title(f"{name}\nbatch {rows['batch_size'].max():,}, seeds: {rows['seed'].nunique()}", fontsize=10)
    panels[0, 0].set_ylabel("test accuracy")
    style.legend(figure)
    caption = "Test accuracy against the epoch at the largest batch size, mean ± standard deviation over seeds."
    return figure, caption


def _in_papers_figure(rows: pd.DataFrame) -> pd.Series:
    """The paper's losses and scaled_mse, of all examples, by argmax, at the largest batch size."""
    losses = rows["loss"].isin([*paper.LOSSES, "scaled_mse"]) & ~comparisons.chooses(rows)
    return losses & (rows["decision"] == "argmax") & (rows["batch_size"] == rows["batch_size"].max())


def _epochs(name: str, rows: pd.DataFrame, curves: pd.DataFrame, styles: style.Styles) -> tuple[Figure, str]:
    sizes = style.few_batch_sizes(rows)
    groups = _panels(styles, rows)
    lines = _with_epochs(rows, curves)
    figure, panels = style.grid(len(sizes), len(groups), width=3.9, height=3.0, sharex=True, sharey="row")
    for row, size in zip(panels, sizes, strict=True):
        of_size = lines[lines["batch_size"] == size]
        for axes, (kind, members) in zip(row, groups.items(), strict=True):
            _draw(axes, of_size, "epoch", members)
            axes.set_title(f"{kind}\nbatch {size:,}".strip(), fontsize=10)
        _above_warm_up(row[0], of_size)
        row[0].set_ylabel("test accuracy")
        for axes in row:
            axes.set_xlabel("epoch")
    figure.suptitle(name)
    style.legend(figure)
    _label_outer(panels)
    return figure, f"{name}: test accuracy against the epoch, mean ± standard deviation over seeds."


def _batch_sizes(settings: Mapping[str, pd.DataFrame], styles: style.Styles) -> tuple[Figure, str]:
    groups = _panels(styles, pd.concat(settings.values()))
    figure, panels = style.grid(len(settings), len(groups), width=3.9, height=3.0, sharex=True, sharey="row")
    for row, (name, rows) in zip(panels, settings.items(), strict=True):
        for axes, (kind, members) in zip(row, groups.items(), strict=True):
            _draw(axes, rows, "batch_size", members, marker="o")
            axes.set_title(f"{name}\n{kind}".strip(), fontsize=10)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_minor_locator(NullLocator())
        row[0].set_ylabel("maximum test accuracy")
    sizes = sorted(pd.concat(settings.values())["batch_size"].unique())
    for axes in panels.flat:
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45 if len(sizes) > 4 else 0)
        axes.set_xlabel("batch size")
    style.legend(figure)
    _label_outer(panels)
    return figure, "Maximum test accuracy against the batch size, mean ± standard deviation over seeds."
