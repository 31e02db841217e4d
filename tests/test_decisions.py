import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin import budgets
from tests.hard_cases import REGULARIZERS

RNG = np.random.default_rng(0)
N, C = 60, 3
LABELS = np.repeat(np.arange(C), N // C)
LOGITS = (np.eye(C)[LABELS] * 3 + RNG.uniform(-1, 1, (N, C))).astype(np.float32)
SHIFT = np.float32([20, 0, -20])
WHERE = RNG.uniform(size=N) < 0.7
MOST = {"budget": budgets.label_count, "temperature": 0.8}

each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)


@pytest.mark.parametrize(
    ("budget", "regularizer"),
    [
        (budgets.label_count, softbin.euclidean),
        (budgets.prior([1 / 3] * C), softbin.binary_entropy),
        (N / C, softbin.euclidean),
    ],
    ids=["label_count", "prior", "number"],
)
def test_thresholds_recover_shifted_classes(budget, regularizer):
    logits = LOGITS + SHIFT
    labels = LABELS if budget is budgets.label_count else None
    lam = softbin.decision_thresholds(logits, labels, budget=budget, temperature=0.8, regularizer=regularizer)
    assert lam.shape == (C,)
    np.testing.assert_array_equal(softbin.predict(logits, lam, 0.8), LABELS)
    assert softbin.zero_one_loss(logits, LABELS) > 0.5
    assert softbin.zero_one_loss(logits, LABELS, thresholds=lam, temperature=0.8) == 0


@each_regularizer
def test_thresholds_are_those_of_the_operator(regularizer):
    logits, labels = LOGITS.reshape(4, 15, C), LABELS.reshape(4, 15)
    where, weights = WHERE.reshape(4, 15), RNG.choice(np.float32([0.5, 1, 2]), (4, 15))
    lam = softbin.decision_thresholds(logits, labels, where=where, weights=weights, regularizer=regularizer, **MOST)
    counted = np.where(WHERE, weights.ravel(), 0)
    k = counted @ np.eye(C, dtype=np.float32)[LABELS]
    expected = softbin.threshold(LOGITS, k, 0.8, axis=0, weights=counted[:, None], regularizer=regularizer)
    np.testing.assert_allclose(lam, expected, rtol=1e-5)


def test_masks_by_entry_make_every_class_a_problem_of_its_own():
    where, labels = RNG.uniform(size=(N, C)) < 0.7, np.eye(C, dtype=np.float32)[LABELS]
    lam = softbin.decision_thresholds(LOGITS, labels, where=where, **MOST)
    watched = softbin.diagnose(LOGITS, labels, where=where, **MOST)
    each = [softbin.diagnose(LOGITS[:, c], labels[:, c], where=where[:, c], **MOST) for c in range(C)]
    np.testing.assert_allclose(lam, [one.thresholds for one in each], rtol=1e-5)
    for name in ("active", "saturated_right", "saturated_wrong"):
        np.testing.assert_allclose(getattr(watched, name), np.mean([getattr(one, name) for one in each]), atol=1e-6)
    with pytest.raises(ValueError, match=r"where with shape \(60, 3\) must have one entry per example: shape \(60,\)$"):
        softbin.zero_one_loss(LOGITS, LABELS, where=where)


@each_regularizer
def test_binary_problem_has_one_threshold(regularizer):
    logits, labels = LOGITS[:, 0] + 20, LABELS == 0
    lam = softbin.decision_thresholds(logits, labels, regularizer=regularizer, **MOST)
    assert lam.shape == ()
    chosen = softbin.predict(logits, lam, 0.8, regularizer=regularizer)
    np.testing.assert_array_equal(chosen, labels)
    wrong = softbin.zero_one_loss(logits, labels, thresholds=lam, temperature=0.8, regularizer=regularizer)
    assert wrong == 0
    assert softbin.zero_one_loss(logits, labels) == pytest.approx(2 / 3)


def test_a_binary_problem_decides_for_fewer_than_its_budget_at_a_large_temperature():
    scores = RNG.normal(size=10_000).astype(np.float32)
    for temperature, fewest, most in ((1.5, 100, 150), (0.1, 190, 210)):
        keywords = {"budget": budgets.fraction(0.02), "temperature": temperature}
        lam = softbin.decision_thresholds(scores, **keywords)
        assert fewest < softbin.predict(scores, lam, temperature).sum() < most


def test_predict_keeps_the_shape_of_the_examples():
    lam = softbin.decision_thresholds(LOGITS + SHIFT, LABELS, **MOST)
    chosen = softbin.predict((LOGITS + SHIFT).reshape(4, 15, C), lam, 0.8)
    np.testing.assert_array_equal(chosen, LABELS.reshape(4, 15))


@pytest.mark.parametrize("thresholds", [np.float32([2, 0, -1]), np.float32(1)], ids=["classes", "binary"])
def test_predict_of_one_example_is_that_of_the_batch(thresholds):
    whole = softbin.predict(LOGITS, thresholds, 0.8)
    assert whole.shape == (LOGITS.shape if thresholds.ndim == 0 else (N,))
    np.testing.assert_array_equal(jax.vmap(lambda x: softbin.predict(x, thresholds, 0.8))(LOGITS), whole)
    np.testing.assert_array_equal(softbin.predict(LOGITS[0], thresholds, 0.8), whole[0])


def test_predict_takes_a_temperature_per_class():
    temperature = np.float32([0.5, 1, 2])
    expected = np.argmax(LOGITS / temperature - np.float32([2, 0, -1]), -1)
    np.testing.assert_array_equal(softbin.predict(LOGITS, np.float32([2, 0, -1]), temperature), expected)


def test_predict_compares_narrow_logits_in_float32():
    logits = jnp.bfloat16([[256, 1], [256, 1]])
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        np.testing.assert_array_equal(softbin.predict(logits, np.float32([255.4, 0.2]), 1.0), 1)


def test_with_several_labels_each_class_is_decided_by_itself():
    labels = np.stack([LOGITS[:, c] > c - 1 for c in range(3)], 1)
    keywords = {"budget": softbin.budgets.label_count, "temperature": 0.2}
    thresholds = softbin.decision_thresholds(LOGITS, labels, **keywords)
    decided = softbin.predict(LOGITS, thresholds, 0.2, multi_label=True)
    np.testing.assert_array_equal(decided, labels)
    for c in range(3):
        np.testing.assert_array_equal(decided[:, c], softbin.predict(LOGITS[:, c], thresholds[c], 0.2))
    np.testing.assert_array_equal(decided[0], softbin.predict(LOGITS[0], thresholds, 0.2, multi_label=True))
    np.testing.assert_array_equal(decided[:, :1], softbin.predict(LOGITS[:, :1], thresholds[:1], 0.2, multi_label=True))
    with pytest.raises(ValueError, match=r"thresholds must have the shape \(C,\), got \(\)"):
        softbin.predict(LOGITS, 0.5, 0.2, multi_label=True)


@pytest.mark.parametrize(
    "function", [softbin.loss, softbin.fenchel_young_loss, softbin.diagnose, softbin.per_example_loss]
)
def test_the_numbers_of_a_single_class_are_refused(function):
    with pytest.raises(ValueError, match=r"have a single class, .* pass logits\[..., 0\]"):
        function(LOGITS[:, :1], np.zeros(60, int))


@pytest.mark.parametrize(
    ("message", "logits", "thresholds", "temperature"),
    [
        (r"single class: pass logits\[..., 0\]", LOGITS[:, :1], np.zeros(1, np.float32), 1.0),
        (r"thresholds with shape \(2,\) do not fit logits with shape \(60, 3\)", LOGITS, np.zeros(2, np.float32), 1.0),
        (r"thresholds with shape \(60, 3\) must have the shape .* use jax.vmap", LOGITS, 0 * LOGITS, 1.0),
        (r"thresholds with shape \(3,\) do not fit logits with shape \(\)", np.float32(1), SHIFT, 1.0),
        (r"temperature with shape \(2,\) does not fit thresholds with shape \(3,\)", LOGITS, SHIFT, np.ones(2)),
        (r"temperature must be positive and finite, got 0", LOGITS, SHIFT, 0),
    ],
)
def test_predict_refuses_what_does_not_fit(message, logits, thresholds, temperature):
    with pytest.raises(ValueError, match=message):
        softbin.predict(logits, thresholds, temperature)


def test_predict_refuses_integers(no_shape_checks):
    with pytest.raises(TypeError, match="logits must be floating point, got int32"):
        softbin.predict(np.ones((2, 3), np.int32), SHIFT, 1.0)


def test_thresholds_by_count_need_labels():
    with pytest.raises(ValueError, match="counts labels, and none were given"):
        softbin.decision_thresholds(LOGITS, budget=budgets.label_count, temperature=1.0)


def test_thresholds_have_the_temperature_that_is_named():
    with pytest.raises(TypeError, match="'temperature'"):
        softbin.decision_thresholds(LOGITS, LABELS)
    with pytest.raises(TypeError, match=r"no temperature was given: pass the one that decision_thresholds was called"):
        softbin.zero_one_loss(LOGITS, LABELS, thresholds=SHIFT)


# The error rate: class 0 is the largest logit of every example

FIRST = np.tile(np.float32([1, 0, -1]), (4, 1))


@pytest.mark.parametrize(
    ("labels", "keywords", "expected"),
    [
        (np.array([0, 0, 1, 0]), {}, 0.25),
        (np.array([0, 0, 1, 9]), {"where": np.array([True, False, True, False])}, 0.5),
        (np.array([0, 0, 1, 0]), {"where": np.zeros(4, bool)}, 0),
        (np.array([0, 0, 1, 0]), {"thresholds": np.float32([2, 0, 0]), "temperature": 1}, 0.75),
        (np.array([0, 0, 1, 0]), {"thresholds": np.float32([5, 0, 0]), "temperature": 0.1}, 0.25),
        (np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]], bool), {}, 0.5),
        (np.tile(np.float32([0.7, 0.2, 0.1]), (4, 1)), {}, 0.3),
    ],
    ids=["classes", "masked", "empty", "thresholds", "temperature", "multi-hot", "soft"],
)
def test_zero_one_loss_is_the_share_of_wrong_examples(labels, keywords, expected):
    np.testing.assert_allclose(softbin.zero_one_loss(FIRST, labels, **keywords), expected, rtol=1e-6)


def test_zero_one_loss_of_a_binary_problem():
    logits, labels = np.float32([-1, 2, 3, -4]), np.array([0, 0, 1, 0])
    assert softbin.zero_one_loss(logits, labels) == 0.25
    assert softbin.zero_one_loss(logits, labels, thresholds=np.float32(2), temperature=1) == 0


@pytest.mark.parametrize(
    ("message", "logits", "labels", "thresholds"),
    [
        (r"thresholds with shape \(\) do not fit .* \(60, 3\): expected \(3,\)", LOGITS, LABELS, np.float32(0)),
        (r"thresholds with shape \(3,\) do not fit .* \(3,\): expected \(\)", LOGITS[0], np.array([0, 0, 1]), SHIFT),
        (r"\(\) do not fit .* a binary problem.* pass logits\[None\] and labels\[None\]", LOGITS[0], np.array(0), None),
    ],
    ids=["classes", "binary", "one example"],
)
def test_zero_one_loss_refuses_what_does_not_fit(message, logits, labels, thresholds):
    with pytest.raises(ValueError, match=message):
        softbin.zero_one_loss(logits, labels, thresholds=thresholds, temperature=1.0)


def test_zero_one_loss_refuses_a_single_class():
    with pytest.raises(ValueError, match=r"logits with shape \(4, 1\) have a single class, .* logits\[..., 0\]"):
        softbin.zero_one_loss(np.zeros((4, 1), np.float32), np.zeros(4, int))


def test_zero_one_loss_has_zero_gradient():
    np.testing.assert_array_equal(jax.grad(softbin.zero_one_loss)(LOGITS, LABELS), 0)


def test_zero_one_loss_of_a_traced_wrong_label_is_nan():
    with pytest.raises(ValueError, match=r"label 3 is outside \[0, 3\)"):
        softbin.zero_one_loss(FIRST, np.array([0, 0, 3, 0]))
    assert np.isnan(jax.jit(softbin.zero_one_loss)(FIRST, np.array([0, 0, 3, 0])))


# Diagnosis


class DiagnoseTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_shares_and_thresholds_follow_the_projection(self):
        temperature = np.float32(2)
        labels = np.where(np.arange(N) % 7 == 0, (LABELS + 1) % C, LABELS)
        found = self.variant(lambda *args: softbin.diagnose(*args, where=WHERE, temperature=temperature))(
            LOGITS, labels
        )
        p = np.asarray(softbin.soft_binary_argmax(LOGITS[WHERE], WHERE.sum() / 2, temperature, axis=0))
        active = (p > 0) & (p < 1)
        right = ~active & (p == np.eye(C)[labels[WHERE]])
        shares = [active.mean(), right.mean(), (~active & ~right).mean()]
        assert min(shares) > 0.01
        np.testing.assert_allclose(found[1:4], shares, rtol=1e-6)
        np.testing.assert_allclose(sum(found[1:4]), 1, rtol=1e-6)
        lam = softbin.decision_thresholds(LOGITS, where=WHERE, temperature=temperature)
        np.testing.assert_allclose(found.thresholds, lam, rtol=1e-6)


def test_diagnosis_of_a_binary_problem_has_one_threshold():
    found = softbin.diagnose(LOGITS[:, 0], LABELS == 0, **MOST)
    assert found.thresholds.shape == ()
    np.testing.assert_allclose(sum(found[1:4]), 1, rtol=1e-6)


def test_diagnosis_tells_how_the_search_went():
    found = softbin.diagnose(LOGITS, LABELS, **MOST)
    assert 0 < found.rounds <= 8
    assert found.converged


def test_diagnosis_of_split_examples_equals_the_whole():
    parts = jax.vmap(
        lambda logits, labels: softbin.diagnose(logits, labels, axis_name="parts", **MOST),
        axis_name="parts",
        out_axes=None,
    )(LOGITS.reshape(2, 30, C), LABELS.reshape(2, 30))
    chex.assert_trees_all_close(parts, softbin.diagnose(LOGITS, LABELS, **MOST), rtol=1e-6)


def test_what_is_no_array_is_named(no_shape_checks):
    with pytest.raises(TypeError, match=r"thresholds must be an array or a number, got \[0.0, 1.0, 2.0\]"):
        softbin.predict(LOGITS, [0.0, 1.0, 2.0], 1.0)
    with pytest.raises(TypeError, match="thresholds must be an array or a number, got 'a'"):
        softbin.zero_one_loss(LOGITS, LABELS, thresholds="a", temperature=1.0)
    with pytest.raises(TypeError, match="labels are needed here, got None"):
        softbin.zero_one_loss(LOGITS, None)
