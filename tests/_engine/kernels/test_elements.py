"""Operations on small arrays, element by element, where elements are numbers or whole arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin._engine.kernels.elements import elements, evaluate


def function(pair, one, alone):
    left, right = jnp.split(pair, 2)
    places = jax.lax.broadcasted_iota(jnp.int32, pair.shape, 0)
    joined = jnp.concatenate([left * one, jnp.sqrt(jnp.abs(right)) - alone])
    sides = jnp.asarray([1, -1], pair.dtype)
    return {"sums": jnp.where(joined > 0, joined, sides) + places, "finite": jnp.isfinite(pair), "last": pair[1:] / 4}


@pytest.mark.parametrize("shape", [(), (1, 3)])
def test_elements_are_worked_out_by_themselves(shape):
    rng = np.random.default_rng(0)
    a, _, c, d = rng.standard_normal((4, *shape), np.float32)
    b = np.full(shape, np.inf, np.float32)

    @jax.jit
    def found(a, b, c, d):
        results = evaluate(function, elements([a, b]), elements([c]), elements([d]).reshape(()))
        return jax.tree.map(list, results)

    one_by_one = jax.jit(jax.vmap(function, in_axes=-1, out_axes=-1))
    expected = one_by_one(np.stack([a, b]).reshape(2, -1), c.reshape(1, -1), d.reshape(-1))
    for name, each in found(a, b, c, d).items():
        np.testing.assert_allclose(np.stack(each).reshape(len(each), -1), expected[name], rtol=1e-6)
