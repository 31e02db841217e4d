"""The packaged config `paper/cifar10`, from `softbin/experiments/configs/paper/cifar10.py`."""

from softbin.experiments.configs.paper.cifar10 import get_config

__all__ = ["get_config"]
