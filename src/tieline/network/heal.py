"""Heal: what becomes of the bookings after a cut, or after any loss of capacity.

The calendar knows who waits to be mended (`Calendar.waiting`). They are looked at a few at a time, so that nobody who
asks something has to wait for long: circuits first, those that carry now before the others, each in the order in which
they were promised; then transfers, the earliest deadline first. What survives stays as it is. A circuit goes on its
spare route, else on a new one, at its least where there is no more; where nothing but maintenance is in its way and no
other path is there, it is paused meanwhile. What a transfer lost is laid into the room that is left; where that would
be late, those who hold what it could use are laid anew with it. Who is short then is told at once how much arrives
late, and when. Who was not looked at yet goes on waiting, and holds what of it still leads from end to end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from tieline.model.circuit import Circuit, CircuitState, Diversity, Route
from tieline.model.reason import Reason
from tieline.model.topology import Topology, Window
from tieline.model.transfer import Segment, Transfer, TransferState
from tieline.network.admit import FEW_LIVE, Part, arrival_of, beside, laid, moved_by, parts_of
from tieline.network.calendar import NO_BOUND, Calendar, at, columns_of, held_of
from tieline.network.fill import Room, filled, undone
from tieline.network.graph import Ints
from tieline.network.lease import pair_of, route_of, spare_of
from tieline.network.slots import Longs, Piece, cut_at, is_within, segments_of

MOST_CIRCUITS: Final = 32  # that are changed, or looked for other routes, at a time
MOST_TRANSFERS: Final = 24
MOST_HELPED: Final = 2  # of these, for whom others are laid anew
PAST_MS: Final = 86_400_000  # so long a receipt of what was may be on its way


class Healed(NamedTuple):
    """The bookings that change; who is not named keeps what it has."""

    circuits: tuple[Circuit, ...]
    transfers: tuple[Transfer, ...]
    waiting: int = 0  # bookings that are still to be looked at
    tried: tuple[str, ...] = ()  # who lacked something before, and was looked at

    @property
    def short(self) -> tuple[Transfer, ...]:
        """Who does not arrive in time."""
        return tuple(each for each in self.transfers if each.state is TransferState.SHORT)


def healed(calendar: Calendar, now_ms: int, *, standing: Topology | None = None, tried: Collection[str] = ()) -> Healed:
    """The bookings that a loss of capacity changes, as many as are looked at in one go. The calendar stays as it is.

    ``standing``: another state of the network than the calendar's. ``tried``: who lacks something and is not to
    be looked at again. What answers is to be put, and to be asked again while `waiting` is not 0.
    """
    now_ms = max(now_ms, calendar.grid.begin_ms)
    calendar.now_ms = now_ms = max(now_ms, calendar.now_ms)
    with calendar.trying():
        if standing is not None:
            calendar.rewire(standing)
        circuits, looked = _circuits(calendar, now_ms, tried)
        transfers: dict[str, Transfer] = {}
        if not calendar.waiting().circuits:
            transfers = _transfers(calendar, now_ms)
            helped, late = _helped(calendar, tried, now_ms)
            transfers |= {each.id: each for each in helped}
            looked += late
        return Healed(tuple(circuits), tuple(transfers.values()), calendar.waiting().total, tuple(looked))


def lacking(calendar: Calendar) -> list[str]:
    """Circuits that lack a route, or the spare one that they asked for; or are paused where nothing is in the way."""
    found = [
        each
        for each in calendar.circuits.values()
        if each.route is None or lacks_spare(each) or _is_idle(calendar, each)
    ]
    return [each.id for each in sorted(found, key=lambda each: (each.ordered_ms, each.id))]


def lacks_spare(circuit: Circuit) -> bool:
    """Whether a failure took the spare route that it asked for."""
    return circuit.order.diversity is not Diversity.NONE and circuit.spare is None and circuit.route is not None


# -- circuits ---------------------------------------------------------------------------------------------------------


def _circuits(calendar: Calendar, now_ms: int, tried: Collection[str]) -> tuple[list[Circuit], list[str]]:
    """Circuits that change, and those in vain; they are put into the calendar."""
    before: dict[str, Circuit] = {}
    broken = []
    for circuit, held in _stood(calendar, now_ms):
        before[circuit.id] = circuit
        if held is not None:
            calendar.put_circuit(held)
        else:
            broken.append(circuit)
            calendar.put_circuit(msgspec.structs.replace(circuit, route=None, spare=None))
    looked = [name for name in lacking(calendar) if name not in tried and name not in before]
    looked = looked[: max(0, MOST_CIRCUITS - len(before))]
    before |= {name: calendar.circuits[name] for name in looked}
    down = [calendar.circuits[name] for name in looked if calendar.circuits[name].route is None]
    for circuit in (*broken, *down):
        calendar.put_circuit(_rerouted(calendar, circuit, now_ms))
    for name in before:
        circuit = calendar.circuits[name]
        if _is_idle(calendar, circuit):
            calendar.put_circuit(_resumed(calendar, circuit, now_ms))
        if lacks_spare(calendar.circuits[name]):
            calendar.put_circuit(_joined(calendar, calendar.circuits[name], now_ms))
    return [calendar.circuits[name] for name, was in before.items() if calendar.circuits[name] != was], looked


def _stood(calendar: Calendar, now_ms: int) -> list[tuple[Circuit, Circuit | None]]:
    """Waiting circuits that change: as they are, and on what is left of their routes; None: neither holds their least.

    Who shares an arc on which there is too little for all keeps what he has, in the order of the promises.
    """
    waiting = [calendar.circuits[name] for name in calendar.waiting().circuits]
    waiting.sort(key=lambda each: (not is_within(each.windows, now_ms), each.ordered_ms, each.id))
    first = calendar.grid.touched(now_ms, now_ms)[0] - calendar.grid.first
    over = _Over(calendar.over(), calendar.firm, calendar.grid.first)
    mine = {each.id: _routes(calendar, each, over, first) for each in waiting}
    for circuit in waiting:
        for route in mine[circuit.id]:
            over.take(route, -circuit.held_bps)
    changed: list[tuple[Circuit, Circuit | None]] = []
    for circuit in sorted(waiting, key=lambda each: (each.ordered_ms, each.id)):
        routes = mine[circuit.id]
        held = _surviving(circuit, [over.room(route) for route in routes], now_ms)
        if held is not None:
            kept = [route for route in routes if route is not None and route.route in (held.route, held.spare)]
            for route in kept:
                over.take(route, held.held_bps)
        if held is not circuit:
            changed.append((circuit, held))
    place = {each.id: number for number, each in enumerate(waiting)}
    return sorted(changed, key=lambda pair: place[pair[0].id])[:MOST_CIRCUITS]


class _OnOver(NamedTuple):
    """A route that leads from end to end: which of its arcs have too little for all, and the columns that it holds."""

    route: Route
    at: list[int]
    columns: Longs


class _Over:
    """The arcs that have too little for all, and what is left of them."""

    def __init__(self, rows: Ints, room: Longs, first: int) -> None:
        self.place = {arc: number for number, arc in enumerate(rows.tolist())}
        self.room_bps = room[rows]
        self.first = first  # slot of the first column

    def of(self, arcs: Any) -> list[int]:
        """The rows of some arcs."""
        return [self.place[arc] for arc in arcs.tolist() if arc in self.place] if self.place else []

    def take(self, route: _OnOver | None, rate_bps: int) -> None:
        if route is not None and route.at and len(route.columns):
            self.room_bps[at(np.array(route.at), route.columns)] -= rate_bps

    def room(self, route: _OnOver | None) -> int:
        """The least room of a route; 0 where there is none, without bound where it has enough."""
        if route is None:
            return 0
        if not route.at or not len(route.columns):
            return NO_BOUND
        return int(self.room_bps[at(np.array(route.at), route.columns)].min())

    def give(self, piece: Piece) -> None:
        """Give a piece back."""
        rows, (low, rates) = self.of(piece.arcs), self._here(piece)
        if rows:
            self.room_bps[rows, low : low + len(rates)] += rates

    def kept(self, piece: Piece) -> Longs:
        """The rates of a piece as far as there is room for them; it is taken."""
        made, rows, (low, rates) = piece.rates.copy(), self.of(piece.arcs), self._here(piece)
        if rows:
            there = self.room_bps[rows, low : low + len(rates)]
            left = np.minimum(rates, np.maximum(there.min(axis=0), 0))
            begin = low + self.first - piece.low
            made[begin : begin + len(left)] = left
            self.room_bps[rows, low : low + len(left)] -= left
        return made

    def _here(self, piece: Piece) -> tuple[int, Longs]:
        """Its first column here, and its rates from then on."""
        low = max(piece.low - self.first, 0)
        return low, piece.rates[low + self.first - piece.low :][: max(0, self.room_bps.shape[1] - low)]


def _routes(calendar: Calendar, circuit: Circuit, over: _Over, first: int) -> list[_OnOver | None]:
    columns: Longs | None = None
    found: list[_OnOver | None] = []
    for route in (circuit.route, circuit.spare):
        arcs = held_of(calendar.wires, circuit, route)
        if arcs is None or route is None:
            found.append(None)
            continue
        if columns is None:
            columns = columns_of(calendar.grid, circuit)
            columns = columns[columns >= first]
        found.append(_OnOver(route, over.of(arcs), columns))
    return found


def _surviving(circuit: Circuit, rooms: Sequence[int], now_ms: int) -> Circuit | None:
    """The circuit on what is left of its route and spare one; itself where that is all, None where it is too little."""
    least, spare = circuit.order.rate_bps, circuit.spare
    if rooms[0] >= least and (spare is None or rooms[1] >= least):
        granted = min([circuit.held_bps, rooms[0], *([rooms[1]] if spare is not None else [])])
        return circuit if granted == circuit.held_bps else _said(circuit, now_ms, granted_bps=granted)
    if circuit.route is not None and rooms[0] >= least:
        why = Reason(code="circuit_spare_lost")
        return _said(circuit, now_ms, why, spare=None, granted_bps=min(circuit.held_bps, rooms[0]))
    if spare is not None and rooms[1] >= least:
        granted = min(circuit.held_bps, rooms[1])
        why = Reason(code="circuit_on_spare")
        return _said(circuit, now_ms, why, route=spare, spare=None, granted_bps=granted, state=_unproven(circuit))
    return None


def _unproven(circuit: Circuit) -> CircuitState:
    """How a circuit stands on another route until a receipt proves that one."""
    return circuit.state if circuit.state is CircuitState.ORDERED else CircuitState.DEGRADED


def _rerouted(calendar: Calendar, circuit: Circuit, now_ms: int) -> Circuit:
    """The circuit on a new route; without its spare one if need be; paused, or down, where there is none at all."""
    order, node = circuit.order, calendar.wires.node
    if order.a in node and order.b in node:
        room = calendar.least("firm", columns_of(calendar.grid, circuit, ()))
        plain = msgspec.structs.replace(order, diversity=Diversity.NONE)
        for asked in dict.fromkeys((order, plain)):
            pair = pair_of(calendar, asked, room)
            if pair is not None:
                route, spare = (None if path is None else route_of(calendar, path) for path in pair)
                is_less = spare is None and order.diversity is not Diversity.NONE
                why = Reason(code="circuit_spare_lost" if is_less else "circuit_rerouted")
                return _said(
                    circuit,
                    now_ms,
                    why,
                    route=route,
                    spare=spare,
                    spare_from_ms=now_ms,
                    granted_bps=order.rate_bps,
                    paused=_paused_before(calendar, circuit, now_ms),
                    state=_unproven(circuit),
                )
    paused = _paused(calendar, circuit, now_ms)
    if paused is not None:
        return paused
    if circuit.route is None:
        return circuit
    why = Reason(code="circuit_down", values={"asked_bps": order.rate_bps})
    past = _paused_before(calendar, circuit, now_ms)
    return _said(circuit, now_ms, why, route=None, spare=None, paused=past, state=CircuitState.DOWN)


def _paused_before(calendar: Calendar, circuit: Circuit, before_ms: int) -> tuple[Window, ...]:
    """Its pauses in slots that are over by then, of which a receipt may still come: they are not charged."""
    slot_ms = calendar.grid.slot_ms
    over_ms = min(before_ms, calendar.now_ms) // slot_ms * slot_ms
    heard_ms = max(circuit.meter.until_ms, calendar.now_ms - PAST_MS)
    return tuple(
        Window(from_ms=each.from_ms, until_ms=min(each.until_ms, over_ms))
        for each in circuit.paused
        if each.from_ms < over_ms and min(each.until_ms, over_ms) > heard_ms
    )


def _paused(calendar: Calendar, circuit: Circuit, now_ms: int) -> Circuit | None:
    """The circuit where it is, but for the maintenance of its links; None where that is not all that is in its way."""
    least = circuit.order.rate_bps
    for routes in ((circuit.route, circuit.spare), (circuit.route,)):
        kept = [route for route in routes if route is not None]
        windows = maintenance_of(calendar, kept, now_ms)
        arcs = [held_of(calendar.wires, circuit, route) for route in kept]
        if not windows or any(each is None for each in arcs):
            continue
        columns = columns_of(calendar.grid, circuit, windows)
        rooms = [int(calendar.firm[at(each, columns)].min()) for each in arcs if len(columns)]
        if min(rooms, default=NO_BOUND) >= least:
            spare = kept[1] if len(kept) > 1 else None
            values: dict[str, int | str] = {"pause_us": sum(each.until_ms - each.from_ms for each in windows) * 1_000}
            granted = min([circuit.held_bps, *rooms])
            said = (Reason(code="circuit_maintenance", values=values),)
            paused = (*_paused_before(calendar, circuit, windows[0].from_ms), *windows)
            return msgspec.structs.replace(
                circuit, paused=paused, spare=spare, granted_bps=granted, reasons=said, changed_ms=now_ms
            )
    return None


def maintenance_of(calendar: Calendar, routes: Sequence[Route], now_ms: int) -> tuple[Window, ...]:
    """When links of some routes are maintained, in whole slots, as far as the calendar reaches; what touches is one.

    A slot of which a part is maintained is sold to nobody, so nobody who stays there can carry anything in all of it.
    """
    wires, slot_ms = calendar.wires, calendar.grid.slot_ms
    numbers = [wires.link[name] for route in routes for name in route.links if name in wires.link]
    found = sorted(
        (window.from_ms // slot_ms * slot_ms, -(-window.until_ms // slot_ms) * slot_ms)
        for number in dict.fromkeys(numbers)
        for window in wires.topology.links[number].maintenance
        if window.until_ms > now_ms and window.from_ms < calendar.grid.until_ms
    )
    joined: list[tuple[int, int]] = []
    for begin_ms, end_ms in found:
        if joined and begin_ms <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end_ms)
        else:
            joined.append((begin_ms, end_ms))
    return tuple(Window(from_ms=begin_ms, until_ms=end_ms) for begin_ms, end_ms in joined)


def _is_idle(calendar: Calendar, circuit: Circuit) -> bool:
    """Whether it is to be paused where nothing is maintained any more."""
    if not circuit.paused or circuit.paused[-1].until_ms <= calendar.now_ms:
        return False
    routes = [route for route in (circuit.route, circuit.spare) if route is not None]
    windows = maintenance_of(calendar, routes, calendar.now_ms)
    return any(
        each.until_ms > calendar.now_ms
        and not any(window.from_ms <= each.from_ms and each.until_ms <= window.until_ms for window in windows)
        for each in circuit.paused
    )


def _resumed(calendar: Calendar, circuit: Circuit, now_ms: int) -> Circuit:
    """The circuit without a pause that is not needed any more, if its room is still there; else as it was."""
    routes = [route for route in (circuit.route, circuit.spare) if route is not None]
    over = tuple(each for each in circuit.paused if each.until_ms <= now_ms)
    windows = (*over, *maintenance_of(calendar, routes, now_ms))
    columns = np.setdiff1d(columns_of(calendar.grid, circuit, windows), columns_of(calendar.grid, circuit))
    held = [held_of(calendar.wires, circuit, route) for route in routes]
    if any(arcs is None or (calendar.firm[at(arcs, columns)] < circuit.held_bps).any() for arcs in held):
        return circuit
    reasons = tuple(each for each in circuit.reasons if windows or each.code != "circuit_maintenance")
    return msgspec.structs.replace(circuit, paused=windows, reasons=reasons, changed_ms=now_ms)


def _joined(calendar: Calendar, circuit: Circuit, now_ms: int) -> Circuit:
    """The circuit with a spare route again, where there is one beside its own; else as it was."""
    room = calendar.least("firm", columns_of(calendar.grid, circuit))
    spare = spare_of(calendar, circuit, room)
    if spare is None:
        return circuit
    granted = min(circuit.held_bps, int(room[np.concatenate([spare, spare ^ 1])].min()))
    reasons = tuple(each for each in circuit.reasons if each.code != "circuit_spare_lost")
    route = route_of(calendar, spare)
    return _said(circuit, now_ms, *reasons, spare=route, spare_from_ms=now_ms, granted_bps=granted)


def _said(circuit: Circuit, now_ms: int, *reasons: Reason, **changes: object) -> Circuit:
    return msgspec.structs.replace(circuit, changed_ms=now_ms, reasons=reasons, **changes)


# -- transfers --------------------------------------------------------------------------------------------------------


def _transfers(calendar: Calendar, now_ms: int) -> dict[str, Transfer]:
    """Transfers that change: what survives of each, and what it lost laid into the room that is left."""
    was = {name: calendar.transfers[name].transfer for name in calendar.waiting().transfers}
    members = _hurt(calendar, was)
    lost: dict[str, int] = {}
    for name, there in members.items():
        before, after = cut_at(was[name].segments, now_ms)
        survives = [part for segment in after for part in _still(calendar, there, segment)]
        lost[name] = sum(each.size_bytes for each in after) - sum(each.size_bytes for each in survives)
        calendar.put_transfer(msgspec.structs.replace(was[name], segments=(*before, *survives)))
    made: dict[str, Transfer] = {}
    for name in members:
        segments = (*calendar.transfers[name].transfer.segments, *_laid(calendar, name, lost[name], now_ms))
        made[name] = _changed(was[name], segments, now_ms)
        calendar.put_transfer(made[name])
    return made


def _hurt(calendar: Calendar, waiting: dict[str, Transfer]) -> dict[str, dict[tuple[str, ...], tuple[int, Longs]]]:
    """Those that lose anything, as many as are looked at in one go; what each keeps: path -> from which slot, rates.

    Who shares an arc on which there is too little for all keeps what he has, the earliest deadline first.
    """
    over = _Over(calendar.over(), calendar.free[:, :-1], calendar.grid.first)
    inline = sorted(waiting.values(), key=lambda each: (each.order.deadline_ms or NO_BOUND, each.booked_ms, each.id))
    for transfer in inline:
        for piece in calendar.transfers[transfer.id].pieces:
            over.give(piece)
    found: dict[str, dict[tuple[str, ...], tuple[int, Longs]]] = {}
    for transfer in inline:
        laid_now = calendar.transfers[transfer.id]
        kept: dict[tuple[str, ...], tuple[int, Longs]] = {}
        is_whole = laid_now.cut_until_ms <= calendar.now_ms
        for piece in laid_now.pieces:
            rates = over.kept(piece)
            is_whole &= bool(np.array_equal(rates, piece.rates))
            kept[calendar.wires.links_of(piece.arcs.tolist())] = piece.low, rates
        if not is_whole:
            found[transfer.id] = kept
            if len(found) >= MOST_TRANSFERS:
                break
    return found


def _still(calendar: Calendar, kept: dict[tuple[str, ...], tuple[int, Longs]], segment: Segment) -> tuple[Segment, ...]:
    """What is left of a segment; it is taken from what is kept of its path."""
    arcs = calendar.wires.arcs_of(segment)
    if segment.path not in kept or arcs is None:
        return ()
    low, left = kept[segment.path]
    slot_ms = calendar.grid.slot_ms
    begin = min(max(segment.from_ms // slot_ms - low, 0), len(left))
    end = min(-(-segment.until_ms // slot_ms) - low, len(left))
    rates = np.minimum(segment.rate_bps, left[begin:end])
    left[begin:end] -= rates
    piece = Piece(np.array(arcs, dtype=np.int32), low + begin, rates)
    return segments_of(calendar.wires, calendar.grid, (piece,), segment.from_ms, segment.until_ms)


def _laid(calendar: Calendar, name: str, lacks_bytes: int, now_ms: int) -> list[Segment]:
    """Bytes of a transfer in the room that there is: in time as far as possible, the others as early as possible."""
    each, grid = calendar.transfers[name], calendar.grid
    order = each.transfer.order
    if lacks_bytes <= 0 or min(each.source, each.target) < 0:
        return []
    paths = calendar.ways.between(each.source, each.target)
    from_ms = max(order.earliest_ms, now_ms)
    due_ms = min(order.deadline_ms or grid.until_ms, grid.until_ms)
    room = Room(calendar.free[:, :-1], grid.first, grid)
    new: list[Segment] = []
    all_done = []
    for begin_ms, end_ms in ((from_ms, due_ms), (max(due_ms, from_ms), grid.until_ms)):
        done = filled(room, paths, lacks_bytes, begin_ms, end_ms, is_splittable=order.is_splittable)
        new.extend(segments_of(calendar.wires, grid, done.pieces, begin_ms, end_ms))
        all_done.append(done)
        lacks_bytes = done.left_bytes
        if lacks_bytes <= 0:
            break
    for done in reversed(all_done):
        undone(room, done)
    return new


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


def _helped(calendar: Calendar, tried: Collection[str], now_ms: int) -> tuple[list[Transfer], list[str]]:
    """Those that would be late and need not be if others are laid elsewhere, with them; and for whom it was tried."""
    short = sorted(
        (
            each.transfer
            for each in calendar.transfers.values()
            if each.transfer.state is TransferState.SHORT
            and each.transfer.order.deadline_ms > now_ms
            and each.transfer.id not in tried
        ),
        key=lambda each: (each.order.deadline_ms, each.booked_ms, each.id),
    )
    if len(calendar.transfers) <= FEW_LIVE:
        found = list(_anew(calendar, now_ms)) if short else []
        for each in found:
            calendar.put_transfer(each)
        return found, [each.id for each in short]
    helped: dict[str, Transfer] = {}
    for transfer in short[:MOST_HELPED]:
        for each in _in_time(calendar, transfer.id, now_ms):
            calendar.put_transfer(each)
            helped[each.id] = each
    return list(helped.values()), [each.id for each in short[:MOST_HELPED]]


def _in_time(calendar: Calendar, name: str, now_ms: int) -> tuple[Transfer, ...]:
    """A late transfer in time, and the others that are laid elsewhere for it; nothing where that cannot be."""
    layout = beside(calendar, now_ms, parts, of=(name,)) if (parts := _asked_again(calendar, now_ms, (name,))) else None
    if layout is None:
        return ()
    return tuple(_well(each, now_ms) for each in moved_by(calendar, layout, now_ms))


def _anew(calendar: Calendar, now_ms: int) -> tuple[Transfer, ...]:
    """Everything in slots that have not begun anew, if nothing is short then; nothing where not."""
    layout = laid(calendar, now_ms, _asked_again(calendar, now_ms), is_forced=True)
    if layout is None or layout.short_bytes:
        return ()
    return tuple(_well(each, now_ms) for each in moved_by(calendar, layout, now_ms))


def _asked_again(calendar: Calendar, now_ms: int, names: Sequence[str] | None = None) -> list[Part]:
    """What of the transfers can still be laid elsewhere; what was late is asked for in time once more."""
    grid = calendar.grid
    parts = []
    for part in parts_of(calendar, now_ms, names):
        order = calendar.transfers[part.id].transfer.order
        due_ms = min(order.deadline_ms or 0, grid.until_ms)
        is_late = bool(due_ms) and part.due_ms > due_ms
        from_ms = max(grid.whole_from(now_ms) * grid.slot_ms, order.earliest_ms)
        parts.append(part._replace(from_ms=from_ms, due_ms=due_ms) if is_late else part)
    return parts


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


# -- more room --------------------------------------------------------------------------------------------------------


def wanting(calendar: Calendar) -> list[str]:
    """Best-effort transfers, and those that a failure left short, that have not found room for all of it."""
    found = [
        each.transfer
        for each in calendar.transfers.values()
        if not each.transfer.order.deadline_ms or each.transfer.state is TransferState.SHORT
        if _promised(each.transfer) > sum(segment.size_bytes for segment in each.transfer.segments)
    ]
    return [each.id for each in sorted(found, key=lambda each: (each.booked_ms, each.id))]


def _promised(transfer: Transfer) -> int:
    """Bytes that were admitted: all, or the part that was of use."""
    return transfer.priced_bytes or transfer.order.size_bytes


def topped(calendar: Calendar, now_ms: int, names: Sequence[str] | None = None) -> tuple[Transfer, ...]:
    """Transfers that found more room than they have, of those named; None: of all that want some, the oldest first."""
    grid = calendar.grid
    now_ms = max(now_ms, grid.begin_ms)
    changed = []
    with calendar.trying():
        room = Room(calendar.free[:, :-1], grid.first, grid)
        for name in wanting(calendar) if names is None else names:
            each = calendar.transfers[name]
            order, segments = each.transfer.order, each.transfer.segments
            lacks = _promised(each.transfer) - sum(segment.size_bytes for segment in segments)
            if lacks <= 0 or min(each.source, each.target) < 0:
                continue
            paths = calendar.ways.between(each.source, each.target)
            from_ms = max(order.earliest_ms, order.deadline_ms, now_ms)
            done = filled(room, paths, lacks, from_ms, grid.until_ms, is_splittable=order.is_splittable)
            undone(room, done)
            if done.pieces:
                more = segments_of(calendar.wires, grid, done.pieces, from_ms, grid.until_ms)
                changed.append(_changed(each.transfer, (*segments, *more), now_ms))
                calendar.put_transfer(changed[-1])
    return tuple(changed)
