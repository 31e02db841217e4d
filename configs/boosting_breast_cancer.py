"""The packaged config `boosting_breast_cancer`, from `softbin/experiments/configs/boosting_breast_cancer.py`."""

from softbin.experiments.configs.boosting_breast_cancer import get_config

__all__ = ["get_config"]
