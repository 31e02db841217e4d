"""The packaged config `regression_diamonds`, from `softbin/experiments/configs/regression_diamonds.py`."""

from softbin.experiments.configs.regression_diamonds import get_config

__all__ = ["get_config"]
