#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11, CPU.
#
# `a / b / c` of three ordinary float32 numbers is 1e15. Inside `jit` it is infinite: XLA divides once, by `b * c`,
# and that product underflows. It goes the other way too (`b * c` overflows and the quotient is 0), and `a / (b / c)`
# becomes `a * c / b`, which overflows. No option was set, no fast-math flag. What holds the order is
# `lax.optimization_barrier` around the inner quotient.
#
# Seen on 2026-11-29:
#   a/b/c     1e-30, 1e-25, 1e-20   eager 1e+15   jit inf     jit with a barrier 1e+15
#   a/b/c     1e+30, 1e+25, 1e+25   eager 1e-20   jit 0       jit with a barrier 1e-20
#   a/(b/c)   1e+25, 1e+25, 1e+25   eager 1e+25   jit inf     jit with a barrier 1e+25
#   a/(b/c)   1e-25, 1e-25, 1e-25   eager 1e-25   jit 0       jit with a barrier 1e-25
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

import jax
import jax.numpy as jnp

held = jax.lax.optimization_barrier
quotients = {
    "a/b/c": (lambda a, b, c: a / b / c, lambda a, b, c: held(a / b) / c),
    "a/(b/c)": (lambda a, b, c: a / (b / c), lambda a, b, c: a / held(b / c)),
}
cases = [
    ("a/b/c", (1e-30, 1e-25, 1e-20), 1e15, float("inf")),
    ("a/b/c", (1e30, 1e25, 1e25), 1e-20, 0.0),
    ("a/(b/c)", (1e25, 1e25, 1e25), 1e25, float("inf")),
    ("a/(b/c)", (1e-25, 1e-25, 1e-25), 1e-25, 0.0),
]
changed = False
for name, numbers, right, wrong in cases:
    plain, barred = quotients[name]
    a, b, c = (jnp.float32(number) for number in numbers)
    eager, jitted, barrier = (float(f(a, b, c)) for f in (plain, jax.jit(plain), jax.jit(barred)))
    shown = ", ".join(f"{number:.0e}" for number in numbers)
    print(f"{name:9} {shown}   eager {eager:<7.5g} jit {jitted:<7.5g} jit with a barrier {barrier:.5g}")
    changed |= abs(eager / right - 1) > 1e-5 or jitted != wrong or abs(barrier / right - 1) > 1e-5
sys.exit("the behaviour has changed" if changed else 0)
PYTHON
