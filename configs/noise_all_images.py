"""The packaged config `noise_all_images`, from `softbin/experiments/configs/noise_all_images.py`."""

from softbin.experiments.configs.noise_all_images import get_config

__all__ = ["get_config"]
