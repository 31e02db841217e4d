"""The packaged config `noise_batch_sizes_development`.

It is `softbin/experiments/configs/noise_batch_sizes_development.py`.
"""

from softbin.experiments.configs.noise_batch_sizes_development import get_config

__all__ = ["get_config"]
