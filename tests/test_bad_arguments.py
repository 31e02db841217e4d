"""Every public function with every kind of mistake: an error in the caller's words."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import softbin
from softbin import budgets, routing, sampling
from softbin.adapters import flax_linen, flax_nnx, gbdt
from softbin.adapters import optax as projections

# One array for all: 4 groups of 6, 4 examples of 6 classes, 4 tokens and 6 experts.
X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
LABELS = np.array([0, 5, 2, 1])
BIAS = np.zeros(6, np.float32)
TREE = {"a": X[0], "b": X[1], "step": 3}


class Mistake(NamedTuple):
    """A wrong value, and what a message shows of it: one of several, between bars."""

    value: Any
    shown: str


def _function(*_):
    return np.ones(5, np.float32)


NO_NUMBER = {
    "string": Mistake("two", "'two'"),
    "None": Mistake(None, "None"),
    "type": Mistake(float, "float"),
    "object": Mistake({"two": 2}, "two"),
}
NOT_REAL = {**NO_NUMBER, "truth value": Mistake(True, "bool|True"), "complex": Mistake(2j, "complex|2j")}
ARRAY = {
    **NO_NUMBER,
    "list": Mistake([0.5, 1.0], "[0.5, 1.0]"),
    "long list": Mistake([0.25] * 999, "0.25"),
    "strings": Mistake(np.array(["two"]), "'two'"),
    "integers": Mistake(np.arange(24).reshape(4, 6), "int"),
    "truth values": Mistake(X > 0, "bool"),
    "complex": Mistake(1j * X, "complex64"),
}
ENTRIES = {
    **ARRAY,
    "float8": Mistake(jnp.zeros((4, 6), jnp.float8_e4m3fn), "float8_e4m3fn"),
    "scalar": Mistake(np.float32(1), "scalar|()"),
    "no entries": Mistake(X[:, :0], "(4, 0)"),
}
LOGITS = {name: ENTRIES[name] for name in (*ARRAY, "float8", "scalar")}
MORE_LOGITS = {**LOGITS, "of other classes": Mistake(X[:, :5], "(4, 5)")}
AMOUNT = {
    **NOT_REAL,
    "list": Mistake([2, 2, 2, 2], "2, 2, 2, 2"),
    "negative": Mistake(-1, "-1"),
    "one negative": Mistake(np.array([1, 1, 1, -2]), "-2"),
    "NaN": Mistake(np.nan, "nan"),
    "infinite": Mistake(np.inf, "inf"),
    "too large": Mistake(99, "99"),
    "of another shape": Mistake(np.ones(5, np.float32), "(5,)|1., 1., 1., 1., 1."),
}
COUNT = {
    **AMOUNT,
    "function": Mistake(_function, "_function"),
    "share of another shape": Mistake(budgets.prior([0.1, 0.2]), "(2,)"),
}
SHARE_AS_NUMBER = {"share as number": Mistake(0.5, "fraction(0.5)")}
SHARES_AS_NUMBERS = {"shares as numbers": Mistake(np.array([0.1, 0.2, 0.3, 0.4]), "prior([0.1, 0.2, 0.3, 0.4])")}
NOT_WHOLE = {"not whole": Mistake(2.5, "2.5"), "one not whole": Mistake(np.array([2, 2, 2.5, 2]), "2.5")}
ZERO = {"zero": Mistake(0, "0"), "share of none": Mistake(budgets.fraction(0.0), "0")}
ONE_INTEGER = {
    **AMOUNT,
    "not whole": Mistake(2.0, "2.0"),
    "share": Mistake(budgets.fraction(0.5), "fraction(0.5)"),
    "truth value": Mistake(True, "True"),
    "complex": Mistake(2j, "2j"),
    "NaN": Mistake(np.nan, "nan"),
    "of another shape": Mistake(np.array([2, 2]), "[2, 2]"),
    "one negative": Mistake(np.array([2, -2]), "[ 2, -2]"),
}
EXPERTS = {
    **{name: mistake for name, mistake in COUNT.items() if name not in ("one negative", "share of another shape")},
    "zero": Mistake(0, "0"),
    "all": Mistake(6, "6"),
    "not whole": Mistake(2.5, "2.5"),
    "share": Mistake(budgets.fraction(0.5), "fraction(0.5)"),
}
BUDGET = {
    **{name: AMOUNT[name] for name in AMOUNT if name != "type"},
    **SHARE_AS_NUMBER,
    "shares as numbers": Mistake(np.full(6, 0.5), "prior([0.5, 0.5, 0.5, 0.5, 0.5, 0.5])"),
    "one negative": Mistake(np.array([1, 1, 1, 1, 1, -2]), "-2"),
    "share of another shape": Mistake(budgets.prior([0.1, 0.2]), "(2,)"),
    "function that gives another shape": Mistake(_function, "(5,)"),
    "function that gives nothing": Mistake(lambda targets, weights: None, "None"),
    "function that gives a string": Mistake(lambda targets, weights: "two", "'two'"),
}
POSITIVE = {
    **NOT_REAL,
    "list": Mistake([1.0], "1.0"),
    "negative": Mistake(-1.0, "-1."),
    "NaN": Mistake(np.nan, "nan"),
    "infinite": Mistake(np.inf, "inf"),
}
OF_ANOTHER_SHAPE = {"of another shape": Mistake(np.ones(5, np.float32), "(5,)|1., 1., 1., 1., 1.")}
TEMPERATURE = {**POSITIVE, **OF_ANOTHER_SHAPE, "zero": Mistake(0.0, "0")}
TEMPERATURE_OR_ZERO = {
    **POSITIVE,
    **OF_ANOTHER_SHAPE,
    "zero for some": Mistake(np.array([0, 1, 1, 1]), "[0 1 1 1]|[0, 1, 1, 1]"),
}
AXIS = {
    "too large": Mistake(2, "2"),
    "too small": Mistake(-3, "-3"),
    "one too large": Mistake((0, 2), "2"),
    "not whole": Mistake(0.5, "0.5"),
    "string": Mistake("rows", "'rows'"),
    "repeated": Mistake((1, -1), "(1, -1)"),
    "none": Mistake((), "()"),
}
ONE_AXIS = {**AXIS, "several": Mistake((0, 1), "(0, 1)"), "all": Mistake(None, "None")}
AXIS_NAME = {"unbound": Mistake("shards", "'shards'"), "list": Mistake(["shards"], "'shards'")}
MASK = {
    "integers": Mistake(np.ones((4, 6), int), "int"),
    "list": Mistake([True] * 4, "[True, True, True, True]"),
    "string": Mistake("all", "'all'"),
    "of another shape": Mistake(np.ones(5, bool), "(5,)"),
}
TOKENS = {**MASK, "of all logits": Mistake(np.ones((4, 6), bool), "(4, 6)")}
WEIGHTS = {
    "negative": Mistake(np.array([[1], [1], [1], [-2.0]]), "-2"),
    "NaN": Mistake(X[:, :1] * np.nan, "nan"),
    "string": Mistake("two", "'two'"),
    "list": Mistake([1.0, 2.0], "[1.0, 2.0]"),
    "complex": Mistake(np.ones(4) * 1j, "complex"),
    **OF_ANOTHER_SHAPE,
}
WEIGHTS_OF_EXAMPLES = {
    **WEIGHTS,
    "negative": Mistake(np.array([1, 1, 1, -2.0]), "-2"),
    "NaN": Mistake(LABELS * np.nan, "nan"),
}
LABELS_OF_CLASSES = {
    "string": Mistake("two", "'two'"),
    "strings": Mistake(np.array(["a", "b", "a", "b"]), "'a'"),
    "list": Mistake([0, 5, 2, 1], "[0, 5, 2, 1]"),
    "complex": Mistake(X * 1j, "complex64"),
    "of another shape": Mistake(np.zeros(5, int), "(5,)"),
    "too large": Mistake(np.array([0, 6, 2, 1]), "6"),
    "negative": Mistake(np.array([0, -1, 2, 1]), "-1"),
    "fractions": Mistake(np.float32([0, 1, 2, 1]), "float32"),
    "above 1": Mistake(np.full((4, 6), 1.5), "1.5"),
    "NaN": Mistake(X * np.nan, "nan"),
}
NO_LABELS = {"None": Mistake(None, "None|none")}
LABELS_OF_ENTRIES = {name: LABELS_OF_CLASSES[name] for name in ("string", "list", "complex", "of another shape", "NaN")}
LABELS_OF_ENTRIES |= {**NO_LABELS, "above 1": Mistake(np.full((4, 6), 2), "2")}
THRESHOLDS = {
    "string": Mistake("two", "'two'"),
    "list": Mistake([0.0, 1.0], "[0.0, 1.0]"),
    "complex": Mistake(BIAS * 1j, "complex64"),
    "of another shape": Mistake(np.zeros(5, np.float32), "(5,)"),
    "by example": Mistake(X, "(4, 6)"),
}
REGULARIZER = {"name": Mistake("euclidean", "'euclidean'"), "None": Mistake(None, "None")}
IMPLEMENTATION = {
    "unknown": Mistake("cuda", "'cuda'"),
    "as for tests": Mistake("interpreted as for TPU", "'interpreted as for TPU'"),
    "number": Mistake(3, "3"),
    "list": Mistake(["xla"], "['xla']"),
}
VECTOR = {**ARRAY, **OF_ANOTHER_SHAPE}
GATE = {
    "unknown": Mistake("tanh", "'tanh'"),
    "None": Mistake(None, "None"),
    "list": Mistake(["softmax"], "'softmax'"),
}
SCALE = {**POSITIVE, **OF_ANOTHER_SHAPE, "zero": Mistake(0, "0")}
MOMENTUM = {
    **NO_NUMBER,
    "one": Mistake(1, "1"),
    "negative": Mistake(-0.5, "-0.5"),
    "NaN": Mistake(np.nan, "nan"),
    "several": Mistake(np.ones(2) / 2, "[0.5, 0.5]"),
}
SIZE = {
    "string": Mistake("two", "'two'"),
    "not whole": Mistake(2.5, "2.5"),
    "negative": Mistake(-1, "-1"),
    "several": Mistake((2, 3), "(2, 3)"),
    "truth value": Mistake(True, "True"),
}
SHAPE = {
    "string": Mistake("ab", "'ab'"),
    "of strings": Mistake(("a",), "('a',)"),
    "not whole": Mistake((2.5,), "(2.5,)"),
    "number": Mistake(4, "4"),
    "negative": Mistake((-1,), "(-1,)"),
}
SHARE = {
    **NOT_REAL,
    "function": Mistake(_function, "_function"),
    "above 1": Mistake(1.5, "1.5"),
    "negative": Mistake(-0.1, "-0.1"),
    "NaN": Mistake(np.nan, "nan"),
}
EXPONENT = {**NOT_REAL, "one": Mistake(1, "1"), "too large": Mistake(2.5, "2.5"), "NaN": Mistake(np.nan, "nan")}
NO_FUNCTION = {"string": Mistake("two", "'two'"), "None": Mistake(None, "None")}
TREES = {
    "integers": Mistake({"n": np.arange(3)}, "int"),
    "string": Mistake({"name": "two"}, "'two'"),
    "nothing": Mistake({}, "none"),
    "no entries": Mistake({"a": X[:0]}, "empty"),
}
ONE_NUMBER = {
    **{name: mistake for name, mistake in COUNT.items() if name != "one negative"},
    "share of another shape": Mistake(budgets.prior([0.1, 0.2]), "prior([0.1, 0.2])"),
}
BOUND = {
    **{name: NOT_REAL[name] for name in ("string", "complex", "truth value")},
    "NaN": Mistake(np.nan, "nan"),
    "of another shape": Mistake({**TREE, "a": np.ones(5)}, "(5,)"),
    "other tree": Mistake({"a": 0.0}, "'a': 0.0"),
}


class Function(NamedTuple):
    """A function, right arguments for it, its mistakes by argument, and the names that its caller knows."""

    call: Callable[..., Any]
    right: dict[str, Any]
    mistakes: dict[str, dict[str, Mistake]]
    names: frozenset[str]


def public(call, right, mistakes, *callees, state=()) -> Function:
    signatures = map(inspect.signature, callees or (call,))
    names = frozenset(state).union(*(signature.parameters for signature in signatures))
    return Function(call, right, mistakes, names)


COUNTED = {**COUNT, **SHARE_AS_NUMBER, **SHARES_AS_NUMBERS}
SCORES = {"scores": ENTRIES, "k": COUNT, "axis": AXIS, "where": MASK, "axis_name": AXIS_NAME}
SOFT = {"temperature": TEMPERATURE, "weights": WEIGHTS, "regularizer": REGULARIZER}
HARD = {**SCORES, "k": {**COUNTED, **NOT_WHOLE}}
MEAN = {**SCORES, **SOFT, "values": ENTRIES, "k": {**COUNTED, **ZERO}, "temperature": TEMPERATURE_OR_ZERO}
LEVEL = {
    **NOT_REAL,
    "list": Mistake([0.5, 0.9], "[0.5, 0.9]"),
    "negative": Mistake(-0.1, "-0.1"),
    "percentage": Mistake(95, "95"),
    "one too large": Mistake(np.array([0.5, 1.5]), "[0.5, 1.5]"),
    "NaN": Mistake(np.nan, "nan"),
}
PERCENTAGE = {**LEVEL, "percentage": Mistake(101, "101"), "one too large": Mistake(np.array([50, 150]), "[ 50, 150]")}
QUANTILE = {
    "values": {name: kind for name, kind in ENTRIES.items() if name not in ("integers", "truth values")},
    "axis": AXIS,
    "where": MASK,
    "weights": {**WEIGHTS, "of another method": Mistake(np.ones(6, np.float32), "'linear'")},
    "method": {
        "unknown": Mistake("hazen", "'hazen'"),
        "None": Mistake(None, "None"),
        "list": Mistake(["lower"], "['lower']"),
    },
    "keepdims": {"number": Mistake(2, "2"), "None": Mistake(None, "None"), "string": Mistake("no", "'no'")},
    "axis_name": AXIS_NAME,
    "temperature": TEMPERATURE_OR_ZERO,
}
ROW_NUMBER = {
    **{name: AMOUNT[name] for name in NOT_REAL if name != "None"},
    "NaN": Mistake(np.nan, "nan"),
    "negative": Mistake(-1, "-1"),
    "one negative": Mistake(np.array([1, 1, 1, -2]), "-2"),
    **OF_ANOTHER_SHAPE,
}
NONE = {"None": NO_NUMBER["None"]}
KEPT = {**ROW_NUMBER, **NOT_WHOLE, "negative": Mistake(-2, "-2: 0 and -1 keep all tokens")}
NUCLEUS = {**ROW_NUMBER, "zero": Mistake(0, "0: 1 keeps all tokens")}
LEAST = {**ROW_NUMBER, "above 1": Mistake(1.5, "1.5: 0 keeps all tokens")}
COLD = {
    **POSITIVE,
    **OF_ANOTHER_SHAPE,
    "one negative": Mistake(np.array([1, 0, 1, -2]), "-2]: 0 takes the most likely token"),
}
ROWS_OF_TOKENS = {
    "logits": {**ENTRIES, "no entries": Mistake(X[:, :0], "(4, 0)")},
    "axis": ONE_AXIS,
    "where": MASK,
    "axis_name": AXIS_NAME,
}
TIES = {
    "unknown": Mistake("both", "'both'"),
    "None": Mistake(None, "None"),
    "list": Mistake(["first"], "['first']"),
}
SEARCHED = {"ties": TIES, "implementation": IMPLEMENTATION}
TRUNCATION = {
    **ROWS_OF_TOKENS,
    "temperature": COLD,
    "top_k": KEPT,
    "top_p": NUCLEUS,
    "min_p": LEAST,
    **SEARCHED,
    "temperature_last": {
        "number": Mistake(2, "2"),
        "None": Mistake(None, "None"),
        "for each row": Mistake(np.array([True, False, True, True]), "True, False|True False"),
    },
}
KEYS = {
    "number": Mistake(0, "jax.random.key(0)"),
    "None": Mistake(None, "None"),
    "list": Mistake([0, 1], "[0, 1]"),
    "numbers": Mistake(np.zeros(2), "float64 of shape (2,)"),
    "words of another length": Mistake(np.zeros(5, np.uint32), "(5,)"),
    "of other rows": Mistake(jax.random.split(jax.random.key(0), 3), "one for each row, of shape (4,), got shape (3,)"),
}
METRIC = {**SCORES, "k": {**COUNTED, **ZERO}, "labels": LABELS_OF_ENTRIES, "weights": WEIGHTS}
BATCH = {
    "logits": LOGITS,
    "labels": {**LABELS_OF_CLASSES, **NO_LABELS},
    "budget": BUDGET,
    "temperature": TEMPERATURE,
    "where": MASK,
    "weights": WEIGHTS_OF_EXAMPLES,
    "regularizer": REGULARIZER,
    "axis_name": AXIS_NAME,
}
ROUTER = {"scores": LOGITS, "bias": VECTOR, "k": EXPERTS, "where": TOKENS}

SCORED, VALUED, CLASSIFIED = {"scores": X, "k": 2}, {"values": X, "k": 2}, {"logits": X, "labels": LABELS}
ROUTED, ROUTED_LOGITS = {"scores": X, "bias": BIAS, "k": 2}, {"logits": X, "bias": BIAS, "k": 2}
BOXED = {"tree": TREE, "lower": 0.0, "upper": 1.0, "weights": 1.0, "total": 2.0}


def without(mistakes, *arguments):
    return {argument: kinds for argument, kinds in mistakes.items() if argument not in arguments}


def renamed(mistakes, **names):
    return {names.get(argument, argument): kinds for argument, kinds in mistakes.items()}


def step(logits_fn, loss_fn, microbatch_size, params, inputs):
    return softbin.large_batch.value_and_grad(logits_fn, loss_fn, microbatch_size)(params, inputs, LABELS)


def updated(make):
    def update(k, updates, params):
        optimizer = make(k)
        return optimizer.update(updates, projections.KeepTopKState(np.int32(0), None), params)

    return update


def injected(k):
    optimizer = optax.inject_hyperparams(projections.keep_top_k)(k=k)
    return optimizer.update(X, optimizer.init(X), X)


def gradient(labels, scores, sample_weight, budget):
    return gbdt.lightgbm_objective(budget=budget)(labels, scores, sample_weight)


def decisions(scores, labels, sample_weight, budget):
    return gbdt.xgboost_objective(budget=budget).decide(scores, labels, sample_weight)


def called(layer):
    return lambda **arguments: layer(**arguments)


def applied(layer, variables):
    def call(**arguments):
        return layer.apply(variables, **arguments, mutable="batch_stats")

    return call


def layers(module, name, options, right, mistakes, mistakes_in_call, variables) -> dict[str, Function]:
    """A layer, whose mistakes show when it is made or when it is called first, and its calls."""
    layer = getattr(module, name)
    is_linen = module is flax_linen
    known = {"state": tuple(variables)}
    callees = (layer.__init__, layer.__call__)

    def ready(options):
        made = layer(**options)
        return applied(made, {"batch_stats": variables}) if is_linen else called(made)

    def make(**options):
        return ready(options)(**right)

    label = f"{module.__name__.removeprefix('softbin.adapters.')}.{name}"
    return {
        label: public(make, options, mistakes, *callees, **known),
        f"{label}()": public(ready(options), right, mistakes_in_call, *callees, **known),
    }


def flax_layers(name, options, right, mistakes, mistakes_in_call, *, only_nnx=None, **variables) -> dict[str, Function]:
    only = only_nnx or {}
    for_nnx = {**{argument: right for argument, (right, _) in only.items()}, **options}
    of_linen = {"use_running_average": False} if variables else {}
    mistakes_of_nnx = {**mistakes, **{argument: kinds for argument, (_, kinds) in only.items()}}
    return {
        **layers(flax_nnx, name, for_nnx, right, mistakes_of_nnx, mistakes_in_call, variables),
        **layers(flax_linen, name, {**options, **of_linen}, right, mistakes, mistakes_in_call, variables),
    }


GBDT = {
    "loss": {"unknown": Mistake("hinge", "'hinge'"), "None": Mistake(None, "None")},
    "hessian": {"unknown": Mistake("full", "'full'"), "list": Mistake(["unit"], "['unit']")},
    "budget": {
        name: BUDGET[name]
        for name in BUDGET
        if name not in ("list", "too large", "infinite") and "shape" not in name and "function" not in name
    },
    "temperature": TEMPERATURE,
    "regularizer": REGULARIZER,
}
ROWS = {
    "labels": {
        "of another shape": Mistake(np.zeros(5), "(5,)"),
        "strings": Mistake(np.array(["a", "b", "a", "b"]), "a"),
        "None": NO_NUMBER["None"],
        "too large": Mistake(np.array([0, 6, 2, 1]), "6"),
        "NaN": Mistake(LABELS * np.nan, "nan"),
        "one class": Mistake(np.zeros(4), "0"),
    },
    "scores": {
        "string": Mistake("two", "two"),
        "None": NO_NUMBER["None"],
        "scalar": Mistake(1.0, "()"),
        "of another shape": Mistake(X[:3], "(3, 6)"),
        "integers": Mistake(np.arange(24).reshape(4, 6), "int"),
        "without rows": Mistake(X[:0], "(0, 6)"),
    },
    "sample_weight": {
        "string": Mistake("two", "two"),
        "negative": Mistake(np.array([1, 1, 1, -2.0]), "-2"),
        "of another shape": Mistake(np.ones(5), "(5,)"),
    },
    "budget": {
        name: BUDGET[name]
        for name in BUDGET
        if "shape" in name or "function" in name or name in ("too large", "infinite")
    },
}
SCORED_ROWS = {"labels": LABELS, "scores": X, "sample_weight": None, "budget": budgets.label_count}

FUNCTIONS = {
    "kth_largest": public(softbin.kth_largest, SCORED, {**HARD, "weights": WEIGHTS, "implementation": IMPLEMENTATION}),
    "cutoff": public(softbin.cutoff, SCORED, {**HARD, "weights": WEIGHTS, "implementation": IMPLEMENTATION}),
    "binary_argmax": public(softbin.binary_argmax, SCORED, {**HARD, "implementation": IMPLEMENTATION}),
    "top_k": public(softbin.top_k, SCORED, {**without(SCORES, "axis_name"), "k": ONE_INTEGER, "axis": ONE_AXIS}),
    "soft_binary_argmax": public(
        softbin.soft_binary_argmax, SCORED, {**SCORES, **SOFT, "implementation": IMPLEMENTATION}
    ),
    "soft_binary_argmax, hard": public(
        softbin.soft_binary_argmax,
        {**SCORED, "straight_through": True},
        {
            "k": {**COUNTED, **NOT_WHOLE},
            "weights": {"right ones": Mistake(np.ones(6, np.float32), "straight_through")},
            "temperature": TEMPERATURE,
        },
    ),
    "threshold": public(softbin.threshold, SCORED, {**SCORES, **SOFT}),
    "project_hypersimplex": public(
        softbin.project_hypersimplex, {"point": X, "k": 2}, renamed(without(SCORES, "axis_name"), scores="point")
    ),
    "top_k_mean": public(softbin.top_k_mean, VALUED, without(MEAN, "scores")),
    "bottom_k_mean": public(softbin.bottom_k_mean, VALUED, without(MEAN, "scores")),
    "quantile": public(softbin.quantile, {"values": X, "q": 0.5, "axis": 1}, {**QUANTILE, "q": LEVEL}),
    "quantile, weighted": public(
        softbin.quantile,
        {"values": X, "q": 0.5, "method": "inverted_cdf"},
        {"weights": WEIGHTS, "temperature": {"of this method": Mistake(0.5, "'inverted_cdf'")}},
    ),
    "percentile": public(softbin.percentile, {"values": X, "q": 50, "axis": 1}, {**QUANTILE, "q": PERCENTAGE}),
    "median": public(softbin.median, {"values": X, "axis": 1}, QUANTILE),
    "sampling.top_k_mask": public(
        sampling.top_k_mask, {"logits": X, "k": 2}, {**ROWS_OF_TOKENS, **SEARCHED, "k": {**KEPT, **NONE}}
    ),
    "sampling.top_p_mask": public(
        sampling.top_p_mask,
        {"logits": X, "p": 0.5},
        {**ROWS_OF_TOKENS, **SEARCHED, "p": {**NUCLEUS, **NONE}, "temperature": COLD},
    ),
    "sampling.min_p_mask": public(
        sampling.min_p_mask, {"logits": X, "p": 0.5}, {**ROWS_OF_TOKENS, "p": {**LEAST, **NONE}, "temperature": COLD}
    ),
    "sampling.truncate": public(sampling.truncate, {"logits": X}, TRUNCATION),
    "sampling.sample": public(sampling.sample, {"key": jax.random.key(0), "logits": X}, {**TRUNCATION, "key": KEYS}),
    "precision_at_k": public(softbin.precision_at_k, {**SCORED, "labels": X > 0}, METRIC),
    "recall_at_k": public(softbin.recall_at_k, {**SCORED, "labels": X > 0}, METRIC),
    "loss": public(softbin.loss, CLASSIFIED, {**BATCH, "implementation": IMPLEMENTATION}),
    "fenchel_young_loss": public(softbin.fenchel_young_loss, CLASSIFIED, {**BATCH, "implementation": IMPLEMENTATION}),
    "per_example_loss": public(softbin.per_example_loss, CLASSIFIED, BATCH),
    "diagnose": public(softbin.diagnose, CLASSIFIED, BATCH),
    "decision_thresholds": public(
        softbin.decision_thresholds, {**CLASSIFIED, "temperature": 1.0}, {**BATCH, "labels": LABELS_OF_CLASSES}
    ),
    "decision_thresholds, counting": public(
        softbin.decision_thresholds,
        {"logits": X, "budget": budgets.label_count, "temperature": 1.0},
        {"labels": NO_LABELS},
    ),
    "loss, binary": public(
        softbin.loss,
        {"logits": X[:, 0], "labels": LABELS > 1},
        {
            "labels": {"class numbers": Mistake(LABELS, "5"), "of one example": Mistake(np.int32(2), "()")},
            "budget": BUDGET,
            "temperature": TEMPERATURE,
            "where": MASK,
            "weights": WEIGHTS_OF_EXAMPLES,
        },
    ),
    "loss, one column": public(
        softbin.loss, {"logits": X[:, :1]}, {"labels": {"binary": Mistake(np.zeros(4, int), "(4, 1)")}}
    ),
    "zero_one_loss": public(
        softbin.zero_one_loss,
        {**CLASSIFIED, "thresholds": BIAS, "temperature": 1.0},
        {
            **{name: BATCH[name] for name in ("logits", "labels", "where", "regularizer")},
            "thresholds": THRESHOLDS,
            "temperature": {**TEMPERATURE, "None": Mistake(None, "no temperature")},
        },
    ),
    "predict": public(
        softbin.predict,
        {"logits": X, "thresholds": BIAS, "temperature": 1.0},
        {
            "logits": {name: LOGITS[name] for name in LOGITS if name != "scalar"},
            "thresholds": {**THRESHOLDS, "None": NO_NUMBER["None"]},
            "temperature": TEMPERATURE,
            "regularizer": REGULARIZER,
        },
    ),
    "tsallis": public(softbin.tsallis, {}, {"alpha": {**EXPONENT, **OF_ANOTHER_SHAPE}}),
    "budgets.fraction": public(
        budgets.fraction, {}, {"share": {**SHARE, "several": Mistake([0.5, 0.2], "[0.5, 0.2]")}}
    ),
    "budgets.prior": public(
        budgets.prior, {}, {"class_priors": {**SHARE, "one": Mistake(0.5, "0.5"), "rows": Mistake(X**2, "(4, 6)")}}
    ),
    "budgets.label_count": public(budgets.label_count, {"weights": np.ones(4)}, {"targets": NO_LABELS}),
    "routing.quantile_bias": public(routing.quantile_bias, ROUTED, {**ROUTER, "axis_name": AXIS_NAME}),
    "routing.margins": public(routing.margins, ROUTED, ROUTER),
    "routing.bias_from_margins": public(
        routing.bias_from_margins,
        {"margins": X, "bias": BIAS, "k": 2},
        {**renamed(without(ROUTER, "where"), scores="margins"), "axis_name": AXIS_NAME},
    ),
    "routing.gates": public(
        routing.gates, ROUTED_LOGITS, {**renamed(ROUTER, scores="logits"), "gate": GATE, "scale": SCALE}
    ),
    "routing.router_scores": public(
        routing.router_scores,
        {"logits": X},
        {"logits": {name: LOGITS[name] for name in LOGITS if name != "scalar"}, "gate": GATE},
    ),
    "large_batch.value_and_grad": public(
        step,
        {
            "logits_fn": lambda w, x: x @ w,
            "loss_fn": softbin.loss,
            "microbatch_size": 2,
            "params": np.eye(6),
            "inputs": X,
        },
        {
            "logits_fn": NO_FUNCTION,
            "loss_fn": NO_FUNCTION,
            "microbatch_size": {**SIZE, "none": Mistake(0, "0"), "None": Mistake(None, "None")},
            "params": {
                "integers": Mistake({"w": np.eye(6, dtype=int)}, "int"),
                "string": Mistake({"w": "two"}, "'two'"),
            },
            "inputs": {
                "string": Mistake("two", "'two'"),
                "scalar": Mistake({"x": X, "scale": 2.0}, "scalar"),
                "of two lengths": Mistake({"x": X, "y": X[:3]}, "[3, 4]"),
                "no examples": Mistake(X[:0], "(0, 6)"),
            },
        },
    ),
    "optax.projection_hypersimplex": public(
        projections.projection_hypersimplex, {"tree": TREE, "k": 2}, {"tree": TREES, "k": ONE_NUMBER}
    ),
    "optax.projection_box_section": public(
        projections.projection_box_section,
        BOXED,
        {
            "tree": TREES,
            "lower": {**BOUND, "above upper": Mistake(1.5, "1.5")},
            "upper": {**BOUND, "below lower": Mistake(-1.5, "-1.5")},
            "weights": {**BOUND, "infinite": Mistake(np.inf, "inf")},
            "total": {
                **NOT_REAL,
                "NaN": Mistake(np.nan, "nan"),
                "several": Mistake(np.ones(5), "(5,)"),
                "out of reach": Mistake(99.0, "99.0"),
            },
        },
    ),
    "optax.keep_params_in_hypersimplex": public(
        updated(projections.keep_params_in_hypersimplex),
        {"k": 2, "updates": TREE, "params": TREE},
        {
            "k": ONE_NUMBER,
            "params": {**TREES, "None": Mistake(None, "params")},
            "updates": {"of another structure": Mistake({"a": X}, "'a'"), "None": Mistake(None, "None")},
        },
    ),
    "optax.keep_top_k": public(
        updated(projections.keep_top_k),
        {"k": 2, "updates": TREE, "params": TREE},
        {
            "k": {
                **without(ONE_NUMBER, "function", "type"),
                **SHARE_AS_NUMBER,
                "not whole": Mistake(2.5, "2.5"),
                "schedule of strings": Mistake(lambda step: "two", "'two'"),
                "schedule of shares as numbers": Mistake(lambda step: 0.5, "fraction(0.5)"),
            },
            "params": {"string": TREES["string"], "None": Mistake(None, "params")},
            "updates": {"of another structure": Mistake({"a": X}, "'a'"), "None": Mistake(None, "None")},
        },
    ),
    "optax.inject_hyperparams(keep_top_k)": public(
        injected,
        {},
        {"k": {name: ONE_NUMBER[name] for name in ("string", "None", "negative", "NaN")} | SHARE_AS_NUMBER},
    ),
    "gbdt.lightgbm_objective": public(gbdt.lightgbm_objective, {}, GBDT),
    "gbdt.xgboost_objective": public(gbdt.xgboost_objective, {}, GBDT),
    "gbdt.Objective()": public(gradient, SCORED_ROWS, ROWS),
    "gbdt.Objective.decide": public(decisions, SCORED_ROWS, ROWS),
    "gbdt.Decisions.predict": public(
        gbdt.Decisions(BIAS, 1.0, softbin.euclidean).predict,
        {},
        {
            "scores": {
                **{name: kind for name, kind in ROWS["scores"].items() if name != "without rows"},
                "of another shape": Mistake(X[:, :5], "(4, 5)"),
            }
        },
        state=("thresholds",),
    ),
    "Regularizer": public(
        softbin.Regularizer,
        {"penalty": _function, "inverse_link": _function, "parts": _function, "mean": 0.0, "variance": 1.0},
        {
            "penalty": NO_FUNCTION,
            "inverse_link": NO_FUNCTION,
            "parts": NO_FUNCTION,
            "mean": NOT_REAL,
            "variance": NOT_REAL,
        },
        softbin.Regularizer.__init__,
    ),
    **flax_layers(
        "SoftBinaryArgmax",
        {"k": 2},
        {"scores": X},
        {
            **without(SCORES, "scores", "where"),
            "temperature": {**POSITIVE, "zero": Mistake(0.0, "0"), **OF_ANOTHER_SHAPE},
            "regularizer": REGULARIZER,
        },
        {"scores": ENTRIES, "where": MASK},
    ),
    **flax_layers(
        "TopK",
        {"k": 2, "shape": (4,)},
        {"x": X},
        {**without(HARD, "scores", "where"), "batch_axis_name": AXIS_NAME, "momentum": MOMENTUM, "shape": SHAPE},
        {"x": ENTRIES, "where": MASK, "k": {name: kind for name, kind in HARD["k"].items() if name != "None"}},
        only_nnx={"shape": ((4,), {**SHAPE, "of another shape": Mistake((5,), "(5,)")})},
        cutoffs=np.full(4, -np.inf, np.float32),
        weight=np.zeros(4, np.float32),
    ),
    **flax_layers(
        "BalancedTopK",
        {"num_experts": 6, "k": 2},
        {"logits": X},
        {
            "num_experts": {**SIZE, "None": Mistake(None, "None")},
            "k": EXPERTS,
            "gate": GATE,
            "scale": SCALE,
            "axis_name": AXIS_NAME,
        },
        {"logits": MORE_LOGITS, "where": TOKENS},
        bias=BIAS,
    ),
    **flax_layers(
        "DecisionThresholds",
        {"num_classes": 6, "temperature": 1.0},
        {"logits": X, "labels": LABELS},
        {**without(BATCH, "logits", "labels", "where", "weights"), "num_classes": SIZE, "momentum": MOMENTUM},
        {"logits": MORE_LOGITS, "labels": LABELS_OF_CLASSES, "where": MASK, "weights": WEIGHTS_OF_EXAMPLES},
        thresholds=BIAS,
        weight=np.zeros(6, np.float32),
    ),
}

ENGLISH = {"where", "shape", "total", "loss", "gate", "scale", "share", "weight", "name", "state", "updates", "step"}
NAMES = frozenset().union(*(function.names for function in FUNCTIONS.values())) - ENGLISH
NOT_NAMES = re.compile(r"softbin[\w.]*|'[^']*'|\w+\(|floating point|first axis|mapped axis|top_k chooses")


def refused(function: Function, argument: str, mistake: Mistake) -> tuple[type | None, str]:
    try:
        function.call(**{**function.right, argument: mistake.value})
    except Exception as error:
        return type(error), str(error)
    return None, "no error"


def faults(function: Function, argument: str, mistake: Mistake) -> list[str]:
    """What is wrong with the answer to a mistake."""
    kind, message = refused(function, argument, mistake)
    words = set(re.findall(r"(?<!\.)\b[a-z_]\w*\b", NOT_NAMES.sub("", message)))
    found = [] if kind in (TypeError, ValueError) else [f"is {kind and kind.__name__}"]
    if not {argument, argument.removesuffix("s")} & words:
        found.append(f"does not name {argument}")
    found += [f"names {name}" for name in sorted(words & (NAMES - function.names))]
    if not any(shown in message for shown in mistake.shown.split("|")):
        found.append(f"does not show {mistake.shown}")
    if len(message) > 400:
        found.append("is too long")
    return [f"{fault}: {message[:400]}" for fault in found]


def test_no_function_and_no_argument_is_left_out():
    functions = {name: getattr(softbin, name) for name in softbin.__all__}
    for module in (routing, sampling):
        public_ones = {name: value for name, value in vars(module).items() if not name.startswith(("_", "check_"))}
        of_module = {n: f for n, f in public_ones.items() if getattr(f, "__module__", "") == module.__name__}
        functions |= {f"{module.__name__.removeprefix('softbin.')}.{name}": f for name, f in of_module.items()}
    for name, function in functions.items():
        if inspect.isfunction(function):
            left = set(inspect.signature(function).parameters) - set(FUNCTIONS[name].mistakes)
            assert left <= {"straight_through", "forward_mode", "multi_label"}, name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_mistake_is_told_in_the_words_of_the_caller(name, no_shape_checks):
    function = FUNCTIONS[name]
    wrong = [
        f"{name}({argument}={label}) {fault}"
        for argument, kinds in function.mistakes.items()
        for label, mistake in kinds.items()
        for fault in faults(function, argument, mistake)
    ]
    assert not wrong, "\n".join(wrong)
