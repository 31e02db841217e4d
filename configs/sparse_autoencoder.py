"""The packaged config `sparse_autoencoder`, from `softbin/experiments/configs/sparse_autoencoder.py`."""

from softbin.experiments.configs.sparse_autoencoder import get_config

__all__ = ["get_config"]
