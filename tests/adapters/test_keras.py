from importlib.util import find_spec, module_from_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin import budgets
from tests.libraries import keras

if keras is None:
    pytest.skip("Keras is not installed: pip install keras", allow_module_level=True)

from softbin.adapters.keras import DecisionThresholds, FitThresholds, HyperSimplexLoss, ZeroOneError

RNG = np.random.default_rng(0)
N, BATCH = 42, 16
FEATURES = RNG.normal(size=(N, 4)).astype(np.float32)
LABELS = {
    "binary": (FEATURES[:, 0] + RNG.normal(size=N) > 0).astype(int),
    "multiclass": (FEATURES[:, :3] + RNG.normal(size=(N, 3))).argmax(1),
}
LOGITS = {"binary": np.float32(RNG.normal(size=(N, 1))), "multiclass": np.float32(RNG.normal(size=(N, 3)))}
WEIGHTS = RNG.integers(0, 4, N).astype(np.float32)
SETTINGS = {"budget": budgets.label_count, "temperature": 0.8}

each_problem = pytest.mark.parametrize("problem", LABELS)
each_weighting = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])


def network(problem, *layers):
    dense = keras.layers.Dense(LOGITS[problem].shape[1], kernel_initializer="zeros")
    return keras.Sequential([keras.layers.Input((4,)), dense, *layers])


@pytest.fixture
def policy():
    """The policy of all layers, as it was before."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@each_problem
@each_weighting
def test_loss_and_gradient_are_softbins_whatever_form_the_labels_have(problem, weights):
    logits, labels = LOGITS[problem], LABELS[problem]
    plain = logits[:, 0] if problem == "binary" else logits
    expected = jax.value_and_grad(softbin.loss)(plain, labels, weights=weights, **SETTINGS)
    found = jax.jit(jax.value_and_grad(lambda logits, *batch: HyperSimplexLoss(**SETTINGS)(batch[0], logits, batch[1])))
    forms = [labels, labels.astype(np.float32)[:, None]]
    if problem == "multiclass":
        forms.append(np.eye(3, dtype=np.float32)[labels])
    for form in forms:
        for given in (weights, None if weights is None else weights[:, None]):
            value, gradient = found(logits, form, given)
            np.testing.assert_allclose(value, expected[0], rtol=1e-6)
            np.testing.assert_allclose(gradient.reshape(plain.shape), expected[1], atol=1e-7)


def steps(problem, labels, weights, rate):
    """Gradient descent by hand, on batches in their order; the last is short."""
    n_classes = LOGITS[problem].shape[1]
    params = jnp.zeros((4, n_classes)), jnp.zeros(n_classes)

    def of_batch(params, rows):
        logits = FEATURES[rows] @ params[0] + params[1]
        logits = logits[:, 0] if n_classes == 1 else logits
        return softbin.loss(logits, labels[rows], weights=None if weights is None else weights[rows], **SETTINGS)

    for start in range(0, N, BATCH):
        gradient = jax.grad(of_batch)(params, slice(start, start + BATCH))
        params = jax.tree.map(lambda value, slope: value - rate * slope, params, gradient)
    return params, of_batch


@pytest.mark.parametrize(
    ("problem", "weighting"),
    [("binary", "sample_weight"), *(("multiclass", kind) for kind in ("none", "sample_weight", "class_weight"))],
)
def test_fit_takes_the_steps_of_softbin_on_each_batch(problem, weighting):
    labels = LABELS[problem]
    weights = {"none": None, "sample_weight": WEIGHTS, "class_weight": np.where(labels == 1, 3, 1)}[weighting]
    given = {"sample_weight": {"sample_weight": WEIGHTS}, "class_weight": {"class_weight": {0: 1.0, 1: 3.0}}}
    model = network(problem)
    model.compile(keras.optimizers.SGD(0.7), HyperSimplexLoss(**SETTINGS))
    history = model.fit(
        FEATURES, labels[:, None].astype(np.float32), batch_size=BATCH, shuffle=False, verbose=0,
        validation_data=(FEATURES, labels), validation_batch_size=N, **given.get(weighting, {}),
    ).history  # fmt: skip
    params, _ = steps(problem, labels, weights, 0.7)
    for found, expected in zip(model.get_weights(), params, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    _, unweighted = steps(problem, labels, None, 0.7)
    np.testing.assert_allclose(history["val_loss"], [unweighted(params, slice(None))], rtol=1e-5)
    parts = [slice(start, start + BATCH) for start in range(0, N, BATCH)]
    mean = np.average([unweighted(params, part) for part in parts], weights=[BATCH, BATCH, N - 2 * BATCH])
    np.testing.assert_allclose(model.evaluate(FEATURES, labels, batch_size=BATCH, verbose=0), mean, rtol=1e-5)


def test_masked_steps_of_a_sequence_do_not_count():
    logits, labels = jnp.asarray(RNG.normal(size=(6, 5, 3)), jnp.float32), RNG.integers(0, 3, (6, 5))
    where, weights = RNG.random((6, 5)) < 0.7, np.arange(6.0, dtype=np.float32)
    spread = np.broadcast_to(weights[:, None], (6, 5))
    expected = softbin.loss(logits, labels, where=where, weights=spread, **SETTINGS)
    logits._keras_mask = where
    np.testing.assert_allclose(HyperSimplexLoss(**SETTINGS)(labels, logits, weights), expected, rtol=1e-6)


def test_a_label_that_is_no_class_makes_the_loss_nan():
    loss = jax.jit(HyperSimplexLoss(**SETTINGS))
    for wrong in (3.0, -1.0, 0.5):
        labels = LABELS["multiclass"].astype(np.float32)
        labels[7] = wrong
        assert np.isnan(loss(labels, LOGITS["multiclass"]))


@pytest.mark.parametrize(("problem", "weights"), [("binary", WEIGHTS), ("multiclass", WEIGHTS), ("multiclass", None)])
def test_the_metric_decides_by_thresholds(problem, weights):
    logits, labels = LOGITS[problem], LABELS[problem]
    plain = logits[:, 0] if problem == "binary" else logits
    metric = ZeroOneError(**SETTINGS)
    errors, counts = [], []
    for rows in (slice(0, 30), slice(30, N)):
        of_rows = np.ones(N)[rows] if weights is None else weights[rows]
        given = None if weights is None else of_rows
        thresholds = softbin.decision_thresholds(plain[rows], labels[rows], weights=given, **SETTINGS)
        errors.append(np.sum(of_rows * (softbin.predict(plain[rows], thresholds, 0.8) != labels[rows])))
        counts.append(of_rows.sum())
        metric.update_state(labels[rows, None].astype(np.float32), logits[rows], given)
    np.testing.assert_allclose(metric.result(), sum(errors) / sum(counts), rtol=1e-6)
    metric.reset_state()
    if problem == "multiclass":
        for rows in (slice(0, 30), slice(30, N)):
            metric.update_state(np.eye(3)[labels[rows]], logits[rows], None if weights is None else weights[rows])
        np.testing.assert_allclose(metric.result(), sum(errors) / sum(counts), rtol=1e-6)


@each_problem
def test_a_layer_tracks_thresholds_and_a_callback_fits_them(problem):
    settings = {"budget": budgets.fraction(0.4), "temperature": 0.8}
    layer = DecisionThresholds(**settings, momentum=0.0)
    logits = jnp.asarray(LOGITS[problem])
    plain = logits[:, 0] if problem == "binary" else logits
    np.testing.assert_array_equal(layer(logits), logits)
    layer(logits, training=True)
    expected = softbin.decision_thresholds(plain, **settings)
    np.testing.assert_allclose(layer.thresholds.value, expected, rtol=1e-6)
    decided = np.array(layer(logits))
    decided = decided[:, 0] > 0 if problem == "binary" else decided.argmax(1)
    np.testing.assert_array_equal(decided, softbin.predict(plain, expected, 0.8))

    dense = keras.layers.Dense(LOGITS[problem].shape[1], kernel_initializer="zeros")
    model = keras.Sequential([dense, DecisionThresholds(**SETTINGS)])  # without an input: `fit` builds it
    model.compile(keras.optimizers.SGD(1.0), HyperSimplexLoss(**SETTINGS))
    labels = LABELS[problem]
    fit = FitThresholds(FEATURES, labels, WEIGHTS)
    model.fit(FEATURES, labels, sample_weight=WEIGHTS, batch_size=BATCH, epochs=2, verbose=0, callbacks=[fit])
    kernel, bias, thresholds, _ = model.get_weights()
    logits = FEATURES @ kernel + bias
    logits = logits[:, 0] if problem == "binary" else logits
    expected = softbin.decision_thresholds(logits, labels, weights=WEIGHTS, **SETTINGS)
    np.testing.assert_allclose(thresholds, expected, atol=1e-5)


BUDGETS = {
    "label_count": budgets.label_count,
    "fraction": budgets.fraction(0.3),
    "prior": budgets.prior([0.2, 0.3, 0.5]),
    "number": 7,
    "numbers": np.array([3, 4, 5]),
}


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("regularizer", [softbin.euclidean, softbin.normal, softbin.tsallis(1.5)], ids=repr)
def test_settings_come_back_from_their_config(budget, regularizer):
    settings = {"budget": budget, "temperature": 0.7, "regularizer": regularizer}
    for make in (HyperSimplexLoss, ZeroOneError, DecisionThresholds):
        made = make(**settings, name="given")
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
        assert again.name == "given"
        assert again.settings.regularizer == regularizer
        np.testing.assert_equal(again.settings[:2], made.settings[:2])


def test_a_regularizer_of_ones_own_cannot_be_saved():
    own = softbin.Regularizer(softbin.normal.penalty, softbin.normal.inverse_link, softbin.normal.parts, 0.0, 1.0)
    with pytest.raises(ValueError, match="only softbin's own regularizers can be saved"):
        HyperSimplexLoss(regularizer=own).get_config()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_saved_model_is_loaded_and_trained_on(precision, policy, tmp_path):
    policy(precision)
    model = network("multiclass", DecisionThresholds(temperature=1.5, dtype="float32"))
    model.compile(
        keras.optimizers.SGD(1.0), HyperSimplexLoss(), metrics=["sparse_categorical_accuracy"],
        weighted_metrics=[ZeroOneError()], steps_per_execution=2,
    )  # fmt: skip
    labels = LABELS["multiclass"]
    losses = model.fit(FEATURES, labels, batch_size=BATCH, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    predicted = model.predict(FEATURES, batch_size=BATCH, verbose=0)
    assert predicted.dtype == np.float32
    np.testing.assert_array_equal(loaded.predict(FEATURES, batch_size=BATCH, verbose=0), predicted)
    before, after = (one.evaluate(FEATURES, labels, verbose=0, return_dict=True) for one in (model, loaded))
    assert before == pytest.approx(after)
    assert after["sparse_categorical_accuracy"] > 0.5
    loaded.fit(FEATURES, labels, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize(
    ("error", "make", "message"),
    [
        (ValueError, lambda: HyperSimplexLoss(budget=0.5), r"pass softbin.budgets.fraction\(0.5\)"),
        (ValueError, lambda: ZeroOneError(temperature=0.0), "temperature must be positive"),
        (ValueError, lambda: DecisionThresholds(momentum=1.0), r"momentum must be in \[0, 1\)"),
        (TypeError, lambda: HyperSimplexLoss(regularizer="euclidean"), "regularizer"),
    ],
)
def test_what_cannot_be_is_named(error, make, message, no_shape_checks):
    with pytest.raises(error, match=message):
        make()


def test_the_callback_needs_the_layer():
    model = network("binary")
    model.compile("sgd", HyperSimplexLoss())
    with pytest.raises(TypeError, match="the last layer of the model must be DecisionThresholds"):
        model.fit(FEATURES, LABELS["binary"], verbose=0, callbacks=[FitThresholds(FEATURES, LABELS["binary"])])


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    spec = find_spec("softbin.adapters.keras")
    with pytest.raises(ImportError, match="its backend is torch: set KERAS_BACKEND=jax before keras is first imported"):
        spec.loader.exec_module(module_from_spec(spec))
