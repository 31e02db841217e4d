#!/usr/bin/env bash
# Keras 3.15.1 on its JAX backend (JAX 0.10.2; 0.12.0.1 prints the same), Python >= 3.11.
#
# A loss function that averages over the batch itself, `mean((t - p) ** 2)` in place of `mean((t - p) ** 2, -1)`, is
# accepted by `compile`, and without weights it gives the same number. With `sample_weight` its scalar is multiplied by
# the mean weight: who weighs what is lost. Examples of weight 0 are trained on, without an error or a warning.
#
# Seen on 2026-11-29 (every second example has an outlier as label and weight 0):
#   loss per example: no weights 4993, weights 0.57425, largest step of a parameter 0.0354
#   scalar loss:      no weights 4993, weights 2496.5, largest step of a parameter 4.98
set -euo pipefail
unset PYTHONPATH XLA_FLAGS
export JAX_PLATFORMS=cpu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0 keras==3.15.1

venv/bin/python - <<'PYTHON'
import os
import sys

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np

generator = np.random.default_rng(0)
x = generator.normal(size=(64, 4)).astype(np.float32)
y = (x.sum(axis=1, keepdims=True) + generator.normal(size=(64, 1))).astype(np.float32)
weights = np.tile(np.float32([1.0, 0.0]), 32)
y[weights == 0] += 100.0


def per_example(targets, outputs):
    return keras.ops.mean((targets - outputs) ** 2, axis=-1)


def scalar(targets, outputs):
    return keras.ops.mean((targets - outputs) ** 2)


def try_loss(loss):
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    unweighted = model.evaluate(x, y, batch_size=64, verbose=0)
    weighted = model.evaluate(x, y, sample_weight=weights, batch_size=64, verbose=0)
    model.fit(x, y, sample_weight=weights, batch_size=64, epochs=1, shuffle=False, verbose=0)
    kernel, bias = model.get_weights()
    return unweighted, weighted, max(np.abs(kernel - 1).max(), np.abs(bias).max())


rows = {"loss per example:": try_loss(per_example), "scalar loss:": try_loss(scalar)}
for name, (unweighted, weighted, step) in rows.items():
    print(f"{name:17} no weights {unweighted:.5g}, weights {weighted:.5g}, largest step of a parameter {step:.3g}")
right, wrong = rows.values()
exact = float(np.mean(weights * ((y - x.sum(axis=1, keepdims=True)) ** 2)[:, 0]))
same = abs(right[0] / wrong[0] - 1) < 1e-4 and abs(right[1] / exact - 1) < 1e-4
same &= abs(wrong[1] / (wrong[0] * weights.mean()) - 1) < 1e-4 and wrong[2] > 20 * right[2]
sys.exit(0 if same else "the behaviour has changed")
PYTHON
