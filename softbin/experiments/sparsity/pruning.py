"""Pruning a multilayer perceptron: which share of its weights does it need?"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

import softbin
from softbin.adapters.optax import keep_top_k
from softbin.experiments.datasets.images import Images, Split
from softbin.experiments.sparsity.numbers import Numbers
from softbin.experiments.training.epochs import train_in_epochs

CLASSES = 10
BEGIN, END = 0.2, 0.7
"""The shares of the steps at which pruning begins and has come to the share that is kept; in between, as a cubic."""
ANNEALED_FROM = 10.0
"""By how many times the temperature of `soft` is higher in the first step; it falls geometrically until `END`."""
BY_MAGNITUDE = ("global", "by_layer", "at_once")
BY_MASK = ("soft", "straight_through")
METHODS = (*BY_MAGNITUDE, *BY_MASK, "dense")


@partial(jax.jit, static_argnames=("method", "width", "epochs", "batch_size"))
def train(
    split: Split, numbers: Numbers, *, method: str, width: int, epochs: int, batch_size: int
) -> dict[str, Float[Array, "..."]]:
    """Train a network of two hidden layers by Adam with cross-entropy, its rate falling to 0 as a cosine.

    - `global`: the largest weights of all layers, ever fewer, by :func:`softbin.adapters.optax.keep_top_k`.
    - `by_layer`: the same share of each layer.
    - `at_once`: as `global`, but all of it in the middle of the pruning.
    - `soft`: the weights are multiplied by :func:`softbin.soft_binary_argmax` of their magnitudes, in units of the root
      mean square of all; as many are chosen as `global` keeps, at a temperature that falls to the given one.
    - `straight_through`: likewise at the given temperature, with a hard mask forward.
    - `dense`: all weights.

    Args:
      split: the images.
      numbers: `k`, the share of the weights; the last temperature, the first rate, and the seed.
      method: one of `METHODS`.
      width: of the hidden layers.
      epochs: passes over the training images.
      batch_size: images in a batch.

    Returns:
      After each epoch `validation_accuracy`, and after the last `test_accuracy`, of the network with the share of its
      weights that is kept by then.
    """
    images = split.train
    rows, pixels = images.pixels.shape
    steps = epochs * (rows // batch_size)
    key, order_key = jax.random.split(jax.random.key(numbers.seed))
    params = _initial(key, pixels, width)
    optimizer = _optimizer(method, numbers, steps, params)

    def weights(params, step, hard: bool):
        if method not in BY_MASK:
            return params["weights"]
        fallen = ANNEALED_FROM ** jnp.maximum(1 - step / (END * steps), 0) if method == "soft" else 1.0
        kept = share(numbers.k, step / steps)
        return _masked(params["weights"], kept, numbers.temperature * fallen, hard, method == "straight_through")

    def loss_fn(params, batch: Images, step):
        logits = _logits(weights(params, step, hard=False), params["biases"], batch.pixels)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))

    def train_step(learner, rows):
        params, opt_state, step = learner
        batch = jax.tree.map(lambda values: values[rows], images)
        value, gradient = jax.value_and_grad(loss_fn)(params, batch, step)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, step + 1), value

    def accuracy(learner, part: Images):
        params, _, step = learner
        logits = _logits(weights(params, step, hard=True), params["biases"], part.pixels)
        return jnp.mean(jnp.argmax(logits, 1) == part.labels)

    def measure(learner):
        return {"validation_accuracy": accuracy(learner, split.validation)}

    learner = params, optimizer.init(params), jnp.zeros((), jnp.int32)
    passes = {"rows": rows, "batch_size": batch_size, "epochs": epochs}
    learner, history = train_in_epochs(train_step, learner, measure, **passes, key=order_key)
    return history | {"test_accuracy": accuracy(learner, split.test)}


def share(k, progress, at_once: bool = False):
    """Of the weights that are kept, from all to `k`."""
    done = jnp.clip((progress - BEGIN) / (END - BEGIN), 0, 1)
    left = jnp.where(done < 0.5, 1.0, 0.0) if at_once else (1 - done) ** 3
    return k + (1 - k) * left


def _optimizer(method: str, numbers: Numbers, steps: int, params) -> optax.GradientTransformation:
    adam = optax.adam(optax.cosine_decay_schedule(numbers.learning_rate, steps))
    if method not in BY_MAGNITUDE:
        return adam

    def schedule(step):
        return softbin.budgets.fraction(share(numbers.k, step / steps, at_once=method == "at_once"))

    layers = range(len(params["weights"])) if method == "by_layer" else [0] * len(params["weights"])
    labels = {"weights": [f"layer {layer}" for layer in layers], "biases": ["biases"] * len(params["biases"])}
    pruned = {f"layer {layer}": optax.chain(adam, keep_top_k(schedule)) for layer in layers}
    return optax.partition({**pruned, "biases": adam}, labels)


def _masked(weights: list[Array], k, temperature, hard: bool, straight_through: bool) -> list[Array]:
    """By one choice among the weights of all layers."""
    flat, unravel = ravel_pytree(weights)
    magnitudes = jnp.abs(flat) / jnp.sqrt(jnp.mean(flat**2))
    k = jnp.round(k * flat.size)
    if hard:
        mask = softbin.binary_argmax(magnitudes, k)
    else:
        mask = softbin.soft_binary_argmax(magnitudes, k, temperature, straight_through=straight_through)
    return unravel(flat * mask)


def _initial(key, pixels: int, width: int) -> dict[str, list[Array]]:
    sizes = (pixels, width, width, CLASSES)
    shapes = list(pairwise(sizes))
    keys = jax.random.split(key, len(shapes))
    return {
        "weights": [jax.random.normal(k, shape) * (2 / shape[0]) ** 0.5 for k, shape in zip(keys, shapes, strict=True)],
        "biases": [jnp.zeros(size) for size in sizes[1:]],
    }


def _logits(weights: list[Array], biases: list[Array], pixels):
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        pixels = jax.nn.relu(pixels @ weight + bias)
    return pixels @ weights[-1] + biases[-1]
