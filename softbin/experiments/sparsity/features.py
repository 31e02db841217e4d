"""Which `k` pixels does a classifier need? Learned masks, penalties, and choices that need no training."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

import softbin
from softbin.experiments.common.epochs import train_in_epochs
from softbin.experiments.sparsity.images import Images, Numbers, Split

CLASSES = 10
NOISE = 0.5
"""The standard deviation of stochastic gates."""
ANNEALED_FROM = 1.0
"""The temperature of `soft` in the first step; it falls geometrically."""
BY_MASK = ("soft", "straight_through")
BY_PENALTY = ("stochastic_gates", "l1")
UNTRAINED = ("variance", "f_test", "random")
METHODS = (*BY_MASK, *BY_PENALTY, *UNTRAINED)


@partial(jax.jit, static_argnames=("method", "width", "epochs", "batch_size"))
def train(
    split: Split, numbers: Numbers, *, method: str, width: int, epochs: int, batch_size: int
) -> dict[str, Float[Array, "..."]]:
    """Choose `k` pixels on the training images, and train a new network on these alone.

    - `soft`: the pixels are multiplied by :func:`softbin.soft_binary_argmax` of learned scores, at a temperature that
      falls to the given one.
    - `straight_through`: likewise at the given temperature, with a hard mask forward.
    - `stochastic_gates`: the mask is `clip(μ + 1/2 + ε, 0, 1)` with normal ε, and the expected number of open gates is
      penalised; the pixels with the largest μ are chosen (Yamada et al., `Feature Selection using Stochastic Gates
      <https://arxiv.org/abs/1810.04247>`_, 2020, eq. 5 and 7).
    - `l1`: the sum of the norms of the first layer's weights of each pixel is penalised; the largest are chosen.
    - `variance`, `f_test`, `random`: the largest variances, or ratios of the variance between classes to that within.

    Args:
      split: the images.
      numbers: `k` pixels, the last temperature, the penalty, the rate of the scores and networks, and the seed.
      method: one of `METHODS`.
      width: of the hidden layer.
      epochs: passes over the training images, of the choice and again of the new network.
      batch_size: images in a batch.

    Returns:
      Of the new network `validation_accuracy` after each epoch, and `test_accuracy` after the last.
    """
    images = split.train
    keys = jax.random.split(jax.random.key(numbers.seed), 3)
    sizes = {"epochs": epochs, "batch_size": batch_size}
    importances = _untrained(method, images, keys[0])
    if importances is None:
        importances = _learned(images, numbers, keys[0], method=method, width=width, **sizes)
    mask = softbin.binary_argmax(importances, numbers.k)

    optimizer = optax.adam(numbers.learning_rate)
    network = _initial(keys[1], images.pixels.shape[1], width)

    def train_step(learner, rows):
        network, opt_state = learner
        batch = jax.tree.map(lambda values: values[rows], images)
        value, gradient = jax.value_and_grad(lambda network: _loss(network, batch.pixels * mask, batch.labels))(network)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(network, updates), opt_state), value

    def accuracy(network, part: Images):
        return jnp.mean(jnp.argmax(_logits(network, part.pixels * mask), 1) == part.labels)

    def measure(learner):
        return {"validation_accuracy": accuracy(learner[0], split.validation)}

    learner = network, optimizer.init(network)
    (network, _), history = train_in_epochs(train_step, learner, measure, rows=len(images.labels), **sizes, key=keys[2])
    return history | {"test_accuracy": accuracy(network, split.test)}


def _untrained(method: str, images: Images, key) -> Float[Array, " pixels"] | None:
    if method == "random":
        return jax.random.uniform(key, images.pixels.shape[1:])
    if method == "variance":
        return images.pixels.var(0)
    if method == "f_test":
        classes = jax.nn.one_hot(images.labels, CLASSES)
        means = classes.T @ images.pixels / classes.sum(0)[:, None]
        within = jnp.mean((images.pixels - means[images.labels]) ** 2, 0)
        between = jnp.mean((means[images.labels] - images.pixels.mean(0)) ** 2, 0)
        return between / jnp.maximum(within, jnp.finfo(within.dtype).tiny)
    return None


def _learned(images: Images, numbers: Numbers, key, *, method, width, epochs, batch_size) -> Float[Array, " pixels"]:
    """The scores of the pixels after training them along with a network."""
    network_key, order_key, noise_key = jax.random.split(key, 3)
    rows, pixels = images.pixels.shape
    steps = epochs * (rows // batch_size)
    params = {"network": _initial(network_key, pixels, width), "scores": jnp.zeros(pixels)}
    optimizer = optax.adam(numbers.learning_rate)

    def mask_and_penalty(params, step):
        scores = params["scores"]
        if method == "soft":
            fallen = ANNEALED_FROM * (numbers.temperature / ANNEALED_FROM) ** (step / steps)
            return softbin.soft_binary_argmax(scores, numbers.k, fallen), 0.0
        if method == "straight_through":
            return softbin.soft_binary_argmax(scores, numbers.k, numbers.temperature, straight_through=True), 0.0
        if method == "stochastic_gates":
            noise = NOISE * jax.random.normal(jax.random.fold_in(noise_key, step), (pixels,))
            opened = jnp.sum(jax.scipy.stats.norm.cdf((scores + 0.5) / NOISE))
            return jnp.clip(scores + 0.5 + noise, 0, 1), opened / pixels
        return 1.0, jnp.sum(_norms(params["network"])) / pixels

    def loss_fn(params, batch: Images, step):
        mask, penalty = mask_and_penalty(params, step)
        return _loss(params["network"], batch.pixels * mask, batch.labels) + numbers.penalty * penalty

    def train_step(learner, rows):
        params, opt_state, step = learner
        batch = jax.tree.map(lambda values: values[rows], images)
        value, gradient = jax.value_and_grad(loss_fn)(params, batch, step)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state, step + 1), value

    learner = params, optimizer.init(params), jnp.zeros((), jnp.int32)
    sizes = {"rows": rows, "epochs": epochs, "batch_size": batch_size}
    (params, _, _), _ = train_in_epochs(train_step, learner, lambda learner: {}, **sizes, key=order_key)
    return _norms(params["network"]) if method == "l1" else params["scores"]


def _initial(key, pixels: int, width: int) -> dict[str, Array]:
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (pixels, width)) * (2 / pixels) ** 0.5,
        "first_bias": jnp.zeros(width),
        "second": jax.random.normal(second, (width, CLASSES)) / width**0.5,
        "second_bias": jnp.zeros(CLASSES),
    }


def _norms(network) -> Float[Array, " pixels"]:
    """Of the weights of each pixel; differentiable at 0, too."""
    return jnp.sqrt(jnp.sum(network["first"] ** 2, 1) + jnp.finfo(jnp.float32).tiny)


def _logits(network, pixels):
    return jax.nn.relu(pixels @ network["first"] + network["first_bias"]) @ network["second"] + network["second_bias"]


def _loss(network, pixels, labels):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(_logits(network, pixels), labels))
