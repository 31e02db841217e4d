#!/usr/bin/env bash
# Optax 0.2.8 with JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11.
#
# `optax.adam` keeps its second moment in the dtype of the parameters (mu_dtype is for the first moment alone). With
# b2 = 0.999 one step moves it by a thousandth, which is less than half a unit in the last place of bfloat16: it neither
# falls after one large gradient nor rises to its mean. After 10,000 steps of gradient 1 the step is 1.39 times what it
# should be; 10,000 steps after a single gradient of 100 it is a third of what it should be. No warning is given.
# Moments are right where the state is made (`init`) from float32 parameters.
#
# Seen on 2026-11-29 (learning rate 1, so the step should be 1):
#   float32, gradients 1, 1, 1, ...: second moment 1, step 1
#   float32, gradients 100, 1, 1, ...: second moment 1, step 1
#   bfloat16, gradients 1, 1, 1, ...: second moment 0.5, step 1.39
#   bfloat16, gradients 100, 1, 1, ...: second moment 10, step 0.322
set -euo pipefail
unset PYTHONPATH XLA_FLAGS
export JAX_PLATFORMS=cpu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0 optax==0.2.8 absl-py==2.5.1

venv/bin/python - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import optax

optimizer = optax.adam(1.0)
step = jax.jit(optimizer.update)


def train(dtype, first):
    parameters = jnp.zeros((1,), dtype)
    state = optimizer.init(parameters)
    for i in range(10_000):
        gradient = jnp.full((1,), first if i == 0 else 1.0, dtype)
        update, state = step(gradient, state, parameters)
    return float(state[0].nu[0]), float(-update[0])


same = True
expected = {("float32", 1): 1.0, ("float32", 100): 1.0, ("bfloat16", 1): 1.39, ("bfloat16", 100): 0.322}
for (name, first), size in expected.items():
    moment, update = train(jnp.dtype(name), float(first))
    print(f"{name}, gradients {first}, 1, 1, ...: second moment {moment:.3g}, step {update:.3g}")
    same &= abs(update / size - 1) < 0.02
sys.exit(0 if same else "the behaviour has changed")
PYTHON
