"""Projections onto the hypersimplex and onto box sections, and pruning, in the manner of Optax.

All leaves of a tree are projected, or pruned, together. Leaves that are not floating point, such as a counter of steps,
are left alone and do not count; neither do parameters whose update is None.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Real

from softbin._engine import meshes, thresholds
from softbin._engine.arguments import Count
from softbin._engine.checks import broadcasts, check_amount, check_real, is_numeric, known_value
from softbin._engine.groups import Groups
from softbin._engine.search import search
from softbin._engine.shares import Share, brief
from softbin._records import documented
from softbin.adapters.leaves import Leaves, check_some, computed_in, floating_leaves, pack, packed, unpack
from softbin.operators import soft_binary_argmax
from softbin.regularizers import euclidean

__all__ = [  # noqa: RUF022 (as the pages show them)
    "projection_hypersimplex",
    "projection_box_section",
    "keep_params_in_hypersimplex",
    "keep_top_k",
    "KeepTopKState",
]

_Halving = tuple[Int[Array, ""], Int[Array, ""], list[Bool[Array, "..."]]]
"""The ends of a range of magnitudes, and which entries are chosen."""
_SLACK = 1e-6  # relative; sums of bounds round
_ALL = Groups((0,))  # one group: the whole tree


def projection_hypersimplex(tree: PyTree, k: Count) -> PyTree:
    r"""Projects a tree onto the hypersimplex: entries between 0 and 1 that sum to `k`.

    .. math::
        \arg\min_p \lVert x - p \rVert_2^2 \quad \text{subject to} \quad 0 \le p \le 1,\ \textstyle\sum_i p_i = k,

    where `x` are all entries of the tree together. Differentiable in forward and reverse mode.

    Args:
      tree: of floating point arrays; other leaves are left alone, and do not count.
      k: what the entries sum to: one real number in [0, n], or a share of the entries made by
        `softbin.budgets.fraction`. The number 0.5 is half an entry, not half of the entries. May be traced, and has a
        gradient.

    Returns:
      The projected tree, of the same structure, shapes and dtypes. NaN where a traced `k` is out of range.

    Raises:
      TypeError: no leaf of the tree is floating point, or `k` is not a number.
      ValueError: a concrete `k` is out of range, or `k` is an array of several.

    Example:
      >>> print(projection_hypersimplex({"a": jnp.array([1.0, 0.5]), "b": jnp.array(2.5)}, k=2))
      {'a': Array([0.75, 0.25], dtype=float32), 'b': Array(1., dtype=float32)}

    References:
      Gomez, Wang, Tang, `Differentiable Zero-One Loss via Hypersimplex Projections
      <https://arxiv.org/abs/2602.23336>`_, 2026, eq. 9.
    """
    leaves = floating_leaves("tree", tree)
    check_some(leaves)
    _check_k(k, leaves)
    projected = meshes.run(_project_hypersimplex, _same, leaves.taking_part, k, exact=_exact(k, leaves))
    return leaves.replaced(projected)


def projection_box_section(
    tree: PyTree, lower: PyTree, upper: PyTree, weights: PyTree, total: Real[ArrayLike, ""]
) -> PyTree:
    r"""Projects a tree onto a box section: entries between bounds whose weighted sum is given.

    .. math::
        \arg\min_p \lVert x - p \rVert_2^2 \quad \text{subject to} \quad
        l \le p \le u,\ \langle w, p \rangle = \text{total}, \qquad p_i = \text{clip}(x_i - w_i s,\ l_i,\ u_i),

    where `x` are all entries of the tree together, and `s` solves one scalar equation. The probability simplex is
    `lower=0, upper=inf, weights=1, total=1`; the hypersimplex `lower=0, upper=1, weights=1, total=k`.

    Differentiable with respect to every argument, in forward and reverse mode, through the optimality conditions.

    Args:
      tree: of floating point arrays; other leaves are left alone, and so are what bounds and weights have for them.
      lower, upper: scalars, or trees of the structure of `tree` whose arrays broadcast to its arrays. Either bound
        may be infinite, but not `lower` in one entry and `upper` in another.
      weights: of the same kind, finite, of any sign; an entry of weight 0 is only clipped.
      total: finite, one number.

    Returns:
      The projected tree, of the same structure, shapes and dtypes. NaN where traced constraints contradict each other.

    Raises:
      TypeError: no leaf of the tree is floating point, or another argument is not real.
      ValueError: structures or shapes do not fit; or concrete constraints contradict each other or break the rule
        above.

    Example:
      >>> portfolio = projection_box_section(
      ...     jnp.array([0.5, 0.1, 0.9]), lower=0.0, upper=0.6, weights=jnp.array([1.0, 1.0, 2.0]), total=1.0
      ... )
      >>> print(portfolio.round(4))
      [0.24 0.   0.38]

    References:
      Blondel et al., `Efficient and Modular Implicit Differentiation <https://arxiv.org/abs/2105.15183>`_, 2022,
      appendix C.1, of whose library, jaxopt, this function was a part.
    """
    leaves = floating_leaves("tree", tree)
    check_some(leaves)
    named = {"lower": lower, "upper": upper, "weights": weights}
    lower, upper, weights = (_scalar_or_list(leaves, name, value) for name, value in named.items())
    check_real("total", total)
    if jnp.shape(total):
        raise ValueError(f"total must be one number, got an array of shape {jnp.shape(total)}")
    if all(map(_is_known, jax.tree.leaves((lower, upper, weights, total)))):
        _check_box_section(leaves, lower, upper, weights, np.asarray(total, float))
    return leaves.replaced(meshes.run(_project_box_section, _same, leaves.taking_part, lower, upper, weights, total))


def keep_params_in_hypersimplex(k: Count) -> optax.GradientTransformation:
    """Modifies the updates to keep the parameters, all together, in the hypersimplex `{0 <= p <= 1, Σ p = k}`.

    The parameters after the update are the projection of what they would have been, so that any optimizer becomes a
    projected one. Put it at the end of a chain; `optax.masked` restricts it to some of the parameters. Behind Adam it
    can stall: Adam divides by the size of the gradient, which can be mostly the part that all entries have in common,
    and the projection takes that part out again. Prefer SGD. Parameters that are not floating point, or whose update is
    None, are left alone and do not count.

    Args:
      k: what the parameters sum to, in [0, n], as for :func:`projection_hypersimplex`. `optax.inject_hyperparams` makes
        it follow a schedule.

    Returns:
      An `optax.GradientTransformation`, whose `update` needs `params`.

    Raises:
      TypeError, ValueError: in the update: as for :func:`projection_hypersimplex`, or there are no `params`.

    Example:
      >>> optimizer = optax.chain(optax.sgd(1.0), keep_params_in_hypersimplex(k=2))
      >>> params = jnp.array([0.5, 0.5, 0.5, 0.5])
      >>> gradient = jnp.array([0.1, -0.3, 0.0, 0.2])
      >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      [0.4 0.8 0.5 0.3]
    """

    def init(params: PyTree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        if params is None:
            raise ValueError("keep_params_in_hypersimplex projects the parameters: call update(updates, state, params)")
        leaves = floating_leaves("params", params)
        check_some(leaves)
        leaves, moves = _moving(leaves, updates)
        if not leaves.size:
            return updates, state
        _check_k(k, leaves)
        arrays = leaves.taking_part, moves.taking_part, k
        return moves.replaced(meshes.run(_keep_in_hypersimplex, _same, *arrays, exact=_exact(k, leaves))), state

    return optax.GradientTransformation(init, update)


@documented
class KeepTopKState(NamedTuple):
    """The state of :func:`keep_top_k`.

    Attributes:
      step: the number of updates so far.
      mask: a tree like the parameters that says which of them the last update kept.
    """

    step: Int[Array, ""]
    mask: PyTree


def keep_top_k(k: Count | Callable[[Int[Array, ""]], Count]) -> optax.GradientTransformation:
    """Modifies the updates to keep the `k` parameters of the largest magnitude, and to set all others to 0.

    It keeps the largest of the whole tree, by one threshold, which is found by counting in one leaf after the other: no
    leaf is sorted, raveled or gathered. Magnitudes that equal the k-th are all kept. A parameter that was set to 0
    comes back as soon as its update is large enough: iterative hard thresholding. Put it at the end of a chain;
    `optax.masked` restricts it to some of the parameters. Parameters that are not floating point, or whose update is
    None, are left alone and do not count. In `jax.shard_map` every device chooses among its own parameters.

    Args:
      k: how many to keep, a share of them, such as `softbin.budgets.fraction(0.05)`, or a schedule of either: a
        function of the number of updates, here or in `optax.inject_hyperparams`. A Python or NumPy number must be
        whole; a JAX array, as from a schedule, is rounded half to even. 0 keeps none, and a positive share at least
        one. Less than 2^31; a traced one out of range counts as the nearest end of the range, and NaN makes the updates
        NaN.

    Returns:
      An `optax.GradientTransformation`, whose `update` needs `params`. Its state, a :class:`KeepTopKState`, has the
      mask.

    Raises:
      TypeError: `k`, or what its schedule gives, is neither one number nor one share.
      ValueError: a concrete `k` is not whole, or is between 0 and 1 and so looks like a share; in the update: there are
        no `params`, or a concrete `k` is out of range.

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

    def init(params: PyTree) -> KeepTopKState:
        return KeepTopKState(jnp.zeros((), jnp.int32), jax.tree.map(lambda p: jnp.ones_like(p, dtype=bool), params))

    def update(updates: PyTree, state: KeepTopKState, params: PyTree | None = None) -> tuple[PyTree, KeepTopKState]:
        if params is None:
            raise ValueError("keep_top_k chooses among the parameters: call update(updates, state, params)")
        now = k(state.step) if callable(k) and not isinstance(k, Share) else k
        leaves, moves = _moving(floating_leaves("params", params), updates)
        _check_count(now)
        _check_range(now, leaves.size)
        arrays = leaves.taking_part, moves.taking_part, now
        kept, masks = meshes.run(_keep_largest, lambda specs: (specs, specs), *arrays)
        mask = leaves.replaced(masks, lambda p: jnp.ones_like(p, dtype=bool))
        return moves.replaced(kept), KeepTopKState(optax.safe_increment(state.step), mask)

    return optax.GradientTransformation(init, update)


def _same(specs: Any) -> Any:
    return specs


def _moving(params: Leaves, updates: PyTree) -> tuple[Leaves, Leaves]:
    """Of the parameters and their updates those that have one."""
    moves = params.aligned("updates", updates)
    mask = [
        taken and not (move is None or isinstance(move, optax.MaskedNode))
        for taken, move in zip(params.mask, moves, strict=True)
    ]
    moving = params._replace(name="updates", all=moves, mask=mask)
    for path, move in zip(moving.those(params.paths), moving.taking_part, strict=True):
        check_real("updates" + path.removeprefix(params.name), move)
    return params._replace(mask=mask), moving


def _check_k(k: Any, leaves: Leaves) -> None:
    if not isinstance(k, Share):
        check_amount("k", k)
    if np.ndim(k.shares if isinstance(k, Share) else k):
        raise ValueError(f"k must be one number, or one share such as softbin.budgets.fraction(0.5), got {brief(k)}")
    known = known_value(k)
    if known is not None and not known <= leaves.size:
        raise ValueError(f"k must be at most n = {leaves.size}, the number of entries of {leaves.name}, got {k}")


def _exact(k: Any, leaves: Leaves) -> float | None:
    """A known `k` that the solver's floats might lack digits for: of a traced one it would never see them."""
    known = known_value(k)
    fits = _ALL.counts_fit((leaves.size,), computed_in(leaves.taking_part))
    return None if known is None or fits else float(known)


@partial(jax.jit, static_argnames="exact")
def _project_hypersimplex(leaves: list[Array], k: Count, *, exact: float | None) -> list[Array]:
    vector = pack(leaves, computed_in(leaves))
    if exact is not None:
        k = exact
    elif not isinstance(k, Share):  # the mask would let it have more than there are
        k = jnp.where(jnp.less_equal(k, sum(leaf.size for leaf in leaves)), k, jnp.nan)
    return unpack(soft_binary_argmax(vector, k, where=packed(leaves), forward_mode=True), leaves)


@partial(jax.jit, static_argnames="exact")
def _keep_in_hypersimplex(params: list[Array], updates: list[Array], k: Count, *, exact: float | None) -> list[Array]:
    moved = jax.tree.map(jnp.add, params, updates)
    return jax.tree.map(jnp.subtract, _project_hypersimplex(moved, k, exact=exact), params)


def _check_count(k: Any) -> None:
    """How many to keep is one whole number or one share; what is known to be neither is refused."""
    if not (np.ndim(k.shares) == 0 if isinstance(k, Share) else is_numeric(k) and not np.ndim(k)):
        raise TypeError(
            "k must be a whole number of parameters, or a share of them such as softbin.budgets.fraction(0.05), or a "
            f"schedule of either, got {brief(k)}"
        )
    known = known_value(k)
    if known is not None and 0 < known < 1:
        raise ValueError(
            f"k is a number of parameters, and {known} looks like a share of them: pass "
            f"softbin.budgets.fraction({known})"
        )
    if known is not None and not isinstance(k, jax.Array) and known != np.round(known):
        raise ValueError(f"exactly k parameters are kept: k must be whole, got {known}")


def _check_range(k: Any, size: int) -> None:
    known = known_value(k)
    if known is not None and not 0 <= np.round(known) <= size:
        raise ValueError(f"k must be in [0, n], n = {size} parameters, got {known}")


@jax.jit
def _keep_largest(params: list[Array], updates: list[Array], k: Count) -> tuple[list[Array], list[Array]]:
    """The updates that keep the `k` largest, and which those are; NaN where `k` is."""
    if not params:
        return [], []
    moved = jax.tree.map(jnp.add, params, updates)
    masks = _largest(moved, _rounded(k, sum(leaf.size for leaf in moved)))
    missing = jnp.isnan(k.shares if isinstance(k, Share) else k)
    kept = [jnp.where(mask, u, -p) for mask, u, p in zip(masks, updates, params, strict=True)]
    return [jnp.where(missing, jnp.nan, u) for u in kept], masks


def _rounded(k: Count, size: int) -> Int[Array, ""]:
    """The whole number nearest to `k`, of so many; a positive share is at least one of them."""
    if isinstance(k, Share):
        share = jnp.asarray(k.shares, jnp.float32)
        most = jnp.where(share >= 1, size, jnp.maximum(jnp.round(share * size), 1).astype(jnp.int32))
        return jnp.where(share > 0, jnp.minimum(most, size), 0)
    k = jnp.asarray(k)
    if jnp.issubdtype(k.dtype, jnp.floating) or k.dtype.itemsize < 4:
        k = jnp.round(k.astype(jnp.float32))
    return jnp.minimum(jnp.clip(k, 0, size).astype(jnp.int32), size)  # as floats the ends are rounded


def _largest(leaves: list[Array], k: Int[Array, ""]) -> list[Bool[Array, "..."]]:
    """Which entries are as large as the k-th of all, in magnitude; found by halving the range of magnitudes.

    The last round of the loop is the one that compares, with what was counted: outside, the compiler might work out the
    sum of a parameter and its update a second time, and round it otherwise. The search of `softbin._engine.brackets` is
    of one array; so that no leaf has to be put together with others, wherever it lies, this one counts in all of them.
    """
    dtype = jnp.int64 if computed_in(leaves) == jnp.float64 else jnp.int32
    magnitudes = [_bits(leaf, dtype) for leaf in leaves]

    def halve(
        low: Int[Array, ""], high: Int[Array, ""], masks: list[Array]
    ) -> _Halving:  # k or more entries reach low, and fewer reach high
        middle = low + (high - low) // 2
        enough = sum(jnp.sum(bits >= middle, dtype=jnp.int32) for bits in magnitudes) >= k
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle), masks

    def compare(low: Int[Array, ""], high: Int[Array, ""], masks: list[Array]) -> _Halving:
        del masks
        return low, high, [bits >= low for bits in magnitudes]

    rounds = jnp.iinfo(dtype).bits
    zero = sum(jnp.sum(bits.ravel()[:0], dtype=dtype) for bits in magnitudes)  # of the type of a count in a shard_map
    start = zero, zero + jnp.iinfo(dtype).max, [bits < zero for bits in magnitudes]
    return lax.fori_loop(0, rounds + 1, lambda i, state: lax.cond(i < rounds, halve, compare, *state), start)[2]


def _bits(values: Float[Array, "*shape"], dtype: Any) -> Array:
    """The magnitudes as integers in the order of these."""
    floating = jnp.float32 if dtype == jnp.int32 else jnp.float64
    return lax.bitcast_convert_type(jnp.abs(values).astype(floating), dtype)


def _scalar_or_list(leaves: Leaves, name: str, value: Any) -> Any:
    """A scalar, or what a tree has for each leaf that takes part."""
    if jax.tree_util.all_leaves([value]) and (isinstance(value, str) or np.ndim(value) == 0):
        check_real(name, value)
        return value
    if jax.tree.structure(value) != leaves.structure:
        raise ValueError(
            f"{name} must be a scalar or have the structure of the tree, {brief(leaves.structure)}, got {brief(value)}"
        )
    values = leaves.those(leaves.aligned(name, value))
    for path, leaf, array in zip(leaves.those(leaves.paths), leaves.taking_part, values, strict=True):
        check_real(name + path.removeprefix(leaves.name), array)
        if not broadcasts(jnp.shape(array), jnp.shape(leaf)):
            raise ValueError(
                f"{name} with shape {jnp.shape(array)} does not broadcast to {jnp.shape(leaf)}, the shape of {path}"
            )
    return values


def _is_known(value: Any) -> bool:
    """Neither traced, nor in part on the devices of another process."""
    return not isinstance(value, jax.core.Tracer) and getattr(value, "is_fully_addressable", True)


def _check_box_section(leaves: Leaves, lower: Any, upper: Any, weights: Any, total: Any) -> None:
    if not np.isfinite(total):
        raise ValueError(f"total must be finite, got {total}")
    sums, n = [], sum(leaves.mask)
    by_leaf = [value if isinstance(value, list) else [value] * n for value in (lower, upper, weights)]
    for path, leaf, *arrays in zip(leaves.those(leaves.paths), leaves.taking_part, *by_leaf, strict=True):
        box = [np.broadcast_to(np.asarray(array, float), jnp.shape(leaf)) for array in arrays]
        _check_box(path, *box)
        sums.append([np.sum(end) for end in _ends(*box)])
    least, most = np.sum(sums, 0)
    if least == -np.inf and most == np.inf:
        raise ValueError("the weighted sum is unbounded both ways: make all of lower, or all of upper, finite")
    slack = _SLACK * sum(abs(end) for end in (least, most) if np.isfinite(end))
    if not least - slack <= total <= most + slack:
        raise ValueError(f"total must be in [{least}, {most}], which are the weighted sums of the box, got {total}")


def _check_box(path: str, lower: np.ndarray, upper: np.ndarray, weights: np.ndarray) -> None:
    for wrong, message in (
        (np.isnan(lower) | np.isnan(upper), "lower and upper must be numbers"),
        (~(lower <= upper), "lower must be at most upper"),
        (~np.isfinite(weights), "weights must be finite"),
    ):
        if np.any(wrong):
            place = np.unravel_index(np.argmax(wrong), wrong.shape)
            at = ", ".join(map(str, place))
            raise ValueError(
                f"{message}, got lower {lower[place]}, upper {upper[place]} and weight {weights[place]} for {path}"
                + (f"[{at}]" if at else "")
            )


def _ends(lower: Any, upper: Any, weights: Any) -> tuple[Any, Any]:
    """The least and the most that each entry can add to the weighted sum."""
    numpy = np if isinstance(weights, np.ndarray) else jnp
    nothing = weights == 0
    at_lower, at_upper = (numpy.where(nothing, 0, weights * numpy.where(nothing, 0, end)) for end in (lower, upper))
    return numpy.minimum(at_lower, at_upper), numpy.maximum(at_lower, at_upper)


@jax.jit
def _project_box_section(
    leaves: list[Array], lower: Any, upper: Any, weights: Any, total: Real[ArrayLike, ""]
) -> list[Array]:
    dtype = computed_in(leaves)

    x, mask = pack(leaves, dtype), packed(leaves)

    def alike(value: Any) -> Float[Array, " n"]:
        if not isinstance(value, list):  # compilers fold what they know, but not what they concatenate
            return jnp.broadcast_to(jnp.asarray(value).astype(dtype), x.shape)
        shaped = (jnp.broadcast_to(array, jnp.shape(leaf)) for array, leaf in zip(value, leaves, strict=True))
        return pack(list(shaped), dtype)

    lower, upper, weights = map(alike, (lower, upper, weights))
    weights = weights if mask is None else jnp.where(mask, weights, 0)
    point = _point_of_box_section(x, lower, upper, weights, jnp.asarray(total).astype(dtype))
    return unpack(point, leaves)


def _point_of_box_section(
    x: Float[Array, " n"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    weights: Float[Array, " n"],
    total: Float[Array, ""],
) -> Float[Array, " n"]:
    """`p = clip(x - w s, l, u)` with `<w, p> = total`; the derivative of `s` is that of this equation."""
    coarse, fine, feasible = lax.stop_gradient(_search_box_section(x, lower, upper, weights, total))

    def point(fine: Float[Array, "*one"]) -> Float[Array, " n"]:
        return jnp.clip((x - weights * coarse) - weights * fine, lower, upper)

    def residual(fine: Float[Array, "*one"]) -> Float[Array, "*one"]:
        return _ALL.total(weights * point(fine)) - total

    def divide(by_fine: Callable[[Array], Array], value: Array) -> Array:
        return -thresholds.safe_ratio(value, -by_fine(jnp.ones_like(value)))

    fine = lax.custom_root(residual, fine, lambda _, start: start, divide)
    return jnp.where(feasible, point(fine), jnp.nan)


def _search_box_section(
    x: Float[Array, " n"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    weights: Float[Array, " n"],
    total: Float[Array, ""],
) -> tuple[Float[Array, "*group"], Float[Array, "*group"], Bool[Array, "*group"]]:
    """`s` in two parts, by the solver of fractions: `p = l + (u - l) y`, with a temperature and copies of its own.

    Where the weights are positive, `y = clip(((x - l)/w - s) w/(u - l), 0, 1)` and `Σ w (u - l) y = total - <w, l>`.
    """
    least, _ = _ends(lower, upper, weights)
    direction = jnp.where(jnp.any(least == -jnp.inf), -1, 1)
    sign = jnp.where(weights < 0, -direction, direction)
    x, total, weights = sign * x, direction * total, jnp.abs(weights)
    lower, upper = jnp.where(sign < 0, -upper, lower), jnp.where(sign < 0, -lower, upper)

    least, _ = _ends(lower, upper, weights)
    k = total - _ALL.total(least)
    used = weights > 0
    weights = jnp.where(used, weights, 1)
    # No feasible point is above `l + k/w`; twice that never binds.
    width = jnp.maximum(jnp.where(jnp.isinf(upper), 2 * k / weights, upper - lower), 0)
    copies = jnp.where(used, weights * width, 0)
    most = _ALL.total(copies)
    tiny = x.size * float(jnp.finfo(x.dtype).tiny)  # products below count as 0
    slack = tiny + _SLACK * (most + jnp.abs(total) + _ALL.total(jnp.abs(least)))
    feasible = jnp.all(lower <= upper) & jnp.isfinite(k) & (k >= -slack) & (k <= most + slack)

    free = used & (width > 0)
    scores = jnp.where(free, (x - lower) / weights, -jnp.inf)
    temperatures = jnp.where(free, width, 1) / weights
    least = -_ALL.largest(-jnp.where(free, temperatures, jnp.inf))
    least = jnp.where(jnp.isfinite(least), least, 1)
    found, _ = search(scores, k, least, copies, _ALL, euclidean, steepness=least / temperatures)
    largest = float(jnp.finfo(x.dtype).max)
    coarse, fine = found.centre / found.scale, found.fine / (found.inverse * found.scale)
    fine = jnp.clip(fine, -largest, largest)
    return direction * coarse, direction * fine, feasible
