"""What is measured on held-out rows."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from softbin.experiments.kinds import MEDIAN_ERROR
from softbin.experiments.regression.targets import Split


def measures(predict: Callable[[Any], Float[Array, " n"]], split: Split) -> dict[str, Float[Array, ""]]:
    """`MEDIAN_ERROR` and the `REGRESSION_MEASURES`, in the units of the targets."""
    validation, test = (predict(rows.features) - rows.targets for rows in (split.validation, split.test))
    return {
        MEDIAN_ERROR: jnp.median(jnp.abs(validation)),
        "test_mae": jnp.mean(jnp.abs(test)),
        "test_rmse": jnp.sqrt(jnp.mean(test**2)),
    }
