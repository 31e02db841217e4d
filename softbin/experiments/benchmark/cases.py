"""What `softbin-bench` compares: each implementation, made ready for one batch."""

import statistics
import time
import timeit
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import expit

import softbin
from softbin._engine.kernels.on_chip import LONGEST
from softbin.experiments.benchmark import long_rows, peers
from softbin.experiments.benchmark.inputs import INPUTS
from softbin.experiments.benchmark.lapsum import lapsum
from softbin.experiments.benchmark.numpy_projections import (
    exact_choice,
    exact_projection,
    isotonic_projection,
    laplace_link,
)
from softbin.experiments.benchmark.problems import Batch, Errors, Implementation, Program, Size, without_gradient

TEMPERATURE = 1.5  # of the squared losses; the default of softbin.loss
SELECTION_TEMPERATURE = 0.1
SELECTED = 8  # entries of each example, or a quarter of them where that is less

_CHECKED_GROUPS = 16

Exact = Callable[[np.ndarray, float], np.ndarray]
"""`(point, k) -> y` in float64."""


def make_batch(size: Size) -> Batch:
    """The same batch for every implementation and every run."""
    rng = np.random.default_rng(0)
    logits = INPUTS[size.inputs](rng, (size.n, size.classes))
    labels = rng.integers(2, size=(size.n, 1)) if size.classes == 1 else rng.integers(size.classes, size=size.n)
    return Batch(jnp.asarray(logits), jnp.asarray(labels, jnp.int32))


def missing_packages(implementation: Implementation) -> list[str]:
    """The optional packages of an implementation that cannot be imported."""
    return peers.missing(implementation.needs)


def errors(logits, y, k: np.ndarray, temperature: float, exact: Exact | None = exact_projection) -> Errors:
    """The errors of a projection along the first axis; those of entries in 16 groups, where there are more."""
    logits, y = np.asarray(logits), np.asarray(y)
    total = float(np.abs(y.sum(0, dtype=np.float64) - k).max())
    if exact is None:
        return Errors(None, total)
    groups = np.unique(np.linspace(0, logits.shape[1] - 1, _CHECKED_GROUPS).astype(int))
    solutions = {c: exact(logits[:, c] / np.float64(temperature), float(k[c])) for c in groups}
    return Errors(float(max(np.abs(y[:, c] - solutions[c]).max() for c in groups)), total)


def _half(batch: Batch) -> np.ndarray:
    n, classes = batch.logits.shape
    return np.full(classes, n / 2)


def _label_counts(batch: Batch) -> np.ndarray:
    labels = np.asarray(batch.labels)
    return labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=batch.logits.shape[1])


def _targets(labels, classes: int):
    return labels.astype(jnp.float32) if labels.ndim == 2 else jax.nn.one_hot(labels, classes)


def _squared_error(scores, labels):
    return jnp.mean(jnp.sum(optax.l2_loss(scores, _targets(labels, scores.shape[1])), 1))


def cross_entropy(logits, labels):
    """Optax' mean cross-entropy of a batch: of a softmax, or of a single class."""
    if logits.shape[1] == 1:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _compiled(function, errors_of: Callable[[Batch], Errors] | None = None) -> Callable[[Batch], Program]:
    """An implementation in JAX, from `(logits, labels) -> scalar`."""

    def build(batch: Batch) -> Program:
        start = time.perf_counter()
        forward_backward = jax.jit(jax.value_and_grad(function)).lower(*batch).compile()
        compile_s = time.perf_counter() - start
        forward = jax.jit(function).lower(*batch).compile()
        memory = forward_backward.memory_analysis()
        return Program(
            forward=lambda: jax.block_until_ready(forward(*batch)),
            forward_backward=lambda: jax.block_until_ready(forward_backward(*batch)),
            errors=errors_of and partial(errors_of, batch),
            compile_s=compile_s,
            temporary_bytes=memory.temp_size_in_bytes if memory else None,
        )

    return build


def _softbin(function, k: Callable[[Batch], np.ndarray], temperature: float, **keywords) -> Callable[[Batch], Program]:
    """A loss of ours and its projection; keywords go to both."""
    project = jax.jit(partial(softbin.soft_binary_argmax, axis=0, **keywords))

    def errors_of(batch: Batch) -> Errors:
        budget = k(batch)
        return errors(batch.logits, project(batch.logits, budget, temperature), budget, temperature)

    return _compiled(partial(function, **keywords), errors_of)


def _jaxopt(batch: Batch) -> Program:
    """By rows of the transpose: mapped over columns it is much slower."""

    def project(logits):
        return peers.box_section(logits.T / TEMPERATURE, len(logits) / 2).T

    def errors_of(batch: Batch) -> Errors:
        return errors(batch.logits, jax.jit(project)(batch.logits), _half(batch), TEMPERATURE)

    return _compiled(lambda logits, labels: _squared_error(project(logits), labels), errors_of)(batch)


def _isotonic(batch: Batch) -> Program:
    logits, labels = np.asarray(batch.logits), np.asarray(batch.labels)
    n, classes = logits.shape

    def project():
        columns = [isotonic_projection(scores / np.float64(TEMPERATURE), n // 2) for scores in logits.T]
        return np.stack([y for y, _ in columns], 1), [transposed_jacobian for _, transposed_jacobian in columns]

    def forward():
        y, transposed_jacobians = project()
        residual = y - (labels if labels.ndim == 2 else labels[:, None] == np.arange(classes))
        return np.sum(residual**2) / (2 * n), residual, transposed_jacobians

    def forward_backward():
        value, residual, transposed_jacobians = forward()
        columns = [pull_back(column) for pull_back, column in zip(transposed_jacobians, residual.T, strict=True)]
        return value, np.stack(columns, 1) / (n * TEMPERATURE)

    return Program(
        forward=lambda: forward()[0],
        forward_backward=forward_backward,
        errors=lambda: errors(logits, project()[0], _half(batch), TEMPERATURE),
        device="cpu",
    )


@cache
def _torch_and_entmax() -> tuple[Any, Any]:
    """On all threads or on one, whatever is faster: OpenMP's threads stall where other work shares the cores."""
    torch, entmax = peers.load("torch"), peers.load("entmax")
    logits = torch.randn(10, 8192)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        return statistics.median(timeit.repeat(lambda: entmax.budget_bisect(logits, 4096, -1), number=1, repeat=7))

    torch.set_num_threads(min(torch.get_num_threads(), 1, key=seconds))
    return torch, entmax


def _entmax(batch: Batch) -> Program:
    """Along the contiguous rows of the transpose, which is faster than along columns."""
    torch, entmax = _torch_and_entmax()
    logits, labels = _tensors(batch)
    n, classes = logits.shape

    def project():
        return entmax.budget_bisect(logits.T.contiguous() / TEMPERATURE, n / 2, -1).T

    def loss():
        targets = labels if labels.ndim == 2 else torch.nn.functional.one_hot(labels.long(), classes)
        return torch.sum((project() - targets) ** 2) / (2 * n)

    def errors_of() -> Errors:
        return errors(batch.logits, project().detach().cpu(), _half(batch), TEMPERATURE)

    return _in_torch(logits, loss, errors_of)


def _entmax_selection(batch: Batch) -> Program:
    torch, entmax = _torch_and_entmax()
    scores, _ = _tensors(batch)

    def select():
        return entmax.budget_bisect(scores / SELECTION_TEMPERATURE, _selected(scores), -1)

    def errors_of() -> Errors:
        return _selection_errors(batch, select().detach().cpu(), exact_projection)

    return _in_torch(scores, lambda: torch.sum(select() ** 2), errors_of)


def _tensors(batch: Batch) -> tuple[Any, Any]:
    """On the device of JAX, where torch has it; the logits require a gradient."""
    torch, _ = _torch_and_entmax()
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    logits, labels = (torch.tensor(np.asarray(array), device=device) for array in batch)
    return logits.requires_grad_(), labels


def _in_torch(logits, loss: Callable[[], Any], errors_of: Callable[[], Errors]) -> Program:
    torch, _ = _torch_and_entmax()

    def forward():
        with torch.no_grad():
            return loss().item()

    def forward_backward():
        logits.grad = None
        value = loss()
        value.backward()
        return value.item(), logits.grad  # item() waits for the device

    return Program(
        forward=forward,
        forward_backward=forward_backward,
        errors=errors_of,
        device=logits.device.type,
    )


def _copy(batch: Batch) -> Program:
    """Reads the logits and writes as many bytes, as a gradient must."""
    copy = jax.jit(lambda logits: logits + 1).lower(batch.logits).compile()
    return Program(forward=None, forward_backward=lambda: jax.block_until_ready(copy(batch.logits)))


def _selected(scores) -> int:
    return min(SELECTED, scores.shape[-1] // 4)


def _selection(select, exact: Exact | None = None) -> Callable[[Batch], Program]:
    """The sum of squares of a selection, `(scores, k) -> y`; without `exact`, errors of its sums alone."""

    @jax.jit
    def selection(scores):
        return select(scores, _selected(scores))

    def errors_of(batch: Batch) -> Errors:
        return _selection_errors(batch, selection(batch.logits), exact)

    return _compiled(lambda scores, labels: jnp.sum(selection(scores) ** 2), errors_of)


def _selection_errors(batch: Batch, y, exact: Exact | None) -> Errors:
    k = np.full(len(y), _selected(y))
    return errors(batch.logits.T, np.asarray(y).T, k, SELECTION_TEMPERATURE, exact)


def _softbin_selection(exact: Exact = exact_projection, **keywords) -> Callable[[Batch], Program]:
    return _selection(partial(softbin.soft_binary_argmax, temperature=SELECTION_TEMPERATURE, **keywords), exact)


def _ott(scores, k: int):
    """Entropic transport of scores to 0 and 1, the choice by `softbin.binary_entropy` at half of its temperature.

    Differentiated step by step: the implicit derivative, its default, fails in float32.
    """
    keywords = {"epsilon": 2 * SELECTION_TEMPERATURE, "squashing_fun": lambda x: x, "implicit_diff": None}
    return peers.load("ott.tools.soft_sort").topk_mask(scores, k=k, **keywords)


def _top_k(scores, labels):
    return jnp.sum(jax.lax.top_k(scores, _selected(scores))[0] ** 2)


def _few(n: int) -> int:
    """How many of a row of so many entries a hard choice takes."""
    return max(n // 32, 1)


def _hard(choose) -> Callable[[Batch], Program]:
    """A hard choice along the last axis, `(scores, k) -> arrays`: without a gradient, as a choice has none."""
    return _chosen(lambda scores: choose(scores, _few(scores.shape[-1])))


def _hard_by_columns(choose) -> Callable[[Batch], Program]:
    """A hard choice along the first axis."""
    return _chosen(lambda scores: choose(scores, len(scores) // 16))


def _chosen(function) -> Callable[[Batch], Program]:
    return lambda batch: without_gradient(function, batch.logits)


def _trimmed(mean) -> Callable[[Batch], Program]:
    """The mean of the smaller half, by `(values, k) -> mean`."""
    return _compiled(lambda logits, labels: mean(jnp.ravel(logits), logits.size // 2))


_exact_laplace = partial(exact_choice, laplace_link)
_exact_entropy = partial(exact_choice, expit)
_label_count_loss = partial(softbin.loss, budget=softbin.budgets.label_count)

IMPLEMENTATIONS: Mapping[str, Mapping[str, Implementation]] = {
    "loss": {
        "softbin.loss": Implementation(_softbin(softbin.loss, _half, TEMPERATURE)),
        "softbin.loss, label counts": Implementation(_softbin(_label_count_loss, _label_counts, TEMPERATURE)),
        "softbin.fenchel_young_loss": Implementation(_softbin(softbin.fenchel_young_loss, _label_counts, 1.0)),
        "softbin.loss, pallas": Implementation(
            _softbin(softbin.loss, _half, TEMPERATURE, implementation="pallas"), on_chip=True
        ),
        "optax cross-entropy": Implementation(_compiled(cross_entropy)),
        "optax squared error": Implementation(_compiled(_squared_error)),
        "copy": Implementation(_copy),
        "jaxopt projection_box_section": Implementation(_jaxopt, ("jaxopt",), may_be_slow=True),
        "scipy sort + isotonic_regression": Implementation(_isotonic, may_be_slow=True),
        "entmax budget_bisect": Implementation(_entmax, ("torch", "entmax"), may_be_slow=True),
    },
    "selection": {
        "softbin.soft_binary_argmax": Implementation(_softbin_selection()),
        "softbin.soft_binary_argmax, laplace": Implementation(
            _softbin_selection(_exact_laplace, regularizer=softbin.laplace)
        ),
        "softbin.soft_binary_argmax, entropy": Implementation(
            _softbin_selection(_exact_entropy, regularizer=softbin.binary_entropy)
        ),
        "softbin.soft_binary_argmax, pallas": Implementation(_softbin_selection(implementation="pallas"), on_chip=True),
        "jax.lax.top_k": Implementation(_compiled(_top_k)),
        "entmax budget_bisect": Implementation(_entmax_selection, ("torch", "entmax"), may_be_slow=True),
        "LapSum": Implementation(
            _selection(lambda scores, k: lapsum(scores / SELECTION_TEMPERATURE, k), _exact_laplace), may_be_slow=True
        ),
        "ott-jax topk_mask": Implementation(_selection(_ott, _exact_entropy), ("ott",), may_be_slow=True),
        "softjax top_k, softsort": Implementation(
            _selection(partial(peers.softsort, temperature=SELECTION_TEMPERATURE)), ("softjax",), may_be_slow=True
        ),
    },
    "hard choice": {
        "softbin.kth_largest": Implementation(_hard(softbin.kth_largest)),
        "softbin.binary_argmax": Implementation(_hard(softbin.binary_argmax)),
        "jax.lax.top_k": Implementation(_hard(jax.lax.top_k)),
        "jax.numpy.partition": Implementation(
            _hard(lambda scores, k: jnp.partition(scores, scores.shape[-1] - k)), may_be_slow=True
        ),
        "jax.numpy.sort": Implementation(_hard(lambda scores, k: jnp.sort(scores)), may_be_slow=True),
    },
    "hard choice by columns": {
        "softbin.kth_largest": Implementation(_hard_by_columns(partial(softbin.kth_largest, axis=0))),
        "softbin.binary_argmax": Implementation(_hard_by_columns(partial(softbin.binary_argmax, axis=0))),
        "jax.lax.top_k": Implementation(_hard_by_columns(lambda scores, k: jax.lax.top_k(scores.T, k))),
        "jax.numpy.partition": Implementation(
            _hard_by_columns(lambda scores, k: jnp.partition(scores, len(scores) - k, 0)), may_be_slow=True
        ),
        "jax.numpy.sort": Implementation(_hard_by_columns(lambda scores, k: jnp.sort(scores, 0)), may_be_slow=True),
    },
    "trimmed mean": {
        "softbin.bottom_k_mean": Implementation(_trimmed(softbin.bottom_k_mean)),
        "softbin.bottom_k_mean, smooth": Implementation(_trimmed(partial(softbin.bottom_k_mean, temperature=1.0))),
        "jax.numpy.mean of all": Implementation(_trimmed(lambda values, k: jnp.mean(values))),
        "jax.numpy.sort": Implementation(_trimmed(lambda values, k: jnp.mean(jnp.sort(values)[:k])), may_be_slow=True),
        "jax.lax.top_k": Implementation(
            _trimmed(lambda values, k: -jnp.mean(jax.lax.top_k(-values, k)[0])), may_be_slow=True
        ),
    },
    **long_rows.IMPLEMENTATIONS,
}
BASELINES: Mapping[str, str] = {
    "loss": "optax cross-entropy",
    "selection": "jax.lax.top_k",
    "hard choice": "jax.lax.top_k",
    "hard choice by columns": "jax.lax.top_k",
    "trimmed mean": "jax.numpy.mean of all",
    **long_rows.BASELINES,
}
"""What each ratio is over."""


def runnable(size: Size) -> dict[str, Implementation]:
    """The implementations that can run here, and at this size; on other logits than normal ones only the fast ones."""
    longest = LONGEST if jax.default_backend() != "cpu" else 0
    length = size.n if size.case == "loss" else size.classes
    return {
        name: implementation
        for name, implementation in IMPLEMENTATIONS[size.case].items()
        if not missing_packages(implementation)
        and (length <= longest or not implementation.on_chip)
        and (size.inputs == "normal" or not implementation.may_be_slow)
    }
