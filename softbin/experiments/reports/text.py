"""The words and tables of a report, in Markdown."""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd

from softbin.experiments.reports import comparisons, paper
from softbin.experiments.reports.comparisons import ALPHA, variant_name
from softbin.experiments.reports.run_table import SETTING, VARIANT, Runs

NO_VALUE = "–"
_NOT_IN_A_CONFIG = """\
In no config: the paper's runs are PyTorch's, with its initial weights and random numbers; a seed here is not the same
run as that seed there."""
NO_TEST = "no test can be made; it takes both losses, two seeds that both have, and differences that vary."


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its first column is text, the others are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value, form: str = ".4f") -> str:
    """A number, or a dash where there is none."""
    return NO_VALUE if pd.isna(value) else format(value, form)


def probability(p) -> str:
    """Three decimals."""
    return "< 0.001" if p < 0.001 else number(p, ".3f")


def setting_names(settings: pd.DataFrame) -> list[str]:
    """A name for each row: its data set, its noise and imbalance, and the other fields in which the rows differ."""
    varied = [name for name in SETTING if settings[name].nunique(dropna=False) > 1]
    if settings.groupby(["dataset", "imbalance"])["train_examples"].nunique().max() == 1:
        varied = [name for name in varied if name != "train_examples"]  # the others say it
    return [_setting_name(setting, varied) for _, setting in settings.iterrows()]


def _setting_name(setting: pd.Series, varied: Sequence[str]) -> str:
    parts = [setting["dataset"]]
    if pd.notna(setting["label_noise"]) and setting["label_noise"] > 0:
        kind = "" if setting["noise_kind"] == "symmetric" else f"{setting['noise_kind']} "
        parts.append(f"{setting['label_noise']:.0%} {kind}label noise")
    if pd.notna(setting["imbalance"]) and setting["imbalance"] != 1:
        parts.append(f"imbalance {setting['imbalance']:g}")
    others = [name for name in varied if name not in ("dataset", "label_noise", "noise_kind", "imbalance")]
    return ", ".join([*parts, *(f"{name} {_shown(name, setting[name])}" for name in others)])


def _shown(field: str, value) -> str:
    if field == "hidden" and value == "":
        return "none"
    if pd.isna(value) or value == "":
        return "not recorded"
    if field == "train_examples" and value == 0:
        return "all"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return format(value, "" if field == "seed" else ",d")
    return format(value, "g") if isinstance(value, Real) else str(value)


def run_fields(table: pd.DataFrame, rows: Sequence[Sequence[str]]) -> str:
    """Rows of fields and their values, as a table with the number of runs and their dates."""
    dates = sorted({date[:10] for date in table["date"]} - {""})
    date = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else NO_VALUE
    rows = [["runs", f"{len(table):,}"], *rows, ["date", date]]
    return markdown(["field", "values"], rows).replace("---:", "---")


def field_values(table: pd.DataFrame, names: Iterable[str]) -> list[list[str]]:
    """Each field with all its values."""
    return [[name, _values(name, table[name])] for name in names]


def _values(field: str, values: pd.Series) -> str:
    found = sorted(value for value in values.dropna().unique() if value != "")
    return ", ".join(_shown(field, value) for value in found) or NO_VALUE


def departures(table: pd.DataFrame) -> str:
    """What differs from the paper's protocol, field by field, computed from the runs."""
    rows = []

    def compare(name: str, published: Iterable, found: Iterable) -> None:
        published, found = list(published), list(found)
        if set(found) != set(published):
            lists = [", ".join(_shown(name, value) for value in values) for values in (published, found)]
            rows.append([name, *(values or NO_VALUE for values in lists)])

    compare("dataset", paper.TRAIN_EXAMPLES, _found(table["dataset"]))
    whole = table["train_examples"] == table["dataset"].map(paper.TRAIN_EXAMPLES)
    compare("train_examples", [0], _found(table["train_examples"].mask(whole.fillna(False), 0)))
    for name, value in paper.PROTOCOL.items():
        compare(name, [value], _found(table[name]))
    compare("batch_size", paper.BATCH_SIZES, _found(table["batch_size"]))
    compare("seed", paper.SEEDS, _found(table["seed"]))
    published = {variant_name(loss, paper.BUDGET, paper.TEMPERATURE) for loss in paper.LOSSES}
    found = {variant_name(*row) for row in table[list(VARIANT)].drop_duplicates().itertuples(index=False)}
    compare("variants that the other has not", sorted(published - found), sorted(found - published))
    if not rows:
        return "Nothing in the configs differs from the paper's protocol."
    return markdown(["field", "the paper's", "here"], rows).replace("---:", "---") + f"\n\n{_NOT_IN_A_CONFIG}"


def _found(values: pd.Series) -> list:
    return sorted(values.dropna().unique())


def rates(rows: pd.DataFrame) -> str:
    """The learning rate of a setting, or that of each batch size and of the variants that have another."""
    of_size = rows.groupby("batch_size")["learning_rate"].agg(lambda rates: rates.mode().iloc[0])
    parts = [f"{rate:g} at batch {size:,}" for size, rate in of_size.items()]
    if of_size.nunique() == 1:
        parts = [f"{of_size.iloc[0]:g}"]
    others = rows[rows["learning_rate"] != rows["batch_size"].map(of_size)]
    for (size, rate), part in others.groupby(["batch_size", "learning_rate"]):
        place = f" at batch {size:,}" if len(of_size) > 1 else ""
        parts.append(f"{rate:g}{place} for {', '.join(part['variant'].unique())}")
    return "; ".join(parts) if len(others) else ", ".join(parts)


def reached(table: pd.DataFrame) -> str:
    """What each variant reaches, as of `comparisons.reached`."""
    measured = list(table.columns[3:])
    rows = table.to_dict("records")
    return markdown(
        ["variant", "batch", "seeds", *measured],
        [
            [row["variant"], f"{row['batch_size']:,}", f"{row['seeds']}", *(number(row[name]) for name in measured)]
            for row in rows
        ],
    )


def table_1(rows: pd.DataFrame) -> str:
    """The paper's Table 1 for one setting: cross-entropy against the HyperSimplex loss of the published runs."""
    variant = variant_name("hypersimplex", paper.BUDGET, paper.TEMPERATURE)
    rows = rows[rows["variant"].isin([variant, "cross_entropy"])]
    table = comparisons.comparison_table(rows, comparisons.cross_entropy).dropna(subset="baseline")
    if table.empty:
        return f"There is none: cross_entropy and {variant} were not both run at a batch size."
    rows = [
        [
            f"{row.batch_size:,}",
            number(row.baseline_mean),
            number(row.mean),
            number(row.difference, "+.4f"),
            number(row.t, ".2f"),
            probability(row.p),
            number(row.pairs, ".0f"),
        ]
        for row in table.sort_values("batch_size").itertuples()
    ]
    below = (table["p"] < paper.LEVEL).sum()
    return (
        markdown(["batch", "cross_entropy", "hypersimplex", "Δ", "t", "p", "seeds"], rows)
        + f"\n\np is not corrected, as in the paper. It is below the paper's level of {paper.LEVEL} in {below} of "
        f"{len(table)} rows."
    )


def comparison(table: pd.DataFrame, summary: Sequence[str] = ("mean", "sd", "last")) -> str:
    """A comparison table, by batch size and then by mean; the first three of its columns under the names given."""
    table = table.sort_values(["batch_size", "mean"], ascending=[True, False])
    return markdown(
        ["variant", "batch", "seeds", *summary, "baseline", "Δ", "pairs", "t", "p", "p (Holm)"],
        [
            [
                row.variant,
                f"{row.batch_size:,}",
                str(row.seeds),
                *(number(value) for value in (row.mean, row.sd, row.last)[: len(summary)]),
                number(row.baseline_mean),
                number(row.difference, "+.4f"),
                number(row.pairs, ".0f"),
                number(row.t, ".2f"),
                probability(row.p),
                corrected_probability(row.p_holm),
            ]
            for row in table.itertuples()
        ],
    )


def corrected_probability(p) -> str:
    """Three decimals, bold where it is significant."""
    return f"**{probability(p)}**" if p < ALPHA else probability(p)


def search(table: pd.DataFrame) -> str:
    """The learning rates that were tried, and the ones chosen."""
    rates = sorted({rate for means in table["means"] for rate in means.index})
    return markdown(
        ["variant", "batch", "seeds", *(f"{rate:g}" for rate in rates), "chosen"],
        [
            [
                row.variant,
                f"{row.batch_size:,}",
                f"{len(row.seeds)}",
                *(number(row.means.get(rate)) for rate in rates),
                number(row.chosen, "g") + (" (at the edge)" if row.chosen in row.means.index[[0, -1]] else ""),
            ]
            for row in table.sort_values(["batch_size", "variant"]).itertuples()
        ],
    )


def headlines(tables: Sequence[pd.DataFrame], question: str) -> list[str]:
    """How many of a question's tests find a difference, in all its tables, with and without a projection."""
    together = pd.concat(tables).dropna(subset="baseline")
    projected = together["loss"].isin(comparisons.PROJECTED)
    if projected.all() or not projected.any():
        return [f"{question}: {_counts(together)}"]
    kinds = {"a loss with a projection": together[projected], "a loss without one": together[~projected]}
    return [f"{question}, {kind}: {_counts(part)}" for kind, part in kinds.items() if len(part)]


def _counts(table: pd.DataFrame) -> str:
    tests, significant = table["p_holm"].notna().sum(), table[table["p_holm"] < ALPHA]
    if not tests:
        return NO_TEST
    if significant.empty:
        return f"significant in none of {tests} tests." if tests > 1 else "not significant in the only test."
    directions = {"higher": significant["difference"] > 0, "lower": significant["difference"] < 0}
    parts = [
        f"{name} in {is_so.sum()}, by {_range(significant.loc[is_so, 'difference'])}"
        for name, is_so in directions.items()
        if is_so.any()
    ]
    return f"significant in {len(significant)} of {tests} tests; {' and '.join(parts)}."


def _range(differences: pd.Series) -> str:
    ends = [f"{end:.4f}" for end in (differences.abs().min(), differences.abs().max())]
    return " to ".join(dict.fromkeys(ends))


def findings(table: pd.DataFrame, setting: str, question: str, when: str) -> list[str]:
    """A sentence for each variant and direction in which a difference is significant, over its batch sizes.

    Where no difference is, or where there is no test, one sentence says so.
    """
    tests = table["p_holm"].notna().sum()
    if not tests:
        return [f"{setting}, {question}: {NO_TEST}"]
    significant = table[table["p_holm"] < ALPHA].sort_values("batch_size")
    if significant.empty:
        smallest = table["p"].min()
        return [
            f"{setting}, {question}: no difference is significant (tests: {tests}; smallest p {probability(smallest)} "
            f"before and {probability(table['p_holm'].min())} after the correction)."
        ]
    groups = significant.groupby(["variant", "baseline", significant["difference"] > 0], sort=False)
    return [_finding(setting, when, part) for _, part in groups]


def _finding(setting: str, when: str, part: pd.DataFrame) -> str:
    first, largest_p = part.iloc[0], part["p_holm"].max()
    sizes = ", ".join(f"{size:,}" for size in part["batch_size"])
    pairs = ", ".join(f"{n:.0f}" for n in sorted(part["pairs"].unique()))
    p = "p < 0.001" if largest_p < 0.001 else f"p {'=' if len(part) == 1 else '≤'} {largest_p:.3f}"
    word = "higher" if first["difference"] > 0 else "lower"
    return (
        f"{setting}, batch {sizes}{when}: {first['variant']} is {word} than {first['baseline']} by "
        f"{_range(part['difference'])} (paired t, n = {pairs}, Holm-corrected {p})."
    )


def left_out(runs: Runs, repeats: Sequence[str]) -> list[str]:
    """Which runs failed, are not finished, or stand in no table."""
    result = []
    if runs.failed:
        result += [
            "Failed:",
            "\n".join(f"- {failure['run']}: {failure['error'].splitlines()[0]}" for failure in runs.failed),
        ]
    if runs.unfinished:
        result.append(f"Not finished, and left out: {', '.join(runs.unfinished)}.")
    if repeats:
        result.append(f"In no table, as another run has the same setting, variant and seed: {', '.join(repeats)}.")
    return result
