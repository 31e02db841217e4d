"""Hard choices and masks that run on chip are the same to the bit as those of XLA, and lower for TPU and GPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import softbin
from softbin import binary_argmax, cutoff, kth_largest, sampling
from softbin._engine.groups import Groups
from softbin._engine.kernels import Interpreted, arrays, rounds
from tests._engine.kernels.platforms import CUSTOM_CALLS, each_kernel, each_platform, lowered

RNG = np.random.default_rng(0)
N = 700  # a whole piece of a row, and a part of one
NORMAL = RNG.standard_normal((10, N)).astype(np.float32)


def hard_rows():
    """As many as do not fill a block."""
    rows = NORMAL.copy()
    rows[1] = np.round(rows[1])
    rows[2] = 3.5
    rows[3, ::3], rows[3, 1] = -np.inf, np.inf
    rows[4] = 3 + 1e-6 * rows[4]
    rows[5, 7] = np.nan
    rows[6] = np.where(rows[6] < 0, -0.0, 0.0)
    rows[7] *= 1e-39
    rows[8, :3] = 1e30, 1e30, -1e30
    rows[9] = -np.inf
    return rows


ROWS = hard_rows()
MASK = RNG.random(ROWS.shape) < 0.7
MASK[0] = False
COUNTS = np.array([3, 250, 400, N - 100, 350, 5, 300, N, 2, 0], np.int32)


def same(found, expected):
    for each, one in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert each.dtype == one.dtype
        np.testing.assert_array_equal(np.asarray(each, np.float64), np.asarray(one, np.float64))


def each_way(function, *arguments):
    """In one program, by XLA and by each kernel."""
    expected, *found = jax.jit(lambda *x: [function(*x, implementation=each) for each in (None, *Interpreted)])(
        *arguments
    )
    for each in found:
        same(each, expected)
    return expected


def test_choices_in_rows_are_the_same():
    """With the gradient, which needs a choice among equal entries."""

    def choices(scores, k, where, implementation):
        how = {"where": where, "implementation": implementation}
        value, pull_back = jax.vjp(partial(kth_largest, k=k, **how), scores)
        return value, *pull_back(jnp.ones_like(value)), cutoff(scores, k, **how)

    each_way(choices, ROWS, COUNTS, MASK)


def test_choices_in_columns_are_the_same():
    """More than fill a block, and of bfloat16, of which many are equal."""
    columns = np.tile(ROWS.T[:70], 14)[:, :131].astype(jnp.bfloat16)
    each_way(partial(binary_argmax, axis=0), columns, np.arange(131) % 71)


def test_truncations_are_the_same():
    def truncated(logits, k, p, implementation):
        return sampling.truncate(logits, top_k=k, top_p=p, ties="first", implementation=implementation).logits

    k, p = np.maximum(COUNTS, 40), np.linspace(0.05, 1, len(ROWS), dtype=np.float32)
    logits = np.where(np.isnan(ROWS), np.nan, np.clip(2 * ROWS, -1e30, 1e30))
    each_way(truncated, logits, k, p)


@each_kernel
def test_long_rows_are_the_same(implementation):
    logits = RNG.standard_normal((1, 151_936)).astype(np.float32)
    mask = jax.jit(partial(sampling.top_k_mask, k=50, implementation=implementation))(logits)
    np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(np.argsort(logits[0])[-50:]))


@each_kernel
def test_kernels_map(implementation):
    find = partial(kth_largest, k=5, implementation=implementation)
    same(jax.jit(jax.vmap(find))(NORMAL), np.sort(NORMAL)[:, -5])


CHOICES = {
    "kth_largest": partial(kth_largest, k=3),
    "its gradient": jax.grad(lambda scores, **how: kth_largest(scores, 3, **how).sum()),
    "binary_argmax": partial(binary_argmax, k=3),
    "cutoff": partial(cutoff, k=3),
    "top_k_mask": partial(sampling.top_k_mask, k=50),
    "top_p_mask": partial(sampling.top_p_mask, p=0.9, ties="first"),
    "truncate": partial(sampling.truncate, top_p=0.9),
    "sample": lambda logits, **how: sampling.sample(jax.random.key(0), logits, top_k=3, **how),
}


SCORES = np.zeros((4, 1000), np.float32)


@each_platform
@pytest.mark.parametrize("name", CHOICES)
def test_choices_lower(platform, name):
    assert CUSTOM_CALLS[platform] in lowered(partial(CHOICES[name], implementation="pallas"), platform, SCORES)


@each_platform
@pytest.mark.parametrize("name", ["its gradient", "top_p_mask", "sample"])  # of every kernel one
def test_no_kernel_is_used_unasked(platform, name):
    assert CUSTOM_CALLS[platform] not in lowered(CHOICES[name], platform, SCORES)


@each_platform
@pytest.mark.parametrize("shape", [(3,), (300, 50), (2, 3, 2**18)], ids=str)
def test_lengths_lower(platform, shape):
    mask = partial(sampling.top_p_mask, p=0.9, implementation="pallas")
    assert CUSTOM_CALLS[platform] in lowered(mask, platform, jax.ShapeDtypeStruct(shape, jnp.bfloat16))


@each_platform
def test_axes_lower(platform):
    find = partial(kth_largest, k=3, axis=(0, 1), implementation="pallas")
    assert CUSTOM_CALLS[platform] in lowered(find, platform, np.zeros((100, 2, 40), np.float32))


@each_platform
def test_what_kernels_do_not_take_is_left_to_xla(platform):
    find = partial(kth_largest, k=3, implementation="pallas")
    assert CUSTOM_CALLS[platform] not in lowered(find, platform, np.zeros(2**18 + 1, np.float32))
    assert CUSTOM_CALLS[platform] not in lowered(partial(find, weights=np.ones(8)), platform, np.zeros(8, np.float32))


@each_platform
def test_float64_is_left_to_xla_and_on_tpu_float32_beside_it(platform, x64):
    for choose in (kth_largest, softbin.soft_binary_argmax):
        choose = partial(choose, k=3, implementation="pallas")
        assert CUSTOM_CALLS[platform] not in lowered(choose, platform, np.zeros(8))
        program = lowered(choose, platform, np.zeros(1000, np.float32))
        assert (CUSTOM_CALLS[platform] in program) is (platform == "cuda")


def test_small_fast_memory_has_no_place_for_masses(monkeypatch):
    monkeypatch.setattr(arrays, "fast_memory", lambda: 2**24)
    for find, has_place in ((partial(kth_largest, k=3), True), (partial(sampling.top_p_mask, p=0.9), False)):
        program = lowered(partial(find, implementation="pallas"), "tpu", np.zeros((8, 2**18), np.float32))
        assert (CUSTOM_CALLS["tpu"] in program) is has_place


def test_other_platforms_count_by_xla():
    same(kth_largest(NORMAL, 3, implementation="pallas"), np.sort(NORMAL)[:, -3])


def test_shards_are_left_to_xla():
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("rows")
    find = partial(kth_largest, k=3, implementation="pallas")
    sharded = jax.shard_map(find, mesh=mesh, in_specs=spec, out_specs=spec)
    same(jax.jit(sharded)(NORMAL), np.sort(NORMAL)[:, -3])


def test_unknown_implementation_is_named():
    for choose in CHOICES.values():
        with pytest.raises(ValueError, match=r'implementation must be None, "xla" or "pallas", got \'cuda\''):
            choose(NORMAL, implementation="cuda")


def test_gpus_that_mosaic_does_not_support_are_left_to_xla(monkeypatch):
    monkeypatch.setattr(arrays, "device_has_kernels", lambda: False)
    assert rounds.chosen("pallas", jnp.zeros(8), None, Groups((0,))) is None
