"""Quantiles against NumPy in double precision, and against their definition in fractions of integers."""

from fractions import Fraction
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin import median, percentile, quantile
from softbin._engine.exact_ranks import METHODS
from tests.compiling import AS_USERS_DO
from tests.derivatives import check_derivatives
from tests.test_sharding import MOST_NUMBERS, collectives

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((4, 7)).astype(np.float32)
LADDER = np.array([0.0, 1.0, 0.5, 0.25, 1 / 3, 2 / 3, 0.1, 0.29, 0.9, 1 - 2.0**-24, 2.0**-24, 1 / 12, 0.75])
NASTY = np.float32([0, -0.0, 1, 1, -1, 2, -3, 1 / 3, 3e38, -3e38, 2e-38, -1e-20, 1e-40, 7, 1e4, np.inf, -np.inf])

EIGHTHS = np.arange(9) / 8

properties = settings(max_examples=60, deadline=None, derandomize=True)


def flushed(values):
    """What subnormal numbers count as."""
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, 0, values).astype(np.float64)


def by_definition(row, q, method):
    """The exact quantile of one row, as a fraction of integers or an infinity."""
    x = sorted(flushed(row).tolist())
    h = Fraction(float(q)) * (len(x) if method == "inverted_cdf" else len(x) - 1)
    low = h.numerator // h.denominator
    rest = h - low
    match method:
        case "lower":
            rest = 0
        case "higher":
            low, rest = low + (rest > 0), 0
        case "nearest":
            low, rest = round(h), 0
        case "inverted_cdf":
            low, rest = max(low - (rest == 0), 0), 0
        case "midpoint":
            rest = Fraction(int(rest > 0), 2)
    a, b = x[low], x[min(low + 1, len(x) - 1)]
    if rest == 0 or a == b:
        return a
    return Fraction(a) + rest * (Fraction(b) - Fraction(a)) if np.isfinite([a, b]).all() else a + b


def check(found, row, q, method):
    tiny = float(np.finfo(np.float32).tiny)
    for value, level in zip(np.asarray(found, np.float64).tolist(), q, strict=True):
        expected = by_definition(row, level, method)
        if isinstance(expected, Fraction):
            largest = Fraction(np.max(np.abs(flushed(row)[np.isfinite(row)])))
            ulp = Fraction(float(np.spacing(np.float32(max(abs(float(expected)), tiny)))))
            ulp = Fraction(tiny) if abs(expected) < tiny else ulp  # subnormal numbers are 0
            assert abs(Fraction(value) - expected) <= ulp + largest / 2**68, (row, level)
        else:
            assert value == expected or (np.isnan(value) and np.isnan(expected)), (row, level)


# Values


@given(
    arrays(
        np.float32,
        (3, 7),
        elements=st.one_of(st.sampled_from(NASTY.tolist()), st.floats(width=32, allow_nan=False)),
    )
)
@properties
def test_any_values_give_what_the_definition_says(values):
    for method in METHODS:
        found = np.asarray(quantile(values, LADDER, axis=1, method=method))
        for row, each in zip(values, found.T, strict=True):
            check(each, row, LADDER, method)


@pytest.mark.parametrize(
    ("n", "method"),  # one that takes two entries and one that takes one; short rows are below too, by a mask
    [(1, "linear"), (1, "inverted_cdf"), (2, "midpoint"), (2, "higher"), (101, "linear"), (101, "nearest")],
)
def test_levels_that_floats_multiply_exactly_are_as_in_numpy(n, method):
    values = RNG.standard_normal((3, n)).astype(np.float32)
    found = quantile(values, EIGHTHS, axis=1, method=method)  # exact halves too, of the ranks
    expected = np.quantile(values.astype(np.float64), EIGHTHS, axis=1, method=method)
    np.testing.assert_array_max_ulp(np.asarray(found), expected.astype(np.float32))


@pytest.mark.parametrize("method", METHODS)
def test_levels_of_entries_that_a_mask_leaves_are_as_in_numpy(method):
    lengths = 1, 2, 3, 7
    where = np.arange(7) < np.array(lengths)[:, None]
    found = np.asarray(quantile(VALUES, EIGHTHS, axis=1, where=where, method=method))
    for row, n, each in zip(VALUES.astype(np.float64), lengths, found.T, strict=True):
        expected = np.quantile(row[:n], EIGHTHS, method=method)
        np.testing.assert_array_max_ulp(each, expected.astype(np.float32))


@given(st.lists(st.floats(2.0**-100, 1), min_size=13, max_size=13), st.integers(0, 2**31))
@properties
def test_any_level_is_as_in_numpy(q, seed):
    values = np.random.default_rng(seed).standard_normal((3, 7)).astype(np.float32)
    found = quantile(values, np.array(q), axis=1)
    expected = np.quantile(values.astype(np.float64), q, axis=1)
    largest = np.abs(values).max()
    np.testing.assert_allclose(found, expected, rtol=2.0**-23, atol=2.0**-50 * largest)


def test_a_bfloat16_level_counts_as_what_it_is():
    values = jnp.arange(1000, dtype=jnp.float32)
    traced = jax.jit(quantile)
    for q in (jnp.bfloat16(1), jnp.bfloat16(0.999), jnp.bfloat16(0.3)):
        expected = np.quantile(np.arange(1000.0), np.float64(q))
        for found in (quantile(values, q), traced(values, q)):
            np.testing.assert_array_max_ulp(np.float32(found), np.float32(expected))
    assert traced(values, jnp.bfloat16(1)) == 999


def test_a_percentage_is_divided_exactly():
    values = jnp.arange(101)
    everything = jax.jit(partial(percentile, method="lower"))(values, np.arange(101))
    np.testing.assert_array_equal(everything, np.arange(101))
    np.testing.assert_array_equal(percentile(values, np.arange(101), method="lower"), np.arange(101))
    assert quantile(values, 0.29, method="lower") == 28  # the float is a little less
    q = 100 * np.arange(13) / 16
    found = percentile(VALUES[:3], q, axis=1)
    np.testing.assert_array_max_ulp(np.asarray(found), np.asarray(quantile(VALUES[:3], q / 100, axis=1)))


def test_known_and_traced_levels_are_alike():
    q = np.float32(LADDER)[:, None]
    traced = jax.jit(partial(quantile, axis=0))(VALUES, q)
    assert traced.shape == (13, 1, 7)
    for known in (q, jnp.asarray(q)):
        np.testing.assert_array_equal(quantile(VALUES, known, axis=0), traced)


@pytest.mark.parametrize(
    ("axis", "keepdims", "q"),  # axes are kept or not behind those of q: both, with one level and with several
    [
        (None, False, 0.3),
        (-1, True, 0.3),
        ((0, 2), True, [0.3, 0.7]),
        ((2, 1), False, [0.3, 0.7]),
    ],
)
def test_shapes_are_as_in_numpy(axis, keepdims, q):
    values = RNG.standard_normal((3, 4, 5)).astype(np.float32)
    how = {"axis": axis, "keepdims": keepdims, "method": "linear" if axis == (0, 2) else "lower"}
    found = quantile(values, np.array(q), **how)
    expected = np.quantile(values.astype(np.float64), q, **how)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int32", "uint8", "bool"])
def test_dtype_in_is_dtype_out_and_integers_become_floats(dtype, x64):
    values = RNG.integers(0, 200, (8, 40)).astype(jnp.dtype(dtype))
    found = quantile(values, 0.37, axis=1)
    is_float = jnp.issubdtype(values.dtype, jnp.floating)
    assert found.dtype == (values.dtype if is_float else jnp.float64)
    expected = np.quantile(np.asarray(values, np.float64), 0.37, axis=1)
    if found.dtype.itemsize < 4:
        np.testing.assert_array_equal(found, expected.astype(np.float32).astype(found.dtype))
    else:
        np.testing.assert_array_max_ulp(np.asarray(found), expected.astype(found.dtype))


def test_medians():
    for n in (6, 7):
        np.testing.assert_array_equal(median(VALUES[:, :n], axis=1), np.float32(np.median(VALUES[:, :n], axis=1)))
    infinite = np.float32([0, 1, np.inf])
    assert [float(quantile(infinite, q)) for q in (0.5, 1.0)] == [1, np.inf]


def test_between_infinities_nothing_says_where():
    halves = np.repeat(np.float32([[-np.inf, np.inf], [-np.inf, 0], [0, np.inf], [0, 1]]), 3, axis=1)
    np.testing.assert_array_equal(median(halves, axis=1), [np.nan, -np.inf, np.inf, 0.5])
    np.testing.assert_array_equal(median(halves, axis=1, method="lower"), [-np.inf, -np.inf, 0, 0])


# Masks and weights


@pytest.mark.parametrize("method", METHODS)
def test_masking_is_removal(method):
    where = RNG.random((4, 7)) < 0.7
    where[3] = False
    where[2] = np.arange(7) == 3
    q = np.array([0, 0.1, 0.3, 1 / 3, 0.5, 2 / 3, 0.8, 0.99, 1])
    found = np.asarray(quantile(VALUES, q, axis=1, where=where, method=method))
    for row, part, each in zip(VALUES, where, found.T, strict=True):
        if part.any():
            check(each, row[part], q, method)
    assert np.isnan(found[:, 3]).all()


def test_nan_marks_its_own_group_and_a_mask_takes_it_away():
    values = VALUES.copy()
    values[1, 2] = np.nan
    for method in METHODS:
        found = quantile(values[:3], LADDER, axis=1, method=method)
        np.testing.assert_array_equal(np.isnan(found), [[False, True, False]] * 13)
    found = quantile(values, EIGHTHS, axis=1, where=~np.isnan(values))
    np.testing.assert_allclose(found, np.nanquantile(values, EIGHTHS, axis=1), rtol=1e-6)


@given(
    arrays(np.float32, (2, 7), elements=st.sampled_from(np.float32([-2, -1, 0, 1, 1.5, np.inf, -np.inf]))),
    arrays(np.int32, (2, 7), elements=st.integers(0, 3)),
)
@properties
def test_weights_are_repetition_and_nothing_has_none(values, weights):
    weights[0, 0] += 1
    q = np.array([0, 0.125, 0.25, 0.5, 0.75, 1])
    found = np.asarray(quantile(values, q, axis=1, weights=weights, method="inverted_cdf"))
    for row, repeats, each in zip(values, weights, found.T, strict=True):
        copies = np.repeat(row, repeats)
        if copies.size:
            check(each, copies, q, "inverted_cdf")
        else:
            assert np.isnan(each).all()


def test_weights_are_as_in_numpy():
    values = RNG.standard_normal((20, 50)).astype(np.float32)
    weights = np.float32(RNG.random((20, 50)) * (RNG.random((20, 50)) < 0.8))
    q = np.array([0, 0.013, 0.37, 0.5, 0.99, 1])
    expected = np.quantile(values, q, axis=1, weights=weights, method="inverted_cdf")
    expected[0] = np.where(weights > 0, values, np.inf).min(1)  # as NumPy from 2.1 on
    for traced in (False, True):
        run = partial(quantile, axis=1, method="inverted_cdf")
        found = (jax.jit(run) if traced else run)(values, np.float32(q) if traced else q, weights=weights)
        np.testing.assert_array_equal(found, expected)


def test_weights_that_add_up_to_a_share_reach_it():
    values, weights = np.arange(4, dtype=np.float32), np.float32([1, 2, 3, 4])
    found = percentile(values, np.array([10, 30, 60, 100]), weights=weights, method="inverted_cdf")
    np.testing.assert_array_equal(found, values)


def test_traced_weights_below_0_give_nan():
    run = jax.jit(partial(quantile, method="inverted_cdf"))
    assert np.isnan(run(VALUES[0], 0.5, weights=np.float32([1, 1, -1, 1, 1, 1, 1])))
    assert not np.isnan(run(VALUES[0], 0.5, weights=np.ones(7, np.float32)))


# What is wrong


@pytest.mark.parametrize("q", [-0.1, 1.5, np.nan, np.array([0.5, 2])])
def test_a_level_out_of_range_is_refused_or_traced_gives_nan(q):
    with pytest.raises(ValueError, match=r"q must be in \[0, 1\], got"):
        quantile(VALUES, q)
    q = np.resize(q, 2)
    np.testing.assert_array_equal(np.isnan(jax.jit(quantile)(VALUES, q)), np.logical_not((q >= 0) & (q <= 1)))


def test_percentages_are_told_from_shares():
    with pytest.raises(ValueError, match=r"got 95: softbin.percentile takes percentages"):
        quantile(VALUES, 95)
    with pytest.raises(ValueError, match=r"q must be in \[0, 100\], got 101"):
        percentile(VALUES, 101)


def test_methods_weights_and_temperatures_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"method must be one of 'linear', .*, got 'hazen'"):
        quantile(VALUES, 0.5, method="hazen")
    with pytest.raises(ValueError, match="weights are only for method=\"inverted_cdf\", got method 'linear'"):
        median(VALUES, weights=np.ones(7))
    with pytest.raises(ValueError, match="temperature is only for method=\"linear\", got method 'lower'"):
        median(VALUES, method="lower", temperature=0.1)


# Derivatives and transforms


def test_the_gradient_goes_to_the_entries_that_hold_the_quantile():
    row, q = np.float32([3, 1, 2, 5, 2]), np.array([0, 0.125, 0.9, 0.375, 1])
    by_levels = [[0, 1, 0, 0, 0], [0, 0.5, 0, 0, 0.5], [0.4, 0, 0, 0.6, 0], [0, 0, 0.5, 0, 0.5], [0, 0, 0, 1, 0]]
    by_methods = {"lower": [1], "higher": [2], "midpoint": [1, 2], "nearest": [2]}

    @jax.jit
    def gradients(row, places):
        of_methods = {
            method: jax.grad(partial(quantile, method=method))(places, np.float64(0.6)) for method in by_methods
        }
        return [derivative(quantile)(row, q) for derivative in (jax.jacrev, jax.jacfwd)], of_methods

    of_levels, of_methods = gradients(row, np.arange(4, dtype=np.float32))
    for found in of_levels:
        np.testing.assert_allclose(found, by_levels, atol=1e-6)
        np.testing.assert_array_equal(found[-1], by_levels[-1])
    for method, held in by_methods.items():
        np.testing.assert_array_equal(of_methods[method], np.isin(np.arange(4), held) / len(held))


def test_a_level_moves_by_the_slope_and_at_an_entry_by_the_mean_of_both():
    row = np.float32([0, 1, 3, 7])
    for derivative in (jax.grad, jax.jacfwd):
        slope = jax.jit(derivative(quantile, argnums=1))
        found = [float(slope(row, q)) for q in (0.0, 0.1, 1 / 2, 2 / 3 + 1e-6, 1.0)]
        np.testing.assert_allclose(found, [3, 3, 6, 12, 12], rtol=1e-6)
    slope = jax.jit(jax.grad(percentile, argnums=1))
    at_entries = [float(slope(np.float32([0, 1, 4, 9, 16]), q)) for q in (25.0, 50.0)]
    np.testing.assert_allclose(at_entries, [0.04 * 2, 0.04 * 4], rtol=1e-6)
    assert jax.jit(jax.grad(quantile, argnums=1))(np.float32([2]), 0.5) == 0


def test_derivatives_by_values_and_level(x64):
    values = RNG.standard_normal((3, 9))
    run = lambda values, q: quantile(values, q, axis=1)  # noqa: E731
    check_derivatives(run, (values, np.array([0.13, 0.55, 0.96])), modes=("fwd", "rev"))
    smooth = lambda values, q, temperature: quantile(values, q, axis=1, temperature=temperature)  # noqa: E731
    check_derivatives(smooth, (values, np.array([0.13, 0.55]), np.array(0.7)), modes=("fwd", "rev"), order=1)


def test_vmap_scan_and_remat():
    q = np.float32([0.1, 0.5, 0.77, 1.0])

    def value_and_slopes(row, q):
        return jax.checkpoint(lambda row, q: jnp.stack([quantile(row, q), *jax.grad(quantile)(row, q)]))(row, q)

    mapped = jax.jit(jax.vmap(value_and_slopes))(VALUES, q)
    scanned = jax.jit(lambda *x: jax.lax.scan(lambda _, each: (None, value_and_slopes(*each)), None, x)[1])(VALUES, q)
    np.testing.assert_array_equal(mapped, scanned)
    for found, row, level in zip(mapped, VALUES, q, strict=True):
        np.testing.assert_allclose(found[0], np.quantile(row, level), rtol=1e-6)
        np.testing.assert_allclose(found[1:] @ row, found[0], rtol=1e-5)


def holders(row, q, method):
    """How much of each quantile is at each entry."""
    ranks, q = np.argsort(np.argsort(row)), q[:, None]
    match method:
        case "linear":
            return np.clip(1 - np.abs(ranks - q * (len(row) - 1)), 0, 1)
        case "lower":
            return ranks == np.floor(q * (len(row) - 1))
    return ranks == np.ceil(q * len(row)) - 1


@pytest.mark.parametrize("method", ["linear", "lower", "inverted_cdf"])
def test_a_mapped_quantile_has_the_derivatives_of_single_ones(method):
    q = np.float32([0.1, 0.5, 0.77, 0.9])  # as many as rows, so that neither is taken for the other
    weights = np.ones(VALUES.shape[1], np.float32) if method == "inverted_cdf" else None
    shares = np.arange(1, 17, dtype=np.float32).reshape(4, 4) ** 2
    of_row = partial(quantile, method=method, weights=weights)
    mapped = jax.jit(jax.grad(lambda values: (shares * jax.vmap(lambda row: of_row(row, q))(values)).sum()))(VALUES)
    expected = [share @ holders(row, q, method) for row, share in zip(VALUES, shares, strict=True)]
    np.testing.assert_allclose(mapped, expected, rtol=1e-6, atol=1e-5)
    by_level = jax.jit(jax.vmap(jax.grad(of_row), (None, 0)))(VALUES[0], q)
    np.testing.assert_allclose(by_level, holders(VALUES[0], q, method), rtol=1e-6, atol=1e-7)


def test_strict_promotion_of_types_and_ranks():
    def everything(values, q, where, weights):
        for method in METHODS if values.dtype == np.float32 else ["linear"]:  # narrow values are computed in float32
            quantile(values, q, axis=1, method=method, where=where)
        quantile(values, 0.3, axis=1)
        quantile(values, q, axis=1, weights=weights, method="inverted_cdf")
        return quantile(values, q, axis=1, temperature=0.3, where=where)

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for dtype, q in (("float32", np.float32([0.3, 1])), ("bfloat16", jnp.bfloat16(0.3)), ("float16", np.int32(1))):
            shapes = jax.eval_shape(everything, LONG.astype(dtype), q, LONG > 0, np.abs(LONG))
            assert (shapes.dtype, shapes.shape) == (dtype, (*np.shape(q), 16))


def test_no_levels():
    assert quantile(VALUES, np.zeros((0,)), axis=1).shape == (0, 4)


# Smooth


@pytest.mark.parametrize("temperature", [0.01, 0.5, 10.0])
def test_the_smooth_quantile_is_chosen_by_half(temperature):
    for q in (0.0, 0.3, 0.5, 1.0):
        found = quantile(VALUES, q, axis=1, temperature=temperature)
        scores = np.concatenate([VALUES, found[:, None]], 1)
        chosen = np.clip((scores - scores[:, -1:]) / temperature + 0.5, 0, 1)
        np.testing.assert_allclose(chosen[:, :-1].sum(1), (1 - q) * 6 + 0.5, atol=1e-4)


def test_the_smooth_quantile_comes_near_the_value_of_the_nearest_rank():
    q = np.array([0, 0.02, 0.12, 0.2, 1 / 3, 0.4, 0.72, 0.93, 1])
    for part in (np.ones((4, 7), bool), VALUES < 1):
        found = quantile(VALUES, q, axis=1, temperature=1e-5, where=part)
        np.testing.assert_allclose(found, quantile(VALUES, q, axis=1, method="nearest", where=part), atol=1e-5)
    assert median(np.float32([1, 2]), temperature=1e-3) == 1.5


def test_all_entries_within_a_temperature_share_the_gradient():
    gradient = jax.jit(jax.grad(partial(median, temperature=1.0)))(np.float32([0.0, 0.1, 0.2, 5.0, -5.0]))
    np.testing.assert_allclose(gradient, [1 / 3, 1 / 3, 1 / 3, 0, 0], atol=1e-6)


# Shards


DEVICES = 8
MESHES = {
    kind.name: jax.make_mesh((DEVICES,), ("shards",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit)
}
LONG = np.round(RNG.standard_normal((16, 96)).astype(np.float32), 1)
LEVELS = np.array([0.05, 0.5, 0.95])


def value_and_gradient(values, q, **keywords):
    value, pull_back = jax.vjp(lambda values, q: quantile(values, q, **keywords), values, q)
    return value, *pull_back(jnp.ones_like(value))


@cache
def in_one_place(axis):
    return jax.jit(partial(value_and_gradient, axis=axis))(LONG, np.float32(LEVELS))


@pytest.mark.parametrize(
    ("kind", "axis", "spec"),  # on each mesh groups that all devices share; and groups of one device each
    [
        ("Auto", -1, PartitionSpec(None, "shards")),
        ("Explicit", None, PartitionSpec("shards")),
        ("Explicit", -1, PartitionSpec("shards")),
    ],
)
def test_a_sharded_axis_has_the_same_bits_and_only_all_reduces(kind, axis, spec):
    q = np.float32(LEVELS)
    values = jax.device_put(LONG, NamedSharding(MESHES[kind], spec))
    program = jax.jit(partial(value_and_gradient, axis=axis)).lower(values, q).compile()
    found = program(values, q)
    for a, b in zip(found[:2], in_one_place(axis), strict=False):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(found[2], in_one_place(axis)[2], rtol=1e-6)
    assert {name for name, _ in collectives(program.as_text())} <= {"all-reduce"}
    assert max([size for _, size in collectives(program.as_text())], default=0) <= MOST_NUMBERS


def test_shards_of_a_mapped_axis_are_one_group():
    over_shards, whole = PartitionSpec(None, "shards"), PartitionSpec()

    def weighted_and_smooth(values, q, **along):
        weights = jnp.abs(jnp.round(values))
        yield quantile(values, q, method="inverted_cdf", weights=weights, **along)
        yield quantile(values, 0.3, temperature=0.5, **along)

    def of_shards(values, q):
        along = {"axis": 1, "axis_name": "shards"}
        return quantile(values, q, **along), *weighted_and_smooth(values, q, **along)

    run = jax.shard_map(of_shards, mesh=MESHES["Auto"], in_specs=(over_shards, whole), out_specs=whole)
    found, weighted, smooth = jax.jit(run)(LONG, np.float32(LEVELS))
    np.testing.assert_array_equal(found, in_one_place(-1)[0])
    expected = jax.jit(lambda *x: list(weighted_and_smooth(*x, axis=1)))(LONG, np.float32(LEVELS))
    np.testing.assert_array_equal(weighted, expected[0])
    np.testing.assert_allclose(smooth, expected[1], rtol=1e-5, atol=1e-6)


def test_what_a_program_computes_is_read_once():
    """A rank near a whole number goes one way, for the count and for the fraction, however the level is rounded."""

    @partial(jax.jit, compiler_options=AS_USERS_DO)
    def run(row, step):
        return quantile(row * (0.01 * step) + 0.1, 0.01 * step)

    row = jnp.arange(101.0)
    for step in range(101):
        q = np.float32(0.01) * np.float32(step)
        np.testing.assert_allclose(run(row, np.float32(step)), 100 * q * q + 0.1, rtol=1e-5)


def test_softbin_has_them():
    assert {"quantile", "median", "percentile"} <= set(softbin.__all__)
