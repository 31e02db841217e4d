from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin.experiments.training import measures

LOGITS = jax.random.normal(jax.random.key(0), (60, 4))
LABELS = jnp.arange(60) % 3  # no example of the last class
COUNTS = jnp.arange(60) < 50


def test_the_tail_loss_is_the_mean_of_the_largest_tenth():
    losses = -jax.nn.log_softmax(LOGITS)[jnp.arange(60), LABELS]
    expected = np.sort(losses[:50])[-5:].mean()
    assert float(measures.tail_loss(LOGITS, LABELS, COUNTS)) == pytest.approx(expected, rel=1e-6)


def test_the_worst_class_has_the_smallest_recall():
    right = np.asarray(LOGITS.argmax(1) == LABELS)
    recalls = [right[:50][LABELS[:50] == c].mean() for c in range(3)]
    error = partial(softbin.zero_one_loss, LOGITS, LABELS)
    assert float(measures.worst_recall(error, LABELS, COUNTS, 4)) == pytest.approx(min(recalls))
