#!/usr/bin/env bash
# Optax 0.2.8, JAX 0.10.2 (and 0.12.0.1), Python >= 3.11, CPU.
#
# The gradient of `softmax_cross_entropy_with_integer_labels` by logits, with logits and labels as arguments of
# `jax.jit`, compiles the longer the more examples a batch has, though no array is known then. The function picks a logit
# by `take_along_axis`, whose transpose scatters the same cotangent, -1/n, once for each example; XLA takes that part for
# a constant, and works it out entry by entry while it compiles, 2 s for 2^20 examples. The
# one-hot `softmax_cross_entropy` of the same batch compiles in the same time at any size.
#
# Seen on 2026-11-30 (seconds of the processor for one compilation, the best of three):
#   integer_labels: 2^12 examples 0.13 s, 2^20 examples 2.12 s
#   one_hot_labels: 2^12 examples 0.03 s, 2^20 examples 0.03 s
set -euo pipefail
unset PYTHONPATH XLA_FLAGS
export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0

venv/bin/python - <<'PYTHON'
import sys
import time

import jax
import jax.numpy as jnp
import optax


def integer_labels(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def one_hot_labels(logits, labels):
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 10)).mean()


def seconds(loss, n):
    batch = jnp.zeros((n, 10)), jnp.zeros(n, jnp.int32)
    times = []
    for _ in range(3):
        jax.clear_caches()
        lowered = jax.jit(jax.grad(loss)).lower(*batch)
        start = time.process_time()
        lowered.compile()
        times.append(time.process_time() - start)
    return min(times)


ratios = []
for loss in (integer_labels, one_hot_labels):
    small, large = (seconds(loss, n) for n in (2**12, 2**20))
    print(f"{loss.__name__}: 2^12 examples {small:.2f} s, 2^20 examples {large:.2f} s")
    ratios.append(large / small)
sys.exit("the behaviour has changed" if ratios[0] < 4 or ratios[1] > 3 else 0)
PYTHON
