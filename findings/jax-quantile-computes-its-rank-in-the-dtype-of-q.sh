#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11.
#
# `jnp.quantile(x, q)` computes the rank q * (n - 1) in the dtype of q, also where x is float32 and q, here one half, is
# exact in every dtype. With a q that came out of a half-precision program the median of 100,001 numbers is NaN
# (float16 has no 100,000; the first such call warns of an overflow in a cast) or, in bfloat16 and without a warning,
# the entry of another rank. A Python float as q is right.
#
# Seen on 2026-11-29 (x = 0, 1, ..., 100000, float32):
#   q = 0.5, a Python float: quantile 50000.0, nanquantile 50000.0
#   q = 0.5, float32: quantile 50000.0, nanquantile 50000.0
#   q = 0.5, float16: quantile nan, nanquantile nan
#   q = 0.5, bfloat16: quantile 49920.0, nanquantile 50176.0
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
import math
import sys
import warnings

import jax.numpy as jnp

warnings.simplefilter("ignore")
x = jnp.arange(100_001, dtype=jnp.float32)
ranks = {"a Python float": 0.5} | {d.__name__: jnp.asarray(0.5, d) for d in (jnp.float32, jnp.float16, jnp.bfloat16)}
values = {}
for name, q in ranks.items():
    values[name] = float(jnp.quantile(x, q)), float(jnp.nanquantile(x, q))
    print(f"q = 0.5, {name}: quantile {values[name][0]}, nanquantile {values[name][1]}")
same = values["a Python float"] == values["float32"] == (50_000.0, 50_000.0)
same &= all(math.isnan(value) for value in values["float16"])
same &= all(abs(value - 50_000) > 50 for value in values["bfloat16"])
sys.exit(0 if same else "the behaviour has changed")
PYTHON
