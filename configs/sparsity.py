"""The packaged config `sparsity`, from `softbin/experiments/configs/sparsity.py`."""

from softbin.experiments.configs.sparsity import get_config

__all__ = ["get_config"]
