from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import softbin
from softbin import budgets
from tests import exact
from tests.compiling import AS_USERS_DO
from tests.derivatives import check_derivatives
from tests.hard_cases import REGULARIZERS

RNG = np.random.default_rng(0)
N, C = 12, 3
LOGITS = (2 * RNG.standard_normal((N, C))).astype(np.float32)
LABELS = RNG.integers(0, C, N)
ONE_HOT = np.eye(C, dtype=np.float32)[LABELS]
WHERE = RNG.uniform(size=N) < 0.6
STATIC = ("budget", "regularizer", "axis_name")


def _value_and_grad(function, *args, **keywords):
    return jax.value_and_grad(function)(*args, **keywords)


_compiled = jax.jit(_value_and_grad, static_argnums=0, static_argnames=STATIC)
_compiled_exactly = jax.jit(  # to the numerical contract
    _value_and_grad, static_argnums=0, static_argnames=STATIC, compiler_options=AS_USERS_DO
)


def value_and_grad(*args, **keywords):
    return jax.tree.map(np.asarray, _compiled(*args, **keywords))


def exact_value_and_grad(function, logits, budget, temperature, regularizer=softbin.euclidean):
    """Of few programs, since these take a second each."""
    keywords = {"budget": budget, "temperature": temperature, "regularizer": regularizer}
    return jax.tree.map(np.asarray, _compiled_exactly(function, logits, LABELS, **keywords))


HALF, COUNT = budgets.fraction(0.5), budgets.label_count
LOSS, FENCHEL_YOUNG = softbin.loss, softbin.fenchel_young_loss
EUCLIDEAN, ENTROPY = REGULARIZERS.values()

each_loss = pytest.mark.parametrize("function", [LOSS, FENCHEL_YOUNG])
each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
# Each of the losses with its default, or with the other budget; and every pair of a loss, a budget and a regularizer.
by_default = pytest.mark.parametrize(("function", "budget"), [(LOSS, HALF), (FENCHEL_YOUNG, COUNT)])
by_the_other = pytest.mark.parametrize(("function", "budget"), [(LOSS, COUNT), (FENCHEL_YOUNG, HALF)])
each_pair = pytest.mark.parametrize(
    ("function", "budget", "regularizer"),
    [
        (LOSS, HALF, EUCLIDEAN),
        (LOSS, COUNT, ENTROPY),
        (FENCHEL_YOUNG, HALF, ENTROPY),
        (FENCHEL_YOUNG, COUNT, EUCLIDEAN),
    ],
)


def projected(k, temperature):
    return np.stack([exact.euclidean(LOGITS[:, c], k[c], np.float32(temperature)).y for c in range(C)], axis=1)


# Values and gradients by formula


@pytest.mark.parametrize(("budget", "k"), [(budgets.fraction(0.5), [N / 2] * C), (budgets.label_count, ONE_HOT.sum(0))])
def test_loss_is_the_squared_error_of_the_projection(budget, k):
    error = projected(k, 1.5) - ONE_HOT
    value, gradient = exact_value_and_grad(LOSS, LOGITS, budget, 1.5)
    np.testing.assert_allclose(value, np.sum(error**2) / (2 * N), rtol=1e-6)
    active = np.abs(projected(k, 1.5) - 0.5) < 0.5
    mean = np.sum(error * active, axis=0) / active.sum(0)
    np.testing.assert_allclose(gradient, active * (error - mean) / (1.5 * N), atol=1e-7)


@pytest.mark.parametrize("budget", [5, 5.5, 1.0, 0.0, np.array([2.0, 5.0, 5.5]), np.array([0.0, 0.5, 5.5])])
def test_budget_may_be_a_number_or_an_array(budget):
    error = projected(np.broadcast_to(budget, C), 1.5) - ONE_HOT
    np.testing.assert_allclose(softbin.loss(LOGITS, LABELS, budget=budget), np.sum(error**2) / (2 * N), rtol=1e-6)


def test_fenchel_young_value_is_the_difference_to_the_maximum():
    k, temperature = ONE_HOT.sum(0), 1.3
    p = projected(k, temperature)
    scores = LOGITS.astype(np.float64) / np.float32(temperature)
    gap = np.sum(scores * p - p**2 / 2) - np.sum(scores * ONE_HOT - ONE_HOT**2 / 2)
    value, _ = exact_value_and_grad(FENCHEL_YOUNG, LOGITS, COUNT, temperature)
    np.testing.assert_allclose(value, np.float32(temperature) * gap / N, rtol=1e-5)


def test_fenchel_young_gradient_is_the_difference_to_the_labels():
    _, gradient = exact_value_and_grad(FENCHEL_YOUNG, LOGITS, COUNT, 1.0)
    np.testing.assert_allclose(gradient, (projected(ONE_HOT.sum(0), 1.0) - ONE_HOT) / N, atol=1e-7)
    _, gradient = value_and_grad(FENCHEL_YOUNG, LOGITS, LABELS, budget=HALF)
    np.testing.assert_allclose(gradient, (projected([N / 2] * C, 1.0) - ONE_HOT) / N, atol=1e-7)


@each_regularizer
def test_fenchel_young_loss_is_convex_and_not_negative(regularizer):
    run = jax.jit(jax.vmap(partial(FENCHEL_YOUNG, labels=LABELS, regularizer=regularizer)))
    a, b = RNG.standard_normal((2, 100, N, C)).astype(np.float32) * 3
    at_a, between, at_b = (np.asarray(run(x)) for x in (a, 0.7 * a + 0.3 * b, b))
    assert np.all(at_a > 0)
    assert np.all(between <= 0.7 * at_a + 0.3 * at_b + 1e-5)


@each_regularizer
def test_fenchel_young_loss_vanishes_at_the_labels(regularizer):
    value, gradient = exact_value_and_grad(FENCHEL_YOUNG, 200 * ONE_HOT, COUNT, 1.0, regularizer)
    np.testing.assert_allclose(value, 0, atol=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_saturated_wrong_entries_pull_under_fenchel_young_only():
    logits = LOGITS - 100 * ONE_HOT
    _, gradient = exact_value_and_grad(LOSS, logits, COUNT, 1e-3)
    np.testing.assert_array_equal(gradient, 0)
    _, gradient = exact_value_and_grad(FENCHEL_YOUNG, logits, COUNT, 1e-3)
    np.testing.assert_allclose(gradient[ONE_HOT == 1], -1 / N)


@pytest.mark.parametrize(("function", "regularizer"), [(LOSS, EUCLIDEAN), (FENCHEL_YOUNG, ENTROPY)])
def test_constant_per_class_does_not_matter(function, regularizer):
    logits = np.round(16 * LOGITS) / 16  # so that the sums below are exact
    expected = exact_value_and_grad(function, logits, COUNT, 1.3, regularizer)
    shifted = exact_value_and_grad(function, logits + np.float32([1e6, -1e6, 0]), COUNT, 1.3, regularizer)
    chex.assert_trees_all_close(shifted, expected, rtol=1e-5, atol=1e-7)


@each_regularizer
def test_derivatives_of_the_squared_error_match_finite_differences(regularizer, x64):
    def run(logits, temperature, k, labels, weights):
        keywords = {"budget": k, "weights": weights, "regularizer": regularizer}
        return LOSS(logits, labels, temperature=temperature, **keywords)

    soft_labels, weights = RNG.uniform(0.1, 0.9, (N, C)), RNG.uniform(0.5, 2, N)
    check_derivatives(run, (LOGITS, 1.3, [3.3, 4.4, 5.5], soft_labels, weights), modes=("rev", "fwd"))


@each_regularizer
def test_derivatives_of_the_fenchel_young_loss_match_finite_differences(regularizer, x64):
    def run(logits, temperature, k):
        return FENCHEL_YOUNG(logits, LABELS, temperature=temperature, budget=k, regularizer=regularizer)

    check_derivatives(run, (LOGITS, 1.3, [3.3, 4.4, 5.5]), modes=("rev", "fwd"))


@by_the_other
def test_backward_pass_keeps_one_array_of_the_batch(function, budget):
    _, backward = jax.jit(partial(jax.vjp, lambda logits: function(logits, LABELS, budget=budget)))(LOGITS)
    assert sum(jnp.size(kept) >= LOGITS.size for kept in jax.tree.leaves(backward)) == 1


@each_regularizer
def test_fenchel_young_hessian_is_positive_semidefinite(regularizer, x64):
    function = partial(softbin.fenchel_young_loss, labels=LABELS, regularizer=regularizer)
    hessian = np.asarray(jax.jit(jax.hessian(function))(LOGITS.astype(float))).reshape(N * C, N * C)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert eigenvalues[0] > -1e-12
    assert eigenvalues[-1] > 1e-3


# Which examples count


@by_default
def test_masked_example_is_a_dropped_one(function, budget):
    keywords = {"budget": budget, "temperature": 1.2}
    logits = np.where(WHERE[:, None], LOGITS, np.nan)
    labels = np.where(WHERE, LABELS, -1)
    value, gradient = value_and_grad(function, logits, labels, where=WHERE, **keywords)
    expected_value, expected = value_and_grad(function, LOGITS[WHERE], LABELS[WHERE], **keywords)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(gradient[WHERE], expected, atol=1e-7)
    np.testing.assert_array_equal(gradient[~WHERE], 0)


@each_loss
def test_all_are_chosen_where_a_mask_or_weights_leave_fewer_than_the_budget(function):
    ones, m = np.ones(N, np.float32), WHERE.sum()
    counts = {"where": WHERE}, {"weights": WHERE * ones}, {"where": WHERE, "weights": 3 * ones}, {"weights": ones / N}

    @jax.jit
    def by_mask_and_by_weights(budgets):
        settings = [{"budget": k, **each} for k, each in zip(budgets, counts, strict=True)]
        return [jax.value_and_grad(partial(function, labels=LABELS, **each))(LOGITS) for each in settings]

    value, gradient = value_and_grad(function, LOGITS[WHERE], LABELS[WHERE], budget=m)
    *fewer, (too_light, _) = by_mask_and_by_weights((m + 1, m + 1, 3 * m + 1, 2))
    for actual, by_logits in fewer:
        np.testing.assert_allclose(actual, value, rtol=3e-6)
        np.testing.assert_allclose(by_logits[WHERE], gradient, atol=1e-7)
    assert np.isnan(too_light)  # two of what weighs one in all
    assert all(np.isnan(actual) for actual, _ in by_mask_and_by_weights((N + 1, N + 1, 3 * N + 1, np.nan)))


@by_the_other
def test_weight_two_is_two_examples(function, budget):
    keywords = {"budget": budget, "temperature": 1.2}
    copies = np.repeat(np.arange(N), 1 + WHERE)
    value, gradient = value_and_grad(function, LOGITS, LABELS, weights=1.0 + WHERE, **keywords)
    expected_value, expected = value_and_grad(function, LOGITS[copies], LABELS[copies], **keywords)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    summed = np.zeros((N, C), np.float32)
    np.add.at(summed, copies, expected)
    np.testing.assert_allclose(gradient, summed, atol=1e-7)


PRESENT = RNG.uniform(size=(N, C)) < 0.7
WEIGHTS = RNG.uniform(0.5, 2, (N, C)).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "budget", "masks"),
    [
        (LOSS, COUNT, [(PRESENT, WEIGHTS), (WHERE, WEIGHTS)]),
        (FENCHEL_YOUNG, HALF, [(PRESENT, WEIGHTS[:, 0]), (PRESENT, None)]),
    ],
)
def test_masks_and_weights_by_entry_make_every_class_a_problem_of_its_own(function, budget, masks):
    labels = (RNG.uniform(size=(N, C)) < 0.4).astype(np.float32)

    def by_class(logits, where, weights):
        columns = zip(logits.T, labels.T, where.T, weights.T, strict=True)
        return sum(function(x, y, budget=budget, where=mask, weights=w) for x, y, mask, w in columns)

    for where, by in masks:
        missing = np.where(where.reshape(N, -1), labels, np.nan)
        value, gradient = value_and_grad(function, LOGITS, missing, budget=budget, where=where, weights=by)
        by = np.ones((N, C), np.float32) if by is None else by
        where, by = (np.broadcast_to(x.reshape(N, -1), (N, C)) for x in (where, by))
        expected = value_and_grad(by_class, LOGITS, where, by)
        np.testing.assert_allclose(value, expected[0], rtol=1e-5)
        np.testing.assert_allclose(gradient, expected[1], atol=1e-6)


def test_the_loss_is_the_mean_of_the_errors_of_examples():
    weights = np.linspace(0, 2, N, dtype=np.float32)
    by_entry = np.linspace(0, 2, N * C, dtype=np.float32).reshape(N, C)
    plain, counted = np.ones(N), WHERE.astype(np.float32)
    cases = [
        (HALF, {}, plain),
        (COUNT, {"where": WHERE}, counted),
        (HALF, {"weights": weights}, weights),
        (COUNT, {"weights": weights, "where": WHERE}, weights * counted),
        (HALF, {"weights": by_entry}, plain),
        (COUNT, {"weights": weights, "where": by_entry > 0.3}, plain),
    ]

    @jax.jit
    def both(logits):
        def mean(logits, budget, keywords, by):
            errors = softbin.per_example_loss(logits, LABELS, budget=budget, **keywords)
            return jnp.sum(by * errors) / jnp.sum(by), errors

        def loss(logits, budget, keywords):
            return softbin.loss(logits, LABELS, budget=budget, **keywords)

        means = [jax.value_and_grad(mean, has_aux=True)(logits, *case) for case in cases]
        return means, [jax.value_and_grad(loss)(logits, budget, keywords) for budget, keywords, _ in cases]

    for ((mean, errors), gradient), (value, expected) in zip(*both(LOGITS), strict=True):
        assert errors.shape == (N,)
        np.testing.assert_allclose(mean, value, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_errors_of_examples_have_their_shape():
    run = jax.jit(softbin.per_example_loss)
    errors, binary = (np.asarray(run(LOGITS, LABELS)), np.asarray(run(LOGITS[:, 0], LABELS == 0)))
    np.testing.assert_allclose(np.ravel(run(LOGITS.reshape(3, -1, C), LABELS.reshape(3, -1))), errors, rtol=1e-6)
    p = exact.euclidean(LOGITS[:, 0], N / 2, 1.5).y
    np.testing.assert_allclose(binary, (p - (LABELS == 0)) ** 2 / 2, atol=1e-6)
    assert softbin.per_example_loss(LOGITS[:0], LABELS[:0]).shape == (0,)
    assert not np.any(np.asarray(run(LOGITS, LABELS, where=WHERE))[~WHERE])


@each_loss
def test_thresholds_may_be_saved_under_checkpoint(function):
    saved = jax.checkpoint_policies.save_only_these_names("softbin_threshold")

    def searches(policy):
        def loss(weights):
            return function(jnp.tanh(LOGITS) @ weights, LABELS)

        program = jax.jit(jax.value_and_grad(jax.checkpoint(loss, policy=policy))).lower(np.eye(C, dtype=np.float32))
        return program.compile().as_text().count(" while(")

    assert searches(None) > searches(saved) > 0


@each_loss
def test_a_class_without_entries_adds_nothing(function):
    where = np.ones((N, C), bool)
    where[:, 1] = False
    value, gradient = value_and_grad(function, LOGITS, ONE_HOT, where=where)
    expected, of_others = value_and_grad(function, LOGITS[:, ::2], ONE_HOT[:, ::2])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, ::2], of_others, atol=1e-7)
    assert not gradient[:, 1].any()


def test_labels_out_of_range_are_named_entry_by_entry():
    labels = np.where(WHERE[:, None], ONE_HOT, 7)
    softbin.loss(LOGITS, labels, where=np.broadcast_to(WHERE[:, None], (N, C)))
    with pytest.raises(ValueError, match=r"label 7.0 is outside \[0, 1\]"):
        softbin.loss(LOGITS, labels, where=np.arange(N * C).reshape(N, C) > 0)
    with pytest.raises(ValueError, match=r"one entry per example: shape \(12,\), or one per logit: shape \(12, 3\)"):
        softbin.loss(LOGITS, LABELS, where=np.ones((C, N), bool))


@each_pair
def test_batch_without_examples_is_zero(function, budget, regularizer):
    value, gradient = value_and_grad(
        function, LOGITS, LABELS, where=np.zeros(N, bool), budget=budget, regularizer=regularizer
    )
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


# Shapes and kinds of labels


@each_loss
def test_every_axis_but_the_last_holds_examples(function):
    expected = value_and_grad(function, LOGITS, LABELS, where=WHERE)
    value, gradient = value_and_grad(function, LOGITS.reshape(3, 4, C), LABELS.reshape(3, 4), where=WHERE.reshape(3, 4))
    chex.assert_trees_all_close((value, gradient.reshape(N, C)), expected, rtol=1e-6)


@pytest.mark.parametrize(("function", "dtype"), [(LOSS, bool), (LOSS, np.float32), (FENCHEL_YOUNG, np.int32)])
def test_one_axis_is_one_binary_problem(function, dtype):
    binary = LABELS > 0
    expected = value_and_grad(function, LOGITS[:, :1], binary[:, None], where=WHERE)
    value, gradient = value_and_grad(function, LOGITS[:, 0], binary.astype(dtype), where=WHERE)
    chex.assert_trees_all_close((value, gradient[:, None]), expected, rtol=1e-6)


@pytest.mark.parametrize(  # what labels are is found out in one place for both
    ("function", "dtype"),
    [(LOSS, bool), (LOSS, np.int32), (LOSS, np.float16), (FENCHEL_YOUNG, np.uint8), (FENCHEL_YOUNG, np.float32)],
)
def test_dense_labels_equal_class_numbers(function, dtype):
    dense, expected = (value_and_grad(function, LOGITS, labels) for labels in (ONE_HOT.astype(dtype), LABELS))
    chex.assert_trees_all_close(dense, expected, rtol=1e-6, atol=1e-8)


def test_multi_hot_and_soft_labels_follow_the_formula():
    for targets in (RNG.integers(0, 2, (N, C)).astype(np.float32), RNG.uniform(size=(N, C)).astype(np.float32)):
        error = projected(targets.sum(0), 1.5) - targets
        value, _ = value_and_grad(softbin.loss, LOGITS, targets, budget=budgets.label_count)
        np.testing.assert_allclose(value, np.sum(error**2) / (2 * N), rtol=1e-6)
        _, gradient = value_and_grad(softbin.fenchel_young_loss, LOGITS, targets, temperature=1.5)
        np.testing.assert_allclose(gradient, error / N, atol=1e-7)


@pytest.mark.parametrize(("function", "dtype"), [(LOSS, "bfloat16"), (FENCHEL_YOUNG, "float16")])
def test_half_precision_logits_give_a_float32_value_and_their_own_gradient(function, dtype):
    logits = LOGITS.astype(dtype)
    value, gradient = value_and_grad(function, logits, LABELS)
    assert (value.dtype, gradient.dtype) == (jnp.float32, dtype)
    np.testing.assert_allclose(value, value_and_grad(function, logits.astype(np.float32), LABELS)[0], rtol=1e-6)


# Labels out of range

WRONG = np.where(np.arange(N) == 4, C, LABELS)


@each_loss
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (WRONG, r"label 3 is outside \[0, 3\)"),
        (-WRONG - 1, r"label -\d is outside \[0, 3\)"),
        (ONE_HOT * 1.5, r"label 1.5 is outside \[0, 1\]"),
        (ONE_HOT * np.nan, r"label nan is outside \[0, 1\]"),
    ],
)
def test_label_out_of_range_is_named_where_it_is_known(function, labels, message):
    with pytest.raises(ValueError, match=message):
        function(LOGITS, labels)


@each_loss
@pytest.mark.parametrize("labels", [WRONG, -WRONG - 1, ONE_HOT * 1.5])
def test_label_out_of_range_gives_nan_where_it_is_traced(function, labels):
    assert np.isnan(value_and_grad(function, LOGITS, labels)[0])


@each_loss
def test_label_out_of_range_is_ignored_where_it_is_masked(function):
    where = np.arange(N) != 4
    expected = function(LOGITS, LABELS, where=where)
    assert function(LOGITS, WRONG, where=where) == expected
    assert function(LOGITS, WRONG, weights=where.astype(np.float32)) == expected


# Examples that are split


def _over_vmap(run):
    return jax.vmap(run, (0, 0, 0, None), None, axis_name="parts")


def _over_devices(run):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("parts",))
    by_example, replicated = PartitionSpec("parts"), PartitionSpec()

    def one(logits, labels, weights, temperature):
        return run(logits[0], labels[0], weights[0], temperature)

    return jax.shard_map(
        one, mesh=mesh, in_specs=(by_example, by_example, by_example, replicated), out_specs=replicated
    )


@pytest.mark.parametrize(  # every pair
    ("function", "budget", "over"),
    [
        (LOSS, HALF, _over_vmap),
        (LOSS, COUNT, _over_devices),
        (FENCHEL_YOUNG, HALF, _over_devices),
        (FENCHEL_YOUNG, COUNT, _over_vmap),
    ],
)
def test_split_examples_equal_the_whole(function, budget, over):
    def run(logits, labels, weights, temperature, axis_name=None):
        return function(logits, labels, weights=weights, temperature=temperature, budget=budget, axis_name=axis_name)

    weights = 1.0 + WHERE
    expected_value, expected = jax.jit(jax.value_and_grad(run, (0, 3)))(LOGITS, LABELS, weights, 1.3)
    parts = jax.jit(jax.value_and_grad(over(partial(run, axis_name="parts")), (0, 3)))
    value, (by_logits, by_temperature) = parts(
        *(x.reshape(2, N // 2, *x.shape[1:]) for x in (LOGITS, LABELS, weights)), 1.3
    )
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    chex.assert_trees_all_close((np.reshape(by_logits, (N, C)), by_temperature), expected, rtol=1e-5, atol=1e-7)


# Bad input


@each_loss
@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (TypeError, r"logits must be floating point, got int32: convert them", {"logits": np.ones((N, C), np.int32)}),
        (ValueError, r"logits must be \(..., classes\), or \(n,\) .*, got a scalar", {"logits": np.float32(1)}),
        (ValueError, r"labels with shape \(5,\) do not fit logits with shape \(12, 3\)", {"labels": np.ones(5, int)}),
        (TypeError, r"class numbers and must be integer, got float32", {"labels": LABELS.astype(np.float32)}),
        (TypeError, r"labels must be integer, boolean or floating point, got complex64", {"labels": ONE_HOT * 1j}),
        (
            ValueError,
            r"where with shape \(5,\) must have one entry per example: shape \(12,\)",
            {"where": np.ones(5, bool)},
        ),
        (TypeError, r"where must be boolean, got int32", {"where": np.ones(N, np.int32)}),
        (ValueError, r"weights with shape \(3, 12\) must have one entry per example", {"weights": np.ones((C, N))}),
        (ValueError, r"weights must not be negative, got -1.0 as the smallest", {"weights": -np.ones(N)}),
        (ValueError, r"budget must be at most n = 12, the number of examples, got 13", {"budget": 13}),
        (ValueError, r"0.5 looks like a share of the batch: pass softbin.budgets.fraction\(0.5\)", {"budget": 0.5}),
        (ValueError, r"pass softbin.budgets.prior\(\[0.2, 0.8, 0. \]\)", {"budget": np.array([0.2, 0.8, 0])}),
        (TypeError, r"one of softbin.budgets.label_count, .*, got 'label_count'", {"budget": "label_count"}),
        (TypeError, r"budget must be a number of examples, .*, got None", {"budget": None}),
        (ValueError, r"budget with shape \(2,\) does not fit .* each of 3 classes", {"budget": np.ones(2)}),
        (ValueError, r"temperature must be positive and finite, got 0", {"temperature": 0.0}),
    ],
)
def test_bad_input_is_named(function, error, message, changes, no_shape_checks):
    with pytest.raises(error, match=message):
        function(**{"logits": LOGITS, "labels": LABELS, **changes})
