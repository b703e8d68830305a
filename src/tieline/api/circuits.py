"""Circuits: a rate between two ends for a time; and the receipts that prove what was carried."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.api.call import OPTIONAL_NAME, Call, named
from tieline.api.operation import Follow, operation
from tieline.exchange.bookings import CancelCircuit, OrderCircuit, ResizeCircuit, TakeReceipt, sees_booking, shown
from tieline.exchange.permission import no_such
from tieline.exchange.receipts import ends_of
from tieline.model.booking_api import (
    CircuitBody,
    CircuitPage,
    CircuitView,
    ReceiptBody,
    ReceiptPage,
    ReceiptView,
    ResizeBody,
)
from tieline.model.circuit import Circuit, CircuitState
from tieline.model.party import Role
from tieline.model.transfer import Transfer

STATES = "|".join(state.value for state in CircuitState)
CIRCUIT_FOLLOWS = tuple(
    Follow(operation=name, parameter="circuit", pointer="/circuit/id")
    for name in ("read_circuit", "resize_circuit", "cancel_circuit")
)


class CircuitsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which circuits."""

    state: Annotated[str, msgspec.Meta(pattern=rf"\A({STATES})?\Z", description="only those in this state")] = ""
    user: Annotated[
        str, msgspec.Meta(max_length=200, description="of this user; others' are for who runs or audits the network")
    ] = ""
    before: Annotated[str, msgspec.Meta(pattern=OPTIONAL_NAME, description="go on before this one (`next_before`)")] = (
        ""
    )
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class ReceiptsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where on."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="go on after this number")] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


@operation(
    "POST",
    "/v1/circuits",
    tag="network",
    status=201,
    is_change=True,
    errors=("not_admitted", "overloaded"),
    follows=CIRCUIT_FOLLOWS,
    example={"order": {"a": "east", "b": "west", "rate_bps": 1_000_000_000, "latency_us": 5_000, "diversity": "link"}},
)
async def order_circuit(call: Call, body: CircuitBody) -> CircuitView:
    """Book a rate between two sites or nodes: for a time or until it is cancelled, in one window or in recurring ones.

    Held in both directions of its route in all of its windows, and on a spare route where diversity is asked for.
    Refused with the bound that stands in its way. With `is_dry_run` nothing is booked.
    """
    command = call.command(OrderCircuit, order=body.order, project=body.project, is_dry_run=body.is_dry_run)
    made: CircuitView = await call.platform.ask(command)
    call.note(circuit=made.circuit.id)
    return made


@operation("GET", "/v1/circuits", tag="network")
async def list_circuits(call: Call, query: CircuitsQuery) -> CircuitPage:
    """Circuits, newest first: the caller's own; for who runs or audits the network, everybody's."""
    actor, view = call.actor, call.platform.view
    user = query.user if actor.has(Role.ADMIN, Role.OPERATOR, Role.AUDITOR) else actor.name
    if query.user not in ("", user):
        return CircuitPage(circuits=(), next_before="")
    states = (query.state,) if query.state else ()
    read = call.platform.store.circuits
    found = await call.platform.read(read, user=user, states=states, before=query.before, limit=query.limit)
    seen = tuple(shown(view, each) for each in found if sees_booking(view, actor, each))
    return CircuitPage(circuits=seen, next_before=found[-1].id if len(found) == query.limit else "")


@operation("GET", "/v1/circuits/{circuit}", tag="network")
async def read_circuit(call: Call, circuit: str) -> CircuitView:
    """One circuit: its routes, its windows, its newest receipt, what it costs."""
    name = named(circuit)
    found = await call.platform.read(call.platform.store.circuit, name)
    if found is None or not sees_booking(call.platform.view, call.actor, found):
        raise no_such("circuit", name)
    return CircuitView(circuit=shown(call.platform.view, found))


@operation(
    "POST",
    "/v1/circuits/{circuit}/resize",
    tag="network",
    is_change=True,
    errors=("not_admitted", "conflict"),
    example={"rate_bps": 2_000_000_000},
)
async def resize_circuit(call: Call, circuit: str, body: ResizeBody) -> CircuitView:
    """Another rate on the same routes, at the price that this rate has today; nothing is torn down for it."""
    name = named(circuit)
    call.note(circuit=name)
    made: CircuitView = await call.platform.ask(call.command(ResizeCircuit, circuit=name, rate_bps=body.rate_bps))
    return made


@operation("POST", "/v1/circuits/{circuit}/cancel", tag="network", is_change=True)
async def cancel_circuit(call: Call, circuit: str) -> CircuitView:
    """Give its rate back. The time that was proven by then stays charged, and nothing else is."""
    name = named(circuit)
    call.note(circuit=name)
    ended: Circuit = await call.platform.ask(call.command(CancelCircuit, circuit=name))
    return CircuitView(circuit=ended)


@operation(
    "POST",
    "/v1/receipts",
    tag="network",
    is_change=True,
    errors=("not_admitted", "not_found"),
    example={
        "receipt": {
            "subject": "t-none",
            "seq": 1,
            "begun_ms": 1_763_000_000_000,
            "ended_ms": 1_763_000_060_000,
            "moved_bytes": 7_500_000_000,
        }
    },
)
async def take_receipt(call: Call, body: ReceiptBody) -> ReceiptView:
    """Say what was seen of a transfer or a circuit. Charges rest on receipts alone, and pass no booked price.

    From who runs the network, and from a site at one end of a transfer. The user of a transfer may say so of its own
    bytes; that counts as declared. A number that is not above the newest one changes nothing.
    """
    taken: ReceiptView = await call.platform.ask(call.command(TakeReceipt, receipt=body.receipt))
    call.note(booking=taken.subject)
    return taken


@operation("GET", "/v1/receipts/{subject}", tag="network")
async def list_receipts(call: Call, subject: str, query: ReceiptsQuery) -> ReceiptPage:
    """What was seen of one transfer or circuit, oldest first."""
    store, view = call.platform.store, call.platform.view
    name = named(subject)
    found: Transfer | Circuit | None = await call.platform.read(store.transfer, name)
    if found is None:
        found = await call.platform.read(store.circuit, name)
    is_its = isinstance(found, Transfer) and call.actor.has(Role.SITE) and call.actor.name in ends_of(view, found)
    if found is None or not (is_its or sees_booking(view, call.actor, found)):
        raise no_such("transfer or circuit", name)
    kept = await call.platform.read(store.receipts, found.id, after=query.after, limit=query.limit)
    return ReceiptPage(receipts=tuple(kept), next_after=kept[-1].seq if len(kept) == query.limit else 0)
