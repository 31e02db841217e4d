"""How the tests compile: quickly, where speed and last digits do not matter.

Most of the time of the tests is XLA's. Tests of the numerical contract compile with `AS_USERS_DO`, and so run the code
that users run. With the environment variable `SOFTBIN_AS_USERS=1` all do, but those that name their options.
"""

import os

import jax

_HAS_A_CHOICE_OF_EMITTERS = jax.__version_info__ < (0, 11)
AT_LEVEL_0 = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_disable_hlo_passes": "",
}
"""Without LLVM's optimization."""
_QUICK = AT_LEVEL_0 | {"xla_disable_hlo_passes": "while-loop-invariant-code-motion,simplify-while-loops"}
AS_USERS_DO = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_disable_hlo_passes": "",
}
"""The `compiler_options` of `jax.jit` that are XLA's defaults."""
if jax.__version_info__ >= (0, 10):  # JAX 0.7 compiles wrong programs then
    _QUICK["xla_cpu_parallel_codegen_split_count"] = 1
if _HAS_A_CHOICE_OF_EMITTERS:
    _QUICK["xla_cpu_use_fusion_emitters"] = False
    AS_USERS_DO["xla_cpu_use_fusion_emitters"] = True
if os.environ.get("SOFTBIN_AS_USERS") == "1":
    _QUICK = {}
_PATIENT = {"xla_cpu_collective_call_terminate_timeout_seconds": 600} if jax.__version_info__ >= (0, 10) else {}
"""On a busy machine devices may wait long for one another."""


def flags(devices: int) -> str:
    """The `XLA_FLAGS` of a process that compiles as the tests do, with so many CPU devices."""
    options = {"xla_force_host_platform_device_count": devices, **_QUICK, **_PATIENT}
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())
