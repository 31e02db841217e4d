#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11.
#
# `jax.random.categorical` draws its Gumbel noise in the dtype of the logits, and `jax.random.bernoulli` its uniform
# numbers in the dtype of p. In bfloat16 the largest noise has few values, so that it is often shared, and the first of
# the tied entries wins: among 1,024 equal logits nearly every draw falls in the first half. A rare class is hardly ever
# drawn although its logit is right, and an event of probability 0.001 happens nearly eight times as often as it
# should. It is not the inputs: rounding 0.001 itself changes it by less than a thousandth of it. Cast to float32 before
# the draw.
#
# Seen on 2026-11-29:
#   categorical, 1,024 equal logits, share of draws in the first half: float32 0.500, float16 0.624, bfloat16 0.980
#   categorical, a class of probability 0.0009: float32 0.000907, float16 0.000531, bfloat16 0.000040
#   bernoulli(0.001): float32 0.00099, float16 0.00196, bfloat16 0.00771
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

dtypes = (jnp.float32, jnp.float16, jnp.bfloat16)


def first_half(dtype):
    draws = jax.random.categorical(jax.random.key(1), jnp.zeros((4000, 1024), dtype))
    return float(jnp.mean(draws < 512))


def rare_class(dtype):
    logits = jnp.log(jnp.array([0.9, 0.09, 0.009, 0.0009, 0.0001])).astype(dtype)
    return float(jnp.mean(jax.random.categorical(jax.random.key(0), logits, shape=(2_000_000,)) == 3))


def rare_event(dtype):
    return float(jnp.mean(jax.random.bernoulli(jax.random.key(0), jnp.asarray(0.001, dtype), (1_000_000,))))


def line(label, values, digits):
    shown = ", ".join(f"{dtype.__name__} {value:.{digits}f}" for dtype, value in zip(dtypes, values))
    print(f"{label}: {shown}")


halves, classes, events = ([f(dtype) for dtype in dtypes] for f in (first_half, rare_class, rare_event))
line("categorical, 1,024 equal logits, share of draws in the first half", halves, 3)
line("categorical, a class of probability 0.0009", classes, 6)
line("bernoulli(0.001)", events, 5)
same = abs(halves[0] - 0.5) < 0.03 and halves[1] > 0.58 and halves[2] > 0.9
same &= abs(classes[0] - 0.0009) < 0.0001 and classes[1] < 0.0007 and classes[2] < 0.0002
same &= abs(events[0] - 0.001) < 0.0002 and events[1] > 0.0015 and events[2] > 0.005
sys.exit(0 if same else "the behaviour has changed")
PYTHON
