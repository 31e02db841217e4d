"""Choices with memory as Flax NNX modules: Soft-Binary-Argmax, top-k, balanced routing, and decision thresholds."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin import budgets
from softbin._engine import shares
from softbin._engine.arguments import Count
from softbin._engine.checks import check_experts, check_floating, check_gate, check_size, check_temperature
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


class _Layer(nnx.Module):
    """A module whose signature is that of its constructor; Flax gives all of them `(*args, **kwargs)`."""

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        signature = inspect.signature(cls.__init__)
        cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # without self


class SoftBinaryArgmax(_Layer):
    """A layer that chooses `k` of `n` along an axis: :func:`softbin.soft_binary_argmax`.

    A learned temperature stays positive, since the parameter, `log_temperature`, is its logarithm. A learned share
    stays between 0 and 1, since the parameter, `logit_share`, is its logit.

    Args:
      k: how many to choose, real, in [0, n], or a share, such as `softbin.budgets.fraction(0.1)`.
      temperature: positive; if it is learned, its initial value.
      learn_temperature: whether the temperature is a parameter.
      learn_k: whether the share is a parameter; `k` is then its initial value, such as `softbin.budgets.fraction(0.1)`.
      axis, regularizer, axis_name, straight_through: as for :func:`softbin.soft_binary_argmax`.

    Raises:
      TypeError: `learn_k` is true, and `k` is not a share.
      ValueError: the temperature is not positive and finite, or a share to be learned is not between 0 and 1.

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
        learn_k: bool = False,
        axis: int | Sequence[int] | None = -1,
        regularizer: Regularizer = euclidean,
        axis_name: Any = None,
        straight_through: bool = False,
    ):
        check_temperature(temperature)
        self.learn_k = learn_k
        if learn_k:
            self.logit_share = nnx.Param(logit_of_share(k))
        else:
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
            budgets.fraction(nnx.sigmoid(self.logit_share[...])) if self.learn_k else self.k,
            jnp.exp(self.log_temperature[...]) if self.learn_temperature else self.temperature,
            axis=self.axis,
            where=where,
            regularizer=self.regularizer,
            axis_name=self.axis_name,
            straight_through=self.straight_through,
        )


class _Tracking(_Layer):
    """A layer that tracks something in training, and applies it at evaluation: which of both it is, is switched here.

    `model.train()` and `model.eval()` switch the attribute, `nnx.view` makes a module in which it is switched, and a
    call may say so itself.
    """

    use_running_average: bool

    def set_view(self, use_running_average: bool | None = None) -> None:
        """For `nnx.view`, as in `nnx.BatchNorm`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def _evaluates(self, use_running_average: bool | None) -> bool:
        return self.use_running_average if use_running_average is None else use_running_average


class TopK(_Tracking):
    """A layer that keeps the `k` largest values, and at evaluation those above the average cutoff of training.

    In training it is `x * softbin.binary_argmax(x, k)`, and averages :func:`softbin.cutoff` into its `nnx.BatchStat`
    `cutoffs`. At evaluation (`model.eval()`, `use_running_average=True`) it keeps `x > cutoffs`, so that no value
    depends on the others: the activation of a JumpReLU with that threshold. Before any batch the cutoff is `-inf`.
    So evaluation does not use `k`, and ignores the `k` of a call: a forward pass may always pass on that of a schedule.
    With `exact=True`, evaluation instead chooses exactly `k`, as training does.

    The cutoffs are in float32 whatever the values are. If a model was cast with its state, the layer takes the state as
    it is, and it is float32 again after the next step. But a scan refuses a carry that changes its dtype, so cast only
    what is trained, `nnx.state(model, nnx.Param)`.

    - `axis=-1`: the `k` largest latents of each example, as in a top-k sparse autoencoder.
    - `axis=None`: the `k` largest of the whole batch, as in BatchTopK; `k` times the number of examples, or a share.
    - `axis=0`, `shape=(experts,)`: of router logits (tokens, experts) the `k` tokens of each expert, as in expert
      choice; `softbin.budgets.fraction(capacity / experts)` chooses for a batch of any size.

    Args:
      k: how many to keep, whole, or a share of the entries that exist, such as `softbin.budgets.fraction(0.02)`. A call
        may give another, traced too, so that a schedule can lower it: an array is rounded to the nearest whole number.
      axis, axis_name: as for :func:`softbin.binary_argmax`; `axis_name` names mapped axes over which `axis` is split.
      batch_axis_name: mapped axes over which the groups are split, such as the examples with `axis=-1`: every shard
        then keeps the mean cutoff of all.
      momentum: of the average, in [0, 1).
      shape: the shape of the cutoffs: the last dimensions of `x` without `axis`. Over the others, cutoffs are averaged.
      magnitude: keep the `k` largest `|x|`, with their signs; at evaluation, where `|x| > cutoffs`.
      exact: choose exactly `k` at evaluation too.
      use_running_average: evaluation if true; set by `model.train()` and `model.eval()`.

    Raises:
      TypeError: `x` is not floating point, `where` is not boolean, or `momentum` is not a number.
      ValueError: `momentum` is outside [0, 1), or `shape` does not fit.

    Example:
      >>> latents = jnp.array([[3.0, 1.0, 0.5], [4.0, 5.0, 0.1]])
      >>> layer = TopK(k=3, axis=None)  # three of the batch
      >>> print(layer(latents).tolist(), layer.cutoffs[...])
      [[3.0, 0.0, 0.0], [4.0, 5.0, 0.0]] 2.0
      >>> layer.eval()
      >>> print(layer(jnp.array([[2.5, 1.9, 6.0]])))
      [[2.5 0.  6. ]]
      >>> print(TopK(k=1, magnitude=True)(jnp.array([2.0, -3.0, 1.0])))
      [ 0. -3.  0.]

    References:
      Gao et al., `Scaling and evaluating sparse autoencoders <https://arxiv.org/abs/2406.04093>`_, 2024; Bussmann et
      al., `BatchTopK <https://arxiv.org/abs/2412.06410>`_, 2024; Zhou et al., `Expert Choice Routing
      <https://arxiv.org/abs/2202.09368>`_, 2022.
    """

    def __init__(
        self,
        k: int | budgets.Share,
        *,
        axis: int | Sequence[int] | None = -1,
        momentum: int | float = 0.99,
        shape: tuple[int, ...] = (),
        axis_name: Any = None,
        batch_axis_name: Any = None,
        magnitude: bool = False,
        exact: bool = False,
        use_running_average: bool = False,
    ):
        check_momentum(momentum)
        initial = initial_cutoffs(shape)
        self.cutoffs = nnx.BatchStat(initial.cutoffs)
        self.weight = nnx.BatchStat(initial.weight)
        self.k = k
        self.axis = axis
        self.momentum = momentum
        self.axis_name = axis_name
        self.batch_axis_name = batch_axis_name
        self.magnitude = magnitude
        self.exact = exact
        self.use_running_average = use_running_average

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
        """
        k = self.k if k is None else k
        running = RunningCutoffs(self.cutoffs[...], self.weight[...])
        settings: dict[str, Any] = {"axis": self.axis, "where": where, "magnitude": self.magnitude}
        if self._evaluates(use_running_average):
            if self.exact:
                return keep_largest(x, k, axis_name=self.axis_name, **settings)
            return keep_above(x, running, **settings)
        names = {"axis_name": self.axis_name, "batch_axis_name": self.batch_axis_name}
        kept, running = track_largest(x, k, running, self.momentum, **settings, **names)
        _keep(self.cutoffs, running.cutoffs)
        _keep(self.weight, running.weight)
        return kept


class BalancedTopK(_Tracking):
    """A router that sends each token to `k` experts, and balances their load without an auxiliary loss.

    The gates are those of :func:`softbin.routing.gates`. With `"softmax"` they are the softmax over the `k` experts
    with the largest `logits + bias`; with `"sigmoid"` the normalised sigmoids of the `k` experts with the largest
    `sigmoid(logits) + bias`; 0 for all others. In training, the `nnx.BatchStat` `bias` then takes a step of
    :func:`softbin.routing.quantile_bias`, for the next batch; at evaluation (`model.eval()`,
    `use_running_average=True`) it stays. The bias takes part in the choice only: it does not scale the gates, and gets
    no gradient. A token cannot use an expert whose logit is `-inf`.

    The bias is in float32, also in a model that was cast, as the cutoffs of :class:`TopK` are. In a step that works
    through microbatches, the bias would move after each: use :func:`softbin.routing.gates` with a bias of your own, and
    :func:`softbin.routing.margins`.

    Args:
      num_experts: the number of experts.
      k: how many experts a token goes to, whole, at least 1 and less than `num_experts`.
      gate: `"softmax"`, or `"sigmoid"`.
      scale: what the gates of a token add up to, positive.
      axis_name: mapped axes over which the tokens are split.
      use_running_average: evaluation if true; set by `model.train()` and `model.eval()`.

    Raises:
      TypeError: `num_experts`, `k` or `scale` is not a number, or the logits are not floating point.
      ValueError: `k` is less than 1, not whole, or not less than `num_experts`; `gate` is unknown; `scale` is not
        positive; or the logits do not fit.

    Example:
      >>> logits = jnp.array([[3.0, 1.0, 0.0], [2.0, 1.5, 0.1], [4.0, 1.0, 3.0]])
      >>> router = BalancedTopK(num_experts=3, k=1)
      >>> print(router(logits).sum(0), router(logits).sum(0))  # the second time with the bias of the first
      [3. 0. 0.] [1. 1. 1.]

    References:
      Wang et al., `Auxiliary-Loss-Free Load Balancing <https://arxiv.org/abs/2408.15664>`_, 2024, whose bias moves by a
      constant; here by quantiles, as :func:`softbin.routing.quantile_bias` says.
    """

    def __init__(
        self,
        num_experts: int,
        k: int,
        *,
        gate: str = "softmax",
        scale: int | float = 1.0,
        axis_name: Any = None,
        use_running_average: bool = False,
    ):
        check_size("num_experts", num_experts)
        check_experts(num_experts, k)
        check_gate(gate, scale)
        self.bias = nnx.BatchStat(jnp.zeros(num_experts, jnp.float32))
        self.k = k
        self.gate = gate
        self.scale = scale
        self.axis_name = axis_name
        self.use_running_average = use_running_average

    def __call__(
        self,
        logits: Float[ArrayLike, "*tokens experts"],
        *,
        where: Bool[ArrayLike, "*tokens"] | None = None,
        use_running_average: bool | None = None,
    ) -> Float[Array, "*tokens experts"]:
        """The gates of the tokens; those of tokens where `where` is false are 0."""
        bias = self.bias[...].astype(jnp.float32)
        shares = gates(logits, bias, self.k, gate=self.gate, scale=self.scale, where=where)
        if not self._evaluates(use_running_average):
            scores = router_scores(logits, gate=self.gate)
            _keep(self.bias, quantile_bias(scores, bias, self.k, where=where, axis_name=self.axis_name))
        return shares


class DecisionThresholds(_Tracking):
    """The last layer of a classifier that is trained with `softbin.loss`, so that its predictions are right.

    It tracks decision thresholds in training, and subtracts them afterwards.

    In training it returns the logits as they are, and averages the batch's :func:`softbin.decision_thresholds` into
    its `nnx.BatchStat` `thresholds`, as `nnx.BatchNorm` averages its moments. At evaluation (`model.eval()`,
    `use_running_average=True`) it subtracts them: it returns `τ (logits/τ - λ - ψ⁻¹(1/2))`. Decide by that as usual: by
    `argmax`, or by the sign if each class is a binary problem.

    The average has no bias towards its start: after one batch it is that batch's thresholds, and before any batch the
    logits pass unchanged. Thresholds of the whole training set, from :func:`softbin.decision_thresholds`, are those of
    the final model; these lag behind it by about `1 / (1 - momentum)` batches, and cost no pass over the data. They are
    in float32, also in a model that was cast, as the cutoffs of :class:`TopK` are.

    Args:
      num_classes: C for logits (..., C); None for a binary problem with logits (n,).
      temperature, budget, regularizer, axis_name: those of the loss. A budget that counts needs the labels in training.
      momentum: of the average, in [0, 1).
      use_running_average: evaluation if true; set by `model.train()` and `model.eval()`.

    Raises:
      TypeError: `budget` is not a number, an array or a callable.
      ValueError: `temperature` is not positive and finite, `momentum` is outside [0, 1), or `budget` is a number that
        looks like a share.

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
        shares.check_budget(budget)
        check_temperature(temperature)
        check_momentum(momentum)
        initial = initial_thresholds(num_classes, regularizer)
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
        """Track or subtract thresholds; `labels`, `where` and `weights` are those of the loss, for training only."""
        check_floating("logits", logits)
        logits = jnp.asarray(logits)
        if self._evaluates(use_running_average):
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
        _keep(self.thresholds, running.thresholds)
        _keep(self.weight, running.weight)
        return logits


def _keep(variable: nnx.Variable, value: Array) -> None:
    """Keep a value in its own dtype, where `variable[...] = value` has that of the variable."""
    if hasattr(variable, "set_value"):
        variable.set_value(value)
    else:  # an older flax
        variable.value = value
