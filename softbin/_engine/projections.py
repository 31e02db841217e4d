"""Projections: what a batch, a budget and a temperature ask of the solver, and what it finds."""

from typing import Any, NamedTuple

from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real, Shaped

from softbin._engine import thresholds
from softbin._engine.arguments import Arguments, Problem, prepare
from softbin._engine.batches import Batch, Budget, batch_budget, prepare_batch
from softbin._engine.search import Equation, Threshold
from softbin.regularizers import Regularizer


class Projection(NamedTuple):
    """A batch, and the problem of projecting each of its classes over the examples."""

    batch: Batch
    problem: Problem


def prepare_projection(
    logits: Float[ArrayLike, "*examples classes"],
    labels: Shaped[ArrayLike, "..."] | None,
    budget: Budget,
    temperature: Real[ArrayLike, "..."],
    where: Bool[ArrayLike, "..."] | None,
    weights: Real[ArrayLike, "..."] | None,
    axis_name: Any = None,
) -> Projection:
    """The problem that losses and decisions pose; arguments as checked by `softbin._engine.batches.run_on_batch`."""
    batch = prepare_batch(logits, labels, where, weights, axis_name)
    k = batch_budget(batch, budget)
    return Projection(batch, prepare(Arguments(batch.logits, k, temperature, weights=batch.weights), batch.groups))


class Solution(NamedTuple):
    """The thresholds of a problem; what follows from them is worked out where it is asked for."""

    problem: Problem
    found: Threshold
    regularizer: Regularizer

    def excess(self) -> Float[Array, "*shape"]:
        """`u = x/τ - λ`."""
        return thresholds.excess(self.problem.scores, self.found, self.problem.temperature)

    def projected(self) -> Float[Array, "*shape"]:
        """`ψ(x/τ - λ)`."""
        return self.regularizer.link(self.excess())

    def centre(self) -> Float[Array, "*group"]:
        """`λ`, in the middle of its interval where it is free to move."""
        of = self.problem
        return thresholds.centre(of.scores, self.found, of.temperature, of.weights, of.groups, self.regularizer)


def solve_in_rounds(problem: Problem, regularizer: Regularizer) -> tuple[Solution, Int[Array, ""]]:
    """`solve`, without a derivative, and how many rounds the search took."""
    scores, k, temperature, weights, groups, k_rest, _ = problem
    equation = Equation(scores, k, temperature, weights, groups, regularizer, k_rest)
    found, rounds = thresholds.find(equation, groups)
    return Solution(problem, found, regularizer), rounds


def solve(problem: Problem, regularizer: Regularizer) -> Solution:
    """Search for the thresholds, once."""
    found = thresholds.solve(
        problem.scores,
        problem.k,
        problem.temperature,
        problem.weights,
        problem.groups,
        regularizer,
        k_rest=problem.k_rest,
    )
    return Solution(problem, found, regularizer)
