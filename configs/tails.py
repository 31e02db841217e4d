"""The packaged config `tails`, from `softbin/experiments/configs/tails.py`."""

from softbin.experiments.configs.tails import get_config

__all__ = ["get_config"]
