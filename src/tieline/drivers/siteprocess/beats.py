"""Beats: one signed vector of the whole site, every few seconds; what the exchange knows of its health is no older."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.patience import waited
from tieline.model.error import TielineError
from tieline.model.protocol import Beat, Beaten, PoolBeat, Signed
from tieline.ports import Clock
from tieline.registry import Key, sign_statement
from tieline.site import SiteState

log = logging.getLogger("tieline.site")
MOST_RUNS = 10_000
POST_S = 10.0
FIRST_S = 1.0  # the first beat waits so long for the records that it speaks of


class Beats:
    """``beaten`` is called with each answer; ``renew`` when the session is not valid any more."""

    def __init__(
        self,
        client: HttpClient,
        key: Key,
        kid: str,
        clock: Clock,
        is_open: asyncio.Event,
        said: asyncio.Event,
        *,
        state: Callable[[], SiteState],
        beaten: Callable[[Beaten], None],
        renew: Callable[[], None],
    ) -> None:
        self.client = client
        self.key = key
        self.kid = kid
        self.clock = clock
        self.is_open = is_open
        self.said = said
        self.state = state
        self.beaten = beaten
        self.renew = renew
        self.every_ms = 3_000
        self._seq = 0
        self._jump = 1
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Something changed that is worth a beat."""
        self._soon.set()

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await self.is_open.wait()
            await waited(self.said, FIRST_S)
            self._soon.clear()
            await self.beat()
            await waited(self._soon, self.every_ms / 1000)

    async def beat(self) -> None:
        """Send one; a missed one is made up for by the next."""
        now_ms = self.clock.now_ms()
        self._seq = max(self._seq + self._jump, now_ms)  # grows over restarts too, as clocks do
        beat = beat_of(self.state(), self._seq, now_ms)
        statement = sign_statement(beat, self.key, self.kid, "site-beat").decode()
        try:
            beaten = await self.client.call(
                "POST", "/v1/site/heartbeat", Beaten, body=Signed(statement=statement), key=None, total_s=POST_S
            )
        except TielineError as error:
            log.warning("a heartbeat was not taken", extra={"code": error.code, "why": error.message})
            if error.code in ("unauthenticated", "forbidden"):
                self.renew()
            elif error.code == "conflict":  # our clock was set back: catch up with what was said before
                self._jump = min(self._jump * 1_000, 2**40)
            return
        self._jump = 1
        self.beaten(beaten)


def beat_of(state: SiteState, seq: int, now_ms: int) -> Beat:
    """What the site makes available, and every run that it holds."""
    is_open = not state.is_draining
    pools = tuple(
        PoolBeat(
            pool=pool.id,
            accelerators=len(pool.devices) if is_open else 0,
            cores=pool.core_count if is_open else 0,
            memory_bytes=pool.memory_bytes if is_open else 0,
        )
        for pool in state.pools.values()
    )
    return Beat(
        site=state.site,
        seq=seq,
        at_ms=now_ms,
        pools=pools,
        runs=tuple(state.runs)[:MOST_RUNS],
        load_millionths=min(2**31, int(os.getloadavg()[0] * 1_000_000 / (os.cpu_count() or 1))),
        health="ok" if is_open else "draining",
    )
