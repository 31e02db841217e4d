import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin._engine import thresholds
from softbin._engine.groups import Groups
from tests.hard_cases import REGULARIZERS


@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
def test_solve_vanishes_in_the_sum(regularizer, x64):
    weights = np.array([1.0, 2.0, 0.5, 1.0])

    @jax.jit
    def selected(scores, k, temperature):
        found = thresholds.solve(scores, k, temperature, jnp.asarray(weights), Groups((0,)), regularizer)
        return regularizer.link(thresholds.excess(scores, found, temperature))

    y = selected(np.array([3.0, 1.0, 2.0, 0.0]), np.array([1.7]), np.array([0.9]))
    np.testing.assert_allclose(np.sum(weights * y), 1.7, rtol=1e-14)
