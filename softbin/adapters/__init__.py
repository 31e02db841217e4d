"""Adapters to other libraries, each a module that imports its library: `flax_nnx`, `flax_linen`, `optax`."""
