"""Fill: bytes laid into the earliest room of few paths. What admission, healing and the night are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tieline.network.slots import BITS_MS, Grid, Longs, Piece
from tieline.network.ways import Path


class Room(NamedTuple):
    """What is free, arcs x slots, its first column being the slot ``low``. Filling changes it in place."""

    free: Longs
    low: int
    grid: Grid


class Filled(NamedTuple):
    """What was laid, and the bytes for which there was no room."""

    pieces: Sequence[Piece]
    left_bytes: int


def filled(
    room: Room, paths: Sequence[Path], size_bytes: int, from_ms: int, until_ms: int, *, is_splittable: bool = True
) -> Filled:
    """Lay as much as there is room for between two times, slot after slot, in each slot path after path.

    Without ``is_splittable`` all of it goes over the one path that has it there first.
    """
    low, high = room.grid.touched(from_ms, until_ms)
    low, high = max(low, room.low), min(high, room.low + room.free.shape[1])
    if low >= high or not paths:
        return Filled((), size_bytes)
    length_ms = room.grid.lengths_ms(from_ms, until_ms, low, high)
    if not is_splittable and len(paths) > 1:
        paths = (_earliest(room, paths, size_bytes, low, length_ms),)
    window = room.free[:, low - room.low : high - room.low]
    taken: list[tuple[Path, Longs]] = []
    carried = np.zeros(high - low, dtype=np.int64)
    for path in paths:
        rates = _rates(window, path, length_ms)
        if rates is not None:
            window[path] -= rates
            taken.append((path, rates))
            carried += _bytes(rates, length_ms)
    reached = np.cumsum(carried)
    left = size_bytes - int(reached[-1])
    if left < 0:
        _trim(window, taken, length_ms, reached, size_bytes)
        left = 0
    pieces = tuple(Piece(path, low, rates) for path, rates in taken if rates.any())
    return Filled(pieces, left)


def _rates(window: Longs, path: Path, length_ms: Longs) -> Longs | None:
    """The most that a path carries in each slot; None where that is nothing."""
    rates: Longs = window[path].min(axis=0)
    np.maximum(rates, 0, out=rates)
    rates[length_ms <= 0] = 0
    return rates if rates.any() else None


def _bytes(rates: Longs, length_ms: Longs) -> Longs:
    """What the rates carry. In two steps: a rate of 10^15 bit/s for a day would not fit into 64 bit at once."""
    whole, rest = np.divmod(rates, BITS_MS)
    carried: Longs = whole * length_ms + rest * length_ms // BITS_MS
    return carried


def _earliest(room: Room, paths: Sequence[Path], size_bytes: int, low: int, length_ms: Longs) -> Path:
    """The path that has carried all of it first; where none does, the one that carries most."""
    window = room.free[:, low - room.low : low - room.low + len(length_ms)]

    def rank(at: int) -> tuple[int, int, int]:
        rates = _rates(window, paths[at], length_ms)
        if rates is None:
            return len(length_ms), 0, at
        reached = np.cumsum(_bytes(rates, length_ms))
        return int(np.searchsorted(reached, size_bytes)), -min(int(reached[-1]), size_bytes), at

    return paths[min(range(len(paths)), key=rank)]


def _trim(window: Longs, taken: list[tuple[Path, Longs]], length_ms: Longs, reached: Longs, size_bytes: int) -> None:
    """Give back what is more than was asked: all after the slot that reaches it, and in that slot the last paths."""
    last = int(np.searchsorted(reached, size_bytes))
    for path, rates in taken:
        window[path, last + 1 :] += rates[last + 1 :]
        rates[last + 1 :] = 0
    extra = int(reached[last]) - size_bytes
    length = int(length_ms[last])
    for path, rates in reversed(taken):
        rate = int(rates[last])
        here = rate * length // BITS_MS
        keeps = 0 if here <= extra else -(-(here - extra) * BITS_MS // length)
        window[path, last] += rate - keeps
        rates[last] = keeps
        extra -= min(here, extra)
        if extra <= 0:
            break


def undone(room: Room, done: Filled) -> None:
    """Give back all of it."""
    for piece in done.pieces:
        room.free[piece.arcs, piece.low - room.low : piece.low - room.low + len(piece.rates)] += piece.rates
