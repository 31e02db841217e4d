"""Programs whose compilation `softbin-bench` measures: by softbin, Optax, `lax.top_k`, a bisection and others."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

import softbin
from softbin import sampling
from softbin.experiments.benchmark import bisection, long_rows, peers, sorting

CROSS_ENTROPY = "optax cross-entropy"
TOP_K = "jax.lax.top_k"
TOP_K_SOFTMAX = "jax.lax.top_k, softmax, gradient"
TWELVE_TOP_K = "12 x jax.lax.top_k, softmax, gradient"
TWELVE_SHAPES_TOP_K = f"{TWELVE_TOP_K}, 12 shapes"
BISECTION = "bisection of bits"
BISECTION_K, BISECTION_P = f"{BISECTION}, top-k", f"{BISECTION}, top-p"
BISECTION_BOTH, BISECTION_SAMPLE = f"{BISECTION}, top-k and top-p", f"{BISECTION}, sample"
BISECTION_QUANTILE = f"{BISECTION}, quantile of 2^22"
FIRST_CROSS_ENTROPY = "first call of optax cross-entropy, gradient"

_EXAMPLES, _CLASSES = 8192, 10
_SELECTED = 2
_TEMPERATURE = 1.5  # of jaxopt's loss; the default of softbin.loss


class Compiled(NamedTuple):
    """A program that is compiled, and with what its time is compared."""

    function: Callable[..., Any]
    arguments: tuple[jax.ShapeDtypeStruct, ...]
    top_k: str | None = None  # the hard choice beside it
    cross_entropy: str = CROSS_ENTROPY
    first_call: bool = False  # outside `jax.jit`, of arrays of zeros
    needs: tuple[str, ...] = ()  # optional packages
    bisection: str | None = None  # that of bits beside it


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


_LOGITS = _floats(_EXAMPLES, _CLASSES)
_LABELS = jax.ShapeDtypeStruct((_EXAMPLES,), jnp.int32)
_MASK = jax.ShapeDtypeStruct((_EXAMPLES,), jnp.bool_)
_VALUES = _floats(_EXAMPLES * _CLASSES)
_VOCABULARY = _floats(8, 151_936)
_HALF = _EXAMPLES // 2
_K = jax.ShapeDtypeStruct((), jnp.int32)
_K_OF_ROWS, _P_OF_ROWS = jax.ShapeDtypeStruct(_VOCABULARY.shape[:1], jnp.int32), _floats(_VOCABULARY.shape[0])
_MANY_VALUES, _LEVEL = _floats(2**22), _floats()


def _cross_entropy(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _box_section_loss(logits: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    y = peers.box_section(logits.T / _TEMPERATURE, len(logits) / 2).T
    return jnp.mean(jnp.sum(optax.l2_loss(y, jax.nn.one_hot(labels, logits.shape[1])), 1))


def _top_k_softmax(scores: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """A router's gates: the softmax of the largest scores, scattered into zeros."""
    values, indices = jax.lax.top_k(scores, _SELECTED)
    return jnp.zeros_like(scores).at[jnp.arange(len(scores))[:, None], indices].set(jax.nn.softmax(values))


def _loss(function: Callable[..., Any], *more: jax.ShapeDtypeStruct, needs: tuple[str, ...] = ()) -> Compiled:
    """Value and gradient of `function(logits, labels, *more)`."""
    return Compiled(jax.value_and_grad(function), (_LOGITS, _LABELS, *more), needs=needs)


def _selection(
    select: Callable[[Any], Any], scores: jax.ShapeDtypeStruct = _LOGITS, needs: tuple[str, ...] = ()
) -> Compiled:
    """A soft selection and the gradient of the sum of its squares."""
    return Compiled(jax.value_and_grad(lambda x: jnp.sum(select(x) ** 2)), (scores,), TOP_K_SOFTMAX, needs=needs)


def _twelve(select: Callable[[Any], Any], differ: bool = False) -> Compiled:
    """The same of twelve selections of rows of 8, as of the layers of a network of experts.

    XLA compiles a kernel once where several are the same. None are where the numbers of rows `differ`.
    """

    def squares(*scores):
        return sum(jnp.sum(select(each) ** 2) for each in scores)

    arguments = tuple(_floats(1024 + differ * i, 8) for i in range(12))
    return Compiled(jax.value_and_grad(squares, range(12)), arguments, TWELVE_SHAPES_TOP_K if differ else TWELVE_TOP_K)


def _choice(function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct) -> Compiled:
    """A hard choice or a mean of it, as it is."""
    return Compiled(function, arguments, TOP_K)


def _by_rows(function: Callable[..., Any], beside: str, *parameters: jax.ShapeDtypeStruct) -> Compiled:
    """A mask or its like of eight rows of a vocabulary, with traced parameters for each."""
    return Compiled(function, (_VOCABULARY, *parameters), TOP_K, bisection=beside)


def _sampled(sample: Callable[..., Any]) -> Compiled:
    """A token of each row, `(key, logits, k, p) -> tokens and log-probabilities`."""
    return _by_rows(
        lambda logits, k, p, seed: sample(jax.random.key(seed), logits, k, p),
        BISECTION_SAMPLE,
        _K_OF_ROWS,
        _P_OF_ROWS,
        _K,
    )


def _quantile(quantile: Callable[..., Any], level: jax.ShapeDtypeStruct = _LEVEL) -> Compiled:
    return Compiled(quantile, (_MANY_VALUES, level), TOP_K, bisection=BISECTION_QUANTILE)


def _by_softbin(key: Array, logits: Float[Array, "n c"], k: Int[Array, " n"], p: Float[Array, " n"]) -> Any:
    return sampling.sample(key, logits, top_k=k, top_p=p)


def _by_categorical(truncate: Callable[..., Any]) -> Callable[..., Any]:
    """A token of what is left of the logits, and its log-probability among that."""

    def sample(key: Array, logits: Float[Array, "n c"], k: Int[Array, " n"], p: Float[Array, " n"]) -> Any:
        left = truncate(logits, k, p)
        tokens = jax.random.categorical(key, left)
        return tokens, jnp.take_along_axis(left, tokens[:, None], 1)[:, 0] - jax.nn.logsumexp(left, 1)

    return sample


def _first_call(function: Callable[..., Any]) -> Compiled:
    return Compiled(function, (_LOGITS, _LABELS), cross_entropy=FIRST_CROSS_ENTROPY, first_call=True)


_soft = partial(softbin.soft_binary_argmax, k=_SELECTED)
_by_entropy = partial(_soft, regularizer=softbin.binary_entropy)
_straight_through = partial(_soft, straight_through=True)

PROGRAMS: Mapping[str, Compiled] = {
    CROSS_ENTROPY: _loss(_cross_entropy),
    "softbin.loss": _loss(softbin.loss),
    "softbin.loss, label counts": _loss(partial(softbin.loss, budget=softbin.budgets.label_count)),
    "softbin.loss, weights": _loss(lambda *batch: softbin.loss(*batch[:2], weights=batch[2]), _floats(_EXAMPLES)),
    "softbin.loss, mask": _loss(lambda *batch: softbin.loss(*batch[:2], where=batch[2]), _MASK),
    "softbin.fenchel_young_loss": _loss(softbin.fenchel_young_loss),
    "jaxopt projection_box_section, loss": _loss(_box_section_loss, needs=("jaxopt",)),
    TOP_K_SOFTMAX: _selection(_top_k_softmax),
    "softbin.soft_binary_argmax, rows of 10": _selection(_soft),
    "softbin.soft_binary_argmax, rows of 10, entropy": _selection(_by_entropy),
    "softbin.soft_binary_argmax, rows of 1,000": _selection(_soft, _floats(1024, 1000)),
    "softbin.soft_binary_argmax, columns": _selection(partial(softbin.soft_binary_argmax, k=_HALF, axis=0)),
    "jaxopt projection_box_section, rows of 10": _selection(partial(peers.box_section, k=_SELECTED), needs=("jaxopt",)),
    "softjax top_k, softsort, rows of 10": _selection(
        partial(peers.softsort, k=_SELECTED, temperature=1.0), needs=("softjax",)
    ),
    TOP_K: _choice(partial(jax.lax.top_k, k=_SELECTED), _LOGITS),
    "jax.numpy.sort": _choice(jnp.sort, _LOGITS),
    "softbin.binary_argmax, columns": _choice(partial(softbin.binary_argmax, k=_HALF, axis=0), _LOGITS),
    "softbin.kth_largest, columns": _choice(partial(softbin.kth_largest, k=_HALF, axis=0), _LOGITS),
    "softbin.kth_largest, columns, traced k": _choice(partial(softbin.kth_largest, axis=0), _LOGITS, _K),
    "softbin.kth_largest, weights, rows of 151,936": _choice(
        lambda scores, weights: softbin.kth_largest(scores, 0.9, weights=weights), _VOCABULARY, _VOCABULARY
    ),
    "softbin.top_k_mean": _choice(jax.value_and_grad(partial(softbin.top_k_mean, k=_EXAMPLES)), _VALUES),
    "softbin.top_k_mean, temperature 1": _choice(
        jax.value_and_grad(partial(softbin.top_k_mean, k=_EXAMPLES, temperature=1.0)), _VALUES
    ),
    "softbin.routing.quantile_bias, 10 experts": _choice(
        partial(softbin.routing.quantile_bias, k=_SELECTED), _LOGITS, _floats(_CLASSES)
    ),
    BISECTION_K: _by_rows(bisection.top_k_mask, BISECTION_K, _K_OF_ROWS),
    "jax.numpy.sort, top-k": _by_rows(sorting.top_k_mask, BISECTION_K, _K_OF_ROWS),
    "softbin.sampling.top_k_mask": _by_rows(sampling.top_k_mask, BISECTION_K, _K_OF_ROWS),
    BISECTION_P: _by_rows(bisection.top_p_mask, BISECTION_P, _P_OF_ROWS),
    "sort and cumulative sum, top-p": _by_rows(sorting.top_p_mask, BISECTION_P, _P_OF_ROWS),
    "softbin.sampling.top_p_mask": _by_rows(sampling.top_p_mask, BISECTION_P, _P_OF_ROWS),
    BISECTION_BOTH: _by_rows(bisection.truncate, BISECTION_BOTH, _K_OF_ROWS, _P_OF_ROWS),
    "sort and cumulative sum, top-k and top-p": _by_rows(sorting.truncate, BISECTION_BOTH, _K_OF_ROWS, _P_OF_ROWS),
    "softbin.sampling.truncate, top-k and top-p": _by_rows(
        long_rows.softbin_truncate, BISECTION_BOTH, _K_OF_ROWS, _P_OF_ROWS
    ),
    BISECTION_SAMPLE: _sampled(_by_categorical(bisection.truncate)),
    "sort and cumulative sum, sample": _sampled(_by_categorical(sorting.truncate)),
    "softbin.sampling.sample": _sampled(_by_softbin),
    BISECTION_QUANTILE: _quantile(bisection.quantile),
    "jax.numpy.quantile of 2^22": _quantile(jnp.quantile),
    "softbin.quantile of 2^22": _quantile(softbin.quantile),
    "softbin.quantile of 2^22, three levels": _quantile(softbin.quantile, _floats(3)),
    TWELVE_TOP_K: _twelve(_top_k_softmax),
    "12 x softbin.soft_binary_argmax": _twelve(_soft),
    "12 x softbin.soft_binary_argmax, straight-through": _twelve(_straight_through),
    "12 x softbin.soft_binary_argmax, entropy": _twelve(_by_entropy),
    TWELVE_SHAPES_TOP_K: _twelve(_top_k_softmax, differ=True),
    "12 x softbin.soft_binary_argmax, 12 shapes": _twelve(_soft, differ=True),
    FIRST_CROSS_ENTROPY: _first_call(jax.value_and_grad(_cross_entropy)),
    "first call of softbin.loss, gradient": _first_call(jax.value_and_grad(softbin.loss)),
    "first call of softbin.diagnose": _first_call(softbin.diagnose),
}
"""By the names that tables have."""


def installed(names: Iterable[str]) -> tuple[str, ...]:
    """Those of some programs whose packages can be imported."""
    return tuple(name for name in names if not peers.missing(PROGRAMS[name].needs))
