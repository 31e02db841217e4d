"""What training changes, an epoch that changes it, and its evaluation."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import softbin
from softbin import large_batch
from softbin.experiments.datasets import data
from softbin.experiments.training import measures, models
from softbin.experiments.training.augment import augment
from softbin.experiments.training.precision import precisions
from softbin.experiments.training.tasks import Task

_SHARES = ("active", "saturated_right", "saturated_wrong")
_EVALUATED_AT_ONCE = 1000  # examples for each device


class Learner(NamedTuple):
    """What training changes: all of it goes into a checkpoint."""

    params: nnx.State
    statistics: nnx.State  # the running averages of batch normalisation; empty for a model without
    opt_state: optax.OptState
    key: jax.Array  # the raw key data; it determines the order of the data and their augmentation from here on
    thresholds: jax.Array  # of the training set, as last evaluated; zero for a loss without
    step: jax.Array  # how many are done


class Programs(NamedTuple):
    """What a run computes, and where it begins."""

    initial: Learner
    train_epoch: Callable[[Learner, data.Dataset], tuple[Learner, dict[str, Any]]]
    evaluate: Callable[[Learner, data.Dataset], tuple[Learner, dict[str, Any]]]


def build(task: Task, config: ml_collections.ConfigDict, mesh: Mesh) -> Programs:
    """The programs of a run, data-parallel over a mesh with the axis `batch`."""
    dtype = jnp.bfloat16 if config.mixed_precision else jnp.float32
    shape = task.dataset.train_images.shape[1:]
    model = models.build(config.model, shape, config.hidden, task.classes, dtype, config.seed)
    model.eval()
    evaluated = nnx.graphdef(model)
    model.train()
    trained, params, *others = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adam(config.learning_rate)
    key = jax.random.key_data(jax.random.key(config.seed))
    initial = Learner(params, others[0], optimizer.init(params), key, jnp.zeros(task.classes), jnp.int32(0))
    train_epoch = _train_epoch(task, trained, optimizer, config, mesh)
    return Programs(initial, train_epoch, _evaluate(task, evaluated, mesh))


def _train_epoch(task: Task, graph, optimizer, config, mesh):
    examples = len(task.dataset.train_labels)
    steps = examples // config.batch_size
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    loss_and_gradient = _loss_and_gradient(task, graph, config)

    def plan_epoch(key):
        """The key after an epoch, and the examples and the key of each of its steps."""
        key, shuffle_key, augment_key = jax.random.split(jax.random.wrap_key_data(key), 3)
        order = jax.random.permutation(shuffle_key, examples)[: steps * config.batch_size]
        keys = jax.random.key_data(jax.random.split(augment_key, steps))
        return jax.random.key_data(key), (order.reshape(steps, config.batch_size), keys)

    def train_step(dataset, learner, batch):
        chosen, key = batch
        chosen = lax.with_sharding_constraint(chosen, split)
        images, labels = dataset.train_images[chosen], dataset.train_labels[chosen]
        if config.augment:
            images = augment(jax.random.wrap_key_data(key), images)
        (loss, (shares, statistics)), gradient = loss_and_gradient(
            learner.params, learner.statistics, images, labels, learner.step, dataset.train_clean[chosen]
        )
        updates, opt_state = optimizer.update(gradient, learner.opt_state, learner.params)
        params = optax.apply_updates(learner.params, updates)
        learner = learner._replace(params=params, statistics=statistics, opt_state=opt_state, step=learner.step + 1)
        return learner, {"loss": loss, **shares}

    def train_epoch(scan, plan_epoch, train_step, learner, dataset):
        """One pass over the training set in a new order; a last batch that is not full is left out."""
        key, batches = plan_epoch(learner.key)
        learner, metrics = scan(partial(train_step, dataset), learner, batches)
        return learner._replace(key=key), jax.tree.map(jnp.mean, metrics)

    jit = partial(jax.jit, out_shardings=everywhere)
    if config.model == "cnn" and jax.default_backend() == "cpu":
        # inside a loop XLA computes the gradients of convolutions tens of times slower (jax issue 12868)
        return partial(train_epoch, _scan_in_python, jit(plan_epoch), jit(train_step))
    return jit(partial(train_epoch, lax.scan, plan_epoch, train_step))


def _scan_in_python(step, carry, xs):
    outputs = []
    for x in zip(*jax.device_get(xs), strict=True):
        carry, output = step(carry, x)
        outputs.append(output)
    return carry, jax.tree.map(lambda *values: jnp.stack(values), *jax.device_get(outputs))


def _loss_and_gradient(task: Task, graph, config):
    """`(params, statistics, images, labels, step, clean) -> (loss, (shares, new statistics)), gradient`."""

    def loss_and_shares(logits, labels, step, clean):
        loss, kept = task.loss(logits, labels, step)
        shares = {}
        if task.projection is not None:
            diagnosis = softbin.diagnose(logits, labels, weights=kept, **task.projection)
            shares = {name: getattr(diagnosis, name) for name in _SHARES}
        if kept is not None and config.label_noise:
            shares["kept_clean"] = jnp.average(clean, weights=kept)
        return loss, shares

    def apply(params, statistics, images):
        statistics = jax.tree.map(lambda x: x, statistics)  # variables of this trace, which the model may change
        model = nnx.merge(graph, params, statistics)
        return model(images).astype(jnp.float32), nnx.state(model, nnx.Not(nnx.Param))

    def loss_fn(params, statistics, images, *others):
        logits, statistics = apply(params, statistics, images)
        loss, shares = loss_and_shares(logits, *others)
        return loss, (shares, statistics)

    if not config.microbatch_size:
        return jax.value_and_grad(loss_fn, has_aux=True)

    def in_microbatches(params, statistics, images, *others):
        def logits_fn(params, images):
            return apply(params, statistics, images)[0]

        value_and_grad = large_batch.value_and_grad(logits_fn, loss_and_shares, config.microbatch_size, has_aux=True)
        (loss, shares), gradient = value_and_grad(params, images, *others)
        return (loss, (shares, statistics)), gradient

    return in_microbatches


def _evaluate(task: Task, graph, mesh):
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    def outcome(learner, images, labels):
        """Logits and labels, spread over the devices, and which of them count: the last example fills up the shares.

        In rounds, so that the activations of a large data set need not fit into memory.
        """
        model = nnx.merge(graph, learner.params, learner.statistics)
        rounds = math.ceil(len(labels) / (_EVALUATED_AT_ONCE * mesh.size))
        size = mesh.size * math.ceil(len(labels) / (rounds * mesh.size))
        places = lax.with_sharding_constraint(jnp.arange(size * rounds), split)
        chosen = jnp.minimum(places, len(labels) - 1)
        logits = lax.map(lambda chosen: model(images[chosen]), chosen.reshape(size, rounds).T)
        logits = jnp.moveaxis(logits, 0, 1).reshape(size * rounds, -1).astype(jnp.float32)
        return logits, labels[chosen], places < len(labels)

    @partial(jax.jit, out_shardings=everywhere)
    def evaluate(learner, dataset):
        """What is measured by argmax and with the thresholds of the training set, and the learner with these."""
        if task.thresholds is not None:
            trained = outcome(learner, dataset.train_images, dataset.train_labels)
            learner = learner._replace(thresholds=task.thresholds(*trained, learner.step))
        decisions: dict[str, dict[str, Any]] = {"": {}}
        if task.thresholds is not None:
            decisions["_thresholded"] = {"thresholds": learner.thresholds, "temperature": task.temperature}
        metrics = {}
        for part in ("validation", "test"):
            images, labels = (getattr(dataset, f"{part}_{name}") for name in ("images", "labels"))
            if not len(labels):
                continue
            logits, labels, counts = outcome(learner, images, labels)
            for rule, keywords in decisions.items():
                error = partial(softbin.zero_one_loss, logits, labels, **keywords)
                metrics[f"{part}_accuracy{rule}"] = 1 - error(where=counts)
                if part == "test":
                    metrics[f"test_worst_class{rule}"] = measures.worst_recall(error, labels, counts, task.classes)
            if task.classes == 2:
                found = precisions(logits[:, 1] - logits[:, 0], labels, counts)
                metrics |= {f"{part}_{name}": value for name, value in found.items()}
        metrics["test_tail_loss"] = measures.tail_loss(logits / task.temperature, labels, counts)
        return learner, metrics

    return evaluate
