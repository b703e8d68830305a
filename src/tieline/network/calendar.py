"""Calendar: what is booked of a network over time. State that follows from the bookings alone.

Three arrays of arcs x (slots + 1): what there is, what circuits left of it (`firm`), and what transfers left of that
(`free`). What of a transfer lies in slots that have not begun can be laid elsewhere, so `firm` is what a new layout
starts from. The calendar is told of every booking (`put_transfer`, `put_circuit`) and of time (`roll`); deciding is
in `admit`, `lease` and `heal`, which change nothing here.
"""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import numpy as np

from tieline.model.circuit import CIRCUIT_ENDED, Circuit, Recurrence
from tieline.model.topology import Topology, Window
from tieline.model.transfer import TRANSFER_ENDED, Transfer
from tieline.network.graph import Ints
from tieline.network.slots import (
    SLOT_MS,
    SLOTS,
    Grid,
    Longs,
    Piece,
    Wires,
    capacities,
    grid_at,
    pieces_of,
    taken,
    wires_of,
)
from tieline.network.ways import Ways


class Laid(NamedTuple):
    """A live transfer and the pieces of its booking, those before the grid left out."""

    transfer: Transfer
    source: int
    target: int
    pieces: tuple[Piece, ...]
    masks: tuple[int, ...]  # of the arcs of each piece, one bit each: who is in whose way is asked of all of them


class Calendar:
    """The bookings of one network."""

    def __init__(self, topology: Topology, now_ms: int, *, slot_ms: int = SLOT_MS, count: int = SLOTS) -> None:
        self.wires: Wires = wires_of(topology)
        self.ways = Ways(self.wires.graph)
        self.now_ms = now_ms
        self.grid: Grid = grid_at(now_ms, slot_ms=slot_ms, count=count)
        self.transfers: dict[str, Laid] = {}
        self.circuits: dict[str, Circuit] = {}
        self.held: dict[str, list[Longs]] = {}  # circuit -> `held_arcs`
        self.capacity: Longs = capacities(self.wires, self.grid)
        self.firm: Longs = self.capacity.copy()
        self.free: Longs = self.capacity.copy()

    def put_transfer(self, transfer: Transfer) -> None:
        """Book it as it stands now, in the place of what was booked for it before; an ended one holds nothing."""
        before = self.transfers.pop(transfer.id, None)
        for piece in before.pieces if before else ():
            taken(self.free, self.grid, piece, -1)
        if transfer.state not in TRANSFER_ENDED:
            laid = self._laid(transfer)
            self.transfers[transfer.id] = laid
            for piece in laid.pieces:
                taken(self.free, self.grid, piece)

    def put_circuit(self, circuit: Circuit) -> None:
        """Book it as it stands now, in the place of what was booked for it before; an ended one holds nothing."""
        before = self.circuits.pop(circuit.id, None)
        if before is not None:
            self._hold(before, -1)
            del self.held[before.id]
        if circuit.state not in CIRCUIT_ENDED:
            self.circuits[circuit.id] = circuit
            self.held[circuit.id] = held_arcs(self.wires, circuit)
            self._hold(circuit, 1)

    def roll(self, now_ms: int) -> None:
        """Move the grid to ``now_ms``. A clock that goes back moves nothing: what was booked stays booked."""
        self.now_ms = max(self.now_ms, now_ms)
        grid = grid_at(now_ms, slot_ms=self.grid.slot_ms, count=self.grid.slots)
        by = grid.first - self.grid.first
        if by >= grid.slots:
            self.grid = grid
            self._rebuild()
        elif by > 0:
            self._shift(grid, by)

    def rewire(self, topology: Topology) -> None:
        """The same bookings over another state of the network; where they do not fit, `free` is below 0."""
        self.wires = wires_of(topology)
        self.ways = Ways(self.wires.graph)
        self._rebuild()

    def copied(self) -> Calendar:
        """Another one with the same bookings, to try things on."""
        other = copy(self)
        other.transfers, other.circuits, other.held = dict(self.transfers), dict(self.circuits), dict(self.held)
        other.firm, other.free = self.firm.copy(), self.free.copy()
        return other

    def is_kept(self) -> bool:
        """Whether nothing is booked beyond what there is, from now on."""
        first = self.grid.touched(self.now_ms, self.now_ms)[0] - self.grid.first
        return bool(np.all(self.free[:, first:] >= 0))

    def _rebuild(self) -> None:
        self.held = {name: held_arcs(self.wires, circuit) for name, circuit in self.circuits.items()}
        self.capacity = capacities(self.wires, self.grid)
        self.firm = self.capacity - self._load(self.grid)
        self.free = self.firm.copy()
        for name, laid in self.transfers.items():
            self.transfers[name] = again = self._laid(laid.transfer)
            for piece in again.pieces:
                taken(self.free, self.grid, piece)

    def _shift(self, grid: Grid, by: int) -> None:
        """Move on by few slots: those that stay are as they were, so only the new ones are worked out."""
        ahead = Grid(self.grid.last, by, grid.slot_ms)
        capacity = capacities(self.wires, ahead)
        firm = capacity - self._load(ahead)
        free = firm.copy()
        for laid in self.transfers.values():
            for piece in laid.pieces:
                if piece.low + len(piece.rates) > ahead.first:
                    taken(free, ahead, piece)
        self.grid = grid
        self.capacity = np.concatenate([self.capacity[:, by:-1], capacity], axis=1)
        self.firm = np.concatenate([self.firm[:, by:-1], firm], axis=1)
        self.free = np.concatenate([self.free[:, by:-1], free], axis=1)

    def _load(self, grid: Grid) -> Longs:
        """What circuits hold of each arc in each column of a grid."""
        always = np.zeros((self.wires.graph.arc_count, 1), dtype=np.int64)  # in all of the columns
        load = np.zeros((self.wires.graph.arc_count, grid.slots + 1), dtype=np.int64)
        for name, circuit in self.circuits.items():
            columns = columns_of(grid, circuit)
            for arcs in self.held[name]:
                if len(columns) > grid.slots:
                    always[arcs, 0] += circuit.held_bps
                else:
                    load[at(arcs, columns)] += circuit.held_bps
        load += always
        return load

    def _laid(self, transfer: Transfer) -> Laid:
        node = self.wires.node
        ends = node.get(transfer.order.source, -1), node.get(transfer.order.target, -1)
        # What is over holds nothing, not even of the slot in which it ended.
        live = [segment for segment in transfer.segments if segment.until_ms > self.now_ms]
        pieces = tuple(pieces_of(self.wires, self.grid, live))
        return Laid(transfer, *ends, pieces, tuple(mask_of(piece.arcs) for piece in pieces))

    def _hold(self, circuit: Circuit, sign: int) -> None:
        columns = columns_of(self.grid, circuit)
        for arcs in self.held[circuit.id]:
            for array in (self.firm, self.free):
                array[at(arcs, columns)] -= sign * circuit.held_bps


def at(arcs: Any, columns: Longs) -> tuple[Any, Any]:
    """The index of some columns of some arcs; columns without a gap are a slice, which is several times as fast."""
    if len(columns) and int(columns[-1]) - int(columns[0]) + 1 == len(columns):
        return arcs, slice(int(columns[0]), int(columns[-1]) + 1)
    return (arcs, columns) if isinstance(arcs, slice) else (arcs[:, None], columns)


def mask_of(arcs: Ints) -> int:
    """One bit for each arc."""
    mask = 0
    for arc in arcs.tolist():
        mask |= 1 << arc
    return mask


def held_arcs(wires: Wires, circuit: Circuit) -> list[Longs]:
    """The arcs that a circuit holds: both directions of its route, and of its spare one."""
    held = []
    for route in (circuit.route, circuit.spare):
        way = None if route is None else wires.way_of(route.nodes, route.links)
        if way is not None:
            held.append(np.array([each for arc in way for each in (arc, arc ^ 1)], dtype=np.int64))
    return held


def columns_of(grid: Grid, circuit: Circuit) -> Longs:
    """The columns in which a circuit holds its rate, the one of all time beyond included where it goes on."""
    order = circuit.order
    from_ms = order.from_ms or circuit.ordered_ms
    return columns_in(grid, from_ms, order.until_ms, order.recurrence)


def columns_in(grid: Grid, from_ms: int, until_ms: int, recurrence: Recurrence | None) -> Longs:
    """Columns that the windows touch. ``until_ms`` 0: for ever."""
    is_held = np.zeros(grid.slots + 1, dtype=bool)
    for window in windows_in(from_ms, until_ms, recurrence, grid.begin_ms, grid.until_ms):
        low, high = grid.touched(window.from_ms, window.until_ms)
        is_held[low - grid.first : high - grid.first] = True
    is_held[-1] = not until_ms or until_ms > grid.until_ms
    return np.flatnonzero(is_held)


def windows_in(from_ms: int, until_ms: int, recurrence: Recurrence | None, begin_ms: int, end_ms: int) -> list[Window]:
    """The windows of an order between two times, cut to them; at most one for each minute of the time between."""
    last = min(until_ms or end_ms, end_ms)
    if recurrence is None:
        spans = [(from_ms, last)]
    else:
        period, begin, length = recurrence.period_s * 1_000, recurrence.begin_s * 1_000, recurrence.length_s * 1_000
        turn = max(0, (max(begin_ms, from_ms) - from_ms - begin - length) // period)
        spans = []
        while (at := from_ms + begin + turn * period) < last:
            spans.append((at, at + length))
            turn += 1
    cut = [(max(low, from_ms, begin_ms), min(high, last)) for low, high in spans]
    return [Window(from_ms=low, until_ms=high) for low, high in cut if low < high]
