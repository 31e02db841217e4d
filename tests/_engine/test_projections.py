"""A batch and a budget become a problem, whose solution keeps the budget of every class."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from softbin._engine.batches import by_example
from softbin._engine.projections import prepare_projection, solve, solve_in_rounds
from softbin._engine.search import most_rounds

N, CLASSES, TEMPERATURE = 24, 3, 1.5
RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.standard_normal((N, CLASSES), np.float32)
LABELS = RNG.integers(0, CLASSES, N)
WEIGHTS = RNG.uniform(0.5, 2, N).astype(np.float32)
WHERE = np.arange(N) % 4 > 0
COUNTED = WEIGHTS * WHERE
REGULARIZERS = {"euclidean": softbin.euclidean, "binary_entropy": softbin.binary_entropy}
each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)


@partial(jax.jit, static_argnums=2)
def solved(logits, k, regularizer):
    """By example, what is projected and `x/τ - λ`; `λ` and its derivative by `k`; and `λ` and rounds without one."""

    def prepared(k):
        return prepare_projection(logits, None, k, TEMPERATURE, WHERE, WEIGHTS)

    def thresholds(k):
        batch, problem = prepared(k)
        solution = solve(problem, regularizer)
        entries = [by_example(x, batch.groups.lanes) for x in (solution.projected(), solution.excess())]
        return batch.groups.gather(solution.centre())[0], entries

    lam, by_k, entries = jax.jvp(thresholds, (k,), (jnp.ones_like(k),), has_aux=True)
    batch, problem = prepared(k)
    again, rounds = solve_in_rounds(problem, regularizer)
    return *entries, lam, by_k, batch.groups.gather(again.centre())[0], rounds


@each_regularizer
def test_what_is_projected_sums_to_the_budget_of_every_class(regularizer):
    k = np.float32([2.5, 7, 12])
    p, u, lam, by_k, lam_again, rounds = map(np.asarray, solved(LOGITS, k, regularizer))
    np.testing.assert_allclose(COUNTED @ p, k, rtol=1e-5)
    link, slope = jax.jit(lambda u: (regularizer.link(u), regularizer.parts(u).slope))(u)
    np.testing.assert_allclose(p, link, rtol=1e-6)
    np.testing.assert_allclose(u[WHERE], LOGITS[WHERE] / TEMPERATURE - lam, atol=1e-5)
    np.testing.assert_allclose(by_k, -1 / (COUNTED @ np.asarray(slope)), rtol=1e-4)
    np.testing.assert_allclose(lam_again, lam, rtol=1e-6)
    assert 0 < rounds < most_rounds(np.float32)


def test_budgets_are_numbers_counts_of_labels_and_functions():
    def spread(targets, weights):
        assert targets.shape == (N, CLASSES)
        assert weights.shape == (N,)
        return jnp.sum(weights) / CLASSES

    per_class = np.float32([1, 2, 3])
    cases = (
        (4, [4] * CLASSES),
        (per_class, per_class),
        (softbin.budgets.label_count, COUNTED @ np.eye(CLASSES)[LABELS]),
        (spread, [COUNTED.sum() / CLASSES] * CLASSES),
        (COUNTED.sum() + 1, [COUNTED.sum()] * CLASSES),  # of examples, though fewer count
        (2 * COUNTED.size + 1, [np.nan] * CLASSES),  # more than all would weigh
    )

    def budget_of_classes(budget):
        problem = prepare_projection(LOGITS, LABELS, budget, TEMPERATURE, WHERE, WEIGHTS).problem
        return problem.groups.gather(problem.k)[0]

    found = jax.jit(lambda: [budget_of_classes(budget) for budget, _ in cases])()
    for each, (_, expected) in zip(found, cases, strict=True):
        np.testing.assert_allclose(each, expected, rtol=1e-6)


def test_masked_examples_do_not_exist():
    @jax.jit
    def masked(logits):
        batch, problem = prepare_projection(logits, LABELS, 4, TEMPERATURE, WHERE, None)
        assert batch.classes == CLASSES
        by_examples = [by_example(x, batch.groups.lanes) for x in (problem.scores, batch.targets)]
        return *by_examples, problem.mask, problem.scores > -jnp.inf

    scores, targets, mask, exists = masked(LOGITS)
    np.testing.assert_array_equal(scores, np.where(WHERE[:, None], LOGITS, -np.inf))
    np.testing.assert_array_equal(mask, exists)
    np.testing.assert_array_equal(targets, np.eye(CLASSES)[LABELS] * WHERE[:, None])
