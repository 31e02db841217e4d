import re

import numpy as np
import pytest
from scipy import special

from softbin.experiments.reports import comparisons, paper, run_table, text

# Table 1 of arXiv:2602.23336: batch size, cross-entropy, HyperSimplex, difference, t, p (0.01 stands for "<0.01").
PUBLISHED = {
    "cifar10": [
        (128, 0.8885, 0.8917, 0.0032, 2.29, 0.084),
        (256, 0.8843, 0.8874, 0.0030, 3.47, 0.026),
        (512, 0.8807, 0.8857, 0.0050, 6.08, 0.01),
        (1024, 0.8776, 0.8821, 0.0045, 9.78, 0.01),
        (2048, 0.8725, 0.8791, 0.0066, 7.81, 0.01),
        (4096, 0.8659, 0.8750, 0.0090, 13.14, 0.01),
        (8192, 0.8541, 0.8648, 0.0108, 8.52, 0.01),
    ],
    "fashion_mnist": [
        (128, 0.9456, 0.9467, 0.0011, 1.31, 0.262),
        (256, 0.9434, 0.9473, 0.0040, 4.34, 0.012),
        (512, 0.9436, 0.9469, 0.0033, 5.51, 0.01),
        (1024, 0.9413, 0.9453, 0.0040, 6.67, 0.01),
        (2048, 0.9388, 0.9446, 0.0058, 12.97, 0.01),
        (4096, 0.9371, 0.9439, 0.0069, 9.68, 0.01),
        (8192, 0.9338, 0.9415, 0.0077, 14.99, 0.01),
    ],
}
ROWS = [(dataset, *row) for dataset, rows in PUBLISHED.items() for row in rows]


@pytest.fixture(scope="module")
def runs():
    return run_table.read_results("paper")


@pytest.fixture(scope="module")
def tables(runs):
    return {part["dataset"].iloc[0]: part for part in comparisons.by_setting(comparisons.decisions(runs.table))}


def accuracies(runs, dataset, loss, batch_size):
    table = runs.table
    cell = table[(table["dataset"] == dataset) & (table["loss"] == loss) & (table["batch_size"] == batch_size)]
    return cell.sort_values("seed")["max_test_accuracy"].to_numpy(float)


def test_the_runs_are_those_of_the_protocol(runs):
    table = runs.table
    assert len(table) == 280
    groups = table.groupby(["dataset", "loss", "batch_size"])["seed"].apply(lambda seeds: tuple(sorted(seeds)))
    assert set(groups) == {paper.SEEDS}
    assert set(groups.index) == {(d, loss, b) for d in PUBLISHED for loss in paper.LOSSES for b in paper.BATCH_SIZES}


def test_the_curves_are_those_of_the_runs(runs):
    curves = runs.curves.groupby("run")["test_accuracy"]
    table = runs.table.set_index("run")
    assert (curves.count() == 600).all()
    np.testing.assert_allclose(curves.max()[table.index], table["max_test_accuracy"].astype(float), atol=1e-9)
    np.testing.assert_allclose(curves.last()[table.index], table["last_test_accuracy"].astype(float), atol=1e-9)
    first_maximum = curves.apply(lambda curve: 1 + int(np.argmax(curve)))
    assert first_maximum[table.index].tolist() == table["epoch_of_max"].tolist()


@pytest.mark.parametrize(("dataset", "batch_size", "baseline", "mean", "difference", "t", "p"), ROWS)
def test_table_1_is_the_published_one(tables, dataset, batch_size, baseline, mean, difference, t, p):
    lines = text.table_1(tables[dataset]).splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {batch_size:,} |"))
    shown = [float(value) for value in re.findall(r"[-+]?\d+\.\d+", line.split("|", 2)[2])]
    np.testing.assert_allclose(shown[:3], (baseline, mean, difference), atol=1.01e-4)
    assert shown[3] == pytest.approx(t, abs=0.0101)
    assert shown[4] < p if p == 0.01 else shown[4] == pytest.approx(p, abs=0.00101)


@pytest.mark.parametrize(("dataset", "batch_size"), [row[:2] for row in ROWS])
def test_table_1_is_the_textbook_formula(runs, tables, dataset, batch_size):
    rows = tables[dataset]
    table = comparisons.comparison_table(rows, comparisons.cross_entropy)
    (row,) = table[(table["loss"] == "hypersimplex") & (table["batch_size"] == batch_size)].itertuples()
    ours, theirs = (accuracies(runs, dataset, loss, batch_size) for loss in ("hypersimplex", "cross_entropy"))
    difference = ours - theirs
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(5))
    p = 2 * special.stdtr(4, -abs(t))
    expected = (ours.mean(), theirs.mean(), difference.mean(), t, p)
    np.testing.assert_allclose((row.mean, row.baseline_mean, row.difference, row.t, row.p), expected, rtol=1e-9)
    assert row.pairs == row.seeds == 5


def test_significance_at_the_papers_level_is_as_published(tables):
    counts = [re.search(r"in (\d) of 7 rows", text.table_1(tables[dataset]))[1] for dataset in PUBLISHED]
    assert counts == ["7", "6"]


def test_nothing_differs_from_the_protocol(runs):
    assert text.departures(runs.table) == "Nothing in the configs differs from the paper's protocol."
