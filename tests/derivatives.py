"""First and second derivatives against finite differences, in one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np

_STEP = 1e-5
_BY_MODE = {
    "rev": jax.grad,
    "fwd": lambda function: lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1],
}


def check_derivatives(function, arguments, modes=("rev",), order=2, rtol=1e-6, atol=1e-7):
    """Compare along a random direction, in double precision, every mode and every two of them, one after the other.

    A function whose value is an array is checked in a random combination of its entries.
    """
    random = np.random.default_rng(0)
    arguments = [np.asarray(x, np.float64) for x in arguments]
    directions = [random.standard_normal(x.shape) for x in arguments]
    combination = random.standard_normal(jax.eval_shape(function, *arguments).shape)

    def value(step):
        return jnp.sum(combination * function(*(x + step * d for x, d in zip(arguments, directions, strict=True))))

    slopes = [_BY_MODE[mode](value) for mode in modes]
    curvatures = [_BY_MODE[mode](slope) for slope in slopes for mode in modes] if order > 1 else []

    @jax.jit
    def program(step):
        around = jnp.stack([-step, step])
        here = [[derivative(0.0) for derivative in each] for each in (slopes, curvatures)]
        return here, [jax.lax.map(each, around) for each in (value, slopes[0])]

    for found, (before, after) in zip(*jax.tree.map(np.asarray, program(_STEP)), strict=True):
        expected = np.full(len(found), (after - before) / (2 * _STEP))
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)
