"""Outbox: reports wait here until their outcome came. One batch is on its way at a time; the rest is the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tieline.drivers.http import HttpClient
from tieline.drivers.http.backoff import Backoff
from tieline.model.error import TielineError
from tieline.model.protocol import Batch, Ended, Outcome, Outcomes, Quoted, Refused, Reports

log = logging.getLogger("tieline.site")
BATCH = 256
MOST = 10_000  # above it answers that can be given up are given up, oldest first
POST_S = 30.0
LOST_SESSION = ("unauthenticated", "forbidden")


class Outbox:
    """``answered`` is called with every report and its outcome; ``renew`` when the session is not valid any more."""

    def __init__(
        self, client: HttpClient, answered: Callable[[Reports, Outcome], None], renew: Callable[[], None]
    ) -> None:
        self.client = client
        self.answered = answered
        self.renew = renew
        self.is_open = asyncio.Event()  # while there is a session
        self._waiting: dict[tuple[type, str], Reports] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, report: Reports) -> None:
        """Send it soon. The same report again changes nothing; a newer one of its kind takes its place."""
        self._waiting[_key(report)] = report
        if len(self._waiting) > MOST:
            spare = next((key for key in self._waiting if key[0] in (Quoted, Refused)), None)
            if spare is not None:
                del self._waiting[spare]
        self._wake.set()

    def withdraw(self, run: str) -> None:
        """Take back what waits for a run, its terminal report excepted."""
        for key in [key for key in self._waiting if key[1] == run and key[0] not in (Ended, Quoted)]:
            del self._waiting[key]

    async def run(self) -> None:
        """Send for ever."""
        backoff = Backoff(first_s=0.1, most_s=5.0)
        while True:
            await self._wake.wait()
            await self.is_open.wait()
            await asyncio.sleep(0)  # whatever else happens in this round of the loop goes along
            if not self._waiting:
                self._wake.clear()
                continue
            batch = list(self._waiting.values())[:BATCH]
            if await self._sent(batch):
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next_s())

    async def _sent(self, batch: list[Reports]) -> bool:
        try:
            reply = await self.client.call(
                "POST", "/v1/site/reports", Outcomes, body=Batch(reports=tuple(batch)), key=None, total_s=POST_S
            )
        except TielineError as error:
            log.warning("reports wait", extra={"count": len(self._waiting), "code": error.code, "why": error.message})
            if error.code in LOST_SESSION:
                self.is_open.clear()
                self.renew()
            elif not error.transient and len(batch) > 1:
                return all([await self._sent([report]) for report in batch])  # one of them is the trouble
            elif not error.transient:
                self._refused(batch[0], error)
                return True
            return False
        if len(reply.outcomes) != len(batch):
            log.error("the exchange answered another number of reports", extra={"count": len(reply.outcomes)})
            return False
        for report, outcome in zip(batch, reply.outcomes, strict=True):
            self._settle(report, outcome)
        return True

    def _refused(self, report: Reports, error: TielineError) -> None:
        """A report that the exchange cannot even read will not get better by being repeated."""
        log.error(
            "a report was refused for good", extra={"run": _key(report)[1], "code": error.code, "why": error.message}
        )
        self._settle(report, Outcome(is_ok=False, what=error.code))

    def _settle(self, report: Reports, outcome: Outcome) -> None:
        key = _key(report)
        if self._waiting.get(key) is report:
            del self._waiting[key]
        self.answered(report, outcome)


def _key(report: Reports) -> tuple[type, str]:
    return type(report), report.quote if isinstance(report, Quoted) else report.run
