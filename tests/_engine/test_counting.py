"""Counts and extremes of groups in one pass, wherever these lie."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin._engine.counting import COUNT, LARGEST, LEAST, SUM, arrange, statistics
from softbin._engine.groups import Groups

NONE = np.iinfo(np.int32).min
LAYOUTS = {
    "columns": ((96, 3), (0,)),
    "columns side by side": ((1009, 10), (0,)),  # a prime number of them
    "many columns": ((4608, 130), (0,)),
    "rows": ((3, 1001), (1,)),
    "long rows": ((2, 40_961), (1,)),  # more than the fields of an integer count
    "short rows": ((5, 7), (1,)),
    "a middle axis": ((2, 601, 4), (1,)),
    "two axes": ((3, 700, 4), (0, 1)),
    "apart": ((65, 3, 70), (0, 2)),
    "all": ((6, 5), (0, 1)),
    "a vector": ((5003,), (0,)),
    "one": ((1,), (0,)),
}
each_layout = pytest.mark.parametrize("manual", [False, True])
each_shape = pytest.mark.parametrize(("shape", "axes"), LAYOUTS.values(), ids=LAYOUTS)


def every_statistic(entries, layout):
    exists = entries > NONE
    found = statistics(
        [
            (COUNT, entries > 0),
            (COUNT, exists),
            (LEAST, jnp.where(exists, entries, np.iinfo(np.int32).max)),
            (COUNT, entries > 5 * 10**8),
            (LARGEST, entries),
            (SUM, jnp.where(entries > 0, 0.5, 0)),
        ],
        layout,
    )
    return [layout.leave_groups(each) for each in found]


@cache
def results(shape, axes, manual):
    """In one program the statistics of values, the values again, positions, and a sample of numbered entries."""
    layout = arrange(shape, Groups(axes), manual=manual)

    @jax.jit
    def run(values, numbers):
        entries = layout.enter(values, NONE)
        sample = layout.sample(layout.enter(numbers, -1), 64)
        return every_statistic(entries, layout), layout.leave(entries), layout.leave(layout.positions()), sample

    numbers = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return jax.tree.map(np.asarray, run(random_values(shape), numbers))


def random_values(shape):
    return np.random.default_rng(0).integers(-(10**9), 10**9, shape).astype(np.int32)


@each_layout
@each_shape
def test_statistics_are_those_of_every_entry(shape, axes, manual):
    values = random_values(shape)
    found, entries, _, _ = results(shape, axes, manual)
    along = {"axis": axes, "keepdims": True}
    counts = [np.sum(each, **along) for each in (values > 0, values > NONE, values > 5 * 10**8)]
    expected = counts[0], counts[1], values.min(**along), counts[2], values.max(**along), counts[0] / 2
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, wanted)
    np.testing.assert_array_equal(entries, values)


@each_layout
@each_shape
def test_positions_are_in_row_major_order(shape, axes, manual):
    _, _, positions, _ = results(shape, axes, manual)
    sizes = [shape[axis] for axis in axes]
    expected = np.arange(np.prod(sizes)).reshape([n if axis in axes else 1 for axis, n in enumerate(shape)])
    np.testing.assert_array_equal(positions, np.broadcast_to(expected, shape))


@each_layout
@each_shape
def test_a_sample_is_of_so_many_entries_and_each_of_another(shape, axes, manual):
    *_, numbers = results(shape, axes, manual)
    lanes = arrange(shape, Groups(axes), manual=manual).lanes
    groups = np.prod(shape) // np.prod([shape[axis] for axis in axes])
    real = numbers[numbers >= 0]
    assert len(np.unique(real)) == real.size
    assert min(16, np.prod(shape) // groups) * groups <= real.size <= 3 * 64 * max(groups, lanes)


def test_what_a_group_has_on_every_lane_is_taken_together():
    values = np.random.default_rng(0).integers(100, size=(50, 4, 5)).astype(np.int32)
    layout = arrange((50, 20), Groups((0,), lanes=4), manual=False)

    @jax.jit
    def run(values):
        (largest,) = statistics([(LARGEST, layout.enter(values, NONE))], layout)
        return layout.leave_groups(largest), layout.positions()

    largest, positions = run(values.reshape(50, 20))
    np.testing.assert_array_equal(largest, np.tile(values.max((0, 1)), 4)[None])
    place = np.broadcast_to((np.arange(50)[:, None] * 4 + np.arange(4))[..., None], (50, 4, 5))
    np.testing.assert_array_equal(np.reshape(positions, (50, 4, 5)), place)


def test_conditions_may_be_more_than_an_integer_counts():
    layout = arrange((2048,), Groups((0,)), manual=False)

    @jax.jit
    def run(entries):
        return statistics([(COUNT, layout.enter(entries % n == 0, False)) for n in (1, 2, 3, 5, 7)], layout)

    assert [np.asarray(count)[0, 0] for count in run(np.arange(2048))] == [2048, 1024, 683, 410, 293]


def test_few_terms_meet_in_one_float():
    """Of a length that is not cut into blocks to the end: off by 8e-5 where the rest was one sum over all lanes."""
    n, weight = 128 * 64 * 65, np.float32(0.3)
    layout = arrange((n,), Groups((0,)), manual=True)
    several = jax.jit(lambda weights: statistics([(SUM, layout.enter(w, 0)) for w in (weights, 2 * weights)], layout))
    found, _ = several(np.full(n, weight))
    np.testing.assert_allclose(found.item(), n * float(weight), rtol=1e-6)
