"""The statistics of a report: variants of a loss compared by t-tests that are paired by the seed.

A variant is a loss with its budget, its temperature and the rule by which it decides. All functions take and return
tables; their columns `mean`, `difference` and so on are test accuracies.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from softbin.experiments.reports.run_table import SETTING, VARIANT
from softbin.experiments.training.objectives import CHOOSING, DEFAULT_BUDGETS, TEMPERED
from softbin.experiments.training.selection import ranked_by

ALPHA = 0.05
PROJECTED = tuple(DEFAULT_BUDGETS)
BOOSTED_VARIANT = ("loss", "budget", "hessian")
HALF = "0.5"
WARM_UP = 0.2
"""The `trim_warmup` that names leave out."""
_SAME = 3e-6  # differences nearer than this are equal: an accuracy is a count, and rounded to six decimals
_CELL = [*SETTING, "variant", "batch_size", "learning_rate"]


def decisions(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each run and decision rule, with what it reaches by the rule.

    Adds the columns `variant` (a name), `decision` (argmax or thresholds), the test accuracies `accuracy` (the maximum
    over the epochs), `last` and `stopped` (in the epoch whose validation accuracy is highest), the maximum `validation`
    and the `last_validation` accuracy, and the smallest recall of a class in the best (`worst_class`) and in the last
    epoch (`last_worst_class`).
    """
    rules = {"argmax": "", "thresholds": "_thresholded"}
    parts = [
        table.assign(
            decision=rule,
            accuracy=table[f"max_test_accuracy{suffix}"],
            last=table[f"last_test_accuracy{suffix}"],
            stopped=table[f"stopped_test_accuracy{suffix}"],
            validation=table[f"max_validation_accuracy{suffix}"],
            last_validation=table[f"last_validation_accuracy{suffix}"],
            worst_class=table[f"at_max_test_worst_class{suffix}"],
            last_worst_class=table[f"last_test_worst_class{suffix}"],
        )
        for rule, suffix in rules.items()
    ]
    result = pd.concat(parts, ignore_index=True).dropna(subset="accuracy")
    return result.assign(variant=[variant_name(*row) for row in result[[*VARIANT, "decision"]].itertuples(index=False)])


def variant_name(
    loss: str,
    budget: str,
    temperature: float,
    trim: float = 1.0,
    trim_warmup: float = WARM_UP,
    trim_by: str = "",
    trim_per_class: bool | np.bool_ = False,
    tail: float = 1.0,
    decision: str = "argmax",
) -> str:
    """As in `hypersimplex (k = n/2, τ = 1.5, smallest 0.6 n), thresholds`."""
    by = ranked_by(trim_by, loss) if trim < 1 else ""
    settings = []
    if loss in PROJECTED or loss in CHOOSING or by == "projection":
        settings.append(f"k = {budget_name(budget)}")
    if loss in TEMPERED or by in ("scaled_squares", "projection"):
        settings.append(f"τ = {temperature:g}")
    if trim < 1:
        kept = [f"smallest {trim:g} n"]
        kept += [f"by {by}"] if by and by != ranked_by("", loss) else []
        kept += ["of every class"] if trim_per_class else []
        kept += [f"warm-up {trim_warmup:g}"] if trim_warmup != WARM_UP else []
        settings.append(" ".join(kept))
    if tail < 1:
        settings.append(f"largest {tail:g} n")
    name = f"{loss} ({', '.join(settings)})" if settings else loss
    return f"{name}, thresholds" if decision == "thresholds" else name


def boosted_variant_name(loss: str, budget: str, hessian: str) -> str:
    """As in `hypersimplex (k = 0.02 n), gauss_newton`; nothing is said of what a loss has by itself."""
    name = f"{loss} (k = {budget_name(budget)})" if loss in PROJECTED and budget else loss
    return f"{name}, {hessian}" if loss in PROJECTED and hessian != "unit" else name


def budget_name(budget: str) -> str:
    """As in `n/2` or `label counts`."""
    names = {"label_count": "label counts", "prior": "priors", HALF: "n/2"}
    return names.get(budget, f"{budget} n")


def without_repeats(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows of the first run of each variant, batch size, learning rate and seed; and the names of the other runs."""
    repeats = rows.duplicated([*_CELL, "seed"])
    return rows[~repeats], sorted(set(rows.loc[repeats, "run"]))


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand in the tables.

    Every loss that does not see a constant added to the logits of a class decides with thresholds. Argmax stands beside
    them for k = n/2, the published rule, and for losses that do see it; its other rows are in the decisions table only.
    """
    by_class = rows["loss"].isin(PROJECTED) & rows["budget"].isin(["label_count", "prior"])
    needs_thresholds = by_class | (rows["loss"] == "centred_scaled_mse")
    return rows[~needs_thresholds | (rows["decision"] == "thresholds")]


def after_last_epoch(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand in the tables, with the accuracy after the last epoch in place of the maximum."""
    return compared(rows.assign(accuracy=rows["last"]))


def paired_test(values: pd.Series, baseline: pd.Series, test_to_train: float = 0.0) -> dict[str, Any]:
    """The t-test of what two variants reach by seed, paired by the seeds that both have.

    Args:
      values, baseline: indexed by the seed.
      test_to_train: where each seed is another random split of the same rows, the number of test rows over that of
        training rows. The splits overlap, so that the variance over the seeds is too small; it is raised.

    References:
      Nadeau and Bengio, `Inference for the Generalization Error
      <https://doi.org/10.1023/A:1024068626366>`_, 2003, the corrected resampled t-test.

    Returns:
      `pairs`, the mean `difference`, `t` and `p`; NaN where there is no test, for want of two seeds or because all
      differences are the same.
    """
    both = pd.concat([values, baseline], axis=1, join="inner")
    difference = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy()
    result = {"pairs": len(both), "difference": np.nan, "t": np.nan, "p": np.nan}
    if len(both):
        result["difference"] = difference.mean()
    if len(both) > 1 and np.ptp(difference) > _SAME:
        result["t"] = stats.ttest_1samp(difference, 0).statistic / np.sqrt(1 + len(both) * test_to_train)
        result["p"] = 2 * stats.t.sf(abs(result["t"]), len(both) - 1)
    return result


def holm(p: pd.Series) -> pd.Series:
    """Holm's step-down correction of the p-values that are numbers."""
    ordered = p.dropna().sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return corrected.reindex(p.index)


def by_setting(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each setting; of each data set first the clean one, then by label noise and imbalance."""
    order = {"dataset": True, "label_noise": True, "noise_kind": False, "imbalance": False}
    ordered = rows.sort_values(list(order), ascending=list(order.values()), kind="stable")
    return [part for _, part in ordered.groupby(list(SETTING), sort=False, dropna=False)]


Baseline = Callable[[pd.Series, pd.DataFrame], str | None]
"""From a row, and all rows of its setting, to the name of the variant that it is compared with.

None leaves it out of the table, and its own name, or one that was not run, leaves out the test.
"""


def comparison_table(rows: pd.DataFrame, baseline: Baseline) -> pd.DataFrame:
    """Every variant beside its baseline at every batch size, in one setting and with one learning rate a variant.

    Args:
      rows: as of `decisions`.
      baseline: what each is compared with.

    Returns:
      A row for each batch size and variant, with `seeds`, `mean`, `sd`, `last`, `baseline`, `baseline_mean` and the
      paired test; `p_holm` is corrected over all tests of the table.
    """
    cells = dict(iter(rows.groupby(["batch_size", "variant"], sort=False)))
    records = []
    for (batch_size, variant), cell in cells.items():
        name = baseline(cell.iloc[0], rows)
        if name is None:
            continue
        record = {"batch_size": batch_size, "loss": cell["loss"].iloc[0], "variant": variant, **summary(cell)}
        other = cells.get((batch_size, name))
        if name != variant and other is not None:
            accuracy, reference = (each.set_index("seed")["accuracy"] for each in (cell, other))
            record |= {"baseline": name, "baseline_mean": reference.mean(), **paired_test(accuracy, reference)}
        records.append(record)
    columns = ["batch_size", "loss", "variant", "seeds", "mean", "sd", "last", "baseline", "baseline_mean"]
    table = pd.DataFrame(records, columns=[*columns, "pairs", "difference", "t", "p"])
    return table.assign(p_holm=holm(table["p"].astype(float)))


def summary(cell: pd.DataFrame) -> dict[str, Any]:
    """Seeds, mean and sd of the accuracy, and the mean of the last accuracy."""
    return {
        "seeds": len(cell),
        "mean": cell["accuracy"].mean(),
        "sd": cell["accuracy"].std(),
        "last": cell["last"].mean(),
    }


def named(reference: str) -> Baseline:
    """Compare every variant with one."""
    return lambda row, rows: reference


cross_entropy = named("cross_entropy")


def same_temperature(row: pd.Series, rows: pd.DataFrame) -> str | None:
    """Compare a loss with a temperature with the squared error on logits/temperature, without a projection."""
    return variant_name("scaled_mse", "", row["temperature"]) if row["loss"] in TEMPERED else None


def argmax_of_same(row: pd.Series, rows: pd.DataFrame) -> str | None:
    """Compare decisions with thresholds with argmax of the same loss."""
    return variant_name(*(row[field] for field in VARIANT)) if row["decision"] == "thresholds" else None


def same_of_all_examples(row: pd.Series, rows: pd.DataFrame) -> str | None:
    """Compare a loss of chosen examples with the same loss of all of them."""
    if not chooses(row):
        return None
    return variant_name(row["loss"], row["budget"], row["temperature"], decision=row["decision"])


def best_of_all_examples(row: pd.Series, rows: pd.DataFrame) -> str | None:
    """Compare a loss of chosen examples with the loss of all of them whose mean accuracy is highest."""
    if not chooses(row):
        return None
    others = rows[(rows["batch_size"] == row["batch_size"]) & ~chooses(rows)]
    return others.groupby("variant")["accuracy"].mean().idxmax() if len(others) else None


def chooses(rows: Any) -> Any:
    """Whether a row, or each of several, is of a loss that not all examples of a batch count for."""
    return (rows["trim"] < 1) | (rows["tail"] < 1)


_REACHED = {
    "best": "accuracy",
    "last": "last",
    "stopped": "stopped",
    "last validation": "last_validation",
    "worst class": "worst_class",
    "last worst class": "last_worst_class",
    "last tail loss": "last_test_tail_loss",
    "right labels kept": "last_kept_clean",
}


def reached(rows: pd.DataFrame) -> pd.DataFrame:
    """What each variant reaches at each batch size, mean over its seeds; a column that no run has is left out.

    It is empty for results in which the accuracy alone was measured.
    """
    columns = {name: column for name, column in _REACHED.items() if rows[column].notna().any()}
    if "worst class" not in columns:
        return pd.DataFrame()
    groups = rows.groupby(["batch_size", "variant"])
    table = groups[list(columns.values())].mean().set_axis(list(columns), axis=1)
    table.insert(0, "seeds", groups["seed"].nunique())
    return table.sort_values(["batch_size", "last"], ascending=[True, False]).reset_index()


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose accuracy is what is lost, for the same seed, from the smallest batch size to their own."""
    smallest = rows[rows["batch_size"] == rows["batch_size"].min()]
    both = rows.merge(smallest[["variant", "seed", "accuracy"]], on=["variant", "seed"], suffixes=("", "_smallest"))
    both = both[both["batch_size"] > rows["batch_size"].min()]
    return both.assign(accuracy=both["accuracy_smallest"] - both["accuracy"])


def at_common_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a setting with the learning rate of most runs at their batch size; of several, the middle one.

    Of a variant that was not run with it, those with the variant's own.
    """
    parts = []
    for _, of_size in rows.groupby("batch_size"):
        rate = _common_rate(of_size)
        for _, part in of_size.groupby("variant", sort=False):
            own = rate if (part["learning_rate"] == rate).any() else _common_rate(part)
            parts.append(part[part["learning_rate"] == own])
    return pd.concat(parts).sort_index()


def best_settings(
    rows: pd.DataFrame, of_each: list[str], tuned: list[str], measure: str, lowest: bool = False
) -> pd.DataFrame:
    """The rows of each variant with the settings whose mean of a measure of the validation rows is best.

    The mean is over the seeds that all of its settings have, or over all seeds where there are none.

    Args:
      rows: of all variants.
      of_each: the columns that tell variants from each other.
      tuned: the columns of the settings.
      measure: the column by which they are chosen.
      lowest: whether the lowest mean is best, and not the highest.
    """
    parts = []
    for _, part in rows.groupby(of_each, sort=False):
        validated = part.pivot_table(index="seed", columns=tuned, values=measure)
        common = validated.dropna()
        means = (validated if common.empty else common).mean()
        best = means.idxmin() if lowest else means.idxmax()
        values = best if isinstance(best, tuple) else (best,)
        alike = [part[name] == value for name, value in zip(tuned, values, strict=True)]
        parts.append(part[np.logical_and.reduce(alike)])
    return pd.concat(parts)


def _common_rate(rows: pd.DataFrame) -> float:
    counts = rows.groupby("learning_rate")["run"].nunique()
    rates = sorted(counts[counts == counts.max()].index)
    return rates[(len(rates) - 1) // 2]


def rate_search(rows: pd.DataFrame) -> pd.DataFrame:
    """The learning rates of the batch sizes and variants of a setting that were run with several.

    Returns:
      A row for each, with the mean validation accuracies by rate (`means`) over the `seeds` that all of the rates have,
      and the rate at which it is highest (`chosen`; NaN without validation, or without a seed that all rates have).
    """
    records = []
    for (batch_size, variant), cell in rows.groupby(["batch_size", "variant"], sort=False):
        by_seed = cell.pivot(index="learning_rate", columns="seed", values="validation").dropna(axis=1)
        if len(by_seed) > 1:
            means = by_seed.mean(axis=1)
            chosen = means.idxmax() if by_seed.size else np.nan
            records.append((batch_size, variant, tuple(by_seed.columns), means, chosen))
    return pd.DataFrame(records, columns=["batch_size", "variant", "seeds", "means", "chosen"])


def at_chosen_rates(rows: pd.DataFrame, search: pd.DataFrame) -> pd.DataFrame:
    """The rows of a setting whose learning rate is the one chosen for their batch size and variant.

    Only of the seeds of the search: the others have but one of the rates.
    """
    chosen = rows.merge(search.drop(columns="means"), on=["batch_size", "variant"])
    searched = np.array([seed in seeds for seed, seeds in zip(chosen["seed"], chosen["seeds"], strict=True)], bool)
    return chosen[searched & (chosen["learning_rate"] == chosen["chosen"])]
