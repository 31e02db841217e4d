"""The dot plots of a report: one row a variant."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from softbin.experiments.reports import comparisons, style
from softbin.experiments.reports.run_table import VARIANT

_USUAL_NAME, _LETTER = 55, 0.065  # letters, and inches of each more


def gaps(settings: Mapping[str, pd.DataFrame]) -> tuple[Figure, str]:
    """What is lost from the smallest batch size to each other one, a panel a setting."""
    lost = {name: comparisons.gaps(rows) for name, rows in settings.items()}
    together = pd.concat(lost.values())
    sizes = sorted(together["batch_size"].unique())
    largest = together[together["batch_size"] == sizes[-1]].groupby("variant")["accuracy"].mean()
    variants = list(largest.sort_values(ascending=False).index)
    width = _width(4.4, variants)
    figure, panels = style.grid(1, len(lost), width=width, height=0.28 * len(variants) + 0.6, sharey=True)
    for axes, (name, rows) in zip(panels.flat, lost.items(), strict=True):
        for index, size in enumerate(sizes, 1):
            of_size = rows[rows["batch_size"] == size].groupby("variant")["accuracy"]
            mean, sd = (each.reindex(variants) for each in (of_size.mean(), of_size.std().fillna(0)))
            gray = str(0.75 * (1 - index / len(sizes)))
            bars = {"xerr": sd, "elinewidth": 0.8, "label": f"batch {size:,}"}
            axes.errorbar(mean, range(len(variants)), fmt="o", markersize=5, color=gray, **bars)
        axes.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("test accuracy lost")
    _name_rows(panels[0], together, variants)
    style.legend(figure)
    return figure, "Test accuracy lost from the smallest batch size on, mean ± standard deviation over seeds."


def decisions(settings: Mapping[str, pd.DataFrame]) -> tuple[Figure, str]:
    """Argmax beside thresholds, a panel a setting and batch size."""
    sizes = {name: style.few_batch_sizes(rows) for name, rows in settings.items()}
    most = max(rows.loc[rows["decision"] == "thresholds", "variant"].nunique() for rows in settings.values())
    shape = (len(settings), max(map(len, sizes.values())))
    width = _width(4.6, pd.concat(settings.values())["variant"])
    figure, panels = style.grid(*shape, width=width, height=0.32 * most + 1, sharex="row", sharey="row")
    for row, (name, rows) in zip(panels, settings.items(), strict=True):
        both = rows[rows["loss"].isin(rows.loc[rows["decision"] == "thresholds", "loss"])]
        names = [comparisons.variant_name(*each) for each in both[list(VARIANT)].itertuples(index=False)]
        both = both.assign(variant=names)
        variants = list(both.sort_values(list(VARIANT), ascending=False)["variant"].unique())
        heights = {variant: height for height, variant in enumerate(variants)}
        for axes in row[len(sizes[name]) :]:
            axes.set_visible(False)
        for axes, size in zip(row, sizes[name], strict=False):
            of_size = both[both["batch_size"] == size]
            means = of_size.pivot_table(index=["loss", "variant"], columns="decision", values="accuracy")
            for (loss, variant), mean in means.iterrows():
                height, color = heights[variant], style.COLORS[loss]
                axes.plot([mean["argmax"], mean["thresholds"]], [height, height], color=color, linewidth=1.2)
                axes.plot(mean["argmax"], height, "o", color=color, markerfacecolor="white")
                axes.plot(mean["thresholds"], height, "o", color=color)
            baseline = rows.loc[(rows["variant"] == style.BASELINE) & (rows["batch_size"] == size), "accuracy"]
            if len(baseline):
                axes.axvline(baseline.mean(), color=style.COLORS[style.BASELINE], linewidth=0.8, linestyle=":")
            axes.set_title(f"{name}\nbatch {size:,}", fontsize=10)
        _name_rows(row, both, variants)
    for axes in panels.flat:
        axes.set_xlabel("maximum test accuracy")
    return figure, (
        "Maximum test accuracy by argmax (open) and with thresholds (filled), mean over seeds; dotted: cross_entropy."
    )


def _width(usual: float, names: Iterable[str]) -> float:
    """Of a panel, in inches: more where the names of its rows are long."""
    return usual + _LETTER * max(0, max(map(len, names)) - _USUAL_NAME)


def _name_rows(panels: np.ndarray, rows: pd.DataFrame, variants: list[str]) -> None:
    """Name the rows of dot plots that share them, each in the color of its loss."""
    losses = rows.drop_duplicates("variant").set_index("variant")["loss"]
    panels[0].set_yticks(range(len(variants)), variants, fontsize=8)
    panels[0].set_ylim(-0.6, len(variants) - 0.4)
    for label, variant in zip(panels[0].get_yticklabels(), variants, strict=True):
        label.set_color(style.COLORS[losses[variant]])
    for axes in panels:
        axes.grid(axis="x", alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.spines[["top", "right"]].set_visible(False)
