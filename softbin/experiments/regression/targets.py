"""Tables with a real target, in three parts, some of whose targets may be wrong."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from softbin.experiments.datasets import packages, tables
from softbin.experiments.runs.errors import UserError

SHIFT = 5.0
"""By how many robust standard deviations a wrong target of the kind `shifted` is too high."""
_NORMAL = 1.349  # the interquartile range of the standard normal distribution
Table = tuple[Any, np.ndarray]
"""A data frame of features, and the targets of its rows."""


class Rows(NamedTuple):
    """Features of shape (n, features) and targets of shape (n,), in float32."""

    features: np.ndarray
    targets: np.ndarray


class Split(NamedTuple):
    """Three parts of a table."""

    train: Rows
    validation: Rows
    test: Rows


def load(name: str, train_examples: int, held_out_examples: int, rng: np.random.Generator) -> Split:
    """Random rows of a table, with right targets in the units of the table.

    Numbers are standardised, and filled up by the median where they are missing; names are one-hot. The training rows
    say how.

    Args:
      name: `diamonds` or `flights`.
      train_examples: the number of training rows.
      held_out_examples: of validation rows, and of test rows.
      rng: it chooses the rows.

    Raises:
      UserError: the name is unknown, the package is missing, or the table has not so many rows.
    """
    if name not in TABLES:
        raise UserError(f"unknown dataset {name!r}: choose one of {', '.join(TABLES)}")
    features, targets = TABLES[name]()
    wanted = train_examples + 2 * held_out_examples
    if wanted > len(targets):
        raise UserError(
            f"{name} has {len(targets)} rows, and {train_examples} + 2 * {held_out_examples} are asked for: lower "
            "train_examples or held_out_examples"
        )
    chosen = rng.permutation(len(targets))[:wanted]
    parts = np.split(chosen, [train_examples, train_examples + held_out_examples])
    encoder = _encoder(features).fit(features.iloc[parts[0]])
    return Split(
        *(
            Rows(encoder.transform(features.iloc[part]).astype(np.float32), targets[part].astype(np.float32))
            for part in parts
        )
    )


def corrupted(targets: np.ndarray, kind: str, share: float, rng: np.random.Generator) -> np.ndarray:
    """Targets of which a random `share` is wrong.

    Args:
      targets: right ones, of shape (n,).
      kind: `random`: the target of a random other row; `shifted`: too high by `SHIFT` robust standard deviations.
      share: how many are wrong, in [0, 1].
      rng: it chooses which, and the random rows.

    Raises:
      UserError: the kind is unknown, or the share out of range.
    """
    if kind not in CORRUPTIONS:
        raise UserError(f"unknown corruption {kind!r}: choose one of {', '.join(CORRUPTIONS)}")
    if not 0 <= share <= 1:
        raise UserError(f"corrupted must be a share of the targets in [0, 1], got {share}")
    chosen = rng.choice(len(targets), round(share * len(targets)), replace=False)
    result = targets.copy()
    result[chosen] = CORRUPTIONS[kind](targets, chosen, rng)
    return result


def interquartile_range(targets: np.ndarray) -> float:
    """Between the quarter of the smallest targets and that of the largest."""
    low, high = np.quantile(targets, (0.25, 0.75))
    return float(high - low)


def _random(targets, chosen, rng):
    return targets[(chosen + rng.integers(1, len(targets), len(chosen))) % len(targets)]


def _shifted(targets, chosen, rng):
    return targets[chosen] + SHIFT / _NORMAL * interquartile_range(targets)


CORRUPTIONS = {"random": _random, "shifted": _shifted}


@cache
def diamonds() -> Table:
    """53,940 diamonds: the logarithm of the price in dollars, from their size, cut, color and clarity."""
    import pandas as pd

    table = pd.read_csv(packages.folder("plotnine") / "data" / "diamonds.csv")
    targets = np.log(table.pop("price").to_numpy(float))
    return table.astype(dict.fromkeys(["cut", "color", "clarity"], "category")), targets


def flights() -> Table:
    """327,346 flights that left New York in 2013: minutes late at arrival, from what is known when they depart.

    Of the destination they have the distance.
    """
    known = tables.flights()
    return known.features.drop(columns="dest"), known.delay


TABLES: dict[str, Callable[[], Table]] = {"diamonds": diamonds, "flights": flights}


def _encoder(features):
    """Of as many columns for any rows of the table, so that runs with other seeds have the same shapes."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    names = list(features.select_dtypes("category"))
    numbers = [name for name in features if name not in names]
    categories = [features[name].cat.categories for name in names]
    return make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()), numbers),
        (OneHotEncoder(categories=categories, sparse_output=False), names),
    )
