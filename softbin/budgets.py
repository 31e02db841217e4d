"""Budgets: how many examples of each class the projection chooses.

A budget is one of these:

- a number of examples, or an array (C,) with one for each class; all that count, where a mask leaves fewer;
- a share of the examples, made by :func:`fraction` or :func:`prior`;
- :func:`label_count`, the positives in the batch;
- another callable `(targets, weights) -> k`. `targets` of shape (n, C) are the one-hot, multi-hot or soft labels, or
  None without labels. `weights` of shape (n,) are 1 for an example that counts and 0 for a masked one; their shape is
  (n, C) where that of the loss's mask or weights is. `k` broadcasts to (C,). The callable must be additive (the budget
  of a batch is the sum over its parts), since under `axis_name` the budgets of the shards are added up.

A share can also be the `k` of an operator, a hard choice or a mean: a share of the entries of each group that exist,
over all shards, counted by number or by weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Real

from softbin._engine.shares import Share, as_real, brief, is_traced, label_count, show

__all__ = ["Share", "fraction", "label_count", "prior"]


def fraction(share: Real[ArrayLike, ""]) -> Share:
    """The same share of every class or group: `k = share * n`.

    One half is the setting of the paper's published experiments.

    Args:
      share: in [0, 1]; may be traced, so that an `optax.Schedule` can drive it, and has a gradient.

    Returns:
      A budget. Where a traced share is out of range, what is chosen by it is NaN.

    Raises:
      TypeError: `share` is not a number.
      ValueError: a concrete `share` is outside [0, 1], or `share` is an array of several.

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
    """The number of positives to expect of each class, whatever the batch holds: `k_c = class_priors[c] * n`.

    Args:
      class_priors: one share per class, each in [0, 1]; may be traced, and has a gradient.

    Returns:
      A budget. Where a traced share is out of range, what is chosen by it is NaN.

    Raises:
      TypeError: a share is not a number.
      ValueError: a concrete share is outside [0, 1], or `class_priors` is not a vector.

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
    return Share(shares if is_traced(shares) else tuple(shares.tolist()))


def _checked(shares: Any, rule: str) -> Any:
    """Shares in numpy where they are known, a float if there is one; the rest is left to run time."""
    if is_traced(shares):
        return jnp.asarray(shares)
    if callable(shares):
        raise TypeError(f"{rule}, got {brief(shares)}: for a schedule, pass what it gives at the step, share(step)")
    known = as_real(shares)
    if known is None:
        raise TypeError(f"{rule}, got {brief(shares)}")
    if not np.all((known >= 0) & (known <= 1)):
        raise ValueError(f"{rule}, got {show(known)}")
    return known if known.ndim else float(known)
