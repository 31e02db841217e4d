"""The packaged config `digits`, from `softbin/experiments/configs/digits.py`."""

from softbin.experiments.configs.digits import get_config

__all__ = ["get_config"]
