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
from tests._engine.kernels.platforms import CUSTOM_CALLS, each_platform, lowered
from tests.hard_cases import CASES, REGULARIZERS

LABELS = np.random.default_rng(2).integers(0, 3, 192)
LOGITS = 2 * np.random.default_rng(0).standard_normal((192, 3), np.float32)
WEIGHTS = np.random.default_rng(1).integers(0, 3, (192, 3)).astype(np.float32)

each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)


def selections(problem, regularizer, weights=None):
    """By the search, and by each kernel."""
    arguments = problem.scores, problem.k, problem.temperature, weights, problem.groups, regularizer
    found = [search(*arguments)[0], *(solve(*arguments, implementation=each) for each in Interpreted)]
    return [regularizer.link(excess(problem.scores, each, problem.temperature)) for each in found]


def assert_same_selection(expected, *found):
    for implementation, y in zip(Interpreted, found, strict=True):
        np.testing.assert_allclose(y, expected, atol=1e-6, err_msg=implementation)


@partial(jax.jit, static_argnames="regularizer")
def selections_of_a_column(scores, k, temperature, regularizer):
    problem = prepare(Arguments(scores, k, temperature), Groups((0,)))
    columns = {name: getattr(problem, name)[:, None] for name in ("scores", "k", "temperature")}
    return selections(problem._replace(**columns), regularizer)


@each_regularizer
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.scores.size <= 8192])
def test_hard_cases_agree(regularizer, name):
    case = CASES[name]
    k, temperature = np.float32(case.k), np.float32(case.temperature)
    assert_same_selection(*selections_of_a_column(case.scores, k, temperature, regularizer))


@pytest.mark.parametrize(
    ("axis", "weights", "regularizer"),
    [
        (0, None, softbin.euclidean),
        (0, WEIGHTS, softbin.binary_entropy),
        (1, WEIGHTS, softbin.euclidean),
        (-1, None, softbin.binary_entropy),
    ],
)
def test_groups_lie_on_any_axis(axis, weights, regularizer):
    shape = (2, 96, 3)
    weights = None if weights is None else weights.reshape(shape)

    @jax.jit
    def run(logits):
        problem = prepare(Arguments(logits, 0.7, 1.5, weights=weights), Groups((axis % 3,)))
        return selections(problem, regularizer, problem.weights)

    assert_same_selection(*run(LOGITS.reshape(shape)))


def test_lanes_are_put_together():
    @jax.jit
    def run(logits, k):
        batch = prepare_batch(logits, None, None, None)
        assert batch.groups.lanes > 1
        return selections(prepare(Arguments(batch.logits, k, 1.5), batch.groups), softbin.euclidean)

    assert_same_selection(*run(LOGITS, np.float32([20, 100, 70.5])))


def test_kernels_map():
    def thresholds(scores, implementation):
        problem = prepare(Arguments(scores, 10, 1.5), Groups((0,)))
        arrays = problem.scores, problem.k, problem.temperature, None
        found = solve(*arrays, problem.groups, softbin.euclidean, implementation=implementation)
        return found.centre / found.scale + found.fine / (found.inverse * found.scale)

    @jax.jit
    def each_way(scores):
        return [jax.vmap(partial(thresholds, implementation=each))(scores) for each in (None, *Interpreted)]

    expected, *results = each_way(LOGITS.reshape(4, 48, 3))
    for found in results:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def losses_of(implementation, **keywords):
    return partial(softbin.loss, implementation=implementation, **keywords)


@pytest.mark.parametrize(
    ("regularizer", "weights"), [(softbin.euclidean, WEIGHTS[:, 0]), (softbin.binary_entropy, None)]
)
def test_the_loss_leaves_the_chip_with_its_gradient(regularizer, weights):
    keywords = {"labels": LABELS, "weights": weights, "regularizer": regularizer}

    @jax.jit
    def by_implementation(logits):
        return [jax.value_and_grad(losses_of(each, **keywords))(logits) for each in (None, *Interpreted)]

    (expected_value, expected), *results = by_implementation(LOGITS)
    for implementation, (value, gradient) in zip(Interpreted, results, strict=True):
        np.testing.assert_allclose(value, expected_value, rtol=1e-6, err_msg=implementation)
        np.testing.assert_allclose(gradient, expected, atol=1e-8, err_msg=implementation)


def test_the_loss_has_second_derivatives_and_forward_mode():
    direction = np.ones_like(LOGITS[:12]) * np.arange(12, dtype=np.float32)[:, None]

    def derivatives(implementation, logits):
        loss = losses_of(implementation, labels=LABELS[:12])
        return jax.hessian(loss)(logits), *jax.jvp(loss, (logits,), (direction,))

    expected, *results = jax.jit(lambda x: [derivatives(each, x) for each in (None, *Interpreted)])(LOGITS[:12])
    for found in results:
        for actual, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-7)


@each_platform
@pytest.mark.parametrize(
    ("loss_fn", "regularizer"),
    [
        (softbin.loss, softbin.euclidean),
        (softbin.loss, softbin.binary_entropy),
        (softbin.fenchel_young_loss, softbin.binary_entropy),
    ],
)
def test_losses_lower_for_accelerators(platform, loss_fn, regularizer):
    loss_fn = partial(loss_fn, budget=budgets.fraction(0.5), regularizer=regularizer, implementation="pallas")
    labels = np.zeros(192, np.int32)
    assert CUSTOM_CALLS[platform] in lowered(jax.value_and_grad(loss_fn), platform, LOGITS, labels)


@each_platform
@pytest.mark.parametrize("loss_fn", [softbin.loss, softbin.fenchel_young_loss])
def test_losses_by_xla_have_no_kernel(platform, loss_fn):
    loss_fn = partial(loss_fn, labels=LABELS, implementation="xla")
    assert CUSTOM_CALLS[platform] not in lowered(loss_fn, platform, LOGITS)


@each_platform
@pytest.mark.parametrize(
    "keywords",
    [{"where": np.arange(192) % 3 > 0}, {"where": WEIGHTS > 0}, {"weights": WEIGHTS[:, 0]}, {"weights": WEIGHTS}],
    ids=["mask", "mask by entry", "weights", "weights by entry"],
)
def test_losses_with_masks_and_weights_lower(platform, keywords):
    loss = partial(softbin.loss, labels=LABELS, implementation="pallas", **keywords)
    assert CUSTOM_CALLS[platform] in lowered(jax.value_and_grad(loss), platform, LOGITS)


ROWS = [
    (8, {}, "euclidean", "bfloat16"),
    (8, {"weights": 2.0}, "binary_entropy", "float32"),
    (1000, {"where": True}, "binary_entropy", "float32"),
    (1000, {}, "euclidean", "bfloat16"),
    (8192, {"weights": 2.0}, "euclidean", "float32"),
    (8192, {"where": True}, "binary_entropy", "bfloat16"),
]
"""Each length twice; and every keyword, regularizer and dtype."""


@each_platform
def test_rows_lower(platform):
    for length, keywords, regularizer, dtype in ROWS:
        arrays = {name: np.full((4, length), value) for name, value in keywords.items()}
        options = {"regularizer": REGULARIZERS[regularizer], "implementation": "pallas", **arrays}
        project = partial(softbin.soft_binary_argmax, k=2, **options)
        gradient = jax.grad(lambda scores, project=project: jnp.sum(project(scores) ** 2))
        program = lowered(gradient, platform, np.zeros((4, length), dtype))
        assert CUSTOM_CALLS[platform] in program, (length, keywords, regularizer, dtype)


@each_platform
@pytest.mark.parametrize(("regularizer", "on_chip"), [("laplace", True), ("normal", False), ("tsallis", False)])
def test_links_of_operations_that_mosaic_lacks_are_left_to_the_solver(platform, regularizer, on_chip):
    link = softbin.tsallis(1.5) if regularizer == "tsallis" else getattr(softbin, regularizer)
    project = partial(softbin.soft_binary_argmax, k=2, regularizer=link, implementation="pallas")
    assert (CUSTOM_CALLS[platform] in lowered(project, platform, np.zeros(1024, np.float32))) == on_chip


@each_platform
def test_long_groups_are_left_to_the_solver(platform):
    project = partial(softbin.soft_binary_argmax, k=2, implementation="pallas")
    assert CUSTOM_CALLS[platform] in lowered(project, platform, np.zeros(8192, np.float32))
    assert CUSTOM_CALLS[platform] not in lowered(project, platform, np.zeros(8193, np.float32))


@each_platform
def test_float64_is_left_to_the_solver(platform, x64):
    project = partial(softbin.soft_binary_argmax, k=2, implementation="pallas")
    assert CUSTOM_CALLS[platform] not in lowered(project, platform, jnp.zeros(8192))


def test_other_platforms_run_the_solver():
    labels = np.zeros(192, np.int32)
    for function in (softbin.loss, softbin.fenchel_young_loss):
        (value, gradient), (expected_value, expected) = (
            jax.jit(jax.value_and_grad(partial(function, implementation=each)))(LOGITS, labels)
            for each in ("pallas", None)
        )
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
    assert programs[::3] == [program(implementation) for implementation in ("pallas", "xla")]


def test_gpus_that_are_not_of_nvidia_are_left_to_xla(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability="gfx942")])
    assert not on_chip.fits(jnp.zeros(8), Groups((0,)), softbin.euclidean)
