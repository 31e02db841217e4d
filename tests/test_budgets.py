import jax.numpy as jnp
import numpy as np
import pytest

from softbin import budgets

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
