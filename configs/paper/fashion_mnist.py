"""The packaged config `paper/fashion_mnist`, from `softbin/experiments/configs/paper/fashion_mnist.py`."""

from softbin.experiments.configs.paper.fashion_mnist import get_config

__all__ = ["get_config"]
