"""The packaged config `noise_batch_sizes`.

It is `softbin/experiments/configs/noise_batch_sizes.py`.
"""

from softbin.experiments.configs.noise_batch_sizes import get_config

__all__ = ["get_config"]
