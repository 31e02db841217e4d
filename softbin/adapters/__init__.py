"""Adapters to other libraries, each a module: `flax_nnx`, `flax_linen` and `optax`, which import theirs, and `gbdt`."""
