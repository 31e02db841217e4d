#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11, CPU.
#
# `jnp.cumsum` of non-negative float32 numbers goes down in places, and up where a zero was added: the prefix sums are
# formed in a tree, and neighbours are rounded along different branches. `jax.random.choice(p=...)` searches its draw in
# that sum, so it returns items whose probability is exactly 0. 1,000 entries are enough for a sum that decreases.
# numpy.cumsum adds from left to right and never does.
#
# Seen on 2026-11-29:
#   n = 1000: steps where cumsum(p) decreases 2, where it moves although p is 0: 8 (NumPy 0, 0)
#   n = 1000003: steps where cumsum(p) decreases 5406, where it moves although p is 0: 10761 (NumPy 0, 0)
#   of 5000000 draws from the 1000003 items, with probability 0: 1031
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


def probabilities(n):
    generator = np.random.default_rng(0)
    p = generator.random(n) * (generator.random(n) < 0.3)
    return np.asarray(p / p.sum(), np.float32)


def wrong_steps(total, p):
    steps = np.diff(np.asarray(total))
    return int(np.sum(steps < 0)), int(np.sum((steps != 0) & (p[1:] == 0)))


same = True
for n in (1000, 1_000_003):
    p = probabilities(n)
    down, moved = wrong_steps(jnp.cumsum(jnp.asarray(p)), p)
    numpy_down, numpy_moved = wrong_steps(np.cumsum(p), p)
    print(
        f"n = {n}: steps where cumsum(p) decreases {down}, where it moves although p is 0: {moved}"
        f" (NumPy {numpy_down}, {numpy_moved})"
    )
    same &= down > 0 and moved > 0 and numpy_down == 0 and numpy_moved == 0
draws = jax.random.choice(jax.random.key(0), n, (5_000_000,), p=jnp.asarray(p))
impossible = int(np.sum(p[np.asarray(draws)] == 0))
print(f"of 5000000 draws from the {n} items, with probability 0: {impossible}")
sys.exit(0 if same and impossible > 100 else "the behaviour has changed")
PYTHON
