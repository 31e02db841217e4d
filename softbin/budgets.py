"""Budgets: how many examples of each class the projection chooses.

A share, `fraction` or `prior`, is also a `k` of operators, hard choices and means: of the entries of each group that
exist, over all shards, in number or by weight.

A budget is a number of examples or an array of them, one per class, used as it is, or a callable
`(targets, weights) -> k` that counts: `targets` of shape (n, C) are the one-hot, multi-hot or soft labels (None where
there are none), `weights` of shape (n,) are 1 for an example that counts and 0 for a masked one, or of shape (n, C)
where a mask or weights of the loss are; `k` broadcasts to (C,). A callable must be additive (the budget of a batch is
the sum over its parts), since under `axis_name` the shards' budgets are added up.
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from softbin.groups import Groups

Targets = Float[Array, "n classes"] | None
Weights = Float[Array, " n"] | Float[Array, "n classes"]


@partial(jax.tree_util.register_dataclass, data_fields=["shares"], meta_fields=[])
@dataclass(frozen=True)
class Share:
    """A share of what there is to choose from, or one for each class or group; made by `fraction` and `prior`."""

    shares: Any

    def __call__(self, targets: Any, weights: Weights | None = None) -> Any:
        """`k` of a batch; itself where it is called as Optax calls a schedule, with a number of steps."""
        if weights is None:
            return self
        return jnp.asarray(self.shares, weights.dtype) * Groups((0,)).total(weights)[0]

    def __repr__(self) -> str:
        if isinstance(self.shares, tuple):
            return f"softbin.budgets.prior({list(self.shares)})"
        return f"softbin.budgets.{'prior' if np.ndim(self.shares) else 'fraction'}({self.shares})"


def fraction(share: Real[ArrayLike, ""]) -> Share:
    """`k = share * n` for every class or group. One half is the setting of the paper's published experiments.

    Args:
      share: in [0, 1]; may be traced, so that an `optax.Schedule` can drive it, and has a gradient.

    Returns:
      A budget. Where a traced share is out of range, what is chosen by it is NaN.

    Raises:
      TypeError: `share` is no number.
      ValueError: `share` is known and outside [0, 1], or there are several.

    Example:
      >>> fraction(0.5)
      softbin.budgets.fraction(0.5)
      >>> print(fraction(0.5)(None, jnp.ones(8)))
      4.0
    """
    shares = _checked(share, "a share of the batch must be a number in [0, 1]")
    if np.ndim(shares):
        raise ValueError(f"fraction takes one share for every class, got {brief(share)}: use softbin.budgets.prior")
    return Share(shares)


def prior(class_priors: Sequence[Real[ArrayLike, ""]] | Real[ArrayLike, " classes"]) -> Share:
    """`k_c = class_priors[c] * n`: the number of positives to expect, whatever the batch holds.

    Args:
      class_priors: one share per class, each in [0, 1]; may be traced, and has a gradient.

    Returns:
      A budget. Where a traced share is out of range, what is chosen by it is NaN.

    Raises:
      TypeError: a share is no number.
      ValueError: a known share is outside [0, 1], or they are no vector.

    Example:
      >>> prior([0.25, 0.75])
      softbin.budgets.prior([0.25, 0.75])
      >>> print(prior([0.25, 0.75])(None, jnp.ones(8)))
      [2. 6.]
    """
    shares = _checked(class_priors, "class_priors must be numbers in [0, 1]")
    if np.ndim(shares) == 0:
        raise ValueError(
            f"class_priors must be a share for each class, got {class_priors}: "
            f"softbin.budgets.fraction({class_priors}) is one share for all"
        )
    if np.ndim(shares) > 1:
        raise ValueError(
            f"class_priors must be a vector of shares, one for each class, got the shape {np.shape(shares)}"
        )
    return Share(shares if _is_traced(shares) else tuple(shares.tolist()))


def _checked(shares, rule):
    """Shares in numpy where they are known, a float if there is one; the rest is left to run time."""
    if _is_traced(shares):
        return jnp.asarray(shares)
    known = _as_real(shares)
    if known is None:
        raise TypeError(f"{rule}, got {brief(shares)}")
    if not np.all((known >= 0) & (known <= 1)):
        raise ValueError(f"{rule}, got {show(known)}")
    return known if known.ndim else float(known)


def label_count(targets: Targets, weights: Weights) -> Float[Array, " classes"]:
    """`k_c` = the positives of class `c` in the batch: the setting of the paper's text (arXiv:2602.23336, sec. 4).

    Each class then carries a threshold of its own, and argmax over the logits is the wrong decision: see
    :func:`softbin.decision_thresholds`.

    Raises:
      ValueError: there are no labels to count.

    Example:
      >>> print(label_count(jnp.eye(3)[jnp.array([0, 2, 2])], jnp.ones(3)))
      [1. 0. 2.]
    """
    if targets is None:
        raise ValueError("targets are what label_count counts, got None")
    return Groups((0,)).total(targets * (weights if weights.ndim > 1 else weights[:, None]))[0]


def looks_like_shares(known: np.ndarray) -> bool:
    """Whether amounts can be meant as shares: all of them are in [0, 1], and one is neither 0 nor 1."""
    return bool(np.all((known >= 0) & (known <= 1)) and np.any((known > 0) & (known < 1)))


def check_budget(budget) -> None:
    """Refuse what is no budget of a batch, and a share of it that would be taken for a number of examples."""
    if callable(budget) or _is_traced(budget):
        return
    known = _as_real(budget)
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


def _is_traced(value) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def _as_real(value) -> np.ndarray | None:
    """A known value in numpy; None where it is no number and no array of numbers."""
    try:
        known = np.asarray(value)
    except ValueError:  # a ragged list
        return None
    if not (jnp.issubdtype(known.dtype, jnp.integer) or jnp.issubdtype(known.dtype, jnp.floating)):
        return None
    return known.astype(float)
