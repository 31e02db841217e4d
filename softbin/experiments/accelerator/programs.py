"""What is timed: losses of batches, and choices in rows."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import softbin
from softbin._engine.kernels.on_chip import LONGEST
from softbin.experiments.accelerator import timing
from softbin.experiments.accelerator.plan import Plan
from softbin.experiments.benchmark.cases import SELECTION_TEMPERATURE, Size, cross_entropy, make_batch


def losses(plan: Plan, n: int, classes: int, dtype: str) -> list[dict[str, Any]]:
    """Value and gradient, by softbin and Optax; kernels come last, so that one that fails spoils nothing else."""
    logits, labels = make_batch(Size("loss", n, classes))
    functions = {"optax cross-entropy": cross_entropy, "softbin.loss": softbin.loss}
    for kernels in plan.kernels if n <= LONGEST else ():
        functions[f"softbin.loss, {kernels}"] = partial(softbin.loss, implementation=kernels)
    gradients = {name: jax.value_and_grad(function) for name, function in functions.items()}
    return timing.records(gradients, (logits.astype(dtype), labels), plan.seconds)


def rows(plan: Plan, length: int, dtype: str) -> list[dict[str, Any]]:
    """Value and gradient of soft choices, and hard choices, of a few entries of each row."""
    scores = make_batch(Size("selection", plan.entries // length, length)).logits.astype(dtype)
    functions = {"jnp.sort": jnp.sort}
    for name, choose in {
        "jax.lax.top_k": jax.lax.top_k,
        "kth_largest": softbin.kth_largest,
        "binary_argmax": softbin.binary_argmax,
        "soft_binary_argmax": _soft(),
        **{f"soft_binary_argmax, {name}": _soft(name) for name in (plan.kernels if length <= LONGEST else ())},
    }.items():
        for k in plan.chosen:
            if k < length:
                functions[f"{name}, k = {k}"] = partial(choose, k=k)
    return timing.records(functions, (scores,), plan.seconds)


def _soft(implementation: str = "xla"):
    def squares(scores, k):
        y = softbin.soft_binary_argmax(scores, k, SELECTION_TEMPERATURE, implementation=implementation)
        return jnp.sum(y**2)

    return jax.value_and_grad(squares)
