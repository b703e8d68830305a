"""Parts of a source of columns: a span of it, or chosen positions. A source is a posting, or rows of the table."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tieline.language.vector import AnyCodes, Frame

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
CHUNK = 65_536  # positions that are evaluated together: their columns and masks stay in the second-level cache


class Source(Frame, Protocol):
    """A frame whose columns are whole arrays."""


class Span:
    """Positions ``start`` to ``stop`` of a source, without copying."""

    __slots__ = ("length", "source", "start", "stop")

    def __init__(self, source: Frame, start: int, stop: int) -> None:
        self.source = source
        self.start = start
        self.stop = stop
        self.length = stop - start

    def integers(self, name: str) -> tuple[Integers, Flags | None]:
        """Values and which are known."""
        values, known = self.source.integers(name)
        return values[self.start : self.stop], None if known is None else known[self.start : self.stop]

    def codes(self, name: str) -> tuple[AnyCodes, bool]:
        """Codes and whether any is absent."""
        codes, may_be_absent = self.source.codes(name)
        return codes[self.start : self.stop], may_be_absent


class Picked:
    """Chosen positions of a source, gathered when they are read."""

    __slots__ = ("length", "positions", "source")

    def __init__(self, source: Frame, positions: Integers) -> None:
        self.source = source
        self.positions = positions
        self.length = len(positions)

    def integers(self, name: str) -> tuple[Integers, Flags | None]:
        """Values and which are known."""
        values, known = self.source.integers(name)
        return values.take(self.positions), None if known is None else known.take(self.positions)

    def codes(self, name: str) -> tuple[AnyCodes, bool]:
        """Codes and whether any is absent."""
        codes, may_be_absent = self.source.codes(name)
        return codes.take(self.positions), may_be_absent
