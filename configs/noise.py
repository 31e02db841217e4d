"""The packaged config `noise`, from `softbin/experiments/configs/noise.py`."""

from softbin.experiments.configs.noise import get_config

__all__ = ["get_config"]
