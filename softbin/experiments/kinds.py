"""The kinds of runs, each told once: the fields of its configs, what runs it, and the columns of its results.

A field of a config is one line here. That says how tables of runs hold it, how a sweep names it, and what is least; the
config that is the kind's example says what it means, which the commands' help repeats.
"""

from collections.abc import Container, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

TEXT, INTEGER, NUMBER, FLAG = "string", "Int64", "float64", "boolean"
"""The types of columns."""
SETTING, VARIANT = "setting", "variant"
"""Parts that a field of networks has in a comparison: what is equal, and what is compared."""


class Field(NamedTuple):
    """A field of a config."""

    column: str | None  # its type in tables of runs; None where no result depends on it
    short: str | None = None  # before its value in names of runs: "" if the value is enough, None for the field's name
    least: int | None = None
    positive: bool = False  # and finite
    part: str = ""
    older: Any = None  # the value in results that are older than the field
    local: bool = False  # where this machine has its files, which no result tells


class Kind(NamedTuple):
    """How runs of one kind begin, and what their results look like."""

    name: str
    telling: str  # the field that only configs of this kind have; "" for the kind of all others
    example: str  # the config that has every field, and says what it means
    room: str
    fields: Mapping[str, Field]
    found: Mapping[str, str]  # what a run says of itself, and the type of its column
    measured: tuple[str, ...]
    needed: tuple[str, ...]  # without which a table of runs is no such table
    packages: tuple[str, ...]  # whose versions are recorded

    @property
    def columns(self) -> dict[str, str]:
        """The columns of a table of runs, and their types."""
        return {
            "run": TEXT,
            **{name: field.column for name, field in self.fields.items() if field.column is not None},
            **self.found,
            **dict.fromkeys(self.measured, NUMBER),
            "train_seconds": NUMBER,
            **dict.fromkeys(("softbin", *self.packages, "device", "date"), TEXT),
        }

    @property
    def defaults(self) -> dict[str, Any]:
        """Of the columns that older results lack."""
        return {name: field.older for name, field in self.fields.items() if field.older is not None}

    def part(self, name: str) -> tuple[str, ...]:
        """The fields of one part in a comparison."""
        return tuple(field for field, told in self.fields.items() if told.part == name)

    def load(self) -> ModuleType:
        """The module that runs it, with `prepare` and `sentence`; that loads JAX."""
        return import_module(f"softbin.experiments.{self.room}.run")


PERCENTAGES = (1, 2, 5, 10)
"""Of the rows, that can be acted on."""
PARTS = ("validation", "test")
PRECISIONS = tuple(f"precision_at_{percentage}" for percentage in PERCENTAGES)
"""The names of the precisions at the top."""
AT_BEST = tuple(f"at_max_{part}_{name}" for name in PRECISIONS for part in PARTS)
"""Their names in a summary: of the record whose own precision is highest on the validation rows."""
ACCURACIES = tuple(f"{part}_accuracy{rule}" for part in ("test", "validation") for rule in ("", "_thresholded"))
BESIDE = {
    "test_worst_class": "test_accuracy",
    "test_worst_class_thresholded": "test_accuracy_thresholded",
    "test_tail_loss": "test_accuracy",
    "kept_clean": "test_accuracy",
    **{f"{part}_{name}": f"validation_{name}" for name in PRECISIONS for part in PARTS},
}
"""What is measured of networks beside the accuracies, and the measure whose best epoch is that of each."""
STOPPED = tuple(f"stopped_test_accuracy{rule}" for rule in ("", "_thresholded"))
"""The test accuracies of the epoch in which the validation accuracy is highest."""

STOPS = ("fixed", "best")
BOOSTING_MEASURES = ("auc", "log_loss", "error", "error_thresholded")
_AT_STOPS = tuple(f"{stop}_{part}_{name}" for stop in STOPS for part in PARTS for name in BOOSTING_MEASURES)

MEDIAN_ERROR = "validation_median_error"
"""The median absolute error: wrong validation targets hardly change it, as long as they are few."""
REGRESSION_MEASURES = ("test_mae", "test_rmse")

UNEXPLAINED, ACCURACY = "unexplained", "accuracy"
SPARSITY_MEASURES = (
    *(f"{part}_{measure}" for measure in (UNEXPLAINED, ACCURACY) for part in PARTS),
    *("dead", "active"),
    *("load_max", "load_min", "batch_load_max"),
)
"""All that any task measures, after each epoch or in the end."""

_LOSS = Field(TEXT, "")
_LEARNING_RATE = Field(NUMBER, "lr", positive=True)
_SEED = Field(INTEGER, "s", least=0)
_FILES = Field(None, local=True)
_AT_LEAST_1 = Field(INTEGER, least=1)
_BATCH_SIZE = Field(INTEGER, "b", least=1)
_CHECKPOINTS = Field(None, least=0)

NETWORKS = Kind(
    name="networks",
    telling="",
    example="digits",
    room="training",
    fields={
        "dataset": Field(TEXT, "", part=SETTING),
        "data_dir": _FILES,
        "train_examples": Field(INTEGER, "n", part=SETTING),
        "validation_examples": Field(INTEGER, part=SETTING),
        "label_noise": Field(NUMBER, "noise", part=SETTING),
        "noise_kind": Field(TEXT, "", part=SETTING, older="symmetric"),
        "imbalance": Field(NUMBER, part=SETTING),
        "model": Field(TEXT, "", part=SETTING),
        "hidden": Field(TEXT, part=SETTING),
        "augment": Field(FLAG, part=SETTING),
        "mixed_precision": Field(FLAG, part=SETTING),
        "loss": _LOSS._replace(part=VARIANT),
        "budget": Field(TEXT, "", part=VARIANT),
        "temperature": Field(NUMBER, "t", part=VARIANT),
        "trim": Field(NUMBER, part=VARIANT, older=1.0),
        "trim_warmup": Field(NUMBER, "warmup", part=VARIANT, older=0.2),
        "trim_by": Field(TEXT, "", part=VARIANT, older=""),
        "trim_per_class": Field(FLAG, part=VARIANT, older=False),
        "tail": Field(NUMBER, part=VARIANT, older=1.0),
        "batch_size": Field(INTEGER, "b"),
        "microbatch_size": Field(INTEGER, least=0),
        "epochs": _AT_LEAST_1._replace(part=SETTING),
        "evaluate_every": _AT_LEAST_1._replace(part=SETTING),
        "learning_rate": _LEARNING_RATE,
        "seed": _SEED,
        "checkpoint_every": _CHECKPOINTS,
    },
    found={"epoch_of_max": INTEGER},
    measured=(
        *(f"{which}_{name}" for name in ACCURACIES for which in ("max", "last")),
        *STOPPED,
        *(f"{which}_{name}" for name in BESIDE for which in ("at_max", "last")),
    ),
    needed=("dataset", "loss", "batch_size", "learning_rate", "epochs", "seed", "max_test_accuracy"),
    packages=("jax", "flax", "optax"),
)
BOOSTING = Kind(
    name="boosting",
    telling="booster",
    example="boosting_breast_cancer",
    room="boosting",
    fields={
        "booster": Field(TEXT, ""),
        "dataset": Field(TEXT, ""),
        "data": _FILES,
        "train_examples": Field(INTEGER, "n"),
        "loss": _LOSS,
        "budget": Field(TEXT, ""),
        "hessian": Field(TEXT, ""),
        "learning_rate": _LEARNING_RATE,
        "rounds": _AT_LEAST_1,
        "fixed_rounds": _AT_LEAST_1,
        "evaluate_every": _AT_LEAST_1,
        "checkpoint_every": _CHECKPOINTS,
        "seed": _SEED,
    },
    found={
        "classes": INTEGER,
        "validation_examples": INTEGER,
        "test_examples": INTEGER,
        "best_round": INTEGER,
        "lightgbm": TEXT,
        "xgboost": TEXT,
    },
    measured=(*_AT_STOPS, *AT_BEST),
    needed=("booster", "dataset", "loss", "hessian", "learning_rate", "seed", *_AT_STOPS),
    packages=("jax",),
)
REGRESSION = Kind(
    name="regression",
    telling="estimator",
    example="regression_diamonds",
    room="regression",
    fields={
        "estimator": Field(TEXT, ""),
        "dataset": Field(TEXT, ""),
        "train_examples": Field(INTEGER, "n", least=1),
        "held_out_examples": _AT_LEAST_1,
        "corruption": Field(TEXT, ""),
        "corrupted": Field(NUMBER),
        "loss": _LOSS,
        "keep": Field(NUMBER, positive=True),
        "delta": Field(NUMBER, positive=True),
        "learning_rate": _LEARNING_RATE,
        "hidden": Field(TEXT),
        "epochs": _AT_LEAST_1,
        "batch_size": _BATCH_SIZE,
        "seed": _SEED,
    },
    found={},
    measured=(MEDIAN_ERROR, *REGRESSION_MEASURES),
    needed=(
        *("dataset", "train_examples", "held_out_examples", "corruption", "corrupted", "estimator", "loss"),
        *("keep", "delta", "learning_rate", "seed", MEDIAN_ERROR, *REGRESSION_MEASURES),
    ),
    packages=("jax", "flax", "optax", "scikit-learn"),
)
SPARSITY = Kind(
    name="sparsity",
    telling="task",
    example="sparse_autoencoder",
    room="sparsity",
    fields={
        "task": Field(TEXT, ""),
        "method": Field(TEXT, ""),
        "dataset": Field(TEXT, ""),
        "data_dir": _FILES,
        "train_examples": Field(INTEGER, "n", least=1),
        "validation_examples": _AT_LEAST_1,
        "k": Field(NUMBER, positive=True),
        "width": _AT_LEAST_1,
        "temperature": Field(NUMBER, "t", positive=True),
        "penalty": Field(NUMBER),
        "learning_rate": _LEARNING_RATE,
        "epochs": _AT_LEAST_1,
        "batch_size": _BATCH_SIZE,
        "seed": _SEED,
    },
    found={},
    measured=SPARSITY_MEASURES,
    needed=("task", "method", "k", "temperature", "penalty", "learning_rate", "seed"),
    packages=("jax", "flax", "optax"),
)
KINDS = (BOOSTING, REGRESSION, SPARSITY, NETWORKS)


def of(fields: Container[str]) -> Kind:
    """The kind of a config or a table of runs, by its fields."""
    return next(kind for kind in KINDS if not kind.telling or kind.telling in fields)
