"""A batch to spread over devices and processes, in numpy, and what to compute of it."""

from functools import partial

import jax
import numpy as np

import softbin

N, CLASSES = 1600, 5
RANDOM = np.random.default_rng(0)
LOGITS = 2 * RANDOM.standard_normal((N, CLASSES), np.float32)
LABELS = RANDOM.integers(0, CLASSES, N, np.int32)
UNEVEN = np.arange(N) < N * 5 // 8 + 7  # two of eight shards and a part hold nothing that counts

WHERE = {"even": None, "uneven": UNEVEN}
LOSSES = {
    "loss": softbin.loss,
    "loss, label_count": partial(softbin.loss, budget=softbin.budgets.label_count),
    "fenchel_young_loss": softbin.fenchel_young_loss,
}


def value_and_gradient(loss_fn, logits, labels, where, axis_name=None):
    return jax.value_and_grad(lambda x: loss_fn(x, labels, where=where, axis_name=axis_name))(logits)


def diagnosis(logits, labels, where, axis_name=None):
    return softbin.diagnose(logits, labels, where=where, axis_name=axis_name)


def hard_choice(logits, labels, where):
    """A value for each class, and entries of all classes together: with ties, since the digits are few."""
    where = None if where is None else where[:, None]
    logits = jax.numpy.round(logits, 1)
    return (
        softbin.kth_largest(logits, 300, axis=0, where=where),
        softbin.binary_argmax(logits, 300, axis=None, where=where),
    )
