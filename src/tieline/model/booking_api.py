"""Bodies of the HTTP API of the calendar: what a caller sends and what comes back.

::

    transfers   POST /v1/transfers   GET /v1/transfers   GET ../{transfer}   POST ../{transfer}/cancel   POST /v1/nights
    circuits    POST /v1/circuits    GET /v1/circuits    GET ../{circuit}    POST ../{circuit}/resize, /cancel
    receipts    POST /v1/receipts    GET /v1/receipts/{subject}
    calendar    GET /v1/calendar     GET /v1/tariff      POST /v1/tariff
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.api import Body, View
from tieline.model.circuit import Circuit, CircuitOrder, Receipt
from tieline.model.reason import Reason
from tieline.model.spec import OptionalWord
from tieline.model.tariff import Tariff
from tieline.model.topology import Rate
from tieline.model.transfer import Transfer, TransferOrder

MOST_ORDERS = 1_000  # of a night
Orders = Annotated[tuple[TransferOrder, ...], msgspec.Meta(min_length=1, max_length=MOST_ORDERS)]
Why = Annotated[str, msgspec.Meta(max_length=400)]


class TransferBody(Body, frozen=True, kw_only=True):
    """An order for bytes. A dry run says what would be booked, and books nothing."""

    order: TransferOrder
    project: OptionalWord = ""
    is_dry_run: bool = False


class TransferView(View, frozen=True, kw_only=True):
    """A transfer as it is booked, and the others that were laid elsewhere for it, their promises kept."""

    transfer: Transfer
    moved: tuple[str, ...] = ()
    is_dry_run: bool = False


class TransferPage(View, frozen=True, kw_only=True):
    """Transfers, newest first; ``next_before`` is empty at the end."""

    transfers: tuple[Transfer, ...]
    next_before: str


class NightBody(Body, frozen=True, kw_only=True):
    """Many orders that are decided together. ``is_partial``: a part of each is of use."""

    orders: Orders
    is_partial: bool = False
    project: OptionalWord = ""
    is_dry_run: bool = False


class LeftOut(View, frozen=True, kw_only=True):
    """An order of a batch that was not booked: its place, from 0, and why."""

    place: int
    reasons: tuple[Reason, ...]


class NightView(View, frozen=True, kw_only=True):
    """What a batch became. No plan whatever carries more than ``bound_bytes`` of it in time."""

    transfers: tuple[Transfer, ...]
    left_out: tuple[LeftOut, ...]
    asked_bytes: int
    carried_bytes: int
    bound_bytes: int
    is_dry_run: bool = False


class CircuitBody(Body, frozen=True, kw_only=True):
    """An order for a circuit. A dry run says what would be booked, and books nothing."""

    order: CircuitOrder
    project: OptionalWord = ""
    is_dry_run: bool = False


class CircuitView(View, frozen=True, kw_only=True):
    """A circuit as it is booked; transfers that were laid elsewhere and circuits that hold less for it."""

    circuit: Circuit
    moved: tuple[str, ...] = ()
    shrunk: tuple[str, ...] = ()
    is_dry_run: bool = False


class CircuitPage(View, frozen=True, kw_only=True):
    """Circuits, newest first; ``next_before`` is empty at the end."""

    circuits: tuple[Circuit, ...]
    next_before: str


class ResizeBody(Body, frozen=True, kw_only=True):
    """The rate that a circuit has from now on."""

    rate_bps: Rate


class ReceiptBody(Body, frozen=True, kw_only=True):
    """What was seen."""

    receipt: Receipt


class ReceiptView(View, frozen=True, kw_only=True):
    """How its subject stands after a receipt. ``is_known``: it, or a newer one, was here before; nothing changed."""

    subject: str
    seq: int
    state: str
    moved_bytes: int
    charged_micro_cny: int
    is_known: bool


class ReceiptPage(View, frozen=True, kw_only=True):
    """Receipts of one subject, oldest first; ``next_after`` is 0 at the end."""

    receipts: tuple[Receipt, ...]
    next_after: int


class LinkBooked(View, frozen=True, kw_only=True):
    """One direction of a link, column by column, in bit/s."""

    link: str
    a: str  # from there
    b: str
    capacity_bps: tuple[int, ...]  # mean of the column; less where it is maintained
    circuit_bps: tuple[int, ...]  # held by circuits, mean
    transfer_bps: tuple[int, ...]  # held by transfers, mean
    free_bps: tuple[int, ...]  # the least in the column


class CalendarView(View, frozen=True, kw_only=True):
    """What is free and what is booked. A column is one slot, or several."""

    from_ms: int
    column_ms: int
    slot_ms: int
    links: tuple[LinkBooked, ...]


class TariffBody(Body, frozen=True, kw_only=True):
    """Prices for what is ordered from now on."""

    tariff: Tariff
    why: Why = ""
