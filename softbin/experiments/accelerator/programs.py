"""What is timed: losses of batches, and choices in rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import softbin
from softbin import sampling
from softbin._engine.kernels.on_chip import LONGEST
from softbin.experiments.accelerator import timing
from softbin.experiments.accelerator.plan import Plan
from softbin.experiments.benchmark import bisection, long_rows, sorting
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
        **{f"kth_largest, {name}": partial(softbin.kth_largest, implementation=name) for name in plan.kernels},
        "binary_argmax": softbin.binary_argmax,
        **{f"binary_argmax, {name}": partial(softbin.binary_argmax, implementation=name) for name in plan.kernels},
        "soft_binary_argmax": _soft(),
        **{f"soft_binary_argmax, {name}": _soft(name) for name in (plan.kernels if length <= LONGEST else ())},
    }.items():
        for k in plan.chosen:
            if k < length:
                functions[f"{name}, k = {k}"] = partial(choose, k=k)
    return timing.records(functions, (scores,), plan.seconds)


def masks(plan: Plan, rows: int, length: int) -> list[dict[str, Any]]:
    """Masks of the tokens that may be sampled, of a vocabulary, with one `k` or `p` a row that is traced."""
    logits = make_batch(Size("top-p", rows, length)).logits
    most = min(long_rows.K, length // 2)
    functions: dict[str, Callable[..., Any]] = {
        "jax.lax.top_k, static k": lambda logits, *_: jax.lax.top_k(logits, most)
    }
    masks: dict[str, tuple[int, Callable[..., Any]]] = {
        "top_k_mask": (0, sampling.top_k_mask),
        "top_p_mask": (1, sampling.top_p_mask),
    }
    for name, (number, mask) in masks.items():
        functions |= {
            name: _of_one(mask, number),
            **{
                f"{name}, {kernels}": _of_one(partial(mask, implementation=kernels), number) for kernels in plan.kernels
            },
            f"{name} by bits": _of_one(getattr(bisection, name), number),
            f"{name} by a sort": _of_one(getattr(sorting, name), number),
        }
    numbers = jnp.full(rows, most), jnp.full(rows, long_rows.P)
    return timing.records(functions, (logits, *numbers), plan.seconds)


def _of_one(mask: Callable[..., Any], number: int) -> Callable[..., Any]:
    return lambda logits, *numbers: mask(logits, numbers[number])


def _soft(implementation: str = "xla"):
    def squares(scores, k):
        y = softbin.soft_binary_argmax(scores, k, SELECTION_TEMPERATURE, implementation=implementation)
        return jnp.sum(y**2)

    return jax.value_and_grad(squares)
