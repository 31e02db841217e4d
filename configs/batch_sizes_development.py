"""The packaged config `batch_sizes_development`, from `softbin/experiments/configs/batch_sizes_development.py`."""

from softbin.experiments.configs.batch_sizes_development import get_config

__all__ = ["get_config"]
