"""Kernels for accelerators: the solver and the losses, run on chip."""

from enum import StrEnum


class Interpreted(StrEnum):
    """Kernels that XLA interprets, slowly, on any device: for tests, in place of the name of an implementation.

    Members are asked for by themselves, and their names as plain strings are refused, so that no user meets them.
    Programs are cached by the member, as by the name of an implementation: none is taken for one of compiled kernels.
    """

    TPU = "interpreted as for TPU"
    GPU = "interpreted as for GPU"
