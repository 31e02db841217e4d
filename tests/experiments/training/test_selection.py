import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import softbin
from softbin.experiments.training import objectives, selection

LOGITS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
LABELS = np.array([0] * 10 + [1] * 6 + [2] * 4)
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
    counted = selection.trimmed(objective(name), trim(name, *arguments, **keywords))
    return lambda logits, labels: counted(logits, labels, jnp.int32(0))


def smallest(errors, share=SHARE):
    """By a sort."""
    return np.argsort(np.argsort(errors)) < round(share * len(errors))


@functools.cache
def errors():
    own = (np.arange(20), LABELS)
    one_hot = np.eye(3)[LABELS]
    return {
        "cross_entropy": -special.log_softmax(LOGITS, axis=1)[own],
        "scaled_squares": np.sum((LOGITS / TAU - one_hot) ** 2, 1),
        "projection": np.sum((np.asarray(softbin.soft_binary_argmax(LOGITS, 10, TAU, axis=0)) - one_hot) ** 2, 1),
    }


WITH_TERMS = ("cross_entropy", "scaled_mse")  # trimming sees nothing else of a loss than its terms
BY_ANOTHER = [  # each error, and losses with a projection and without
    ("cross_entropy", "hypersimplex"),
    ("scaled_squares", "mse"),
    ("projection", "fenchel_young"),
    ("projection", "cross_entropy"),
]
PER_CLASS = [("", "cross_entropy"), ("scaled_squares", "hypersimplex")]


def expected_of_class(by, name):
    return np.concatenate([smallest(errors()[by or name][c == LABELS]) for c in range(3)])  # the labels are in order


@functools.cache
def found():
    """What trimming in each of these ways gives, and what it is compared with; one shape, for few programs."""
    batch = jnp.asarray(LOGITS), jnp.asarray(LABELS)

    def of_kept(name, kept):
        return objective(name).loss(jnp.asarray(LOGITS[kept]), jnp.asarray(LABELS[kept]))

    return jax.device_get(
        {
            "own": {name: trimmed(name)(*batch) for name in (*WITH_TERMS, "hypersimplex")},
            "terms": {name: objective(name).terms(*batch) for name in WITH_TERMS},
            "by": {(by, name): trimmed(name, by)(*batch) for by, name in BY_ANOTHER},
            "of_kept": {(by, name): of_kept(name, smallest(errors()[by])) for by, name in BY_ANOTHER},
            "per_class": {(by, name): trimmed(name, by, per_class=True)(*batch) for by, name in PER_CLASS},
            "of_class": {(by, name): of_kept(name, expected_of_class(by, name)) for by, name in PER_CLASS},
        }
    )


def test_the_share_falls_from_all_to_what_is_kept_over_the_warm_up():
    share = selection.share(0.6, warmup=0.2, steps=100)
    assert [float(share(step)) for step in (0, 10, 20, 99)] == pytest.approx([1.0, 0.8, 0.6, 0.6])


def test_without_warm_up_the_share_is_what_is_kept_from_the_first_step():
    assert float(selection.share(0.6, warmup=0.0, steps=100)(0)) == pytest.approx(0.6)


@pytest.mark.parametrize("name", WITH_TERMS)
def test_a_trimmed_loss_is_the_mean_of_its_smallest_terms(name):
    loss, kept = found()["own"][name]
    terms = found()["terms"][name]
    np.testing.assert_allclose(loss, np.sort(terms)[:12].mean(), rtol=1e-6)
    assert np.sum(terms * kept) == pytest.approx(np.sort(terms)[:12].sum(), rel=1e-6)
    assert np.sum(kept) == 12


def test_a_share_that_is_no_whole_number_of_examples_counts_a_part_of_one():
    loss, kept = jax.jit(trimmed("cross_entropy", share=0.28))(LOGITS, LABELS)
    terms = np.sort(errors()["cross_entropy"])
    assert float(loss) == pytest.approx((terms[:5].sum() + 0.6 * terms[5]) / 5.6, rel=1e-6)
    assert np.sum(kept) == 6


@pytest.mark.parametrize(("by", "name"), BY_ANOTHER)
def test_another_error_ranks_and_the_loss_is_that_of_the_kept(by, name):
    loss, kept = found()["by"][by, name]
    np.testing.assert_array_equal(kept, smallest(errors()[by]))
    np.testing.assert_allclose(loss, found()["of_kept"][by, name], rtol=1e-6)


def test_a_loss_with_a_projection_ranks_by_its_errors():
    np.testing.assert_array_equal(found()["own"]["hypersimplex"][1], smallest(errors()["projection"]))
    assert all(selection.ranked_by("", name) == "projection" for name in objectives.DEFAULT_BUDGETS)


@pytest.mark.parametrize(("by", "name"), PER_CLASS)
def test_a_share_of_every_class_is_kept(by, name):
    loss, kept = found()["per_class"][by, name]
    np.testing.assert_array_equal(kept, expected_of_class(by, name))
    np.testing.assert_allclose(loss, found()["of_class"][by, name], rtol=1e-6)


def test_only_the_examples_that_count_are_ranked():
    kept = trim("hypersimplex", "projection").kept
    where = np.arange(20) % 2 == 0
    found = np.asarray(kept(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.int32(0), jnp.asarray(where)))
    alone = kept(jnp.asarray(LOGITS[where]), jnp.asarray(LABELS[where]), jnp.int32(0))
    np.testing.assert_array_equal(found[where], alone)
    assert not found[~where].any()


@pytest.mark.parametrize(("name", "by"), [("cross_entropy", ""), ("mse", "projection"), ("hypersimplex", "projection")])
def test_the_gradient_is_that_of_the_loss_of_the_kept(name, by):
    kept = smallest(errors()[by or name])

    @jax.jit
    def gradients(logits, labels):
        of_all = jax.grad(lambda logits: trimmed(name, by)(logits, labels)[0])(logits)
        return of_all, jax.grad(objective(name).loss)(logits[kept], labels[kept])

    gradient, expected = map(np.asarray, gradients(LOGITS, LABELS))
    np.testing.assert_allclose(gradient[kept], expected, atol=1e-7)
    assert not gradient[~kept].any()


def test_the_tail_is_the_mean_of_the_largest_terms():
    tail = selection.tail(objective("cross_entropy"), 0.3)
    loss, kept = jax.jit(tail)(LOGITS, LABELS, jnp.int32(0))
    np.testing.assert_allclose(loss, np.sort(errors()["cross_entropy"])[-6:].mean(), rtol=1e-6)
    assert kept is None


def test_the_step_may_be_traced():
    counted = selection.trimmed(objective("mse"), trim("mse")._replace(share=selection.share(0.5, 1.0, 10)))
    losses = jax.jit(jax.vmap(lambda *batch: counted(*batch)[0], (None, None, 0)))(LOGITS, LABELS, np.arange(11))
    assert np.all(np.diff(losses) < 0)
