#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 prints the same; 0.7.1, 0.8.0, 0.9.0, 0.10.0 and 0.10.1 are right), Python >= 3.11, CPU of the
# x86-64 family.
#
# `jnp.max` and `jnp.min` of an array with NaN are NaN, as in NumPy, as long as the array has fewer than 4,096 entries.
# From there on, in float32 and float64, along any axis, jitted or not, the NaN is forgotten, and what was read before
# it in the same SIMD lane is forgotten with it: the maximum of 1 and 4,095 NaN is -inf, less than its only number. Max
# pooling and `jnp.linalg.norm(x, jnp.inf)` go wrong likewise, so `max(abs(gradient)) < bound` can hold for a gradient
# with NaN, and a test on a small array shows nothing. `argmax` is right, and so are float16 and bfloat16 arrays. XLA
# hands these reductions to the library YNNPACK. The compiler option `xla_cpu_experimental_ynn_fusion_type=""` prevents
# that, in XLA_FLAGS as well, and `jnp.where(jnp.any(jnp.isnan(x)), jnp.nan, jnp.max(x))` does without it.
#
# Seen on 2026-11-29:
#   one NaN among 4095 entries is in the maximum: float16 True, bfloat16 True, float32 True, float64 True
#   one NaN among 4096 entries is in the maximum: float16 True, bfloat16 True, float32 False, float64 False
#   (1024, 16), a NaN in every row and column: NaN in 0 of 1024 maxima of rows, 0 of 16 of columns
#   the same without YNNPACK: NaN in 1024 of 1024 maxima of rows, 16 of 16 of columns
#   1 and 4,095 NaN: max -inf, min inf, norm(x, inf) 0.0, argmax at a NaN: True
#   max pooling of 64 x 64 NaN by 2 x 2: NaN in 0 of 1024
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

jax.config.update("jax_enable_x64", True)


def nans(values):
    return int(jnp.sum(jnp.isnan(values)))


def kept(n, dtype):
    return bool(jnp.isnan(jnp.max(jnp.arange(n).astype(dtype).at[7].set(jnp.nan))))


same = True
dtypes = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
for n, expected in ((4095, [True] * 4), (4096, [True, True, False, False])):
    found = [kept(n, dtype) for dtype in dtypes]
    shown = ", ".join(f"{dtype.__name__} {value}" for dtype, value in zip(dtypes, found))
    print(f"one NaN among {n} entries is in the maximum: {shown}")
    same &= found == expected

x = np.where(np.arange(1024)[:, None] % 16 == np.arange(16), np.float32("nan"), np.float32(1))
for name, options in (
    ("(1024, 16), a NaN in every row and column", {}),
    ("the same without YNNPACK", {"xla_cpu_experimental_ynn_fusion_type": ""}),
):
    maximum = jax.jit(jnp.max, static_argnames="axis", compiler_options=options)
    rows, columns = nans(maximum(x, axis=1)), nans(maximum(x, axis=0))
    print(f"{name}: NaN in {rows} of 1024 maxima of rows, {columns} of 16 of columns")
    same &= (rows, columns) == ((1024, 16) if options else (0, 0))

x = jnp.full(4096, jnp.nan, jnp.float32).at[0].set(1)
largest, smallest, norm = float(jnp.max(x)), float(jnp.min(x)), float(jnp.linalg.norm(x, jnp.inf))
place = bool(jnp.isnan(x[jnp.argmax(x)]))
print(f"1 and 4,095 NaN: max {largest}, min {smallest}, norm(x, inf) {norm}, argmax at a NaN: {place}")
same &= not np.isnan([largest, smallest, norm]).any() and place

picture = jnp.full((64, 64), jnp.nan, jnp.float32)
pooled = nans(jax.lax.reduce_window(picture, -jnp.inf, jax.lax.max, (2, 2), (2, 2), "VALID"))
print(f"max pooling of 64 x 64 NaN by 2 x 2: NaN in {pooled} of 1024")
same &= pooled == 0
sys.exit(0 if same else "the behaviour has changed")
PYTHON
