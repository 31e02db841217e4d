"""Batches: logits, labels, masks and weights, checked and brought into the form of the solver."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from softbin.arguments import check_mask
from softbin.groups import Groups, halvings, shards

Budget = Callable[..., Array] | Real[ArrayLike, "..."]

_ROW = 128  # entries, at least, where the number of examples allows it


class Batch(NamedTuple):
    """A checked batch, with so many examples in a row that compilers vectorise along rows.

    An array of shape (n, classes) is seen as one of shape (n / lanes, lanes · classes); nothing moves in memory.
    """

    logits: Float[Array, "rows row"]
    weights: Float[Array, "rows row"] | None  # of the examples, zero for a masked one
    groups: Groups  # one for each class

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.logits.shape[1] // self.groups.lanes


def prepare_batch(logits, where, weights, axis_name=None) -> Batch:
    """Check a batch and flatten its examples."""
    dtype = jnp.result_type(logits)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {dtype}: convert them, for example to float32")
    shape = jnp.shape(logits)
    if not shape:
        raise ValueError("logits must have an axis of examples, got a scalar")
    examples, classes = (shape, 1) if len(shape) == 1 else (shape[:-1], shape[-1])
    n = math.prod(examples)
    dtype = jnp.promote_types(dtype, jnp.float32)
    weights = _example_weights(where, weights, examples, dtype)
    lanes = _lanes(n, classes)
    logits = _by_row(jnp.asarray(logits, dtype).reshape(n, classes), lanes)
    if weights is not None:
        weights = _by_row(jnp.broadcast_to(weights.reshape(n, 1), (n, classes)), lanes)
    return Batch(logits, weights, Groups(0, axis_name, lanes))


def _lanes(n: int, classes: int) -> int:
    """How many examples to put into a row: a divisor of `n`, 1 where the classes alone make a row."""
    enough = -(-_ROW // max(classes, 1))
    parts = shards(n)
    divisors = [d for d in range(1, min(4 * enough, n) + 1) if n % d == 0 and n // d % parts == 0]
    return max(divisors, key=lambda d: (min(d, enough), halvings(n // d), -d), default=1)


def prepare_targets(labels, logits, batch: Batch) -> Float[Array, "rows row"]:
    """Check the labels of a batch; its targets are zero where masked, NaN where out of range."""
    shape, classes = jnp.shape(logits), batch.classes
    _check_labels(labels, shape, batch)
    if jnp.shape(labels) == shape:
        targets = jnp.asarray(labels, batch.logits.dtype).reshape(-1, classes)
        targets = jnp.where((targets >= 0) & (targets <= 1), targets, jnp.nan)
    else:
        labels = jnp.asarray(labels).reshape(-1, 1)
        one_hot = (labels == jnp.arange(classes)).astype(batch.logits.dtype)
        targets = jnp.where((labels >= 0) & (labels < classes), one_hot, jnp.nan)
    targets = _by_row(targets, batch.groups.lanes)
    return targets if batch.weights is None else jnp.where(batch.weights > 0, targets, 0)


def batch_budget(batch: Batch, targets, budget: Budget) -> Real[ArrayLike, "..."]:
    """`k` of the whole batch, over all shards."""
    if not callable(budget):
        return budget
    weights = _weights_by_example(batch)
    if weights is None:
        weights = jnp.ones(len(batch.logits) * batch.groups.lanes, batch.logits.dtype)
    k = budget(None if targets is None else by_example(targets, batch.groups.lanes), weights)
    return k if batch.groups.axis_name is None else lax.psum(k, batch.groups.axis_name)


def batch_mean(values: Float[Array, "rows row"], batch: Batch) -> Float[Array, ""]:
    """The mean over the examples of the sum over the classes; 0 for an empty batch."""
    if batch.weights is not None:
        values = jnp.where(batch.weights > 0, values * batch.weights, 0)
    return jnp.sum(batch.groups.gather(batch.groups.total(values))) / batch_size(batch)


def batch_size(batch: Batch) -> Real[ArrayLike, ""]:
    """How many examples count, over all shards; 1 where none does."""
    if batch.weights is None:
        return batch.groups.size(batch.logits.shape)
    size = batch.groups.total(batch.weights)[0, 0]
    return jnp.where(size > 0, size, 1)


def by_example(values: Float[Array, "rows row"], lanes: int) -> Float[Array, "n classes"]:
    """The entries of a batch with one example in a row."""
    rows, row = values.shape
    return values.reshape(rows, lanes, row // lanes).reshape(rows * lanes, row // lanes)


def _by_row(values: Float[Array, "n classes"], lanes: int) -> Float[Array, "rows row"]:
    # In two steps, each of which keeps a sharding of the examples.
    n, classes = values.shape
    return values.reshape(n // lanes, lanes, classes).reshape(n // lanes, lanes * classes)


def _weights_by_example(batch: Batch) -> Float[Array, " n"] | None:
    return None if batch.weights is None else by_example(batch.weights, batch.groups.lanes)[:, 0]


def _check_labels(labels, shape, batch: Batch):
    kind = jnp.result_type(labels)
    if not any(jnp.issubdtype(kind, allowed) for allowed in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"labels must be integer, boolean or floating point, got {kind}")
    dense = jnp.shape(labels) == shape
    if not dense and jnp.shape(labels) != shape[:-1]:
        raise ValueError(
            f"labels with shape {jnp.shape(labels)} do not fit logits with shape {shape}: "
            f"expected integers of shape {shape[:-1]} or labels of shape {shape}"
        )
    if not dense and not jnp.issubdtype(kind, jnp.integer):
        raise TypeError(f"labels of shape {shape[:-1]} are class numbers and must be integer, got {kind}")
    weights = _weights_by_example(batch)
    if isinstance(labels, jax.core.Tracer) or isinstance(weights, jax.core.Tracer):
        return
    classes = batch.classes
    rows = np.reshape(np.asarray(labels), (-1, classes if dense else 1))
    if weights is not None:
        rows = rows[np.asarray(weights) > 0]
    wrong = rows[~((rows >= 0) & (rows <= 1 if dense else rows < classes))]
    if wrong.size:
        allowed = "[0, 1]" if dense else f"[0, {classes})"
        raise ValueError(f"label {wrong[0]} is outside {allowed}: correct it, or mask its example with where")


def _example_weights(where, weights, examples, dtype):
    """One weight per example, zero where masked; None where all count alike."""
    for name, value in (("where", where), ("weights", weights)):
        if value is not None and jnp.shape(value) != examples:
            raise ValueError(f"{name} with shape {jnp.shape(value)} must have one entry per example: shape {examples}")
    if weights is not None and not isinstance(weights, jax.core.Tracer) and not np.all(np.asarray(weights) >= 0):
        raise ValueError(f"weights must not be negative, got a smallest of {np.min(weights)}")
    if where is not None:
        check_mask(where)
        weights = jnp.where(where, 1 if weights is None else weights, 0)
    return None if weights is None else jnp.asarray(weights, dtype)
