"""Transfers: ordered, cancelled, and what becomes of all bookings when the network changes."""

from __future__ import annotations

import msgspec

from tieline.exchange.view import View
from tieline.model.circuit import Circuit
from tieline.model.event import CircuitChanged, Events, TransferChanged
from tieline.model.topology import Topology
from tieline.model.transfer import Transfer, TransferState

replace = msgspec.structs.replace


def healed_events(view: View, now_ms: int, standing: Topology | None = None) -> list[Events]:
    """What becomes of the bookings over another state of the network; circuits first, nothing for who keeps his own.

    ``standing`` is the state that follows from the events of the same decision (links that are down have no capacity);
    None: the one of the view. Its own event comes before these.
    """
    network = view.network
    if not network.transfers and not network.circuits:
        return []
    calendar = network.calendar_at(now_ms)
    if calendar is None:
        return []
    from tieline.network.heal import healed

    if standing is not None:
        calendar = calendar.copied()
        calendar.rewire(standing)
    found = healed(calendar, now_ms)
    events: list[Events] = [
        CircuitChanged(circuit=each, why=_why(each))
        for each in found.circuits
        if replace(each, changed_ms=0) != replace(network.circuits[each.id], changed_ms=0)
    ]
    events.extend(TransferChanged(transfer=each, why=_why(each)) for each in found.transfers)
    return events


def _why(booked: Transfer | Circuit) -> str:
    """The first reason of a change, or what it is plainly."""
    if booked.reasons and (isinstance(booked, Circuit) or booked.state is TransferState.SHORT):
        return booked.reasons[0].code
    return "laid elsewhere"
