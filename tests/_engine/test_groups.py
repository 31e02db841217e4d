"""Sums and largest entries of groups, wherever these lie."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin._engine.groups import Groups
from tests.compiling import AS_USERS_DO

REDUCTIONS = {
    Groups.total: np.sum,
    Groups.plain_total: np.sum,
    Groups.largest: np.max,
    lambda groups, values: groups.count_where(values > 0.5): lambda values, axis, **keep: (values > 0.5).sum(
        axis, **keep
    ),
}


@partial(jax.jit, static_argnums=0)
def reduced(groups, values):
    return [reduction(groups, values) for reduction in REDUCTIONS]


def test_total_matches_fsum_on_long_axes():
    lengths = [1, 256, 257, 10_007, 65_536, 1_000_003]
    arrays = [np.random.default_rng(n).uniform(size=n).astype(np.float32) for n in lengths]
    totals = jax.jit(lambda arrays: [Groups((0,)).total(each) for each in arrays], compiler_options=AS_USERS_DO)(arrays)
    np.testing.assert_allclose(np.ravel(totals), [math.fsum(each) for each in arrays], rtol=3e-7)


@pytest.mark.parametrize("n", [3, 1000, 1009])
def test_other_axes_are_kept(n):
    values = np.random.default_rng(0).uniform(size=(3, n, 2)).astype(np.float32)
    for found, expected in zip(reduced(Groups((1,)), values), REDUCTIONS.values(), strict=True):
        np.testing.assert_allclose(found, expected(values, 1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("n", [300, 70_000])
def test_no_groups_have_no_sums(n):
    assert {each.shape for each in reduced(Groups((1,)), np.zeros((0, n), np.float32))} == {(0, 1)}


@pytest.mark.parametrize("rows", [3, 1000])
def test_lanes_of_a_group_are_taken_together(rows):
    groups, values = Groups((0,), lanes=4), np.random.default_rng(0).uniform(size=(rows, 4, 5)).astype(np.float32)
    run = jax.jit(lambda values: [(x, groups.gather(x)) for x in reduced(groups, values)])
    found = jax.tree.map(np.asarray, run(values.reshape(rows, 20)))
    for (group_array, gathered), expected in zip(found, REDUCTIONS.values(), strict=True):
        assert group_array.shape == (1, 20)
        each_lane = np.tile(expected(values.astype(float), (0, 1)), (4, 1))
        np.testing.assert_allclose(group_array.reshape(4, 5), each_lane, rtol=1e-6)
        np.testing.assert_array_equal(gathered, group_array[:, :5])


@pytest.mark.parametrize("n", [7, 300, 1009, 4096])
def test_several_sums_are_taken_in_one_pass(n):
    random = np.random.default_rng(n)
    arrays = [random.uniform(size=(3, *shape)).astype(np.float32) for shape in ((n, 6), (6, n))]
    run = jax.jit(lambda arrays: [Groups((axis,)).totals([*arrays[axis]]) for axis in (0, 1)])
    for axis, totals in enumerate(run(arrays)):
        expected = arrays[axis].astype(float).sum(axis + 1, keepdims=True)
        np.testing.assert_allclose(totals, expected, rtol=3e-7)


def test_more_entries_than_a_float_counts_are_counted_in_parts():
    n = 2**24 + 2**12 + 3
    run = jax.jit(lambda one: Groups((0,)).totals([jnp.broadcast_to(one, n)] * 2, in_parts=True))
    coarse, rest, total = map(np.asarray, run(np.float32(1)))
    assert int(coarse[0]) + int(rest[0]) == n
    np.testing.assert_allclose(total, n, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 8, 72, 250, 1009, 4096])
def test_a_count_is_of_the_entries_that_meet_a_condition(n):
    rows = np.random.default_rng(n).uniform(size=(6, n)) < 0.3
    cases = [((0,), rows.T), ((1,), rows), ((0, 1), rows)]
    run = jax.jit(lambda *arrays: [Groups(axes).count_where(x) for (axes, _), x in zip(cases, arrays, strict=True)])
    for (axes, each), count in zip(cases, run(rows.T, rows, rows), strict=True):
        np.testing.assert_array_equal(count, each.sum(axes, keepdims=True))


def test_counts_are_exact_beyond_what_floats_count():
    n = 2**24 + 2**10 + 6

    @partial(jax.jit, compiler_options=AS_USERS_DO)
    def count(number):
        entries = jax.lax.iota(jnp.int32, n)
        return [Groups((0,)).count_where(each) for each in (entries >= number, entries == number, entries >= 0)]

    assert np.ravel(count(3)).tolist() == [n - 3, 1, n]


@pytest.mark.parametrize("n", [5, 600, 5000, 10_007])
def test_a_sample_is_of_some_hundreds_at_even_distances(n):
    sample = np.asarray(jax.jit(Groups((0,)).sample)(np.arange(n, dtype=np.float32)))
    assert len(sample) == n if n < 1024 else 512 <= len(sample) < 1024
    assert len(set(np.diff(sample).tolist())) == 1


def test_total_is_linear_both_ways():
    groups, values = Groups((0,), lanes=2), np.arange(2400, dtype=np.float32).reshape(600, 4)

    @jax.jit
    def run(values):
        gradient = jax.grad(lambda values: groups.gather(groups.total(values))[0, 1])(values)
        return *jax.jvp(groups.total, (values,), (values,)), gradient

    total, tangent, gradient = map(np.asarray, run(values))
    np.testing.assert_allclose(tangent, total, rtol=1e-6)
    np.testing.assert_array_equal(gradient[:, ::2], 0)
    np.testing.assert_array_equal(gradient[:, 1::2], 1)
