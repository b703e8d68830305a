"""Calendar: what is booked of a network over time. State that follows from the bookings alone.

Three arrays of arcs x (slots + 1): what there is, what circuits left of it (`firm`), and what transfers left of that
(`free`). What of a transfer lies in slots that have not begun can be laid elsewhere, so `firm` is what a new layout
starts from. The calendar is told of every booking (`put_transfer`, `put_circuit`) and of time (`roll`); deciding is
in `admit`, `lease` and `heal`, which change nothing here.

After a loss of capacity a booking *waits to be mended* until somebody looks at it again (`waiting`): what of it lies
where nothing leads any more holds nothing, and what lies where there is too little for all is counted below 0. Both
follow from the bookings and the network alone, so a restart in the middle knows them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from tieline.model.circuit import CIRCUIT_ENDED, Circuit, Recurrence, Route
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

NO_BOUND: Final = 2**62
MOST_SPANS: Final = 8  # of columns that are kept: mostly "from now on" and "from the next slot on"
FEW_COLUMNS: Final = 64  # are looked at anew


class Laid(NamedTuple):
    """A live transfer and the pieces of its booking, those before the grid left out."""

    transfer: Transfer
    source: int
    target: int
    pieces: tuple[Piece, ...]
    masks: tuple[int, ...]  # of the arcs of each piece, one bit each: who is in whose way is asked of all of them
    way: int  # of all arcs on which it is booked, those that carry nothing any more included
    cut_until_ms: int  # end of what lies where nothing leads any more, which is in no piece; 0: nothing does


class Waiting(NamedTuple):
    """Names of the bookings that a loss of capacity concerns and that were not looked at since."""

    circuits: tuple[str, ...]
    transfers: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many."""
        return len(self.circuits) + len(self.transfers)


class _State(NamedTuple):
    """Of a network: the wires, what some arcs carry, and the transfers that this concerns."""

    wires: Wires
    ways: Ways
    arcs: list[int]
    capacity_bps: Longs
    transfers: dict[str, Laid]


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
        self._booked: dict[str, int] = {}  # circuit -> a mask of all arcs of its routes
        self._cut: dict[str, None] = {}  # bookings of which part lies where nothing leads any more
        self._suspect: dict[int, None] = {}  # arcs on which there may be too little for all
        self._least: dict[tuple[str, int, int], Longs] = {}  # what each arc has in all columns of some spans
        self._stale: dict[int, None] = {}  # arcs of which that is not so any more
        self._changes = 0
        self._mtu_bytes: tuple[Wires, Longs] | None = None
        self._waiting: tuple[tuple[int, int], Waiting] | None = None  # at which change and time it was so
        self._undo: list[Callable[[], object]] | None = None
        self._owns_capacity = True

    def put_transfer(self, transfer: Transfer) -> None:
        """Book it as it stands now, in the place of what was booked for it before; an ended one holds nothing."""
        before = self._drop_transfer(transfer.id)
        if self._undo is not None:
            undo = partial(self._drop_transfer, transfer.id) if before is None else partial(self.put_transfer, before)
            self._undo.append(undo)
        if transfer.state not in TRANSFER_ENDED:
            laid = self._laid(transfer)
            self.transfers[transfer.id] = laid
            if laid.cut_until_ms:
                self._cut[transfer.id] = None
            for piece in laid.pieces:
                taken(self.free, self.grid, piece)
                low = max(0, piece.low - self.grid.first)
                high = max(low, piece.low + len(piece.rates) - self.grid.first)
                self._touched(piece.arcs, (piece.arcs, slice(low, high)))

    def put_circuit(self, circuit: Circuit) -> None:
        """Book it as it stands now, in the place of what was booked for it before; an ended one holds nothing."""
        before = self._drop_circuit(circuit.id)
        if self._undo is not None:
            undo = partial(self._drop_circuit, circuit.id) if before is None else partial(self.put_circuit, before)
            self._undo.append(undo)
        if circuit.state not in CIRCUIT_ENDED:
            self.circuits[circuit.id] = circuit
            self._note(circuit)
            self._hold(circuit, 1)

    def waiting(self) -> Waiting:
        """Who waits to be mended, by name."""
        if not self._cut and not self._suspect:
            return Waiting((), ())
        if self._waiting is None or self._waiting[0] != (self._changes, self.now_ms):
            self._waiting = (self._changes, self.now_ms), self._found_waiting()
        return self._waiting[1]

    def _found_waiting(self) -> Waiting:
        rows = self.over()
        circuits = {name: None for name in self._cut if name in self.circuits}
        transfers = {
            name: None
            for name in self._cut
            if name in self.transfers and self.transfers[name].cut_until_ms > self.now_ms
        }
        if len(rows):
            mask = mask_of(rows)
            first = self._first()
            for name, circuit in self.circuits.items() if (self.firm[rows, first:] < 0).any() else ():
                if self._booked[name] & mask and self._is_over(circuit, first):
                    circuits[name] = None
            for name, laid in self.transfers.items():
                if laid.way & mask and any(self._is_beyond(piece, first) for piece in laid.pieces):
                    transfers[name] = None
        return Waiting(tuple(sorted(circuits)), tuple(sorted(transfers)))

    def mtu_bytes(self) -> Longs:
        """What each arc carries unfragmented."""
        if self._mtu_bytes is None or self._mtu_bytes[0] is not self.wires:
            of_links = np.array([link.mtu_bytes for link in self.wires.topology.links], dtype=np.int64)
            self._mtu_bytes = self.wires, np.repeat(of_links, 2)
        return self._mtu_bytes[1]

    def over(self) -> Ints:
        """Arcs that are booked beyond what there is, from now on."""
        first = self._first()
        rows = [arc for arc in self._suspect if (self.free[arc, first:] < 0).any()]
        self._suspect = dict.fromkeys(rows)
        return np.array(sorted(rows), dtype=np.int32)

    def least(self, name: str, columns: Longs) -> Longs:
        """What each arc has of ``firm`` or ``free`` in all of some columns; not to be changed. No column, no bound."""
        array: Longs = getattr(self, name)
        if not len(columns):
            return np.full(len(array), NO_BOUND, dtype=np.int64)
        low, high = int(columns[0]), int(columns[-1]) + 1
        if high - low > len(columns) or high - low <= FEW_COLUMNS:
            found: Longs = array[at(slice(None), columns)].min(axis=1)
            return found
        if len(self._stale) > len(array) // 4 or len(self._least) > MOST_SPANS:
            self._least.clear()
            self._stale.clear()
        if self._stale:
            rows = list(self._stale)
            for (kept, begin, end), known in self._least.items():
                known[rows] = getattr(self, kept)[rows, begin:end].min(axis=1)
            self._stale.clear()
        if (name, low, high) not in self._least:
            self._least[name, low, high] = array[:, low:high].min(axis=1)
        return self._least[name, low, high]

    @contextmanager
    def trying(self) -> Iterator[None]:
        """What is put and rewired inside is as it was before, afterwards."""
        assert self._undo is None, "one after the other"
        self._undo = []
        try:
            yield
        finally:
            undo, self._undo = self._undo, None
            for back in reversed(undo):
                back()

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
        before, ways = self.wires.topology, self.ways
        changed = changed_links(before, topology)
        if changed is None:
            if self._undo is not None:
                self._undo.append(partial(self._restore, before, ways))
            self.wires = wires_of(topology)
            self.ways = Ways(self.wires.graph)
            self._rebuild()
        elif changed:
            self._change(topology, changed)

    def concerned(self, topology: Topology) -> int:
        """How many bookings are on links that another state of the network changes; all, if it is another network."""
        changed = changed_links(self.wires.topology, topology)
        if changed is None:
            return len(self.transfers) + len(self.circuits)
        mask = mask_of(np.array([2 * number for number in changed], dtype=np.int32)) * 3
        booked = [*self._booked.values(), *(laid.way for laid in self.transfers.values())]
        return sum(bool(way & mask) for way in booked)

    def copied(self) -> Calendar:
        """Another one with the same bookings, to try things on."""
        assert self._undo is None, "not in the middle of a trial"
        other = copy(self)
        for name in ("transfers", "circuits", "held", "_booked", "_cut", "_suspect", "_stale"):
            setattr(other, name, dict(getattr(self, name)))
        other._least = {}
        other.firm, other.free = self.firm.copy(), self.free.copy()
        self._owns_capacity = other._owns_capacity = False
        return other

    def is_kept(self) -> bool:
        """Whether nothing is booked beyond what there is, from now on."""
        return bool(np.all(self.free[:, self._first() :] >= 0))

    def _first(self) -> int:
        """The column of now."""
        return self.grid.touched(self.now_ms, self.now_ms)[0] - self.grid.first

    def _restore(self, topology: Topology, ways: Ways) -> None:
        self.rewire(topology)
        self.ways = ways

    def _drop_transfer(self, name: str) -> Transfer | None:
        self._changes += 1
        before = self.transfers.pop(name, None)
        if before is None:
            return None
        self._cut.pop(name, None)
        for piece in before.pieces:
            taken(self.free, self.grid, piece, -1)
            self._stale |= dict.fromkeys(piece.arcs.tolist())
        return before.transfer

    def _drop_circuit(self, name: str) -> Circuit | None:
        self._changes += 1
        before = self.circuits.pop(name, None)
        if before is not None:
            self._hold(before, -1)
            del self.held[name], self._booked[name]
            self._cut.pop(name, None)
        return before

    def _note(self, circuit: Circuit) -> None:
        """Keep on which arcs it is booked, and which of them hold anything."""
        self.held[circuit.id] = held = held_arcs(self.wires, circuit)
        if len(held) < (circuit.route is not None) + (circuit.spare is not None):
            self._cut[circuit.id] = None
        mask = 0
        for link in {name: None for route in routes_of(circuit) for name in route.links}:
            number = self.wires.link.get(link)
            mask |= 0 if number is None else 3 << 2 * number
        self._booked[circuit.id] = mask

    def _touched(self, arcs: Any, cells: tuple[Any, Any]) -> None:
        names = dict.fromkeys(arcs.tolist())
        self._stale |= names
        if (self.free[cells] < 0).any():
            self._suspect |= names

    def _is_over(self, circuit: Circuit, first: int) -> bool:
        """Whether it holds a part of what circuits have too little of."""
        columns = columns_of(self.grid, circuit)
        columns = columns[columns >= first]
        return any(bool((self.firm[at(arcs, columns)] < 0).any()) for arcs in self.held[circuit.id])

    def _is_beyond(self, piece: Piece, first: int) -> bool:
        """Whether it takes a part of what there is too little of."""
        low = max(piece.low, self.grid.first + first)
        rates = piece.rates[low - piece.low :][: max(0, self.grid.last - low)]
        there = self.free[piece.arcs, low - self.grid.first : low - self.grid.first + len(rates)]
        return bool(((there < 0) & (rates > 0)).any())

    def _change(self, topology: Topology, changed: Sequence[int]) -> None:
        """Other links in the places of some: only who is booked on one of them is laid out anew."""
        arcs = [arc for number in changed for arc in (2 * number, 2 * number + 1)]
        mask = mask_of(np.array(arcs))
        wires = wires_of(topology)
        ways, self.wires = self.wires, wires
        transfers = {name: self._laid_over(laid, mask) for name, laid in self.transfers.items() if laid.way & mask}
        self.wires = ways
        state = _State(wires, self.ways.over(wires.graph), arcs, capacities(wires, self.grid, changed), transfers)
        circuits = [circuit for name, circuit in self.circuits.items() if self._booked[name] & mask]
        self._swap(state, circuits)

    def _laid_over(self, laid: Laid, mask: int) -> Laid:
        """A transfer over wires of which some arcs are others; what is as before are the same pieces."""
        if laid.cut_until_ms:
            again = self._laid(laid.transfer)
            known = {piece.arcs.tobytes(): piece for piece in laid.pieces}
            same = (known.get(piece.arcs.tobytes(), piece) for piece in again.pieces)
            return again._replace(pieces=tuple(same))
        ends = (laid.source, laid.target)
        lost = [
            number
            for number, (piece, its) in enumerate(zip(laid.pieces, laid.masks, strict=True))
            if its & mask and not self._leads(piece.arcs, ends)
        ]
        if not lost:
            return laid
        paths = {self.wires.links_of(laid.pieces[number].arcs.tolist()) for number in lost}
        live = (each for each in laid.transfer.segments if each.until_ms > self.now_ms and each.path in paths)
        kept = [number for number in range(len(laid.pieces)) if number not in lost]
        return laid._replace(
            pieces=tuple(laid.pieces[number] for number in kept),
            masks=tuple(laid.masks[number] for number in kept),
            cut_until_ms=max((each.until_ms for each in live), default=0),
        )

    def _swap(self, state: _State, circuits: Sequence[Circuit]) -> None:
        """Take another state of the network, and of the transfers that it concerns; what was can be taken back."""
        arcs, names = state.arcs, state.transfers
        before = _State(
            self.wires, self.ways, arcs, self.capacity[arcs], {name: self.transfers[name] for name in names}
        )
        self._changes += 1
        self._hold_all(circuits, -1)
        self.wires, self.ways = state.wires, state.ways
        if not self._owns_capacity:
            self.capacity, self._owns_capacity = self.capacity.copy(), True
        more = state.capacity_bps - before.capacity_bps
        for array in (self.capacity, self.firm, self.free):
            array[arcs] += more
        self._suspect |= dict.fromkeys(arcs)
        self._stale |= dict.fromkeys(arcs)
        for circuit in circuits:
            self._cut.pop(circuit.id, None)
            self._note(circuit)
        self._hold_all(circuits, 1)
        for name, laid in names.items():
            was, self.transfers[name] = self.transfers[name], laid
            self._cut.pop(name, None)
            if laid.cut_until_ms:
                self._cut[name] = None
            self._exchange(was.pieces, laid.pieces)
        if self._undo is not None:
            self._undo.append(partial(self._swap, before, circuits))

    def _exchange(self, was: Sequence[Piece], now: Sequence[Piece]) -> None:
        """Give back pieces and take others; those that are in both stay."""
        for pieces, others, sign in ((was, now, -1), (now, was, 1)):
            kept = {id(piece) for piece in others}
            for piece in pieces:
                if id(piece) not in kept:
                    taken(self.free, self.grid, piece, sign)
                    arcs = dict.fromkeys(piece.arcs.tolist())
                    self._stale |= arcs
                    if sign > 0:
                        self._suspect |= arcs

    def _rebuild(self) -> None:
        self._changes += 1
        self._cut.clear()
        for circuit in self.circuits.values():
            self._note(circuit)
        self._owns_capacity = True
        self.capacity = capacities(self.wires, self.grid)
        self.firm = self.capacity - self._load(self.grid)
        self.free = self.firm.copy()
        for name, laid in self.transfers.items():
            self.transfers[name] = again = self._laid(laid.transfer)
            if again.cut_until_ms:
                self._cut[name] = None
            for piece in again.pieces:
                taken(self.free, self.grid, piece)
        self._least.clear()
        self._suspect = dict.fromkeys(np.flatnonzero((self.free < 0).any(axis=1)).tolist())

    def _shift(self, grid: Grid, by: int) -> None:
        """Move on by few slots: those that stay are as they were, so only the new ones are worked out."""
        self._changes += 1
        ahead = Grid(self.grid.last, by, grid.slot_ms)
        capacity = capacities(self.wires, ahead)
        firm = capacity - self._load(ahead)
        free = firm.copy()
        for laid in self.transfers.values():
            for piece in laid.pieces:
                if piece.low + len(piece.rates) > ahead.first:
                    taken(free, ahead, piece)
        self.grid = grid
        self.capacity, self._owns_capacity = np.concatenate([self.capacity[:, by:-1], capacity], axis=1), True
        self.firm = np.concatenate([self.firm[:, by:-1], firm], axis=1)
        self.free = np.concatenate([self.free[:, by:-1], free], axis=1)
        self._least.clear()
        self._suspect |= dict.fromkeys(np.flatnonzero((free < 0).any(axis=1)).tolist())

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
        booked = pieces_of(self.wires, self.grid, live)
        pieces = tuple(piece for piece in booked if self._leads(piece.arcs, ends))
        leads = {self.wires.links_of(piece.arcs.tolist()) for piece in pieces}
        cut_until_ms = max((each.until_ms for each in live if each.path not in leads), default=0)
        way = 0
        for piece in booked:
            way |= mask_of(piece.arcs)
        return Laid(transfer, *ends, pieces, tuple(mask_of(piece.arcs) for piece in pieces), way, cut_until_ms)

    def _leads(self, arcs: Ints, ends: tuple[int, int]) -> bool:
        """Whether arcs, as they are now, lead from one end to the other and carry anything."""
        graph = self.wires.graph
        if min(ends) < 0 or (int(graph.tail[arcs[0]]), int(graph.head[arcs[-1]])) != ends:
            return False
        return bool((graph.capacity_bps[arcs] > 0).all() and (graph.head[arcs[:-1]] == graph.tail[arcs[1:]]).all())

    def _hold_all(self, circuits: Sequence[Circuit], sign: int) -> None:
        """Let many hold their rates, or give them back: those of the same columns together."""
        loads: dict[tuple[int, int], Longs] = {}
        for circuit in circuits:
            columns = columns_of(self.grid, circuit)
            if not self.held[circuit.id] or not len(columns):
                continue
            low, high = int(columns[0]), int(columns[-1]) + 1
            if high - low > len(columns):
                self._hold(circuit, sign)
                continue
            load = loads.setdefault((low, high), np.zeros(len(self.free), dtype=np.int64))
            for arcs in self.held[circuit.id]:
                load[arcs] += circuit.held_bps
        for (low, high), load in loads.items():
            arcs = np.flatnonzero(load)
            for array in (self.firm, self.free):
                array[arcs, low:high] -= sign * load[arcs, None]
            names = dict.fromkeys(arcs.tolist())
            self._stale |= names
            if sign > 0:
                self._suspect |= names

    def _hold(self, circuit: Circuit, sign: int) -> None:
        columns = columns_of(self.grid, circuit)
        for arcs in self.held[circuit.id]:
            for array in (self.firm, self.free):
                array[at(arcs, columns)] -= sign * circuit.held_bps
            if sign > 0:
                self._touched(arcs, at(arcs, columns))
            else:
                self._stale |= dict.fromkeys(arcs.tolist())


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


def changed_links(before: Topology, after: Topology) -> list[int] | None:
    """Numbers of the links that are not as they were; None where more than what some of them carry is different."""
    if before.nodes != after.nodes or before.slot_s != after.slot_s or len(before.links) != len(after.links):
        return None
    changed = []
    for number, (was, now) in enumerate(zip(before.links, after.links, strict=True)):
        if was is not now and was != now:
            if (was.name, was.a, was.b) != (now.name, now.a, now.b):
                return None
            changed.append(number)
    return changed


def routes_of(circuit: Circuit) -> list[Route]:
    """The route of a circuit and its spare one, as far as it has them."""
    return [route for route in (circuit.route, circuit.spare) if route is not None]


def held_of(wires: Wires, circuit: Circuit, route: Route | None) -> Longs | None:
    """Both directions of a route; None where it does not lead from end to end any more, or carries nothing."""
    way = None if route is None else wires.way_of(route.nodes, route.links)
    if not way:
        return None
    graph, node = wires.graph, wires.node
    if (int(graph.tail[way[0]]), int(graph.head[way[-1]])) != (node.get(circuit.order.a), node.get(circuit.order.b)):
        return None
    arcs = np.array([each for arc in way for each in (arc, arc ^ 1)], dtype=np.int64)
    return arcs if (graph.capacity_bps[arcs] > 0).all() else None


def held_arcs(wires: Wires, circuit: Circuit) -> list[Longs]:
    """The arcs that a circuit holds: both directions of its route, and of its spare one. What is cut holds nothing."""
    held = (held_of(wires, circuit, route) for route in (circuit.route, circuit.spare))
    return [arcs for arcs in held if arcs is not None]


def columns_of(grid: Grid, circuit: Circuit, paused: Sequence[Window] | None = None) -> Longs:
    """The columns in which a circuit holds its rate, the one of all time beyond included where it goes on.

    ``paused``: windows in which it holds nothing; None: its own.
    """
    order = circuit.order
    from_ms = order.from_ms or circuit.ordered_ms
    columns = columns_in(grid, from_ms, order.until_ms, order.recurrence)
    for window in circuit.paused if paused is None else paused:
        low, high = (slot - grid.first for slot in grid.touched(window.from_ms, window.until_ms))
        columns = columns[(columns < low) | (columns >= high)]
    return columns


def columns_in(grid: Grid, from_ms: int, until_ms: int, recurrence: Recurrence | None) -> Longs:
    """Columns that the windows touch. ``until_ms`` 0: for ever."""
    if recurrence is None:
        low, high = (slot - grid.first for slot in grid.touched(from_ms, until_ms or grid.until_ms))
        is_beyond = not until_ms or until_ms > grid.until_ms
        return np.arange(low, high + is_beyond) if high == grid.slots or not is_beyond else np.array([grid.slots])
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
