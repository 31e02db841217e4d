"""Exact gradients of a loss that couples the whole batch, with the memory of a microbatch."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from softbin._engine import meshes
from softbin._engine.checks import dtype_of
from softbin._engine.groups import is_symbolic
from softbin._engine.shares import brief

__all__ = ["value_and_grad"]


def value_and_grad(
    logits_fn: Callable[..., PyTree],
    loss_fn: Callable[..., Any],
    microbatch_size: int,
    *,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    r"""The exact gradient of a loss that couples a whole batch, with the activations of one microbatch in memory.

    It is `jax.value_and_grad` of `loss_fn(logits_fn(params, inputs), ...)`, a microbatch at a time. A batch-coupled
    loss is not a mean over microbatches, so gradients cannot simply be accumulated. But with `z` the logits of the
    batch and :math:`z_b` those of microbatch `b`,

    .. math:: \nabla_\theta L = \sum_b \left(\frac{\partial z_b}{\partial \theta}\right)^{\top} \nabla_{z_b} L,

    so one pass computes the logits and stores no activations, one gradient is taken by the logits alone, and a
    second pass adds up the vector-Jacobian products. The result is that of the whole batch up to the order of
    summation, for any loss of the logits; the price is one more forward pass. Activations take the memory of a
    microbatch; inputs and logits stay whole.

    Adding up or averaging the gradients of microbatches is silently another loss, in which each microbatch is projected
    by itself: `optax.MultiSteps`, `optax.microbatching` around a gradient (`microbatch` with its default, the sum, or
    the mean, and `micro_grad`), and `gradient_accumulation_steps` of Keras. With four microbatches of 16 of a small
    network the gradient was wrong by 0.8 (`MultiSteps`), 1.0 (mean) and 3.0 (sum) times its size. From Optax 0.2.7 on
    there is another exact way, if the microbatches divide the batch: their logits are joined before the loss. ::

        forward = optax.microbatching.microbatch(
            jax.checkpoint(logits_fn),
            argnums=1,
            microbatch_size=16,
            accumulator=optax.microbatching.AccumulationType.CONCAT,
        )
        value, gradient = jax.value_and_grad(lambda params: loss_fn(forward(params, inputs), labels))(params)

    `logits_fn` must treat examples independently and be a pure function, since it runs twice. What that means:

    - Randomness: make a key per example a part of the inputs, `(images, jax.random.split(key, n))`, so that dropout
      agrees between the passes and does not depend on the microbatch size.
    - Batch normalisation by batch statistics normalises each microbatch by itself ("ghost" batch normalisation):
      the gradient is exact for that model, which is not the whole-batch one. Running statistics that the call
      would update are lost; update them in a pass of their own, or normalise by layer or group.
    - Convolutions on a CPU: XLA computes their gradients tens of times slower inside a loop, and the microbatches are a
      loop (https://github.com/jax-ml/jax/issues/12868).

    Args:
      logits_fn: `(params, inputs) -> logits`, or a pytree of outputs, all with the examples on the first axis.
      loss_fn: `(logits, *args, **kwargs) -> scalar`, over the whole batch.
      microbatch_size: how many examples `logits_fn` sees at once, at least 1. The last microbatch may be smaller. Where
        the examples are sharded over explicit axes of a mesh, all devices get equally many of each microbatch: the size
        is rounded down to a multiple of their number, but not to 0.
      has_aux: whether `loss_fn` returns `(scalar, auxiliary data)`, as for `jax.value_and_grad`.

    Returns:
      A function of `(params, inputs, *args, **kwargs)`, where `inputs` is a pytree of arrays with the examples on the
      first axis. It returns `(value, gradient by params)`, with `has_aux` `((value, aux), gradient)`. In a
      `jax.jit` with a batch sharded over its examples, every microbatch is spread over all devices, and its gradient is
      summed over them. Inside `jax.shard_map` give `loss_fn` its `axis_name`; `microbatch_size` is then per device, and
      the devices' gradients are summed once a step (but not with `check_vma=False`, as by `jax.value_and_grad`). In a
      program that `jax.export` makes for any number of examples, the last microbatch is filled up with copies of the
      last example, which have no gradient.

    Raises:
      TypeError: an array of `params` is not floating point, and so has no gradient.
      ValueError: `microbatch_size` is less than 1, inputs or outputs do not agree on the number of examples, or there
        are no examples.

    Example:
      >>> import softbin
      >>> inputs = jnp.arange(12.0).reshape(6, 2) % 5
      >>> labels = jnp.array([0, 1, 0, 1, 1, 0])
      >>> step = value_and_grad(lambda w, x: x @ w, softbin.loss, microbatch_size=2)
      >>> value, gradient = step(jnp.eye(2), inputs, labels)
      >>> whole = jax.value_and_grad(lambda w: softbin.loss(inputs @ w, labels))(jnp.eye(2))
      >>> print(jnp.allclose(value, whole[0]), jnp.allclose(gradient, whole[1], atol=1e-6))
      True True

    References:
      Gao, Zhang, Han, Callan, `Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup
      <https://arxiv.org/abs/2101.06983>`_, 2021, section 3.2.
    """
    for name, function in (("logits_fn", logits_fn), ("loss_fn", loss_fn)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {brief(function)}")
    microbatch_size = _checked_size(microbatch_size)

    def value_and_grad_fn(params: PyTree, inputs: PyTree, *args: Any, **kwargs: Any) -> tuple[Any, PyTree]:
        _check_params(params)
        examples = _count_examples("inputs", inputs)
        batch = _microbatches(examples, microbatch_size, _parts(inputs))
        inputs = batch.filled_up(inputs)
        strided, rest = batch.strided(inputs), batch.rest(inputs)
        rounds = jnp.arange(batch.rounds)

        def forward(microbatch: PyTree) -> PyTree:
            logits = logits_fn(params, microbatch)
            _count_examples("outputs of logits_fn", logits, _count_examples("inputs", microbatch))
            return logits

        logits = lax.map(lambda i: batch.by_part(forward(batch.take(strided, i))), rounds)
        logits = batch.joined(logits, None if rest is None else batch.by_part(forward(rest)))

        def loss_of_batch(logits: PyTree, *args: Any, **kwargs: Any) -> Any:
            return loss_fn(batch.first(logits), *args, **kwargs)

        value, by_logits = jax.value_and_grad(loss_of_batch, has_aux=has_aux)(logits, *args, **kwargs)
        local_params, reduce = jax.vjp(lambda params: _local_copies(params, logits), params)

        def add_gradient(gradient: PyTree, microbatch: PyTree, by_microbatch: PyTree) -> PyTree:
            _, pull_back = jax.vjp(lambda params: logits_fn(params, microbatch), local_params)
            return jax.tree.map(jnp.add, gradient, pull_back(by_microbatch)[0])

        strided_by_logits, rest_by_logits = batch.strided(by_logits), batch.rest(by_logits)
        gradient, _ = lax.scan(
            lambda gradient, i: (
                add_gradient(gradient, batch.take(strided, i), batch.take(strided_by_logits, i)),
                None,
            ),
            jax.tree.map(jnp.zeros_like, local_params),
            rounds,
        )
        if rest is not None:
            gradient = add_gradient(gradient, rest, rest_by_logits)
        return value, reduce(gradient)[0]

    return value_and_grad_fn


class _Microbatches(NamedTuple):
    """How a batch is cut into microbatches of `size` examples, and a smaller last one.

    Each of the parts, over which the devices of a mesh divide the batch, gives every microbatch as many of its
    examples, and of these every so many: slices that leave a sharded batch where it is.
    """

    examples: Any
    size: int
    rounds: Any
    parts: int

    def filled_up(self, tree: PyTree) -> PyTree:
        """Examples for whole microbatches, by the last one repeated, in a program for any number of them."""
        if not is_symbolic(self.examples):
            return tree
        places = jnp.minimum(jnp.arange(self.rounds * self.size), self.examples - 1)
        return jax.tree.map(lambda x: x[places], tree)

    def first(self, tree: PyTree) -> PyTree:
        """Of what is filled up, what was there."""
        return jax.tree.map(lambda z: z[: self.examples], tree) if is_symbolic(self.examples) else tree

    def strided(self, tree: PyTree) -> PyTree:
        """Microbatch `i` is `[:, :, i]`; the first axis is that of the parts."""
        shape = self.parts, self.size // self.parts, self.rounds
        return jax.tree.map(lambda x: self._parted(x)[:, : shape[1] * shape[2]].reshape(*shape, *x.shape[1:]), tree)

    def rest(self, tree: PyTree) -> PyTree:
        """The last microbatch, if it is smaller than the others."""
        covered = self.rounds * self.size
        if is_symbolic(self.examples) or covered == self.examples:
            return None
        return jax.tree.map(lambda x: self._joined(self._parted(x)[:, covered // self.parts :]), tree)

    def take(self, strided: PyTree, i: Int[Array, ""]) -> PyTree:
        """Microbatch `i`."""
        return jax.tree.map(lambda x: self._joined(lax.dynamic_index_in_dim(x, i, axis=2, keepdims=False)), strided)

    def by_part(self, tree: PyTree) -> PyTree:
        """The examples of a microbatch as those of its parts."""
        return jax.tree.map(self._parted, tree)

    def joined(self, tree: PyTree, rest: PyTree | None) -> PyTree:
        """The whole batch, from its microbatches by part."""
        tree = jax.tree.map(lambda z: jnp.moveaxis(z, 0, 2), tree)
        tree = jax.tree.map(lambda z: z.reshape(self.parts, z.shape[1] * z.shape[2], *z.shape[3:]), tree)
        if rest is not None:
            tree = jax.tree.map(lambda z, last: jnp.concatenate([z, last], 1), tree, rest)
        return jax.tree.map(self._joined, tree)

    def _parted(self, x: Any) -> Any:
        return x.reshape(self.parts, x.shape[0] // self.parts, *x.shape[1:])

    def _joined(self, x: Any) -> Any:
        return x.reshape(self.parts * x.shape[1], *x.shape[2:])


def _microbatches(examples: Any, size: int, parts: int) -> _Microbatches:
    """Microbatches of so many examples, or less: a number that all parts can give as many of."""
    if is_symbolic(examples):
        return _Microbatches(examples, size, -(-examples // size), parts)
    size = min(size, examples)
    size = max(size - size % parts, parts)
    return _Microbatches(examples, size, examples // size, parts)


def _parts(inputs: PyTree) -> int:
    """Over how many devices the examples are divided, where that is a part of their type."""
    return math.lcm(*map(meshes.shards_of_first_axis, jax.tree.leaves(inputs)))


def _local_copies(params: PyTree, logits: PyTree) -> PyTree:
    """Each device's own copies of the params that `jax.shard_map` knows to be the same on devices of other examples.

    The gradients by the copies are local. Their sum over the devices is the gradient by the params: once, and not, as
    without copies, for each microbatch.
    """
    axes = frozenset.intersection(*map(meshes.varying_axes, jax.tree.leaves(logits)))
    return jax.tree.map(lambda param: meshes.vary(param, axes), params)


def _checked_size(microbatch_size: Any) -> int:
    if isinstance(microbatch_size, bool) or not hasattr(microbatch_size, "__index__"):
        raise TypeError(f"microbatch_size must be a whole number of examples, got {brief(microbatch_size)}")
    size = operator.index(microbatch_size)
    if size < 1:
        raise ValueError(f"microbatch_size must be at least 1, got {size}")
    return size


def _check_params(params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = f"params{jax.tree_util.keystr(path)}"
        dtype = dtype_of(name, leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"{name} is {dtype}, and only floating point arrays have a gradient: "
                "keep it out of params, for example in the closure of logits_fn"
            )


def _count_examples(name: str, tree: PyTree, expected: Any = None) -> Any:
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        dtype_of(name, leaf)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if not all(shapes):
        raise ValueError(
            f"{name} must have the examples on the first axis of every array, got a scalar: "
            "repeat it for each example, or keep it in the closure of logits_fn"
        )
    lengths = list({shape[0] for shape in shapes})
    if len(lengths) != 1 or expected not in (None, *lengths):
        wanted = "the same number of examples" if expected is None else f"the microbatch's {expected} examples"
        raise ValueError(f"{name} must have {wanted} on the first axis of every array, got {_sorted(lengths)}")
    if not is_symbolic(lengths[0]) and lengths[0] == 0:
        raise ValueError(f"{name} hold no examples, got shapes {shapes}: leave out a step with an empty batch")
    return lengths[0]


def _sorted(lengths: list) -> list:
    return lengths if any(map(is_symbolic, lengths)) else sorted(lengths)
