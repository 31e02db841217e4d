#!/usr/bin/env bash
# JAX 0.10.2 (0.7.1 and 0.12.0.1 do the same where the axes are named Explicit), Python >= 3.11, any CPU.
#
# `jax.make_mesh` makes axes of the type Explicit where it is not told another, from some version between 0.7.1, where
# they are Auto, and 0.10.2 on. Of an array that is sharded over such an axis, `jnp.sum(x**2)` and its `jax.jvp` work
# outside of `jit`, and so does `jax.jit(jax.grad(f))(x)`; but `jax.grad(f)(x)` and `jax.grad(jax.jit(f))(x)` raise, as
# the cotangent of the sum, a scalar that JAX makes itself, has the mesh in its type and lies on one device. Inside
# `jax.set_mesh(mesh)`, and with Auto axes, all of them work.
#
# Seen on 2026-11-30:
#   default axis type: Explicit
#   Explicit  f works    jvp works    jit(grad(f)) works    grad(f) raises   grad(jit(f)) raises   in the mesh, grad(f) works
#   Auto      f works    jvp works    jit(grad(f)) works    grad(f) works    grad(jit(f)) works    in the mesh, grad(f) works
#   ValueError: Length of device assignment 1 is not equal to the size of the mesh 8 of aval f32[]({Explicit: ('a',)}). ...
set -euo pipefail
unset PYTHONPATH
export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=8

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
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def f(x):
    return jnp.sum(x**2)


def outcome(call):
    try:
        call()
    except ValueError as error:
        raised.add(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        return "raises"
    return "works"


raised = set()
expected = {
    "Explicit": ["works", "works", "works", "raises", "raises", "works"],
    "Auto": ["works"] * 6,
}
default = jax.make_mesh((8,), ("a",)).axis_types[0].name
print(f"default axis type: {default}")
same = default == "Explicit"
for kind, wanted in expected.items():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType[kind],))
    x = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("a")))
    ways = {
        "f": lambda: f(x),
        "jvp": lambda: jax.jvp(f, (x,), (x,)),
        "jit(grad(f))": lambda: jax.jit(jax.grad(f))(x),
        "grad(f)": lambda: jax.grad(f)(x),
        "grad(jit(f))": lambda: jax.grad(jax.jit(f))(x),
    }
    found = {name: outcome(call) for name, call in ways.items()}
    with jax.set_mesh(mesh):
        found["in the mesh, grad(f)"] = outcome(lambda: jax.grad(f)(x))
    print(f"{kind:9}", "   ".join(f"{name} {result:6}" for name, result in found.items()))
    same &= list(found.values()) == wanted
print(*raised, sep="\n")
sys.exit(0 if same else "the behaviour has changed")
PYTHON
