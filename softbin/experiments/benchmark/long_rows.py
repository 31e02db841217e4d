"""Cases of `softbin-bench` on long rows: masks of the tokens that may be sampled, and quantiles of many values."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import softbin
from softbin import sampling
from softbin.experiments.benchmark import bisection, sorting
from softbin.experiments.benchmark.problems import Batch, Implementation, Program, without_gradient

K = 50
P = 0.9
LEVELS = (0.05, 0.5, 0.95)
BISECTION = "bisection of bits"
QUANTILE = "jax.numpy.quantile"


def _rows(function: Callable[[Any, Any, Any], Any]) -> Callable[[Batch], Program]:
    """Of `(logits, k, p)`, with the parameters of every row traced."""

    def build(batch: Batch) -> Program:
        rows = len(batch.logits)
        return without_gradient(function, batch.logits, jnp.full(rows, K), jnp.full(rows, P))

    return build


def _top_k(mask: Callable[[Any, Any], Any]) -> Callable[[Batch], Program]:
    return _rows(lambda logits, k, p: mask(logits, k))


def _top_p(mask: Callable[[Any, Any], Any]) -> Callable[[Batch], Program]:
    return _rows(lambda logits, k, p: mask(logits, p))


def _levels(quantile: Callable[[Any, Any], Any], *levels: float) -> Callable[[Batch], Program]:
    """Of all values together, with the levels traced."""
    several = levels if len(levels) > 1 else levels[0]
    return lambda batch: without_gradient(quantile, jnp.ravel(batch.logits), jnp.asarray(several, jnp.float32))


def softbin_truncate(logits: Float[Array, "rows n"], k: Int[Array, " rows"], p: Float[Array, " rows"]) -> Any:
    """Softbin's, with both as the others take them."""
    return sampling.truncate(logits, top_k=k, top_p=p)


IMPLEMENTATIONS: Mapping[str, Mapping[str, Implementation]] = {
    "top-p": {
        "softbin.sampling.top_p_mask": Implementation(_top_p(sampling.top_p_mask)),
        BISECTION: Implementation(_top_p(bisection.top_p_mask)),
        "sort and cumulative sum": Implementation(_top_p(sorting.top_p_mask), may_be_slow=True),
    },
    "top-k": {
        "softbin.sampling.top_k_mask": Implementation(_top_k(sampling.top_k_mask)),
        BISECTION: Implementation(_top_k(bisection.top_k_mask)),
        "jax.numpy.sort": Implementation(_top_k(sorting.top_k_mask), may_be_slow=True),
        "jax.lax.top_k, static k": Implementation(_rows(lambda logits, k, p: jax.lax.top_k(logits, K))),
    },
    "top-k and top-p": {
        "softbin.sampling.truncate": Implementation(_rows(softbin_truncate)),
        "softbin.sampling.top_p_mask alone": Implementation(_top_p(sampling.top_p_mask)),
        BISECTION: Implementation(_rows(bisection.truncate)),
        "sort and cumulative sum": Implementation(_rows(sorting.truncate), may_be_slow=True),
    },
    "quantile": {
        "softbin.median": Implementation(lambda batch: without_gradient(softbin.median, jnp.ravel(batch.logits))),
        "softbin.quantile": Implementation(_levels(softbin.quantile, LEVELS[-1])),
        "softbin.quantile, three levels": Implementation(_levels(softbin.quantile, *LEVELS)),
        BISECTION: Implementation(_levels(bisection.quantile, LEVELS[-1])),
        f"{QUANTILE}, three levels": Implementation(_levels(jnp.quantile, *LEVELS), may_be_slow=True),
    },
}
BASELINES: Mapping[str, str] = dict.fromkeys(IMPLEMENTATIONS, BISECTION) | {"quantile": f"{QUANTILE}, three levels"}
"""What each ratio is over."""
