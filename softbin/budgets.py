"""Budgets: how many examples of each class the projection chooses.

A budget is a number or an array, used as it is, or a callable `(targets, weights) -> k` that counts: `targets`
of shape (n, C) are the one-hot, multi-hot or soft labels (None where there are none), `weights` of shape (n,)
are 1 for an example that counts and 0 for a masked one; `k` broadcasts to (C,). A callable must be additive
(the budget of a batch is the sum over its parts), since under `axis_name` the shards' budgets are added up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from softbin.groups import Groups

Targets = Float[Array, "n classes"] | None
Weights = Float[Array, " n"]


@partial(jax.tree_util.register_dataclass, data_fields=["shares"], meta_fields=[])
@dataclass(frozen=True)
class _Prior:
    shares: Any  # a number or a tuple of them, or traced

    def __call__(self, targets: Targets, weights: Weights) -> Float[Array, "..."]:
        shares = jnp.asarray(self.shares, weights.dtype)
        shares = jnp.where((shares >= 0) & (shares <= 1), shares, jnp.nan)
        return shares * Groups((0,)).total(weights)[0]

    def __repr__(self):
        return f"softbin.budgets.{'fraction' if np.ndim(self.shares) == 0 else 'prior'}({self.shares})"


def fraction(share: Real[ArrayLike, ""]) -> Callable[[Targets, Weights], Float[Array, "..."]]:
    """`k = share * n` for every class. One half is the setting of the paper's published experiments.

    Args:
      share: in [0, 1]. May be traced, so that an `optax.Schedule` can drive it; then `k` is NaN where it is outside.

    Raises:
      ValueError: `share` is outside [0, 1], or not one number.

    Example:
      >>> print(fraction(0.5)(None, jnp.ones(8)))
      4.0
    """
    if np.ndim(share) > 0:
        raise ValueError(f"fraction takes the share of every class, got {share}: for one of each class use prior")
    return _Prior(share if isinstance(share, jax.core.Tracer) else _checked(float(np.asarray(share))))


def prior(
    class_priors: Sequence[Real[ArrayLike, ""]] | Real[ArrayLike, " classes"],
) -> Callable[[Targets, Weights], Float[Array, "..."]]:
    """`k_c = class_priors[c] * n`: the number of positives to expect, whatever the batch holds.

    Args:
      class_priors: one share per class, each in [0, 1]. May be traced; then `k` is NaN where a share is outside.

    Raises:
      ValueError: a share is outside [0, 1], or there is only one number.

    Example:
      >>> print(prior([0.25, 0.75])(None, jnp.ones(8)))
      [2. 6.]
    """
    shares: Any = class_priors
    if isinstance(shares, Sequence) and any(isinstance(share, jax.core.Tracer) for share in shares):
        shares = jnp.stack([jnp.asarray(share) for share in shares])
    if np.ndim(shares) != 1:
        raise ValueError(
            f"prior takes one share per class, got {shares}: for the same share of every class use fraction"
        )
    if not isinstance(shares, jax.core.Tracer):
        shares = _checked(tuple(np.asarray(shares, float).tolist()))
    return _Prior(shares)


def _checked(shares):
    known = np.asarray(shares)
    if not np.all((known >= 0) & (known <= 1)):
        raise ValueError(f"shares of a batch must be in [0, 1], got {shares}")
    return shares


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
        raise ValueError("the budget label_count counts labels, and none were given: pass labels or another budget")
    return Groups((0,)).total(targets * weights[:, None])[0]


def is_pytree(budget) -> bool:
    """Whether a budget is a pytree, and may be an argument of a jitted function."""
    return isinstance(budget, _Prior)
