"""Kernels for accelerators: the solver of `softbin.search`, run on chip."""
