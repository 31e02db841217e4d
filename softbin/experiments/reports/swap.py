"""Swapping the loss: which setting each loss takes, what it reaches then, and what a fixed setting would lose."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from softbin.experiments.reports import comparisons, style, text
from softbin.experiments.reports.run_table import Runs
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.curves import write_figure
from softbin.experiments.runs.errors import UserError

FIGURE_FILE = "swap.png"
PLAIN = "plain cross-entropy"
THRESHOLDED = "cross-entropy, thresholds"
CONTENDERS: dict[str, tuple[tuple[str, str], ...]] = {
    PLAIN: (("cross_entropy", "argmax"),),
    "cross-entropy": (("cross_entropy", "argmax"), ("label_smoothing", "argmax")),
    THRESHOLDED: (("cross_entropy", "thresholds"), ("label_smoothing", "thresholds")),
    "softbin.loss": (("hypersimplex", "thresholds"),),
    "softbin.fenchel_young_loss": (("fenchel_young", "thresholds"),),
    "squared errors": (("scaled_mse", "argmax"), ("centred_scaled_mse", "thresholds")),
}
"""What a user can choose between: the losses of each with the rule by which they decide.

Cross-entropy may smooth its labels, and is plain where it stands for what is swapped.
"""
CELL = ("dataset", "batch_size")
_BASELINES = {PLAIN: "_plain", "cross-entropy": "", THRESHOLDED: "_thresholded"}
_SETTING = ("variant", "learning_rate")
_LINES: style.Styles = {
    PLAIN: {"color": "#999999", "linestyle": "-"},
    "cross-entropy": {"color": style.COLORS["cross_entropy"], "linestyle": "-"},
    THRESHOLDED: {"color": style.COLORS["cross_entropy"], "linestyle": ":"},
    "squared errors": {"color": style.COLORS["scaled_mse"], "linestyle": "-"},
    "softbin.fenchel_young_loss": {"color": style.COLORS["fenchel_young"], "linestyle": "-"},
    "softbin.loss": {"color": style.COLORS["hypersimplex"], "linestyle": "-"},
}
_PICTURED = 0.12  # of the accuracy, below the best of a panel
_READING = f"""\
Each loss takes the setting with the best validation accuracy after the last epoch in the development runs, of equal
ones that with the smallest rate. Test accuracy after the last epoch: mean ± standard deviation over the seeds, and its
difference to plain cross-entropy, to cross-entropy whose labels may be smoothed, and to that with thresholds, each with
the p of a t-test paired by the seed, corrected by Holm's method over the column and bold below {comparisons.ALPHA}."""
_FIXED = """\
What a fixed setting loses: validation accuracy in the development runs against that of the best setting of the same
loss, mean over the data sets and the sizes of the batch, and the most. The three best of each loss."""


def contenders(runs: Runs) -> pd.DataFrame:
    """The rows of `comparisons.decisions` that take part, with a column `contender`."""
    rows = comparisons.decisions(runs.table)
    parts = [
        rows[(rows["loss"] == loss) & (rows["decision"] == decision)].assign(contender=name)
        for name, rules in CONTENDERS.items()
        for loss, decision in rules
    ]
    return pd.concat(parts, ignore_index=True)


def chosen(development: pd.DataFrame) -> pd.DataFrame:
    """The row of each data set, size of the batch and contender with the best last validation accuracy."""
    ordered = development.sort_values("learning_rate", kind="stable")
    best = ordered.groupby([*CELL, "contender"])["last_validation"].idxmax()
    return development.loc[best, [*CELL, "contender", *_SETTING]]


def swaps(test: pd.DataFrame, choice: pd.DataFrame) -> pd.DataFrame:
    """A row for each data set, size of the batch and contender at its chosen setting.

    It has the `mean` and `sd` of the last test accuracy and, against cross-entropy, `difference`, `p` and `p_holm`; the
    same against plain cross-entropy and that with thresholds have `_plain` and `_thresholded` after their names.
    """
    rows = test.merge(choice, on=[*CELL, "contender", *_SETTING])
    groups = dict(iter(rows.groupby([*CELL, "contender"])))
    records: list[dict[str, Any]] = []
    for (*cell, name), group in groups.items():
        reached = group.set_index("seed")["last"]
        record = {**dict(zip(CELL, cell, strict=True)), "contender": name, **group[list(_SETTING)].iloc[0]}
        record |= {"seeds": len(reached), "mean": reached.mean(), "sd": reached.std()}
        for baseline, suffix in _BASELINES.items():
            other = groups.get((*cell, baseline))
            if name != baseline and other is not None:
                found = comparisons.paired_test(reached, other.set_index("seed")["last"])
                record |= {f"{field}{suffix}": found[field] for field in ("difference", "p")}
        records.append(record)
    found = pd.DataFrame(records)
    if len(found):
        tests = [f"{field}{end}" for end in _BASELINES.values() for field in ("difference", "p")]
        found = found.reindex(columns=list(dict.fromkeys([*found, *tests])))
        return found.assign(**{f"p_holm{end}": comparisons.holm(found[f"p{end}"]) for end in _BASELINES.values()})
    return found


def fixed_settings(development: pd.DataFrame) -> pd.DataFrame:
    """What each setting that every data set and size of the batch has loses to the best, by contender: mean, most."""
    best = development.groupby([*CELL, "contender"])["last_validation"].transform("max")
    lost = development.assign(lost=best - development["last_validation"])
    groups = lost.groupby(["contender", *_SETTING])["lost"]
    table = groups.agg(["size", "mean", "max"]).reset_index()
    return table[table["size"] == table["size"].max()].sort_values("mean").drop(columns="size")


def report(several: Sequence[Runs], source: str, workdir: Path) -> list[str]:
    """Write `report.md` and its figure.

    Args:
      several: the development runs, and those that test what they choose.
      source: where they are from, for the title.
      workdir: a folder for the results, made where there is none.

    Returns:
      What the tests carry.

    Raises:
      UserError: they are not two sets of runs, the second at settings that the first chooses, or the folder cannot be
        made.
    """
    if len(several) != 2:
        raise UserError(f"{source} are not development runs and their test: name two, as in swap_development,swap")
    development, test = map(contenders, several)
    table = swaps(test, chosen(development))
    if table.empty:
        raise UserError(f"{source} have no setting in common that the first choose: name them as swap_development,swap")
    folder.make(workdir)
    write_figure(workdir / FIGURE_FILE, figure(development))
    findings = _findings(table)
    caption = (
        "Validation accuracy after the last epoch over the learning rate, at the best other setting of each loss, one "
        "seed."
    )
    chapters = [
        f"# Report of {source}",
        _READING,
        "\n".join(f"- {finding}" for finding in findings),
        _table(table),
        _FIXED,
        _fixed_table(fixed_settings(development)),
        f"![{caption}]({FIGURE_FILE})\n\n{caption}",
    ]
    folder.write(workdir / folder.REPORT_FILE, "\n\n".join(chapters) + "\n")
    return findings


def figure(development: pd.DataFrame) -> Figure:
    """Validation accuracy over the learning rate, a line a contender, a panel a data set and size of the batch.

    Of the rates that all losses were run with: at the others a line would lack some of its settings.
    """
    losses = development.groupby("learning_rate")["loss"].transform("nunique")
    development = development[losses == losses.max()]
    cells = [list(part.groupby("batch_size")) for _, part in development.groupby("dataset")]
    shape = (max(map(len, cells)), len(cells))
    result, panels = style.grid(*shape, width=2.7, height=2.0, sharex=True)
    for column, sizes in zip(panels.T, cells, strict=True):
        for axes, (size, part) in zip(column, sizes, strict=False):
            best = part.groupby(["contender", "learning_rate"])["last_validation"].max()
            for name, line in _LINES.items():
                if name in best:
                    axes.plot(best[name].index, best[name], label=name, marker="o", markersize=3, **line)
            axes.set_ylim(best.max() - _PICTURED, best.max() + 0.01)
            axes.set_xscale("log")
            axes.set_title(f"{part['dataset'].iloc[0]}, batch {size:,}", fontsize=10)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("learning rate")
    for axes in panels[:, 0]:
        axes.set_ylabel("validation accuracy", fontsize=9)
    style.legend(result)
    return result


def _findings(table: pd.DataFrame) -> list[str]:
    return [
        f"Against {baseline}, {name} is significantly higher {_significant(part, suffix, 1)} and lower "
        f"{_significant(part, suffix, -1)}, of {len(part)}."
        for baseline, suffix in _BASELINES.items()
        for name, part in table.groupby("contender", sort=False)
        if name != baseline
    ]


def _significant(part: pd.DataFrame, suffix: str, sign: int) -> str:
    found = part[(part[f"p_holm{suffix}"] < comparisons.ALPHA) & (sign * part[f"difference{suffix}"] > 0)]
    if found.empty:
        return "in none"
    differences = found[f"difference{suffix}"].abs()
    ends = dict.fromkeys(f"{end:.4f}" for end in (differences.min(), differences.max()))
    return f"by {' to '.join(ends)} in {len(found)}"


def _table(table: pd.DataFrame) -> str:
    ordered = table.assign(place=[list(CONTENDERS).index(name) for name in table["contender"]])
    rows = [
        [
            row["dataset"],
            f"{row['batch_size']:,}",
            row["contender"],
            row["variant"],
            f"{row['learning_rate']:g}",
            f"{row['mean']:.4f} ± {text.number(row['sd'])}",
            *(_difference(row, suffix) for suffix in _BASELINES.values()),
        ]
        for row in ordered.sort_values([*CELL, "place"]).to_dict("records")
    ]
    columns = ["data set", "batch", "loss", "setting", "rate", "test accuracy", *(f"to {name}" for name in _BASELINES)]
    return text.markdown(columns, rows)


def _difference(row: dict[str, Any], suffix: str) -> str:
    difference, p = row[f"difference{suffix}"], row[f"p_holm{suffix}"]
    if pd.isna(difference):
        return text.NO_VALUE
    return f"{round(difference, 4) + 0.0:+.4f} ({text.corrected_probability(p)})"


def _fixed_table(table: pd.DataFrame) -> str:
    rows = [
        [name, row["variant"], f"{row['learning_rate']:g}", f"{row['mean']:.4f}", f"{row['max']:.4f}"]
        for name in CONTENDERS
        for row in table[table["contender"] == name].head(3).to_dict("records")
    ]
    return text.markdown(["loss", "setting", "rate", "loses", "at most"], rows)
