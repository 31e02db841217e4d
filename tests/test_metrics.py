"""Precision and recall at k, against the mean over all orders of ties."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.metrics import precision_score, recall_score

from softbin import budgets, precision_at_k, recall_at_k

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((4, 50)).astype(np.float32)
LABELS = RNG.integers(0, 2, (4, 50))
SEVEN = np.full(4, 7)


@jax.jit
def both(scores, labels, k, **keywords):
    return precision_at_k(scores, labels, k, **keywords), recall_at_k(scores, labels, k, **keywords)


def measured(*args, **keywords):
    return map(np.asarray, both(*args, **keywords))


def test_without_ties_they_are_those_of_the_k_largest():
    k = np.array([1, 7, 20, 50])
    for precision, recall, scores, labels, number in zip(*measured(SCORES, LABELS, k), SCORES, LABELS, k, strict=True):
        chosen = np.zeros(50, int)
        chosen[np.argsort(-scores)[:number]] = 1
        np.testing.assert_allclose(precision, precision_score(labels, chosen), rtol=1e-6)
        np.testing.assert_allclose(recall, recall_score(labels, chosen), rtol=1e-6)


def test_ties_count_as_the_mean_over_their_orders():
    scores, labels = np.arange(0, -50, -1, np.float32), np.zeros(50, int)
    scores[:6], labels[:6] = [2, 1, 1, 1, 1, 0], [0, 1, 0, 1, 1, 1]
    means = []
    for k in range(1, 7):
        hits = [labels[[0, *tied, 5][:k]].sum() for tied in itertools.permutations(range(1, 5))]
        means.append([np.mean(hits) / k, np.mean(hits) / 4])
    for k in (np.arange(1, 5), np.arange(3, 7)):
        found = both(np.stack([scores] * 4), np.stack([labels] * 4), k)
        np.testing.assert_allclose(np.transpose(found), np.array(means)[k - 1], rtol=1e-6)


def test_masks_weights_and_shares():
    where = RNG.random((4, 50)) < 0.6
    weights = RNG.integers(1, 4, (4, 50))
    found = measured(SCORES, LABELS, budgets.fraction(0.25), where=where, weights=weights)
    for precision, recall, scores, labels, mask, repeats in zip(*found, SCORES, LABELS, where, weights, strict=True):
        scores, labels = (np.repeat(each[mask], repeats[mask]) for each in (scores, labels))
        k = len(scores) / 4
        last = np.sort(scores)[-int(np.ceil(k))]  # its copies are one entry, of which a part is taken
        same, larger = scores == last, scores > last
        hits = labels[larger].sum() + (k - larger.sum()) * labels[same].mean()
        np.testing.assert_allclose([precision, recall], [hits / k, hits / labels.sum()], rtol=1e-5)


def test_lists_with_fewer_entries_count_the_missing_ones_as_not_relevant():
    where = np.arange(50) < np.array([[0], [3], [7], [50]])
    order = np.argsort(np.where(where, -SCORES, np.inf), 1)[:, :7]
    hits = np.take_along_axis(LABELS * where, order, 1).sum(1)
    known = jax.jit(lambda where: [each(SCORES, LABELS, 7, where=where) for each in (precision_at_k, recall_at_k)])
    for found in (known(where), both(SCORES, LABELS, SEVEN, where=where)):
        precision, recall = map(np.asarray, found)
        np.testing.assert_allclose(precision, hits / 7, rtol=1e-6)
        np.testing.assert_allclose(recall[1:], hits[1:] / (LABELS * where)[1:].sum(1), rtol=1e-6)
        assert np.isnan(recall[0])
        some = np.any(LABELS * where, 1)
        assert np.isfinite(np.mean(recall, where=some))
    shares = measured(SCORES, LABELS, budgets.fraction(0.1), where=where, weights=np.ones((4, 50), int))
    assert np.isnan(next(shares)[0])


def test_a_sharded_axis_and_other_axes():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    spread = [jax.device_put(x.T, NamedSharding(mesh, PartitionSpec("batch"))) for x in (SCORES, LABELS)]
    found = jax.jit(lambda *batch: precision_at_k(*batch, 7, axis=0))(*spread)
    np.testing.assert_array_equal(found, both(SCORES, LABELS, SEVEN)[0])


def test_without_positives_recall_is_not_defined():
    precision, recall = measured(SCORES, np.where(np.arange(4)[:, None] == 1, 0, LABELS), SEVEN)
    assert precision[1] == 0
    np.testing.assert_array_equal(np.isnan(recall), np.arange(4) == 1)


def test_they_have_no_gradient():
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: jnp.sum(precision_at_k(x, LABELS, 7))))(SCORES), 0)


def test_a_traced_label_or_number_out_of_range_is_nan_in_its_own_group():
    labels = np.where(np.arange(4)[:, None] == 1, 2, LABELS)
    precision, recall = measured(SCORES, labels, np.array([0, 7, 51, 7]))
    np.testing.assert_array_equal(np.isnan(precision), [True, True, True, False])
    np.testing.assert_array_equal(np.isnan(recall), [True, True, True, False])


@pytest.mark.parametrize(
    ("error", "message", "labels", "k"),
    [
        (ValueError, r"labels with shape \(4,\) must have that of scores, \(4, 50\)", LABELS[:, 0], 7),
        (ValueError, r"label 2 is outside \[0, 1\]", LABELS + 1, 7),
        (TypeError, "labels must be boolean, integer or floating point", LABELS * 1j, 7),
        (ValueError, "k must be positive", LABELS, 0),
        (ValueError, r"0.1 looks like a share of them: pass softbin.budgets.fraction\(0.1\)", LABELS, 0.1),
        (ValueError, "k must be at most n = 50", LABELS, 51),
    ],
)
def test_bad_input_is_named(error, message, labels, k, no_shape_checks):
    for measure in (precision_at_k, recall_at_k):
        with pytest.raises(error, match=message):
            measure(SCORES, labels, k)
