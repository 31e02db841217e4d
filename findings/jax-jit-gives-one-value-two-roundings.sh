#!/usr/bin/env bash
# JAX 0.10.2 (0.7.1 and 0.12.0.1 print the same), Python >= 3.11, CPU of the x86-64 family with FMA.
#
# Inside `jit` one boolean array of a program has two values. XLA copies cheap expressions into every fusion that reads
# them, and `1 - 0.01 * step` becomes a fused multiply-add in one copy and not in the other, where the product is needed
# by itself. The copies differ in the last bit, and the whole numbers rounded from them by one: the mask that is counted
# has 14 entries and the mask that selects has 15. The mean over it of an array that is 0.42 everywhere is then 0.45. No
# option was set. `lax.optimization_barrier` around the product helps in 0.12.0.1, but not in 0.10.2. What helps in all
# is to pass `keep`, or the product, as an argument. With XLA_FLAGS=--xla_cpu_max_isa=AVX, without FMA, all is right.
#
# Seen on 2026-11-29 (entries that are counted, entries that are selected, mean of those):
#   step 42: eager 15, 15, 0.420   jit 14, 15, 0.450   jit, keep an argument 15, 15, 0.420
#   step 66: eager 9, 9, 0.660   jit 8, 9, 0.742   jit, keep an argument 9, 9, 0.660
#   step 74: eager 6, 6, 0.740   jit 7, 6, 0.634   jit, keep an argument 6, 6, 0.740
#   step 82: eager 4, 4, 0.820   jit 5, 4, 0.656   jit, keep an argument 4, 4, 0.820
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
import pathlib
import sys

import jax
import jax.numpy as jnp

processor = pathlib.Path("/proc/cpuinfo")
if not processor.exists() or "fma" not in processor.read_text().split():
    print("not applicable: no x86-64 processor with FMA was found")
    sys.exit(0)


def kept(step):
    return jnp.round((1 - 0.01 * step) * 25)


def masked_mean(values, step, keep):
    mask = jnp.arange(25) < keep
    selected = jnp.where(mask, 0.01 * step * values, 0)
    return jnp.sum(mask), jnp.sum(selected != 0), jnp.sum(selected) / jnp.sum(mask)


def scheduled_mean(values, step):
    return masked_mean(values, step, kept(step))


def shown(counted, selected, mean):
    return f"{int(counted)}, {int(selected)}, {float(mean):.3f}"


same = True
for number in (42, 66, 74, 82):
    arguments = jnp.ones(25), jnp.float32(number)
    eager, jitted = scheduled_mean(*arguments), jax.jit(scheduled_mean)(*arguments)
    passed = jax.jit(masked_mean)(*arguments, kept(arguments[1]))
    print(f"step {number}: eager {shown(*eager)}   jit {shown(*jitted)}   jit, keep an argument {shown(*passed)}")
    same &= eager[0] == eager[1] and jitted[0] != jitted[1] and passed[0] == passed[1]
sys.exit(0 if same else "the behaviour has changed")
PYTHON
