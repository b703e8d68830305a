"""Transfers: ordered, cancelled, and what becomes of all bookings when the network changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from tieline.exchange.bookings import (
    MOST_TRANSFERS,
    CancelTransfer,
    OrderTransfer,
    booking_project,
    check_label,
    check_money,
    live_transfer,
    order_calendar,
    refused,
)
from tieline.exchange.commands import Decision
from tieline.exchange.permission import allow, no_such
from tieline.exchange.view import View
from tieline.model.booking_api import TransferView
from tieline.model.circuit import Circuit
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, Events, TransferChanged
from tieline.model.party import Actor, Role
from tieline.model.reason import Reason
from tieline.model.topology import Topology
from tieline.model.transfer import Segment, Transfer, TransferOrder, TransferState
from tieline.ports import Ids

if TYPE_CHECKING:
    from tieline.network.calendar import Calendar

replace = msgspec.structs.replace
MOST_AT_ONCE: Final = 40  # bookings on links that change, up to which they are mended in the decision that changes them


def order_transfer(view: View, command: OrderTransfer, now_ms: int, ids: Ids) -> Decision:
    """Admit an order whole, at a price, or refuse it with the bound that stands in its way."""
    actor = command.actor
    allow(actor, Role.USER, Role.ADMIN, Role.OPERATOR, what="order transfers")
    project = booking_project(view, actor, command.project)
    check_job(view, actor, command.order)
    events, made = booked_for(view, command.order, actor.name, now_ms, ids, project=project)
    moved = tuple(event.transfer.id for event in events[1:])
    reply = TransferView(transfer=made, moved=moved, is_dry_run=command.is_dry_run)
    return Decision(() if command.is_dry_run else tuple(events), reply)


def booked_for(
    view: View, order: TransferOrder, user: str, now_ms: int, ids: Ids, *, project: str = ""
) -> tuple[list[TransferChanged], Transfer]:
    """The booking of an order, its own event first. Raises TielineError `not_admitted` with counted reasons."""
    from tieline.network.admit import Refused, admitted
    from tieline.network.tariff import transfer_price

    check_label(order.label)
    calendar, tariff = order_calendar(view, user, project, now_ms), view.network.tariff
    if len(view.network.transfers) >= MOST_TRANSFERS:
        raise TielineError("overloaded", f"{MOST_TRANSFERS:,} transfers are live")

    def price_of(asked: TransferOrder, segments: Sequence[Segment]) -> int:
        return transfer_price(tariff, calendar.wires, asked, segments)

    answer = admitted(
        calendar, order, name=ids.new("transfer"), user=user, now_ms=now_ms, price_of=price_of, project=project
    )
    if isinstance(answer, Refused):
        raise refused((*answer.reasons, *_later(calendar, order, answer.reasons[0], now_ms)))
    made = replace(answer.transfer, late_permille=tariff.late_permille)
    check_money(view, project, made.price_micro_cny)
    why = f"laid elsewhere for {made.id}"
    moved = [TransferChanged(transfer=each, why=why) for each in answer.moved]
    return [TransferChanged(transfer=made, why=f"ordered by {user}"), *moved], made


def _later(calendar: Calendar, order: TransferOrder, why: Reason, now_ms: int) -> tuple[Reason, ...]:
    """When what finds no room in time would be there: the nearest order that could be met."""
    from tieline.network.admit import Admitted, admitted

    if why.code != "transfer_no_room":
        return ()
    patient = replace(order, deadline_ms=0, limit_micro_cny=None)
    found = admitted(calendar, patient, name="later", user="", now_ms=now_ms, price_of=lambda _order, _segments: 0)
    arrives_ms = found.transfer.arrives_ms if isinstance(found, Admitted) else 0
    if not arrives_ms:
        return ()
    return (Reason(code="transfer_later", values={"late_us": (arrives_ms - order.deadline_ms) * 1_000}),)


def check_job(view: View, actor: Actor, order: TransferOrder) -> None:
    """Nobody brings data to a job of somebody else."""
    if not order.job:
        return
    row = view.jobs.rows.get(order.job)
    if row is None or (row.user != actor.name and not actor.has(Role.ADMIN)):
        raise no_such("live job", order.job)


def cancel_transfer(view: View, command: CancelTransfer, now_ms: int, ids: Ids) -> Decision:
    """Give its room back; what arrived stays charged."""
    allow(command.actor, Role.USER, Role.ADMIN, Role.OPERATOR, what="cancel transfers")
    found = live_transfer(view, command.actor, command.transfer)
    ended = replace(found, state=TransferState.CANCELLED, changed_ms=now_ms)
    return Decision((TransferChanged(transfer=ended, why=f"cancelled by {command.actor.name}"),), ended)


# -- when the network changes -----------------------------------------------------------------------------------------


class Mending(NamedTuple):
    """What becomes of bookings: their events, who is still to be looked at, and who lacked something and was."""

    events: list[Events]
    waiting: int = 0
    tried: tuple[str, ...] = ()


def mending(view: View, now_ms: int, standing: Topology | None = None, tried: Collection[str] = ()) -> Mending:
    """What becomes of the bookings over another state of the network; circuits first, nothing for who keeps his own.

    ``standing`` is the state that follows from the events of the same decision (links that are down have no capacity);
    None: the one of the view. Its own event comes before these. Where it concerns many, they wait: the ticks that
    follow look at a few at a time, so that nobody who asks something waits for all of them.
    """
    network = view.network
    if not network.transfers and not network.circuits:
        return Mending([])
    calendar = network.calendar_at(now_ms)
    if calendar is None:
        return Mending([])
    from tieline.network.heal import healed

    if standing is not None and (concerned := calendar.concerned(standing)) > MOST_AT_ONCE:
        return Mending([], concerned)
    found = healed(calendar, now_ms, standing=standing, tried=tried)
    events: list[Events] = [
        CircuitChanged(circuit=each, why=_why(each))
        for each in found.circuits
        if replace(each, changed_ms=0) != replace(network.circuits[each.id], changed_ms=0)
    ]
    events.extend(TransferChanged(transfer=each, why=_why(each)) for each in found.transfers)
    return Mending(events, found.waiting, found.tried)


def _why(booked: Transfer | Circuit) -> str:
    """The first reason of a change, or what it is plainly."""
    if booked.reasons and (isinstance(booked, Circuit) or booked.state is TransferState.SHORT):
        return booked.reasons[0].code
    return "laid elsewhere"
