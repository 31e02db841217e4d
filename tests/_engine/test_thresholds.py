import jax.numpy as jnp
import numpy as np
import pytest

from softbin._engine import thresholds
from softbin._engine.groups import Groups
from tests.hard_cases import REGULARIZERS


@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
def test_solve_vanishes_in_the_sum(regularizer, x64):
    scores, weights = jnp.array([3.0, 1.0, 2.0, 0.0]), jnp.array([1.0, 2.0, 0.5, 1.0])
    k, temperature = jnp.array([1.7]), jnp.array([0.9])
    found = thresholds.solve(scores, k, temperature, weights, Groups((0,)), regularizer)
    y = regularizer.link(thresholds.excess(scores, found, temperature))
    np.testing.assert_allclose(jnp.sum(weights * y), 1.7, rtol=1e-14)
