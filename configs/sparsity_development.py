"""The packaged config `sparsity_development`, from `softbin/experiments/configs/sparsity_development.py`."""

from softbin.experiments.configs.sparsity_development import get_config

__all__ = ["get_config"]
