"""Heal: what becomes of the bookings after a cut, or after any loss of capacity.

The calendar was told of the new state of the network (`Calendar.rewire`). What survives stays as it is. Circuits come
first, in the order in which they were promised: on their route, else on their spare one, else on a new one, at their
least where there is no more. Then transfers, the earliest deadline first: what they lost is laid into the room that
is left. Where somebody is still short, everything is laid out anew, and the better of both is taken. Who is short
then is told at once how much arrives late, and when.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from tieline.model.circuit import Circuit, CircuitState, Diversity, Route
from tieline.model.reason import Reason
from tieline.model.transfer import Segment, Transfer, TransferState
from tieline.network.admit import arrival_of, laid, moved_by, parts_of
from tieline.network.calendar import Calendar, Laid, at, columns_of, held_arcs
from tieline.network.fill import Room, filled
from tieline.network.lease import least_of, pair_of, route_of, spare_of
from tieline.network.slots import Grid, Longs, Piece, cut_at, pieces_of, segments_of, taken
from tieline.network.ways import Path

MOST_REROUTED: Final = 100  # circuits that get other routes in one decision; the others are down until the next


class Healed(NamedTuple):
    """The bookings that change; who is not named keeps what it has."""

    circuits: tuple[Circuit, ...]
    transfers: tuple[Transfer, ...]

    @property
    def short(self) -> tuple[Transfer, ...]:
        """Who does not arrive in time."""
        return tuple(each for each in self.transfers if each.state is TransferState.SHORT)


def healed(calendar: Calendar, now_ms: int) -> Healed:
    """The bookings that a loss of capacity changes. Nothing in the calendar changes."""
    now_ms = max(now_ms, calendar.grid.begin_ms)
    calendar = calendar.copied()
    calendar.now_ms = now_ms = max(now_ms, calendar.now_ms)
    circuits = _circuits(calendar, now_ms)
    for circuit in circuits:
        calendar.put_circuit(circuit)
    transfers = _kept(calendar, now_ms)
    for transfer in transfers:
        calendar.put_transfer(transfer)
    is_short = any(each.transfer.state is TransferState.SHORT for each in calendar.transfers.values())
    better = _anew(calendar, now_ms) if is_short else ()
    newest = {each.id: each for each in (*transfers, *better)}
    return Healed(circuits, tuple(newest.values()))


def topped(calendar: Calendar, now_ms: int) -> tuple[Transfer, ...]:
    """Best-effort transfers that found more room than they have: what is left, in the order of their booking."""
    grid = calendar.grid
    now_ms = max(now_ms, grid.begin_ms)
    room = Room(calendar.free[:, :-1].copy(), grid.first, grid)
    changed = []
    for each in calendar.transfers.values():
        order, segments = each.transfer.order, each.transfer.segments
        lacks = order.size_bytes - sum(segment.size_bytes for segment in segments)
        if order.deadline_ms and each.transfer.state is not TransferState.SHORT:
            continue
        if lacks <= 0 or min(each.source, each.target) < 0:
            continue
        paths = calendar.ways.between(each.source, each.target)
        from_ms = max(order.earliest_ms, order.deadline_ms, now_ms)
        done = filled(room, paths, lacks, from_ms, grid.until_ms, is_splittable=order.is_splittable)
        if done.pieces:
            more = segments_of(calendar.wires, grid, done.pieces, from_ms, grid.until_ms)
            changed.append(_changed(each.transfer, (*segments, *more), now_ms))
    return tuple(changed)


class _Least:
    """What each arc has in all columns of a circuit; kept, as the next one mostly has the same columns."""

    def __init__(self, firm: Longs) -> None:
        self._firm = firm
        self._columns: Longs | None = None
        self._room = firm[:, 0]

    def of(self, columns: Longs) -> Longs:
        if self._columns is None or not np.array_equal(columns, self._columns):
            self._columns, self._room = columns, least_of(self._firm, columns)
        return self._room

    def take(self, calendar: Calendar, circuit: Circuit) -> None:
        """Take what it holds from what there is."""
        _take(calendar, circuit, self._firm)
        for arcs in held_arcs(calendar.wires, circuit):
            if self._columns is not None and len(self._columns):
                self._room[arcs] = self._firm[at(arcs, self._columns)].min(axis=1)


def _circuits(calendar: Calendar, now_ms: int) -> tuple[Circuit, ...]:
    """Circuits that change. Who shares no arc on which there is too little for all keeps what he has, in any order."""
    firm = calendar.firm.copy()
    first = calendar.grid.touched(now_ms, now_ms)[0] - calendar.grid.first
    is_over = (firm[:, first:] < 0).any(axis=1)
    inline = sorted(calendar.circuits.values(), key=lambda each: (each.ordered_ms, each.id))
    hurt = [each for each in inline if _is_hurt(calendar, each, is_over)]
    for circuit in hurt:
        _take(calendar, circuit, firm, -1)
    after: dict[str, Circuit] = {}
    broken = []
    for circuit in hurt:
        held = _surviving(calendar, circuit, firm, now_ms)
        if held is None:
            broken.append(circuit)
        else:
            after[circuit.id] = held
            _take(calendar, held, firm)
    least = _Least(firm)
    for number, circuit in enumerate(broken):
        room = least.of(columns_of(calendar.grid, circuit)) if number < MOST_REROUTED else None
        after[circuit.id] = held = _rerouted(calendar, circuit, room, now_ms)
        least.take(calendar, held)
    alone = [each for each in (after.get(each.id, each) for each in inline) if lacks_spare(each)]
    for circuit in alone[:MOST_REROUTED]:
        after[circuit.id] = held = _joined(calendar, circuit, least.of(columns_of(calendar.grid, circuit)), now_ms)
        if held.spare is not None:
            least.take(calendar, msgspec.structs.replace(held, route=None))
    return tuple(after[each.id] for each in inline if after.get(each.id, each) != each)


def lacks_spare(circuit: Circuit) -> bool:
    """Whether a failure took the spare route that it asked for."""
    return circuit.order.diversity is not Diversity.NONE and circuit.spare is None and circuit.route is not None


def _is_hurt(calendar: Calendar, circuit: Circuit, is_over: Any) -> bool:
    """Whether it has no route, or one that is not here any more, or shares an arc that holds too much."""
    if circuit.route is None:
        return True
    held = calendar.held[circuit.id]
    if len(held) < 1 + (circuit.spare is not None):
        return True
    ends = calendar.wires.node.get(circuit.order.a), calendar.wires.node.get(circuit.order.b)
    graph, arcs = calendar.wires.graph, held[0]
    is_elsewhere = (int(graph.tail[arcs[0]]), int(graph.head[arcs[-2]])) != ends
    return is_elsewhere or any(bool(is_over[each].any()) for each in held)


def _joined(calendar: Calendar, circuit: Circuit, room: Longs, now_ms: int) -> Circuit:
    """The circuit with a spare route again, where there is one beside its own; else as it was."""
    spare = spare_of(calendar, circuit, room)
    if spare is None:
        return circuit
    granted = min(circuit.held_bps, int(room[np.concatenate([spare, spare ^ 1])].min()))
    reasons = tuple(each for each in circuit.reasons if each.code != "circuit_spare_lost")
    return _said(circuit, now_ms, *reasons, spare=route_of(calendar, spare), granted_bps=granted)


def _surviving(calendar: Calendar, circuit: Circuit, firm: Longs, now_ms: int) -> Circuit | None:
    """The circuit on what is left of its route and spare one; None where neither holds its least."""
    columns = columns_of(calendar.grid, circuit)
    routes = [circuit.route, circuit.spare]
    rooms = [0 if route is None else _room(calendar, circuit, route, firm, columns) for route in routes]
    least, spares = circuit.order.rate_bps, circuit.spare
    if rooms[0] >= least and (spares is None or rooms[1] >= least):
        most = min(room for room, route in zip(rooms, routes, strict=True) if route is not None)
        granted = min(circuit.held_bps, most)
        return circuit if granted == circuit.held_bps else _said(circuit, now_ms, granted_bps=granted)
    if circuit.route is not None and rooms[0] >= least:
        why = Reason(code="circuit_spare_lost")
        return _said(circuit, now_ms, why, spare=None, granted_bps=min(circuit.held_bps, rooms[0]))
    if spares is not None and rooms[1] >= least:
        granted = min(circuit.held_bps, rooms[1])
        why = Reason(code="circuit_on_spare")
        state = CircuitState.DEGRADED if circuit.state is not CircuitState.ORDERED else circuit.state
        return _said(circuit, now_ms, why, route=spares, spare=None, granted_bps=granted, state=state)
    return None


def _rerouted(calendar: Calendar, circuit: Circuit, room: Longs | None, now_ms: int) -> Circuit:
    """The circuit on a new route; without its spare one if need be; down where there is none at all.

    ``room``: of each arc in all of its columns; None: nobody looks now.
    """
    order, node = circuit.order, calendar.wires.node
    plain = msgspec.structs.replace(order, diversity=Diversity.NONE)
    if room is not None and order.a in node and order.b in node:
        for asked in dict.fromkeys((order, plain)):
            pair = pair_of(calendar, asked, room)
            if pair is not None:
                route, spare = (None if path is None else route_of(calendar, path) for path in pair)
                is_less = spare is None and order.diversity is not Diversity.NONE
                state = circuit.state
                if state is not CircuitState.ORDERED:
                    state = CircuitState.DEGRADED  # until a receipt proves the new route
                why = Reason(code="circuit_spare_lost" if is_less else "circuit_rerouted")
                granted = order.rate_bps
                return _said(circuit, now_ms, why, route=route, spare=spare, granted_bps=granted, state=state)
    if circuit.route is None:
        return circuit
    why = Reason(code="circuit_down", values={"asked_bps": order.rate_bps})
    return _said(circuit, now_ms, why, route=None, spare=None, state=CircuitState.DOWN)


def _said(circuit: Circuit, now_ms: int, *reasons: Reason, **changes: object) -> Circuit:
    return msgspec.structs.replace(circuit, changed_ms=now_ms, reasons=reasons, **changes)


def _room(calendar: Calendar, circuit: Circuit, route: Route, firm: Longs, columns: Longs) -> int:
    """The least room on a route in both directions; 0 where a link of it is not here any more."""
    way = calendar.wires.way_of(route.nodes, route.links)
    if way is None:
        return 0
    graph, node, order = calendar.wires.graph, calendar.wires.node, circuit.order
    if not way or (graph.tail[way[0]], graph.head[way[-1]]) != (node.get(order.a), node.get(order.b)):
        return 0  # an end of it is at another node now
    arcs = np.array([each for arc in way for each in (arc, arc ^ 1)])
    return int(firm[at(arcs, columns)].min()) if len(columns) else int(graph.capacity_bps[arcs].min())


def _take(calendar: Calendar, circuit: Circuit, firm: Longs, sign: int = 1) -> None:
    columns = columns_of(calendar.grid, circuit)
    for arcs in held_arcs(calendar.wires, circuit):
        firm[at(arcs, columns)] -= sign * circuit.held_bps


def _kept(calendar: Calendar, now_ms: int) -> tuple[Transfer, ...]:
    """Transfers that change: what survives of each, and what it lost laid into the room that is left."""
    grid = calendar.grid
    first = grid.touched(now_ms, grid.until_ms)[0]
    free = calendar.free[:, first - grid.first : -1].copy()
    room = Room(free, first, grid)
    is_over = (free < 0).any(axis=1)
    inline = sorted(
        (each for each in calendar.transfers.values() if _loses(calendar, each, is_over, now_ms)),
        key=lambda each: (each.transfer.order.deadline_ms or 2**62, each.transfer.booked_ms, each.transfer.id),
    )
    ahead = Grid(first, free.shape[1], grid.slot_ms)
    for each in inline:
        for piece in each.pieces:
            taken(free, ahead, piece, -1)
    kept: dict[str, list[Segment]] = {}
    lost: dict[str, int] = {}
    for each in inline:
        _, after = cut_at(each.transfer.segments, now_ms)
        survives: list[Segment] = []
        kept[each.transfer.id] = survives
        for segment in after:
            if _is_its(calendar, each, segment):
                survives.extend(_still(calendar, room, segment))
        asked = sum(segment.size_bytes for segment in after)
        lost[each.transfer.id] = asked - sum(segment.size_bytes for segment in survives)
    changed = []
    for each in inline:
        transfer, order = each.transfer, each.transfer.order
        lacks = lost[transfer.id]
        if lacks <= 0:
            continue
        paths: tuple[Path, ...] = ()
        if min(each.source, each.target) >= 0:
            paths = calendar.ways.between(each.source, each.target)
        from_ms = max(order.earliest_ms, now_ms)
        due_ms = min(order.deadline_ms or grid.until_ms, grid.until_ms)
        new: list[Segment] = []
        for begin_ms, end_ms in ((from_ms, due_ms), (max(due_ms, from_ms), grid.until_ms)):
            done = filled(room, paths, lacks, begin_ms, end_ms, is_splittable=order.is_splittable)
            new.extend(segments_of(calendar.wires, grid, done.pieces, begin_ms, end_ms))
            lacks = done.left_bytes
        before, _ = cut_at(transfer.segments, now_ms)
        changed.append(_changed(transfer, (*before, *kept[transfer.id], *new), now_ms))
    return tuple(changed)


def _loses(calendar: Calendar, laid: Laid, is_over: Any, now_ms: int) -> bool:
    """Whether what is still to come of it lies on arcs that hold too much, or on none that lead from end to end."""
    if any(bool(is_over[piece.arcs].any()) for piece in laid.pieces):
        return True
    paths = {each.path: each for each in laid.transfer.segments if each.until_ms > now_ms}
    return not all(_is_its(calendar, laid, each) for each in paths.values())


def _is_its(calendar: Calendar, laid: Laid, segment: Segment) -> bool:
    """Whether the links of a segment, as they are now, lead from one end of the transfer to the other."""
    arcs, graph = calendar.wires.arcs_of(segment), calendar.wires.graph
    if not arcs or min(laid.source, laid.target) < 0:
        return False
    way = np.array(arcs)
    is_joined = bool((graph.head[way[:-1]] == graph.tail[way[1:]]).all())
    return is_joined and (int(graph.tail[way[0]]), int(graph.head[way[-1]])) == (laid.source, laid.target)


def _still(calendar: Calendar, room: Room, segment: Segment) -> tuple[Segment, ...]:
    """What is left of a segment; it is taken from the room."""
    made = []
    for piece in pieces_of(calendar.wires, calendar.grid, (segment,)):
        low = max(piece.low, room.low)
        rates = piece.rates[low - piece.low :][: room.low + room.free.shape[1] - low]
        there = room.free[piece.arcs, low - room.low : low - room.low + len(rates)]
        left = Piece(piece.arcs, low, np.minimum(rates, np.maximum(there.min(axis=0), 0)))
        taken(room.free, room.grid._replace(first=room.low, slots=room.free.shape[1]), left)
        made.append(left)
    return segments_of(calendar.wires, calendar.grid, made, segment.from_ms, segment.until_ms)


def _changed(transfer: Transfer, segments: tuple[Segment, ...], now_ms: int) -> Transfer:
    """The transfer on other segments; short where they do not carry in time what was promised."""
    order = transfer.order
    in_time, _ = cut_at(segments, order.deadline_ms) if order.deadline_ms else (segments, ())
    carried = sum(segment.size_bytes for segment in in_time)
    short = max(0, order.size_bytes - carried) if order.deadline_ms else 0
    arrives = arrival_of(segments, transfer.priced_bytes or order.size_bytes)
    made = msgspec.structs.replace(transfer, segments=segments, arrives_ms=arrives, changed_ms=now_ms)
    if short <= transfer.short_bytes:
        return made
    values: dict[str, int | str] = {"short_bytes": short, "asked_bytes": order.size_bytes}
    why = Reason(code="transfer_short", values=values)
    return msgspec.structs.replace(made, state=TransferState.SHORT, short_bytes=short, reasons=(why,))


def _anew(calendar: Calendar, now_ms: int) -> tuple[Transfer, ...]:
    """Everything in slots that have not begun anew, if fewer bytes are short then; nothing where not.

    What was late is asked for in time once more.
    """
    grid = calendar.grid
    parts = []
    for part in parts_of(calendar, now_ms):
        order = calendar.transfers[part.id].transfer.order
        due_ms = min(order.deadline_ms or 0, grid.until_ms)
        is_late = bool(due_ms) and part.due_ms > due_ms
        from_ms = max(grid.whole_from(now_ms) * grid.slot_ms, order.earliest_ms)
        parts.append(part._replace(from_ms=from_ms, due_ms=due_ms) if is_late else part)
    layout = laid(calendar, now_ms, parts, is_forced=True)
    if layout is None or layout.short_bytes:
        return ()
    moved = moved_by(calendar, layout, now_ms)
    return tuple(_well(each, now_ms) for each in moved)


def _well(transfer: Transfer, now_ms: int) -> Transfer:
    """Not short any more, if it arrives in time as it is booked now."""
    order = transfer.order
    in_time, _ = cut_at(transfer.segments, order.deadline_ms) if order.deadline_ms else (transfer.segments, ())
    if transfer.state is not TransferState.SHORT or sum(each.size_bytes for each in in_time) < order.size_bytes:
        return transfer
    state = TransferState.BOOKED if not transfer.moved_bytes else TransferState.MOVING
    arrives = arrival_of(transfer.segments, order.size_bytes)
    return msgspec.structs.replace(
        transfer, state=state, short_bytes=0, reasons=(), arrives_ms=arrives, changed_ms=now_ms
    )
