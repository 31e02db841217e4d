#!/usr/bin/env bash
# JAX 0.10.2, Python >= 3.11, CPU. Gone in 0.12.0.1, which compiles every line to the TopK routine.
#
# `lax.top_k` compiles to XLA's TopK routine. As soon as only its last value is used, as in the usual mask
# `x >= top_k(x, 50)[0][:, -1:]`, or only that value itself, the same call compiles to a stable sort of the whole row.
# Returning the values beside the mask does not help: the program then does both.
#
# Seen on 2026-11-29 (rows of 1,000):
#   top_k(x, 50): TopK routine
#   top_k(x, 50)[0]: TopK routine
#   top_k(x, 50)[0][:, -1]: full sort
#   x >= top_k(x, 50)[0][:, -1:]: full sort
#   x >= top_k(x, 50)[0][:, -1:], and top_k(x, 50): full sort and TopK routine
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
import re
import sys

import jax
import jax.numpy as jnp


def top(x):
    return jax.lax.top_k(x, 50)


programs = {
    "top_k(x, 50)": (top, "TopK routine"),
    "top_k(x, 50)[0]": (lambda x: top(x)[0], "TopK routine"),
    "top_k(x, 50)[0][:, -1]": (lambda x: top(x)[0][:, -1], "full sort"),
    "x >= top_k(x, 50)[0][:, -1:]": (lambda x: x >= top(x)[0][:, -1:], "full sort"),
    "x >= top_k(x, 50)[0][:, -1:], and top_k(x, 50)": (
        lambda x: (x >= top(x)[0][:, -1:], top(x)),
        "full sort and TopK routine",
    ),
}
changed = False
for name, (program, expected) in programs.items():
    text = jax.jit(program).lower(jnp.ones((8, 1000))).compile().as_text()
    seen = ["full sort"] if re.search(r"= \S+ sort\(|= \(.*\) sort\(", text) else []
    seen += ["TopK routine"] if 'custom_call_target="TopK"' in text else []
    print(f"{name}: {' and '.join(seen)}")
    changed |= " and ".join(seen) != expected
sys.exit("the behaviour has changed" if changed else 0)
PYTHON
