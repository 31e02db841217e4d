"""Exact gradients of a loss that couples the whole batch, with the memory of a microbatch."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree


def value_and_grad(
    logits_fn: Callable[..., PyTree],
    loss_fn: Callable[..., Any],
    microbatch_size: int,
    *,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    r"""As `jax.value_and_grad` of `loss_fn(logits_fn(params, inputs), ...)`, a microbatch at a time.

    A batch-coupled loss is not a mean over microbatches, so gradients cannot simply be accumulated. But with `z`
    the logits of the batch and :math:`z_b` those of microbatch `b`,

    .. math:: \nabla_\theta L = \sum_b \left(\frac{\partial z_b}{\partial \theta}\right)^{\top} \nabla_{z_b} L,

    so one pass computes the logits and stores no activations, one gradient is taken by the logits alone, and a
    second pass adds up the vector-Jacobian products. The result is that of the whole batch up to the order of
    summation, for any loss of the logits; the price is one more forward pass. Activations take the memory of a
    microbatch; inputs and logits stay whole.

    `logits_fn` must treat examples independently and be a pure function, since it runs twice. What that means for:

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
      microbatch_size: how many examples `logits_fn` sees at once, at least 1. The last microbatch may be smaller.
      has_aux: `loss_fn` returns `(scalar, auxiliary data)`, as for `jax.value_and_grad`.

    Returns:
      A function of `(params, inputs, *args, **kwargs)`, where `inputs` is a pytree of arrays with the examples on the
      first axis. It returns `(value, gradient by params)`, with `has_aux` `((value, aux), gradient)`. In a
      `jax.jit` with a batch sharded over its examples every microbatch is spread over all devices, and its gradient
      summed over them. Inside `jax.shard_map` give `loss_fn` its `axis_name`; `microbatch_size` is then per device, and
      the devices' gradients are summed once a step (but not with `check_vma=False`, as by `jax.value_and_grad`).

    Raises:
      TypeError: an array of `params` is not floating point, and has no gradient.
      ValueError: `microbatch_size` is less than 1, or inputs or outputs do not agree on the number of examples, or
        there are none.

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
    microbatch_size = operator.index(microbatch_size)
    if microbatch_size < 1:
        raise ValueError(f"microbatch_size must be at least 1, got {microbatch_size}")

    def value_and_grad_fn(params, inputs, *args, **kwargs):
        _check_params(params)
        examples = _count_examples("inputs", inputs)
        size = min(microbatch_size, examples)
        whole = examples - examples % size
        strided = jax.tree.map(lambda x: _strided(x[:whole], size), inputs)
        rest = jax.tree.map(lambda x: x[whole:], inputs)
        rounds = jnp.arange(whole // size)

        def forward(batch):
            logits = logits_fn(params, batch)
            _count_examples("outputs of logits_fn", logits, _count_examples("inputs", batch))
            return logits

        logits = lax.map(lambda i: forward(_take(strided, i)), rounds)
        logits = jax.tree.map(lambda z: jnp.moveaxis(z, 0, 1).reshape(whole, *z.shape[2:]), logits)
        if whole < examples:
            logits = jax.tree.map(lambda z, last: jnp.concatenate([z, last]), logits, forward(rest))

        value, by_logits = jax.value_and_grad(loss_fn, has_aux=has_aux)(logits, *args, **kwargs)
        local_params, reduce = jax.vjp(lambda params: _local_copies(params, logits), params)

        def add_gradient(gradient, batch, by_batch):
            _, pull_back = jax.vjp(lambda params: logits_fn(params, batch), local_params)
            return jax.tree.map(jnp.add, gradient, pull_back(by_batch)[0])

        strided_by_logits = jax.tree.map(lambda g: _strided(g[:whole], size), by_logits)
        gradient, _ = lax.scan(
            lambda gradient, i: (add_gradient(gradient, _take(strided, i), _take(strided_by_logits, i)), None),
            jax.tree.map(jnp.zeros_like, local_params),
            rounds,
        )
        if whole < examples:
            gradient = add_gradient(gradient, rest, jax.tree.map(lambda g: g[whole:], by_logits))
        return value, reduce(gradient)[0]

    return value_and_grad_fn


def _strided(x, size):
    """Microbatch `i` is `[:, i]`, every so many examples: a slice that leaves a sharded batch where it is."""
    return x.reshape(size, len(x) // size, *x.shape[1:])


def _take(strided, i):
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False), strided)


def _local_copies(params, logits):
    """Each device's own copies of the params that `jax.shard_map` knows to be the same on devices of other examples.

    The gradients by the copies are local. Their sum over the devices is the gradient by the params: once, and not, as
    without copies, for each microbatch.
    """
    axes = frozenset.intersection(*map(_varying_axes, jax.tree.leaves(logits)))

    def copy(param):
        new = tuple(sorted(axes - _varying_axes(param), key=str))
        return _vary(param, new) if new else param

    return jax.tree.map(copy, params)


def _varying_axes(x) -> frozenset:
    kind = jax.typeof(x)
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma  # before jax 0.10


def _vary(x, axes):
    return lax.pcast(x, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(x, axes)  # before jax 0.8.2


def _check_params(params):
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} is {dtype}, and only floating point arrays have a gradient: "
                "keep it out of params, for example in the closure of logits_fn"
            )


def _count_examples(name, tree, expected=None) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    if not all(shapes):
        raise ValueError(
            f"{name} must have the examples on the first axis of every array, got a scalar: "
            "repeat it for each example, or keep it in the closure of logits_fn"
        )
    lengths = sorted({shape[0] for shape in shapes})
    if len(lengths) != 1 or expected not in (None, *lengths):
        wanted = "the same number of examples" if expected is None else f"the microbatch's {expected} examples"
        raise ValueError(f"{name} must have {wanted} on the first axis of every array, got {lengths}")
    if not lengths[0]:
        raise ValueError(f"{name} hold no examples, got shapes {shapes}: leave out a step with an empty batch")
    return lengths[0]
