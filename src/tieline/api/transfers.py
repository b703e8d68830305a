"""Transfers: bytes that have to be there in time, and a batch of them for the night."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.api.call import OPTIONAL_NAME, Call, named
from tieline.api.operation import Follow, operation
from tieline.exchange.bookings import (
    BookNight,
    CancelTransfer,
    LookAtCalendar,
    OrderTransfer,
    refused,
    sees_booking,
    shown,
)
from tieline.exchange.permission import no_such
from tieline.exchange.receipts import ends_of
from tieline.model.booking_api import NightBody, NightView, TransferBody, TransferPage, TransferView
from tieline.model.error import TielineError
from tieline.model.party import Role
from tieline.model.reason import Reason
from tieline.model.transfer import Transfer, TransferState

STATES = "|".join(state.value for state in TransferState)
TRANSFER_FOLLOWS = tuple(
    Follow(operation=name, parameter="transfer", pointer="/transfer/id")
    for name in ("read_transfer", "cancel_transfer")
)
EXAMPLE = {"source": "east", "target": "west", "size_bytes": 1_000_000_000_000, "deadline_ms": 1_763_100_000_000}


class TransfersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which transfers."""

    state: Annotated[str, msgspec.Meta(pattern=rf"\A({STATES})?\Z", description="only those in this state")] = ""
    user: Annotated[
        str, msgspec.Meta(max_length=200, description="of this user; others' are for who runs or audits the network")
    ] = ""
    before: Annotated[str, msgspec.Meta(pattern=OPTIONAL_NAME, description="go on before this one (`next_before`)")] = (
        ""
    )
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


@operation(
    "POST",
    "/v1/transfers",
    tag="network",
    status=201,
    is_change=True,
    errors=("not_admitted", "not_found", "overloaded"),
    follows=TRANSFER_FOLLOWS,
    example={"order": EXAMPLE},
)
async def order_transfer(call: Call, body: TransferBody) -> TransferView:
    """Book room for bytes between two sites or nodes, to be there by a deadline; without one, as best effort.

    Admitted whole or refused with the bound that stands in its way. What was admitted before may be laid elsewhere for
    it and keeps its promise and its price. With `is_dry_run` nothing is booked.
    """
    command = call.command(OrderTransfer, order=body.order, project=body.project, is_dry_run=body.is_dry_run)
    made: TransferView = await call.platform.ask(command)
    call.note(transfer=made.transfer.id)
    return made


@operation("GET", "/v1/transfers", tag="network")
async def list_transfers(call: Call, query: TransfersQuery) -> TransferPage:
    """Transfers, newest first.

    The caller's own; for who runs or audits the network, everybody's; for a site, the live ones that begin or end
    there.
    """
    actor, view = call.actor, call.platform.view
    if actor.has(Role.SITE):
        live = sorted(view.network.transfers.copy().values(), key=lambda each: each.id, reverse=True)
        mine = [each for each in live if actor.name in ends_of(view, each) and query.state in ("", each.state.value)]
        found = [each for each in mine if not query.before or each.id < query.before][: query.limit]
    else:
        user = query.user if actor.has(Role.ADMIN, Role.OPERATOR, Role.AUDITOR) else actor.name
        if query.user not in ("", user):
            return TransferPage(transfers=(), next_before="")
        states = (query.state,) if query.state else ()
        read = call.platform.store.transfers
        found = await call.platform.read(read, user=user, states=states, before=query.before, limit=query.limit)
    after = found[-1].id if len(found) == query.limit else ""
    seen = tuple(shown(view, each) for each in found if actor.has(Role.SITE) or sees_booking(view, actor, each))
    return TransferPage(transfers=seen, next_before=after)


@operation("GET", "/v1/transfers/{transfer}", tag="network")
async def read_transfer(call: Call, transfer: str) -> TransferView:
    """One transfer: where and when it moves, what arrived, what it costs, and what is short."""
    name, view = named(transfer), call.platform.view
    found = await call.platform.read(call.platform.store.transfer, name)
    if found is None or not (
        sees_booking(view, call.actor, found) or (call.actor.has(Role.SITE) and call.actor.name in ends_of(view, found))
    ):
        raise no_such("transfer", name)
    return TransferView(transfer=shown(view, found))


@operation("POST", "/v1/transfers/{transfer}/cancel", tag="network", is_change=True)
async def cancel_transfer(call: Call, transfer: str) -> TransferView:
    """Give its room back. What arrived by then stays charged, and nothing else is."""
    name = named(transfer)
    call.note(transfer=name)
    ended: Transfer = await call.platform.ask(call.command(CancelTransfer, transfer=name))
    return TransferView(transfer=ended)


@operation(
    "POST",
    "/v1/nights",
    tag="network",
    status=201,
    is_change=True,
    errors=("not_admitted", "not_found", "overloaded"),
    example={"orders": [EXAMPLE], "is_dry_run": True},
)
async def book_night(call: Call, body: NightBody) -> NightView:
    """Decide many orders together, which carries more than one after the other; all of them need a deadline.

    The answer says which were booked, why the others were not, and the most that any plan could have carried. With
    `is_partial` each order may be carried in part.
    """
    from tieline.network.night import MOST_COLUMNS, planned_segments, size_of

    platform = call.platform
    for place, order in enumerate(body.orders):
        if not order.deadline_ms:
            raise TielineError("invalid_request", f"order {place + 1} has no deadline", where="orders")
    calendar = await platform.ask(LookAtCalendar(actor=call.actor))
    now_ms = platform.clock.now_ms()
    size = size_of(calendar, body.orders, now_ms)
    if size > MOST_COLUMNS:
        raise refused((Reason(code="night_large", values={"columns": size, "most": MOST_COLUMNS}),))
    plan = await platform.read(planned_segments, calendar, body.orders, now_ms, is_partial=body.is_partial)
    command = call.command(
        BookNight,
        orders=body.orders,
        planned=plan.segments,
        bound_bytes=plan.bound_bytes,
        project=body.project,
        is_dry_run=body.is_dry_run,
    )
    night: NightView = await platform.ask(command)
    return night
