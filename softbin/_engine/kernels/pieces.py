"""How groups lie on chip, and statistics of them, piece by piece: registers are few."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Num

from softbin._engine.sums import Statistic


class Held(ABC):
    """How groups lie on chip."""

    piece: int  # entries of a group, or rows of them, that are worked on at once

    def __init__(self, n: int):
        self.n = n

    @abstractmethod
    def read(self, entries: Any, start: Any, length: int) -> Array:
        """So many entries of each group, from a place on."""

    @abstractmethod
    def reduce(self, reduce: Callable[..., Array], entries: Array) -> Array:
        """A number for each group."""

    @abstractmethod
    def any(self, condition: Bool[Array, "..."]) -> Bool[Array, ""]:
        """Whether it holds for a group."""

    def statistics(
        self, asked: Callable[[Sequence[Array]], list[tuple[Statistic, Array]]], entries: Sequence[Any]
    ) -> list[Num[Array, "..."]]:
        """Of all pieces: of those that are whole element by element first, and then of what is left."""
        kinds: list[Statistic] = []

        def of(start: Any, length: int) -> list[Array]:
            kinds[:], found = zip(*asked([self.read(entry, start, length) for entry in entries]), strict=True)
            return [each.astype(jnp.int32) if each.dtype == bool else each for each in found]

        def add(piece: Array, before: list[Array]) -> list[Array]:
            found = of(piece * self.piece, self.piece)
            return [kind.combine(*both) for kind, *both in zip(kinds, before, found, strict=True)]

        whole, rest = divmod(self.n, self.piece)
        parts = []
        if whole:
            parts.append(
                lax.fori_loop(np.int32(1), np.int32(whole), add, of(0, self.piece)) if whole > 1 else of(0, self.piece)
            )
        if rest:
            parts.append(of(whole * self.piece, rest))
        parts = [
            [self.reduce(_REDUCE[kind.combine], each) for kind, each in zip(kinds, part, strict=True)] for part in parts
        ]
        return [functools.reduce(kind.combine, found) for kind, *found in zip(kinds, *parts, strict=True)]


class Columns(Held):
    """Every column of a block is a group."""

    axis, piece = 0, 32

    def read(self, entries, start, length):
        return entries[pl.ds(_multiple(start, self.piece), length), :]

    def reduce(self, reduce, entries):
        return reduce(entries, axis=self.axis, keepdims=True)

    def any(self, condition):
        return jnp.any(condition)

    def block(self, side):
        return self.n, side

    def beside(self, side):
        return 1, side

    def place(self, i):
        return 0, i


class Rows(Columns):
    """Every row of a block is a group."""

    axis, piece = 1, 512

    def read(self, entries, start, length):
        return entries[:, pl.ds(_multiple(start, self.piece), length)]

    def block(self, side):
        return side, self.n

    def beside(self, side):
        return side, 1

    def place(self, i):
        return i, 0


class Block(Held):
    """A block of rows is a group."""

    piece = 16

    def __init__(self, n: int, group: Any):
        super().__init__(n)
        self.group = group

    def read(self, entries, start, length):
        return entries[self.group, pl.ds(start, length), :]

    def reduce(self, reduce, entries):
        return reduce(entries)

    def any(self, condition):
        return condition


_REDUCE: dict[Any, Callable[..., Any]] = {
    lax.add: partial(jnp.sum, dtype=jnp.int32),
    lax.max: jnp.max,
    lax.min: jnp.min,
}
"""By how two are combined; all are integers."""


def _multiple(start: Any, of: int) -> Any:
    return start if isinstance(start, int) else pl.multiple_of(start, of)
