"""The packaged config `noise_development`, from `softbin/experiments/configs/noise_development.py`."""

from softbin.experiments.configs.noise_development import get_config

__all__ = ["get_config"]
