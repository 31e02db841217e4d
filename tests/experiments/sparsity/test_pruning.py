import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin.experiments.sparsity import pruning
from softbin.experiments.sparsity.numbers import Numbers

PARAMS = pruning._initial(jax.random.key(0), 20, 10)
SIZE = sum(weight.size for weight in PARAMS["weights"])
K = 0.1
STEPS = 20


def kept(params):
    return [np.count_nonzero(weight) for weight in params["weights"]]


@pytest.mark.parametrize("method", pruning.BY_MAGNITUDE)
def test_magnitudes_keep_ever_fewer_weights_and_in_the_end_the_share(method):
    numbers = Numbers(*(jnp.float32(value) for value in (K, 1, 0, 1e-3, 0)))
    optimizer = pruning._optimizer(method, numbers, STEPS, PARAMS)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.tree.map(jnp.sin, params), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    params, state, counts = PARAMS, optimizer.init(PARAMS), []
    for _ in range(STEPS):
        params, state = step(params, state)
        counts.append(sum(kept(params)))
    assert counts[0] == SIZE
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == pytest.approx(K * SIZE, abs=2)
    if method == "by_layer":
        np.testing.assert_allclose(kept(params), [K * weight.size for weight in PARAMS["weights"]], atol=1)
    if method == "at_once":
        assert len(set(counts)) == 2


def test_masks_are_of_all_layers_and_exact_where_they_are_hard():
    weights = jax.device_get(PARAMS["weights"])
    ways = {"soft": (False, False), "through": (False, True), "hard": (True, False)}
    masked = jax.jit(
        lambda weights: {
            name: pruning._masked(weights, K, 0.1, hard=hard, straight_through=through)
            for name, (hard, through) in ways.items()
        }
    )
    soft, through, hard = map(jax.device_get(masked(weights)).get, ways)
    assert sum(kept({"weights": hard})) == round(K * SIZE)
    for weight, exact, forward, softened in zip(weights, hard, through, soft, strict=True):
        np.testing.assert_array_equal(exact, forward)
        assert np.all(np.abs(softened) <= np.abs(weight))
    assert sum(kept({"weights": soft})) > K * SIZE
