"""Sampling from long rows: top-k, top-p and min-p without a sort or a gather, and draws that no neighbour changes.

Logits may have any shape; the tokens of a vocabulary lie along `axis`, sharded or not, and all other axes are rows.
Each number (`k`, `p`, a temperature) is one for all rows or one for each row, traced or not, so that one program serves
a batch of different requests. One rule holds throughout: a token's logit decides whether it is kept, so equal logits
are kept together. With `ties="first"`, only as many of those at the edge are kept as are needed, the lower indices
first.

Work is in float32 for narrower logits. 0.0 and -0.0 are equal, and NaN poisons its own row. A token whose logit is
`-inf`, or for which `where` is false, is never kept. Infinite logits share all of the probability.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from softbin._engine import draws, meshes, truncations
from softbin._engine import logits as arguments
from softbin._engine.choices import with_derivative_of
from softbin._engine.groups import Groups
from softbin._engine.logits import Settings
from softbin._engine.thresholds import check_implementation
from softbin._records import documented

__all__ = [  # noqa: RUF022 (as the pages show them)
    "top_k_mask",
    "top_p_mask",
    "min_p_mask",
    "truncate",
    "Truncated",
    "sample",
    "Sampled",
]

Number = Real[ArrayLike, "..."]
"""A number for all rows, or an array of them that broadcasts to the shape of the logits without `axis`."""


def top_k_mask(
    logits: Float[ArrayLike, "*shape"],
    k: Number,
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    ties: str = "keep",
    axis_name: Any = None,
    implementation: str | None = None,
) -> Bool[Array, "*shape"]:
    """Which tokens are among the `k` most likely, where `k` may differ from row to row and may be traced.

    `jax.lax.top_k` needs a concrete `k`, and gathers a sharded vocabulary.

    Args:
      logits: floating point, any shape.
      k: how many, whole. 0 and -1 keep all, and so does the length of the vocabulary or more. A JAX array is rounded
        half to even.
      axis: the axis of the vocabulary.
      where: broadcasts to `logits`. Tokens where it is false may not be chosen, as under a grammar.
      ties: `"keep"` keeps all that equal the k-th, and so may keep more than `k`; `"first"` keeps exactly `k`, and of
        those that equal the k-th the lower indices.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split.
      implementation: as for :func:`softbin.kth_largest`.

    Returns:
      The mask: empty in a row without tokens, with NaN, or with a traced `k` that is less than -1 or NaN.

    Raises:
      TypeError: `logits` is not floating point, `where` is not boolean, `k` is not a number, or `axis` is not an
        integer.
      ValueError: a concrete `k` is less than -1 or not whole, `axis` or `ties` is unknown, or shapes do not fit.

    Example:
      >>> logits = jnp.array([[1.0, 3.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
      >>> print(top_k_mask(logits, jnp.array([2, 1])))
      [[False  True  True  True]
       [False False False  True]]
      >>> print(top_k_mask(logits[0], 2, ties="first"))
      [False  True  True False]
    """
    groups, settings = arguments.checked(logits, where, ties, axis, axis_name, k=k)
    options = {"first": ties == "first", "implementation": implementation}
    return _run(_mask, lambda spec: spec, logits, where, settings, groups, **options)


def top_p_mask(
    logits: Float[ArrayLike, "*shape"],
    p: Number,
    temperature: Number = 1.0,
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    ties: str = "keep",
    axis_name: Any = None,
    implementation: str | None = None,
) -> Bool[Array, "*shape"]:
    r"""The nucleus: the smallest set of the most likely tokens that together have at least the probability `p`.

    .. math::
        \{ i : x_i \ge v \}, \quad
        v = \max \{ v : \textstyle\sum_{i : x_i \ge v} e^{x_i / T} \ge p \sum_i e^{x_i / T} \}.

    So it contains at least one token, and if the most likely ones have exactly `p` together, it ends with them.

    It takes a few passes over the logits, each with an all-reduce of a few numbers a row where the vocabulary is
    sharded. Probabilities are compared as whole numbers, whose sums are exact in any order: the result is the same on
    every mesh. Apart from the rounding of each :math:`e^{x_i / T}` to float32, this moves a sum by at most
    :math:`2^{-25}` of the total, in vocabularies of up to 262,144 tokens. A `p` that close to the probability of a set
    may choose it or the next; otherwise the nucleus is exact.

    Args:
      logits, axis, where, axis_name, implementation: as for :func:`top_k_mask`.
      p: in (0, 1); 1 or more keeps all.
      temperature: what the logits are divided by. 0, or any number below 1e-5, keeps only the most likely token, of
        equal ones that with the lower index.
      ties: `"keep"` keeps all that equal the last token of the nucleus; `"first"` keeps exactly the smallest set, and
        of those that equal its last token the lower indices.

    Returns:
      The mask: empty in a row without tokens, with NaN, or with traced numbers out of range.

    Raises:
      TypeError, ValueError: as for :func:`top_k_mask`; also for a concrete `p` that is not positive, or a concrete
        temperature that is negative.

    Example:
      >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
      >>> print(top_p_mask(logits, 0.7))
      [ True  True False False]
      >>> print(top_p_mask(logits, 0.7, temperature=5.0))
      [ True  True  True False]

    References:
      Holtzman et al., `The Curious Case of Neural Text Degeneration`, arXiv:1904.09751.
    """
    groups, settings = arguments.checked(logits, where, ties, axis, axis_name, p=p, temperature=temperature)
    options = {"first": ties == "first", "implementation": implementation}
    return _run(_mask, lambda spec: spec, logits, where, settings, groups, **options)


def min_p_mask(
    logits: Float[ArrayLike, "*shape"],
    p: Number,
    temperature: Number = 1.0,
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    axis_name: Any = None,
) -> Bool[Array, "*shape"]:
    """Which tokens are at least `p` times as likely as the most likely one.

    Args:
      logits, axis, where, axis_name: as for :func:`top_k_mask`.
      p: in [0, 1]; 0 keeps all.
      temperature: as for :func:`top_p_mask`.

    Returns:
      The mask: empty in a row without tokens, with NaN, or with traced numbers out of range.

    Raises:
      TypeError, ValueError: as for :func:`top_k_mask`; also for a concrete `p` outside of [0, 1].

    Example:
      >>> print(min_p_mask(jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05])), 0.2))
      [ True  True  True False]

    References:
      Nguyen et al., `Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs`, arXiv:2407.01082.
    """
    groups, settings = arguments.checked(
        logits, where, "keep", axis, axis_name, least_is_p=True, min_p=p, temperature=temperature
    )
    return _run(_mask, lambda spec: spec, logits, where, settings, groups, first=False, implementation=None)


@documented
class Truncated(NamedTuple):
    """A truncated distribution.

    Attributes:
      logits: divided by the temperature; `-inf` for tokens that are not kept. In float32 at least.
      log_normalizer: the log-probabilities are `logits - log_normalizer`; without `axis`.
    """

    logits: Float[Array, "..."]
    log_normalizer: Float[Array, "..."]


def truncate(
    logits: Float[ArrayLike, "*shape"],
    *,
    temperature: Number = 1.0,
    top_k: Number | None = None,
    top_p: Number | None = None,
    min_p: Number | None = None,
    where: Bool[ArrayLike, "..."] | None = None,
    ties: str = "keep",
    temperature_last: bool = False,
    axis: int = -1,
    axis_name: Any = None,
    implementation: str | None = None,
) -> Truncated:
    """The distribution that a serving engine draws from: the logits of the tokens that are kept, over the temperature.

    The steps have the order of `transformers`: temperature; the `top_k` most likely; of these the nucleus of `top_p`,
    by the probabilities that they have among themselves; and of these what `min_p` keeps. None leaves out one of these
    three, and 1 the temperature. With `temperature_last` the tokens are chosen at temperature 1, and the kept logits
    are then divided by the temperature.

    ==================================== =================================================================
    temperature, top-k, top-p, min-p     `transformers`, tpu-inference (without min-p): the default
    top-k, top-p, min-p, temperature     llama.cpp, MaxText (without min-p), JetStream (one of top-k and top-p):
                                         `temperature_last=True`
    top-p, min-p, top-k, temperature     mlx-lm: each by all probabilities, so `temperature_last=True` with
                                         `where=top_p_mask(...)`, and `top_k` and `min_p`
    temperature, min-p, top-k, top-p     vLLM: `where=min_p_mask(logits, min_p, temperature)`, and the rest
    temperature, top-k and top-p, min-p  sglang, where both see all probabilities: `where=top_p_mask(logits, top_p,
                                         temperature)`, and the rest; with FlashInfer, where a request of the
                                         batch has a min-p, the default
    ==================================== =================================================================

    So it is in `transformers` 5.24, tpu-inference 0.32, llama.cpp as in llama-cpp-python 0.3.36, mlx-lm 0.32, vLLM 0.33
    and sglang 0.5.23. vLLM and `transformers` cut ties at the edge of the nucleus and keep them at that of the `top_k`,
    mlx-lm the other way round; here one rule holds for both. An exact hit of `top_p` ends the nucleus, as it does
    there; sglang's PyTorch backend and Tunix 0.1.7 keep one more.

    Args:
      logits, where, axis, axis_name, implementation: as for :func:`top_k_mask`.
      temperature: non-negative. 0, or any number below 1e-5, keeps only the most likely token, of equal ones that with
        the lower index; its logit is then not divided. tpu-inference marks greedy and empty rows by -1: for these pass
        `jnp.maximum(temperature, 0)`.
      top_k: as `k` of :func:`top_k_mask`.
      top_p: as `p` of :func:`top_p_mask`.
      min_p: as `p` of :func:`min_p_mask`.
      ties: as for the masks.
      temperature_last: whether tokens are chosen before the temperature applies.

    Returns:
      Logits and their log-normalizer; NaN in a row with NaN, or with traced numbers out of range. In a row without
      tokens all logits are `-inf` and the normalizer is 0. In a row with infinite logits, these become 0. The kept
      logits and the normalizer have a gradient; the choice of what is kept has none.

    Raises:
      TypeError, ValueError: as for the masks.

    Example:
      >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
      >>> kept, log_normalizer = truncate(logits, top_k=3, top_p=0.7)
      >>> print(jnp.round(100 * jnp.exp(kept - log_normalizer)))
      [62. 38.  0.  0.]
    """
    arguments.check_order(temperature_last)
    groups, settings = arguments.checked(
        logits, where, ties, axis, axis_name, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    options = {
        "first": ties == "first",
        "temperature_last": bool(temperature_last),
        "implementation": implementation,
    }
    return Truncated(
        *_run(_truncate, lambda spec: (spec, groups.sharding(spec)), logits, where, settings, groups, **options)
    )


@documented
class Sampled(NamedTuple):
    """Tokens that were drawn.

    Attributes:
      tokens: indices along the vocabulary, int32, without its axis; -1 where there is no token to draw.
      log_probabilities: those of the tokens in the distribution that they were drawn from.
    """

    tokens: Int[Array, "..."]
    log_probabilities: Float[Array, "..."]


def sample(
    key: Any,
    logits: Float[ArrayLike, "*shape"],
    *,
    temperature: Number = 1.0,
    top_k: Number | None = None,
    top_p: Number | None = None,
    min_p: Number | None = None,
    where: Bool[ArrayLike, "..."] | None = None,
    ties: str = "keep",
    temperature_last: bool = False,
    axis: int = -1,
    axis_name: Any = None,
    implementation: str | None = None,
) -> Sampled:
    """One token of each row, drawn from the distribution of :func:`truncate`, on one device or on many.

    It is the kept token with the largest sum of logit and Gumbel noise. A token's noise depends only on the key of its
    row and on its index. So a request draws the same tokens whoever shares its batch, however far the vocabulary is
    padded, and on however many devices it lies: these exchange a few numbers for each row, and no logits. The noise is
    in float32 at least; that of `jax.random.categorical` has only the digits of bfloat16 logits, and so has ties.

    That the noise depends on nothing else is due to JAX's defaults: its keys, and `jax_threefry_partitionable`.

    Who needs the logits too draws from them: `sample(key, truncate(logits, ...).logits)` gives the same tokens, and
    searches once. On one device, with a `top_k` that is small and fixed, draw from what :func:`softbin.top_k` leaves,
    as in the second example: of 8 x 151,936 logits with `top_k=50` that takes a sixth of the time on two CPU cores. The
    same key draws other tokens then, and of logits that tie at the edge some are left out.

    Args:
      key: from `jax.random.key` or `jax.random.PRNGKey`; or an array with one key for each row, of the shape of
        `logits` without `axis`. If there are rows and a single key, row `i` draws with `jax.random.fold_in(key, i)`.
      logits, temperature, top_k, top_p, min_p, where, ties, temperature_last, axis, axis_name, implementation: as for
        :func:`truncate`. Rows of temperature 0 take the most likely token.

    Returns:
      Tokens and their log-probabilities, which are 0 where only one token is left. In a row without tokens, -1 and
      `-inf`; in a row with NaN, or with traced numbers out of range, -1 and NaN. Without a gradient: for
      log-probabilities with one, use :func:`truncate`.

    Raises:
      TypeError, ValueError: as for :func:`truncate`; also if `key` is not a key, or has another shape.

    Example:
      >>> logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]]))
      >>> tokens, log_probabilities = sample(jax.random.key(0), logits, temperature=jnp.array([1.0, 0.0]), top_p=0.7)
      >>> print(tokens.shape, tokens[1], log_probabilities[1])
      (2,) 3 0.0

      >>> import softbin
      >>> best = softbin.top_k(logits, 3)
      >>> places, log_probabilities = sample(jax.random.key(0), best.values, top_p=0.7)
      >>> print(jnp.take_along_axis(best.indices, places[:, None], 1).shape)
      (2, 1)
    """
    arguments.check_order(temperature_last)
    groups, settings = arguments.checked(
        logits, where, ties, axis, axis_name, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    words, impl = arguments.key_words(key, logits, groups)
    options = {
        "first": ties == "first",
        "temperature_last": bool(temperature_last),
        "implementation": implementation,
        "impl": impl,
    }
    return Sampled(
        *_run(_sample, lambda spec: (groups.sharding(spec),) * 2, logits, where, settings, groups, words, **options)
    )


def _run(
    function: Any,
    out_spec: Any,
    logits: Any,
    where: Any,
    settings: Settings,
    groups: Groups,
    *rest: Any,
    **options: Any,
) -> Any:
    check_implementation(options["implementation"])
    options |= {"groups": groups, "greedy": arguments.may_be_greedy(settings)}
    return meshes.run(function, out_spec, logits, where, settings, *rest, **options)


@partial(jax.jit, static_argnames=("groups", "greedy", "first", "implementation"))
def _mask(
    logits: Any, where: Any, settings: Settings, *, groups: Groups, greedy: bool, first: bool, implementation: Any
) -> Array:
    scores, limits, _ = arguments.prepare(logits, where, settings, groups, greedy=greedy)
    how: dict[str, Any] = {"first": first, "implementation": implementation}
    (mask,), _ = truncations.truncate(scores, limits, groups, truncations.mask, ([bool], []), **how)
    return mask


@partial(jax.jit, static_argnames=("groups", "greedy", "first", "implementation", "temperature_last"))
def _truncate(
    logits: Any,
    where: Any,
    settings: Settings,
    *,
    groups: Groups,
    greedy: bool,
    first: bool,
    implementation: Any,
    temperature_last: bool,
) -> tuple[Array, Array]:
    scores, limits, temperature = arguments.prepare(
        logits, where, settings, groups, greedy=greedy, temperature_last=temperature_last
    )
    finish = partial(truncations.distribution, temperature=jax.lax.stop_gradient(temperature))
    how: dict[str, Any] = {"first": first, "implementation": implementation}
    kinds = [scores.dtype], [scores.dtype]
    (kept,), (normalizer,) = truncations.truncate(scores, limits, groups, finish, kinds, **how)
    if temperature is not None:
        scores = truncations.divided(scores, temperature)
    others = truncations.again(scores, kept, normalizer, groups)
    kept, normalizer = map(with_derivative_of, others, (kept, normalizer))
    return kept, jnp.squeeze(normalizer, groups.axes)


@partial(jax.jit, static_argnames=("groups", "greedy", "first", "implementation", "temperature_last", "impl"))
def _sample(
    logits: Any,
    where: Any,
    settings: Settings,
    words: Any,
    *,
    groups: Groups,
    greedy: bool,
    first: bool,
    implementation: Any,
    temperature_last: bool,
    impl: Any,
) -> tuple[Array, Array]:
    scores, limits, temperature = arguments.prepare(
        logits, where, settings, groups, greedy=greedy, temperature_last=temperature_last
    )
    noise = draws.gumbel(words, impl, scores.shape, groups, scores.dtype)
    finish = partial(truncations.draw, temperature=jax.lax.stop_gradient(temperature), noise=noise)
    how: dict[str, Any] = {"first": first, "implementation": implementation}
    kinds: tuple = [], [jnp.int32, scores.dtype]
    _, drawn = truncations.truncate(scores, limits, groups, finish, kinds, **how)
    tokens, log_probabilities = (jnp.squeeze(each, groups.axes) for each in drawn)
    return tokens, log_probabilities
