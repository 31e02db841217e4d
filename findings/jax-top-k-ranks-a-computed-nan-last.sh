#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11, CPU of the x86-64 family.
#
# `lax.top_k` orders floats by their bits, sign first. `jnp.nan` is positive and comes first. But the NaN that an x86
# processor makes (log(-1), 0/0, inf - inf) has its sign bit set and comes last: top_k of an array with such a NaN
# returns k healthy numbers and hides it. sort, argmax and, in arrays as small as this one, max treat both alike, so
# `top_k(x, 1)` and `max(x)` disagree, and a test that writes `jnp.nan` into its data does not see what a computed one
# does.
#
# Seen on 2026-11-29:
#   jnp.nan    sign bit 0: top_k(x, 2) [nan, 3.0]   max nan   argmax 1   sort [1.0, 3.0, nan]
#   log(-1)    sign bit 1: top_k(x, 2) [3.0, 1.0]   max nan   argmax 1   sort [1.0, 3.0, nan]
#   0 / 0      sign bit 1: top_k(x, 2) [3.0, 1.0]   max nan   argmax 1   sort [1.0, 3.0, nan]
#   inf - inf  sign bit 1: top_k(x, 2) [3.0, 1.0]   max nan   argmax 1   sort [1.0, 3.0, nan]
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
import platform
import sys

import jax
import jax.numpy as jnp
import numpy as np

if platform.machine() not in ("x86_64", "AMD64"):
    print("not applicable: this processor is not of the x86-64 family")
    sys.exit(0)

infinity = jnp.float32(jnp.inf)
nans = {
    "jnp.nan": jnp.float32(jnp.nan),
    "log(-1)": jnp.log(jnp.float32(-1)),
    "0 / 0": jnp.float32(0) / jnp.float32(0),
    "inf - inf": infinity - infinity,
}
same = True
for name, nan in nans.items():
    x = jnp.array([1.0, 0.0, 3.0]).at[1].set(nan)
    sign = int(np.asarray(x)[1:2].view(np.uint32)[0] >> 31)
    largest, order = jax.lax.top_k(x, 2)[0].tolist(), jnp.sort(x).tolist()
    top, place = float(jnp.max(x)), int(jnp.argmax(x))
    print(f"{name:10} sign bit {sign}: top_k(x, 2) {largest}   max {top}   argmax {place}   sort {order}")
    same &= np.isnan(top) and place == 1 and bool(np.isnan(order[-1]))
    same &= sign == (name != "jnp.nan") and bool(np.isnan(largest[0])) == (name == "jnp.nan")
sys.exit(0 if same else "the behaviour has changed")
PYTHON
