"""What runs on chip gives what XLA gives, where kernels run and where they do not."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin import budgets
from softbin._engine.arguments import Arguments, prepare
from softbin._engine.batches import prepare_batch
from softbin._engine.groups import Groups
from softbin._engine.kernels import Interpreted, on_chip
from softbin._engine.search import excess, search
from softbin._engine.thresholds import solve
from tests._engine.kernels.platforms import CUSTOM_CALLS, each_kernel, each_platform, lowered
from tests.hard_cases import CASES, REGULARIZERS

LABELS = np.random.default_rng(2).integers(0, 3, 192)
LOGITS = 2 * np.random.default_rng(0).standard_normal((192, 3), np.float32)
WEIGHTS = np.random.default_rng(1).integers(0, 3, (192, 3)).astype(np.float32)

each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
SOLVE = jax.jit(solve, static_argnames=("groups", "regularizer", "implementation"))


def assert_same_selection(implementation, problem, regularizer):
    arguments = problem.scores, problem.k, problem.temperature, problem.weights, problem.groups, regularizer
    actual = SOLVE(*arguments, implementation=implementation)
    expected, _ = search(*arguments)
    y, exact_y = (regularizer.link(excess(problem.scores, found, problem.temperature)) for found in (actual, expected))
    np.testing.assert_allclose(y, exact_y, atol=1e-6)


@each_kernel
@each_regularizer
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.scores.size <= 8192])
def test_hard_cases_agree(implementation, regularizer, name):
    case = CASES[name]
    problem = prepare(Arguments(case.scores, np.float32(case.k), np.float32(case.temperature)), Groups((0,)))
    problem = problem._replace(
        scores=problem.scores[:, None], k=problem.k[:, None], temperature=problem.temperature[:, None]
    )
    assert_same_selection(implementation, problem, regularizer)


@each_kernel
@pytest.mark.parametrize(
    ("axis", "weights", "regularizer"),
    [
        (0, None, softbin.euclidean),
        (0, WEIGHTS, softbin.binary_entropy),
        (1, WEIGHTS, softbin.euclidean),
        (1, None, softbin.binary_entropy),
        (-1, WEIGHTS, softbin.euclidean),
        (-1, None, softbin.binary_entropy),
    ],
)
def test_groups_lie_on_any_axis(implementation, axis, weights, regularizer):
    shape = (2, 96, 3)
    weights = None if weights is None else weights.reshape(shape)
    problem = prepare(Arguments(LOGITS.reshape(shape), 0.7, 1.5, weights=weights), Groups((axis % 3,)))
    assert_same_selection(implementation, problem, regularizer)


@each_kernel
def test_lanes_are_put_together(implementation):
    batch = prepare_batch(jnp.asarray(LOGITS), None, None, None)
    assert batch.groups.lanes > 1
    problem = prepare(Arguments(batch.logits, np.float32([20, 100, 70.5]), 1.5), batch.groups)
    assert_same_selection(implementation, problem, softbin.euclidean)


@each_kernel
def test_kernels_map(implementation):
    def thresholds(scores):
        problem = prepare(Arguments(scores, 10, 1.5), Groups((0,)))
        arrays = problem.scores, problem.k, problem.temperature, None
        found = SOLVE(*arrays, problem.groups, softbin.euclidean, implementation=implementation)
        return found.centre / found.scale + found.fine / (found.inverse * found.scale)

    scores = jnp.asarray(LOGITS.reshape(4, 48, 3))
    np.testing.assert_allclose(jax.vmap(thresholds)(scores), jnp.stack([thresholds(s) for s in scores]), rtol=1e-6)


@each_kernel
@each_regularizer
@pytest.mark.parametrize("weights", [None, WEIGHTS[:, 0]], ids=["alike", "weighted"])
def test_the_loss_leaves_the_chip_with_its_gradient(implementation, regularizer, weights):
    arguments, keywords = (LOGITS, LABELS), {"weights": weights, "regularizer": regularizer}
    (value, gradient), (expected_value, expected) = (
        jax.jit(partial(function, **keywords))(*arguments)
        for function in (
            jax.value_and_grad(partial(softbin.loss, implementation=implementation)),
            jax.value_and_grad(softbin.loss),
        )
    )
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


@each_kernel
def test_the_loss_has_second_derivatives_and_forward_mode(implementation):
    loss = partial(softbin.loss, labels=LABELS[:12])
    on_chip_loss = partial(loss, implementation=implementation)
    logits, direction = LOGITS[:12], np.ones_like(LOGITS[:12]) * np.arange(12, dtype=np.float32)[:, None]

    def derivatives(function):
        return jax.jit(lambda x: (jax.hessian(function)(x), *jax.jvp(function, (x,), (direction,))))(logits)

    for actual, expected in zip(*map(derivatives, (on_chip_loss, loss)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


@each_platform
@each_regularizer
@pytest.mark.parametrize("loss_fn", [softbin.loss, softbin.fenchel_young_loss])
def test_losses_lower_for_accelerators(platform, regularizer, loss_fn):
    loss_fn = partial(loss_fn, budget=budgets.fraction(0.5), regularizer=regularizer, implementation="pallas")
    labels = np.zeros(192, np.int32)
    assert CUSTOM_CALLS[platform] in lowered(jax.value_and_grad(loss_fn), platform, LOGITS, labels)
    assert CUSTOM_CALLS[platform] not in lowered(partial(loss_fn, implementation="xla"), platform, LOGITS, labels)


@each_platform
@pytest.mark.parametrize(
    "keywords",
    [{"where": np.arange(192) % 3 > 0}, {"where": WEIGHTS > 0}, {"weights": WEIGHTS[:, 0]}, {"weights": WEIGHTS}],
    ids=["mask", "mask by entry", "weights", "weights by entry"],
)
def test_losses_with_masks_and_weights_lower(platform, keywords):
    loss = partial(softbin.loss, labels=LABELS, implementation="pallas", **keywords)
    assert CUSTOM_CALLS[platform] in lowered(jax.value_and_grad(loss), platform, LOGITS)


@each_platform
@each_regularizer
@pytest.mark.parametrize("length", [8, 1000, 8192])
@pytest.mark.parametrize("keywords", [{}, {"where": True}, {"weights": 2.0}], ids=["plain", "mask", "weights"])
def test_rows_lower(platform, regularizer, length, keywords):
    keywords = {name: np.full((4, length), value) for name, value in keywords.items()}
    project = partial(softbin.soft_binary_argmax, k=2, regularizer=regularizer, implementation="pallas", **keywords)
    gradient = jax.grad(lambda scores: jnp.sum(project(scores) ** 2))
    for dtype in (jnp.float32, jnp.bfloat16):
        assert CUSTOM_CALLS[platform] in lowered(gradient, platform, jnp.zeros((4, length), dtype))


@each_platform
@pytest.mark.parametrize(("regularizer", "on_chip"), [("laplace", True), ("normal", False), ("tsallis", False)])
def test_links_of_operations_that_mosaic_lacks_are_left_to_the_solver(platform, regularizer, on_chip):
    link = softbin.tsallis(1.5) if regularizer == "tsallis" else getattr(softbin, regularizer)
    project = partial(softbin.soft_binary_argmax, k=2, regularizer=link, implementation="pallas")
    assert (CUSTOM_CALLS[platform] in lowered(project, platform, jnp.zeros(1024))) == on_chip


@each_platform
def test_long_groups_are_left_to_the_solver(platform):
    project = partial(softbin.soft_binary_argmax, k=2, implementation="pallas")
    assert CUSTOM_CALLS[platform] in lowered(project, platform, jnp.zeros(8192))
    assert CUSTOM_CALLS[platform] not in lowered(project, platform, jnp.zeros(8193))


@each_platform
def test_float64_is_left_to_the_solver(platform, x64):
    project = partial(softbin.soft_binary_argmax, k=2, implementation="pallas")
    assert CUSTOM_CALLS[platform] not in lowered(project, platform, jnp.zeros(8192))


def test_other_platforms_run_the_solver():
    for function in (softbin.loss, softbin.fenchel_young_loss):
        value, gradient = jax.value_and_grad(partial(function, implementation="pallas"))(
            LOGITS, np.zeros(192, np.int32)
        )
        expected_value, expected = jax.value_and_grad(function)(LOGITS, np.zeros(192, np.int32))
        np.testing.assert_allclose(value, expected_value, rtol=1e-6)
        np.testing.assert_allclose(gradient, expected, atol=1e-8)


@pytest.mark.parametrize("name", ["cuda", "interpret_tpu", "interpret_gpu", *(each.value for each in Interpreted)])
def test_unknown_implementation_is_named(name):
    batch = (LOGITS, LABELS)
    for function, arguments in (
        (softbin.soft_binary_argmax, (LOGITS, 2)),
        (softbin.loss, batch),
        (softbin.fenchel_young_loss, batch),
    ):
        with pytest.raises(ValueError, match=f'implementation must be None, "xla" or "pallas", got {name!r}'):
            function(*arguments, implementation=name)


@pytest.mark.parametrize("function", [softbin.loss, softbin.fenchel_young_loss])
def test_a_program_is_never_that_of_another_implementation(function):
    def program(implementation):
        return jax.jit(partial(function, labels=LABELS, implementation=implementation)).lower(LOGITS).as_text()

    programs = [program(implementation) for implementation in ("pallas", *Interpreted, "xla")]
    assert len(set(programs)) == 4
    assert programs == [program(implementation) for implementation in ("pallas", *Interpreted, "xla")]


def test_gpus_that_are_not_of_nvidia_are_left_to_xla(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability="gfx942")])
    assert not on_chip.fits(jnp.zeros(8), Groups((0,)), softbin.euclidean)
