"""Which `k` pixels does a classifier need? Learned masks, penalties, and choices that need no training."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

import softbin
from softbin.experiments.datasets.images import Images, Split
from softbin.experiments.sparsity.numbers import Numbers
from softbin.experiments.training.epochs import train_in_epochs

CLASSES = 10
NOISE = 0.5
"""The standard deviation of stochastic gates."""
SCORE_RATES = {"stochastic_gates": 10.0}
"""By how many times the rate of the scores is higher than that of the network: gates have a way to go to close."""
ANNEALED_FROM = 1.0
"""The temperature of `soft` in the first step; it falls geometrically."""
REFIT_RATE = 3e-3
"""The first learning rate of the new network."""
LONGEST_FORWARD = 64
"""How many pixels `forward` ranks."""
BY_MASK = ("soft", "straight_through")
BY_PENALTY = ("stochastic_gates", "group_lasso")
UNTRAINED = ("forward", "f_test", "variance", "random")
METHODS = (*BY_MASK, *BY_PENALTY, *UNTRAINED)


@partial(jax.jit, static_argnames=("method", "width", "epochs", "batch_size"))
def train(
    split: Split, numbers: Numbers, *, method: str, width: int, epochs: int, batch_size: int
) -> dict[str, Float[Array, "..."]]:
    """Choose `k` pixels on the training images, and train a new network on these alone, both by Adam and cosines.

    - `soft`: the pixels are multiplied by :func:`softbin.soft_binary_argmax` of learned scores, at a temperature that
      falls to the given one.
    - `straight_through`: likewise at the given temperature, with a hard mask forward.
    - `stochastic_gates`: the mask is `clip(μ + 1/2 + ε, 0, 1)` with normal ε, and the expected share of open gates is
      penalised; the pixels with the largest μ are chosen (Yamada et al., `Feature Selection using Stochastic Gates
      <https://arxiv.org/abs/1810.04247>`_, 2020, eq. 5 and 7).
    - `group_lasso`: the norm of the first layer's weights of each pixel is penalised, by proximal steps; the largest
      are chosen, in units of the pixel's standard deviation.
    - `forward`: the pixels that lower the squared error of least squares most, one after the other.
    - `f_test`, `variance`, `random`: the largest ratios of the variance between classes to that within, or variances.

    Args:
      split: the images.
      numbers: `k` pixels, the last temperature, the penalty, the first rate of the choice, and the seed.
      method: one of `METHODS`.
      width: of the hidden layer.
      epochs: passes over the training images, of the choice and again of the new network.
      batch_size: images in a batch.

    Returns:
      Of the new network `validation_accuracy` after each epoch, and `test_accuracy` after the last.
    """
    images = split.train
    rows = len(images.labels)
    keys = jax.random.split(jax.random.key(numbers.seed), 3)
    sizes = {"epochs": epochs, "batch_size": batch_size}
    importances = _untrained(method, images, keys[0])
    if importances is None:
        importances = _learned(images, numbers, keys[0], method=method, width=width, **sizes)
    mask = softbin.binary_argmax(importances, numbers.k)

    optimizer = optax.adam(optax.cosine_decay_schedule(REFIT_RATE, epochs * (rows // batch_size)))
    network = _initial(keys[1], images.pixels.shape[1], width, inputs=numbers.k)

    def train_step(learner, chosen):
        network, opt_state = learner
        batch = jax.tree.map(lambda values: values[chosen], images)
        value, gradient = jax.value_and_grad(lambda network: _loss(network, batch.pixels * mask, batch.labels))(network)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(network, updates), opt_state), value

    def accuracy(network, part: Images):
        return jnp.mean(jnp.argmax(_logits(network, part.pixels * mask), 1) == part.labels)

    def measure(learner):
        return {"validation_accuracy": accuracy(learner[0], split.validation)}

    learner = network, optimizer.init(network)
    (network, _), history = train_in_epochs(train_step, learner, measure, rows=rows, **sizes, key=keys[2])
    return history | {"test_accuracy": accuracy(network, split.test)}


def _untrained(method: str, images: Images, key) -> Float[Array, " pixels"] | None:
    if method == "random":
        return jax.random.uniform(key, images.pixels.shape[1:])
    if method == "variance":
        return images.pixels.var(0)
    classes = jax.nn.one_hot(images.labels, CLASSES)
    if method == "forward":
        return _forward(images.pixels - images.pixels.mean(0), classes - classes.mean(0))
    if method == "f_test":
        means = classes.T @ images.pixels / classes.sum(0)[:, None]
        within = jnp.mean((images.pixels - means[images.labels]) ** 2, 0)
        between = jnp.mean((means[images.labels] - images.pixels.mean(0)) ** 2, 0)
        return between / jnp.maximum(within, _tiny(within))
    return None


def _forward(pixels, targets) -> Float[Array, " pixels"]:
    """The earlier it is taken, the higher; what is taken is then taken out of the pixels that are left."""
    enough = 1e-4 * jnp.max(jnp.sum(pixels**2, 0))  # of a pixel that is left

    def take(i, state):
        left, targets, importances = state
        size = jnp.sum(left**2, 0)
        gain = jnp.sum((left.T @ targets) ** 2, 1) / jnp.maximum(size, enough)
        best = jnp.argmax(jnp.where((size > enough) & (importances == 0), gain, -1))
        direction = left[:, best] / jnp.sqrt(jnp.maximum(size[best], enough))
        left, targets = (each - jnp.outer(direction, direction @ each) for each in (left, targets))
        return left, targets, importances.at[best].set(LONGEST_FORWARD - i)

    importances = jnp.zeros(pixels.shape[1])
    return jax.lax.fori_loop(0, min(LONGEST_FORWARD, pixels.shape[1]), take, (pixels, targets, importances))[2]


def _learned(images: Images, numbers: Numbers, key, *, method, width, epochs, batch_size) -> Float[Array, " pixels"]:
    """The scores of the pixels after training them along with a network."""
    network_key, order_key, noise_key = jax.random.split(key, 3)
    rows, pixels = images.pixels.shape
    steps = epochs * (rows // batch_size)
    params = {"network": _initial(network_key, pixels, width, inputs=pixels), "scores": jnp.zeros(pixels)}
    schedule = optax.cosine_decay_schedule(numbers.learning_rate, steps)
    optimizer = optax.adam(schedule)

    def mask_and_penalty(scores, step):
        if method == "soft":
            fallen = ANNEALED_FROM * (numbers.temperature / ANNEALED_FROM) ** (step / max(steps - 1, 1))
            return softbin.soft_binary_argmax(scores, numbers.k, fallen), 0.0
        if method == "straight_through":
            return softbin.soft_binary_argmax(scores, numbers.k, numbers.temperature, straight_through=True), 0.0
        if method == "stochastic_gates":
            noise = NOISE * jax.random.normal(jax.random.fold_in(noise_key, step), (pixels,))
            opened = jnp.mean(jax.scipy.stats.norm.cdf((scores + 0.5) / NOISE))
            return jnp.clip(scores + 0.5 + noise, 0, 1), numbers.penalty * opened
        return 1.0, 0.0

    def loss_fn(params, batch: Images, step):
        mask, penalty = mask_and_penalty(params["scores"], step)
        return _loss(params["network"], batch.pixels * mask, batch.labels) + penalty

    def train_step(learner, chosen):
        params, opt_state, step = learner
        batch = jax.tree.map(lambda values: values[chosen], images)
        value, gradient = jax.value_and_grad(loss_fn)(params, batch, step)
        updates, opt_state = optimizer.update(gradient, opt_state)
        updates["scores"] *= SCORE_RATES.get(method, 1.0)
        params = optax.apply_updates(params, updates)
        if method == "group_lasso":
            first = params["network"]["first"]
            shrunk = jnp.maximum(1 - schedule(step) * numbers.penalty / jnp.maximum(_norms(first), _tiny(first)), 0)
            params["network"] |= {"first": first * shrunk[:, None]}
        return (params, opt_state, step + 1), value

    learner = params, optimizer.init(params), jnp.zeros((), jnp.int32)
    sizes = {"rows": rows, "epochs": epochs, "batch_size": batch_size}
    (params, _, _), _ = train_in_epochs(train_step, learner, lambda learner: {}, **sizes, key=order_key)
    if method == "group_lasso":
        return _norms(params["network"]["first"]) * images.pixels.std(0)
    return params["scores"]


def _initial(key, pixels: int, width: int, inputs) -> dict[str, Array]:
    """Of a scale for as many inputs as are not 0."""
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (pixels, width)) * jnp.sqrt(2 / inputs),
        "first_bias": jnp.zeros(width),
        "second": jax.random.normal(second, (width, CLASSES)) / width**0.5,
        "second_bias": jnp.zeros(CLASSES),
    }


def _norms(first) -> Float[Array, " pixels"]:
    """Of the weights of each pixel."""
    return jnp.linalg.norm(first, axis=1)


def _tiny(array):
    return jnp.finfo(array.dtype).tiny


def _logits(network, pixels):
    return jax.nn.relu(pixels @ network["first"] + network["first_bias"]) @ network["second"] + network["second_bias"]


def _loss(network, pixels, labels):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(_logits(network, pixels), labels))
