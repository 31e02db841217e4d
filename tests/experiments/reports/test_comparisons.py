import numpy as np
import pandas as pd
import pytest
from scipy import special

from softbin.experiments.reports import comparisons


def by_seed(*accuracies, seeds=None):
    return pd.Series(accuracies, index=range(len(accuracies)) if seeds is None else seeds)


def test_only_seeds_that_both_have_are_paired():
    values = by_seed(0.90, 0.80, 0.72, 0.99, seeds=[0, 1, 2, 7])
    baseline = by_seed(0.70, 0.75, 0.89, 0.10, seeds=[2, 1, 0, 5])
    found = comparisons.paired_test(values, baseline)
    difference = np.array([0.01, 0.05, 0.02])
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(3))
    assert found["pairs"] == 3
    np.testing.assert_allclose(found["difference"], difference.mean())
    np.testing.assert_allclose(found["t"], t)
    np.testing.assert_allclose(found["p"], 2 * special.stdtr(2, -t))


@pytest.mark.parametrize(
    ("values", "baseline", "pairs", "difference"),
    [
        (by_seed(0.9), by_seed(0.8), 1, 0.1),
        (by_seed(0.9, 0.8), by_seed(0.8, seeds=[1]), 1, 0.0),
        (by_seed(0.9, 0.8), by_seed(0.8, 0.9, seeds=[2, 3]), 0, np.nan),
        (by_seed(0.9, 0.8, 0.7), by_seed(0.8, 0.7, 0.6), 3, 0.1),
    ],
    ids=["one seed", "one seed in common", "no seed in common", "equal differences"],
)
def test_there_is_no_test_without_two_seeds_and_a_spread(values, baseline, pairs, difference):
    found = comparisons.paired_test(values, baseline)
    assert found["pairs"] == pairs
    np.testing.assert_allclose(found["difference"], difference)
    assert np.isnan(found["t"])
    assert np.isnan(found["p"])


def test_holm_multiplies_the_smallest_by_most_and_never_decreases():
    p = pd.Series([0.04, np.nan, 0.01, 0.03, 0.9])
    np.testing.assert_allclose(comparisons.holm(p), [0.09, np.nan, 0.04, 0.09, 0.9])
    np.testing.assert_allclose(comparisons.holm(pd.Series([0.5, 0.6])), [1, 1])


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (("cross_entropy", "", 1.5), "cross_entropy"),
        (("scaled_mse", "", 5.0), "scaled_mse (τ = 5)"),
        (("hypersimplex", "0.5", 1.5), "hypersimplex (k = n/2, τ = 1.5)"),
        (("hypersimplex", "0.1", 1.5), "hypersimplex (k = 0.1 n, τ = 1.5)"),
        (("cross_entropy", "", 1.5, 0.6), "cross_entropy (smallest 0.6 n)"),
        (("scaled_mse", "", 5.0, 0.6, 0.5), "scaled_mse (τ = 5, smallest 0.6 n warm-up 0.5)"),
        (("mse", "", 5.0, 0.6, 0.2, "scaled_squares"), "mse (τ = 5, smallest 0.6 n by scaled_squares)"),
        (("mse", "0.5", 5.0, 0.6, 0.2, "projection"), "mse (k = n/2, τ = 5, smallest 0.6 n by projection)"),
        (("mse", "", 5.0, 0.6, 0.2, "", True), "mse (smallest 0.6 n of every class)"),
        (("mse", "", 5.0, 1.0, 0.5, "projection", True), "mse"),
        (("mse", "", 5.0, 1.0, 0.2, "", False, 0.1), "mse (largest 0.1 n)"),
    ],
)
def test_variants_are_named_after_what_matters_to_their_loss(variant, name):
    assert comparisons.variant_name(*variant) == name


def test_a_ranking_that_a_loss_has_anyhow_is_not_named():
    names = {comparisons.variant_name("hypersimplex", "0.5", 5.0, 0.6, 0.2, by) for by in ("", "projection")}
    assert names == {"hypersimplex (k = n/2, τ = 5, smallest 0.6 n)"}


def test_decisions_by_thresholds_are_named():
    name = comparisons.variant_name("fenchel_young", "label_count", 5.0, decision="thresholds")
    assert name == "fenchel_young (k = label counts, τ = 5), thresholds"


def rows(**columns):
    defaults = {"dataset": "digits", "variant": "a", "batch_size": 32, "seed": 0, "run": "r", "validation": np.nan}
    table = pd.DataFrame(columns)
    return table.assign(**{name: value for name, value in defaults.items() if name not in table})


def test_the_rate_is_chosen_by_mean_validation_accuracy_over_the_seeds_of_all_rates():
    table = rows(
        learning_rate=[0.1, 0.1, 0.1, 0.2, 0.2, 0.1],
        seed=[0, 1, 2, 0, 1, 0],
        validation=[0.9, 0.5, 0.9, 0.75, 0.7, 0.3],
        accuracy=[0.9, 0.9, 0.9, 0.1, 0.2, 0.5],
        variant=["a", "a", "a", "a", "a", "b"],
    )
    search = comparisons.rate_search(table)
    assert search[["variant", "seeds", "chosen"]].to_numpy().tolist() == [["a", (0, 1), 0.2]]
    np.testing.assert_allclose(search["means"][0], [0.7, 0.725])
    assert comparisons.at_chosen_rates(table, search)["accuracy"].tolist() == [0.1, 0.2]
    table.loc[3, "validation"] = 0.6
    search = comparisons.rate_search(table)
    assert comparisons.at_chosen_rates(table, search)["seed"].tolist() == [0, 1]


def test_no_rate_is_chosen_without_validation():
    table = rows(learning_rate=[0.1, 0.2], accuracy=[0.9, 0.8])
    search = comparisons.rate_search(table)
    assert search["chosen"].isna().all()
    assert comparisons.at_chosen_rates(table, search).empty


def test_the_common_rate_of_a_batch_size_has_most_runs_and_of_several_is_the_middle_one():
    table = rows(learning_rate=[0.1, 0.2, 0.2, 0.3, 0.1, 0.2], run=list("rstuvw"), batch_size=[32, 32, 32, 64, 64, 64])
    assert comparisons.at_common_rates(table)["run"].tolist() == ["s", "t", "w"]


def test_a_variant_that_was_not_run_with_the_common_rate_has_its_own():
    table = rows(
        learning_rate=[0.1, 0.1, 0.2, 0.3, 0.4, 0.4],
        run=list("rstuvw"),
        variant=["a", "b", "b", "c", "c", "c"],
        batch_size=[32, 32, 32, 32, 64, 64],
    )
    assert comparisons.at_common_rates(table)["run"].tolist() == ["r", "s", "u", "v", "w"]


CHOSEN = {"trim": 0.6, "trim_warmup": 0.2, "trim_by": "", "trim_per_class": False, "tail": 1.0}


def of_losses(**accuracies):
    """Rows of two seeds each; a name that ends in `_trimmed` is of a loss of the smallest 0.6 n."""
    parts = []
    for name, values in accuracies.items():
        loss = name.removesuffix("_trimmed")
        setting = {**CHOSEN, "trim": 0.6 if name.endswith("_trimmed") else 1.0}
        of_loss = {"loss": loss, "budget": "", "temperature": 1.5, "decision": "argmax", "last": 0.5, **setting}
        variant = comparisons.variant_name(loss, "", 1.5, setting["trim"])
        parts.append(rows(accuracy=values, seed=[0, 1]).assign(variant=variant, **of_loss))
    return pd.concat(parts, ignore_index=True)


def test_a_loss_of_chosen_examples_is_compared_with_the_best_and_with_the_same_of_all():
    table = of_losses(mse=[0.8, 0.7], hinge=[0.9, 0.9], mse_trimmed=[0.95, 0.94], hinge_trimmed=[0.97, 0.5])
    best = comparisons.comparison_table(table, comparisons.best_of_all_examples)
    assert best[["variant", "baseline"]].to_numpy().tolist() == [
        ["mse (smallest 0.6 n)", "hinge"],
        ["hinge (smallest 0.6 n)", "hinge"],
    ]
    np.testing.assert_allclose(best["difference"], [0.045, -0.165])
    same = comparisons.comparison_table(table, comparisons.same_of_all_examples)
    assert same["baseline"].tolist() == ["mse", "hinge"]
    np.testing.assert_allclose(same["difference"], [0.195, -0.165])


def test_the_best_of_all_examples_may_be_missing():
    table = comparisons.comparison_table(of_losses(mse_trimmed=[0.9, 0.8]), comparisons.best_of_all_examples)
    assert table["p"].isna().all()


def test_argmax_is_compared_where_it_is_a_rule_of_the_loss():
    losses = ["mse", "hypersimplex", "hypersimplex", "fenchel_young", "centred_scaled_mse"]
    budgets = ["", "0.5", "label_count", "prior", ""]
    both = [rows(loss=losses, budget=budgets, decision=decision) for decision in ("argmax", "thresholds")]
    assert comparisons.compared(both[0])[["loss", "budget"]].to_numpy().tolist() == [
        ["mse", ""],
        ["hypersimplex", "0.5"],
    ]
    assert len(comparisons.compared(both[1])) == len(losses)


def test_a_gap_is_lost_accuracy_by_seed():
    table = rows(batch_size=[32, 32, 64, 64, 128], seed=[0, 1, 0, 1, 2], accuracy=[0.9, 0.8, 0.85, 0.81, 0.5])
    found = comparisons.gaps(table)
    assert found["batch_size"].tolist() == [64, 64]
    np.testing.assert_allclose(found["accuracy"], [0.05, -0.01])
