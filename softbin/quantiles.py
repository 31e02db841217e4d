"""Quantiles, medians and percentiles, exact at every length and without a sort.

A level and a number of entries are multiplied exactly, and the entries next to their product are found in a few rounds
of counts: see `softbin._engine.exact_ranks` and `softbin._engine.choices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Bool, Float, Real, Shaped

from softbin._engine import exact_ranks, meshes, quantiles
from softbin._engine.arguments import groups_along, prepare_choice
from softbin._engine.checks import (
    check_entries,
    check_per_group,
    check_real,
    check_temperature,
    dtype_of,
    is_zero_temperature,
    known_value,
)
from softbin._engine.exact_ranks import METHODS, Level
from softbin._engine.groups import Groups
from softbin._engine.shares import brief, show


def quantile(
    values: Shaped[ArrayLike, "*shape"],
    q: Real[ArrayLike, "..."],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    method: str = "linear",
    keepdims: bool = False,
    axis_name: Any = None,
    temperature: Real[ArrayLike, "..."] = 0.0,
) -> Float[Array, "..."]:
    r"""The value below which a share `q` of the entries lies: `jnp.quantile` for long arrays and for sharded ones.

    `jnp.quantile` sorts, and a sort puts all entries on every device. It also works out the rank in a float of the
    dtype of `q`, so that the 1.0-quantile of more than 2^24 values is not the largest, and a quantile at a bfloat16
    level is off by whole ranks. Here the rank is the exact product of `q`, as it is stored, and `n - 1`, and the
    entries beside it are found in a few rounds of counts: on a sharded axis a round is two small all-reduces, and
    results are the same on any number of devices.

    .. math::
        h = q (n - 1), \qquad j = \lfloor h \rfloor, \qquad x_{(j)} + (h - j) (x_{(j+1)} - x_{(j)}),

    with entries in rising order from `x_(0)`. The result is within one ulp of this formula, whatever cancels, and never
    outside of the two entries. The methods are those of NumPy: where `h` is not whole, "lower", "higher" and "midpoint"
    take `x_(j)`, `x_(j+1)` and their mean, "nearest" the nearer one, or the one of even rank if both are equally near.
    "inverted_cdf" takes the least entry that, together with all below it, makes up at least the share `q`.

    The level counts as it is stored, to the last digit: the float 0.29 is a little less than 29 hundredths, so the
    "lower" entry of 101 at 0.29 is that of rank 28. :func:`percentile` takes the number 29, exactly.

    Infinities are ordinary values: of [0, 1, inf] the median is 1. Between a finite and an infinite entry the result is
    infinite, and between `-inf` and `inf` NaN, since nothing says where.

    The gradient goes to the one or two entries that hold the quantile, as the formula has it; among equal ones, to
    those that :func:`softbin.kth_largest` names. By `q` it is `n - 1` times the slope between the two entries, and at
    an entry the mean of the slopes on both sides, so that a level that is learned does not get stuck there. Only
    "linear" has a gradient by `q`, and weights have none. Forward and reverse mode, `jit`, `vmap` and `jax.checkpoint`
    work. Before JAX 0.12, a derivative by `q` and then by `values` fails where both are taken of a whole `jax.lax.map`
    or `scan`, in which JAX forgets the rules: take the one by `q` inside of it.

    A positive temperature makes it smooth: all entries near the quantile share its gradient. It is

    .. math::
        \tau \left( \lambda + \tfrac12 \right), \qquad \sum_i \psi(x_i / \tau - \lambda) = (1 - q)(n - 1) + \tfrac12,

    the value that :func:`softbin.soft_binary_argmax` would choose by half, if it chose all entries above the rank and
    half of the one at it. As the temperature falls to 0, it becomes the value of the nearest rank, or the midpoint of
    two entries if the rank is halfway between them.

    Args:
      values: real or boolean, any shape. Integers become floats. -0 equals 0, and subnormal float32 or float64 numbers
        are 0.
      q: levels in [0, 1], of any shape; on a sharded axis several share each round. A Python or NumPy number counts in
        float64, an array in its own dtype. May be traced.
      axis: the axis along which to take quantiles, a tuple of axes, or None for all.
      where: broadcasts to `values`. Entries where it is false do not exist: `where=~jnp.isnan(values)` leaves out NaN.
      weights: non-negative, broadcasts to `values`; only for `method="inverted_cdf"`. The quantile is then the least
        value of positive weight whose weight, with that of all below, is at least `q` of the total.
      method: "linear", "lower", "higher", "midpoint", "nearest" or "inverted_cdf".
      keepdims: keep the reduced axes in the result, with length one.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split; the note on `axis_name` in
        :func:`softbin.loss` holds for the gradient.
      temperature: 0, or positive: a number, or an array that broadcasts to the shape of `values` without `axis`. Only a
        concrete temperature can be 0; a traced one must be positive. Only for `method="linear"`.

    Returns:
      The quantiles, in the dtype of `values`, of the shape of `q` followed by that of `values` without `axis`. NaN for
      a group with NaN, for one without entries or weight, and where a traced `q` or temperature is out of range.

    Raises:
      TypeError: `values`, `q`, weights or temperature are not real, or `where` is not boolean.
      ValueError: a concrete level is outside [0, 1], the method is unknown, or takes no weights or no temperature, or
        shapes do not fit.

    Example:
      >>> values = jnp.array([[3.0, 1.0, 2.0], [10.0, 30.0, 50.0]])
      >>> print(quantile(values, 0.25, axis=1), quantile(values, np.array([0.0, 1.0]), axis=None))
      [ 1.5 20. ] [ 1. 50.]
      >>> print(quantile(values, 0.5, axis=1, where=values < 40))
      [ 2. 20.]
      >>> print(quantile(values[0], 0.5, weights=jnp.array([3.0, 1.0, 1.0]), method="inverted_cdf"))
      3.0

      A smooth quantile in conformal training. Half of a batch is for calibration: with its cut, the sets of classes
      predicted for the other half contain the right class in nine cases of ten. The loss is the size of these sets:

      >>> def size_loss(logits, labels):
      ...     scores = jax.nn.log_softmax(logits)
      ...     of_labels = jnp.take_along_axis(scores, labels[:, None], 1)[:, 0]
      ...     calibration, rest = jnp.split(of_labels, 2)[0], jnp.split(scores, 2)[1]
      ...     cut = quantile(calibration, 0.1, temperature=3.0)
      ...     return jax.nn.sigmoid((rest - cut) / 0.5).sum(1).mean()
      >>> logits = jnp.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [0.5, 1.0, 0.0], [1.0, 0.0, 2.0]])
      >>> loss, gradient = jax.value_and_grad(size_loss)(logits, jnp.array([0, 1, 1, 2]))
      >>> print(f"{loss:.3f}", (jnp.abs(gradient).sum(1) > 0).tolist())
      1.042 [True, True, True, True]

      Gradients of a tree, clipped where the largest hundredth begins:

      >>> def clipped(gradients):
      ...     sizes = jnp.concatenate([jnp.abs(leaf).ravel() for leaf in jax.tree.leaves(gradients)])
      ...     most = quantile(sizes, 0.99)
      ...     return jax.tree.map(lambda leaf: jnp.clip(leaf, -most, most), gradients)
      >>> gradients = {"w": jnp.ones((30, 10)), "b": jnp.full(2, 100.0)}
      >>> print(clipped(gradients)["b"])
      [1. 1.]

    References:
      Stutz et al., `Learning Optimal Conformal Classifiers <https://arxiv.org/abs/2110.09192>`_, 2022; Hyndman, Fan,
      `Sample Quantiles in Statistical Packages <https://doi.org/10.2307/2684934>`_, 1996, whose definition 7 is
      "linear".
    """
    return _checked(values, q, axis, where, weights, method, keepdims, axis_name, temperature, most=1)


def percentile(
    values: Shaped[ArrayLike, "*shape"],
    q: Real[ArrayLike, "..."],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    method: str = "linear",
    keepdims: bool = False,
    axis_name: Any = None,
    temperature: Real[ArrayLike, "..."] = 0.0,
) -> Float[Array, "..."]:
    """The value below which `q` per cent of the entries lie: :func:`quantile` of `q / 100`, without a rounding.

    The rank `q (n - 1) / 100` is exact. A share could not always say it: no float is 29 hundredths, and the nearest is
    less. Floats lose such a rank: in JAX 0.7.1 and 0.10.2 the 100th `jnp.percentile` of 6 entries is not the largest.

    Args, returns and raises: as for :func:`quantile`, with `q` in [0, 100].

    Example:
      >>> print(percentile(jnp.arange(101), 29, method="lower"), quantile(jnp.arange(101), 0.29, method="lower"))
      29.0 28.0

      The returns of all devices, divided by the range of their middle nine tenths, averaged over the steps, as in
      DreamerV3:

      >>> @jax.jit
      ... def normalised(returns, scale):
      ...     low, high = percentile(returns, np.array([5, 95]))
      ...     scale = 0.99 * scale + 0.01 * (high - low)
      ...     return returns / jnp.maximum(1, scale), scale
      >>> mesh = jax.make_mesh((jax.device_count(),), ("batch",))
      >>> spread = jax.sharding.NamedSharding(mesh, PartitionSpec("batch"))
      >>> returns = jax.device_put(jnp.linspace(0, 1000, 16 * jax.device_count()), spread)
      >>> print(normalised(returns, scale=5.0)[1].round(2))
      13.95

    References:
      Hafner et al., `Mastering Diverse Domains through World Models <https://arxiv.org/abs/2301.04104>`_, 2023.
    """
    return _checked(values, q, axis, where, weights, method, keepdims, axis_name, temperature, most=100)


def median(
    values: Shaped[ArrayLike, "*shape"],
    *,
    axis: int | Sequence[int] | None = None,
    where: Bool[ArrayLike, "..."] | None = None,
    weights: Real[ArrayLike, "..."] | None = None,
    method: str = "linear",
    keepdims: bool = False,
    axis_name: Any = None,
    temperature: Real[ArrayLike, "..."] = 0.0,
) -> Float[Array, "..."]:
    """The value in the middle, or the mean of the two in the middle: :func:`quantile` at one half.

    Args, returns and raises: as for :func:`quantile`.

    Example:
      The median of each row of an image, leaving out the pixels that are missing:

      >>> rows = jnp.array([[1.0, 2.0, 99.0], [4.0, jnp.nan, 6.0]])
      >>> print(median(rows, axis=1, where=~jnp.isnan(rows)))
      [2. 5.]
    """
    return _checked(values, 0.5, axis, where, weights, method, keepdims, axis_name, temperature, most=1)


def _checked(
    values: Any,
    q: Any,
    axis: Any,
    where: Any,
    weights: Any,
    method: Any,
    keepdims: Any,
    axis_name: Any,
    temperature: Any,
    *,
    most: int,
) -> Array:
    """Refuse what is known to be wrong; then the quantiles of levels up to `most`."""
    dtype = dtype_of("values", values)
    if jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_:
        values = jnp.asarray(values, jnp.result_type(float))
    groups = groups_along(axis, values, axis_name, "values")
    check_entries("values", values, where, weights, groups)
    if not isinstance(keepdims, bool | np.bool_):
        raise TypeError(f"keepdims must be True or False, got {brief(keepdims)}")
    _check_level(q, most)
    check_temperature(temperature, zero=True)
    check_per_group("temperature", temperature, "values", values, groups)
    temperature = None if is_zero_temperature(temperature) else temperature
    _check_method(method, weights, temperature is not None)
    known = known_value(q)
    level = jnp.asarray(q) if known is None else exact_ranks.known_level(known)

    def of_groups(spec: PartitionSpec) -> PartitionSpec:
        kept = [None if axis in groups.axes else name for axis, name in enumerate(spec)]
        return PartitionSpec(*[None] * jnp.ndim(q), *(kept if keepdims else groups.without(spec)))

    settings = {"groups": groups, "method": method, "divisor": most, "keepdims": bool(keepdims)}
    return meshes.run(_quantiles, of_groups, values, level, where, weights, temperature, **settings)


def _check_level(q: Any, most: int) -> None:
    """Refuse levels that are known to be out of range."""
    check_real("q", q)
    known = known_value(q)
    if known is not None and not np.all((known >= 0) & (known <= most)):
        remedy = ""
        if most == 1 and np.all((known >= 0) & (known <= 100)):
            remedy = ": softbin.percentile takes percentages"
        raise ValueError(f"q must be in [0, {most}], got {show(q)}{remedy}")


def _check_method(method: Any, weights: Any, smooth: bool) -> None:
    """Refuse a method that there is not, or not with weights or a temperature."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {brief(method)}")
    if weights is not None and method != "inverted_cdf":
        raise ValueError(f'weights are only for method="inverted_cdf", got method {brief(method)}')
    if smooth and method != "linear":
        raise ValueError(f'a temperature is only for method="linear", got method {brief(method)}')


@partial(jax.jit, static_argnames=("groups", "method", "divisor", "keepdims"))
def _quantiles(
    values: Float[ArrayLike, "*shape"],
    level: Level | Real[Array, "..."],
    where: Bool[ArrayLike, "..."] | None,
    weights: Real[ArrayLike, "..."] | None,
    temperature: Real[ArrayLike, "..."] | None,
    *,
    groups: Groups,
    method: str,
    divisor: int,
    keepdims: bool,
) -> Float[Array, "..."]:
    """Of checked arguments; levels are known, or a real array of what is traced."""
    values = jnp.asarray(values)
    levels = level if isinstance(level, Level) else exact_ranks.traced_level(level, divisor)
    choice = prepare_choice(values if weights is None else -values, 1, groups, where, weights)

    def at(level: Level) -> Array:
        if temperature is not None:
            return quantiles.smooth(choice, level, temperature, divisor, groups)
        if weights is not None:
            return quantiles.of_weighted(choice, level, divisor, groups)
        return quantiles.of_entries(choice, level, method, divisor, groups)

    shape = jnp.shape(levels.valid)
    levels = jax.tree.map(lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[len(shape) :])), levels)
    found = jax.vmap(at)(levels) if 0 not in shape else jnp.zeros((0, *choice.k.shape))
    found = found.reshape(*shape, *found.shape[1:])
    if not keepdims:
        found = jnp.squeeze(found, [axis + len(shape) for axis in groups.axes])
    return found.astype(values.dtype)
