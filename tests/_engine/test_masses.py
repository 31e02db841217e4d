"""Masses as whole numbers: sums of weights that are exact in any order."""

import math
from fractions import Fraction
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softbin._engine.counting import arrange, statistics
from softbin._engine.groups import Groups
from softbin._engine.masses import Mass, Weighed, units_for

RNG = np.random.default_rng(0)


def whole(mass):
    """In fine units of 2^-15 of a coarse one."""
    return [int(coarse) * 2**15 + int(fine) for coarse, fine in zip(*map(np.ravel, mass), strict=True)]


def test_a_share_is_exact_and_rounded_up():
    coarse, fine = RNG.integers(0, 2**30 + 1, 1000), RNG.integers(0, 2**15, 1000)
    shares = np.concatenate([RNG.uniform(0, 1, 500), 2.0 ** -RNG.integers(1, 40, 250), 1 - RNG.uniform(0, 1e-6, 250)])
    shares = np.clip(shares.astype(np.float32), 1e-12, np.nextafter(np.float32(1), np.float32(0)))
    found = jax.jit(lambda mass, share: mass.share(share))(Mass(jnp.int32(coarse), jnp.int32(fine)), shares)
    for mass, share, part in zip(whole((coarse, fine)), shares, whole(found), strict=True):
        units = math.ceil(Fraction(float(share)) * 2**30)
        assert part == -(-mass * units // 2**30)


@cache
def masses_of_rows(n):
    """A program that gives what is of entries, and what is of rows."""
    layout = arrange((3, n), Groups((1,)), manual=False)

    @jax.jit
    def run(weights, share):
        weights = layout.enter(weights, 0)
        units, _ = units_for(weights, weights, layout)
        words = units.words(weights, layout)
        total = units.total(words, layout)
        weighed = Weighed(words, units, total.share(layout.enter_groups(share)), total.coarse, share)
        reach = [weights >= bound for bound in (0.01, 0.9)]
        excess = weighed.excess(statistics(weighed.sums(*reach), layout), jnp.float32)
        entries, rows = ([*words, *reach], [units.coarse, *total, *weighed.target, *excess])
        return [layout.leave(each) for each in entries], [layout.leave_groups(each)[:, 0] for each in rows]

    return run


@pytest.mark.parametrize("n", [2, 7, 1000, 2**17 + 3])
@pytest.mark.parametrize("spread", [1e-6, 2.0, 20.0])
def test_sums_and_what_they_exceed_a_target_by_are_exact(n, spread):
    scores = RNG.standard_normal((3, n)).astype(np.float32) * spread
    weights = np.exp(scores - scores.max(1, keepdims=True))
    shares = np.float32([[0.3], [0.9], [1e-9]])
    (coarse, fine, *reach), (unit, *rows) = jax.tree.map(np.asarray, masses_of_rows(n)(weights, shares))
    total, target, excess = rows[:2], rows[2:4], rows[4:]
    bits = min(15, 31 - math.ceil(math.log2(n)))
    exact = (coarse.astype(np.int64) * 2**bits + fine) * 2 ** (15 - bits)
    assert whole(total) == exact.sum(1).tolist()
    assert np.all((total[0] >= 2**28) & (total[0] <= 2**30))
    found = exact / unit[:, None].astype(np.float64) / 2**15
    np.testing.assert_allclose(found, weights, rtol=0, atol=float(2.0 ** (-bits - 1) / unit.min()))
    share = np.abs(found.sum(1) / weights.astype(np.float64).sum(1) - 1)
    assert np.all(share <= max(n * 2.0**-44, n**2 * 2.0**-60))
    for condition, each in zip(reach, excess, strict=True):
        wanted = (exact * condition).sum(1) - np.array(whole(target))
        np.testing.assert_array_equal(np.sign(each), np.sign(wanted))
        np.testing.assert_allclose(each, wanted, rtol=1e-6)
