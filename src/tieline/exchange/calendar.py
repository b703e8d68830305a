"""Calendar: what is free and booked, what it costs, and what time alone changes of the bookings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from tieline.exchange.bookings import ChangeTariff, ReadCalendar, calendar_of
from tieline.exchange.commands import Decision
from tieline.exchange.permission import allow, no_such
from tieline.exchange.transfers import healed_events
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
AHEAD_MS: Final = 86_400_000  # windows are admitted further when the calendar reaches a day beyond them
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
    """What time alone changes: transfers that begin, are never heard of, or find more room; circuits that end."""
    network = view.network
    if now_ms < network.due_ms or not (network.transfers or network.circuits):
        return []
    events: list[Events] = []
    due_ms = now_ms + LATER_MS
    for transfer in network.transfers.values():
        changed, next_ms = _transfer_due(transfer, now_ms)
        due_ms = min(due_ms, next_ms)
        if changed is not None and len(events) < MOST_DUE:
            events.append(TransferChanged(transfer=changed, why=_why(changed)))
    for circuit in network.circuits.values():
        later, next_ms = _circuit_due(view, circuit, now_ms)
        due_ms = min(due_ms, next_ms)
        if later is not None and len(events) < MOST_DUE:
            why = "its time is over" if later.state is CircuitState.ENDED else "admitted further"
            events.append(CircuitChanged(circuit=later, why=why))
    if not events:  # what changes now is looked at again at once
        events.extend(_mended(view, now_ms) or _topped(view, now_ms))
        network.due_ms = due_ms
    return events


def _why(transfer: Transfer) -> str:
    return "its time has come" if transfer.state is TransferState.MOVING else "nothing more was heard of it"


def _transfer_due(transfer: Transfer, now_ms: int) -> tuple[Transfer | None, int]:
    """What becomes of it now, and when to look again."""
    if not transfer.segments:
        return None, now_ms + LATER_MS
    begins_ms = min(each.from_ms for each in transfer.segments)
    over_ms = max(*(each.until_ms for each in transfer.segments), transfer.order.deadline_ms, transfer.changed_ms)
    if now_ms >= over_ms + UNSEEN_MS and not _waits(transfer):
        values: dict[str, int | str] = {
            "left_bytes": transfer.order.size_bytes - transfer.moved_bytes,
            "asked_bytes": transfer.order.size_bytes,
        }
        why = (Reason(code="transfer_unseen", values=values),)
        return replace(transfer, state=TransferState.FAILED, reasons=why, changed_ms=now_ms), now_ms
    if transfer.state is TransferState.BOOKED and now_ms >= begins_ms:
        return replace(transfer, state=TransferState.MOVING), now_ms
    begins = begins_ms if transfer.state is TransferState.BOOKED else over_ms + UNSEEN_MS
    return None, begins


def _waits(transfer: Transfer) -> bool:
    """Best effort that has not found room for all of it yet."""
    return not transfer.order.deadline_ms and not transfer.arrives_ms


def _circuit_due(view: View, circuit: Circuit, now_ms: int) -> tuple[Circuit | None, int]:
    """What becomes of it now, and when to look again."""
    order = circuit.order
    if order.until_ms and now_ms >= order.until_ms + UNSEEN_MS:  # so long its last receipt may take
        return replace(circuit, state=CircuitState.ENDED, changed_ms=now_ms), now_ms
    until_ms = order.until_ms + UNSEEN_MS if order.until_ms else now_ms + LATER_MS
    calendar = view.network.calendar_at(now_ms)
    last_ms = max((each.until_ms for each in circuit.windows), default=order.from_ms)
    if calendar is None or (order.until_ms and last_ms >= order.until_ms):
        return None, until_ms
    if calendar.grid.until_ms - last_ms < AHEAD_MS + (order.recurrence.period_s * 1_000 if order.recurrence else 0):
        return None, until_ms
    from tieline.network.calendar import windows_in

    begin_ms = now_ms - AHEAD_MS  # what was proven in the day before may still be on its way here
    windows = windows_in(order.from_ms, order.until_ms, order.recurrence, begin_ms, calendar.grid.until_ms)
    if tuple(windows) == circuit.windows:
        return None, until_ms
    return replace(circuit, windows=tuple(windows)), now_ms


def _mended(view: View, now_ms: int) -> list[Events]:
    """Circuits without a route, or without the spare one that they asked for, when there may be room for them again;
    and who lies where maintenance has come into the calendar, as far as there is another way for him."""
    from tieline.network.heal import lacks_spare

    network = view.network
    calendar = network.calendar_at(now_ms)
    if calendar is None:
        return []
    at = (network.grants, calendar.grid.first)
    if at == network.mended_at:
        return []
    is_new = at[0] != network.mended_at[0] and any(
        each.route is None or lacks_spare(each) for each in network.circuits.values()
    )
    is_over = at[1] != network.mended_at[1] and not calendar.is_kept()
    found = healed_events(view, now_ms) if is_new or is_over else []
    events = [each for each in found if not isinstance(each, CircuitChanged) or each.circuit.route is not None]
    if not any(isinstance(each, CircuitChanged) for each in events):  # else there may be more to find at the next tick
        network.mended_at = at
    return events


def _topped(view: View, now_ms: int) -> list[Events]:
    """Best effort, and what a failure left short, in the room that there is now."""
    network = view.network
    if not any(_waits(each) or each.state is TransferState.SHORT for each in network.transfers.values()):
        return []
    calendar = network.calendar_at(now_ms)
    if calendar is None:
        return []
    from tieline.network.heal import topped

    return [TransferChanged(transfer=each, why="found more room") for each in topped(calendar, now_ms)]
