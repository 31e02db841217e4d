"""The two libraries behind one interface: grow a tree for every score, and say what the rows' margins are."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from softbin.adapters.gbdt import lightgbm_objective, xgboost_objective
from softbin.experiments.boosting.tables import Split
from softbin.experiments.runs.errors import UserError, one_line

Gradient = Callable[..., tuple[np.ndarray, np.ndarray]]
"""An objective as the libraries call it, `(scores, dataset) -> (gradient, hessian)`."""


class Booster(Protocol):
    """A model that grows. Its objective is the library's own logistic one where None is given."""

    version: str

    def __init__(self, split: Split, objective: Gradient | None, learning_rate: float): ...

    def grow(self) -> None:
        """One round: a tree for each score of a row."""

    def go_on_from(self, margins: list[np.ndarray]) -> None:
        """Grow the next trees on top of these margins, as if there were none before."""

    def margins(self) -> list[np.ndarray]:
        """The margins of the training, validation and test rows, of shape (n,) for two classes, else (n, classes)."""


def library(name: str) -> Any:
    """The module of a booster."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise UserError(f"the booster {name} is not installed: pip install {name}") from None
    except (OSError, ValueError) as error:  # XGBoost's own is a ValueError
        remedy = "apt-get install libgomp1 on Debian and Ubuntu, brew install libomp on macOS"
        raise UserError(f"the booster {name} does not load ({one_line(error)}): install OpenMP, {remedy}") from None


class _LightGBM:
    """With its default settings."""

    def __init__(self, split: Split, objective: Gradient | None, learning_rate: float):
        lightgbm = library("lightgbm")

        self.version = lightgbm.__version__
        self._parts = [rows.features for rows in split[:3]]
        self._objective = objective
        self._margins: list[np.ndarray] = [np.zeros(())] * 3
        self._seen = 0
        binary = split.classes == 2
        self._parameters = {
            "objective": "none" if objective else ("binary" if binary else "multiclass"),
            "num_class": 1 if binary else split.classes,
            "learning_rate": learning_rate,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        self._dataset = lightgbm.Dataset(split.train.features, split.train.labels)
        self._make = lightgbm.Booster
        self._model = self._make(self._parameters, self._dataset)

    def grow(self) -> None:
        self._model.update(fobj=self._objective)

    def go_on_from(self, margins: list[np.ndarray]) -> None:
        self._margins, self._seen = margins, 0
        self._dataset.set_init_score(margins[0])
        self._model = self._make(self._parameters, self._dataset)

    def margins(self) -> list[np.ndarray]:
        seen, self._seen = self._seen, self._model.current_iteration()
        new = [self._model.predict(part, seen, self._seen - seen, raw_score=True) for part in self._parts]
        self._margins = [margins + grown for margins, grown in zip(self._margins, new, strict=True)]
        return self._margins


class _XGBoost:
    """With its default settings."""

    def __init__(self, split: Split, objective: Gradient | None, learning_rate: float):
        xgboost = library("xgboost")

        self.version = xgboost.__version__
        self._train, *self._parts = (
            xgboost.DMatrix(*rows, enable_categorical=True) for rows in (split.train, *split[:3])
        )
        self._objective = objective
        self._rounds = self._seen = 0
        self._margins: list[np.ndarray] = []
        binary = split.classes == 2
        self._parameters: dict[str, Any] = {"learning_rate": learning_rate, "verbosity": 0}
        if not binary:
            self._parameters["num_class"] = split.classes
        if objective is None:
            self._parameters["objective"] = "binary:logistic" if binary else "multi:softprob"
        self._make = xgboost.Booster
        self._model = self._make(self._parameters, [self._train])

    def grow(self) -> None:
        self._model.update(self._train, self._rounds, fobj=self._objective)
        self._rounds += 1

    def go_on_from(self, margins: list[np.ndarray]) -> None:
        self._margins, self._rounds, self._seen = margins, 0, 0
        for matrix, rows in zip((self._train, *self._parts), (margins[0], *margins), strict=True):
            matrix.set_base_margin(rows)
        self._model = self._make(self._parameters, [self._train])

    def margins(self) -> list[np.ndarray]:
        if self._seen < self._rounds:
            new = {"output_margin": True, "iteration_range": (self._seen, self._rounds)}
            self._margins = [self._model.predict(part, **new) for part in self._parts]
            self._seen = self._rounds
            for part, margins in zip(self._parts, self._margins, strict=True):
                part.set_base_margin(margins)  # what the next trees are added to, in place of the intercept
        return self._margins


BOOSTERS: dict[str, type[Booster]] = {"lightgbm": _LightGBM, "xgboost": _XGBoost}
OBJECTIVES = {"lightgbm": lightgbm_objective, "xgboost": xgboost_objective}
