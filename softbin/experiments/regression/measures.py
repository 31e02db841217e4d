"""What is measured on held-out rows."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from softbin.experiments.regression.targets import Split

VALIDATION = "validation_median_error"
"""The median absolute error: wrong validation targets hardly change it, as long as they are few."""
MEASURES = ("test_mae", "test_rmse")


def measures(predict: Callable[[Any], Float[Array, " n"]], split: Split) -> dict[str, Float[Array, ""]]:
    """`VALIDATION` and the `MEASURES`, in the units of the targets."""
    validation, test = (predict(rows.features) - rows.targets for rows in (split.validation, split.test))
    return {
        VALIDATION: jnp.median(jnp.abs(validation)),
        "test_mae": jnp.mean(jnp.abs(test)),
        "test_rmse": jnp.sqrt(jnp.mean(test**2)),
    }
