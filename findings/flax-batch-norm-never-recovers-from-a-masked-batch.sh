#!/usr/bin/env bash
# Flax 0.12.8 with JAX 0.10.2 (Flax 0.12.12 with 0.12.0.1 prints the same), Python >= 3.11.
#
# BatchNorm takes a mask for padded examples, and NaN in them does no harm. A batch that is padding altogether, as the
# last one of a data set may be on one device, has no mean: 0/0 is NaN, and the running average keeps it. From then
# on every evaluation is NaN, however many good batches follow; during training nothing shows, since there the
# statistics of the batch are used. NNX and Linen alike. Skip such batches, or keep the old statistics by hand.
#
# Seen on 2026-11-29 (batches: good, all masked, 100 good):
#   nnx    last training output finite: True   running mean [nan nan]   evaluation finite: False
#   linen  last training output finite: True   running mean [nan nan]   evaluation finite: False
#   nnx, one example of eight not masked: running mean finite: True
set -euo pipefail
unset PYTHONPATH XLA_FLAGS
export JAX_PLATFORMS=cpu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0 \
  flax==0.12.8 optax==0.2.8 orbax-checkpoint==0.12.8

venv/bin/python - <<'PYTHON'
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

x = jax.random.normal(jax.random.key(0), (8, 2))
good, padding = jnp.ones((8, 1), bool), jnp.zeros((8, 1), bool)
masks = [good, padding] + [good] * 100


def finite(values):
    return bool(jnp.all(jnp.isfinite(values)))


def with_nnx(masks):
    layer = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    forward = nnx.jit(lambda layer, x, mask: layer(x, mask=mask))
    for mask in masks:
        output = forward(layer, x, mask)
    layer.eval()
    return finite(output), np.asarray(layer.mean[...]), finite(layer(x))


def with_linen(masks):
    variables = nn.BatchNorm(use_running_average=True).init(jax.random.key(0), x)

    @jax.jit
    def forward(variables, x, mask):
        return nn.BatchNorm(use_running_average=False).apply(variables, x, mask=mask, mutable=["batch_stats"])

    for mask in masks:
        output, changed = forward(variables, x, mask)
        variables = variables | changed
    evaluation = nn.BatchNorm(use_running_average=True).apply(variables, x)
    return finite(output), np.asarray(variables["batch_stats"]["mean"]), finite(evaluation)


same = True
for name, train in (("nnx", with_nnx), ("linen", with_linen)):
    output, mean, evaluation = train(masks)
    print(f"{name:6} last training output finite: {output}   running mean {mean}   evaluation finite: {evaluation}")
    same &= output and bool(np.all(np.isnan(mean))) and not evaluation
_, mean, _ = with_nnx([good, padding.at[0].set(True), good])
print(f"nnx, one example of eight not masked: running mean finite: {bool(np.all(np.isfinite(mean)))}")
same &= bool(np.all(np.isfinite(mean)))
sys.exit(0 if same else "the behaviour has changed")
PYTHON
