"""The packaged config `fashion_mnist`, from `softbin/experiments/configs/fashion_mnist.py`."""

from softbin.experiments.configs.fashion_mnist import get_config

__all__ = ["get_config"]
