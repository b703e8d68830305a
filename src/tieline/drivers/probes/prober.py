"""Prober: one probe of a plan done, as readings. What cannot be measured is a reading without samples, not an error;
what is not sent at all, since it makes no sense or may not go there, is no reading."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from urllib.parse import urlsplit

from msgspec import structs

from tieline.drivers.doors.clockerror import clock_error_us
from tieline.drivers.doors.through import relayed_door
from tieline.drivers.doors.visitor import Visitor
from tieline.drivers.http import HttpClient
from tieline.drivers.probes import tcp, udp
from tieline.drivers.probes.addresses import Addresses, CheckedClient
from tieline.drivers.probes.samples import Sample, reading_of
from tieline.drivers.probes.udp import Asked
from tieline.model.door import RateSeen, door_url
from tieline.model.error import TielineError
from tieline.model.reading import Method, Probe, Reading
from tieline.ports import Clock
from tieline.registry import Key

log = logging.getLogger("tieline.site")
SESSION_BYTES = 4_096  # about what opening a session costs, both directions
UNSAID_BYTES = {Method.RATE: 1_000_000, Method.MTU: 64_000}  # of a probe that states no bound
# what a site does for whoever asks: an exchange that means well stays far below it, and another cannot aim sites
MOST_COUNT = 64
MOST_BYTES = {Method.UDP: 65_536, Method.TCP: 65_536, Method.RELAY: 16_384, Method.MTU: 500_000, Method.RATE: 4_000_000}
DEADLINE_S = 90.0  # of one probe: a door that states a rate of nothing holds nobody up
POINT_METHODS = (Method.TCP,)  # what a reference point, which knows no passes, can be asked


class Prober:
    """``source`` is the site that measures, ``key`` its key; ``kid`` the name of that key.

    ``addresses``: where its probes may go; ``exchange``: whose relay leads to sites without a door.
    """

    def __init__(
        self,
        source: str,
        key: Key,
        kid: str,
        clock: Clock,
        addresses: Addresses | None = None,
        exchange: HttpClient | None = None,
    ) -> None:
        self.source = source
        self.key = key
        self.kid = kid
        self.clock = clock
        self.addresses = addresses or Addresses()
        self.exchange = exchange

    async def measure(self, probe: Probe) -> Reading:
        """What came of ``probe``. Raises TielineError for one that makes no sense, and `address_refused`."""
        if not probe.door_pass and probe.method not in POINT_METHODS:
            raise TielineError("invalid_request", f"`{probe.method}` needs a pass for the door of `{probe.target}`")
        begun_ms, probe = self.clock.now_ms(), bounded(probe)
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._measured(probe, begun_ms)
        except (TielineError, OSError, ValueError) as error:
            if isinstance(error, TielineError) and error.code == "address_refused":
                raise
            log.warning("a probe failed", extra={"site": probe.target, "why": str(error), "code": probe.method.value})
            return self._trips(probe, Asked([], probe.count, SESSION_BYTES), begun_ms, None)

    async def _measured(self, probe: Probe, begun_ms: int) -> Reading:
        if not probe.door_pass:
            name, _, port = probe.address.rpartition(":")
            host = await self._reached(name.strip("[]"))
            return self._trips(probe, await tcp.handshakes(host, int(port), probe.count, probe.gap_ms), begun_ms, None)
        if probe.method is Method.RELAY:
            return await self._relayed(probe, begun_ms)
        url = urlsplit(door_url(probe.address))
        if not url.hostname:
            raise TielineError("invalid_request", f"`{probe.address[:200]}` is no URL of a door")
        host = await self._reached(url.hostname)
        shown = f"[{host}]" if ":" in host else host
        # Over HTTP the address that was looked at is called, whatever the name leads to next; TLS proves the name.
        where = f"http://{shown}:{url.port or 80}{url.path}" if url.scheme == "http" else probe.address
        client = CheckedClient(where, self.addresses)
        visitor = Visitor(where, probe.door_pass, probe.public, self.key, self.kid, self.clock, client)
        try:
            return await self._visit(visitor, probe, host, begun_ms)
        finally:
            await visitor.close()

    async def _relayed(self, probe: Probe, begun_ms: int) -> Reading:
        """Echoes through the relay: to the exchange, to the site, and back. An upper bound of the way between sites."""
        if self.exchange is None:
            raise TielineError("invalid_request", f"there is no relay to `{probe.target}`")
        from aiohttp import UnixConnector

        async with relayed_door(self.exchange, probe.target, probe.door_pass) as client:
            visitor = Visitor("", probe.door_pass, probe.public, self.key, self.kid, self.clock, client)
            echoes = await visitor.echoes()
            left = max(1, probe.most_bytes - 2 * SESSION_BYTES)
            asked = await tcp.echo_often(
                visitor, echoes, probe.count, probe.gap_ms, probe.packet_bytes, left, UnixConnector(client.where)
            )
        asked = asked._replace(moved_bytes=asked.moved_bytes + 2 * SESSION_BYTES)
        return self._trips(probe, asked, begun_ms, None)

    async def _reached(self, host: str) -> str:
        """The address of ``host``. Raises TielineError `address_refused` where no plan may lead us."""
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        address = ipaddress.ip_address(str(found[0][4][0]).partition("%")[0])
        self.addresses.check(host, address)
        return str(address)

    async def _visit(self, visitor: Visitor, probe: Probe, host: str, begun_ms: int) -> Reading:
        echoes = await visitor.echoes()  # first of all: whoever is no door proves nothing, and is sent no more
        left = max(1, probe.most_bytes - SESSION_BYTES)
        if probe.method is Method.RATE:
            return self._rate(probe, await tcp.upload(visitor, left, probe.rate_bps), begun_ms)
        door_us, own_us = echoes.said.clock_error_us, clock_error_us()
        error_us = door_us + own_us if door_us is not None and own_us is not None else None
        if probe.method is Method.TCP:
            connector = self.addresses.connector()
            asked = await tcp.echo_often(
                visitor, echoes, probe.count, probe.gap_ms, probe.packet_bytes, left, connector
            )
            return self._trips(probe, asked, begun_ms, error_us)
        async with udp.caller(host, echoes) as caller:
            if probe.method is Method.MTU:
                mtu_bytes, sent = await udp.path_mtu(caller, left)
                return self._mtu(probe, mtu_bytes, sent, caller.moved_bytes, begun_ms)
            asked = await udp.ask_often(caller, probe.count, probe.gap_ms, probe.packet_bytes, left)
        return self._trips(probe, asked, begun_ms, error_us)

    def _trips(self, probe: Probe, asked: Asked, begun_ms: int, error_us: int | None) -> Reading:
        samples: list[Sample] = asked.samples
        return reading_of(
            self.source,
            probe,
            samples,
            sent=asked.sent,
            begun_ms=begun_ms,
            ended_ms=self.clock.now_ms(),
            moved_bytes=asked.moved_bytes,
            clock_error_us=error_us,
        )

    def _rate(self, probe: Probe, seen: RateSeen, begun_ms: int) -> Reading:
        """What arrived after slow start; all of it where that part is too short to tell."""
        size, took_us = (seen.counted_bytes, seen.counted_us) if seen.counted_us > 0 else (0, 0)
        if not size or not took_us:
            size, took_us = seen.moved_bytes, max(1, seen.took_us)
        return Reading(
            source=self.source,
            target=probe.target,
            method=Method.RATE,
            count=1,
            sent=1,
            rate_bps=min(10**15, size * 8_000_000 // took_us),
            moved_bytes=seen.moved_bytes,
            begun_ms=begun_ms,
            ended_ms=self.clock.now_ms(),
        )

    def _mtu(self, probe: Probe, mtu_bytes: int, sent: int, moved_bytes: int, begun_ms: int) -> Reading:
        return Reading(
            source=self.source,
            target=probe.target,
            method=Method.MTU,
            count=1 if mtu_bytes else 0,
            sent=sent,
            path_mtu_bytes=mtu_bytes,
            moved_bytes=moved_bytes,
            begun_ms=begun_ms,
            ended_ms=self.clock.now_ms(),
        )


def bounded(probe: Probe) -> Probe:
    """The same probe, within what a site does for anybody."""
    most_bytes = MOST_BYTES.get(probe.method, 0)
    asked_bytes = probe.most_bytes or UNSAID_BYTES.get(probe.method, most_bytes)
    return structs.replace(probe, count=min(probe.count, MOST_COUNT), most_bytes=min(asked_bytes, most_bytes))
