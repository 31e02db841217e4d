"""Masks, truncated distributions and draws, against sorts in float64; the same on every mesh."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from softbin.sampling import min_p_mask, sample, top_k_mask, top_p_mask, truncate
from tests.compiling import AS_USERS_DO
from tests.test_sharding import collectives

RNG = np.random.default_rng(0)
ROWS, SIZE = 64, 300
CLOSE = 3e-7  # how near to the probability of a set p is either: what float32 rounds, of exponentials and their sum
PROBABILITIES = np.float32([0.5, 0.3, 0.15, 0.05])
LADDER = np.float32([0.1, 0.25, 0.5, 0.7, 0.9, 0.95, 0.99, 0.9999, 1.0])
NORMAL = RNG.standard_normal((ROWS, SIZE))
INPUTS = {
    "normal": 2 * NORMAL,
    "peaked": 10 * NORMAL,
    "flat": 3 + 1e-3 * NORMAL,
    "nearly equal": 3 + 1e-6 * NORMAL,
    "bfloat16": np.asarray(jnp.asarray(2 * NORMAL, jnp.bfloat16)),
    "many ties": np.round(NORMAL),
    "equal": np.broadcast_to(RNG.integers(-3, 4, (ROWS, 1)), NORMAL.shape),
    "far apart": NORMAL * 10.0 ** RNG.integers(-3, 31, (ROWS, 1)),
    "some left out": np.where(RNG.random(NORMAL.shape) < 0.5, -np.inf, 2 * NORMAL),
    "Zipf": -RNG.uniform(0.5, 2, (ROWS, 1)) * np.log(RNG.permuted(np.tile(np.arange(1, SIZE + 1), (ROWS, 1)), axis=1)),
}
each_input = pytest.mark.parametrize("logits", [np.float32(each) for each in INPUTS.values()], ids=INPUTS)
properties = settings(max_examples=50, deadline=None, derandomize=True)
small = partial(arrays, np.float32, (4, 9))


def masks_of(ties):
    def masks(logits, k, p, temperature):
        return top_k_mask(logits, k, ties=ties), top_p_mask(logits, p, temperature, ties=ties)

    return masks


masks_that_keep_ties = jax.jit(masks_of("keep"))
masks_that_cut_ties = jax.jit(masks_of("first"), compiler_options=AS_USERS_DO)  # which are the others and more
masks_beside_the_largest = jax.jit(min_p_mask, compiler_options=AS_USERS_DO)


def in_order(logits, k, p, temperature, least, last=False):
    order = {"temperature": temperature, "temperature_last": last}
    return truncate(logits, top_k=k, top_p=p, min_p=least, **order)


truncated = {
    False: jax.jit(in_order, compiler_options=AS_USERS_DO),
    True: jax.jit(partial(in_order, last=True)),
}
"""By whether the temperature is last, which is only which logits are searched."""


def parameters(seed):
    rng = np.random.default_rng(seed)
    k = np.where(np.arange(ROWS) % 2, rng.integers(0, SIZE + 2, ROWS), rng.integers(1, 20, ROWS)).astype(np.int32)
    p = np.where(np.arange(ROWS) % 3, rng.choice(LADDER, ROWS), rng.uniform(0.001, 0.999, ROWS)).astype(np.float32)
    temperature = rng.choice(np.float32([1, 1, 0.5, 0.7, 1.3, 5, 1e-6, 0]), ROWS)
    return k, p, temperature, rng.choice(np.float32([0, 0, 0.01, 0.1, 0.5, 1]), ROWS)


OFF = {"temperature": np.ones(8, np.float32), "top_k": np.zeros(8, np.int32), "top_p": np.ones(8, np.float32)}
OFF["min_p"] = np.zeros(8, np.float32)


@jax.jit
def drawn_and_truncated(key, logits, numbers):
    """Of eight rows, each with its own numbers."""
    return sample(key, logits, **numbers), truncate(logits, **numbers)


def eight_rows(row):
    """A short row, eight times."""
    return np.tile(np.pad(np.float32(row), (0, SIZE - len(row)), constant_values=-np.inf), (8, 1))


def probabilities(logits):
    top = logits.max(-1, keepdims=True)
    weights = np.exp(np.where(logits == top, 0, logits - top))
    return weights / weights.sum(-1, keepdims=True)


def places(logits):
    """Of each token, in falling order, equal ones in that of their indices."""
    return np.argsort(np.argsort(-logits, -1, kind="stable"), -1)


def of_rank(logits, k, ties):
    n = logits.shape[-1]
    k = np.where((k <= 0) | (k >= n), n, k)[:, None]
    value = np.take_along_axis(-np.sort(-logits, -1), k - 1, -1)
    return (logits >= value if ties == "keep" else places(logits) < k) & (logits > -np.inf)


def above(logits, weights):
    """What is strictly above each token."""
    order = np.argsort(-logits, -1, kind="stable")
    values, sums = (np.take_along_axis(each, order, -1) for each in (-logits, weights))
    sums = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums, -1)], -1)
    return np.stack([s[np.searchsorted(v, -x)] for s, v, x in zip(sums, values, logits, strict=True)])


def check_nucleus(kept, logits, p, ties):
    """It weighs p, and would not without its last."""
    weights, exists = probabilities(logits), logits > -np.inf
    assert kept.any(-1).all()
    np.testing.assert_array_equal(kept[p >= 1], exists[p >= 1])
    kept, logits, weights, exists, p = (each[p < 1] for each in (kept, logits, weights, exists, p))
    mass = (weights * kept).sum(-1)
    assert np.all(mass >= p - CLOSE)
    last = np.where(kept, logits, np.inf).min(-1, keepdims=True)
    if ties == "keep":
        np.testing.assert_array_equal(kept, (logits >= last) & exists)
        assert np.all((weights * (logits > last)).sum(-1) < p + CLOSE)
    else:
        np.testing.assert_array_equal(kept, places(logits) < kept.sum(-1, keepdims=True))
        one = np.where(logits == last, weights, 0).max(-1)
        assert np.all(mass - one < p + CLOSE)


def single(logits):
    return places(logits) == 0


# Masks


@each_input
def test_masks_are_those_of_sorts_in_double_precision(logits):
    k, p, temperature, least = parameters(1)
    exact, greedy = logits.astype(np.float64), temperature < 1e-5
    scaled = (logits / np.where(greedy, 1, temperature)[:, None]).astype(np.float64)
    for ties, masks in (("keep", masks_that_keep_ties), ("first", masks_that_cut_ties)):
        of_k, of_p = map(np.asarray, masks(logits, k, p, temperature))
        np.testing.assert_array_equal(of_k, of_rank(exact, k, ties))
        check_nucleus(of_p[~greedy], scaled[~greedy], p[~greedy], ties)
        np.testing.assert_array_equal(of_p[greedy], single(exact)[greedy])
    shares, wanted = probabilities(scaled), least[:, None].astype(np.float64)
    shares /= shares.max(-1, keepdims=True)
    kept = np.where(greedy[:, None], single(exact), (shares >= wanted) & (exact > -np.inf))
    unclear = (np.abs(shares - wanted) < CLOSE * wanted) & ~greedy[:, None]
    beside = np.asarray(masks_beside_the_largest(logits, least, temperature))
    np.testing.assert_array_equal(beside | unclear, kept | unclear)


@each_input
@pytest.mark.parametrize("last", [False, True], ids=["temperature first", "temperature last"])
def test_a_truncation_is_by_rank_then_by_mass_of_the_rest_then_beside_the_largest(logits, last):
    k, p, temperature, least = parameters(2)
    kept, normalizer = (np.asarray(each, np.float64) for each in truncated[last](logits, k, p, temperature, least))
    exact, greedy = logits.astype(np.float64), temperature < 1e-5
    scaled = (logits / np.where(greedy, 1, temperature)[:, None]).astype(np.float64)
    searched = exact if last else scaled
    ranked = np.where(of_rank(searched, k, "keep"), searched, -np.inf)
    weights = probabilities(ranked)
    before, shares = above(ranked, weights), weights / weights.max(-1, keepdims=True)
    wanted, off = least[:, None].astype(np.float64), p[:, None] >= 1
    must, may = (
        (ranked > -np.inf) & ((before < p[:, None] - slack) | off) & ((shares >= wanted * (1 + slack)) | (wanted == 0))
        for slack in (CLOSE, -CLOSE)
    )
    must, may = (np.where(greedy[:, None], single(exact), each) for each in (must, may))
    found = kept > -np.inf
    assert not np.any(must & ~found)
    assert not np.any(found & ~may)
    top = np.where(found, scaled, -np.inf).max(-1, keepdims=True)
    logarithms = scaled - top - np.log(np.where(found, np.exp(np.minimum(scaled - top, 0)), 0).sum(-1, keepdims=True))
    error = np.where(found, kept, 0) - normalizer[:, None] - logarithms
    np.testing.assert_array_less(np.abs(error[found]), np.broadcast_to(3e-6 + 3e-7 * np.abs(top), found.shape)[found])


SMALL = st.sampled_from(np.float32([-np.inf, -1e30, -2, -1, -0.0, 0.0, 1e-6, 1, 2, 1e30]))
NUMBERS = st.integers(0, 10), st.sampled_from(LADDER), st.sampled_from([0.5, 1, 2])


@given(small(elements=SMALL), st.data())
@properties
def test_any_small_logits(logits, data):
    k, p, temperature = (np.float32([data.draw(each) for _ in range(4)]) for each in NUMBERS)
    logits[:, 3] = np.maximum(logits[:, 3], -3)
    exact = logits.astype(np.float64)
    for ties, found in zip(("keep", "first"), masks_of_both(logits, k.astype(np.int32), p, temperature), strict=True):
        mask, nucleus = map(np.asarray, found)
        np.testing.assert_array_equal(mask, of_rank(exact, k.astype(int), ties))
        check_nucleus(nucleus, exact / temperature[:, None], p, ties)


@jax.jit
def masks_of_both(*arguments):
    return [masks_of(ties)(*arguments) for ties in ("keep", "first")]


def test_a_vocabulary_of_32_000():
    logits = np.random.default_rng(3).standard_normal((9, 32_000)).astype(np.float32) * 2
    k = np.array([1, 2, 50, 1000, 4001, 16_000, 31_999, 32_000, 0])
    found, nuclei = jax.jit(lambda x, k, p: (top_k_mask(x, k), [top_p_mask(x, p, ties=t) for t in ("keep", "first")]))(
        logits, k, LADDER
    )
    np.testing.assert_array_equal(found, of_rank(logits, k, "keep"))
    for ties, nucleus in zip(("keep", "first"), nuclei, strict=True):
        check_nucleus(np.asarray(nucleus), logits.astype(np.float64), LADDER, ties)


def test_a_set_that_has_exactly_p_ends_the_nucleus():
    n = 8192
    parts = np.array([1, 7, 1000, 4096, 8191])
    cut = jax.jit(partial(top_p_mask, ties="first"))
    found = cut(np.full((5, n), 0.3, np.float32), (parts / n).astype(np.float32))
    np.testing.assert_array_equal(found, np.arange(n) < parts[:, None])
    equal = np.where(np.arange(n) < 8, 0, -np.inf).astype(np.float32)
    assert cut(np.tile(equal, (5, 1)), np.full(5, 0.5, np.float32)).sum() == 5 * 4
    assert top_p_mask(equal, 0.5).sum() == 8


def test_equal_probabilities_by_the_thousand_beside_a_few():
    """Small ones are not lost in the sum: of one token with half of all, and of 100,000 that share the other half."""
    n = 100_000
    logits = np.zeros(n + 1, np.float32)
    logits[7] = np.log(n)
    kept = np.asarray(jax.jit(partial(top_p_mask, ties="first"))(logits, np.float32(0.75)))
    weights = probabilities(logits.astype(np.float64))
    assert abs(kept.sum() - 1 - np.ceil((0.75 - weights[7]) / weights[0])) <= 1
    assert kept[: kept.sum()].all()
    assert np.asarray(top_p_mask(logits, 0.75)).all()


def test_numbers_of_any_kind_and_shape_mean_the_same():
    logits = np.float32(INPUTS["normal"][:6]).reshape(2, 3, SIZE)
    expected = top_k_mask(logits, 5)
    for k in (np.full(3, 5, np.int8), jnp.full((2, 1), 5.2), jnp.bfloat16(5)):  # and below 7.0 and a np.uint64
        np.testing.assert_array_equal(top_k_mask(logits, k), expected)
    moved = np.moveaxis(logits, -1, 1)
    for axis in (1, -2):
        np.testing.assert_array_equal(np.moveaxis(top_k_mask(moved, 5, axis=axis), 1, -1), expected)
    nuclei = np.asarray(top_p_mask(logits, np.full((2, 3), 0.5), 2))
    np.testing.assert_array_equal(nuclei, top_p_mask(logits, 0.5, jnp.int32(2)))
    np.testing.assert_array_equal(top_p_mask(logits[0, 0], 0.5, 2), nuclei[0, 0])


def test_off_as_serving_engines_write_it_keeps_all():
    logits = np.float32([[1, -np.inf, 3, 2, -1e30]])
    exists = logits > -np.inf
    traced = jax.jit(lambda x, k, p, least: (top_k_mask(x, k), top_p_mask(x, p), min_p_mask(x, least)))
    for k in (0, -1, 5, 99, 2**40, np.int64(-1), jnp.float32(-1.2)):
        np.testing.assert_array_equal(top_k_mask(logits, k), exists)
    for p in (1, 1.0, 1.5, jnp.float32(1), jnp.inf):
        np.testing.assert_array_equal(top_p_mask(logits, p), exists)
    for p in (0, 0.0):
        np.testing.assert_array_equal(min_p_mask(logits, p), exists)
    for k, p in ((0, 1.0), (-1, 1.0), (5, 1.5), (99, jnp.inf)):
        for found in traced(logits, k, p, 0.0):
            np.testing.assert_array_equal(found, exists)


def test_where_leaves_no_other_token_and_a_row_without_any_is_empty():
    logits, where = np.float32(INPUTS["normal"][:8]), RNG.random((8, SIZE)) < 0.3
    where[3], where[4] = False, np.arange(SIZE) == 9
    logits[2, ~where[2]] = np.nan  # which do not exist
    expected = np.where(where, logits, -np.inf)
    everywhere = np.ones_like(where)
    for mask in (partial(top_k_mask, k=7.0), partial(top_p_mask, p=0.8), partial(min_p_mask, p=0.1)):
        found = np.asarray(mask(logits, where=where))
        np.testing.assert_array_equal(found, mask(expected, where=everywhere))
        assert not found[3].any()
        assert found[4].sum() == found[4, 9] == 1
    kept, normalizer = truncate(logits, top_p=0.8, where=where)
    assert np.all(kept[3] == -np.inf)
    assert normalizer[3] == 0
    tokens, logarithms = sample(jax.random.key(0), logits, where=where)
    assert tokens.tolist()[3:5] == [-1, 9]
    assert logarithms.tolist()[3:5] == [-np.inf, 0]


def test_zeros_are_equal_and_infinite_logits_share_all_of_it():
    zeros = np.float32([-0.0, 0.0, -1, -0.0, 0.0])
    np.testing.assert_array_equal(top_k_mask(zeros, 1), zeros == 0)
    np.testing.assert_array_equal(top_k_mask(zeros, 2, ties="first"), [1, 1, 0, 0, 0])
    infinite = np.float32([1, np.inf, 5, np.inf, -np.inf])
    numbers = OFF | {"top_p": np.float32([0.9] + [1] * 7), "top_k": np.int32([0, 4, 0, 4, 0, 0, 0, 0])}
    numbers |= {"min_p": np.float32([0, 0, 0.5] + [0] * 5), "temperature": np.float32([1, 1, 1, 2, 1, 1, 1, 1])}
    drawn = []
    for seed in range(25):
        (tokens, _), (kept, normalizer) = drawn_and_truncated(jax.random.key(seed), eight_rows(infinite), numbers)
        drawn.extend(tokens)
    shares = np.exp(np.asarray(kept) - np.asarray(normalizer)[:, None])
    np.testing.assert_allclose(shares, np.broadcast_to(np.isin(np.arange(SIZE), [1, 3]) / 2, (8, SIZE)), rtol=1e-6)
    counts = np.bincount(drawn, minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert min(counts[[1, 3]]) > 60


def test_narrow_logits_are_those_of_single_precision():
    run = truncated[True]
    for dtype in (jnp.bfloat16, np.float16):
        logits = INPUTS["normal"].astype(dtype)
        found, expected = (run(each, *parameters(4)) for each in (logits, logits.astype(np.float32)))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        assert found.logits.dtype == jnp.float32


def test_double_precision_tells_apart_what_single_does_not(x64):
    logits = np.array([0.0, 1e-12, 2e-12, -1.0])
    np.testing.assert_array_equal(top_p_mask(logits, 0.29), [0, 0, 1, 0])
    np.testing.assert_array_equal(top_k_mask(logits, np.uint64(2)), [0, 1, 1, 0])
    kept, normalizer = truncate(logits, top_k=3)
    assert kept.dtype == normalizer.dtype == np.float64
    assert sample(jax.random.key(0), logits, top_k=1).tokens == 2


def test_orders_that_engines_differ_in():
    """At T = 5 and p = 0.7 those that divide last draw from two tokens, and others from more."""
    logits = np.log(PROBABILITIES)
    numbers = OFF | {"temperature": np.float32([5, 1, 1, 1] * 2), "top_k": np.int32([0, 3, 3, 3] * 2)}
    numbers |= {"top_p": np.float32([0.7, 0.85, 0.84, 1] * 2)}
    _, (kept, _) = drawn_and_truncated(jax.random.key(0), eight_rows(logits), numbers)
    assert (kept > -np.inf).sum(1).tolist() == [3, 3, 2, 3] * 2
    last, normalizer = truncate(logits, temperature=5, top_p=0.7, temperature_last=True)
    assert (last > -np.inf).tolist() == [True, True, False, False]
    expected = np.exp(logits[:2].astype(np.float64) / 5)
    np.testing.assert_allclose(np.exp(last - normalizer)[:2], expected / expected.sum(), rtol=1e-6)
    kept = truncate(logits, top_k=3, where=top_p_mask(logits, 0.9)).logits > -np.inf  # where both see all of the mass
    np.testing.assert_array_equal(kept, [True, True, True, False])


@pytest.mark.parametrize("last", [False, True])
def test_gradients_are_those_of_the_kept(last):
    logits, temperature = np.float32(INPUTS["normal"][0, :40]), np.float32(1.7)
    best = np.argmax(logits)

    def kept_and_normalizer(logits, temperature):
        return truncate(logits, temperature=temperature, top_k=20, top_p=0.9, temperature_last=last)

    def logarithm(logits, temperature):
        kept, normalizer = kept_and_normalizer(logits, temperature)
        return kept[best] - normalizer

    def plain(logits, temperature):
        is_kept = kept_and_normalizer(*jax.lax.stop_gradient((logits, temperature))).logits > -jnp.inf
        scaled = logits / temperature
        return scaled[best] - jax.nn.logsumexp(jnp.where(is_kept, scaled, -jnp.inf))

    found, expected = jax.jit(lambda *x: [jax.grad(each, (0, 1))(*x) for each in (logarithm, plain)])(
        logits, temperature
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_draws_and_masks_have_no_gradient():
    @jax.jit
    def gradients(logits):
        of_draws = jax.grad(lambda x: sample(jax.random.key(0), x).log_probabilities)(logits)
        return of_draws, jax.grad(lambda x: jnp.where(top_k_mask(x, 5), x, 0).sum())(logits)

    of_draws, of_masked = map(np.asarray, gradients(np.float32(INPUTS["normal"][0, :40])))
    assert not of_draws.any()
    assert of_masked.sum() == 5


# Draws


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frequencies_are_the_probabilities(dtype):
    logits = np.log([0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01]).astype(jnp.dtype(dtype))
    numbers = {"temperature": 1.5, "top_k": 6, "top_p": 0.97}
    kept, normalizer = (np.asarray(each, np.float64) for each in truncate(logits.astype(np.float32), **numbers))
    expected = np.exp(kept - normalizer)
    tokens, logarithms = sample(jax.random.key(7), np.tile(logits, (20_000, 1)), **numbers)
    counts, possible = np.bincount(tokens, minlength=7), expected > 0
    assert counts[~possible].sum() == 0
    wanted = expected[possible] * len(tokens)
    assert ((counts[possible] - wanted) ** 2 / wanted).sum() < 20.5  # 5 degrees of freedom: one in a thousand
    np.testing.assert_allclose(np.exp(logarithms), expected[tokens], rtol=1e-5)


def test_draws_of_equal_narrow_logits_reach_all_indices():
    tokens = np.asarray(sample(jax.random.key(1), np.zeros((400, 16_000), jnp.bfloat16)).tokens)
    assert tokens.max() > 15_500
    assert abs(tokens.mean() / 16_000 - 0.5) < 0.06
    assert len(np.unique(tokens)) > 390


def test_cold_rows_take_the_most_likely_token_and_of_equal_ones_the_first():
    logits = np.float32([[1, 5, 5, 2]] * 4)
    tokens, logarithms = sample(jax.random.key(0), logits, temperature=np.float32([0, 1e-6, 0, 1]), top_k=1)
    assert tokens.tolist()[:3] == [1, 1, 1]
    assert logarithms.tolist()[:3] == [0, 0, 0]
    assert tokens[3] in (1, 2)
    np.testing.assert_allclose(logarithms[3], np.log(0.5), rtol=1e-6)
    for others in ({}, {"top_p": 0.1}, {"temperature_last": True}):
        tokens, logarithms = sample(jax.random.key(0), logits, temperature=0.0, **others)
        assert tokens.tolist() == [1] * 4
        assert logarithms.tolist() == [0] * 4


def test_a_draw_does_not_depend_on_the_batch_or_on_padding():
    logits = np.float32(INPUTS["normal"][:5])
    key, keys = jax.random.key(3), jax.random.split(jax.random.key(4), 5)
    numbers = {"top_k": 40}
    tokens, logarithms = sample(key, logits, **numbers)
    others = np.concatenate([logits[:3], np.zeros_like(logits[3:])])
    np.testing.assert_array_equal(sample(key, others, **numbers).tokens[:3], tokens[:3])
    padded = np.pad(logits, [(0, 0), (0, 45)], constant_values=-np.inf)
    exists = padded > -np.inf
    for each, where in ((padded, np.ones_like(exists)), (np.nan_to_num(padded), exists)):
        each = sample(key, each, where=where, **numbers)
        np.testing.assert_array_equal(each.tokens, tokens)
        np.testing.assert_allclose(each.log_probabilities, logarithms, rtol=1e-6)
    for row in (0, 4):
        alone = sample(jax.random.fold_in(key, row), logits[row], **numbers)
        assert alone.tokens == tokens[row]
    one_each = sample(keys, logits, **numbers).tokens
    np.testing.assert_array_equal(jax.vmap(lambda key, x: sample(key, x, **numbers).tokens)(keys, logits), one_each)
    np.testing.assert_array_equal(sample(jax.random.key_data(keys), logits, **numbers).tokens, one_each)
    np.testing.assert_array_equal(sample(jax.random.PRNGKey(3), logits, **numbers).tokens, tokens)
    moved = sample(key, logits.T, axis=0, **numbers)
    np.testing.assert_array_equal(moved.tokens, tokens)


def test_one_program_serves_rows_that_differ():
    logits = np.float32(INPUTS["normal"][:8])
    key = jax.random.key(5)
    numbers = {
        "temperature": np.float32([1, 0, 0.7, 2, 1, 1, 1, 1]),
        "top_k": np.int32([0, 3, 5, 50, 300, 1, -1, 9]),
        "top_p": np.float32([1, 0.5, 0.9, 0.99, 0.3, 0.9, 1, 1]),
        "min_p": np.float32([0, 0, 0.1, 0, 0, 0, 0.3, 1]),
    }
    (tokens, logarithms), (kept, normalizer) = drawn_and_truncated(key, logits, numbers)
    for row in (1, 3, 6):  # what the others ask for does not matter, nor that there are others: see above
        alike, _ = drawn_and_truncated(key, logits, {name: np.repeat(each[row], 8) for name, each in numbers.items()})
        assert alike.tokens[row] == tokens[row]
    chosen = np.take_along_axis(np.asarray(kept), np.asarray(tokens)[:, None], 1)[:, 0]
    np.testing.assert_allclose(chosen - normalizer, logarithms, atol=1e-5)


def test_drawing_from_what_is_left_gives_the_same_tokens():
    logits, (k, p, temperature, least) = np.float32(INPUTS["normal"][:8]), parameters(7)
    names = ("top_k", "top_p", "temperature", "min_p")
    numbers = dict(zip(names, (each[:8] for each in (k, p, temperature, least)), strict=True))
    directly, left = drawn_and_truncated(jax.random.key(6), logits, numbers)
    afterwards = sample(jax.random.key(6), left.logits)
    np.testing.assert_array_equal(afterwards.tokens, directly.tokens)
    np.testing.assert_allclose(afterwards.log_probabilities, directly.log_probabilities, atol=1e-6)


# What is wrong


def test_nan_and_traced_numbers_out_of_range_mark_their_own_row_alone():
    logits = np.float32(INPUTS["normal"][:8])
    logits[1, 5] = np.nan
    numbers = OFF | {
        "temperature": np.float32([1, 1, -1, np.nan, np.inf, 1, 1, 1]),
        "top_k": np.int32([5] * 5 + [-2, 5, 5]),
        "top_p": np.float32([0.9] * 6 + [0, np.nan]),
    }
    (tokens, logarithms), (kept, normalizer) = drawn_and_truncated(jax.random.key(0), logits, numbers)
    wrong = np.arange(8) > 0
    np.testing.assert_array_equal(np.isnan(logarithms), wrong)
    np.testing.assert_array_equal(np.isnan(normalizer), wrong)
    np.testing.assert_array_equal(np.isnan(kept).all(1), wrong)
    np.testing.assert_array_equal(tokens == -1, wrong)
    assert np.asarray(kept[0] > -np.inf).sum() <= 5
    masks = jax.jit(lambda x, k, p: (top_k_mask(x, k), top_p_mask(x, p), min_p_mask(x, p)))
    of_k, of_p, of_least = masks(logits, numbers["top_k"], np.float32([0.5, 0.5, -1, 2, np.nan, 1, 0.5, 0.5]))
    np.testing.assert_array_equal(of_k.any(1), [1, 0, 1, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(of_p.any(1), [1, 0, 0, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(of_least.any(1), [1, 0, 0, 0, 0, 1, 1, 1])


# Shards


DEVICES = 8
KEY = jax.random.key(0)
WIDE, WHOLE = PartitionSpec(None, "v"), PartitionSpec()
LONG = np.round(2 * np.random.default_rng(6).standard_normal((4, 8 * 192)), 2).astype(np.float32)
REQUESTS = {
    "temperature": np.float32([1, 0.7, 1.5, 0]),
    "top_k": np.array([0, 50, 300, 9]),
    "top_p": np.float32([0.9, 1, 0.5, 0.99]),
}


def serve(key, logits, requests, axis_name=None):
    """Where equal tokens are kept, and where they are cut: what finds a set is the same for distributions and draws."""
    kept, normalizer = truncate(logits, **requests, axis_name=axis_name)
    tokens, logarithms = sample(key, logits, **requests, ties="first", axis_name=axis_name)
    return kept, (tokens, normalizer, logarithms)


@cache
def served():
    return jax.tree.map(np.asarray, jax.jit(serve)(KEY, LONG, REQUESTS))


def check_served(found):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(served()), strict=True):
        compare = partial(np.testing.assert_allclose, rtol=1e-6) if a.ndim == 1 else np.testing.assert_array_equal
        compare(a, b, err_msg=jax.tree_util.keystr(path))
    np.testing.assert_array_equal(found[1][0], served()[1][0])


def only_small_sums(program):
    assert {kind for kind, _ in collectives(program.as_text())} == {"all-reduce"}
    assert max(size for _, size in collectives(program.as_text())) <= 8 * len(LONG)


@pytest.mark.parametrize(("kind", "count"), [("Auto", 2), ("Explicit", 8)])
def test_a_sharded_vocabulary_has_the_same_tokens_and_only_sums_of_rows_travel(kind, count):
    mesh = jax.make_mesh((count,), ("v",), axis_types=(AxisType[kind],), devices=jax.devices()[:count])
    logits = jax.device_put(LONG, NamedSharding(mesh, WIDE))
    program = jax.jit(serve).lower(KEY, logits, REQUESTS).compile()
    found = program(KEY, logits, REQUESTS)
    check_served(found)
    assert found[0].sharding.is_equivalent_to(logits.sharding, 2)
    only_small_sums(program)


def test_shards_of_a_mapped_axis_have_the_same_tokens():
    mesh = jax.make_mesh((DEVICES,), ("v",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        partial(serve, axis_name="v"), mesh=mesh, in_specs=(WHOLE, WIDE, WHOLE), out_specs=(WIDE, WHOLE)
    )
    program = jax.jit(mapped).lower(KEY, LONG, REQUESTS).compile()
    check_served(program(KEY, LONG, REQUESTS))
    only_small_sums(program)
