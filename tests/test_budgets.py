import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin import budgets
from softbin.adapters import gbdt

TARGETS = jnp.eye(3)[jnp.array([0, 2, 2, 1, 2])]
WEIGHTS = jnp.array([1.0, 1.0, 0.0, 0.5, 2.0])
ALL = [budgets.fraction(0.3), budgets.prior([0.25, 0.5, 1.0]), budgets.label_count]


def test_fraction_is_a_share_of_what_counts():
    np.testing.assert_allclose(budgets.fraction(0.5)(TARGETS, WEIGHTS), 2.25)


def test_prior_is_a_share_per_class():
    np.testing.assert_allclose(budgets.prior(np.array([0.0, 0.5, 1.0]))(TARGETS, WEIGHTS), [0, 2.25, 4.5])


def test_label_count_counts_what_counts():
    np.testing.assert_allclose(budgets.label_count(TARGETS, WEIGHTS), [1, 0.5, 3])


@pytest.mark.parametrize("budget", ALL)
def test_budget_of_a_batch_is_the_sum_over_its_parts(budget):
    parts = budget(TARGETS[:2], WEIGHTS[:2]) + budget(TARGETS[2:], WEIGHTS[2:])
    np.testing.assert_allclose(parts, budget(TARGETS, WEIGHTS), rtol=1e-6)


@pytest.mark.parametrize("budget", ALL[:2])
def test_shares_need_no_labels(budget):
    np.testing.assert_array_equal(budget(None, WEIGHTS), budget(TARGETS, WEIGHTS))


def test_label_count_needs_labels():
    with pytest.raises(ValueError, match="counts labels, and none were given"):
        budgets.label_count(None, WEIGHTS)


def test_equal_budgets_are_equal_and_hashable():
    assert budgets.fraction(0.5) == budgets.fraction(0.5)
    assert hash(budgets.prior([0.1, 0.9])) == hash(budgets.prior((0.1, 0.9)))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_outside_the_unit_interval_is_named(share):
    for make in (budgets.fraction, lambda share: budgets.prior([0.5, share])):
        with pytest.raises(ValueError, match=rf"must be in \[0, 1\], got .*{share}"):
            make(share)


def test_traced_shares_count_and_show_when_they_are_none():
    counts = jax.jit(
        lambda share: (budgets.fraction(share)(None, WEIGHTS), budgets.prior([share, share])(None, WEIGHTS))
    )
    np.testing.assert_allclose(counts(0.5)[0], 2.25)
    np.testing.assert_allclose(counts(0.5)[1], [2.25, 2.25])
    assert np.all(np.isnan(counts(1.5)[0]))


def test_a_schedule_drives_the_budget_of_a_loss():
    logits, labels = jnp.linspace(-1, 1, 8), jnp.arange(8) % 2 > 0
    scheduled = jax.jit(lambda share: softbin.loss(logits, labels, budget=budgets.fraction(share)))
    np.testing.assert_allclose(scheduled(0.25), softbin.loss(logits, labels, budget=2.0), rtol=1e-6)


@pytest.mark.parametrize("make", [budgets.fraction, budgets.prior])
def test_number_and_array_of_shares_are_told_apart(make, no_shape_checks):
    wrong, other = ([0.5, 0.5], "prior") if make is budgets.fraction else (0.5, "fraction")
    with pytest.raises(ValueError, match=f"every class.*use {other}"):
        make(wrong)


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        (0.5, ValueError, r"less than one example.*pass softbin.budgets.fraction\(0.5\)"),
        (np.array([0.25, 0.75]), ValueError, r"less than one example.*pass softbin.budgets.prior\(\[0.25, 0.75\]\)"),
        ("label_count", TypeError, "such as softbin.budgets.label_count, got 'label_count'"),
        (None, TypeError, "such as softbin.budgets.label_count, got None"),
    ],
    ids=str,
)
def test_what_is_no_budget_is_refused_with_a_remedy(budget, error, message, no_shape_checks):
    logits, labels = np.eye(3, 2, dtype=np.float32), np.array([0, 1, 0])
    for use in (
        lambda: softbin.loss(logits, labels, budget=budget),
        lambda: softbin.decision_thresholds(logits, labels, budget=budget, temperature=1.0),
        lambda: gbdt.xgboost_objective(budget=budget),
    ):
        with pytest.raises(error, match=message):
            use()


def test_repr_is_how_to_make_it():
    assert repr(budgets.fraction(0.5)) == "softbin.budgets.fraction(0.5)"
    assert repr(budgets.prior([0.25, 0.75])) == "softbin.budgets.prior((0.25, 0.75))"
