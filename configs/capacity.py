"""The packaged config `capacity`, from `softbin/experiments/configs/capacity.py`."""

from softbin.experiments.configs.capacity import get_config

__all__ = ["get_config"]
