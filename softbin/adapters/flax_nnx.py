"""Soft-Binary-Argmax and running decision thresholds as Flax NNX modules."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin import budgets
from softbin.adapters.running_thresholds import (
    RunningThresholds,
    check_momentum,
    initial_thresholds,
    subtract_thresholds,
    update_thresholds,
)
from softbin.arguments import check_temperature
from softbin.losses import Budget
from softbin.operators import soft_binary_argmax
from softbin.regularizers import Regularizer, euclidean


class SoftBinaryArgmax(nnx.Module):
    """A layer that chooses `k` of `n` along an axis: :func:`softbin.soft_binary_argmax`.

    A learned temperature is kept positive by its logarithm, the parameter `log_temperature`.

    Args:
      k: how many to choose, real, in [0, n], or a share, such as `softbin.budgets.fraction(0.1)`.
      temperature: positive; where it is learned, its initial value.
      learn_temperature: whether the temperature is a parameter.
      axis, regularizer, axis_name, straight_through: as for :func:`softbin.soft_binary_argmax`.

    Raises:
      ValueError: the temperature is not positive and finite.

    Example:
      >>> layer = SoftBinaryArgmax(k=2, temperature=2.0, learn_temperature=True)
      >>> print(layer(jnp.array([3.0, 1.0, 2.0, 0.0])), layer.log_temperature[...])
      [1.   0.25 0.75 0.  ] 0.6931472

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, eq. 9.
    """

    def __init__(
        self,
        k: int | float | budgets.Share,
        temperature: int | float = 1.0,
        *,
        learn_temperature: bool = False,
        axis: int | Sequence[int] | None = -1,
        regularizer: Regularizer = euclidean,
        axis_name: Any = None,
        straight_through: bool = False,
    ):
        check_temperature(temperature)
        self.k = k
        self.axis = axis
        self.regularizer = regularizer
        self.axis_name = axis_name
        self.straight_through = straight_through
        self.learn_temperature = learn_temperature
        if learn_temperature:
            self.log_temperature = nnx.Param(jnp.log(jnp.float32(temperature)))
        else:
            self.temperature = temperature

    def __call__(
        self, scores: Float[ArrayLike, "*shape"], *, where: Bool[ArrayLike, "..."] | None = None
    ) -> Float[Array, "*shape"]:
        """Project; shapes, dtypes and errors are those of :func:`softbin.soft_binary_argmax`."""
        return soft_binary_argmax(
            scores,
            self.k,
            jnp.exp(self.log_temperature[...]) if self.learn_temperature else self.temperature,
            axis=self.axis,
            where=where,
            regularizer=self.regularizer,
            axis_name=self.axis_name,
            straight_through=self.straight_through,
        )


class DecisionThresholds(nnx.Module):
    """The last layer of a classifier under `softbin.loss`: tracks thresholds in training, applies them afterwards.

    In training it returns the logits as they are, and averages the batch's :func:`softbin.decision_thresholds` into
    its `nnx.BatchStat` `thresholds`, as `nnx.BatchNorm` averages its moments. At evaluation (`model.eval()`,
    `use_running_average=True`) it subtracts them: it returns `τ (logits/τ - λ - ψ⁻¹(1/2))`, to be decided on as
    usual, by `argmax`, or by the sign where each class is a binary problem.

    The average has no bias towards its start: after one batch it is that batch's thresholds, and before any the
    logits pass unchanged. Thresholds of the whole training set, from :func:`softbin.decision_thresholds`, are those of
    the final model; these lag behind it by about `1 / (1 - momentum)` batches, and cost no pass over the data.

    Args:
      num_classes: C for logits (..., C); None for a binary problem with logits (n,).
      temperature, budget, regularizer, axis_name: those of the loss. A budget that counts needs the labels in training.
      momentum: of the average, in [0, 1).
      use_running_average: evaluation if true; set by `model.train()` and `model.eval()`.

    Raises:
      TypeError: the budget is none.
      ValueError: the temperature is not positive and finite, the momentum is outside [0, 1), or the budget is a share.

    Example:
      >>> logits = jnp.array([[2.0, 7.0], [1.0, 6.0], [-1.0, 9.0], [-2.0, 8.0]])
      >>> layer = DecisionThresholds(2, temperature=1.0, budget=budgets.label_count)
      >>> logits is layer(logits, jnp.array([0, 0, 1, 1]))
      True
      >>> layer.eval()
      >>> print(layer.thresholds[...], layer(logits).argmax(-1), logits.argmax(-1))
      [-0.5  7. ] [0 0 1 1] [1 1 1 1]
    """

    def __init__(
        self,
        num_classes: int | None,
        *,
        temperature: int | float,
        budget: Budget = budgets.fraction(0.5),
        momentum: int | float = 0.9,
        regularizer: Regularizer = euclidean,
        axis_name: Any = None,
        use_running_average: bool = False,
    ):
        budgets.check_budget(budget)
        check_temperature(temperature)
        check_momentum(momentum)
        initial = initial_thresholds(() if num_classes is None else (num_classes,), regularizer)
        self.thresholds = nnx.BatchStat(initial.thresholds)
        self.weight = nnx.BatchStat(initial.weight)
        self.budget = budget
        self.temperature = temperature
        self.momentum = momentum
        self.regularizer = regularizer
        self.axis_name = axis_name
        self.use_running_average = use_running_average

    def __call__(
        self,
        logits: Float[ArrayLike, "*shape"],
        labels: Shaped[ArrayLike, "..."] | None = None,
        *,
        where: Bool[ArrayLike, "..."] | None = None,
        weights: Real[ArrayLike, "..."] | None = None,
        use_running_average: bool | None = None,
    ) -> Float[Array, "*shape"]:
        """Track or apply; `labels`, `where` and `weights` as for :func:`softbin.loss`, in training only."""
        logits = jnp.asarray(logits)
        if self.use_running_average if use_running_average is None else use_running_average:
            return subtract_thresholds(logits, self.thresholds[...], self.temperature, self.regularizer)
        running = update_thresholds(
            RunningThresholds(self.thresholds[...], self.weight[...]),
            logits,
            labels,
            self.momentum,
            budget=self.budget,
            temperature=self.temperature,
            where=where,
            weights=weights,
            regularizer=self.regularizer,
            axis_name=self.axis_name,
        )
        self.thresholds[...], self.weight[...] = running
        return logits

    def set_view(self, use_running_average: bool | None = None):
        """For `nnx.view`, as in `nnx.BatchNorm`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average
