"""The packaged config `regression_development`, from `softbin/experiments/configs/regression_development.py`."""

from softbin.experiments.configs.regression_development import get_config

__all__ = ["get_config"]
