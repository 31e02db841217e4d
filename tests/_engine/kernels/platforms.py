"""Where kernels are interpreted, and what they are lowered for."""

import jax
import pytest
from jax import export

from softbin._engine.kernels import Interpreted, arrays

CUSTOM_CALLS = {"tpu": "tpu_custom_call", "cuda": "mosaic_gpu"}

each_kernel = pytest.mark.parametrize("implementation", Interpreted)
old_jax = pytest.mark.skipif(
    jax.__version_info__ < arrays.MOSAIC_GPU, reason="left to XLA: this Mosaic GPU lacks operations"
)
each_platform = pytest.mark.parametrize("platform", ["tpu", pytest.param("cuda", marks=old_jax)])


def lowered(function, platform, *arguments) -> str:
    return export.export(jax.jit(function), platforms=[platform])(*arguments).mlir_module()
