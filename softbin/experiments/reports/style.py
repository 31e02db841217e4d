"""What the figures of a report share: a color for each loss, dashes for temperatures and decision rules, a legend."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from softbin.experiments.reports import comparisons, paper
from softbin.experiments.training.objectives import TEMPERED

BASELINE = "cross_entropy"
COLORS = {
    "cross_entropy": "#222222",
    "hypersimplex": "#0072b2",
    "fenchel_young": "#009e73",
    "scaled_mse": "#d55e00",
    "centred_scaled_mse": "#cc79a7",
    "mse": "#e69f00",
    "hinge": "#999999",
    "generalized_cross_entropy": "#7b3294",
    "symmetric_cross_entropy": "#56b4e9",
    "label_smoothing": "#8c564b",
    "tilted": "#b2df8a",
    "focal": "#e7298a",
    "class_weighted": "#66a61e",
    "capacity": "#1f4e9e",
    "pat_mat": "#a6761d",
    "top_push": "#e41a1c",
    "top_mean": "#ff7f9f",
}
_DASHES: dict[str, list] = {  # for the paper's temperature, and the others as they rise
    "argmax": ["-", (0, (2.5, 1.5)), (0, (7, 2))],
    "thresholds": [(0, (1, 1.2)), (0, (2.5, 1.2, 1, 1.2)), (0, (7, 1.5, 1, 1.5))],
}
_MOST_BATCH_SIZES = 3
_LEGEND_HEIGHT, _LEGEND_COLUMN = 0.8, 3.5  # inches
Styles = dict[str, dict[str, Any]]


def styles_of(rows: pd.DataFrame) -> Styles:
    """Color by loss, dashes by decision rule and temperature or chosen share; the variants in the order of legends."""
    tempered = rows.loc[rows["loss"].isin(TEMPERED), "temperature"].unique()
    ranks = {value: rank for rank, value in enumerate(sorted(tempered, key=lambda t: (t != paper.TEMPERATURE, t)))}
    styles: Styles = {}
    for loss, color in COLORS.items():
        part = rows[rows["loss"] == loss].sort_values(["budget", "temperature", "decision"])
        chooses = comparisons.chooses(part)
        for row in part[~chooses].drop_duplicates("variant").itertuples():
            dashes = _DASHES[row.decision]
            rank = ranks[row.temperature] if loss in TEMPERED else 0
            styles[row.variant] = {"color": color, "linestyle": dashes[rank % len(dashes)]}
        for decision, dashes in _DASHES.items():
            chosen = part[chooses & (part["decision"] == decision)].sort_values(["tail", "trim"])["variant"].unique()
            for rank, variant in enumerate(chosen):
                styles[variant] = {"color": color, "linestyle": dashes[rank % len(dashes)]}
    return styles


def few_batch_sizes(rows: pd.DataFrame) -> list[int]:
    """The batch sizes; of many the smallest, the middle and the largest."""
    sizes = sorted(rows["batch_size"].unique().tolist())
    return sizes if len(sizes) <= _MOST_BATCH_SIZES else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]


def grid(rows: int, columns: int, width: float, height: float, **sharing) -> tuple[Figure, np.ndarray]:
    """A figure and its panels; a single column is laid on its side."""
    shape = (rows, columns) if columns > 1 else (1, rows)
    figure = Figure(figsize=(width * shape[1], height * shape[0] + _LEGEND_HEIGHT), layout="constrained")
    panels = figure.subplots(*shape, squeeze=False, **(sharing if columns > 1 else {}))
    return figure, panels.reshape(rows, columns)


def legend(figure: Figure) -> None:
    """One legend below all panels, of the lines of all."""
    lines = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = max(1, int(figure.get_figwidth() / _LEGEND_COLUMN))
    style = {"frameon": False, "fontsize": 8, "handlelength": 4, "markerscale": 0.7}  # whose dashes can be told apart
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=columns, **style)
