"""The packaged config `large_batch_cpu`, from `softbin/experiments/configs/large_batch_cpu.py`."""

from softbin.experiments.configs.large_batch_cpu import get_config

__all__ = ["get_config"]
