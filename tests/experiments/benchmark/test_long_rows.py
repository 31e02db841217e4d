import jax
import numpy as np
import pytest

from softbin.experiments.benchmark import bisection, sorting
from softbin.experiments.benchmark.cases import make_batch
from softbin.experiments.benchmark.inputs import INPUTS
from softbin.experiments.benchmark.long_rows import IMPLEMENTATIONS, LEVELS, K, P
from softbin.experiments.benchmark.problems import Size

ROWS, LENGTH = 2, 96
KINDS = [kind for kind in INPUTS if kind != "flat, 1e-6"]  # of which single entries weigh less than a rounding


def results(case, size):
    batch = make_batch(size)
    programs = {name: each.build(batch) for name, each in IMPLEMENTATIONS[case].items()}
    return np.asarray(batch.logits), {name: program.forward_backward() for name, program in programs.items()}


def nucleus(logits, p):
    """By a sort in float64."""
    falling = -np.sort(-logits.astype(np.float64))
    mass = np.cumsum(np.exp(falling - falling[:, :1]), 1)
    last = np.minimum(np.sum(mass < p * mass[:, -1:], 1, keepdims=True), logits.shape[1] - 1)
    return logits >= np.take_along_axis(falling, last, 1)


def largest(logits, k):
    return logits >= -np.sort(-logits)[:, k - 1 : k]


def kept(result):
    """Of a mask or of logits that are minus infinity outside of one."""
    logits = jax.tree.leaves(result)[0]
    return np.asarray(logits if logits.dtype == bool else np.isfinite(logits))


def test_all_masks_of_the_nucleus_are_the_same():
    logits, found = results("top-p", Size("top-p", ROWS, LENGTH))
    for name, mask in found.items():
        np.testing.assert_array_equal(kept(mask), nucleus(logits, P), name)


def test_all_masks_of_the_k_largest_are_the_same():
    logits, found = results("top-k", Size("top-k", ROWS, LENGTH))
    values, _ = found.pop("jax.lax.top_k, static k")
    np.testing.assert_array_equal(values, -np.sort(-logits)[:, :K])
    for name, mask in found.items():
        np.testing.assert_array_equal(kept(mask), largest(logits, K), name)


def test_all_that_truncate_leave_the_same():
    logits, found = results("top-k and top-p", Size("top-k and top-p", ROWS, LENGTH))
    found.pop("softbin.sampling.top_p_mask alone")
    expected = nucleus(np.where(largest(logits, K), logits, -np.inf), P)
    for name, left in found.items():
        np.testing.assert_array_equal(kept(left), expected, name)


def test_all_quantiles_are_the_same():
    values, found = results("quantile", Size("quantile", 200, 1))
    for name, quantile in found.items():
        levels = 0.5 if "median" in name else LEVELS if "three" in name else LEVELS[-1]
        np.testing.assert_allclose(quantile, np.quantile(values, levels), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("module", [bisection, sorting])
def test_peers_are_right_on_every_kind_of_logits(module):
    top_k_mask, top_p_mask = jax.jit(module.top_k_mask), jax.jit(module.top_p_mask)
    for kind in KINDS:
        logits = np.asarray(make_batch(Size("top-k", 3, LENGTH, kind)).logits)
        k, p = np.array([1, 7, LENGTH]), np.array([0.1, 0.9, 0.99], np.float32)
        expected = np.concatenate([largest(logits[row : row + 1], k[row]) for row in range(3)])
        np.testing.assert_array_equal(top_k_mask(logits, k), expected, kind)
        expected = np.concatenate([nucleus(logits[row : row + 1], p[row]) for row in range(3)])
        np.testing.assert_array_equal(top_p_mask(logits, p), expected, kind)


def test_bisection_reaches_infinities_and_ties():
    logits = np.float32([[np.inf, 1.0, -0.0, 0.0, -np.inf]])
    mask = jax.jit(bisection.top_k_mask)
    assert [int(mask(logits, np.array([k])).sum()) for k in range(1, 6)] == [1, 2, 4, 4, 5]
    tied = np.array([1.0, 2.0, 2.0, 2.0, 5.0], np.float32)
    found = [float(jax.jit(bisection.quantile)(tied, level)) for level in np.float32([0, 0.125, 0.5, 0.875, 1])]
    assert found == [1, 1.5, 2, 3.5, 5]
