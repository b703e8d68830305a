"""Slots: the calendar's columns. What every arc still has free in every slot of time, in whole bit/s.

Slots are numbered from the epoch (``ms // slot_ms``), so a slot keeps its number when the grid moves on. A booking
that uses a part of a slot holds its rate for the whole of it: never too much is sold. One column more, after the last
slot, stands for all time beyond: circuits that go on past the grid hold their rate there, so that what comes later
cannot be sold twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tieline.model.topology import Topology, Window
from tieline.model.transfer import Segment
from tieline.network.graph import Graph, Ints

Longs = NDArray[np.int64]

SLOT_MS: Final = 300_000
SLOTS: Final = 2_016  # a week
BITS_MS: Final = 8_000  # bit/s x ms -> bytes


class Grid(NamedTuple):
    """Slots ``first`` to ``first + slots``, that one not included."""

    first: int
    slots: int
    slot_ms: int = SLOT_MS

    @property
    def last(self) -> int:
        """The slot after the last one: the number of the column that stands for all time beyond."""
        return self.first + self.slots

    @property
    def begin_ms(self) -> int:
        """When the first slot begins."""
        return self.first * self.slot_ms

    @property
    def until_ms(self) -> int:
        """When the last slot ends."""
        return self.last * self.slot_ms

    def touched(self, from_ms: int, until_ms: int) -> tuple[int, int]:
        """The slots that a span touches, within the grid: the first one and the one after the last."""
        low = min(max(from_ms // self.slot_ms, self.first), self.last)
        return low, max(low, min(-(-until_ms // self.slot_ms), self.last))

    def whole_from(self, now_ms: int) -> int:
        """The first slot that has not begun: what is booked from there on can still be laid elsewhere."""
        return min(max(-(-now_ms // self.slot_ms), self.first), self.last)

    def lengths_ms(self, from_ms: int, until_ms: int, low: int, high: int) -> Longs:
        """How much of each slot from ``low`` to ``high`` lies in the span."""
        begin = np.arange(low, high, dtype=np.int64) * self.slot_ms
        spans: Longs = np.minimum(begin + self.slot_ms, until_ms) - np.maximum(begin, from_ms)
        return np.maximum(spans, 0)


def grid_at(now_ms: int, *, slot_ms: int = SLOT_MS, count: int = SLOTS) -> Grid:
    """The grid whose first slot is the one of ``now_ms``."""
    return Grid(now_ms // slot_ms, count, slot_ms)


class Wires(NamedTuple):
    """A topology by numbers: arcs ``2k`` and ``2k + 1`` are the two directions of its link ``k``."""

    topology: Topology
    graph: Graph
    node: dict[str, int]  # by name, and by the identifier of the site that it serves
    link: dict[str, int]

    def links_of(self, arcs: Sequence[int]) -> tuple[str, ...]:
        """Names of the links of a path."""
        return tuple(self.topology.links[arc // 2].name for arc in arcs)

    def nodes_of(self, arcs: Sequence[int]) -> tuple[str, ...]:
        """Names of the nodes of a path, both ends included."""
        ends = [int(self.graph.tail[arcs[0]])] if len(arcs) else []
        return tuple(self.graph.names[each] for each in [*ends, *self.graph.head[list(arcs)].tolist()])

    def arcs_of(self, segment: Segment) -> tuple[int, ...] | None:
        """The arcs of a segment; None where a link of it is not here any more."""
        numbers = [self.link.get(name) for name in segment.path]
        if any(number is None for number in numbers):
            return None
        pairs = zip(numbers, segment.is_forward, strict=True)
        return tuple(2 * number + (not forward) for number, forward in pairs if number is not None)

    def way_of(self, nodes: Sequence[str], links: Sequence[str]) -> tuple[int, ...] | None:
        """The arcs of a route; None where it is not here any more."""
        arcs = []
        for name, at, to in zip(links, nodes, nodes[1:], strict=False):
            number, ends = self.link.get(name), (self.node.get(at), self.node.get(to))
            if number is None or None in ends:
                return None
            there = int(self.graph.tail[2 * number]), int(self.graph.head[2 * number])
            if ends not in (there, there[::-1]):  # another link has its name now
                return None
            arcs.append(2 * number + (ends != there))
        return tuple(arcs)


def wires_of(topology: Topology) -> Wires:
    """The arcs of a sound topology; names are unique and both ends of a link exist."""
    node = {each.name: number for number, each in enumerate(topology.nodes)}
    link = {each.name: number for number, each in enumerate(topology.links)}
    assert len(node) == len(topology.nodes), "a node's name occurs twice"
    assert len(link) == len(topology.links), "a link's name occurs twice"
    ends = np.array([(node[each.a], node[each.b]) for each in topology.links], dtype=np.int32).reshape(-1, 2)
    rates = [
        (each.capacity_bps, each.capacity_bps if each.capacity_back_bps is None else each.capacity_back_bps)
        for each in topology.links
    ]
    delay = np.repeat(np.array([each.delay_us for each in topology.links], dtype=np.float64), 2)
    capacity = np.array(rates, dtype=np.float64).reshape(-1)
    names = tuple(each.name for each in topology.nodes)
    graph = Graph(names, ends.reshape(-1).copy(), ends[:, ::-1].reshape(-1).copy(), capacity, delay, delay)
    sites = {each.site: number for number, each in reversed(list(enumerate(topology.nodes))) if each.site}
    return Wires(topology, graph, {**sites, **node}, link)


def capacities(wires: Wires, grid: Grid, only: Sequence[int] | None = None) -> Longs:
    """Arcs x (slots + 1): what each carries when nothing is booked; 0 in the slots that its maintenance touches.

    ``only``: the arcs of these links, by number, and in this order.
    """
    numbers = range(len(wires.topology.links)) if only is None else only
    arcs = np.array([arc for number in numbers for arc in (2 * number, 2 * number + 1)], dtype=np.int64)
    free = np.repeat(wires.graph.capacity_bps[arcs].astype(np.int64)[:, None], grid.slots + 1, axis=1)
    for at, number in enumerate(numbers):
        for window in wires.topology.links[number].maintenance:
            low, high = grid.touched(window.from_ms, window.until_ms)
            free[2 * at : 2 * at + 2, low - grid.first : high - grid.first] = 0
    return free


class Piece(NamedTuple):
    """Rates on one path, slot by slot from ``low`` on."""

    arcs: Ints
    low: int
    rates: Longs


def taken(free: Longs, grid: Grid, piece: Piece, sign: int = 1) -> None:
    """Take a piece from what is free, in place; ``sign`` -1 gives it back. What lies before the grid is over."""
    low, high = max(piece.low, grid.first), min(piece.low + len(piece.rates), grid.last)
    if low < high:
        free[piece.arcs, low - grid.first : high - grid.first] -= sign * piece.rates[low - piece.low : high - piece.low]


def pieces_of(wires: Wires, grid: Grid, segments: Sequence[Segment]) -> list[Piece]:
    """Segments as pieces, one a path; those over links that are not here any more are left out."""
    by_path: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
    for segment in segments:
        arcs = wires.arcs_of(segment)
        low, high = segment.from_ms // grid.slot_ms, -(-segment.until_ms // grid.slot_ms)
        if arcs is not None and high > grid.first:
            by_path.setdefault(arcs, []).append((max(low, grid.first), high, segment.rate_bps))
    made = []
    for arcs, spans in by_path.items():
        first, last = min(low for low, _, _ in spans), max(high for _, high, _ in spans)
        rates = np.zeros(last - first, dtype=np.int64)
        for low, high, rate in spans:
            rates[low - first : high - first] += rate
        made.append(Piece(np.array(arcs, dtype=np.int32), first, rates))
    return made


def segments_of(wires: Wires, grid: Grid, pieces: Sequence[Piece], from_ms: int, until_ms: int) -> tuple[Segment, ...]:
    """Pieces as segments, slots of one rate together, none outside of the span; by time, then in the pieces' order."""
    made: list[Segment] = []
    for piece in pieces:
        path = wires.links_of(piece.arcs.tolist())
        forward = tuple(arc % 2 == 0 for arc in piece.arcs.tolist())
        for low, high, rate in _runs(piece):
            begin, end = max(low * grid.slot_ms, from_ms), min(high * grid.slot_ms, until_ms)
            made.append(Segment(path=path, is_forward=forward, from_ms=begin, until_ms=end, rate_bps=rate))
    return tuple(sorted(made, key=lambda segment: segment.from_ms))


def _runs(piece: Piece) -> Iterator[tuple[int, int, int]]:
    rates = piece.rates
    edges = np.flatnonzero(np.diff(rates)) + 1
    starts = [0, *edges.tolist()] if len(rates) else []
    for low, high in zip(starts, [*starts[1:], len(rates)], strict=True):
        if rates[low] > 0:
            yield piece.low + low, piece.low + high, int(rates[low])


def cut_at(segments: Sequence[Segment], at_ms: int) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """The parts of the segments before a time and from then on."""
    before, after = [], []
    for each in segments:
        if each.from_ms < at_ms:
            before.append(each if each.until_ms <= at_ms else _between(each, each.from_ms, at_ms))
        if each.until_ms > at_ms:
            after.append(each if each.from_ms >= at_ms else _between(each, at_ms, each.until_ms))
    return tuple(before), tuple(after)


def _between(segment: Segment, from_ms: int, until_ms: int) -> Segment:
    return Segment(
        path=segment.path,
        is_forward=segment.is_forward,
        from_ms=from_ms,
        until_ms=until_ms,
        rate_bps=segment.rate_bps,
    )


def is_within(windows: Sequence[Window], at_ms: int) -> bool:
    """Whether a time is in one of the windows."""
    return any(window.from_ms <= at_ms < window.until_ms for window in windows)
