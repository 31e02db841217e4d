#!/usr/bin/env bash
# JAX 0.10.2 (0.7.1 prints the same), Python >= 3.11, CPU. Gone in 0.12.0.1.
#
# `jnp.percentile(x, q)` works out the rank q / 100 * (n - 1) in one program, in which XLA multiplies the constants
# first: as q * (0.01 * (n - 1)), it is a little less than n - 1 at q = 100 for more than a fifth of the lengths up to 200,
# 6 and 11 among them. So the 100th percentile is below the largest entry, and with method="lower" it is the entry before the
# last. `jnp.nanpercentile`, and `jnp.quantile` at 1.0, are right.
#
# Seen on 2026-11-30 (x = 0, 1, ..., n - 1, float32):
#   n = 6: percentile 100 is 4.999999523162842, "lower" 4.0, quantile 1.0 is 5.0
#   n = 11: percentile 100 is 9.999999046325684, "lower" 9.0, quantile 1.0 is 10.0
#   n = 512000: percentile 100 is 511998.96875, "lower" 511998.0, quantile 1.0 is 511999.0
#   lengths from 2 to 200 of which the percentile 100 is below the largest: 43
set -euo pipefail
unset PYTHONPATH XLA_FLAGS
export JAX_PLATFORMS=cpu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0

venv/bin/python - <<'PYTHON'
import sys

import jax.numpy as jnp

same = True
for n in (6, 11, 512_000):
    x = jnp.arange(n, dtype=jnp.float32)
    high, lower, quantile = jnp.percentile(x, 100), jnp.percentile(x, 100, method="lower"), jnp.quantile(x, 1.0)
    print(f'n = {n}: percentile 100 is {high}, "lower" {lower}, quantile 1.0 is {quantile}')
    same &= bool(high < quantile) and lower == n - 2 and quantile == n - 1 == jnp.nanpercentile(x, 100)
lengths = range(2, 201)
below = sum(float(jnp.percentile(jnp.arange(n, dtype=jnp.float32), 100)) < n - 1 for n in lengths)
print(f"lengths from 2 to 200 of which the percentile 100 is below the largest: {below}")
sys.exit(0 if same and below > 20 else "the behaviour has changed")
PYTHON
