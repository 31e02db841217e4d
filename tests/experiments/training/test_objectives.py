import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

import softbin
from softbin.experiments.runs.errors import UserError
from softbin.experiments.training import objectives, ranking_objectives

LOGITS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
LABELS = np.arange(12) % 3
WEIGHTS = np.array([0.5, 1.0, 1.5])  # of the classes
SOME = np.arange(12) % 4 == 0


def objective(name, budget=softbin.budgets.label_count, temperature=2.0):
    return objectives.objective(name, objectives.Setting(budget, temperature, WEIGHTS))


def value(name, **setting):
    return float(jax.jit(objective(name, **setting).loss)(LOGITS, LABELS))


@functools.cache
def by_name():
    """Of every loss of several classes its value, and of one with terms these, their mean, and the loss of `SOME`."""

    @jax.jit
    def of_all(logits, labels, weights):
        found = {}
        for name in set(objectives.OBJECTIVES) - set(ranking_objectives.RANKINGS):
            loss, terms = objective(name)
            found[name] = {"loss": loss(logits, labels)}
            if terms is not None:
                each = terms(logits, labels)
                found[name] |= {"terms": each, "mean": jnp.mean(each), "some": loss(logits, labels, weights=weights)}
        library = {"hypersimplex": softbin.loss, "fenchel_young": softbin.fenchel_young_loss}
        for name, function in library.items():
            found[name]["library"] = function(logits, labels, budget=softbin.budgets.label_count, temperature=2.0)
        return found

    return jax.device_get(of_all(LOGITS, LABELS, SOME.astype(np.float32)))


@pytest.mark.parametrize("name", objectives.DEFAULT_BUDGETS)
def test_ours_are_the_library_functions(name):
    found = by_name()[name]
    assert found["loss"] == found["library"]


def test_scaled_mse_is_the_squared_loss_without_its_projection():
    expected = np.sum((LOGITS / 2 - np.eye(3)[LABELS]) ** 2) / 2 / 12
    assert by_name()["scaled_mse"]["loss"] == pytest.approx(expected, rel=1e-6)
    assert by_name()["mse"]["loss"] == pytest.approx(value("scaled_mse", temperature=1.0), rel=1e-6)


def test_centred_scaled_mse_projects_onto_the_hyperplane_of_budget_one_half():
    scores = LOGITS / 2
    projected = scores - scores.mean(0) + 0.5
    assert np.allclose(projected.sum(0), 12 / 2)
    expected = np.sum((projected - np.eye(3)[LABELS]) ** 2) / 2 / 12
    assert by_name()["centred_scaled_mse"]["loss"] == pytest.approx(expected, rel=1e-6)


def test_centred_scaled_mse_is_hypersimplex_where_nothing_is_saturated():
    assert value("centred_scaled_mse", temperature=100.0) == pytest.approx(
        value("hypersimplex", budget=softbin.budgets.fraction(0.5), temperature=100.0), rel=1e-6
    )


@pytest.mark.parametrize("name", ["hypersimplex", "centred_scaled_mse"])
def test_thresholds_put_the_scores_that_count_on_the_hyperplane(name):
    counts = np.arange(len(LABELS)) % 3 != 0
    thresholds = jax.jit(objectives.thresholds(name, softbin.budgets.fraction(0.5), 100.0))(LOGITS, LABELS, counts)
    assert np.allclose(np.mean(LOGITS[counts] / 100 - thresholds, 0), 0.5, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "scaled_mse", "hinge"])
def test_a_loss_that_sees_constants_has_no_thresholds(name):
    assert objectives.thresholds(name, None, 1.0) is None


@pytest.mark.parametrize("name", objectives.DECIDED)
def test_cross_entropy_decides_by_softbins_thresholds_in_the_unit_of_its_logits(name):
    counts = np.arange(len(LABELS)) % 3 != 0
    thresholds = jax.jit(objectives.thresholds(name, softbin.budgets.fraction(0.5), 100.0))(LOGITS, LABELS, counts)
    assert np.allclose(np.mean((LOGITS[counts] - thresholds) / 100, 0), 0.5, atol=1e-6)


def test_cross_entropy_is_the_mean_negative_log_likelihood():
    log_p = special.log_softmax(LOGITS, axis=1)
    assert by_name()["cross_entropy"]["loss"] == pytest.approx(-log_p[np.arange(12), LABELS].mean(), rel=1e-6)


def test_hinge_is_the_mean_margin_violation():
    right = LOGITS[np.arange(12), LABELS]
    rival = np.where(np.eye(3)[LABELS] == 1, -np.inf, LOGITS).max(1)
    assert by_name()["hinge"]["loss"] == pytest.approx(np.maximum(0, 1 + rival - right).mean(), rel=1e-6)


P = special.softmax(LOGITS, axis=1)
OWN = P[np.arange(12), LABELS]  # the probabilities of the labels


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("cross_entropy", -np.log(OWN)),
        ("label_smoothing", -0.8 * np.log(OWN) - 0.2 * np.log(P).mean(1)),
        ("symmetric_cross_entropy", -0.1 * np.log(OWN) - np.log(1e-4) * (1 - OWN)),
        ("generalized_cross_entropy", (1 - OWN**0.7) / 0.7),
        ("focal", -((1 - OWN) ** 2) * np.log(OWN)),
        ("class_weighted", -WEIGHTS[LABELS] * np.log(OWN)),
    ],
)
def test_terms_are_those_of_the_papers(name, terms):
    np.testing.assert_allclose(by_name()[name]["terms"], terms, rtol=1e-5)


def test_tilted_is_the_logarithm_of_the_mean_exponential_of_cross_entropies():
    assert by_name()["tilted"]["loss"] == pytest.approx(np.log(np.mean(1 / OWN)), rel=1e-6)


SCORES = np.array([3.0, 1.0, 2.0, -1.0, 0.5, -2.0], np.float32)
POSITIVE = np.array([1, 0, 1, 1, 0, 0])


def of_scores(name, **setting):
    return float(jax.jit(_of_scores(name, **setting))(SCORES, POSITIVE))


def _of_scores(name, **setting):
    def loss(scores, labels):
        return objective(name, **setting).loss(jnp.stack([-scores / 4, 3 * scores / 4], 1), labels)

    return loss


def test_capacity_is_our_loss_of_one_score():
    budget = softbin.budgets.fraction(1 / 3)
    expected = float(softbin.loss(SCORES[:, None], POSITIVE[:, None], budget=2, temperature=0.1))
    assert of_scores("capacity", budget=budget, temperature=0.1) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx((2 + 3) / 12 - 2 / 6, abs=1e-6)  # by precision at 2


def hinges(t):
    return np.maximum(0, 1 + t - np.array([3.0, 2.0, -1.0])).mean()


def test_top_push_has_its_threshold_at_the_largest_score_of_a_negative():
    assert of_scores("top_push", budget=None) == pytest.approx(hinges(1.0), rel=1e-6)


def test_top_mean_has_its_threshold_at_the_mean_of_the_largest_scores():
    assert of_scores("top_mean", budget=softbin.budgets.fraction(0.5)) == pytest.approx(hinges(2.0), rel=1e-6)


@pytest.mark.parametrize("share", [1 / 6, 0.5, 1.0])
def test_pat_mat_has_its_threshold_where_the_hinges_of_all_scores_have_the_share_as_their_mean(share):
    t = optimize.brentq(lambda t: np.maximum(0, 1 + SCORES - t).mean() - share, -9, 9)
    loss = of_scores("pat_mat", budget=softbin.budgets.fraction(share))
    assert loss == pytest.approx(hinges(t), rel=1e-5)


@pytest.mark.parametrize("name", ranking_objectives.RANKINGS)
def test_a_ranking_sees_the_difference_of_two_logits_and_lifts_positives_also_where_all_are_of_one_class(name):
    budget = None if name == "top_push" else softbin.budgets.fraction(0.5)
    gradients = jax.jit(jax.vmap(jax.grad(_of_scores(name, budget=budget)), (None, 0)))
    of_both, *of_one = np.asarray(gradients(0.1 * SCORES, np.stack([POSITIVE, np.zeros(6, int), np.ones(6, int)])))
    assert np.isfinite(of_both).all()
    assert of_both[3] < 0  # the positive below the threshold
    assert np.isfinite(of_one).all()


@pytest.mark.parametrize("name", sorted(set(objectives.OBJECTIVES) - set(ranking_objectives.RANKINGS)))
def test_a_loss_with_terms_is_their_mean_and_with_weights_that_of_some(name):
    found = by_name()[name]
    if "terms" not in found:
        assert name in ("hypersimplex", "fenchel_young", "centred_scaled_mse", "tilted")
        return
    assert found["loss"] == found["mean"]
    np.testing.assert_allclose(found["some"], found["terms"][SOME].mean(), rtol=1e-6)


def test_a_ranking_has_no_terms():
    assert all(objective(name).terms is None for name in ranking_objectives.RANKINGS)


def test_confident_decisions_have_finite_gradients():
    @jax.jit
    def gradients(logits, labels):
        return {name: jax.grad(objective(name).loss)(logits, labels) for name in objectives.OBJECTIVES}

    for name, gradient in gradients(1e3 * LOGITS, LABELS).items():
        assert np.isfinite(gradient).all(), name


def test_class_weights_are_inverse_frequencies_with_mean_1_over_the_examples():
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = objectives.class_weights(labels, 4)
    np.testing.assert_allclose(weights[[1, 3]] / weights[0], [2, 6])
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize(("name", "k"), [("label_count", [1, 0, 3]), ("prior", [2, 1, 1]), ("0.25", [1, 1, 1])])
def test_budgets_by_name(name, k):
    budget = objectives.budget(name, train_labels=np.array([0, 0, 1, 2]), classes=3)
    batch = jnp.asarray(np.eye(3)[[0, 2, 2, 2]], jnp.float32)
    assert np.allclose(np.broadcast_to(jax.jit(budget)(batch, jnp.ones(4)), 3), k)


@pytest.mark.parametrize("name", ["half", "1.5", "-0.1", "nan"])
def test_an_unknown_budget_is_refused(name):
    with pytest.raises(UserError, match=f"unknown budget '{name}': choose label_count, prior, or a share"):
        objectives.budget(name, np.array([0]), 1)


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="unknown loss 'poly': choose one of hypersimplex, fenchel_young"):
        value("poly")


def test_a_ranking_is_of_two_classes_and_has_one_budget():
    with pytest.raises(UserError, match="the loss top_push ranks the examples of two classes, and the data have 10"):
        objectives.check_two_classes("top_push", None, 10)
    with pytest.raises(UserError, match=r"budget prior is of each class, and capacity ranks once .*: choose a share"):
        objectives.check_two_classes("capacity", "prior", 2)
    objectives.check_two_classes("capacity", "0.02", 2)
    objectives.check_two_classes("cross_entropy", None, 10)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(UserError, match="temperature must be positive and finite"):
        value("hypersimplex", temperature=temperature)
