"""Delivery: the bytes of a job at the times and rates that the calendar booked for them.

Whoever booked a transfer *for a job* (`TransferOrder.job`) that ends at this site has its bytes moved so, and the site
says in receipts what arrived. A booking never keeps a job from starting: where it is over, too small, or cannot be
looked at, the bytes come as everything else does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tieline.drivers.http import HttpClient
from tieline.drivers.mover import Progress, Source, Target, Terms
from tieline.drivers.mover.booked import Booking
from tieline.model.booking_api import ReceiptBody, ReceiptView, TransferPage, TransferView
from tieline.model.circuit import Receipt
from tieline.model.error import TielineError
from tieline.model.transfer import TRANSFER_ENDED, Transfer

log = logging.getLogger("tieline.site")
LEAST_BYTES = 2**20  # less is not worth a look into the calendar
MOST_SHOWN = 1_000
MOST_WAIT_S = 1_800  # a job that is about to start waits no longer for its bytes


async def delivered(client: HttpClient, job: str, source: Source, target: Target, terms: Terms) -> bool:
    """Move the bytes as they were booked; whether they were. Raises TielineError as `move`, but for what is booked."""
    about = await source.about()
    if about.size_bytes < LEAST_BYTES:
        return False
    try:
        booked = await _booked(client, job, about.size_bytes)
    except TielineError as error:
        log.warning("the calendar cannot be looked at", extra={"job": job, "code": error.code})
        return False
    return booked is not None and await carried(client, booked, source, target, terms, is_whole=False)


async def carried(
    client: HttpClient,
    booked: Transfer,
    source: Source,
    target: Target,
    terms: Terms,
    told: Callable[[Progress], None] = lambda _: None,
    *,
    is_whole: bool = True,
) -> bool:
    """Move the bytes as ``booked`` says and give the receipts; False where it cannot be kept. Raises as `move`.

    ``is_whole``: they are all that was booked, and what is late goes on at the last rate that was.
    """

    async def look() -> Transfer:
        return (await client.call("GET", f"/v1/transfers/{booked.id}", TransferView)).transfer

    async def send(receipt: Receipt) -> None:
        await client.call("POST", "/v1/receipts", ReceiptView, body=ReceiptBody(receipt=receipt))

    try:
        known = await look()
    except TielineError as error:
        log.warning("a booking cannot be looked at", extra={"transfer": booked.id, "code": error.code})
        return False
    booking = Booking(look=look, send=send, known=known, is_whole=is_whole, goes_on=is_whole, is_shared=True)
    try:
        await booking.carry(source, target, terms, told)
    except TielineError as error:
        if error.code != "conflict":
            raise
        log.warning(
            "a booking was not kept", extra={"transfer": booked.id, "job": booked.order.job, "why": error.message}
        )
        return False
    return True


async def _booked(client: HttpClient, job: str, size_bytes: int) -> Transfer | None:
    """The live transfer that brings these bytes to this job here; None where there is none with enough room."""
    page = await client.call("GET", "/v1/transfers", TransferPage, params={"limit": MOST_SHOWN})
    latest_ms = (time.time() + MOST_WAIT_S) * 1_000
    for each in page.transfers:
        room = each.order.size_bytes - each.moved_bytes
        # What was booked with a run is for a dataset that comes from another site, not for what the task brings along.
        is_live = each.state not in TRANSFER_ENDED and bool(each.segments) and not each.run
        if each.order.job == job and is_live and room >= size_bytes and each.segments[-1].until_ms <= latest_ms:
            return each
    return None
