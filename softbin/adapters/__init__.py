"""Adapters to other libraries, each a module: `flax_nnx`, `flax_linen`, `optax`, `keras` and `sklearn`, which import
theirs, and `gbdt`.
"""
