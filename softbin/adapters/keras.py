"""The loss for Keras 3 on JAX, with a metric, and a layer and a callback that hold its thresholds.

Set the environment variable `KERAS_BACKEND=jax` before Keras is imported for the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

try:
    import keras
except ModuleNotFoundError as error:
    remedy = "pip install keras" if error.name == "keras" else "set KERAS_BACKEND=jax before it is first imported"
    raise ImportError(f"softbin.adapters.keras needs Keras 3 on JAX ({error}): {remedy}") from None

from softbin import budgets
from softbin._engine import shares
from softbin._engine.checks import check_regularizer, check_temperature
from softbin.adapters.running_thresholds import (
    RunningThresholds,
    check_momentum,
    initial_thresholds,
    subtract_thresholds,
    update_thresholds,
)
from softbin.decisions import decision_thresholds, predict
from softbin.losses import Budget, loss
from softbin.regularizers import Regularizer, binary_entropy, euclidean, laplace, normal, tsallis

__all__ = [  # noqa: RUF022 (as the pages show them)
    "HyperSimplexLoss",
    "ZeroOneError",
    "DecisionThresholds",
    "FitThresholds",
]

if keras.backend.backend() != "jax":
    raise ImportError(
        f"softbin.adapters.keras needs Keras on JAX, and its backend is {keras.backend.backend()}: set "
        "KERAS_BACKEND=jax before keras is first imported"
    )

_REGULARIZERS = {repr(regularizer): regularizer for regularizer in (euclidean, binary_entropy, laplace, normal)}


@keras.saving.register_keras_serializable("softbin")
class HyperSimplexLoss(keras.losses.Loss):
    """The HyperSimplex loss for `compile`: :func:`softbin.loss` of each batch, with weights that weigh.

    `softbin.loss` itself cannot be passed to Keras: it is one number for a batch, which Keras would multiply by the
    mean weight of the batch. Here weights, those of classes too, and masks reach the loss itself: a row of weight 2
    acts as two. The model's outputs must be logits, without a softmax or a sigmoid.

    The loss is that of the whole batch, also of a short last one, so take large batches. The loss of an epoch, and the
    result of `evaluate`, is the mean over batches. `gradient_accumulation_steps` is silently wrong for it: its gradient
    is not the mean of the gradients of parts.

    Args:
      budget, temperature, regularizer: as for :func:`softbin.loss`. To save a model, register a budget function of your
        own with Keras.
      name: the name of the loss.
      dtype: as for any loss of Keras.

    Raises:
      TypeError, ValueError: as for :func:`softbin.loss`. Labels are traced, so that one that is out of range, or a
        class number that is not whole, makes the loss NaN.

    Example:
      >>> logits = jnp.array([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0], [0.0, 2.0]])
      >>> labels = jnp.array([[0.0], [0.0], [1.0], [1.0]])  # as Keras may hand them over
      >>> print(f"{HyperSimplexLoss()(labels, logits):.4f}", f"{loss(logits, labels[:, 0].astype(int)):.4f}")
      0.0347 0.0347

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, section 4.
    """

    def __init__(
        self,
        *,
        budget: Budget = budgets.fraction(0.5),
        temperature: float = 1.5,
        regularizer: Regularizer = euclidean,
        name: str = "hypersimplex_loss",
        dtype: Any = None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.settings = _checked(budget, temperature, regularizer)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Float[Array, ""]:
        """The loss of a batch: logits (..., C), or (n, 1) or (n,) for a binary problem.

        Labels are class numbers of any dtype, (...) or (..., 1), or of the shape of the logits, as are weights.
        """
        batch = _batch(y_true, y_pred, sample_weight)
        return loss(batch.logits, batch.labels, where=batch.where, weights=batch.weights, **self.settings._asdict())

    def get_config(self) -> dict[str, Any]:
        """What :meth:`from_config` makes it from."""
        return {**_config(self.settings), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HyperSimplexLoss:
        """The loss of a saved model."""
        return cls(**_from_config(config))


@keras.saving.register_keras_serializable("softbin")
class ZeroOneError(keras.metrics.Metric):
    """The share of examples decided wrongly, each batch with the thresholds of its own logits.

    Plain accuracy compares the logits of classes, whose constants the loss leaves undetermined, and is too low. Watch
    this metric instead in training, where batches are large and alike. With `label_count` it knows how many of each
    class a batch has, so that it is too optimistic about held-out data: judge a final model by its layer
    :class:`DecisionThresholds` and Keras' own accuracies.

    Args:
      budget, temperature, regularizer: those of the loss.
      name: the name of the metric.
      dtype: as for any metric of Keras.

    Raises:
      TypeError, ValueError: as for :class:`HyperSimplexLoss`.

    Example:
      >>> metric = ZeroOneError(temperature=1.0)
      >>> logits = jnp.array([[2.0, 7.0], [1.0, 6.0], [-1.0, 9.0], [-2.0, 8.0]])
      >>> metric.update_state(jnp.array([0, 0, 1, 1]), logits)
      >>> print(metric.result(), jnp.argmax(logits, -1))
      0.0 [1 1 1 1]
    """

    def __init__(
        self,
        *,
        budget: Budget = budgets.fraction(0.5),
        temperature: float = 1.5,
        regularizer: Regularizer = euclidean,
        name: str = "zero_one_error",
        dtype: Any = None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.settings = _checked(budget, temperature, regularizer)
        self.wrong = self.add_variable((), "zeros", name="wrong")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count the wrong decisions of a batch."""
        batch = _batch(y_true, y_pred, sample_weight)
        found = decision_thresholds(
            batch.logits, batch.labels, where=batch.where, weights=batch.weights, **self.settings._asdict()
        )
        chosen = predict(batch.logits, found, self.settings.temperature, regularizer=self.settings.regularizer)
        if batch.labels.ndim < batch.logits.ndim:
            wrong = (chosen != batch.labels).astype(jnp.float32)
        elif batch.logits.ndim == 1:
            wrong = jnp.abs(batch.labels.astype(jnp.float32) - chosen)
        else:
            wrong = 1 - jnp.take_along_axis(batch.labels.astype(jnp.float32), chosen[..., None], -1)[..., 0]
        weights = jnp.ones_like(wrong) if batch.weights is None else batch.weights.astype(wrong.dtype)
        weights = weights if batch.where is None else jnp.where(batch.where, weights, 0)
        self.wrong.assign_add(jnp.sum(wrong * weights))
        self.total.assign_add(jnp.sum(weights))

    def result(self) -> Float[Array, ""]:
        """The share of wrong decisions so far; 0 before any batch."""
        return self.wrong / jnp.maximum(self.total.value, jnp.finfo(jnp.float32).tiny)

    def get_config(self) -> dict[str, Any]:
        """What :meth:`from_config` makes it from."""
        return {**_config(self.settings), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ZeroOneError:
        """The metric of a saved model."""
        return cls(**_from_config(config))


@keras.saving.register_keras_serializable("softbin")
class DecisionThresholds(keras.layers.Layer):
    """The last layer of a classifier under the loss: subtracts thresholds from the logits, so that argmax is right.

    It returns `τ (logits/τ - λ - ψ⁻¹(1/2))`. Decide by `argmax`, or by the sign for a binary problem, as Keras'
    accuracies do (`BinaryAccuracy` with `threshold=0`). The loss is the same with and without this layer. In training
    it averages the thresholds of the batches into `λ`. A layer sees no labels, so with a budget that counts them let
    :class:`FitThresholds` set `λ`, which is better for a final model anyway. Under a policy of mixed precision give it
    `dtype="float32"`, as any layer of logits.

    Args:
      budget, temperature, regularizer: those of the loss. With `budgets.label_count` training leaves `λ` as it is.
      momentum: that of the average, in [0, 1).
      others: keywords of `keras.layers.Layer`.

    Raises:
      TypeError: `budget` is not a number, an array or a callable.
      ValueError: `temperature` is not positive, or `momentum` is outside [0, 1).

    Example:
      >>> logits = jnp.array([[2.0, 7.0], [1.0, 6.0], [-1.0, 9.0], [-2.0, 8.0]])
      >>> layer = DecisionThresholds(temperature=1.0)
      >>> _ = layer(logits, training=True)
      >>> print(layer(logits).argmax(-1), logits.argmax(-1))
      [0 0 1 1] [1 1 1 1]
    """

    settings: "_Settings"
    momentum: float

    @no_type_check  # Keras looks at the arguments, which a wrapper that checks types would hide
    def __init__(
        self,
        *,
        budget: Budget = budgets.fraction(0.5),
        temperature: float = 1.5,
        regularizer: Regularizer = euclidean,
        momentum: float = 0.9,
        **others: Any,
    ):
        super().__init__(**others)
        check_momentum(momentum)
        self.settings = _checked(budget, temperature, regularizer)
        self.momentum = momentum
        self.supports_masking = True

    def build(self, input_shape: Sequence[Any]) -> None:
        """Make the state, in float32 under any policy."""
        classes = input_shape[-1]
        with jax.ensure_compile_time_eval():  # a model that `fit` builds is traced now, and its weights are made later
            initial = initial_thresholds(None if classes == 1 else classes, self.settings.regularizer)
        self.thresholds, self.weight = (
            self.add_weight(
                shape=value.shape,
                initializer=lambda shape, dtype, value=value: jnp.asarray(value, dtype),
                dtype="float32", trainable=False, autocast=False, name=name,
            )
            for name, value in zip(("thresholds", "weight"), initial, strict=True)
        )  # fmt: skip

    def call(self, logits: Any, training: bool | None = None) -> Any:
        """Subtract the thresholds, and in training track them."""
        budget, temperature, regularizer = self.settings
        of_classes = logits[..., 0] if logits.shape[-1] == 1 else logits
        centred = subtract_thresholds(of_classes, self.thresholds.value, temperature, regularizer)
        if training and budget is not budgets.label_count:
            running = update_thresholds(
                RunningThresholds(self.thresholds.value, self.weight.value), of_classes, None, self.momentum,
                where=None, weights=None, axis_name=None, **self.settings._asdict(),
            )  # fmt: skip
            self.thresholds.assign(running.thresholds)
            self.weight.assign(running.weight)
        return centred.reshape(logits.shape)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        """The shape of the logits."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What :meth:`from_config` makes it from."""
        return {**super().get_config(), **_config(self.settings), "momentum": self.momentum}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DecisionThresholds:
        """The layer of a saved model."""
        return cls(**_from_config(config))


class FitThresholds(keras.callbacks.Callback):
    """Fits the thresholds of the model's last layer, :class:`DecisionThresholds`, to a whole data set, after training.

    Averages over batches lag behind the model, and a layer cannot count labels. This callback predicts the data once,
    when `fit` ends, and takes the thresholds of all of it. Give it the training set, or a large part of it, and let it
    be the last callback, after one that restores the best weights.

    Args:
      x, y, sample_weight: the data, as arrays that `fit` takes.
      batch_size: the size of the batches to predict in.

    Raises:
      TypeError: the model's last layer is not :class:`DecisionThresholds`.
    """

    def __init__(self, x: Any, y: Any, sample_weight: Any = None, *, batch_size: int = 1024):
        super().__init__()
        self.data = x, y, sample_weight
        self.batch_size = batch_size

    def on_train_end(self, logs: Any = None) -> None:
        """Fit the thresholds."""
        layer = self.model.layers[-1]
        if not isinstance(layer, DecisionThresholds):
            raise TypeError(f"the last layer of the model must be DecisionThresholds, got {layer!r}")
        x, y, sample_weight = self.data
        centred = self.model.predict(x, batch_size=self.batch_size, verbose=0)
        batch = _batch(jnp.asarray(y), jnp.asarray(centred, jnp.float32), sample_weight)
        found = decision_thresholds(batch.logits, batch.labels, weights=batch.weights, **layer.settings._asdict())
        layer.thresholds.assign_add(found - initial_thresholds(None, layer.settings.regularizer).thresholds)


class _Settings(NamedTuple):
    budget: Any
    temperature: float
    regularizer: Regularizer


class _Batch(NamedTuple):
    """As `softbin.loss` takes it."""

    logits: Float[Array, "..."]
    labels: Any
    where: Any
    weights: Any


def _checked(budget: Any, temperature: Any, regularizer: Any) -> _Settings:
    shares.check_budget(budget)
    check_temperature(temperature)
    check_regularizer(regularizer)
    return _Settings(budget, temperature, regularizer)


def _batch(y_true: Any, y_pred: Any, sample_weight: Any) -> _Batch:
    """Undo what Keras does to shapes and dtypes."""
    where = getattr(y_pred, "_keras_mask", None)
    logits, labels = jnp.asarray(y_pred), jnp.asarray(y_true)
    if logits.ndim > 1 and logits.shape[-1] == 1:
        logits, labels = logits.reshape(-1), labels.reshape(-1)
    examples = logits.shape[:-1] or logits.shape
    if labels.shape == (*examples, 1):
        labels = labels[..., 0]
    if labels.shape == examples and logits.ndim > 1:
        labels = jnp.where(labels == jnp.round(labels), labels, -1).astype(jnp.int32)  # -1 is no class: NaN
    weights = None if sample_weight is None else _of_examples(jnp.asarray(sample_weight), logits.shape, examples)
    return _Batch(logits, labels, None if where is None else _of_examples(where, logits.shape, examples), weights)


def _of_examples(values: Any, shape: tuple[int, ...], examples: tuple[int, ...]) -> Any:
    """Weights or a mask: of each example, where it has one of each row of them."""
    if values.shape in (shape, examples):
        return values
    if values.shape[-1:] == (1,) and values.ndim > 1:
        values = values[..., 0]
    if values.shape == examples[: values.ndim]:
        return jnp.broadcast_to(values.reshape(*values.shape, *[1] * (len(examples) - values.ndim)), examples)
    return values.reshape(examples) if values.size == np.prod(examples) else values


def _config(settings: _Settings) -> dict[str, Any]:
    budget, temperature, regularizer = settings
    if budget is budgets.label_count:
        written: Any = "label_count"
    elif isinstance(budget, budgets.Share):
        written = {"share": np.asarray(budget.shares).tolist()}
    elif callable(budget):
        written = keras.saving.serialize_keras_object(budget)
    else:
        written = np.asarray(budget).tolist()
    if repr(regularizer) not in _REGULARIZERS and not repr(regularizer).startswith("softbin.tsallis"):
        raise ValueError(
            f"only softbin's own regularizers can be saved, got {regularizer!r}: use save_weights, "
            "and build the model in code"
        )
    return {"budget": written, "temperature": np.asarray(temperature).tolist(), "regularizer": repr(regularizer)}


def _from_config(config: dict[str, Any]) -> dict[str, Any]:
    budget, temperature, name = config["budget"], config["temperature"], config["regularizer"]
    if budget == "label_count":
        budget = budgets.label_count
    elif isinstance(budget, dict) and "share" in budget:
        share = budget["share"]
        budget = budgets.prior(share) if isinstance(share, list) else budgets.fraction(share)
    elif isinstance(budget, dict):
        budget = keras.saving.deserialize_keras_object(budget)
    elif isinstance(budget, list):
        budget = np.asarray(budget)
    if isinstance(temperature, list):
        temperature = np.asarray(temperature)
    alpha = name.removeprefix("softbin.tsallis(").removesuffix(")")
    regularizer = _REGULARIZERS[name] if name in _REGULARIZERS else tsallis(float(alpha))
    return {**config, "budget": budget, "temperature": temperature, "regularizer": regularizer}
