"""The packaged config `tails_development`, from `softbin/experiments/configs/tails_development.py`."""

from softbin.experiments.configs.tails_development import get_config

__all__ = ["get_config"]
