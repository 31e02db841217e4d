"""Tables of real data: from packages that ship them, or from libsvm files."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from softbin.experiments.datasets import damage, libsvm, packages, tables
from softbin.experiments.datasets.tables import Table
from softbin.experiments.runs.errors import UserError


class Rows(NamedTuple):
    """Features, a row each in a matrix or a data frame, and labels 0, ..., C-1 of shape (n,)."""

    features: Any
    labels: np.ndarray


class Split(NamedTuple):
    """Three parts of a table."""

    train: Rows
    validation: Rows
    test: Rows
    classes: int


def load(name: str, file: str, train_examples: int, seed: int) -> Split:
    """The three parts of a table: three fifths of the rows, a fifth and a fifth, where it does not say which.

    Args:
      name: `breast_cancer`, `flights`, `diamonds`, or one that networks read too: `flights_one_hour`,
        `flights_before_departure`, `flights_two_hours`, `census`.
      file: a libsvm file to read instead.
      train_examples: how many of the training rows to train on, chosen by the seed; 0 for all.
      seed: of the split.

    Raises:
      UserError: the name is unknown, the package or the file is missing, the file is no libsvm file of at least two
        classes, or there are not as many rows.
    """
    if not file and name not in TABLES:
        raise UserError(f"unknown dataset {name!r}: choose one of {', '.join(TABLES)}, or name a file by --config.data")
    table = read_libsvm(Path(file)) if file else TABLES[name]()
    try:
        train, *held_out = tables.split(table, seed)
    except ValueError as error:
        raise UserError(f"{file or name} cannot be split into three parts ({error}): it needs more rows") from None
    if not 0 <= train_examples <= len(train):
        raise UserError(
            f"train_examples {train_examples} is outside [0, {len(train)}], the training rows of {file or name}; "
            "0 takes all"
        )
    features = table.features.iloc if hasattr(table.features, "iloc") else table.features
    parts = (Rows(features[rows], table.labels[rows]) for rows in (train[: train_examples or None], *held_out))
    train_rows, validation_rows, test_rows = parts
    return Split(train_rows, validation_rows, test_rows, int(table.labels.max()) + 1)


def breast_cancer() -> Table:
    """scikit-learn's 569 tumours by 30 measurements: benign (1) or malignant (0)."""
    from sklearn.datasets import load_breast_cancer

    return Table(*load_breast_cancer(return_X_y=True))


def flights() -> Table:
    """327,346 flights that left New York in 2013: did they arrive 15 minutes late or later?"""
    known = tables.flights()
    return Table(known.features, (known.delay >= 15).astype(np.int32))


@cache
def diamonds() -> Table:
    """53,940 diamonds: the quality of their cut, in five classes, from their size, color, clarity and price."""
    import pandas as pd

    path = packages.folder("plotnine") / "data" / "diamonds.csv"
    with damage.reported(path, "pip install --force-reinstall plotnine"):
        table = pd.read_csv(path)
        qualities = ["Fair", "Good", "Very Good", "Premium", "Ideal"]
        labels = pd.Categorical(table.pop("cut"), qualities).codes.astype(np.int32)
        return Table(table.astype({"color": "category", "clarity": "category"}), labels)


TABLES: dict[str, Callable[[], Table]] = {
    "breast_cancer": breast_cancer,
    "flights": flights,
    "diamonds": diamonds,
    **{name: partial(read, "") for name, read in tables.TABLES.items()},
}


def read_libsvm(path: Path) -> Table:
    """Sparse features, and labels counted from 0 in the order of their values.

    Raises:
      UserError: the file is missing, damaged, or no libsvm file of at least two classes.
    """
    features, labels = libsvm.read(path)
    classes, labels = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or len(classes) > len(labels) / 2:
        raise UserError(f"{path} has {len(classes)} different labels in {len(labels)} rows: classes are needed")
    return Table(features, labels.astype(np.int32))
