"""Other libraries, which need not be installed, as both kinds of cases call them."""

import warnings
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def load(name: str) -> Any:
    """An optional package or a module of it, or None where it cannot be imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # jaxopt deprecates itself
        try:
            return import_module(name)
        except ImportError:
            return None


def missing(names: Iterable[str]) -> list[str]:
    """Those of some packages that cannot be imported."""
    return [name for name in names if load(name) is None]


def box_section(rows: Float[Array, "groups entries"], k: int | float) -> Float[Array, "groups entries"]:
    """Each row projected onto the hypersimplex by jaxopt, and not mapped where there is one row."""
    projection_box_section = load("jaxopt").projection.projection_box_section

    def project(row: Float[Array, " entries"]) -> Float[Array, " entries"]:
        ones = jnp.ones_like(row)
        return projection_box_section(row, (0 * ones, ones, ones, k))

    return project(rows[0])[None] if len(rows) == 1 else jax.vmap(project)(rows)


def softsort(scores: Float[Array, "*groups entries"], k: int, temperature: float) -> Float[Array, "*groups entries"]:
    """The sum of k softmaxes of the negative distances to the k-th largest score; its entries may exceed 1."""
    top_k = load("softjax").top_k
    return jnp.sum(top_k(scores, k, softness=temperature, method="softsort", standardize=False)[1], -2)
