"""Circuits: ordered, resized, cancelled. Whether one is up is not decided here: a receipt proves it."""

from __future__ import annotations

from functools import partial

import msgspec

from tieline.exchange.bookings import (
    MOST_CIRCUITS,
    CancelCircuit,
    OrderCircuit,
    ResizeCircuit,
    booking_project,
    calendar_of,
    check_label,
    check_mended,
    check_money,
    dearest,
    live_circuit,
    order_calendar,
    refused,
)
from tieline.exchange.commands import Decision
from tieline.exchange.permission import allow
from tieline.exchange.view import View
from tieline.model.booking_api import CircuitView
from tieline.model.circuit import Circuit, CircuitOrder, CircuitState
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, Events, TransferChanged
from tieline.model.party import Role
from tieline.model.reason import Reason
from tieline.model.tariff import Hours, Tariff
from tieline.model.transfer import TrafficClass
from tieline.ports import Ids

replace = msgspec.structs.replace


def order_circuit(view: View, command: OrderCircuit, now_ms: int, ids: Ids) -> Decision:
    """Admit a circuit in all of its windows, at a price for the hour, or refuse it with the bound in its way."""
    from tieline.network.admit import Refused
    from tieline.network.lease import leased
    from tieline.network.tariff import circuit_price, spare_price

    actor, order, tariff = command.actor, command.order, view.network.tariff
    allow(actor, Role.USER, Role.ADMIN, Role.OPERATOR, what="order circuits")
    project = booking_project(view, actor, command.project)
    check_label(order.label)
    if order.most_bps and order.most_bps < order.rate_bps:
        raise TielineError("invalid_request", f"{order.most_bps:,} bit/s is below {order.rate_bps:,}", where="most_bps")
    calendar = order_calendar(view, actor.name, project, now_ms)
    if len(view.network.circuits) >= MOST_CIRCUITS:
        raise TielineError("overloaded", f"{MOST_CIRCUITS:,} circuits are live")
    name = ids.new("circuit")

    price = partial(circuit_price, tariff)
    answer = leased(calendar, order, name=name, user=actor.name, now_ms=now_ms, price_of=price, project=project)
    if isinstance(answer, Refused):
        last = answer.reasons[-1]
        if last.code == "circuit_later":
            minutes = -(-int(last.values["wait_us"]) // 60_000_000)
            raise refused(answer.reasons, f"tieline circuit order --from {minutes}m ...")
        raise refused(answer.reasons)
    hours = _hours(tariff)
    made = replace(
        answer.circuit,
        hours=hours,
        utc_offset_s=tariff.utc_offset_s,
        spare_micro_cny_per_hour=spare_price(tariff, order),
        spare_from_ms=now_ms,
    )
    _check_price(made)
    check_money(view, project, dearest(made))
    moved = [TransferChanged(transfer=each, why=f"laid elsewhere for {made.id}") for each in answer.moved]
    shrunk = [CircuitChanged(circuit=each, why=f"gave back for {made.id}") for each in answer.shrunk]
    reply = CircuitView(
        circuit=made,
        moved=tuple(each.id for each in answer.moved),
        shrunk=tuple(each.id for each in answer.shrunk),
        is_dry_run=command.is_dry_run,
    )
    events: tuple[Events, ...] = (*shrunk, *moved, CircuitChanged(circuit=made, why=f"ordered by {actor.name}"))
    return Decision(() if command.is_dry_run else events, reply)


def resize_circuit(view: View, command: ResizeCircuit, now_ms: int, ids: Ids) -> Decision:
    """Another rate on its own routes, at today's price of that rate."""
    from tieline.network.admit import Refused
    from tieline.network.lease import resized
    from tieline.network.tariff import circuit_price, resized_price, spare_price

    actor, tariff = command.actor, view.network.tariff
    allow(actor, Role.USER, Role.ADMIN, Role.OPERATOR, what="resize circuits")
    found = live_circuit(view, actor, command.circuit)
    _check_gang(view, found)
    if found.route is None:
        raise TielineError("conflict", f"`{found.id}` is down: it has no route that could be resized")
    calendar = calendar_of(view, now_ms)
    check_mended(calendar)
    answer = resized(calendar, found, command.rate_bps, now_ms=now_ms)
    if isinstance(answer, Refused):
        raise refused(answer.reasons)
    price = circuit_price(tariff, answer.circuit.order)
    made = replace(
        answer.circuit,
        price_micro_cny_per_hour=price,
        spare_micro_cny_per_hour=spare_price(tariff, answer.circuit.order),
        hours=_hours(tariff),
        utc_offset_s=tariff.utc_offset_s,
    )
    made = resized_price(found, made, now_ms)
    _check_price(made)
    check_money(view, made.project, dearest(made), but=made.id)
    moved = [TransferChanged(transfer=each, why=f"laid elsewhere for {made.id}") for each in answer.moved]
    change = CircuitChanged(circuit=made, why=f"resized by {actor.name} to {command.rate_bps} bit/s")
    return Decision((*moved, change), CircuitView(circuit=made, moved=tuple(each.id for each in answer.moved)))


def cancel_circuit(view: View, command: CancelCircuit, now_ms: int, ids: Ids) -> Decision:
    """Give its rate back; what was proven stays charged. Who runs the network may take it from a gang, too."""
    allow(command.actor, Role.USER, Role.ADMIN, Role.OPERATOR, what="cancel circuits")
    found = live_circuit(view, command.actor, command.circuit)
    if not command.actor.has(Role.ADMIN, Role.OPERATOR):
        _check_gang(view, found)
    ended = replace(found, state=CircuitState.CANCELLED, changed_ms=now_ms)
    return Decision((CircuitChanged(circuit=ended, why=f"cancelled by {command.actor.name}"),), ended)


def _check_gang(view: View, circuit: Circuit) -> None:
    """Refuse to change what a live gang was promised: all of it was booked at once, and its sites were told of it.

    Raises `not_admitted` (circuit_of_gang).
    """
    if circuit.job and circuit.job in view.jobs.rows:
        why = Reason(code="circuit_of_gang", values={"job": circuit.job})
        raise refused((why,), f"tieline stop {circuit.job}")


def _hours(tariff: Tariff) -> tuple[Hours, ...]:
    """The factors of the hours that concern a circuit."""
    return tuple(each for each in tariff.hours if not each.classes or TrafficClass.PROTECTED in each.classes)


def _check_price(circuit: Circuit) -> None:
    """Refuse what passes the order's limit in its dearest hour. Raises `not_admitted` (circuit_price)."""
    order: CircuitOrder = circuit.order
    limit, price = order.limit_micro_cny_per_hour, dearest(circuit)
    if limit is not None and price > limit:
        values: dict[str, int | str] = {"limit_micro_cny": limit, "price_micro_cny": price}
        raise refused((Reason(code="circuit_price", values=values),))
