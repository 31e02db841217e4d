"""Projections onto the hypersimplex and onto box sections, and pruning, in the manner of Optax."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Int, PyTree, Real

from softbin import thresholds
from softbin.arguments import Count, computed_in, known_value
from softbin.budgets import Share
from softbin.groups import Groups
from softbin.operators import project_hypersimplex
from softbin.regularizers import euclidean
from softbin.search import search

_SLACK = 1e-6  # relative; sums of bounds round
_ALL = Groups((0,))  # one group: the whole tree


def projection_hypersimplex(tree: PyTree, k: Count) -> PyTree:
    r"""Projection onto the hypersimplex.

    .. math::
        \arg\min_p \lVert x - p \rVert_2^2 \quad \text{subject to} \quad 0 \le p \le 1,\ \textstyle\sum_i p_i = k,

    where `x` are all entries of the tree together.

    Args:
      tree: of floating point arrays.
      k: in [0, n], a scalar, or a share of the entries made by `softbin.budgets.fraction`; may be traced, and has a
        gradient.

    Returns:
      The projected tree, of the same structure, shapes and dtypes. NaN where a traced `k` is out of range.

    Raises:
      TypeError: the tree is not floating point.
      ValueError: a `k` that is known when traced is out of range.

    Example:
      >>> print(projection_hypersimplex({"a": jnp.array([1.0, 0.5]), "b": jnp.array(2.5)}, k=2))
      {'a': Array([0.75, 0.25], dtype=float32), 'b': Array(1., dtype=float32)}

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, eq. 9.
    """
    values, unravel = ravel_pytree(tree)
    return unravel(project_hypersimplex(values, k))


def projection_box_section(
    tree: PyTree, lower: PyTree, upper: PyTree, weights: PyTree, total: Real[ArrayLike, ""]
) -> PyTree:
    r"""Projection onto a box cut by a hyperplane.

    .. math::
        \arg\min_p \lVert x - p \rVert_2^2 \quad \text{subject to} \quad
        l \le p \le u,\ \langle w, p \rangle = \text{total}, \qquad p_i = \text{clip}(x_i - w_i s,\ l_i,\ u_i),

    where `x` are all entries of the tree together, and `s` solves one scalar equation. The probability simplex is
    `lower=0, upper=inf, weights=1, total=1`; the hypersimplex `lower=0, upper=1, weights=1, total=k`.

    Differentiable by every argument, in forward and reverse mode, through the optimality conditions.

    Args:
      tree: of floating point arrays.
      lower, upper: scalars, or trees of the structure of `tree` whose arrays broadcast to its arrays. Either bound
        may be infinite, but not `lower` in one entry and `upper` in another.
      weights: of the same kind, finite, of any sign; an entry of weight 0 is only clipped.
      total: finite.

    Returns:
      The projected tree, of the same structure, shapes and dtypes. NaN where the constraints contradict each other
      and that is only known at run time.

    Raises:
      TypeError: the tree is not floating point.
      ValueError: shapes do not fit; or constraints known when traced contradict each other or break the rule above.

    Example:
      >>> portfolio = projection_box_section(
      ...     jnp.array([0.5, 0.1, 0.9]), lower=0.0, upper=0.6, weights=jnp.array([1.0, 1.0, 2.0]), total=1.0
      ... )
      >>> print(portfolio)
      [0.24000001 0.         0.38      ]

    References:
      Blondel et al., `Efficient and Modular Implicit Differentiation <https://arxiv.org/abs/2105.15183>`_, 2022,
      appendix C.1, of whose library, jaxopt, this function was a part.
    """
    values, unravel = ravel_pytree(tree)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"tree must be floating point, got {values.dtype}: convert it, for example to float32")
    lower, upper, weights = (
        _ravel_like(tree, name, value) for name, value in (("lower", lower), ("upper", upper), ("weights", weights))
    )
    if not any(isinstance(value, jax.core.Tracer) for value in (lower, upper, weights, total)):
        _check_box_section(lower, upper, weights, np.asarray(total))
    dtype = computed_in(values)
    arguments = (jnp.asarray(value, dtype) for value in (values, lower, upper, weights, total))
    return unravel(_project_box_section(*arguments).astype(values.dtype))


def keep_params_in_hypersimplex(k: int | float) -> optax.GradientTransformation:
    """Modifies the updates to keep the parameters, all together, in the hypersimplex `{0 <= p <= 1, Σ p = k}`.

    The parameters after the update are the projection of what they would have been, so that any optimizer becomes a
    projected one. It belongs at the end of a chain; `optax.masked` picks the parameters that it is for. Behind Adam it
    can stall: Adam divides by the size of the gradient, and most of that can be the part common to all entries, which
    the projection takes out again. Prefer SGD.

    Args:
      k: what the parameters sum to, in [0, n].

    Returns:
      An `optax.GradientTransformation`, to be updated with `params`.

    Raises:
      TypeError, ValueError: in the update: as :func:`projection_hypersimplex`, or there are no `params`.

    Example:
      >>> optimizer = optax.chain(optax.sgd(1.0), keep_params_in_hypersimplex(k=2))
      >>> params = jnp.array([0.5, 0.5, 0.5, 0.5])
      >>> gradient = jnp.array([0.1, -0.3, 0.0, 0.2])
      >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      [0.4 0.8 0.5 0.3]
    """

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("keep_params_in_hypersimplex projects the parameters: call update(updates, state, params)")
        projected = projection_hypersimplex(jax.tree.map(jnp.add, params, updates), k)
        return jax.tree.map(jnp.subtract, projected, params), state

    return optax.GradientTransformation(init, update)


class KeepTopKState(NamedTuple):
    """The state of :func:`keep_top_k`.

    Attributes:
      step: how many updates there were.
      mask: a tree like the parameters: which of them were kept last.
    """

    step: Int[Array, ""]
    mask: PyTree


def keep_top_k(k: int | Share | Callable[[Int[Array, ""]], int | Share | Array]) -> optax.GradientTransformation:
    """Modifies the updates to keep the `k` parameters of the largest magnitude, and to set all others to 0.

    The largest of the whole tree, by one threshold, which is found by counting in one leaf after the other: no leaf is
    sorted, raveled or gathered. Magnitudes that equal the k-th are all kept. A parameter that was set to 0 comes back
    as soon as its update is large enough: iterative hard thresholding. It belongs at the end of a chain; `optax.masked`
    picks the parameters that it is for. Leaves that are not floating point are left alone, and do not count.

    Args:
      k: how many to keep, whole, a share of them, such as `softbin.budgets.fraction(0.05)`, or a schedule of either: a
        function of the number of updates. Less than 2^31; a traced one that is out of range counts as the nearest end.

    Returns:
      An `optax.GradientTransformation`, to be updated with `params`. Its state has the mask.

    Raises:
      TypeError: `k`, or what its schedule gives, is neither an integer nor one share.
      ValueError: in the update: there are no `params`, or `k` is known when traced and out of range.

    Example:
      >>> import softbin
      >>> share = optax.linear_schedule(1.0, 0.5, transition_steps=2)
      >>> optimizer = optax.chain(optax.sgd(0.1), keep_top_k(lambda count: softbin.budgets.fraction(share(count))))
      >>> params = {"a": jnp.array([1.0, -0.2]), "b": jnp.array([[0.5, 3.0]])}
      >>> state = optimizer.init(params)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> print(params["a"].round(1), params["b"].round(1), state[-1].mask["a"])
      [0.7 0. ] [[0.  2.7]] [ True False]

    References:
      Blumensath, Davies, `Iterative Hard Thresholding <https://arxiv.org/abs/0805.0510>`_, 2009.
    """
    if not callable(k) or isinstance(k, Share):
        _check_count(k)

    def init(params):
        return KeepTopKState(jnp.zeros((), jnp.int32), jax.tree.map(lambda p: jnp.ones_like(p, dtype=bool), params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("keep_top_k chooses among the parameters: call update(updates, state, params)")
        moved = jax.tree.map(lambda p, u: p + u if _is_floating(p) else None, params, updates)
        now = k(state.step) if callable(k) and not isinstance(k, Share) else k
        _check_count(now)
        least = _kth_magnitude(jax.tree.leaves(moved), now)
        mask = jax.tree.map(
            lambda p, u: _bits(p + u, least.dtype) >= least if _is_floating(p) else jnp.ones_like(p, dtype=bool),
            params,
            updates,
        )
        kept = jax.tree.map(lambda keep, p, u: jnp.where(keep, u, -p), mask, params, updates)
        return kept, KeepTopKState(optax.safe_increment(state.step), mask)

    return optax.GradientTransformation(init, update)


def _check_count(k) -> None:
    one_share = isinstance(k, Share) and not np.ndim(k.shares)
    if not one_share and (isinstance(k, Share | str) or not jnp.issubdtype(jnp.result_type(k), jnp.integer)):
        raise TypeError(
            "k must be a whole number of parameters, or a share of them such as softbin.budgets.fraction(0.05), or a "
            f"schedule of either, got {k!r}"
        )


def _is_floating(leaf) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _bits(values, dtype) -> Array:
    """The magnitudes as integers in the order of these."""
    floating = jnp.float32 if dtype == jnp.int32 else jnp.float64
    return lax.bitcast_convert_type(jnp.abs(values).astype(floating), dtype)


def _kth_magnitude(leaves: list[Array], k) -> Array:
    """The bits of the k-th largest magnitude of all leaves, by halving their range; of none, those of no magnitude."""
    size = sum(leaf.size for leaf in leaves)
    if isinstance(k, Share):
        k = jnp.round(jnp.asarray(k.shares, jnp.float32) * size).astype(jnp.int32)
    elif (known := known_value(k)) is not None and not 0 <= known <= size:
        raise ValueError(f"k must be in [0, n], n = {size} parameters, got {k}")
    dtype = jnp.int64 if any(leaf.dtype == jnp.float64 for leaf in leaves) else jnp.int32

    def halve(_, ends):
        low, high = ends  # k or more entries reach low, and fewer reach high
        middle = low + (high - low) // 2
        count = sum(jnp.sum(_bits(leaf, dtype) >= middle, dtype=jnp.int32) for leaf in leaves)
        return jnp.where(count >= k, middle, low), jnp.where(count >= k, high, middle)

    most = jnp.asarray(jnp.iinfo(dtype).max, dtype)
    low, _ = lax.fori_loop(0, jnp.iinfo(dtype).bits, halve, (jnp.zeros((), dtype), most))
    return jnp.where(k > 0, low, most)


def _ravel_like(tree, name, value):
    """A scalar or tree as one vector, as long as the raveled tree; in numpy where the values are known."""
    shapes, structure = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)], jax.tree.structure(tree)
    parts = jax.tree.leaves(value)
    if jax.tree_util.all_leaves([value]) and jnp.ndim(value) == 0:
        parts = parts * len(shapes)
    elif jax.tree.structure(value) != structure:
        raise ValueError(f"{name} must be a scalar or have the structure of the tree, {structure}, got {value}")
    numpy = jnp if any(isinstance(part, jax.core.Tracer) for part in parts) else np
    try:
        parts = [numpy.broadcast_to(part, shape) for part, shape in zip(parts, shapes, strict=True)]
    except ValueError as error:
        raise ValueError(f"{name} does not broadcast to the shapes of the tree: {error}") from None
    return numpy.concatenate([numpy.ravel(part) for part in parts]).astype(float)


def _check_box_section(lower, upper, weights, total):
    for wrong, message in (
        (~(lower <= upper), "lower must be at most upper"),
        (~np.isfinite(weights), "weights must be finite"),
    ):
        if np.any(wrong):
            i = np.argmax(wrong)
            raise ValueError(f"{message}, got lower {lower[i]}, upper {upper[i]} and weight {weights[i]} in entry {i}")
    least, most = (np.sum(end) for end in _ends(lower, upper, weights))
    if least == -np.inf and most == np.inf:
        raise ValueError("the weighted sum is unbounded both ways: make all of lower, or all of upper, finite")
    slack = _SLACK * sum(abs(end) for end in (least, most) if np.isfinite(end))
    if not least - slack <= total <= most + slack:
        raise ValueError(f"no point of the box has the weighted sum {total}: it lies in [{least}, {most}]")


def _ends(lower, upper, weights):
    """The least and the most that each entry can add to the weighted sum."""
    numpy = np if isinstance(weights, np.ndarray) else jnp
    nothing = weights == 0
    at_lower, at_upper = (numpy.where(nothing, 0, weights * numpy.where(nothing, 0, end)) for end in (lower, upper))
    return numpy.minimum(at_lower, at_upper), numpy.maximum(at_lower, at_upper)


def _project_box_section(x, lower, upper, weights, total):
    """`p = clip(x - w s, l, u)` with `<w, p> = total`; the derivative of `s` is that of this equation."""
    found, feasible = lax.stop_gradient(_search_box_section(x, lower, upper, weights, total))

    def point(fine):
        return jnp.clip((x - weights * found.coarse) - weights * fine, lower, upper)

    def residual(fine):
        return _ALL.total(weights * point(fine)) - total

    def divide(by_fine, value):
        return -thresholds.safe_ratio(value, -by_fine(jnp.ones_like(value)))

    fine = lax.custom_root(residual, found.fine, lambda _, start: start, divide)
    return jnp.where(feasible, point(fine), jnp.nan)


def _search_box_section(x, lower, upper, weights, total):
    """`s`, by the solver of fractions: an entry is `p = l + (u - l) y`, with a temperature and copies of its own.

    Where the weights are positive, `y = clip(((x - l)/w - s) w/(u - l), 0, 1)` and `Σ w (u - l) y = total - <w, l>`.
    """
    least, _ = _ends(lower, upper, weights)
    direction = jnp.where(jnp.any(least == -jnp.inf), -1, 1)
    sign = jnp.where(weights < 0, -direction, direction)
    x, total, weights = sign * x, direction * total, jnp.abs(weights)
    lower, upper = jnp.where(sign < 0, -upper, lower), jnp.where(sign < 0, -lower, upper)

    least, _ = _ends(lower, upper, weights)
    k = total - _ALL.total(least)
    free = (weights > 0) & (lower < upper)
    weights = jnp.where(free, weights, 1)
    # No feasible point is above `l + k/w`; twice that never binds.
    width = jnp.where(free, jnp.where(jnp.isinf(upper), 2 * k / weights, upper - lower), 1)
    copies = jnp.where(free, weights * width, 0)
    most = _ALL.total(copies)
    slack = _SLACK * (most + jnp.abs(total) + jnp.abs(total - k))
    feasible = jnp.all(lower <= upper) & jnp.isfinite(k) & (k >= -slack) & (k <= most + slack)

    scores = jnp.where(free, (x - lower) / weights, -jnp.inf)
    found, _ = search(scores, k, width / weights, copies, _ALL, euclidean)
    return thresholds.Threshold(*(direction * part for part in found)), feasible
