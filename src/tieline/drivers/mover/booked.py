"""Booked: a move that obeys the calendar, and says what it carried.

Every path of the booking is a lane. While bytes move, a receipt goes to the exchange once in a while, and the booking
is looked at again: one that was laid elsewhere moves at its new rates, one that was cancelled ends the move. The last
receipt, with the hash of the whole, comes after everything was verified.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from tieline.drivers.mover.ends import Source, Target
from tieline.drivers.mover.moving import Moved, Terms, move
from tieline.drivers.mover.pacing import Lane, lanes_of, relaid, steady_clock
from tieline.drivers.mover.progress import Progress
from tieline.model.circuit import Receipt
from tieline.model.error import TielineError
from tieline.model.transfer import TRANSFER_ENDED, Transfer

log = logging.getLogger("tieline.mover")
REPORT_S = 10.0
SEND_TRIES = 6
RETRY_S = 1.0


@dataclass
class Booking:
    """How a booking is looked at, and where receipts go. Both raise TielineError."""

    look: Callable[[], Awaitable[Transfer]]
    send: Callable[[Receipt], Awaitable[object]]
    addresses: Sequence[str] = ()  # of this machine, one for each path in order of first use
    marks: Sequence[int] = ()
    goes_on: bool = False  # what is late goes on at the last rate; otherwise the move ends
    known: Transfer | None = None  # as it was looked at just now
    is_whole: bool = False  # what is moved is all that was booked: the last receipt makes up for ones that were lost
    is_shared: bool = (
        False  # others bring the same to the same place, and say so themselves: theirs is not counted here
    )
    _seq: int = 0
    _sent_bytes: int = 0
    _since_ms: int = 0
    _pending: Receipt | None = None
    _now_s: Callable[[], float] = field(default_factory=lambda: steady_clock())

    async def carry(
        self, source: Source, target: Target, terms: Terms, told: Callable[[Progress], None] = lambda _: None
    ) -> Moved:
        """Move everything at the booked rates. Raises TielineError as `move`; `conflict` once it is cancelled."""
        first = self.known or await self.look()
        if first.state in TRANSFER_ENDED:
            raise TielineError("conflict", f"the transfer `{first.id}` is {first.state}")
        lanes = lanes_of(first.segments, self.addresses, self.marks, goes_on=self.goes_on)
        most = min(terms.limit_bytes or first.order.size_bytes, first.order.size_bytes)
        bounded = replace(terms, limit_bytes=most, booking=first.id)
        self._seq, self._since_ms = first.seq, self._now_ms()
        newest: list[Progress] = []

        def hear(progress: Progress) -> None:
            newest[:] = [progress]
            told(progress)

        moving = asyncio.create_task(move(source, target, bounded, lanes, hear))
        watching = asyncio.create_task(self._watch(first, lanes, newest))
        try:
            await asyncio.wait({moving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not moving.done():
                watching.result()  # raises: the booking is no more
            moved = await moving
        finally:
            for task in (moving, watching):
                task.cancel()
            await asyncio.gather(moving, watching, return_exceptions=True)
            if newest and _leaves_something(moving):
                with contextlib.suppress(TielineError):
                    await self._report(first, newest[0].kept_bytes, lanes)
        total = moved.moved_bytes
        if self.is_whole:  # a try that was killed had no time to say what it brought
            brought = target.own_bytes + total if self.is_shared else moved.size_bytes
            total = max(total, brought - first.moved_bytes)
        await self._report(first, total, lanes, moved)
        return moved

    async def _watch(self, first: Transfer, lanes: Sequence[Lane], newest: Sequence[Progress]) -> None:
        """Report and look again, for as long as bytes move. Ends by raising."""
        segments = first.segments
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                if newest and newest[0].kept_bytes + newest[0].resumed_bytes < newest[0].size_bytes:
                    await self._report(first, newest[0].kept_bytes, lanes)
                now = await self.look()
            except TielineError as error:
                if error.code == "not_found":
                    raise TielineError("conflict", f"the transfer `{first.id}` is booked no more") from None
                log.warning("the booking cannot be looked at", extra={"transfer": first.id, "code": error.code})
                continue
            if now.state in TRANSFER_ENDED:
                raise TielineError("conflict", f"the transfer `{first.id}` is {now.state}")
            if now.segments != segments:
                segments = now.segments
                left_out = relaid(lanes, segments, goes_on=self.goes_on)
                log.info("the booking was laid anew", extra={"transfer": first.id, "paths_left_out": left_out})

    async def _report(
        self, first: Transfer, upto_bytes: int, lanes: Sequence[Lane], moved: Moved | None = None
    ) -> None:
        """Send what moved since the last receipt. The last one is sent again until it is taken or refused."""
        tries = SEND_TRIES if moved is not None else 1
        await self._deliver(tries)
        fresh, now_ms = upto_bytes - self._sent_bytes, self._now_ms()
        if fresh <= 0 and moved is None:
            return
        past_ms = max(1, now_ms - self._since_ms)
        self._pending = Receipt(
            subject=first.id,
            seq=self._seq + 1,
            begun_ms=self._since_ms,
            ended_ms=now_ms,
            moved_bytes=max(0, fresh),
            path=lanes[0].path if len(lanes) == 1 else (),
            goodput_bps=max(0, fresh) * 8_000 // past_ms,
            sha256="" if moved is None else moved.sha256,
        )
        self._seq, self._sent_bytes, self._since_ms = self._seq + 1, upto_bytes, now_ms
        await self._deliver(tries)

    async def _deliver(self, tries: int) -> None:
        """Send the receipt that waits, as it is: one whose answer was lost may have been taken, and counts once."""
        while self._pending is not None:
            tries -= 1
            try:
                await self.send(self._pending)
            except TielineError as error:
                if not error.transient:
                    self._pending = None
                    raise
                if tries <= 0:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                self._pending = None

    def _now_ms(self) -> int:
        return int(self._now_s() * 1_000)


def _leaves_something(moving: asyncio.Task[Moved]) -> bool:
    """Whether a move that did not end well left chunks for a later try; what was wrong as a whole is gone."""
    if moving.cancelled():
        return True
    error = moving.exception()
    return error is not None and not (isinstance(error, TielineError) and error.code == "check_failed")
