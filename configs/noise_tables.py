"""The packaged config `noise_tables`, from `softbin/experiments/configs/noise_tables.py`."""

from softbin.experiments.configs.noise_tables import get_config

__all__ = ["get_config"]
