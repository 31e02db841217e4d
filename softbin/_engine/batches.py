"""Batches: logits, labels, masks and weights, checked and brought into the form of the solver."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin._engine import meshes, shares, sums
from softbin._engine.arguments import as_computed, convert, nan_if_negative
from softbin._engine.checks import (
    check_amount,
    check_axis_name,
    check_floating,
    check_mask,
    check_real,
    check_regularizer,
    check_temperature,
    check_weights,
    dtype_of,
    known_value,
)
from softbin._engine.groups import Groups, halvings, is_symbolic, shards, weighted
from softbin._engine.meshes import is_manual
from softbin._engine.thresholds import check_implementation

Budget = Callable[..., Array] | Real[ArrayLike, "..."]

_ROW = 128  # entries, at least, where the number of examples allows it


class Batch(NamedTuple):
    """A checked batch, with so many examples in a row that compilers vectorise along rows.

    An array of shape (n, classes) is seen as one of shape (n / lanes, lanes · classes); nothing moves in memory.
    """

    logits: Float[Array, "rows row"]
    weights: Float[Array, "rows row"] | None  # of the examples, or of each entry; zero for a masked one
    groups: Groups  # one for each class
    by_entry: bool  # whether the classes of an example may weigh differently
    targets: Any  # as the logits: labels in [0, 1], zero where masked, NaN where out of range; None without labels

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.logits.shape[1] // self.groups.lanes


def run_on_batch(
    function: Callable[..., Any],
    out_spec: Callable[[PartitionSpec], Any],
    logits: Any,
    labels: Any,
    budget: Budget,
    temperature: Any,
    where: Any,
    weights: Any,
    axis_name: Any,
    *,
    needs_labels: bool = True,
    **settings: Any,
) -> Any:
    """Check a batch, and call a jitted function of it with all these arguments, on a mesh of any kind.

    Args:
      function: its `axis_name` and settings are static.
      out_spec: from the sharding of the logits to that of what comes out, as for :func:`softbin._engine.meshes.run`.
    """
    check_batch(logits, labels, where, weights, by_entry=True, needs_labels=needs_labels)
    check_temperature(temperature)
    check_per_class("temperature", temperature, logits)
    check_regularizer(settings["regularizer"])
    check_axis_name(axis_name)
    check_implementation(settings.get("implementation"))
    check_budget(budget, logits, alike=axis_name is None and weights is None)
    if labels is None and _is_label_count(budget):
        raise ValueError("the budget label_count counts labels, and none were given: pass labels or another budget")
    budget = as_argument(budget, (logits, labels, where, weights))

    def call(logits: Any, labels: Any, budget: Any, temperature: Any, where: Any, weights: Any) -> Any:
        if 0 in jnp.shape(logits)[:-1] or jnp.shape(logits) == (0,):
            logits, labels, where, weights = _one_masked_example(logits, labels)
        if isinstance(budget, Partial) and not _is_label_count(budget):  # jit would keep a program for each
            budget = _called(budget, _sizes(logits)[1], *_targets_and_weights(logits, labels, where, weights))
            budget = budget if axis_name is None else lax.psum(budget, axis_name)
        return function(logits, labels, budget, temperature, where, weights, axis_name=axis_name, **settings)

    return run_with_budget(call, out_spec, budget, logits, labels, budget, temperature, where, weights)


def run_with_budget(
    function: Callable[..., Any], out_spec: Callable[[PartitionSpec], Any], budget: Budget, *arrays: Any
) -> Any:
    """`meshes.run`, in a program where a budget closes over arrays of the mesh: outside, JAX would not know of it."""
    run = partial(meshes.run, function, out_spec)
    closes = isinstance(budget, Partial) and not _is_label_count(budget) and meshes.explicit_mesh(arrays) is not None
    return (jax.jit(run) if closes else run)(*arrays)


def as_argument(budget: Budget, batch: tuple) -> Budget:
    """A budget as `run_with_budget` takes it: a callable may close over arrays of the batch's mesh."""
    if not callable(budget) or isinstance(budget, shares.Share):
        return budget
    mesh = meshes.explicit_mesh(batch)
    return Partial(budget if mesh is None or _is_label_count(budget) else meshes.closure(budget, mesh))


def check_budget(budget: Any, logits: Any, alike: bool, name: str = "logits") -> None:
    """Refuse a budget that is known to be out of range, of examples that all count alike, or not one per class."""
    shares.check_budget(budget)
    if isinstance(budget, shares.Share):
        check_per_class("budget", budget.shares, logits, name)
    elif not callable(budget):
        check_amount("budget", budget)
        check_per_class("budget", budget, logits, name)
        known, examples = known_value(budget), _sizes(logits)[0]
        if alike and known is not None and not is_symbolic(examples) and not np.all(known <= examples):
            raise ValueError(
                f"budget must be at most n = {examples}, the number of examples, got {shares.show(budget)}"
            )


def check_per_class(argument: str, value: Any, logits: Any, name: str = "logits") -> None:
    """Refuse an array that has not one number for each class."""
    shape = np.shape(value)
    classes = _sizes(logits)[1]
    if shape not in ((), (1,), (classes,)):
        remedy = f"pass a number, or one for each of {classes} classes" if jnp.ndim(logits) > 1 else "pass one number"
        raise ValueError(f"{argument} with shape {shape} does not fit {name} with shape {jnp.shape(logits)}: {remedy}")


@jax.jit
def _targets_and_weights(
    logits: Array, labels: Array | None, where: Array | None, weights: Array | None
) -> tuple[Any, Array]:
    """What a budget is called with."""
    return _by_example(prepare_batch(logits, labels, where, weights))


def _one_masked_example(logits: Any, labels: Any) -> tuple[Array, Array | None, Array, None]:
    """What an empty batch amounts to, so that nothing else has to know of one."""
    shape = (1, *jnp.shape(logits)[1:][-1:])
    dense = labels is not None and jnp.shape(labels) == jnp.shape(logits)
    labels = None if labels is None else jnp.zeros(shape if dense else 1, jnp.result_type(labels))
    return jnp.zeros(shape, jnp.result_type(logits)), labels, jnp.zeros(1, bool), None


def check_batch(
    logits: Any, labels: Any, where: Any, weights: Any, by_entry: bool = False, needs_labels: bool = True
) -> None:
    """Refuse what is known to be wrong before anything is traced: dtypes, shapes, values.

    A mask and weights have an entry for each example, or, where that is allowed, for each logit.
    """
    check_floating("logits", logits)
    shape = jnp.shape(logits)
    if not shape:
        raise ValueError("logits must be (..., classes), or (n,) for a binary problem, got a scalar")
    check_weights(weights)
    check_mask(where)
    examples = shape if len(shape) == 1 else shape[:-1]
    for name, value in (("where", where), ("weights", weights)):
        if value is not None and jnp.shape(value) not in ([examples, shape] if by_entry else [examples]):
            raise ValueError(
                f"{name} with shape {jnp.shape(value)} must have one entry per example: shape {examples}"
                + (f", or one per logit: shape {shape}" if by_entry and examples != shape else "")
            )
    if labels is None and needs_labels:
        raise TypeError("labels are needed here, got None: only decision_thresholds works without them")
    if labels is not None:
        _check_labels(labels, shape, where, weights)


def prepare_batch(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."] | None,
    where: Bool[ArrayLike, "..."] | None,
    weights: Real[ArrayLike, "..."] | None,
    axis_name: Any = None,
) -> Batch:
    """Flatten the examples of a batch."""
    batch = _without_labels(logits, where, weights, axis_name)
    return batch if labels is None else batch._replace(targets=prepare_targets(labels, logits, batch))


def _without_labels(logits: Any, where: Any, weights: Any, axis_name: Any) -> Batch:
    n, classes = _sizes(logits)
    by_entry = any(x is not None and jnp.ndim(x) == jnp.ndim(logits) > 1 for x in (where, weights))
    logits = as_computed(logits)
    weights = _weights(where, weights, logits.dtype)
    lanes = 1 if shards(classes) > 1 and not is_manual(logits) else _lanes(n, classes)
    logits = _by_row(logits.reshape(n, classes), lanes)
    if weights is not None:
        weights = _by_row(jnp.broadcast_to(weights.reshape(n, classes if by_entry else 1), (n, classes)), lanes)
    return Batch(logits, weights, Groups((0,), axis_name, lanes), by_entry, None)


def _sizes(logits: Any) -> tuple[Any, int]:
    """The number of examples, and of classes."""
    *examples, classes = jnp.shape(logits) if jnp.ndim(logits) > 1 else (*jnp.shape(logits), 1)
    return math.prod(examples), classes


def _lanes(n: Any, classes: int) -> int:
    """How many examples to put into a row: a divisor of `n`, 1 where the classes alone make a row."""
    if is_symbolic(n):
        return 1
    enough = -(-_ROW // max(classes, 1))
    parts = shards(n)
    divisors = [d for d in range(1, min(4 * enough, n) + 1) if n % d == 0 and n // d % parts == 0]
    return max(divisors, key=lambda d: (min(d, enough), halvings(n // d), -d), default=1)


def prepare_targets(
    labels: Shaped[ArrayLike, "..."], logits: Float[ArrayLike, "*examples classes"], batch: Batch
) -> Float[Array, "rows row"]:
    """Labels, or classes that were decided on, as targets: zero where masked, NaN where out of range."""
    classes = batch.classes
    if jnp.shape(labels) == jnp.shape(logits):
        targets = convert(labels, batch.logits.dtype).reshape(-1, classes)
        targets = jnp.where((targets >= 0) & (targets <= 1), targets, jnp.nan)
    else:
        labels = jnp.asarray(labels).reshape(-1, 1)
        if labels.dtype.itemsize < 4:  # too narrow to reach `classes`, perhaps
            labels = labels.astype(jnp.int32)
        one_hot = (labels == jnp.arange(classes, dtype=labels.dtype)[None]).astype(batch.logits.dtype)
        targets = jnp.where((labels >= 0) & (labels < classes), one_hot, jnp.nan)
    targets = _by_row(targets, batch.groups.lanes)
    return targets if batch.weights is None else jnp.where(batch.weights != 0, targets, 0)


def batch_budget(batch: Batch, budget: Budget) -> Real[ArrayLike, "..."]:
    """`k` of the whole batch, over all shards; or all that counts, where a mask or zero weights leave less."""
    if not callable(budget):
        return budget if batch.weights is None else _at_most_what_counts(budget, batch, batch.weights)
    if isinstance(budget, shares.Share) and batch.weights is None:
        size = jnp.asarray(batch.groups.size(batch.logits.shape), batch.logits.dtype)
        return size * jnp.asarray(budget.shares, size.dtype)
    if _is_label_count(budget) and batch.targets is not None:
        # Where the labels lie, in rows: quicker than by example, and a sum that the compiler finds a second time.
        return batch.groups.gather(batch.groups.total(weighted(batch.targets, batch.weights)))[0]
    k = _called(budget, batch.classes, *_by_example(batch))
    return k if batch.groups.axis_name is None else lax.psum(k, batch.groups.axis_name)


def _at_most_what_counts(k: Any, batch: Batch, weights: Float[Array, "rows row"]) -> Float[Array, "..."]:
    """A `k` that all examples, of such weights as those that count, would not reach either is left out of range."""
    totals = batch.groups.total(weights), batch.groups.count_where(weights != 0).astype(weights.dtype)
    (weight, number), k = (batch.groups.gather(total)[0] for total in totals), convert(k, weights.dtype)
    of_all = weight * (batch.groups.size(batch.logits.shape) / jnp.maximum(number, 1))
    return jnp.where((k > weight) & (k <= jnp.where(number == 0, k, of_all)), weight, k)


def _called(
    budget: Callable[..., Any],
    classes: int,
    targets: Float[Array, "n classes"] | None,
    weights: Float[Array, "..."],
) -> Any:
    """What a callable budget gives, where it is a number, or one for each class."""
    k = budget(targets, weights)
    check_real("what the budget gives", k)
    if jnp.shape(k) not in ((), (1,), (classes,)):
        remedy = f"one number, or one for each of {classes} classes" if classes > 1 else "one number"
        raise ValueError(f"the budget gave the shape {jnp.shape(k)}: it must give {remedy}")
    return k


def _by_example(batch: Batch) -> tuple[Float[Array, "n classes"] | None, Float[Array, "..."]]:
    """Targets and weights, one example in a row; without weights all are 1."""
    weights = _budget_weights(batch)
    if weights is None:
        one = sums.hidden(1, batch.logits.dtype)
        weights = jnp.broadcast_to(one, batch.logits.shape[0] * batch.groups.lanes)
    return None if batch.targets is None else by_example(batch.targets, batch.groups.lanes), weights


def _is_label_count(budget: Any) -> bool:
    return getattr(budget, "func", budget) is shares.label_count


def batch_mean(values: Float[Array, "rows row"], batch: Batch) -> Float[Array, ""]:
    """`sum_of_means` of what every entry has."""
    if batch.weights is not None:
        values = jnp.where(batch.weights != 0, values * batch.weights, 0)
    return sum_of_means(batch.groups.total(values), batch)


def sum_of_means(totals: Float[Array, "*group"], batch: Batch) -> Float[Array, ""]:
    """The sum over the classes of the mean over the examples that count, from the totals; 0 for an empty batch."""
    totals, size = batch.groups.gather(totals), batch_size(batch)
    return jnp.sum(totals / size) if batch.by_entry else jnp.sum(totals) / size


def batch_size(batch: Batch) -> Any:
    """How many examples count, over all shards, or of each class (C,) where that is by entry; 1 where none does."""
    if batch.weights is None:
        count = batch.groups.size(batch.logits.shape)
        return count if is_symbolic(count) else max(count, 1)
    sizes = batch.groups.total(batch.weights)
    size = batch.groups.gather(sizes)[0] if batch.by_entry else sizes[0, 0]
    return jnp.where(size == 0, 1, size)


def by_example(values: Float[Array, "rows row"], lanes: int) -> Float[Array, "n classes"]:
    """The entries of a batch with one example in a row."""
    rows, row = values.shape
    return values.reshape(rows, lanes, row // lanes).reshape(rows * lanes, row // lanes)


def _by_row(values: Float[Array, "n classes"], lanes: int) -> Float[Array, "rows row"]:
    # In two steps, each of which keeps a sharding of the examples.
    n, classes = values.shape
    return values.reshape(n // lanes, lanes, classes).reshape(n // lanes, lanes * classes)


def _budget_weights(batch: Batch) -> Float[Array, "..."] | None:
    """Of shape (n,), or (n, C) where they are by entry."""
    if batch.weights is None:
        return None
    weights = by_example(batch.weights, batch.groups.lanes)
    return weights if batch.by_entry else weights[:, 0]


def _check_labels(labels: Any, shape: tuple[Any, ...], where: Any, weights: Any) -> None:
    kind = dtype_of("labels", labels)
    if not any(jnp.issubdtype(kind, allowed) for allowed in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"labels must be integer, boolean or floating point, got {kind}")
    dense = jnp.shape(labels) == shape
    if not dense and shape[-1:] == (1,) and jnp.shape(labels) == shape[:-1]:
        raise ValueError(
            f"logits with shape {shape} have a single class, so labels with shape {shape[:-1]} cannot be class "
            "numbers: for a binary problem pass logits[..., 0]"
        )
    if not dense and len(shape) == 1:
        raise ValueError(
            f"labels with shape {jnp.shape(labels)} do not fit logits with shape {shape}, a binary problem: expected "
            f"labels of shape {shape}; for one example of {shape[0]} classes pass logits[None] and labels[None]"
        )
    if not dense and jnp.shape(labels) != shape[:-1]:
        raise ValueError(
            f"labels with shape {jnp.shape(labels)} do not fit logits with shape {shape}: "
            f"expected integers of shape {shape[:-1]} or labels of shape {shape}"
        )
    if not dense and not jnp.issubdtype(kind, jnp.integer):
        raise TypeError(f"labels of shape {shape[:-1]} are class numbers and must be integer, got {kind}")
    if any(isinstance(value, jax.core.Tracer) for value in (labels, where, weights)):
        return
    classes = shape[-1] if len(shape) > 1 else 1
    rows = np.reshape(np.asarray(labels), (-1, classes if dense else 1))
    wrong = ~((rows >= 0) & (rows <= 1 if dense else rows < classes))
    for given in (where, weights):
        if given is not None:
            taken = np.reshape(np.asarray(given) > 0, (len(rows), -1))
            wrong &= taken if dense else np.any(taken, 1, keepdims=True)
    wrong = rows[wrong]
    if wrong.size:
        allowed = "[0, 1]" if dense else f"[0, {classes})"
        remedy = "correct it, or mask its example with where"
        if len(shape) == 1:
            remedy = f"logits with shape {shape} are a binary problem; class numbers need logits of shape (n, classes)"
        raise ValueError(f"label {wrong[0]} is outside {allowed}: {remedy}")


def _weights(
    where: Bool[ArrayLike, "..."] | None, weights: Real[ArrayLike, "..."] | None, dtype: Any
) -> Float[Array, "..."] | None:
    """One weight per example, or per entry, zero where masked; None where all count alike."""
    weights = None if weights is None else nan_if_negative(convert(weights, dtype))
    if where is None:
        return weights
    weights = jnp.ones((), dtype) if weights is None else weights
    if jnp.ndim(weights) > jnp.ndim(where):
        where = jnp.asarray(where)[..., None]
    elif 0 < jnp.ndim(weights) < jnp.ndim(where):
        weights = weights[..., None]
    return jnp.where(where, weights, jnp.zeros((), dtype))
