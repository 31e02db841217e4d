import jax
import numpy as np
import optax
import pytest

import softbin
from softbin import budgets
from tests import exact

TARGETS = np.eye(3, dtype=np.float32)[[0, 2, 2, 1, 2]]
WEIGHTS = np.float32([1, 1, 0, 0.5, 2])
SHARES = [budgets.fraction(0.5), budgets.prior(np.array([0.0, 0.5, 1.0]))]


@jax.jit
def of_batch(targets, weights):
    return [budget(targets, weights) for budget in (*SHARES, budgets.label_count)]


def test_budgets_are_shares_of_what_counts_or_count_labels():
    half, by_class, labels = of_batch(TARGETS, WEIGHTS)
    np.testing.assert_allclose(half, 2.25)
    np.testing.assert_allclose(by_class, [0, 2.25, 4.5])
    np.testing.assert_allclose(labels, [1, 0.5, 3])


def test_budget_of_a_batch_is_the_sum_over_its_parts():
    parts = of_batch(TARGETS[:2], WEIGHTS[:2]), of_batch(TARGETS[2:], WEIGHTS[2:])
    for first, second, whole in zip(*parts, of_batch(TARGETS, WEIGHTS), strict=True):
        np.testing.assert_allclose(np.asarray(first) + np.asarray(second), whole, rtol=1e-6)


def test_shares_need_no_labels():
    without = jax.jit(lambda weights: [budget(None, weights) for budget in SHARES])(WEIGHTS)
    for found, expected in zip(without, of_batch(TARGETS, WEIGHTS)[:2], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_label_count_needs_labels():
    with pytest.raises(ValueError, match="label_count counts targets, got None"):
        jax.eval_shape(lambda weights: budgets.label_count(None, weights), WEIGHTS)


def test_shares_of_groups_are_a_k():
    """With what is known and traced, and no warning of JAX's, which would read the shape of a list."""
    scores = np.arange(24, dtype=np.float32).reshape(3, 8) % 7
    shares, counts = np.float32([0.25, 0.5, 0.75]), [2, 4, 6]
    functions = (softbin.soft_binary_argmax, softbin.binary_argmax, softbin.top_k_mean)
    known = budgets.prior(shares)

    @jax.jit
    def run(scores, shares):
        return [[choose(scores, each) for choose in functions] for each in (known, budgets.prior(shares))]

    pairs = [*zip(scores, counts, strict=True)]
    chosen = np.argsort(np.argsort(-scores, 1, kind="stable"), 1) < np.array(counts)[:, None]
    for soft, hard, mean in run(scores, shares):
        np.testing.assert_allclose(soft, [exact.euclidean(x, k).y for x, k in pairs], atol=1e-6)
        np.testing.assert_array_equal(hard, chosen)
        np.testing.assert_allclose(mean, [np.sort(x)[-k:].mean() for x, k in pairs], rtol=1e-6)


def test_equal_budgets_are_equal_and_hashable():
    assert budgets.fraction(0.5) == budgets.fraction(0.5)
    assert hash(budgets.prior([0.1, 0.9])) == hash(budgets.prior((0.1, 0.9)))


def test_budgets_show_how_to_make_them():
    assert repr(budgets.fraction(0.5)) == "softbin.budgets.fraction(0.5)"
    assert repr(budgets.prior(np.array([0.25, 0.75]))) == "softbin.budgets.prior([0.25, 0.75])"


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
        (
            TypeError,
            r"got <function .*>: for a schedule, pass what it gives",
            budgets.fraction,
            optax.constant_schedule(1),
        ),
    ],
)
def test_what_is_no_share_is_named(error, message, make, shares, no_shape_checks):
    with pytest.raises(error, match=message):
        make(shares)


# Shares that are only known at run time

LOGITS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
LABELS = np.array([0, 2, 2, 1, 2])


@jax.jit
def loss_of_traced(share, shares):
    def loss(share, shares):
        by_fraction = softbin.loss(LOGITS, LABELS, budget=budgets.fraction(share))
        return by_fraction + softbin.loss(LOGITS, LABELS, budget=budgets.prior(shares))

    return jax.value_and_grad(loss, (0, 1))(share, shares)


def test_traced_shares_are_those_that_are_known():
    value, gradients = loss_of_traced(0.3, np.float32([0.2, 0.3, 0.5]))
    known = budgets.fraction(0.3), budgets.prior([0.2, 0.3, 0.5])
    expected = sum(float(softbin.loss(LOGITS, LABELS, budget=budget)) for budget in known)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert all(np.all(np.isfinite(gradient)) and np.any(gradient) for gradient in map(np.asarray, gradients))


@pytest.mark.parametrize(("share", "last"), [(1.1, 0.5), (-0.1, 0.5), (0.3, 1.1), (0.3, -0.1), (np.nan, 0.5)])
def test_traced_shares_out_of_range_give_nan(share, last):
    assert np.isnan(loss_of_traced(share, np.float32([0.2, 0.3, last]))[0])


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
        jax.eval_shape(lambda shares: make(shares)(None, WEIGHTS), jax.ShapeDtypeStruct((2, 2), np.float32))
