"""The packaged config `boosting_capacity`, from `softbin/experiments/configs/boosting_capacity.py`."""

from softbin.experiments.configs.boosting_capacity import get_config

__all__ = ["get_config"]
