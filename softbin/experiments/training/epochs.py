"""Training as one compiled program: steps over the rows of arrays in memory, and measures after each epoch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def train_in_epochs(
    train_step: Callable[[Any, Int[Array, " batch"]], tuple[Any, Float[Array, ""]]],
    learner: Any,
    measure: Callable[[Any], dict[str, Float[Array, ""]]],
    *,
    rows: int,
    batch_size: int,
    epochs: int,
    key: Array,
) -> tuple[Any, dict[str, Float[Array, " epochs"]]]:
    """Call `train_step(learner, rows of the batch) -> learner, loss` for each batch, and `measure(learner)` each epoch.

    Args:
      train_step: one update.
      learner: what it changes.
      measure: after an epoch.
      rows: how many there are.
      batch_size: rows in a batch, at most as many as there are; a last batch that is not full is left out.
      epochs: passes over the rows, each in a new order.
      key: of the orders.

    Returns:
      The learner, and by name the mean `loss` of each epoch and the measures after it.
    """
    steps = rows // batch_size

    def train_epoch(learner: Any, key: Array) -> tuple[Any, dict[str, Float[Array, ""]]]:
        order = jax.random.permutation(key, rows)[: steps * batch_size]
        learner, values = lax.scan(train_step, learner, order.reshape(steps, batch_size))
        return learner, {"loss": jnp.mean(values), **measure(learner)}

    return lax.scan(train_epoch, learner, jax.random.split(key, epochs))
