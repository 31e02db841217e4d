"""Small arrays, element by element, for kernels: there an element stands for all groups that a kernel holds.

What is worked out of pairs, for many groups at once, is written for arrays of two. Mosaic has whole vectors, and on GPU
scalars, and no arrays of two: so here a function of such arrays is traced, and its operations are done again with each
element by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

from softbin._engine.search import sqrt

Elements = np.ndarray
"""Of objects, which are arrays of one shape, a number for each group."""

_MOVES: dict[Any, Callable[..., Any]] = {
    lax.broadcast_in_dim_p: lambda x, *, shape, broadcast_dimensions, **_: np.broadcast_to(
        x.reshape(
            [x.shape[broadcast_dimensions.index(d)] if d in broadcast_dimensions else 1 for d in range(len(shape))]
        ),
        shape,
    ),
    lax.concatenate_p: lambda *operands, dimension, **_: np.concatenate(operands, dimension),
    lax.iota_p: lambda *, dtype, shape, dimension, **_: _constant(np.indices(shape)[dimension].astype(dtype)),
    lax.reshape_p: lambda x, *, new_sizes, **_: x.reshape(new_sizes),
    lax.slice_p: lambda x, *, start_indices, limit_indices, strides, **_: x[
        tuple(map(slice, start_indices, limit_indices, strides or [None] * x.ndim))
    ],
    lax.split_p: lambda x, *, sizes, axis, **_: np.split(x, np.cumsum(sizes)[:-1], axis),
    lax.squeeze_p: lambda x, *, dimensions, **_: x.squeeze(dimensions),
}
_IN_OTHER_WORDS: dict[Any, Callable[..., Any]] = {  # what Mosaic GPU lacks
    lax.is_finite_p: lambda x: jnp.abs(x) < jnp.inf,
    lax.sqrt_p: lambda x, **_: sqrt(x),
}


def elements(values: Sequence[Any]) -> Elements:
    """A vector of them."""
    made = np.empty(len(values), object)
    for place, value in enumerate(values):
        made[place] = value
    return made


def evaluate(function: Callable[..., Any], *trees: Any) -> Any:
    """`function(*trees)`, a tree of arrays, where the leaves are elements: before and after."""
    leaves, structure = jax.tree.flatten(trees)
    kinds = [jax.ShapeDtypeStruct(leaf.shape, leaf.flat[0].dtype) for leaf in leaves]
    traced, results = jax.make_jaxpr(function, return_shape=True)(*jax.tree.unflatten(structure, kinds))
    shape = np.broadcast_shapes(*(np.shape(element) for leaf in leaves for element in leaf.flat))
    found = _evaluate(traced.jaxpr, traced.consts, leaves, shape)
    return jax.tree.unflatten(jax.tree.structure(results), found)


def _evaluate(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Elements], shape: tuple[int, ...]) -> list:
    known: dict[Any, Elements] = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {name: _constant(value) for name, value in zip(jaxpr.constvars, constants, strict=True)}

    def read(name: Any) -> Elements:
        is_literal = isinstance(name, Literal)  # a number of Python's, perhaps
        return _constant(np.asarray(name.val, jnp.result_type(name.aval))) if is_literal else known[name]

    for equation in jaxpr.eqns:
        operands, results = [read(name) for name in equation.invars], equation.outvars
        primitive, parameters = equation.primitive, equation.params
        if "jaxpr" in parameters:
            inner = parameters["jaxpr"]
            found = _evaluate(inner.jaxpr, inner.consts, operands, shape)
        elif primitive in _MOVES:
            moved = _MOVES[primitive](*operands, **parameters)
            found = moved if primitive.multiple_results else [moved]
        else:
            found = [_by_element(primitive, parameters, operands, shape)]
        known |= zip(results, found, strict=True)
    return [read(name) for name in jaxpr.outvars]


def _by_element(primitive: Any, parameters: Any, operands: Sequence[Elements], shape: tuple[int, ...]) -> Elements:
    do = _IN_OTHER_WORDS.get(primitive, primitive.bind)
    made = np.empty(np.broadcast_shapes(*(operand.shape for operand in operands)), object)
    for place in np.ndindex(made.shape):
        made[place] = do(*(_full(np.broadcast_to(each, made.shape)[place], shape) for each in operands), **parameters)
    return made


def _constant(value: Any) -> Elements:
    value = np.asarray(value)
    return elements(list(value.ravel())).reshape(value.shape)


def _full(element: Any, shape: tuple[int, ...]) -> Any:
    return element if np.shape(element) == shape else jnp.full(shape, element, element.dtype)
