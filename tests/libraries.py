"""Libraries that not every system has, for tests that need them, and the marks of such tests."""

import pytest

from softbin.experiments.boosting.boosters import library
from softbin.experiments.runs.errors import UserError

try:
    lightgbm, missing = library("lightgbm"), ""
except UserError as error:
    lightgbm, missing = None, str(error)

try:
    import keras  # on JAX, by tests/conftest.py
except ModuleNotFoundError:
    keras = None

needs_lightgbm = pytest.mark.skipif(lightgbm is None, reason=missing)
BOOSTERS = [pytest.param("lightgbm", marks=needs_lightgbm), "xgboost"]
