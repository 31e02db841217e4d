"""Kernels on GPU: a block of threads for each group."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu


def call(
    kernel: Callable[..., None], outputs: Sequence[jax.ShapeDtypeStruct], count: int, interpret: bool
) -> Callable[..., Any]:
    """A function of arrays, by `kernel(group, *inputs, *outputs)` with references to them; interpreted, by XLA."""
    if not interpret:
        return plgpu.kernel(
            lambda *refs: kernel(lax.axis_index("group"), *refs),
            out_type=list(outputs),
            grid=(count,),
            grid_names=("group",),
            # Warpgroup, the default since JAX 0.11, does not lower operations on scalar constants.
            compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
        )

    def interpreted(*inputs: jax.Array) -> Any:
        call = pl.pallas_call(
            lambda *refs: kernel(pl.program_id(0), *refs), list(outputs), grid=(count,), interpret=True,
            in_specs=[pl.BlockSpec()] * len(inputs), out_specs=[pl.BlockSpec()] * len(outputs),
        )  # fmt: skip
        return call(*inputs)

    return interpreted
