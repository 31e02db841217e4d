"""LightGBM, for tests that train with it, and the mark of such tests: it does not load on every system."""

import pytest

from softbin.experiments.boosting.boosters import library
from softbin.experiments.common.errors import UserError

try:
    lightgbm, missing = library("lightgbm"), ""
except UserError as error:
    lightgbm, missing = None, str(error)

needs_lightgbm = pytest.mark.skipif(lightgbm is None, reason=missing)
BOOSTERS = [pytest.param("lightgbm", marks=needs_lightgbm), "xgboost"]
