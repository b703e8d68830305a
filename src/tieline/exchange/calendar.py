"""Calendar: what is free and booked, what it costs, and what time alone changes of the bookings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from tieline.exchange.bookings import ChangeTariff, ReadCalendar, calendar_of
from tieline.exchange.commands import Decision
from tieline.exchange.permission import allow, no_such
from tieline.exchange.transfers import mending
from tieline.exchange.view import View
from tieline.model.booking_api import CalendarView, LinkBooked
from tieline.model.circuit import Circuit, CircuitState
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, Events, TariffChanged, TransferChanged
from tieline.model.party import Role
from tieline.model.reason import Reason
from tieline.model.transfer import Transfer, TransferState
from tieline.ports import Ids

if TYPE_CHECKING:
    from tieline.network.calendar import Calendar

replace = msgspec.structs.replace
MOST_DUE: Final = 1_000  # bookings that one tick changes; the others follow at the next
MOST_CELLS: Final = 200_000  # that one answer shows
UNSEEN_MS: Final = 900_000  # after its room is over, a transfer of which nothing more is heard has failed
LATE_MS: Final = 60_000  # after its deadline it is short, if it has not arrived: its last receipt may take so long
AHEAD_MS: Final = 86_400_000  # windows are admitted further when the calendar reaches a day beyond them
WAITS_MS: Final = 7 * 86_400_000  # after which a transfer that never finds room for all of it has failed
MOST_TOPPED: Final = 40  # transfers that look for more room in one tick
LATER_MS: Final = 300_000  # best effort looks for more room so often


def read_calendar(view: View, command: ReadCalendar, now_ms: int, ids: Ids) -> Decision:
    """Both directions of the links, in so many columns between two times."""
    calendar = calendar_of(view, now_ms)
    links = calendar.wires.topology.links
    if command.link and command.link not in calendar.wires.link:
        raise no_such("link", command.link)
    numbers = [calendar.wires.link[command.link]] if command.link else list(range(len(links)))
    grid = calendar.grid
    from_ms = max(command.from_ms, now_ms)
    until_ms = command.until_ms or (from_ms // grid.slot_ms + command.columns) * grid.slot_ms
    if until_ms <= from_ms:
        raise TielineError("invalid_request", "it ends before it begins", where="until_ms")
    low, high = grid.touched(from_ms, until_ms)
    if low >= high:
        ahead_h = (grid.until_ms - now_ms) // 3_600_000
        raise TielineError("invalid_request", f"the calendar reaches {ahead_h} h ahead", where="from_ms")
    width = -(-(high - low) // command.columns)
    if len(numbers) * 2 * -(-(high - low) // width) > MOST_CELLS:
        raise TielineError("too_large", f"more than {MOST_CELLS:,} cells: name one link, or fewer columns")
    shown = _booked(calendar, numbers, low - grid.first, high - grid.first, width)
    reply = CalendarView(from_ms=low * grid.slot_ms, column_ms=width * grid.slot_ms, slot_ms=grid.slot_ms, links=shown)
    return Decision((), reply)


def _booked(calendar: Calendar, numbers: Sequence[int], low: int, high: int, width: int) -> tuple[LinkBooked, ...]:
    """Both directions of links, from column ``low`` of the grid to ``high``, ``width`` of them together."""
    import numpy as np

    arcs = [arc for number in numbers for arc in (2 * number, 2 * number + 1)]
    rows = slice(None) if len(arcs) == len(calendar.capacity) else arcs
    capacity, firm, free = (each[rows, low:high] for each in (calendar.capacity, calendar.firm, calendar.free))
    begins = np.arange(0, high - low, width)
    counts = np.diff([*begins.tolist(), high - low])
    there, left, least = (np.add.reduceat(each, begins, axis=1) for each in (capacity, firm, free))
    means = [(each // counts).tolist() for each in (there, there - left, left - least)]
    frees = np.maximum(np.minimum.reduceat(free, begins, axis=1), 0).tolist()
    links = calendar.wires.topology.links
    return tuple(
        LinkBooked(
            link=links[arc // 2].name,
            a=links[arc // 2].a if arc % 2 == 0 else links[arc // 2].b,
            b=links[arc // 2].b if arc % 2 == 0 else links[arc // 2].a,
            capacity_bps=tuple(means[0][at]),
            circuit_bps=tuple(means[1][at]),
            transfer_bps=tuple(means[2][at]),
            free_bps=tuple(frees[at]),
        )
        for at, arc in enumerate(arcs)
    )


def change_tariff(view: View, command: ChangeTariff, now_ms: int, ids: Ids) -> Decision:
    """New prices; what is booked keeps the price that it was booked at."""
    allow(command.actor, Role.ADMIN, Role.OPERATOR, what="change the tariff")
    for at, hours in enumerate(command.tariff.hours):
        if hours.begin_s == hours.end_s:
            raise TielineError("invalid_request", f"hours {at + 1} end as they begin", where="tariff.hours")
    if command.tariff == view.network.tariff:
        return Decision((), command.tariff)
    why = command.why or f"told by {command.actor.name}"
    return Decision((TariffChanged(tariff=command.tariff, why=why),), command.tariff)


# -- time passing -----------------------------------------------------------------------------------------------------


def bookings_due(view: View, now_ms: int) -> list[Events]:
    """What time alone changes: bookings that wait to be mended, a few at a time; transfers that begin, are never heard
    of, or find more room; circuits that end. Failures without end keep nobody from his time."""
    network = view.network
    if now_ms < network.due_ms or not (network.transfers or network.circuits):
        return []
    calendar = network.calendar_at(now_ms)
    if calendar is not None and (network.waiting or calendar.waiting().total):
        network.note_waiting()
        network.due_ms = 0
    events = mending(view, now_ms).events if network.waiting else []
    in_line = network.waiting | {event.subject for event in events} if events else frozenset()  # mended first
    due_ms = now_ms + LATER_MS
    for transfer in network.transfers.values():
        if transfer.id in in_line:
            continue
        changed, next_ms = _transfer_due(transfer, now_ms)
        due_ms = min(due_ms, next_ms)
        if changed is not None and len(events) < MOST_DUE:
            events.append(TransferChanged(transfer=changed, why=_why(changed)))
    for circuit in network.circuits.values():
        if circuit.id in in_line:
            continue
        later, next_ms, why = _circuit_due(calendar, circuit, now_ms)
        due_ms = min(due_ms, next_ms)
        if later is not None and len(events) < MOST_DUE:
            events.append(CircuitChanged(circuit=later, why=why))
    if not events and calendar is not None:  # what changes now is looked at again at once
        events.extend(_found_again(view, now_ms))
        if not events and network.is_tried:
            events.extend(_topped(view, calendar, now_ms))
        is_at_rest = network.is_tried and network.tried_at == network.grants
        network.due_ms = due_ms if is_at_rest and not network.topping and not events else 0
    return events


def _why(transfer: Transfer) -> str:
    if transfer.state is TransferState.MOVING:
        return "its time has come"
    return transfer.reasons[0].code


def _transfer_due(transfer: Transfer, now_ms: int) -> tuple[Transfer | None, int]:
    """What becomes of it now, and when to look again."""
    ends = (each.until_ms for each in transfer.segments)
    over_ms = max(*ends, transfer.order.deadline_ms, transfer.changed_ms, transfer.booked_ms)
    is_waiting = _waits(transfer)
    over_ms += WAITS_MS if is_waiting else UNSEEN_MS
    if now_ms >= over_ms:
        left_bytes = transfer.order.size_bytes - transfer.moved_bytes
        values: dict[str, int | str] = {"left_bytes": left_bytes, "asked_bytes": transfer.order.size_bytes}
        if is_waiting:
            values["waited_us"] = WAITS_MS * 1_000
        why = (Reason(code="transfer_given_up" if is_waiting else "transfer_unseen", values=values),)
        return replace(transfer, state=TransferState.FAILED, reasons=why, changed_ms=now_ms), now_ms
    late_ms = transfer.order.deadline_ms + LATE_MS
    is_promised = bool(transfer.order.deadline_ms) and transfer.state in (TransferState.BOOKED, TransferState.MOVING)
    if is_promised and now_ms >= late_ms:
        return _late(transfer, now_ms), now_ms
    if transfer.state is TransferState.BOOKED and transfer.segments:
        begins_ms = min(each.from_ms for each in transfer.segments)
        if now_ms >= begins_ms:
            return replace(transfer, state=TransferState.MOVING), now_ms
        return None, begins_ms
    return None, min(over_ms, late_ms) if is_promised else over_ms


def _late(transfer: Transfer, now_ms: int) -> Transfer:
    """A transfer whose deadline is over, though it kept its room: it says what had not arrived by then."""
    asked_bytes = transfer.order.size_bytes
    left_bytes = (transfer.priced_bytes or asked_bytes) - transfer.moved_bytes
    why = Reason(code="transfer_late", values={"left_bytes": left_bytes, "asked_bytes": asked_bytes})
    short_bytes = asked_bytes - transfer.moved_bytes + transfer.late_bytes
    return replace(transfer, state=TransferState.SHORT, short_bytes=short_bytes, reasons=(why,), changed_ms=now_ms)


def _waits(transfer: Transfer) -> bool:
    """Best effort, or what a failure left short, that has not found room for all of it yet."""
    return not transfer.arrives_ms and (not transfer.order.deadline_ms or transfer.state is TransferState.SHORT)


def _circuit_due(calendar: Calendar | None, circuit: Circuit, now_ms: int) -> tuple[Circuit | None, int, str]:
    """What becomes of it now, when to look again, and why."""
    order = circuit.order
    if order.until_ms and now_ms >= order.until_ms + UNSEEN_MS:  # so long its last receipt may take
        ended = replace(circuit, state=CircuitState.ENDED, changed_ms=now_ms)
        return ended, now_ms, "its time is over"
    until_ms = order.until_ms + UNSEEN_MS if order.until_ms else now_ms + LATER_MS
    for window in circuit.paused:
        until_ms = min([until_ms, *(edge for edge in (window.from_ms, window.until_ms) if edge > now_ms)])
    turned = _turned(circuit, now_ms)
    if turned is not None:
        return turned, now_ms, turned.reasons[0].code
    last_ms = max((each.until_ms for each in circuit.windows), default=order.from_ms)
    if calendar is None or (order.until_ms and last_ms >= order.until_ms):
        return None, until_ms, ""
    if calendar.grid.until_ms - last_ms < AHEAD_MS + (order.recurrence.period_s * 1_000 if order.recurrence else 0):
        return None, until_ms, ""
    from tieline.network.calendar import windows_in

    begin_ms = now_ms - AHEAD_MS  # what was proven in the day before may still be on its way here
    windows = windows_in(order.from_ms, order.until_ms, order.recurrence, begin_ms, calendar.grid.until_ms)
    if tuple(windows) == circuit.windows:
        return None, until_ms, ""
    paused = tuple(each for each in circuit.paused if each.until_ms > begin_ms)
    return replace(circuit, windows=tuple(windows), paused=paused), now_ms, "admitted further"


def _turned(circuit: Circuit, now_ms: int) -> Circuit | None:
    """The circuit as its maintenance begins or is over; None: neither is so."""
    pause = next((each for each in circuit.paused if each.from_ms <= now_ms < each.until_ms), None)
    if pause is None and circuit.state is CircuitState.PAUSED:
        why = Reason(code="circuit_resumed")
        return replace(circuit, state=CircuitState.DEGRADED, reasons=(why,), changed_ms=now_ms)
    is_on = any(each.from_ms <= now_ms < each.until_ms for each in circuit.windows)
    if pause is None or not is_on:
        return None
    if circuit.state not in (CircuitState.ORDERED, CircuitState.UP, CircuitState.DEGRADED):
        return None
    why = Reason(code="circuit_maintenance", values={"pause_us": (pause.until_ms - now_ms) * 1_000})
    return replace(circuit, state=CircuitState.PAUSED, reasons=(why,), changed_ms=now_ms)


def _found_again(view: View, now_ms: int) -> list[Events]:
    """Who lacks a route, the spare one that he asked for, or his time, when there may be room again: each once.

    A round goes to its end before the next: else who is last in line is never looked at where much changes.
    """
    network = view.network
    if network.tried_at != network.grants and (network.is_tried or not network.tried):
        network.tried.clear()
        network.tried_at, network.is_tried = network.grants, False
    if network.is_tried:
        return []
    found = mending(view, now_ms, tried=network.tried)
    network.tried |= dict.fromkeys(found.tried)
    network.is_tried = not found.tried
    return found.events


def _topped(view: View, calendar: Calendar, now_ms: int) -> list[Events]:
    """Best effort, and what a failure left short, in the room that there is now: a few at a time, each once a round."""
    from tieline.network.heal import topped, wanting

    network = view.network
    if not network.topping and now_ms >= network.top_ms:
        network.topping, network.top_ms = wanting(calendar), now_ms + LATER_MS
    names = [name for name in network.topping[:MOST_TOPPED] if name in network.transfers]
    network.topping = network.topping[MOST_TOPPED:]
    found = topped(calendar, now_ms, names) if names else ()
    return [TransferChanged(transfer=each, why="found more room") for each in found]
