"""Means of the largest and the smallest values, against numpy's sort and exact projections in double precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin import binary_entropy, bottom_k_mean, budgets, euclidean, top_k_mean
from tests import exact
from tests.compiling import AS_USERS_DO
from tests.derivatives import check_derivatives

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((6, 40)).astype(np.float32)
KS = np.float32([1, 2, 7.25, 20.5, 39.5, 40])
TEMPERATURES = (0.01, 0.5, 3.0, 1e3)
REGULARIZERS = {"euclidean": euclidean, "binary_entropy": binary_entropy}

properties = settings(max_examples=50, deadline=None, derandomize=True)


def by_sorting(values, k, weights=None):
    """The mean, and the choice in which equal values share alike."""
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(-values, kind="stable")
    taken = np.clip(k - np.concatenate([[0], np.cumsum(weights[order])[:-1]]), 0, weights[order])
    mean = np.sum(taken[taken > 0] * values[order][taken > 0]) / k
    last = values[order][np.flatnonzero(taken)[-1]]
    left = k - weights[values > last].sum()
    return mean, np.where(values > last, 1, np.where(values == last, left / weights[values == last].sum(), 0))


def expected_of(row, k, temperature=0.0):
    """The mean of one group and its gradient; smooth ones by an exact projection."""
    row = np.asarray(row, np.float64)
    y = exact.euclidean(row, k, temperature).y if temperature else by_sorting(row, k)[1]
    return (row @ y - temperature * np.sum(y**2 - (k / len(row)) ** 2) / 2) / k, y / k


@jax.jit
def exactly(values, k, **keywords):
    """The means, and the gradient of their sum by the values."""
    means, pull_back = jax.vjp(lambda values: top_k_mean(values, k, **keywords), values)
    return means, pull_back(jnp.ones_like(means))[0]


def smoothly(values, k, temperature, regularizer):
    means, pull_back = jax.vjp(lambda values: top_k_mean(values, k, temperature, regularizer=regularizer), values)
    return means, pull_back(jnp.ones_like(means))[0]


# Exact


@given(arrays(np.float32, (4, 9), elements=st.sampled_from(np.float32([-3, -1, 0.5, 1, 2]))), st.data())
@properties
def test_the_exact_mean_and_its_gradient_are_those_of_a_sort_where_equal_values_share_alike(values, data):
    k = data.draw(arrays(np.float32, 4, elements=st.integers(1, 36).map(lambda quarters: quarters / 4)))
    for mean, gradient, row, number in zip(*exactly(values, k), values, k, strict=True):
        expected, choice = by_sorting(row, number)
        np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gradient, choice / number, rtol=1e-6, atol=1e-7)


def test_double_precision_is_that_of_a_sort(x64):
    values = RNG.standard_normal((6, 1000)) * 10.0 ** np.arange(-9, 9, 3)[:, None] + 1e3
    k = np.array([1, 4.5, 99.75, 500, 999.5, 1000])
    for mean, gradient, row, number in zip(*exactly(values, k), values, k, strict=True):
        expected, choice = by_sorting(row, number)
        np.testing.assert_allclose(mean, expected, rtol=1e-13)
        np.testing.assert_allclose(gradient, choice / number, rtol=1e-13)


def test_weights_are_repetition():
    values = np.round(VALUES, 1)
    weights = RNG.integers(0, 4, values.shape).astype(np.float32)
    for mean, gradient, row, number, repeats in zip(
        *exactly(values, KS, weights=weights), values, KS, weights, strict=True
    ):
        expected, choice = by_sorting(row, number, repeats)
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, repeats * choice / number, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2.5, 4])
def test_a_known_number_counts_as_a_traced_one(k):
    known = jax.jit(partial(top_k_mean, k=k))(np.round(VALUES, 1))
    np.testing.assert_allclose(known, exactly(np.round(VALUES, 1), np.full(6, k, np.float32))[0], rtol=1e-6)


def test_infinite_values_count_and_subnormal_ones_are_zero():
    values = np.float32([[np.inf, 1, 2, 1e-40], [-np.inf, 1, -np.inf, 3], [np.nan, 1, 2, 3]])
    means, gradients = exactly(values, np.float32([2, 3, 2]))
    np.testing.assert_array_equal(means, [np.inf, -np.inf, np.nan])
    np.testing.assert_allclose(gradients[:2], [[0.5, 0, 0.5, 0], [1 / 6, 1 / 3, 1 / 6, 1 / 3]], rtol=1e-6)
    assert top_k_mean(np.float32([1e-40, -1e-40, 0, -1]), 3) == 0


# Smooth


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_the_smooth_mean_is_the_maximum_over_the_hypersimplex(regularizer):
    penalty = {
        "euclidean": lambda y: y**2 / 2,
        "binary_entropy": lambda y: np.where((y > 0) & (y < 1), y * np.log(y) + (1 - y) * np.log1p(-y), 0),
    }[regularizer]
    compiled = jax.jit(smoothly, static_argnums=3, compiler_options=AS_USERS_DO)
    with np.errstate(divide="ignore", invalid="ignore"):
        for temperature in TEMPERATURES:
            means, gradients = compiled(VALUES, KS, np.float32(temperature), REGULARIZERS[regularizer])
            for mean, gradient, row, k in zip(means, gradients, VALUES.astype(float), KS.tolist(), strict=True):
                y = getattr(exact, regularizer)(row, k, np.float32(temperature)).y
                gain = penalty(y) - penalty(np.full_like(y, k / 40))
                expected = (np.sum(row * y) - float(np.float32(temperature)) * np.sum(gain)) / k
                np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)
                np.testing.assert_allclose(gradient, y / k, rtol=1e-5, atol=1e-6)


def test_a_temperature_leads_from_the_exact_value_to_the_mean_of_all():
    temperatures = np.float32(np.append(np.logspace(-6, 6, 25), 1e30))
    for regularizer in REGULARIZERS.values():
        means = np.stack(
            jax.jit(lambda x, r=regularizer: jax.lax.map(lambda t: smoothly(VALUES, KS, t, r)[0], x))(temperatures)
        )
        assert np.all(np.diff(means, axis=0) <= 2e-6)
        np.testing.assert_allclose(means[0], exactly(VALUES, KS)[0], atol=1e-5)
        np.testing.assert_allclose(means[-1], VALUES.mean(1), atol=2e-6)
    assert np.all(exactly(VALUES, KS)[0] - euclidean_at(0.5) <= 0.25 * (1 - KS / 40) + 0.25 * (KS % 1 > 0) / KS + 1e-6)


def euclidean_at(temperature):
    return top_k_mean(VALUES, KS, temperature)


def test_the_smooth_mean_keeps_its_digits_at_an_offset_and_beside_an_outlier():
    for offset in (0, 1e6):
        values = np.float32(np.round(VALUES * 8) / 8 + offset)
        for row, k, mean in zip(values, KS, top_k_mean(values, KS, 0.5), strict=True):
            y = exact.euclidean(row, k, 0.5).y
            expected = (np.sum(row.astype(float) * y) - 0.25 * np.sum(y**2 - (k / 40) ** 2)) / k
            np.testing.assert_allclose(mean, expected, rtol=3e-7, atol=1e-6)
    gradient = jax.jit(jax.grad(top_k_mean))(np.float32([1e30, 3, 2, 1, 0]), 2, 2.0)
    np.testing.assert_allclose(gradient, [0.5, 0.375, 0.125, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("temperature", "regularizer", "order"), [(0.0, "euclidean", 1), (0.7, "euclidean", 2), (0.7, "binary_entropy", 1)]
)
def test_derivatives_by_values_number_weights_and_temperature(temperature, regularizer, order, x64):
    values, weights = VALUES[:2, :8].astype(float), np.linspace(0.5, 2, 8)

    def function(values, k, weights, *temperature):
        return top_k_mean(values, k, *temperature, weights=weights, regularizer=REGULARIZERS[regularizer])

    arguments = [values, np.array([3.3, 5.8]), weights] + ([np.float64(temperature)] if temperature else [])
    check_derivatives(function, arguments, modes=("rev", "fwd"), order=order, rtol=1e-5)


@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=repr)
def test_saturated_entries_have_finite_derivatives(regularizer):
    values = jnp.array([1e4, 1.0, -1e4])
    derivatives = jax.jit(jax.grad(partial(top_k_mean, regularizer=regularizer), (0, 1, 2)))
    for k in (1.5, 3.0):
        by_values, by_k, by_temperature = derivatives(values, k, 1.0)
        np.testing.assert_allclose(by_values, np.clip([1, k - 1, k - 2], 0, 1) / k, rtol=1e-6)
        assert np.isfinite(by_k)
        assert np.isfinite(by_temperature)


# Both


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_smallest_are_the_largest_of_the_negative(temperature):
    @jax.jit
    def each_with_gradient(values):
        smallest = jax.value_and_grad(lambda x: jnp.sum(bottom_k_mean(x, 7.5, temperature)))(values)
        return smallest, jax.value_and_grad(lambda x: jnp.sum(top_k_mean(x, 7.5, temperature)))(-values)

    (mean, gradient), (expected, by_negative) = each_with_gradient(VALUES)
    assert mean == -expected
    np.testing.assert_array_equal(gradient, by_negative)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_masking_is_removal_and_a_group_that_is_masked_whole_gives_zero(temperature):
    where = RNG.random(VALUES.shape) < 0.5
    where[2] = False

    @jax.jit
    def masked(values):
        mean = partial(top_k_mean, k=budgets.fraction(0.25), temperature=temperature, where=where)
        means, pull_back = jax.vjp(mean, values)
        return means, *pull_back(jnp.ones(6))

    means, gradient = map(np.asarray, masked(np.where(where, VALUES, np.nan)))
    assert means[2] == 0
    np.testing.assert_array_equal(gradient[~where], 0)
    for row in (0, 1, 3, 4, 5):
        mean, wanted = expected_of(VALUES[row, where[row]], where[row].sum() / 4, temperature)
        np.testing.assert_allclose(means[row], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient[row][where[row]], wanted, rtol=1e-5, atol=1e-6)


def test_a_scheduled_share_counts_what_exists(no_shape_checks):
    where = np.arange(40) < 30
    share = optax.linear_schedule(1.0, 0.2, 100)
    found = jax.jit(
        lambda step: top_k_mean(VALUES, budgets.fraction(share(step)), where=where), compiler_options=AS_USERS_DO
    )
    for step, k in ((0, 30), (50, 18), (100, 6)):
        expected = [expected_of(row[:30], k)[0] for row in VALUES]
        np.testing.assert_allclose(found(step), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "temperature"),  # narrow values are computed in float32
    [("bfloat16", 0.0), ("bfloat16", 0.5), ("float16", 0.5), ("float32", 0.0), ("float64", 0.5)],
)
def test_dtype_in_is_dtype_out(dtype, temperature, x64):
    values = VALUES.astype(jnp.dtype(dtype))
    means = jax.jit(partial(top_k_mean, k=7.5, temperature=temperature))(values)
    assert means.dtype == values.dtype
    wide = [expected_of(row, 7.5, temperature)[0] for row in values]
    np.testing.assert_allclose(np.float64(means), wide, rtol=4 * float(jnp.finfo(dtype).eps), atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_any_axes_and_vmap(temperature):
    values, k = VALUES.reshape(6, 8, 5), KS[:5] / 8
    means = top_k_mean(values, k, temperature, axis=(0, 1))
    each = jax.vmap(lambda rows, k: top_k_mean(rows, k, temperature, axis=None), (2, 0))(values, k)
    rows = np.moveaxis(values, 2, 0).reshape(5, 48)
    expected = [expected_of(*row, temperature)[0] for row in zip(rows, k, strict=True)]
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-6)


LOSSES = np.ravel(VALUES)


def mean_and_gradient(losses, temperature, **keywords):
    return jax.value_and_grad(top_k_mean)(losses, budgets.fraction(0.1), temperature, **keywords)


def is_that_of_the_whole_batch(found, temperature):
    for each, expected in zip(found, expected_of(LOSSES, 24, temperature), strict=True):
        np.testing.assert_allclose(each, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "temperature"), [(AxisType.Auto, 0.0), (AxisType.Auto, 0.5), (AxisType.Explicit, 0.0)]
)
def test_a_sharded_batch_is_the_whole_batch(kind, temperature):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    losses = jax.device_put(LOSSES, NamedSharding(mesh, PartitionSpec("batch")))
    found = jax.jit(partial(mean_and_gradient, temperature=temperature))(losses)
    assert found[1].sharding.spec == PartitionSpec("batch")
    is_that_of_the_whole_batch(found, temperature)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_shards_of_a_mapped_axis_count_together(temperature):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    of_shards = partial(mean_and_gradient, temperature=temperature, axis_name="batch")
    spec, whole = PartitionSpec("batch"), PartitionSpec()
    found = jax.jit(jax.shard_map(of_shards, mesh=mesh, in_specs=spec, out_specs=(whole, spec)))(LOSSES)
    is_that_of_the_whole_batch(found, temperature)


def test_microbatches_give_the_gradient_of_the_whole_batch():
    inputs, params = VALUES.T, np.ones(6, np.float32)

    def trimmed(losses):
        return bottom_k_mean(losses, budgets.fraction(0.7))

    step = softbin.large_batch.value_and_grad(lambda w, x: jnp.square(x @ w - 1), trimmed, microbatch_size=7)
    value, gradient = jax.jit(step)(params, inputs)
    expected, whole = jax.jit(jax.value_and_grad(lambda w: trimmed(jnp.square(inputs @ w - 1))))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, whole, rtol=1e-4)


# Infinite values, and groups that are short


@pytest.mark.parametrize(("mean", "weights"), [(top_k_mean, None), (bottom_k_mean, np.float32([1, 2, 1, 0.5, 1, 1]))])
def test_infinite_values_make_every_mean_infinite_at_every_temperature(mean, weights):
    inf = np.inf
    values = np.float32(
        [
            [inf] * 6,
            [-inf, 1, 2, 3, 4, 5],
            [-inf, -inf, 2, 3, 4, 5],
            [inf, 1, 2, 3, 4, 5],
            [inf, -inf, -inf, -inf, 1, 2],
            [-inf] * 6,
        ]
    )
    where = np.arange(6) != 5

    @jax.jit
    def means(values, k, temperature):
        kept = {"weights": weights, "where": where}
        return [
            mean(values, k, t, regularizer=r, **kept)
            for t, r in ((0.0, euclidean), (temperature, euclidean), (temperature, binary_entropy))
        ]

    for k in (1.5, 3.0, 4.5):
        exact_means, *smooth = np.asarray(means(values, k, np.float32(0.3)))
        infinite = ~np.isfinite(exact_means)
        assert infinite.any()
        for each in smooth:
            np.testing.assert_array_equal(~np.isfinite(each), infinite)
            np.testing.assert_array_equal(each[infinite], exact_means[infinite])


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_mean_is_that_of_all_where_a_mask_leaves_fewer(temperature):
    where = np.arange(6)[:, None] > np.arange(40)

    @jax.jit
    def means_and_gradient(values, k):
        means, pull_back = jax.vjp(lambda values: top_k_mean(values, k, temperature, where=where), values)
        return means, *pull_back(jnp.ones(6))

    means, gradient = means_and_gradient(VALUES, 5)
    np.testing.assert_allclose(means, [0, *(VALUES[n, :n].mean() for n in range(1, 6))], rtol=1e-5)
    np.testing.assert_allclose(gradient, where / np.maximum(np.arange(6), 1)[:, None], rtol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("message", "values", "k", "keywords"),
    [
        ("k must be positive", VALUES, 0, {}),
        ("k must be positive", VALUES, budgets.fraction(0), {}),
        ("k must be positive: .*, got nan", VALUES, np.nan, {}),
        (r"0.1 looks like a share of them: pass softbin.budgets.fraction\(0.1\)", VALUES, 0.1, {}),
        ("k must be at most n = 40", VALUES, 41, {}),
        ("k must be at most n = 40", VALUES, np.inf, {}),
        ("share of the batch must be a number in", VALUES, None, {}),
        ("temperature must be 0, or positive and finite, got -1", VALUES, 2, {"temperature": -1.0}),
        ("0 for every group or positive for every group", VALUES, 2, {"temperature": np.array([0, 1, 1, 1, 1, 1.0])}),
        ("values with shape .* are empty", VALUES[:, :0], 2, {}),
        ("axis 2 is not an axis of values", VALUES, 2, {"axis": 2}),
        ("weights must not be negative", VALUES, 2, {"weights": -(VALUES**2)}),
        ("does not broadcast", VALUES, np.ones(5), {}),
    ],
)
def test_bad_values_are_named(message, values, k, keywords, no_shape_checks):
    for mean in (top_k_mean, bottom_k_mean):
        with pytest.raises(ValueError, match=message):
            mean(values, budgets.fraction(1.5) if k is None else k, **keywords)


@pytest.mark.parametrize(
    ("message", "values", "k"),
    [
        ("values must be floating point, got int", np.arange(3), 2),
        ("k must be a number, an array, or a share .*, got <function label_count", VALUES, budgets.label_count),
    ],
)
def test_bad_types_are_named(message, values, k, no_shape_checks):
    for mean in (top_k_mean, bottom_k_mean):
        with pytest.raises(TypeError, match=message):
            mean(values, k)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_traced_number_out_of_range_is_nan_in_its_own_group(temperature):
    k = np.float32([0, -1, 41, np.nan, 3, 40])
    np.testing.assert_array_equal(
        np.isnan(jax.jit(partial(top_k_mean, temperature=temperature))(VALUES, k)), [True] * 4 + [False] * 2
    )
