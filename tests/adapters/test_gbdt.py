import pickle
from functools import partial

import jax
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression

import softbin
from softbin import budgets
from softbin.adapters.gbdt import lightgbm_objective, xgboost_objective
from tests.libraries import BOOSTERS, lightgbm, needs_lightgbm

OBJECTIVES = {"lightgbm": lightgbm_objective, "xgboost": xgboost_objective}
LOSSES = {"squared": softbin.loss, "fenchel_young": softbin.fenchel_young_loss}
RNG = np.random.default_rng(0)
N = 40
SCORES = {"binary": RNG.standard_normal(N), "multiclass": RNG.standard_normal((N, 3))}
LABELS = {"binary": RNG.integers(0, 2, N).astype(float), "multiclass": RNG.integers(0, 3, N).astype(float)}
WEIGHTS = RNG.integers(1, 4, N).astype(float)
ROUNDS = 10
QUIET = {
    "lightgbm": {"verbosity": -1, "seed": 0, "num_threads": 1},
    "xgboost": {"verbosity": 0, "seed": 0, "nthread": 1},
}
NO_PENALTY = {  # and splits between any two values: which ones fewer bins allow may depend on how often rows repeat
    "lightgbm": {"min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0, "max_depth": 3, "min_data_in_bin": 1},
    "xgboost": {"reg_lambda": 0, "min_child_weight": 0, "max_depth": 3, "max_bin": 1024},
}
DATA = {"binary": load_breast_cancer(return_X_y=True), "multiclass": load_wine(return_X_y=True)}

each_problem = pytest.mark.parametrize("problem", SCORES)
each_library = pytest.mark.parametrize("library", OBJECTIVES)
each_training = pytest.mark.parametrize("library", BOOSTERS)


class Data:
    """What the libraries' own interfaces hand over."""

    def __init__(self, labels, weights=None):
        self.labels, self.weights = labels, weights

    def get_label(self):
        return self.labels

    def get_weight(self):
        return self.weights


def unit(loss, n, temperature):
    return n * (temperature**2 if loss == "squared" else temperature)


@pytest.mark.parametrize(  # every two of these values once
    ("problem", "loss", "weights", "budget"),
    [
        ("binary", "squared", None, budgets.label_count),
        ("binary", "fenchel_young", WEIGHTS, budgets.fraction(0.5)),
        ("multiclass", "squared", WEIGHTS, budgets.fraction(0.5)),
        ("multiclass", "fenchel_young", None, budgets.fraction(0.5)),
        ("multiclass", "fenchel_young", WEIGHTS, budgets.label_count),
    ],
)
def test_the_gradient_is_that_of_the_core(problem, loss, weights, budget, x64):
    scores, labels, temperature = SCORES[problem], LABELS[problem], 0.8
    n = N if weights is None else weights.sum()
    core = partial(LOSSES[loss], budget=budget, temperature=temperature, weights=weights)
    expected = unit(loss, n, temperature) * np.asarray(jax.jit(jax.grad(core))(scores, labels.astype(int)))
    row = np.ones(N) if weights is None else weights
    of_rows = np.broadcast_to(row.reshape(-1, *[1] * (scores.ndim - 1)), scores.shape)
    for make in OBJECTIVES.values():
        objective = make(loss, budget=budget, temperature=temperature)
        for arguments in ((scores, Data(labels, weights)), (labels, scores, weights)):
            gradient, hessian = objective(*arguments)
            assert gradient.dtype == hessian.dtype == np.float32
            assert gradient.shape == hessian.shape == scores.shape
            np.testing.assert_allclose(gradient, expected, atol=1e-6)
            np.testing.assert_array_equal(hessian, of_rows)


@pytest.mark.parametrize(  # every two of these values once
    ("loss", "weights", "regularizer"),
    [
        ("squared", None, softbin.euclidean),
        ("squared", WEIGHTS, softbin.binary_entropy),
        ("fenchel_young", None, softbin.binary_entropy),
        ("fenchel_young", WEIGHTS, softbin.euclidean),
    ],
)
def test_gauss_newton_is_the_diagonal_of_its_matrix(loss, weights, regularizer, x64):
    scores, labels, temperature = SCORES["binary"], LABELS["binary"], 1.7
    w = np.ones(N) if weights is None else weights
    keywords = {"temperature": temperature, "regularizer": regularizer}
    if loss == "squared":
        project = partial(softbin.soft_binary_argmax, k=w @ labels, weights=w, **keywords)
        jacobian = np.asarray(jax.jit(jax.jacobian(project))(scores))
        expected = temperature**2 * np.diag(jacobian.T @ (w[:, None] * jacobian))
    else:
        core = partial(softbin.fenchel_young_loss, labels=labels, weights=weights, **keywords)
        expected = unit(loss, w.sum(), temperature) * np.diag(jax.jit(jax.hessian(core))(scores))
    _, hessian = lightgbm_objective(loss, hessian="gauss_newton", **keywords)(labels, scores, weights)
    np.testing.assert_allclose(hessian, expected, atol=1e-6)


def test_thresholds_of_the_last_call_are_tracked():
    objective = lightgbm_objective()
    assert objective.thresholds is None
    for shift in (0, 3):
        objective(LABELS["multiclass"], SCORES["multiclass"] + shift)
        expected = softbin.decision_thresholds(
            SCORES["multiclass"] + shift, LABELS["multiclass"].astype(int), budget=budgets.label_count, temperature=1.0
        )
        np.testing.assert_allclose(objective.thresholds, expected, rtol=1e-5)


def test_a_budget_may_be_a_number_for_each_class():
    scores, labels, counts = np.float32(SCORES["multiclass"]), LABELS["multiclass"].astype(int), np.array([9, 13, 18])
    objective = lightgbm_objective(budget=counts)
    gradient, _ = objective(labels, scores)
    gradient_of_core = jax.jit(jax.grad(lambda x: softbin.loss(x, labels, budget=counts, temperature=1.0)))
    expected = N * np.asarray(gradient_of_core(scores))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    np.testing.assert_allclose(objective.decide(scores, labels).thresholds, objective.thresholds, rtol=1e-6)


def train_native(library, problem, objective, features, labels, **parameters):
    parameters |= QUIET[library] | ({"num_class": 3} if problem == "multiclass" else {})
    history = {}
    if library == "lightgbm":
        data = lightgbm.Dataset(features, labels)
        booster = lightgbm.train(
            {**parameters, "objective": objective, "metric": "none"}, data, ROUNDS,
            valid_sets=[data], valid_names=["train"], feval=objective.zero_one_error,
            callbacks=[lightgbm.record_evaluation(history)],
        )  # fmt: skip
        return booster.predict(features, raw_score=True), history["train"]["zero_one_error"]
    data = xgboost.DMatrix(features, labels)
    booster = xgboost.train(
        {**parameters, "disable_default_eval_metric": True}, data, ROUNDS, obj=objective,
        custom_metric=objective.zero_one_error, evals=[(data, "train")], evals_result=history, verbose_eval=False,
    )  # fmt: skip
    return booster.predict(data, output_margin=True), history["train"]["zero_one_error"]


def train_by_scikit_learn(library, objective, features, labels):
    if library == "lightgbm":
        model = lightgbm.LGBMClassifier(objective=objective, n_estimators=ROUNDS, **QUIET[library])
        model.fit(features, labels, eval_set=[(features, labels)], eval_metric=objective.zero_one_error)
        return model.predict(features, raw_score=True), model.evals_result_["training"]["zero_one_error"]
    model = xgboost.XGBClassifier(
        objective=objective, n_estimators=ROUNDS, learning_rate=0.1, eval_metric=objective.zero_one_error,
        **QUIET[library],
    )  # fmt: skip
    model.fit(features, labels, eval_set=[(features, labels)], verbose=False)
    return model.predict(features, output_margin=True), model.evals_result()["validation_0"]["zero_one_error"]


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")  # its successor is not in older versions
@each_training
@each_problem
def test_both_interfaces_train_the_same_model_and_decide_well(library, problem):
    features, labels = DATA[problem]
    objective = OBJECTIVES[library]()
    scores, errors = train_native(library, problem, objective, features, labels, learning_rate=0.1)
    by_scikit_learn, other_errors = train_by_scikit_learn(library, OBJECTIVES[library](), features, labels)
    np.testing.assert_allclose(by_scikit_learn - by_scikit_learn[0], scores - scores[0], atol=1e-5)  # bases differ
    np.testing.assert_allclose(other_errors, errors)
    decisions = objective.decide(scores, labels)
    assert np.mean(decisions.predict(scores) != labels) < 0.05
    assert len(errors) == ROUNDS
    assert errors[-1] == pytest.approx(np.mean(decisions.predict(scores) != labels), abs=0.02)  # a round older


@each_training
def test_temperature_and_repeated_rows_leave_the_decisions_as_they_are(library):
    features, labels = DATA["binary"]
    once, _ = train_native(library, "binary", OBJECTIVES[library](), features, labels, **NO_PENALTY[library])
    warm = OBJECTIVES[library](temperature=4.0)
    scores, _ = train_native(
        library, "binary", warm, np.tile(features, (2, 1)), np.tile(labels, 2), **NO_PENALTY[library]
    )
    np.testing.assert_allclose(scores[: len(labels)] / 4 - scores[0] / 4, once - once[0], atol=1e-4)


def test_a_calibrator_gives_probabilities():
    features, labels = DATA["multiclass"]
    objective = xgboost_objective()
    scores, _ = train_native("xgboost", "multiclass", objective, features, labels)
    decisions = objective.decide(scores, labels, calibrator=LogisticRegression())
    probabilities = decisions.predict_proba(scores)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert -np.mean(np.log(probabilities[np.arange(len(labels)), labels])) < 0.2
    with pytest.raises(ValueError, match=r"no probabilities without a calibrator: pass one to decide"):
        objective.decide(scores, labels).predict_proba(scores)


def replaced(labels, value):
    labels = labels.copy()
    labels[7] = value
    return labels


BAD = {
    "not binary": ("binary", replaced(LABELS["binary"], 2), None, "labels must be 0 or 1, got 2.0 in row 7"),
    "minus one": ("binary", replaced(LABELS["binary"], -1), None, "labels must be 0 or 1, got -1.0 in row 7"),
    "no class": ("multiclass", replaced(LABELS["multiclass"], 3), None, "labels must be 0, ..., 2, got 3.0 in row 7"),
    "a fraction": ("multiclass", replaced(LABELS["multiclass"], 0.5), None, "labels must be 0, ..., 2, got 0.5 in row"),
    "NaN": ("binary", replaced(LABELS["binary"], np.nan), None, "labels must be 0 or 1, got nan in row 7"),
    "one class": ("binary", np.ones(N), None, f"all {N} labels are 1: there is nothing to separate"),
    "short weights": (
        "binary",
        LABELS["binary"],
        np.ones(3),
        r"sample_weight with shape \(3,\) must have one entry for",
    ),
    "bad weights": (
        "binary",
        LABELS["binary"],
        replaced(WEIGHTS, np.nan),
        "sample_weight must be finite and not negative, got nan in row 7",
    ),
}


@each_library
@pytest.mark.parametrize(("problem", "labels", "weights", "message"), BAD.values(), ids=BAD)
def test_bad_rows_are_named_before_training_starts(library, problem, labels, weights, message):
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[library]()(labels, SCORES[problem], weights)


@pytest.mark.parametrize(
    ("error", "keywords", "message"),
    [
        (ValueError, {"loss": "hinge"}, "unknown loss 'hinge': choose one of squared, fenchel_young"),
        (ValueError, {"hessian": "full"}, "unknown hessian 'full': choose one of unit, gauss_newton"),
        (ValueError, {"temperature": 0.0}, "temperature must be positive"),
        (ValueError, {"budget": 0.5}, r"pass softbin.budgets.fraction\(0.5\)"),
        (ValueError, {"budget": -1}, r"budget must be in \[0, n\], got -1"),
        (TypeError, {"budget": "label_count"}, "one of softbin.budgets.label_count, .*, got 'label_count'"),
    ],
)
def test_an_unknown_setting_is_named(error, keywords, message, no_shape_checks):
    for make in OBJECTIVES.values():
        with pytest.raises(error, match=message):
            make(**keywords)


def test_the_metric_needs_its_objective():
    with pytest.raises(ValueError, match="train with that objective"):
        lightgbm_objective().zero_one_error(LABELS["binary"], SCORES["binary"])


FOLDS = [(np.arange(N // 2), np.arange(N // 2, N)), (np.arange(N // 2, N), np.arange(N // 2))]


def cross_validate(library, objective, metric):
    features, labels = DATA["binary"]
    if library == "lightgbm":
        data, parameters = lightgbm.Dataset(features, labels), {"objective": objective, "metric": "none"}
        return lightgbm.cv({**QUIET[library], **parameters}, data, 3, folds=FOLDS, feval=metric)
    data, parameters = xgboost.DMatrix(features, labels), {**QUIET[library], "disable_default_eval_metric": True}
    return xgboost.cv(parameters, data, 3, folds=FOLDS, obj=objective, custom_metric=metric)


@each_training
def test_the_metric_refuses_folds_that_share_an_objective(library):
    objective = OBJECTIVES[library]()
    with pytest.raises(ValueError, match="2 training sets, as of the folds of a cross-validation"):
        cross_validate(library, objective, objective.zero_one_error)


def test_one_objective_may_train_on_one_set_after_another():
    objective = lightgbm_objective()
    for labels in (LABELS["binary"], LABELS["binary"][::-1]):
        for _ in range(3):
            objective(labels, SCORES["binary"])
        assert 0 <= objective.zero_one_error(labels, SCORES["binary"])[1] <= 1


def test_folds_with_equal_labels_are_told_apart_by_their_data_sets():
    objective, folds = lightgbm_objective(), [Data(LABELS["binary"]), Data(LABELS["binary"])]
    for fold in folds:
        objective(SCORES["binary"], fold)
    with pytest.raises(ValueError, match="2 training sets"):
        objective.zero_one_error(SCORES["binary"], folds[0])


def test_a_model_that_is_saved_keeps_the_thresholds():
    objective, data = lightgbm_objective(), Data(LABELS["binary"])
    objective(SCORES["binary"], data)
    loaded = pickle.loads(pickle.dumps(objective))
    np.testing.assert_array_equal(loaded.thresholds, objective.thresholds)
    loaded(SCORES["binary"], data)


@needs_lightgbm
def test_parameters_without_effect_are_named():
    parameters = {"objective": lightgbm_objective(), "metric": "none", **QUIET["lightgbm"]}
    data = lightgbm.Dataset(*DATA["binary"])
    with pytest.warns(UserWarning, match="is_unbalance, neg_subsample: without effect .* pass weights of the rows"):
        lightgbm.train({**parameters, "is_unbalance": True, "neg_subsample": 0.5}, data, 1)


def test_parts_of_the_rows_are_refused():
    data = Data(LABELS["binary"])
    data.params = {"num_machines": 2}
    with pytest.raises(ValueError, match="the rows are on 2 machines, and the objective sees those of one"):
        lightgbm_objective()(SCORES["binary"], data)
