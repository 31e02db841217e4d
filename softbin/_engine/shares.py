"""Budgets as the engine sees them: shares, the count of labels, and what is no budget."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from softbin._engine.groups import Groups

Targets = Float[Array, "n classes"] | None
Weights = Float[Array, " n"] | Float[Array, "n classes"]


@partial(jax.tree_util.register_dataclass, data_fields=["shares"], meta_fields=[])
@dataclass(frozen=True)
class Share:
    """A share of what there is to choose from, made by `fraction`, or one for each class or group, made by `prior`.

    Attributes:
      shares: a number, or one for each class or group.
    """

    shares: Any

    def __call__(self, targets: Any, weights: Weights | None = None) -> Any:
        """`k` of a batch. Called with a number of steps, as Optax calls a schedule, it returns itself."""
        if weights is None:
            return self
        return jnp.asarray(self.shares, weights.dtype) * Groups((0,)).total(weights)[0]

    def __repr__(self) -> str:
        if isinstance(self.shares, tuple):
            return f"softbin.budgets.prior({list(self.shares)})"
        return f"softbin.budgets.{'prior' if np.ndim(self.shares) else 'fraction'}({self.shares})"


def label_count(targets: Targets, weights: Weights) -> Float[Array, " classes"]:
    """As many examples of each class as its labels say: `k_c` = the positives of class `c` in the batch.

    This is the setting of the paper's text (arXiv:2602.23336, section 4). Each class then carries a threshold of its
    own, and argmax over the logits is the wrong decision: see :func:`softbin.decision_thresholds`.

    Args:
      targets, weights: as the losses call a budget, see :mod:`softbin.budgets`.

    Returns:
      `k`, of shape (C,).

    Raises:
      ValueError: there are no labels to count.

    Example:
      >>> print(label_count(jnp.eye(3)[jnp.array([0, 2, 2])], jnp.ones(3)))
      [1. 0. 2.]
    """
    if targets is None:
        raise ValueError("label_count counts targets, got None")
    return Groups((0,)).total(targets * (weights if weights.ndim > 1 else weights[:, None]))[0]


def looks_like_shares(known: np.ndarray) -> bool:
    """Whether amounts can be meant as shares: all of them are in [0, 1], and one is neither 0 nor 1."""
    return bool(np.all((known >= 0) & (known <= 1)) and np.any((known > 0) & (known < 1)))


def check_budget(budget: Any) -> None:
    """Refuse what is no budget of a batch, and a share of it that would be taken for a number of examples."""
    if callable(budget) or is_traced(budget):
        return
    known = as_real(budget)
    if known is None:
        raise TypeError(
            "budget must be a number of examples, an array of them, or one of softbin.budgets.label_count, "
            f"softbin.budgets.fraction(0.5), softbin.budgets.prior([...]), got {brief(budget)}"
        )
    if looks_like_shares(known):
        shown = show(known)
        raise ValueError(
            f"budget is a number of examples, and {shown} looks like a share of the batch: "
            f"pass softbin.budgets.{'prior' if known.ndim else 'fraction'}({shown})"
        )


def brief(value: Any) -> str:
    """What a message shows of a value that is none of those expected."""
    return _BRIEF.repr(value)


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 80, 120


def show(value: Any) -> str:
    """What a message shows of a number, or of an array of them."""
    return np.array2string(np.asarray(value), threshold=8, separator=", ")


def is_traced(value: Any) -> bool:
    """Whether a value, or a part of it, is known when the program runs only."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def as_real(value: Any) -> np.ndarray | None:
    """A known value in numpy; None where it is no number and no array of numbers."""
    try:
        known = np.asarray(value)
    except ValueError:  # a ragged list
        return None
    if not (jnp.issubdtype(known.dtype, jnp.integer) or jnp.issubdtype(known.dtype, jnp.floating)):
        return None
    return known.astype(float)
