import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import softbin
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
    with pytest.raises(ValueError, match="label_count counts targets, got None"):
        budgets.label_count(None, WEIGHTS)


def test_shares_of_groups_are_a_k():
    """With what is known and traced, and no warning of JAX's, which would read the shape of a list."""
    scores, shares, counts = jnp.arange(24.0).reshape(3, 8) % 7, np.float32([0.25, 0.5, 0.75]), jnp.array([2, 4, 6])
    for choose in (softbin.soft_binary_argmax, softbin.binary_argmax, softbin.top_k_mean):
        expected = choose(scores, counts)
        np.testing.assert_array_equal(choose(scores, budgets.prior(shares)), expected)
        np.testing.assert_array_equal(jax.jit(lambda s, f=choose: f(scores, budgets.prior(s)))(shares), expected)


def test_equal_budgets_are_equal_and_hashable():
    assert budgets.fraction(0.5) == budgets.fraction(0.5)
    assert hash(budgets.prior([0.1, 0.9])) == hash(budgets.prior((0.1, 0.9)))


def test_budgets_show_how_to_make_them():
    assert repr(budgets.fraction(0.5)) == "softbin.budgets.fraction(0.5)"
    assert repr(budgets.prior(jnp.array([0.25, 0.75]))) == "softbin.budgets.prior([0.25, 0.75])"


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_outside_the_unit_interval_is_named(share):
    for make in (budgets.fraction, lambda share: budgets.prior([0.5, share])):
        with pytest.raises(ValueError, match=rf"in \[0, 1\], got .*{share}"):
            make(share)


@pytest.mark.parametrize(
    ("error", "message", "make", "shares"),
    [
        (TypeError, r"must be a number in \[0, 1\], got '0.5'", budgets.fraction, "0.5"),
        (TypeError, r"must be a number in \[0, 1\], got None", budgets.fraction, None),
        (ValueError, r"one share for every class, got \[0.5, 0.2\]: use .*prior", budgets.fraction, [0.5, 0.2]),
        (ValueError, r"a share for each class, got 0.5: softbin.budgets.fraction\(0.5\)", budgets.prior, 0.5),
        (ValueError, r"a vector of shares, .* got the shape \(1, 2\)", budgets.prior, [[0.5, 0.5]]),
        (TypeError, r"must be numbers in \[0, 1\], got 'label_count'", budgets.prior, "label_count"),
    ],
)
def test_what_is_no_share_is_named(error, message, make, shares, no_shape_checks):
    with pytest.raises(error, match=message):
        make(shares)


# Shares that are only known at run time

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
LABELS = jnp.array([0, 2, 2, 1, 2])


@jax.jit
def loss_of_traced(share, shares):
    def loss(share, shares):
        by_fraction = softbin.loss(LOGITS, LABELS, budget=budgets.fraction(share))
        return by_fraction + softbin.loss(LOGITS, LABELS, budget=budgets.prior(shares))

    return jax.value_and_grad(loss, (0, 1))(share, shares)


def test_traced_shares_are_those_that_are_known():
    value, gradients = loss_of_traced(0.3, jnp.array([0.2, 0.3, 0.5]))
    known = [softbin.loss(LOGITS, LABELS, budget=b) for b in (budgets.fraction(0.3), budgets.prior([0.2, 0.3, 0.5]))]
    np.testing.assert_allclose(value, sum(known), rtol=1e-6)
    assert all(np.all(np.isfinite(gradient)) and np.any(gradient != 0) for gradient in gradients)


@pytest.mark.parametrize(("share", "last"), [(1.1, 0.5), (-0.1, 0.5), (0.3, 1.1), (0.3, -0.1), (np.nan, 0.5)])
def test_traced_shares_out_of_range_give_nan(share, last):
    assert np.isnan(loss_of_traced(share, jnp.array([0.2, 0.3, last]))[0])


def test_a_schedule_drives_a_share():
    schedule = optax.linear_schedule(1.0, 0.5, 10)
    thresholds = jax.jit(
        lambda step: softbin.decision_thresholds(LOGITS, budget=budgets.fraction(schedule(step)), temperature=1.5)
    )
    for step, share in ((0, 1.0), (5, 0.75), (10, 0.5)):
        expected = softbin.decision_thresholds(LOGITS, budget=budgets.fraction(share), temperature=1.5)
        np.testing.assert_allclose(thresholds(step), expected, rtol=1e-6)


@pytest.mark.parametrize("make", [budgets.fraction, budgets.prior])
def test_traced_shares_of_a_wrong_shape_are_named(make, no_shape_checks):
    with pytest.raises(ValueError, match="prior"):
        jax.eval_shape(lambda shares: make(shares)(None, WEIGHTS), jnp.ones((2, 2)) / 2)
