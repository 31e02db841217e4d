"""The packaged config `boosting_tables`, from `softbin/experiments/configs/boosting_tables.py`."""

from softbin.experiments.configs.boosting_tables import get_config

__all__ = ["get_config"]
