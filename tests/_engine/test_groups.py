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
each_reduction = pytest.mark.parametrize(("reduction", "expected"), REDUCTIONS.items())


@pytest.mark.parametrize("n", [1, 256, 257, 10_007, 65_536, 1_000_003])
def test_total_matches_fsum_on_long_axes(n):
    values = np.random.default_rng(n).uniform(size=n).astype(np.float32)
    np.testing.assert_allclose(
        jax.jit(Groups((0,)).total, compiler_options=AS_USERS_DO)(values), [math.fsum(values)], rtol=3e-7
    )


@each_reduction
@pytest.mark.parametrize("n", [3, 1000, 1009])
def test_other_axes_are_kept(reduction, expected, n):
    values = np.random.default_rng(0).uniform(size=(3, n, 2)).astype(np.float32)
    np.testing.assert_allclose(
        reduction(Groups((1,)), jnp.asarray(values)), expected(values, 1, keepdims=True), rtol=1e-6
    )


@each_reduction
@pytest.mark.parametrize("n", [300, 70_000])
def test_no_groups_have_no_sums(reduction, expected, n):
    del expected
    assert reduction(Groups((1,)), jnp.zeros((0, n))).shape == (0, 1)


@each_reduction
@pytest.mark.parametrize("rows", [3, 1000])
def test_lanes_of_a_group_are_taken_together(reduction, expected, rows):
    groups, values = Groups((0,), lanes=4), np.random.default_rng(0).uniform(size=(rows, 4, 5)).astype(np.float32)
    group_array = reduction(groups, jnp.asarray(values.reshape(rows, 20)))
    assert group_array.shape == (1, 20)
    each_lane = np.tile(expected(values.astype(float), (0, 1)), (4, 1))
    np.testing.assert_allclose(group_array.reshape(4, 5), each_lane, rtol=1e-6)
    np.testing.assert_array_equal(groups.gather(group_array), group_array[:, :5])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n", [7, 300, 1009, 4096])
def test_several_sums_are_taken_in_one_pass(axis, n):
    values = np.random.default_rng(n).uniform(size=(3, *((n, 6) if axis == 0 else (6, n)))).astype(np.float32)
    totals = jax.jit(Groups((axis,)).totals)([*jnp.asarray(values)])
    np.testing.assert_allclose(totals, values.astype(float).sum(axis + 1, keepdims=True), rtol=3e-7)


def test_more_entries_than_a_float_counts_are_counted_in_parts():
    ones = jnp.broadcast_to(jnp.float32(1), (2**24 + 2**12 + 3,))
    coarse, rest, total = jax.jit(lambda x: Groups((0,)).totals([x, x], in_parts=True))(ones)
    assert int(coarse[0]) + int(rest[0]) == ones.size
    np.testing.assert_allclose(total, ones.size, rtol=1e-6)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("n", [1, 8, 72, 250, 1009, 4096])
def test_a_count_is_of_the_entries_that_meet_a_condition(axes, n):
    values = np.random.default_rng(n).uniform(size=(n, 6) if axes == (0,) else (6, n)) < 0.3
    np.testing.assert_array_equal(Groups(axes).count_where(jnp.asarray(values)), values.sum(axes, keepdims=True))


def test_counts_are_exact_beyond_what_floats_count():
    n = 2**24 + 2**10 + 6

    @partial(jax.jit, compiler_options=AS_USERS_DO)
    def count(number):
        entries = jax.lax.iota(jnp.int32, n)
        return [Groups((0,)).count_where(each) for each in (entries >= number, entries == number, entries >= 0)]

    assert [int(each[0]) for each in count(3)] == [n - 3, 1, n]


@pytest.mark.parametrize("n", [5, 600, 5000, 10_007])
def test_a_sample_is_of_some_hundreds_at_even_distances(n):
    sample = Groups((0,)).sample(jnp.arange(n, dtype=jnp.float32))
    assert len(sample) == n if n < 1024 else 512 <= len(sample) < 1024
    assert len(set(np.diff(sample).tolist())) == 1


def test_total_is_linear_both_ways():
    groups, values = Groups((0,), lanes=2), jnp.arange(2400.0).reshape(600, 4)
    _, tangent = jax.jvp(groups.total, (values,), (values,))
    np.testing.assert_allclose(tangent, groups.total(values), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda v: groups.gather(groups.total(v))[0, 1])(values)[:, ::2], 0)
    np.testing.assert_array_equal(jax.grad(lambda v: groups.gather(groups.total(v))[0, 1])(values)[:, 1::2], 1)
