import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin.experiments.training import objectives, selection

LOGITS = jax.random.normal(jax.random.key(0), (20, 3))
LABELS = jnp.array([0] * 10 + [1] * 6 + [2] * 4)
HALF = softbin.budgets.fraction(0.5)
TAU = 2.0
SHARE = 0.6


def objective(name):
    return objectives.objective(name, objectives.Setting(HALF, TAU, np.ones(3)))


def trim(name, by="", per_class=False, share=SHARE):
    ranking = selection.ranking(by, name, objective(name), HALF, TAU)
    schedule = selection.share(share, 0.0, 1)
    return selection.Trim(schedule, ranking, not selection.ranked_by(by, name), 3 if per_class else None)


def trimmed(name, *arguments, **keywords):
    return selection.trimmed(objective(name), trim(name, *arguments, **keywords))(LOGITS, LABELS, jnp.int32(0))


def smallest(errors, share=SHARE):
    """By a sort."""
    return np.argsort(np.argsort(errors)) < round(share * len(errors))


ERRORS = {
    "cross_entropy": -jax.nn.log_softmax(LOGITS)[jnp.arange(20), LABELS],
    "scaled_squares": jnp.sum((LOGITS / TAU - jnp.eye(3)[LABELS]) ** 2, 1),
    "projection": jnp.sum((softbin.soft_binary_argmax(LOGITS, 10, TAU, axis=0) - jnp.eye(3)[LABELS]) ** 2, 1),
}


def test_the_share_falls_from_all_to_what_is_kept_over_the_warm_up():
    share = selection.share(0.6, warmup=0.2, steps=100)
    assert [float(share(step)) for step in (0, 10, 20, 99)] == pytest.approx([1.0, 0.8, 0.6, 0.6])


def test_without_warm_up_the_share_is_what_is_kept_from_the_first_step():
    assert float(selection.share(0.6, warmup=0.0, steps=100)(0)) == pytest.approx(0.6)


@pytest.mark.parametrize("name", [name for name in objectives.OBJECTIVES if objective(name).terms])
def test_a_trimmed_loss_is_the_mean_of_its_smallest_terms(name):
    loss, kept = trimmed(name)
    terms = np.asarray(objective(name).terms(LOGITS, LABELS))
    np.testing.assert_allclose(loss, np.sort(terms)[:12].mean(), rtol=1e-6)
    assert np.sum(terms * kept) == pytest.approx(np.sort(terms)[:12].sum(), rel=1e-6)
    assert np.sum(kept) == 12


def test_a_share_that_is_no_whole_number_of_examples_counts_a_part_of_one():
    loss, kept = trimmed("cross_entropy", share=0.28)
    terms = np.sort(ERRORS["cross_entropy"])
    assert float(loss) == pytest.approx((terms[:5].sum() + 0.6 * terms[5]) / 5.6, rel=1e-6)
    assert np.sum(kept) == 6


@pytest.mark.parametrize("by", selection.RANKINGS)
@pytest.mark.parametrize("name", ["hypersimplex", "fenchel_young", "cross_entropy", "mse"])
def test_another_error_ranks_and_the_loss_is_that_of_the_kept(by, name):
    loss, kept = trimmed(name, by)
    expected = smallest(ERRORS[by])
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_allclose(loss, objective(name).loss(LOGITS[expected], LABELS[expected]), rtol=1e-6)


@pytest.mark.parametrize("name", ["hypersimplex", "fenchel_young"])
def test_a_loss_with_a_projection_ranks_by_its_errors(name):
    np.testing.assert_array_equal(trimmed(name)[1], trimmed(name, "projection")[1])


@pytest.mark.parametrize(("name", "by"), [("cross_entropy", ""), ("hypersimplex", "scaled_squares")])
def test_a_share_of_every_class_is_kept(name, by):
    loss, kept = trimmed(name, by, per_class=True)
    errors, labels = np.asarray(ERRORS[by or name]), np.asarray(LABELS)
    expected = np.concatenate([smallest(errors[labels == c]) for c in range(3)])  # the labels are in order
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_allclose(loss, objective(name).loss(LOGITS[expected], LABELS[expected]), rtol=1e-6)


def test_only_the_examples_that_count_are_ranked():
    where = jnp.arange(20) % 2 == 0
    found = trim("hypersimplex", "projection").kept(LOGITS, LABELS, jnp.int32(0), where)
    alone = trim("hypersimplex", "projection").kept(LOGITS[where], LABELS[where], jnp.int32(0))
    np.testing.assert_array_equal(found[where], alone)
    assert not found[~where].any()


@pytest.mark.parametrize(("name", "by"), [("cross_entropy", ""), ("mse", "projection"), ("hypersimplex", "projection")])
def test_the_gradient_is_that_of_the_loss_of_the_kept(name, by):
    counted = selection.trimmed(objective(name), trim(name, by))
    gradient = jax.grad(lambda logits: counted(logits, LABELS, jnp.int32(0))[0])(LOGITS)
    kept = np.asarray(trimmed(name, by)[1]) > 0
    expected = jax.grad(lambda logits: objective(name).loss(logits, LABELS[kept]))(LOGITS[kept])
    np.testing.assert_allclose(gradient[kept], expected, atol=1e-7)
    assert not gradient[~kept].any()


def test_the_tail_is_the_mean_of_the_largest_terms():
    loss, kept = selection.tail(objective("cross_entropy"), 0.3)(LOGITS, LABELS, jnp.int32(0))
    np.testing.assert_allclose(loss, np.sort(ERRORS["cross_entropy"])[-6:].mean(), rtol=1e-6)
    assert kept is None


def test_the_step_may_be_traced():
    counted = selection.trimmed(objective("mse"), trim("mse")._replace(share=selection.share(0.5, 1.0, 10)))
    losses = jax.jit(jax.vmap(lambda step: counted(LOGITS, LABELS, step)[0]))(jnp.arange(11))
    assert np.all(np.diff(losses) < 0)
