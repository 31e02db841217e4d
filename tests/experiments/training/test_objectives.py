import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import softbin
from softbin.experiments.runs.errors import UserError
from softbin.experiments.training import objectives, ranking_objectives

LOGITS = jax.random.normal(jax.random.key(0), (12, 3))
LABELS = jnp.arange(12) % 3


WEIGHTS = np.array([0.5, 1.0, 1.5])  # of the classes


def objective(name, budget=softbin.budgets.label_count, temperature=2.0):
    return objectives.objective(name, objectives.Setting(budget, temperature, WEIGHTS))


def value(name, **setting):
    return float(objective(name, **setting).loss(LOGITS, LABELS))


def test_ours_are_the_library_functions():
    keywords = {"budget": softbin.budgets.label_count, "temperature": 2.0}
    assert value("hypersimplex") == float(softbin.loss(LOGITS, LABELS, **keywords))
    assert value("fenchel_young") == float(softbin.fenchel_young_loss(LOGITS, LABELS, **keywords))


def test_scaled_mse_is_the_squared_loss_without_its_projection():
    expected = np.sum((np.asarray(LOGITS) / 2 - np.eye(3)[LABELS]) ** 2) / 2 / 12
    assert value("scaled_mse") == pytest.approx(expected, rel=1e-6)
    assert value("mse") == pytest.approx(value("scaled_mse", temperature=1.0), rel=1e-6)


def test_centred_scaled_mse_projects_onto_the_hyperplane_of_budget_one_half():
    scores = np.asarray(LOGITS) / 2
    projected = scores - scores.mean(0) + 0.5
    assert np.allclose(projected.sum(0), 12 / 2)
    expected = np.sum((projected - np.eye(3)[LABELS]) ** 2) / 2 / 12
    assert value("centred_scaled_mse") == pytest.approx(expected, rel=1e-6)


def test_centred_scaled_mse_is_hypersimplex_where_nothing_is_saturated():
    assert value("centred_scaled_mse", temperature=100.0) == pytest.approx(
        value("hypersimplex", budget=softbin.budgets.fraction(0.5), temperature=100.0), rel=1e-6
    )


@pytest.mark.parametrize("name", ["hypersimplex", "centred_scaled_mse"])
def test_thresholds_put_the_scores_that_count_on_the_hyperplane(name):
    counts = np.arange(len(LABELS)) % 3 != 0
    thresholds = objectives.thresholds(name, softbin.budgets.fraction(0.5), 100.0)(LOGITS, LABELS, counts)
    assert np.allclose(np.mean(LOGITS[counts] / 100 - thresholds, 0), 0.5, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "scaled_mse", "hinge"])
def test_a_loss_that_sees_constants_has_no_thresholds(name):
    assert objectives.thresholds(name, None, 1.0) is None


@pytest.mark.parametrize("name", objectives.DECIDED)
def test_cross_entropy_decides_by_softbins_thresholds_in_the_unit_of_its_logits(name):
    counts = np.arange(len(LABELS)) % 3 != 0
    thresholds = objectives.thresholds(name, softbin.budgets.fraction(0.5), 100.0)(LOGITS, LABELS, counts)
    assert np.allclose(np.mean((LOGITS[counts] - thresholds) / 100, 0), 0.5, atol=1e-6)


def test_cross_entropy_is_the_mean_negative_log_likelihood():
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))
    assert value("cross_entropy") == pytest.approx(-log_p[np.arange(12), LABELS].mean(), rel=1e-6)


def test_hinge_is_the_mean_margin_violation():
    scores = np.asarray(LOGITS)
    right = scores[np.arange(12), LABELS]
    rival = np.where(np.eye(3)[LABELS] == 1, -np.inf, scores).max(1)
    assert value("hinge") == pytest.approx(np.maximum(0, 1 + rival - right).mean(), rel=1e-6)


P = np.asarray(jax.nn.softmax(LOGITS))
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
    np.testing.assert_allclose(objective(name).terms(LOGITS, LABELS), terms, rtol=1e-5)


def test_tilted_is_the_logarithm_of_the_mean_exponential_of_cross_entropies():
    assert value("tilted") == pytest.approx(np.log(np.mean(1 / OWN)), rel=1e-6)


SCORES = jnp.array([3.0, 1.0, 2.0, -1.0, 0.5, -2.0])
POSITIVE = jnp.array([1, 0, 1, 1, 0, 0])


def of_scores(name, scores=SCORES, labels=POSITIVE, **setting):
    return objective(name, **setting).loss(jnp.stack([-scores / 4, 3 * scores / 4], 1), labels)


def test_capacity_is_our_loss_of_one_score():
    budget = softbin.budgets.fraction(1 / 3)
    expected = softbin.loss(SCORES[:, None], POSITIVE[:, None], budget=2, temperature=0.1)
    assert float(of_scores("capacity", budget=budget, temperature=0.1)) == pytest.approx(float(expected), rel=1e-6)
    assert float(expected) == pytest.approx((2 + 3) / 12 - 2 / 6, abs=1e-6)  # by precision at 2


def hinges(t):
    return np.maximum(0, 1 + t - np.array([3.0, 2.0, -1.0])).mean()


def test_top_push_has_its_threshold_at_the_largest_score_of_a_negative():
    assert float(of_scores("top_push", budget=None)) == pytest.approx(hinges(1.0), rel=1e-6)


def test_top_mean_has_its_threshold_at_the_mean_of_the_largest_scores():
    assert float(of_scores("top_mean", budget=softbin.budgets.fraction(0.5))) == pytest.approx(hinges(2.0), rel=1e-6)


@pytest.mark.parametrize("share", [1 / 6, 0.5, 1.0])
def test_pat_mat_has_its_threshold_where_the_hinges_of_all_scores_have_the_share_as_their_mean(share):
    t = optimize.brentq(lambda t: np.maximum(0, 1 + np.asarray(SCORES) - t).mean() - share, -9, 9)
    loss = of_scores("pat_mat", budget=softbin.budgets.fraction(share))
    assert float(loss) == pytest.approx(hinges(t), rel=1e-5)


@pytest.mark.parametrize("name", ranking_objectives.RANKINGS)
def test_a_ranking_sees_the_difference_of_two_logits_and_lifts_positives(name):
    budget = None if name == "top_push" else softbin.budgets.fraction(0.5)
    close = 0.1 * SCORES
    gradient = jax.grad(lambda scores: of_scores(name, scores, budget=budget))(close)
    assert np.isfinite(gradient).all()
    assert gradient[3] < 0  # the positive below the threshold


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", ranking_objectives.RANKINGS)
def test_a_ranking_of_a_batch_of_one_class_has_a_finite_gradient(name, label):
    budget = None if name == "top_push" else softbin.budgets.label_count
    gradient = jax.grad(lambda scores: of_scores(name, scores, jnp.full(6, label), budget=budget))(SCORES)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_a_loss_with_terms_is_their_mean_and_with_weights_that_of_some(name):
    loss, terms = objective(name)
    if terms is None:
        assert name in ("hypersimplex", "fenchel_young", "centred_scaled_mse", "tilted", *ranking_objectives.RANKINGS)
        return
    some = jnp.arange(12) % 4 == 0
    assert float(loss(LOGITS, LABELS)) == float(jnp.mean(terms(LOGITS, LABELS)))
    weighted = loss(LOGITS, LABELS, weights=some.astype(float))
    np.testing.assert_allclose(weighted, terms(LOGITS, LABELS)[some].mean(), rtol=1e-6)


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_confident_decisions_have_finite_gradients(name):
    gradient = jax.grad(objective(name).loss)(1e3 * LOGITS, LABELS)
    assert np.isfinite(gradient).all()


def test_class_weights_are_inverse_frequencies_with_mean_1_over_the_examples():
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = objectives.class_weights(labels, 4)
    np.testing.assert_allclose(weights[[1, 3]] / weights[0], [2, 6])
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize(("name", "k"), [("label_count", [1, 0, 3]), ("prior", [2, 1, 1]), ("0.25", [1, 1, 1])])
def test_budgets_by_name(name, k):
    budget = objectives.budget(name, train_labels=np.array([0, 0, 1, 2]), classes=3)
    batch = jnp.eye(3)[jnp.array([0, 2, 2, 2])]
    assert np.allclose(np.broadcast_to(budget(batch, jnp.ones(4)), 3), k)


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
