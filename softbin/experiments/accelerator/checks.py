"""Whether the device is right: its kernels against its XLA, and this against XLA on the CPU beside it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import softbin
from softbin.experiments.accelerator import timing
from softbin.experiments.accelerator.hard_cases import CASES
from softbin.experiments.accelerator.plan import Plan

_CALLS = ("tpu_custom_call", "mosaic_gpu")  # of a kernel in a program

Outcomes = Mapping[str, Any]
"""Arrays by the name of what they come from."""


def hard_cases(plan: Plan, regularizer: str) -> list[dict[str, Any]]:
    """The largest errors of an entry, where each of the hard cases is projected."""
    cases = {name: case for name, case in CASES.items() if case.scores.size <= plan.most_entries}

    def project(implementation: str, backend: str | None = None) -> Outcomes:
        device = jax.local_devices(backend=backend)[0]
        choose = partial(
            softbin.soft_binary_argmax, regularizer=getattr(softbin, regularizer), implementation=implementation
        )
        return {
            name: choose(jax.device_put(scores, device), k, temperature)
            for name, (scores, k, temperature) in cases.items()
        }

    def difference(found, expected) -> float:
        return float(np.abs(np.asarray(found) - np.asarray(expected)).max())

    expected = project("xla")
    finds = {"xla on the CPU": partial(project, "xla", "cpu")} | {name: partial(project, name) for name in plan.kernels}
    return [_compared(name, find, expected, difference, tolerance=1e-6) for name, find in finds.items()]


def choices(plan: Plan) -> list[dict[str, Any]]:
    """The share of entries that differ where hard choices and a nucleus are made of the hard cases, as often as fit."""
    cases = [case for case in CASES.values() if case.scores.size == 512]
    k = np.round([case.k for case in cases]).astype(np.int32)
    p = np.linspace(0.05, 0.95, len(cases), dtype=np.float32)
    functions = {
        "binary_argmax": lambda rows, **how: softbin.binary_argmax(rows, k, **how),
        "cutoff": lambda rows, **how: softbin.cutoff(rows, k, **how),
        "top_p_mask": lambda rows, **how: softbin.sampling.top_p_mask(rows, p, ties="first", **how),
    }

    def outcomes(implementation: str, backend: str | None = None) -> Outcomes:
        device = jax.local_devices(backend=backend)[0]
        return {
            f"{name}, {length:,}": jax.jit(partial(choose, implementation=implementation))(
                jax.device_put(np.stack([np.resize(case.scores, length) for case in cases]), device)
            )
            for length in plan.ranked
            for name, choose in functions.items()
        }

    def difference(found, expected) -> float:
        found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32)
        return float(np.mean((found != expected) & ~(np.isnan(found) & np.isnan(expected))))

    expected = outcomes("xla")
    return [_compared(name, partial(outcomes, name), expected, difference, tolerance=0.0) for name in plan.kernels]


def ways(plan: Plan) -> list[dict[str, Any]]:
    """The errors of values and gradients, over the largest entry, where masks, weights and rows go through kernels."""
    n, classes = plan.checked
    rng = np.random.default_rng(0)
    logits = jnp.asarray(2 * rng.standard_normal((n, classes), np.float32))
    labels = jnp.asarray(rng.integers(classes, size=n), jnp.int32)
    weights = jnp.asarray(np.add.outer(np.arange(n), np.arange(classes)) % 3, jnp.float32)

    def squares(logits, **keywords):
        return jnp.sum(softbin.soft_binary_argmax(logits, 1.5, 1.5, **keywords) ** 2)

    functions = {
        "loss, mask": partial(softbin.loss, labels=labels, where=weights[:, 0] > 0),
        "loss, weights by entry": partial(softbin.loss, labels=labels, weights=weights),
        "rows, mask": partial(squares, where=weights > 0),
        "rows, weights, binary_entropy": partial(squares, weights=weights, regularizer=softbin.binary_entropy),
    }

    def outcomes(implementation: str) -> Outcomes:
        return {
            name: jax.jit(jax.value_and_grad(partial(function, implementation=implementation)))(logits)
            for name, function in functions.items()
        }

    def difference(found, expected) -> float:
        pairs = zip(found, expected, strict=True)
        return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)

    expected = outcomes("xla")
    return [
        _compared(name, partial(outcomes, name), expected, difference, tolerance=1e-5) | {"on_chip": _serves(name)}
        for name in plan.kernels
    ]


def _compared(
    name: str,
    find: Callable[[], Outcomes],
    expected: Outcomes,
    difference: Callable[[Any, Any], float],
    tolerance: float,
) -> dict[str, Any]:
    """The largest difference, where it is, and all that are too large; or the error of what fails."""
    try:
        found = jax.block_until_ready(find())
    except Exception as error:  # of a compiler, perhaps: the other checks go on
        return {"implementation": name, "error": timing.named(error)}
    differences = {case: difference(found[case], expected[case]) for case in expected}
    worst = max(differences, key=lambda case: np.nan_to_num(differences[case], nan=np.inf))
    return {
        "implementation": name,
        "compared": len(differences),
        "largest": differences[worst],
        "worst": worst,
        "above": {case: value for case, value in differences.items() if not value <= tolerance},
        "tolerance": tolerance,
    }


def _serves(implementation: str) -> bool:
    """Whether a program for this device has a kernel, where one is asked for: older GPUs are left to XLA."""
    project = jax.jit(partial(softbin.soft_binary_argmax, k=2, implementation=implementation))
    program = project.lower(jnp.zeros(8)).as_text()
    return any(call in program for call in _CALLS)
