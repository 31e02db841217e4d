#!/usr/bin/env bash
# JAX 0.10.2 (0.7.1, 0.11.2 and 0.12.0.1 print the same), Python >= 3.11.
#
# `jax.grad` of `jax.jit(jax.vmap(f))` is the transpose of the gradient, without an error, where `f` has a
# `jax.custom_jvp` rule that works out the value in another way than `f` does. The rule is right: without `jit`, and
# without `vmap`, the gradient is. Along which dimension a batch lies inside of `vmap` is up to the operations that a
# value went through: `2 * x` leaves it where it was, a reshape brings it to the front. Under `jit` the function and its
# rule are traced one after the other, and JAX takes the dimension that the function ended with for what the rule
# returns. Where the batch is as long as the dimension that it is taken for, shapes fit and numbers stand in the wrong
# places, `jax.jvp`'s value among them; else shapes of derivatives are wrong, or lowering fails with "op operand type
# mismatch". The way out is one operation, for the value of function and rule alike, that brings the batch to the front,
# as `jnp.squeeze(jnp.expand_dims(y, 0), 0)`, or a rule that calls the function for its value.
#
# Seen on 2026-11-30:
#   gradient of sum(w * doubled(columns of x)), without jit: [[0, 6, 12], [2, 8, 14], [4, 10, 16]], right True
#   with jit: [[0, 2, 4], [6, 8, 10], [12, 14, 16]], right False
#   jax.jvp with jit: value right False, derivative right False
#   of three columns of two, with jit: derivative of shape (2, 3), value without jvp (3, 2)
#   with the batch brought to the front: right True
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
import numpy as np


def twice(x):
    """2 x, through a row of a matrix."""
    return jnp.reshape(2 * x, (1, -1))[0]


def with_rule(finish):
    @jax.custom_jvp
    def doubled(x):
        return finish(2 * x)

    @doubled.defjvp
    def rule(primals, tangents):
        (x,), (change,) = primals, tangents
        return finish(twice(x)), twice(change)

    return doubled


def in_front(y):
    return jnp.squeeze(jnp.expand_dims(y, 0), 0)


def gradient(function):
    return jax.grad(lambda x: jnp.sum(w * function(x)))(x)


x = w = jnp.arange(9.0).reshape(3, 3)
right = 2 * w.T
columns = jax.vmap(with_rule(lambda y: y), in_axes=1)
same = True
for label, found, expected in (
    ("gradient of sum(w * doubled(columns of x)), without jit", gradient(columns), True),
    ("with jit", gradient(jax.jit(columns)), False),
):
    is_right = bool(jnp.array_equal(found, right))
    print(f"{label}: {np.asarray(found, int).tolist()}, right {is_right}")
    same &= is_right == expected

value, change = jax.jvp(jax.jit(columns), (x,), (w,))
found = [bool(jnp.array_equal(part, 2 * x.T)) for part in (value, change)]
print(f"jax.jvp with jit: value right {found[0]}, derivative right {found[1]}")
same &= found == [False, False]

wide = x[:2]
change = jax.jvp(jax.jit(columns), (wide,), (wide,))[1]
plain = jax.jit(columns)(wide)
print(f"of three columns of two, with jit: derivative of shape {change.shape}, value without jvp {plain.shape}")
same &= change.shape == (2, 3) and plain.shape == (3, 2)

is_right = bool(jnp.array_equal(gradient(jax.jit(jax.vmap(with_rule(in_front), in_axes=1))), right))
print(f"with the batch brought to the front: right {is_right}")
same &= is_right
sys.exit(0 if same else "the behaviour has changed")
PYTHON
