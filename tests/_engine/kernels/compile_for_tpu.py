"""Compile kernels for a TPU that need not be there, by libtpu: `python -m tests._engine.kernels.compile_for_tpu`.

What is lowered is not yet compiled: the compiler has an own say about types, layouts and memory.
"""

import os
import sys
from functools import partial

os.environ |= {  # that it asks nobody where it is
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}

import jax
import jax.numpy as jnp
import libtpu
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import softbin
from softbin import sampling

os.environ["TPU_LIBRARY_PATH"] = libtpu.get_library_path()
DEVICES = "v5e:2x2", "v5p:2x2x1", "v6e:2x2"
LABELS = jax.ShapeDtypeStruct((8192,), jnp.int32)


def rows(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def cases(implementation="pallas"):
    """Functions with the shapes of their arguments."""
    how = {"implementation": implementation}
    loss = partial(softbin.loss, regularizer=softbin.binary_entropy, **how)
    return {
        "kth_largest": (lambda x: softbin.kth_largest(x, 3, **how), rows(16, 2**18)),
        "kth_largest, short": (lambda x: softbin.kth_largest(x, 3, **how), rows(16, 8)),
        "binary_argmax, columns": (lambda x: softbin.binary_argmax(x, 3, axis=0, **how), rows(8192, 200)),
        "top_p_mask": (
            lambda x: sampling.top_p_mask(x, 0.9, ties="first", **how),
            rows(5, 50_257, dtype=jnp.bfloat16),
        ),
        "soft_binary_argmax": (
            lambda x: softbin.soft_binary_argmax(x, 2, weights=np.full(8192, 2.0), **how),
            rows(4, 8192),
        ),
        "loss": (lambda x, y, w: jax.value_and_grad(loss)(x, y, weights=w), rows(8192, 10), LABELS, rows(8192, 10)),
    }


def compiled(function, arguments, device) -> str:
    sharding = NamedSharding(Mesh(np.array([device]), ("device",)), PartitionSpec())
    arguments = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding) for each in arguments]
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).compile().as_text()


def main(names):
    for name in names:
        device = topologies.get_topology_desc(name, platform="tpu").devices[0]
        for case, (function, *arguments) in cases().items():
            assert "tpu_custom_call" in compiled(function, arguments, device), f"{case} has no kernel"
            print(f"{device.device_kind}: {case}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or DEVICES)
