"""Sums and largest entries of groups, wherever these lie."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin.groups import Groups
from tests.compiling import AS_USERS_DO

REDUCTIONS = {Groups.total: np.sum, Groups.plain_total: np.sum, Groups.largest: np.max}
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
def test_flags_add_up_along_any_axis(axis):
    flags = np.random.default_rng(0).integers(2, size=(2, 300, 96)).astype(np.float32)
    totals = Groups((axis,)).total_flags([*jnp.asarray(flags)])
    np.testing.assert_array_equal(totals, flags.sum(axis + 1, keepdims=True))


@pytest.mark.parametrize(("k", "places"), [(1, (0, 1)), (2, (1, 2)), (2.5, (2, 2)), (4, (3, 4))])
def test_either_side_of_a_rank_is_found_in_short_groups(k, places):
    values = np.random.default_rng(0).choice(9, (50, 6)).astype(np.float32)
    sides = Groups((1,)).either_side(jnp.asarray(values), jnp.full((50, 1), k, jnp.float32))
    np.testing.assert_array_equal(jnp.hstack(sides), -np.sort(-values)[:, places])
    assert Groups((0,)).either_side(jnp.asarray(values), jnp.ones((1, 6))) is None


def test_total_is_linear_both_ways():
    groups, values = Groups((0,), lanes=2), jnp.arange(2400.0).reshape(600, 4)
    _, tangent = jax.jvp(groups.total, (values,), (values,))
    np.testing.assert_allclose(tangent, groups.total(values), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda v: groups.gather(groups.total(v))[0, 1])(values)[:, ::2], 0)
    np.testing.assert_array_equal(jax.grad(lambda v: groups.gather(groups.total(v))[0, 1])(values)[:, 1::2], 1)
