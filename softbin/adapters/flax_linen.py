"""Choices with memory as Flax Linen modules: Soft-Binary-Argmax, top-k, balanced routing, and decision thresholds.

They take the arguments of their siblings in :mod:`softbin.adapters.flax_nnx`, in the same order. `use_running_average`
must be given either to the module or in the call, as for `nn.BatchNorm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin import budgets
from softbin._engine import shares
from softbin._engine.arguments import Count
from softbin._engine.checks import check_floating, check_size, check_temperature
from softbin.adapters.learned_shares import logit_of_share
from softbin.adapters.running_cutoffs import (
    RunningCutoffs,
    initial_cutoffs,
    keep_above,
    keep_largest,
    track_largest,
)
from softbin.adapters.running_thresholds import (
    RunningThresholds,
    check_classes,
    check_momentum,
    initial_thresholds,
    subtract_thresholds,
    update_thresholds,
)
from softbin.losses import Budget
from softbin.operators import soft_binary_argmax
from softbin.regularizers import Regularizer, euclidean
from softbin.routing import gates, quantile_bias, router_scores

__all__ = ["SoftBinaryArgmax", "TopK", "BalancedTopK", "DecisionThresholds"]  # noqa: RUF022 (as the pages show them)


class SoftBinaryArgmax(nn.Module):
    """A layer that chooses `k` of `n` along an axis: :func:`softbin.soft_binary_argmax`.

    A learned temperature stays positive, since the parameter, `log_temperature`, is its logarithm. A learned share
    stays between 0 and 1, since the parameter, `logit_share`, is its logit.

    Attributes:
      k: how many to choose, real, in [0, n], or a share, such as `softbin.budgets.fraction(0.1)`.
      temperature: positive; if it is learned, its initial value.
      learn_temperature: whether the temperature is a parameter.
      learn_k: whether the share is a parameter; `k` is then its initial value, such as `softbin.budgets.fraction(0.1)`.
      axis, regularizer, axis_name, straight_through: as for :func:`softbin.soft_binary_argmax`.

    Example:
      >>> import jax
      >>> scores = jnp.array([3.0, 1.0, 2.0, 0.0])
      >>> layer = SoftBinaryArgmax(k=2, temperature=2.0, learn_temperature=True)
      >>> y, variables = layer.init_with_output(jax.random.key(0), scores)
      >>> print(y, variables["params"]["log_temperature"])
      [1.   0.25 0.75 0.  ] 0.6931472

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, eq. 9.
    """

    k: int | float | budgets.Share
    temperature: int | float = 1.0
    _: KW_ONLY
    learn_temperature: bool = False
    learn_k: bool = False
    axis: int | Sequence[int] | None = -1
    regularizer: Regularizer = euclidean
    axis_name: Any = None
    straight_through: bool = False

    @nn.compact
    def __call__(
        self, scores: Float[ArrayLike, "*shape"], *, where: Bool[ArrayLike, "..."] | None = None
    ) -> Float[Array, "*shape"]:
        """Project; shapes, dtypes and errors are those of :func:`softbin.soft_binary_argmax`."""
        check_temperature(self.temperature)
        temperature: Any = self.temperature
        if self.learn_temperature:
            initial = nn.initializers.constant(jnp.log(temperature))
            temperature = jnp.exp(self.param("log_temperature", initial, (), jnp.float32))
        k: Any = self.k
        if self.learn_k:
            k = budgets.fraction(nn.sigmoid(self.param("logit_share", lambda key: logit_of_share(self.k))))
        return soft_binary_argmax(
            scores,
            k,
            temperature,
            axis=self.axis,
            where=where,
            regularizer=self.regularizer,
            axis_name=None if self.is_initializing() else self.axis_name,
            straight_through=self.straight_through,
        )


class TopK(nn.Module):
    """A layer that keeps the `k` largest values, and at evaluation those above the average cutoff of training.

    As :class:`softbin.adapters.flax_nnx.TopK`, which says more, with `cutoffs` in the collection `batch_stats`.

    Attributes:
      k: how many to keep, whole, or a share, such as `softbin.budgets.fraction(0.02)`.
      axis, axis_name: as for :func:`softbin.binary_argmax`.
      batch_axis_name: mapped axes over which the groups are split.
      momentum: of the average, in [0, 1).
      shape: the shape of the cutoffs: the last dimensions of `x` without `axis`. Over the others, cutoffs are averaged.
      magnitude: keep the `k` largest `|x|`, with their signs; at evaluation, where `|x| > cutoffs`.
      exact: choose exactly `k` at evaluation too; otherwise evaluation does not use `k`.
      use_running_average: evaluation if true; here or in the call.

    Example:
      >>> import jax
      >>> latents = jnp.array([[3.0, 1.0, 0.5], [4.0, 5.0, 0.1]])
      >>> layer = TopK(k=3, axis=None)
      >>> variables = layer.init(jax.random.key(0), latents, use_running_average=True)
      >>> kept, variables = layer.apply(variables, latents, use_running_average=False, mutable="batch_stats")
      >>> print(kept.tolist(), variables["batch_stats"]["cutoffs"])
      [[3.0, 0.0, 0.0], [4.0, 5.0, 0.0]] 2.0
    """

    k: int | budgets.Share
    _: KW_ONLY
    axis: int | Sequence[int] | None = -1
    momentum: int | float = 0.99
    shape: tuple[int, ...] = ()
    axis_name: Any = None
    batch_axis_name: Any = None
    magnitude: bool = False
    exact: bool = False
    use_running_average: bool | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[ArrayLike, "*shape"],
        *,
        where: Bool[ArrayLike, "*shape"] | None = None,
        k: Count | None = None,
        use_running_average: bool | None = None,
    ) -> Float[Array, "*shape"]:
        """Keep the largest values of `x`, and set the others to 0.

        Entries where `where` is false become 0; where fewer than `k` are left, all of these are kept. A `k` given here
        replaces the layer's in training, and at evaluation with `exact`.

        Raises:
          TypeError: `x` is not floating point, `where` is not boolean, or `momentum` is not a number.
          ValueError: `momentum` is outside [0, 1), or `shape` does not fit.
        """
        check_momentum(self.momentum)
        use_running_average = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        initial = initial_cutoffs(self.shape)
        cutoffs = self.variable("batch_stats", "cutoffs", lambda: initial.cutoffs)
        weight = self.variable("batch_stats", "weight", lambda: initial.weight)
        k = self.k if k is None else k
        running = RunningCutoffs(cutoffs.value, weight.value)
        settings: dict[str, Any] = {"axis": self.axis, "where": where, "magnitude": self.magnitude}
        if self.is_initializing() or (use_running_average and not self.exact):
            return keep_above(x, running, **settings)
        if use_running_average:
            return keep_largest(x, k, axis_name=self.axis_name, **settings)
        names = {"axis_name": self.axis_name, "batch_axis_name": self.batch_axis_name}
        kept, running = track_largest(x, k, running, self.momentum, **settings, **names)
        cutoffs.value, weight.value = running
        return kept


class BalancedTopK(nn.Module):
    """A router that sends each token to `k` experts, and balances their load without an auxiliary loss.

    As :class:`softbin.adapters.flax_nnx.BalancedTopK`, which says more, with `bias` in the collection `batch_stats`.

    Attributes:
      num_experts: the number of experts.
      k: how many experts a token goes to, whole, at least 1 and less than `num_experts`.
      gate: `"softmax"`, or `"sigmoid"`.
      scale: what the gates of a token add up to, positive.
      axis_name: mapped axes over which the tokens are split.
      use_running_average: evaluation if true; here or in the call.

    Example:
      >>> import jax
      >>> logits = jnp.array([[3.0, 1.0, 0.0], [2.0, 1.5, 0.1], [4.0, 1.0, 3.0]])
      >>> router = BalancedTopK(num_experts=3, k=1)
      >>> variables = router.init(jax.random.key(0), logits, use_running_average=True)
      >>> _, variables = router.apply(variables, logits, use_running_average=False, mutable="batch_stats")
      >>> print(router.apply(variables, logits, use_running_average=True).sum(0))
      [1. 1. 1.]
    """

    num_experts: int
    k: int
    _: KW_ONLY
    gate: str = "softmax"
    scale: int | float = 1.0
    axis_name: Any = None
    use_running_average: bool | None = None

    @nn.compact
    def __call__(
        self,
        logits: Float[ArrayLike, "*tokens experts"],
        *,
        where: Bool[ArrayLike, "*tokens"] | None = None,
        use_running_average: bool | None = None,
    ) -> Float[Array, "*tokens experts"]:
        """The gates of the tokens; those of tokens where `where` is false are 0.

        Raises:
          TypeError: `num_experts`, `k` or `scale` is not a number, or the logits are not floating point.
          ValueError: `k` is less than 1, not whole, or not less than `num_experts`; `gate` is unknown; `scale` is not
            positive; or the logits do not fit.
        """
        check_size("num_experts", self.num_experts)
        use_running_average = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        state = self.variable("batch_stats", "bias", lambda: jnp.zeros(self.num_experts, jnp.float32))
        bias = state.value.astype(jnp.float32)
        shares = gates(logits, bias, self.k, gate=self.gate, scale=self.scale, where=where)
        if not (use_running_average or self.is_initializing()):
            scores = router_scores(logits, gate=self.gate)
            state.value = quantile_bias(scores, bias, self.k, where=where, axis_name=self.axis_name)
        return shares


class DecisionThresholds(nn.Module):
    """The last layer of a classifier that is trained with `softbin.loss`, so that its predictions are right.

    It tracks decision thresholds in training, and subtracts them afterwards.

    In training it returns the logits as they are, and averages the batch's :func:`softbin.decision_thresholds` into
    the collection `batch_stats`, as `nn.BatchNorm` averages its moments. With `use_running_average=True` it subtracts
    them: it returns `τ (logits/τ - λ - ψ⁻¹(1/2))`. Decide by that as usual: by `argmax`, or by the sign if each class
    is a binary problem.

    The average has no bias towards its start: after one batch it is that batch's thresholds, and before any batch the
    logits pass unchanged. Thresholds of the whole training set, from :func:`softbin.decision_thresholds`, are those of
    the final model; these lag behind it by about `1 / (1 - momentum)` batches, and cost no pass over the data.

    Attributes:
      num_classes: C for logits (..., C); None for a binary problem with logits (n,).
      temperature, budget, regularizer, axis_name: those of the loss. A budget that counts needs the labels in training.
      momentum: of the average, in [0, 1).
      use_running_average: evaluation if true; here or in the call.

    Example:
      >>> import jax
      >>> logits = jnp.array([[2.0, 7.0], [1.0, 6.0], [-1.0, 9.0], [-2.0, 8.0]])
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> layer = DecisionThresholds(2, temperature=1.0, budget=budgets.label_count)
      >>> variables = layer.init(jax.random.key(0), logits, use_running_average=True)
      >>> _, variables = layer.apply(variables, logits, labels, use_running_average=False, mutable="batch_stats")
      >>> decided = layer.apply(variables, logits, use_running_average=True).argmax(-1)
      >>> print(variables["batch_stats"]["thresholds"], decided, logits.argmax(-1))
      [-0.5  7. ] [0 0 1 1] [1 1 1 1]
    """

    num_classes: int | None
    _: KW_ONLY
    temperature: int | float
    budget: Budget = budgets.fraction(0.5)
    momentum: int | float = 0.9
    regularizer: Regularizer = euclidean
    axis_name: Any = None
    use_running_average: bool | None = None

    @nn.compact
    def __call__(
        self,
        logits: Float[ArrayLike, "*shape"],
        labels: Shaped[ArrayLike, "..."] | None = None,
        *,
        where: Bool[ArrayLike, "..."] | None = None,
        weights: Real[ArrayLike, "..."] | None = None,
        use_running_average: bool | None = None,
    ) -> Float[Array, "*shape"]:
        """Track or subtract thresholds; `labels`, `where` and `weights` are those of the loss, for training only.

        Raises:
          TypeError: `budget` is not a number, an array or a callable, or `num_classes` is not a whole number.
          ValueError: `temperature` is not positive and finite, `momentum` is outside [0, 1), `budget` is a number that
            looks like a share, or the logits do not fit.
        """
        shares.check_budget(self.budget)
        check_temperature(self.temperature)
        check_momentum(self.momentum)
        use_running_average = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        check_floating("logits", logits)
        logits = jnp.asarray(logits)
        initial = initial_thresholds(self.num_classes, self.regularizer)
        thresholds = self.variable("batch_stats", "thresholds", lambda: initial.thresholds)
        weight = self.variable("batch_stats", "weight", lambda: initial.weight)
        if use_running_average:
            return subtract_thresholds(logits, thresholds.value, self.temperature, self.regularizer)
        if self.is_initializing():
            check_classes(logits, thresholds.value)
            return logits
        thresholds.value, weight.value = update_thresholds(
            RunningThresholds(thresholds.value, weight.value),
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
        return logits
