"""Sampling from long rows: top-k, top-p and min-p without a sort or a gather, and draws that no neighbour changes.

Logits may have any shape; the tokens of a vocabulary lie along `axis`, sharded or not, and all else are rows. Every
number (`k`, `p`, a temperature) is one for all rows or one for each, traced or not, so that one program serves a batch
of requests that differ. One rule is for all: a token is kept or not by its logit, so equal logits are kept together,
and `ties="first"` keeps of those at the edge as many as are needed, the lower indices first.

Work is in float32 for narrower logits. 0.0 and -0.0 are equal, and NaN poisons its own row. A token whose logit is
`-inf`, or for which `where` is false, is never kept. Infinite logits share all of the probability.
"""

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

Number = Real[ArrayLike, "..."]
"""One for all rows, or an array that broadcasts to the shape of the logits without `axis`."""


def top_k_mask(
    logits: Float[ArrayLike, "*shape"],
    k: Number,
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    ties: str = "keep",
    axis_name: Any = None,
) -> Bool[Array, "*shape"]:
    """Which tokens are among the `k` most likely, where `k` differs from row to row and is not known when compiling.

    `jax.lax.top_k` needs a `k` that is known, and gathers a vocabulary that is sharded.

    Args:
      logits: floating point, any shape.
      k: how many, whole; 0, and the length of the vocabulary or more, keep all. A JAX array is rounded half to even.
      axis: the axis of the vocabulary.
      where: broadcasts to `logits`. Tokens where it is false may not be chosen, as under a grammar.
      ties: `"keep"` keeps all that equal the k-th, and so may keep more than `k`; `"first"` keeps exactly `k`, of those
        that equal it the lower indices.
      axis_name: mapped axes (of `jax.shard_map` or `jax.vmap`) over which `axis` is split.

    Returns:
      The mask: empty in a row without tokens, with NaN, or with a traced `k` that is negative or NaN.

    Raises:
      TypeError: `logits` is not floating point, `where` is not boolean, `k` is no number, or `axis` no integer.
      ValueError: `k` is known and negative or not whole, there is no such axis, or shapes do not fit.

    Example:
      >>> logits = jnp.array([[1.0, 3.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
      >>> print(top_k_mask(logits, jnp.array([2, 1])))
      [[False  True  True  True]
       [False False False  True]]
      >>> print(top_k_mask(logits[0], 2, ties="first"))
      [False  True  True False]
    """
    groups, settings = arguments.checked(logits, where, ties, axis, axis_name, k=k)
    return _run(_mask, lambda spec: spec, logits, where, settings, groups, first=ties == "first")


def top_p_mask(
    logits: Float[ArrayLike, "*shape"],
    p: Number,
    temperature: Number = 1.0,
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    ties: str = "keep",
    axis_name: Any = None,
) -> Bool[Array, "*shape"]:
    r"""The nucleus: the smallest set of the most likely tokens that have at least the probability `p` together.

    .. math::
        \{ i : x_i \ge v \}, \quad
        v = \max \{ v : \textstyle\sum_{i : x_i \ge v} e^{x_i / T} \ge p \sum_i e^{x_i / T} \}.

    So it holds a token at least, and if some tokens have exactly `p` together, it ends with them.

    It takes a few passes over the logits, each with an all-reduce of a few numbers a row where the vocabulary is
    sharded. Probabilities are compared as whole numbers, whose sums are exact in any order: the result is the same on
    every mesh. Beside what float32 rounds of each :math:`e^{x_i / T}`, that moves a sum by at most :math:`2^{-25}` of
    all, in vocabularies of up to 262,144 tokens. A `p` that close to the probability of a set may choose it or the
    next; otherwise the nucleus is exact.

    Args:
      logits, axis, where, axis_name: as for :func:`top_k_mask`.
      p: in (0, 1); 1 or more keeps all.
      temperature: that the logits are divided by. 0, and what is below 1e-5, keeps the most likely token alone, of
        equal ones the lower index.
      ties: `"keep"` keeps all that equal the last token of the nucleus; `"first"` keeps exactly the smallest set, of
        those that equal it the lower indices.

    Returns:
      The mask: empty in a row without tokens, with NaN, or with traced numbers out of range.

    Raises:
      TypeError, ValueError: as :func:`top_k_mask`; where `p` is known and not positive, or the temperature negative.

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
    return _run(_mask, lambda spec: spec, logits, where, settings, groups, first=ties == "first")


def min_p_mask(
    logits: Float[ArrayLike, "*shape"],
    p: Number,
    temperature: Number = 1.0,
    *,
    axis: int = -1,
    where: Bool[ArrayLike, "..."] | None = None,
    axis_name: Any = None,
) -> Bool[Array, "*shape"]:
    """Which tokens have at least the share `p` of the probability of the most likely one.

    Args:
      logits, axis, where, axis_name: as for :func:`top_k_mask`.
      p: in [0, 1]; 0 keeps all.
      temperature: as for :func:`top_p_mask`.

    Returns:
      The mask: empty in a row without tokens, with NaN, or with traced numbers out of range.

    Raises:
      TypeError, ValueError: as :func:`top_k_mask`; where `p` is known and outside of [0, 1].

    Example:
      >>> print(min_p_mask(jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05])), 0.2))
      [ True  True  True False]

    References:
      Nguyen et al., `Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs`, arXiv:2407.01082.
    """
    groups, settings = arguments.checked(logits, where, "keep", axis, axis_name, min_p=p, temperature=temperature)
    return _run(_mask, lambda spec: spec, logits, where, settings, groups, first=False)


class Truncated(NamedTuple):
    """A truncated distribution.

    Attributes:
      logits: over the temperature; `-inf` for tokens that are not kept. In float32 where they were narrower.
      log_normalizer: so that the log-probabilities are `logits - log_normalizer`, without `axis`.
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
) -> Truncated:
    """The distribution that a serving engine draws from: logits over the temperature, of the tokens that are kept.

    The order is that of `transformers`: temperature; the `top_k` most likely; of these the nucleus of `top_p`, by the
    probabilities that they have among themselves; and of these what `min_p` keeps. None leaves out a step. With
    `temperature_last` the tokens are chosen at temperature 1, and what is kept is divided by the temperature.

    ==================================== =================================================================
    temperature, top-k, top-p, min-p     `transformers`, tpu-inference: the default
    top-k, top-p, min-p, temperature     llama.cpp, MaxText, JetStream: `temperature_last=True`
    top-p, min-p, top-k, temperature     mlx-lm: each by all probabilities, so `temperature_last=True` with
                                         `where=top_p_mask(...)`, and `top_k` and `min_p`
    temperature, min-p, top-k, top-p     vLLM: `where=min_p_mask(logits, min_p, temperature)`, and the rest
    temperature, top-k and top-p, min-p  sglang, where both see all probabilities: `where=top_p_mask(logits, top_p,
                                         temperature)`, and the rest
    ==================================== =================================================================

    vLLM and `transformers` cut ties at the edge of the nucleus and keep them at that of the `top_k`; here one rule is
    for both. An exact hit of `top_p` ends the nucleus, as it does there.

    Args:
      logits, where, axis, axis_name: as for :func:`top_k_mask`.
      temperature: non-negative. 0, and what is below 1e-5, keeps the most likely token alone, of equal ones the lower
        index; its logits are then not divided.
      top_k: as `k` of :func:`top_k_mask`.
      top_p: as `p` of :func:`top_p_mask`.
      min_p: as `p` of :func:`min_p_mask`.
      ties: as for the masks.
      temperature_last: whether tokens are chosen by the logits as they are.

    Returns:
      Logits and their log-normalizer, NaN in a row with NaN, or with traced numbers out of range. In a row without
      tokens all logits are `-inf` and the normalizer is 0; where there are infinite logits, these are 0.

    Logits that are kept have a gradient, and so has the normalizer; which are kept has none.

    Raises:
      TypeError, ValueError: as for the masks.

    Example:
      >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
      >>> kept, log_normalizer = truncate(logits, top_k=3, top_p=0.7)
      >>> print(jnp.round(100 * jnp.exp(kept - log_normalizer)))
      [62. 38.  0.  0.]
    """
    groups, settings = arguments.checked(
        logits, where, ties, axis, axis_name, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    options = {"first": ties == "first", "temperature_last": temperature_last}
    return Truncated(
        *_run(_truncate, lambda spec: (spec, groups.sharding(spec)), logits, where, settings, groups, **options)
    )


class Sampled(NamedTuple):
    """Tokens that were drawn.

    Attributes:
      tokens: their indices along the vocabulary, int32, without its axis; -1 where there is none.
      log_probabilities: in the distribution that they were drawn from.
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
) -> Sampled:
    """A token of each row, drawn from the distribution of :func:`truncate`, on one device or on many.

    It is the kept token with the largest sum of logit and Gumbel noise. A token's noise depends on the key of its row
    and on its index alone. So a request draws the same tokens whoever shares its batch, however far the vocabulary is
    padded, and on however many devices it lies: these exchange a few numbers for each row, and no logits. Noise is in
    float32 whatever the logits are; that of `jax.random.categorical` has the digits of bfloat16 logits, and ties.

    That random bits are those of their places is JAX's default, `jax_threefry_partitionable`, of its default keys.

    Args:
      key: of `jax.random.key`, or of `jax.random.PRNGKey`; or one for each row, of the shape of `logits` without
        `axis`. Where there are rows, one key stands for `jax.random.fold_in(key, i)` of the i-th.
      logits, temperature, top_k, top_p, min_p, where, ties, temperature_last, axis, axis_name: as for :func:`truncate`.
        Rows of temperature 0 take the most likely token.

    Returns:
      Tokens and their log-probabilities, 0 where a token is the only one. In a row without tokens -1 and `-inf`; -1 and
      NaN in a row with NaN, or with traced numbers out of range. Without a gradient: that of a log-probability is that
      of :func:`truncate`.

    Raises:
      TypeError, ValueError: as for :func:`truncate`; for a key that is none, or of another shape.

    Example:
      >>> logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]]))
      >>> tokens, log_probabilities = sample(jax.random.key(0), logits, temperature=jnp.array([1.0, 0.0]), top_p=0.7)
      >>> print(tokens.shape, tokens[1], log_probabilities[1])
      (2,) 3 0.0
    """
    groups, settings = arguments.checked(
        logits, where, ties, axis, axis_name, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    words, impl = arguments.key_words(key, logits, groups)
    options = {"first": ties == "first", "temperature_last": temperature_last, "impl": impl}
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
    options |= {"groups": groups, "greedy": arguments.may_be_greedy(settings)}
    return meshes.run(function, out_spec, logits, where, settings, *rest, **options)


@partial(jax.jit, static_argnames=("groups", "greedy", "first"))
def _mask(logits: Any, where: Any, settings: Settings, *, groups: Groups, greedy: bool, first: bool) -> Array:
    scores, limits, _ = arguments.prepare(logits, where, settings, groups, greedy=greedy)
    (mask,), _ = truncations.truncate(scores, limits, groups, truncations.mask, ([bool], []), first=first)
    return mask


@partial(jax.jit, static_argnames=("groups", "greedy", "first", "temperature_last"))
def _truncate(
    logits: Any,
    where: Any,
    settings: Settings,
    *,
    groups: Groups,
    greedy: bool,
    first: bool,
    temperature_last: bool,
) -> tuple[Array, Array]:
    scores, limits, temperature = arguments.prepare(
        logits, where, settings, groups, greedy=greedy, temperature_last=temperature_last
    )
    finish = partial(truncations.distribution, temperature=jax.lax.stop_gradient(temperature))
    kinds = [scores.dtype], [scores.dtype]
    (kept,), (normalizer,) = truncations.truncate(scores, limits, groups, finish, kinds, first=first)
    if temperature is not None:
        scores = truncations.divided(scores, temperature)
    others = truncations.again(scores, kept, normalizer, groups)
    kept, normalizer = map(with_derivative_of, others, (kept, normalizer))
    return kept, jnp.squeeze(normalizer, groups.axes)


@partial(jax.jit, static_argnames=("groups", "greedy", "first", "temperature_last", "impl"))
def _sample(
    logits: Any,
    where: Any,
    settings: Settings,
    words: Any,
    *,
    groups: Groups,
    greedy: bool,
    first: bool,
    temperature_last: bool,
    impl: Any,
) -> tuple[Array, Array]:
    scores, limits, temperature = arguments.prepare(
        logits, where, settings, groups, greedy=greedy, temperature_last=temperature_last
    )
    noise = draws.gumbel(words, impl, scores.shape, groups, scores.dtype)
    finish = partial(truncations.draw, temperature=jax.lax.stop_gradient(temperature), noise=noise)
    kinds: tuple = [], [jnp.int32, scores.dtype]
    _, drawn = truncations.truncate(scores, limits, groups, finish, kinds, first=first)
    tokens, log_probabilities = (jnp.squeeze(each, groups.axes) for each in drawn)
    return tokens, log_probabilities
