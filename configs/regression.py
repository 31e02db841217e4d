"""The packaged config `regression`, from `softbin/experiments/configs/regression.py`."""

from softbin.experiments.configs.regression import get_config

__all__ = ["get_config"]
