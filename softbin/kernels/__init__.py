"""Kernels for accelerators: the solver and the losses, run on chip."""
