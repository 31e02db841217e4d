"""A share as a parameter that any optimizer may move."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from softbin import budgets


def logit_of_share(k: Any) -> Float[Array, ""]:
    """The parameter at its start; `budgets.fraction(sigmoid(logit))` is in range wherever it goes.

    Raises:
      TypeError: `k` is not one share.
      ValueError: the share is 0 or 1, which no logit stands for.
    """
    if not isinstance(k, budgets.Share) or np.ndim(k.shares):
        raise TypeError(f"learn_k learns one share: k must be one, such as softbin.budgets.fraction(0.1), got {k!r}")
    if not 0 < k.shares < 1:
        raise ValueError(f"a learned share must begin between 0 and 1, got {k.shares}")
    return jax.scipy.special.logit(jnp.float32(k.shares))
