"""The packaged config `capacity_development`, from `softbin/experiments/configs/capacity_development.py`."""

from softbin.experiments.configs.capacity_development import get_config

__all__ = ["get_config"]
