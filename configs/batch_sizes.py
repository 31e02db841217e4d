"""The packaged config `batch_sizes`, from `softbin/experiments/configs/batch_sizes.py`."""

from softbin.experiments.configs.batch_sizes import get_config

__all__ = ["get_config"]
