"""The numbers of a task that do not change its program."""

from typing import NamedTuple

from jaxtyping import Array, Int, Real


class Numbers(NamedTuple):
    """What a task takes besides its sizes; a program serves all of them."""

    k: Real[Array, ""]
    temperature: Real[Array, ""]
    penalty: Real[Array, ""]
    learning_rate: Real[Array, ""]
    seed: Int[Array, ""]
