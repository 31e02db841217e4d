#!/usr/bin/env bash
# Optax 0.2.8 with JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11.
#
# `optax.clip_by_global_norm` should scale a gradient of norm 632 to norm 1. In float16 it returns zeros: every entry
# (20) and the norm itself are ordinary float16 numbers, but the sum of squares on the way to it is rounded to float16,
# where anything from 65,520 on is infinite, and a number divided by infinity is 0. So a gradient of norm below 256 is
# clipped and a larger one is dropped: training stands still without an inf or NaN in loss, gradient or update.
# `optax.global_norm` and `jnp.linalg.norm` return inf, which a user who logs the norm would see.
#
# Seen on 2026-11-29 (1,000 entries each):
#   entries 8, float32: global_norm 253, jnp.linalg.norm 253, norm after clipping to 1: 1
#   entries 8, float16: global_norm 253, jnp.linalg.norm 253, norm after clipping to 1: 1
#   entries 20, float32: global_norm 632, jnp.linalg.norm 632, norm after clipping to 1: 1
#   entries 20, float16: global_norm inf, jnp.linalg.norm inf, norm after clipping to 1: 0
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

import jax.numpy as jnp
import numpy as np
import optax

clip = optax.clip_by_global_norm(1.0)
same = True
for entry, dtype, expected in (
    (8.0, jnp.float32, 1.0),
    (8.0, jnp.float16, 1.0),
    (20.0, jnp.float32, 1.0),
    (20.0, jnp.float16, 0.0),
):
    gradient = jnp.full((1000,), entry, dtype)
    update, _ = clip.update(gradient, clip.init(gradient))
    size = np.linalg.norm(np.asarray(update, np.float64))
    norms = float(optax.global_norm(gradient)), float(jnp.linalg.norm(gradient))
    print(
        f"entries {entry:.0f}, {dtype.__name__}: global_norm {norms[0]:.3g}, jnp.linalg.norm {norms[1]:.3g},"
        f" norm after clipping to 1: {size:.3g}"
    )
    same &= abs(size - expected) < 0.01
sys.exit(0 if same else "the behaviour has changed")
PYTHON
