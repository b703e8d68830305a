"""Nights: a batch of transfers that are decided together.

Planning takes seconds, so it happens elsewhere, on a copy of the calendar (`LookAtCalendar`). The plan proposes:
between it and its booking somebody else may have booked. What still fits is taken as planned, everything else as any
other order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from tieline.exchange.bookings import (
    MOST_TRANSFERS,
    BookNight,
    LookAtCalendar,
    booking_project,
    calendar_of,
    check_label,
    check_money,
    order_calendar,
)
from tieline.exchange.commands import Decision
from tieline.exchange.permission import allow
from tieline.exchange.transfers import check_job
from tieline.exchange.view import View
from tieline.model.booking_api import LeftOut, NightView
from tieline.model.error import TielineError
from tieline.model.event import TransferChanged
from tieline.model.party import Role
from tieline.model.reason import Reason
from tieline.model.transfer import Segment, Transfer, TransferOrder
from tieline.ports import Ids

if TYPE_CHECKING:
    from tieline.network.calendar import Calendar

replace = msgspec.structs.replace
MOST_AGAIN = 50  # orders whose plan does not fit any more that are tried as any other; deciding holds everybody back


def look_at_calendar(view: View, command: LookAtCalendar, now_ms: int, ids: Ids) -> Decision:
    """A copy to plan on, so that planning holds nobody back."""
    allow(command.actor, Role.USER, Role.ADMIN, Role.OPERATOR, what="plan transfers")
    return Decision((), calendar_of(view, now_ms).copied())


def book_night(view: View, command: BookNight, now_ms: int, ids: Ids) -> Decision:
    """Book each order whole, or as far as the plan says, or not, with the reason."""
    actor = command.actor
    allow(actor, Role.USER, Role.ADMIN, Role.OPERATOR, what="order transfers")
    project = booking_project(view, actor, command.project)
    if len(view.network.transfers) + len(command.orders) > MOST_TRANSFERS:
        raise TielineError("overloaded", f"more than {MOST_TRANSFERS:,} transfers would be live")
    calendar = order_calendar(view, actor.name, project, now_ms, len(command.orders)).copied()
    events: list[TransferChanged] = []
    left: list[LeftOut] = []
    booked: dict[str, Transfer] = {}
    again = 0
    for place, order in enumerate(command.orders):
        check_label(order.label)
        if not order.deadline_ms:
            raise TielineError("invalid_request", f"order {place + 1} has no deadline", where="orders")
        check_job(view, actor, order)
        blank = Transfer(
            id=ids.new("transfer"),
            order=order,
            user=actor.name,
            project=project,
            late_permille=view.network.tariff.late_permille,
            booked_ms=now_ms,
            changed_ms=now_ms,
        )
        planned = command.planned.get(place, ())
        if planned and not _fits(calendar, planned, now_ms):
            again += 1
            if again > MOST_AGAIN:
                message = f"others booked meanwhile where more than {MOST_AGAIN} orders of the plan lie: plan it again"
                raise TielineError("overloaded", message)
        answer = _booked(view, calendar, blank, planned, now_ms)
        if isinstance(answer, LeftOut):
            left.append(LeftOut(place=place, reasons=answer.reasons))
            continue
        booked[blank.id] = answer[0]
        for each in answer:
            calendar.put_transfer(each)
            booked |= {each.id: each} if each.id in booked else {}
            events.append(TransferChanged(transfer=each, why=f"ordered in a batch by {actor.name}"))
    check_money(view, project, sum(each.price_micro_cny for each in booked.values()))
    reply = NightView(
        transfers=tuple(booked.values()),
        left_out=tuple(left),
        asked_bytes=sum(order.size_bytes for order in command.orders),
        carried_bytes=sum(each.priced_bytes or each.order.size_bytes for each in booked.values()),
        bound_bytes=command.bound_bytes,
        is_dry_run=command.is_dry_run,
    )
    return Decision(() if command.is_dry_run else tuple(events), reply)


def _booked(
    view: View, calendar: Calendar, blank: Transfer, planned: tuple[Segment, ...], now_ms: int
) -> tuple[Transfer, ...] | LeftOut:
    """The booking of one order, and the others that were laid elsewhere for it."""
    from tieline.network.admit import Refused, admitted, arrival_of, impossible
    from tieline.network.tariff import transfer_price

    order = blank.order

    def price_of(asked: TransferOrder, segments: Sequence[Segment]) -> int:
        return transfer_price(view.network.tariff, calendar.wires, asked, segments)

    if not planned:
        return LeftOut(place=0, reasons=impossible(calendar, order, now_ms) or (Reason(code="night_left_out"),))
    if not _fits(calendar, planned, now_ms):
        answer = admitted(
            calendar, order, name=blank.id, user=blank.user, now_ms=now_ms, price_of=price_of, project=blank.project
        )
        if isinstance(answer, Refused):
            return LeftOut(place=0, reasons=answer.reasons)
        return (replace(answer.transfer, late_permille=blank.late_permille), *answer.moved)
    carried = min(order.size_bytes, sum(each.size_bytes for each in planned))
    price, limit = price_of(order, planned), order.limit_micro_cny
    if limit is not None and price > limit:
        values: dict[str, int | str] = {"limit_micro_cny": limit, "price_micro_cny": price}
        return LeftOut(place=0, reasons=(Reason(code="transfer_price", values=values),))
    is_whole = carried == order.size_bytes
    lacks: dict[str, int | str] = {"left_bytes": order.size_bytes - carried, "asked_bytes": order.size_bytes}
    made = replace(
        blank,
        segments=planned,
        price_micro_cny=price,
        priced_bytes=0 if is_whole else carried,
        short_bytes=order.size_bytes - carried,
        reasons=() if is_whole else (Reason(code="transfer_partial", values=lacks),),
        arrives_ms=arrival_of(planned, carried),
    )
    return (made,)


def _fits(calendar: Calendar, planned: tuple[Segment, ...], now_ms: int) -> bool:
    """Whether there is room for all of it now. The calendar is as before afterwards."""
    from tieline.network.slots import pieces_of, taken

    grid = calendar.grid
    if min(each.from_ms for each in planned) < now_ms:
        return False
    if any(calendar.wires.arcs_of(each) is None for each in planned):
        return False
    pieces = pieces_of(calendar.wires, grid, planned)
    for piece in pieces:
        taken(calendar.free, grid, piece)
    is_room = all(
        (calendar.free[piece.arcs, piece.low - grid.first : piece.low - grid.first + len(piece.rates)] >= 0).all()
        for piece in pieces
    )
    for piece in pieces:
        taken(calendar.free, grid, piece, -1)
    return is_room
