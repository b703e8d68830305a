"""Available: what owners make available now, asked of the leader by a process that answers `find`.

Heartbeats are last values: they are in no log. The leader is asked at most once a second, and only while somebody
searches; when it does not answer in time, the answer rests on what it said last, and on the bookings of the log.

::

    find -> refresh: GET /siblings/available (a sibling only) -> taken into the trail's view -> the index looks again
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from tieline.exchange.view import View
from tieline.model.protocol import PoolBeat
from tieline.place import Amount

if TYPE_CHECKING:
    from tieline.api.following.trail import Trail

PATH = "/siblings/available"
FRESH_S = 1.0  # what was heard so shortly before a question is as good as asked
BUDGET_S = 0.5  # a question waits so long for it
log = logging.getLogger("tieline.following")


class SiteAvailable(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What is available at one site; booked parts included."""

    site: str
    pools: tuple[PoolBeat, ...]


_decode = msgspec.json.Decoder(tuple[SiteAvailable, ...]).decode


def available_at(view: View) -> bytes:
    """What every site of ours that is heard makes available, as JSON."""
    return msgspec.json.encode([_site(view, site) for site in list(view.heard_ms)])


def _site(view: View, site: str) -> SiteAvailable:
    pools = view.supply.pools
    beats: list[PoolBeat] = []
    for row in pools.site_pools(site):
        free, held = pools.free(row.id), pools.held(row.id)
        total = Amount(*(one + other for one, other in zip(free, held, strict=True)))
        beats.append(
            PoolBeat(pool=row.id, accelerators=total.accelerators, cores=total.cores, memory_bytes=total.memory_bytes)
        )
    return SiteAvailable(site=site, pools=tuple(beats))


def take(view: View, sites: Iterable[SiteAvailable]) -> None:
    """Let it take effect, as heartbeats do in the leader."""
    for site in sites:
        for beat in site.pools:
            view.supply.limit(site.site, beat)


class Available:
    """Keeps what is available fresh while it is asked for. Lives on the loop."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[bytes]],
        trail: Trail,
        heard: Callable[[str], None],
        *,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ask(path)`` asks the leader; ``heard(site)`` says that something of a site may have changed."""
        self._ask, self._trail, self._heard, self._timer = ask, trail, heard, timer
        self._asked_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Wait for news, for a bounded time. Never raises: what is known goes on to count."""
        if self._asking is None or self._asking.done():
            if self._timer() - self._asked_s < FRESH_S:
                return
            self._asked_s = self._timer()
            self._asking = asyncio.create_task(self._once())
        await asyncio.wait((self._asking,), timeout=BUDGET_S)

    async def _once(self) -> None:
        try:
            sites = _decode(await self._ask(PATH))
            await asyncio.to_thread(self._trail.change, lambda view: take(view, sites))
        except Exception as error:  # noqa: BLE001 - an answer with less is better than none
            log.debug("the leader did not say what is available: %r", error)
            return
        for site in sites:
            self._heard(site.site)

    def close(self) -> None:
        """End."""
        if self._asking is not None:
            self._asking.cancel()
