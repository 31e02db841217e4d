"""The figures of a report. A loss has one color in all of them; temperatures and decision rules have their dashes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from softbin.experiments import comparisons, paper
from softbin.experiments.comparisons import PROJECTED
from softbin.experiments.run_table import VARIANT, Runs

_COLORS = {
    "cross_entropy": "#222222",
    "hypersimplex": "#0072b2",
    "fenchel_young": "#009e73",
    "scaled_mse": "#d55e00",
    "centred_scaled_mse": "#cc79a7",
    "mse": "#e69f00",
    "hinge": "#999999",
}
_DASHES: dict[str, list] = {
    "argmax": ["-", (0, (6, 2))],
    "thresholds": [(0, (1, 1.2)), (0, (5, 1.5, 1, 1.5))],
}  # by rank of temperature
_BASELINE = "cross_entropy"
_FEW = 5  # lines, which one panel holds
_MOST_BATCH_SIZES = 3  # in a figure over epochs
_WARM_UP = 0.1  # share of the epochs that may run out of the picture below

_LEGEND_HEIGHT, _LEGEND_COLUMN = 0.8, 3.5  # inches

Styles = dict[str, dict[str, Any]]


def save(
    settings: Mapping[str, pd.DataFrame], curves: pd.DataFrame | None, published: Runs | None, workdir: Path
) -> dict:
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
    styles = _styles(pd.concat(settings.values()))
    figures: dict[str, tuple[Figure, str]] = {}
    if curves is not None:
        figures["curves.png"] = _largest_batch(compared, curves, published)
        for index, (name, rows) in enumerate(compared.items(), 1):
            figures[f"epochs_{index}.png"] = _epochs(name, rows, curves, styles)
    if any(rows["batch_size"].nunique() > 1 for rows in compared.values()):
        figures["batch_size.png"] = _batch_sizes(compared, styles)
        figures["gap.png"] = _gaps(compared)
    if any((rows["decision"] == "thresholds").any() for rows in settings.values()):
        figures["decisions.png"] = _decisions(settings)
    for file, (figure, _) in figures.items():
        temporary = (workdir / file).with_suffix(".tmp")
        figure.savefig(temporary, format="png", dpi=110)
        os.replace(temporary, workdir / file)
    return {file: caption for file, (_, caption) in figures.items()}


def _styles(rows: pd.DataFrame) -> Styles:
    """Color by loss, dashes by decision rule and rank of the temperature; the variants in the order of legends."""
    styles: Styles = {}
    for loss, color in _COLORS.items():
        part = rows[rows["loss"] == loss].sort_values(["budget", "temperature", "decision"])
        ranks = {temperature: rank for rank, temperature in enumerate(sorted(part["temperature"].dropna().unique()))}
        for row in part.drop_duplicates("variant").itertuples():
            rank = ranks[row.temperature] if loss in comparisons.TEMPERED else 0
            styles[row.variant] = {"color": color, "linestyle": _DASHES[row.decision][min(rank, 1)]}
    return styles


def _with_epochs(rows: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """A row for each evaluated epoch of each row, with its accuracy."""
    both = rows.drop(columns="accuracy").merge(curves, on="run")
    thresholded = both.get("test_accuracy_thresholded", both["test_accuracy"])
    return both.assign(accuracy=both["test_accuracy"].where(both["decision"] == "argmax", thresholded))


def _draw(axes: Axes, rows: pd.DataFrame, x: str, styles: Styles, marker: str = "") -> None:
    """The mean over seeds of each variant against x, with a band of one standard deviation to either side."""
    for variant, style in styles.items():
        part = rows.loc[rows["variant"] == variant, [x, "accuracy"]].groupby(x)["accuracy"]
        if part.ngroups:
            mean, sd = part.mean(), part.std().fillna(0)
            axes.plot(
                mean.index, mean, label=variant, marker=marker, markersize=4, linewidth=1.5 if marker else 1.1, **style
            )
            axes.fill_between(mean.index, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _grid(rows: int, columns: int, width: float, height: float, **sharing) -> tuple[Figure, np.ndarray]:
    """A figure and its panels; a single column is laid on its side."""
    shape = (rows, columns) if columns > 1 else (1, rows)
    figure = Figure(figsize=(width * shape[1], height * shape[0] + _LEGEND_HEIGHT), layout="constrained")
    panels = figure.subplots(*shape, squeeze=False, **(sharing if columns > 1 else {}))
    return figure, panels.reshape(rows, columns)


def _legend(figure: Figure) -> None:
    """One legend below all panels, of the lines of all."""
    lines = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = max(1, int(figure.get_figwidth() / _LEGEND_COLUMN))
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _label_outer(panels: np.ndarray) -> None:
    """Leave out the labels between panels that share their axes."""
    if panels.shape[1] > 1:
        for axes in panels.flat:
            axes.label_outer()


def _above_warm_up(axes: Axes, rows: pd.DataFrame) -> None:
    """Cut the picture off below what the lines pass in their first epochs."""
    late = rows[rows["epoch"] >= _WARM_UP * rows["epoch"].max()]
    means = late.groupby(["variant", "epoch"])["accuracy"].mean()
    margin = 0.05 * (means.max() - means.min()) + 1e-3
    axes.set_ylim(means.min() - margin, means.max() + margin)


def _panels(styles: Styles, rows: pd.DataFrame) -> dict[str, Styles]:
    """The variants of each panel: all in one where they are few, otherwise by kind and each with the baseline."""
    present = {variant: style for variant, style in styles.items() if (rows["variant"] == variant).any()}
    if len(present) <= _FEW:
        return {"": present}
    baseline = {_BASELINE: present.pop(_BASELINE)} if _BASELINE in present else {}
    first = rows.drop_duplicates("variant").set_index("variant")
    panels: dict[str, Styles] = {}
    for variant, style in present.items():
        loss, budget = first.loc[variant, ["loss", "budget"]]
        kind = f"{loss}, k = {comparisons.budget_name(budget)}" if loss in PROJECTED else "no projection"
        panels.setdefault(kind, dict(baseline))[variant] = style
    return panels


def _largest_batch(
    settings: Mapping[str, pd.DataFrame], curves: pd.DataFrame, published: Runs | None
) -> tuple[Figure, str]:
    """The paper's figure, and the same of the first setting."""
    if published is None:
        parts = [(name, rows, curves) for name, rows in settings.items()]
    else:
        of_datasets = comparisons.by_setting(comparisons.decisions(published.table))
        parts = [(f"the paper's runs: {rows['dataset'].iloc[0]}", rows, published.curves) for rows in of_datasets]
        name, rows = next(iter(settings.items()))
        parts.append((f"these runs: {name}", rows, curves))
    parts = [(name, rows[_is_of_the_papers_figure(rows)], curves) for name, rows, curves in parts]
    styles = _styles(pd.concat(rows for _, rows, _ in parts))
    figure, panels = _grid(len(parts), 1, width=4.0, height=3.4)
    for axes, (name, rows, curves) in zip(panels[:, 0], parts, strict=True):
        lines = _with_epochs(rows, curves)
        _draw(axes, lines, "epoch", styles)
        _above_warm_up(axes, lines)
        axes.set_xlabel("epoch")
        axes.set_title(f"{name}\nbatch {rows['batch_size'].max():,}, seeds: {rows['seed'].nunique()}", fontsize=10)
    panels[0, 0].set_ylabel("test accuracy")
    _legend(figure)
    caption = "Test accuracy against the epoch at the largest batch size, mean ± standard deviation over seeds."
    return figure, caption


def _is_of_the_papers_figure(rows: pd.DataFrame) -> pd.Series:
    """The paper's losses and scaled_mse, by argmax, at the largest batch size."""
    losses = rows["loss"].isin([*paper.LOSSES, "scaled_mse"])
    return losses & (rows["decision"] == "argmax") & (rows["batch_size"] == rows["batch_size"].max())


def _epochs(name: str, rows: pd.DataFrame, curves: pd.DataFrame, styles: Styles) -> tuple[Figure, str]:
    sizes = sorted(rows["batch_size"].unique())
    if len(sizes) > _MOST_BATCH_SIZES:
        sizes = [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    groups = _panels(styles, rows)
    lines = _with_epochs(rows, curves)
    figure, panels = _grid(len(sizes), len(groups), width=3.9, height=3.0, sharex=True, sharey="row")
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
    _legend(figure)
    _label_outer(panels)
    return figure, f"{name}: test accuracy against the epoch, mean ± standard deviation over seeds."


def _batch_sizes(settings: Mapping[str, pd.DataFrame], styles: Styles) -> tuple[Figure, str]:
    groups = _panels(styles, pd.concat(settings.values()))
    figure, panels = _grid(len(settings), len(groups), width=3.9, height=3.0, sharex=True, sharey="row")
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
    _legend(figure)
    _label_outer(panels)
    return figure, "Maximum test accuracy against the batch size, mean ± standard deviation over seeds."


def _gaps(settings: Mapping[str, pd.DataFrame]) -> tuple[Figure, str]:
    gaps = {name: comparisons.gaps(rows) for name, rows in settings.items()}
    together = pd.concat(gaps.values())
    sizes = sorted(together["batch_size"].unique())
    largest = together[together["batch_size"] == sizes[-1]].groupby("variant")["accuracy"].mean()
    variants = list(largest.sort_values(ascending=False).index)
    figure, panels = _grid(1, len(gaps), width=4.4, height=0.28 * len(variants) + 0.6, sharey=True)
    for axes, (name, rows) in zip(panels.flat, gaps.items(), strict=True):
        for index, size in enumerate(sizes, 1):
            of_size = rows[rows["batch_size"] == size].groupby("variant")["accuracy"]
            mean, sd = (each.reindex(variants) for each in (of_size.mean(), of_size.std().fillna(0)))
            gray = str(0.75 * (1 - index / len(sizes)))
            bars = {"xerr": sd, "elinewidth": 0.8, "label": f"batch {size:,}"}
            axes.errorbar(mean, range(len(variants)), fmt="o", markersize=5, color=gray, **bars)
        axes.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("accuracy lost since the smallest batch size")
    _name_rows(panels[0], together, variants)
    _legend(figure)
    return figure, "Test accuracy lost from the smallest batch size on, mean ± standard deviation over seeds."


def _decisions(settings: Mapping[str, pd.DataFrame]) -> tuple[Figure, str]:
    sizes = sorted(pd.concat(settings.values())["batch_size"].unique())
    most = max(rows.loc[rows["decision"] == "thresholds", "variant"].nunique() for rows in settings.values())
    figure, panels = _grid(len(settings), len(sizes), width=4.6, height=0.32 * most + 1, sharex="row", sharey="row")
    for row, (name, rows) in zip(panels, settings.items(), strict=True):
        both = rows[rows["loss"].isin(PROJECTED)]
        both = both.assign(
            variant=[comparisons.variant_name(*each) for each in both[list(VARIANT)].itertuples(index=False)]
        )
        variants = list(both.sort_values(list(VARIANT), ascending=False)["variant"].unique())
        heights = {variant: height for height, variant in enumerate(variants)}
        for axes, size in zip(row, sizes, strict=True):
            of_size = both[both["batch_size"] == size]
            means = of_size.pivot_table(index=["loss", "variant"], columns="decision", values="accuracy")
            for (loss, variant), mean in means.iterrows():
                height, color = heights[variant], _COLORS[loss]
                axes.plot([mean["argmax"], mean["thresholds"]], [height, height], color=color, linewidth=1.2)
                axes.plot(mean["argmax"], height, "o", color=color, markerfacecolor="white")
                axes.plot(mean["thresholds"], height, "o", color=color)
            baseline = rows.loc[(rows["variant"] == _BASELINE) & (rows["batch_size"] == size), "accuracy"]
            if len(baseline):
                axes.axvline(baseline.mean(), color=_COLORS[_BASELINE], linewidth=0.8, linestyle=":")
            axes.set_title(f"{name}\nbatch {size:,}", fontsize=10)
        _name_rows(row, both, variants)
    for axes in panels.flat:
        axes.set_xlabel("maximum test accuracy")
    return figure, (
        "Maximum test accuracy by argmax (open) and with thresholds (filled), mean over seeds; dotted: cross_entropy."
    )


def _name_rows(panels: np.ndarray, rows: pd.DataFrame, variants: list[str]) -> None:
    """Name the rows of dot plots that share them, each in the color of its loss."""
    losses = rows.drop_duplicates("variant").set_index("variant")["loss"]
    panels[0].set_yticks(range(len(variants)), variants, fontsize=8)
    panels[0].set_ylim(-0.6, len(variants) - 0.4)
    for label, variant in zip(panels[0].get_yticklabels(), variants, strict=True):
        label.set_color(_COLORS[losses[variant]])
    for axes in panels:
        axes.grid(axis="x", alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.spines[["top", "right"]].set_visible(False)
