"""Relaying: the streams of the relay, between a site that dials out and a caller that may reach it.

Nothing is kept of what passes: a message that was read from one end is handed to the other before the next is read, so
a slow end holds up a fast one, for a bounded time. Bytes are counted for the owner of the site and for the caller.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from tieline.api.answer import ThrottledError
from tieline.api.caller import caller_of, lives
from tieline.api.rates import Bucket
from tieline.drivers.http.hangup import hang_up
from tieline.model.error import CODES, TielineError
from tieline.model.party import Actor, Role
from tieline.model.relay import MESSAGE_BYTES, WAIT_MS, RelayedView, RelayPage

if TYPE_CHECKING:
    from aiohttp import web

    from tieline.api.platform import Platform

log = logging.getLogger("tieline.api")
PREFIX = "/v1/relay/"
STALL_S = 30.0  # an end that takes nothing for so long is gone
ALIVE_S = 20.0  # an end that answers no ping for half of that is gone too
DAY_MS = 86_400_000
EACH = 8  # one caller has at most one in so many streams of all, and as many as that
MESSAGE_COST_BYTES = 256  # what a message takes of the owner's rate besides its bytes: an empty one is work too
PARTIES = 100_000  # that are counted; more than sites and users of one exchange


@dataclass
class Stream:
    """One stream. An end is the site's or the caller's; each may come once."""

    name: str
    run: str
    site: str
    owner: str
    caller: str
    until_ms: int
    ends: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    met: asyncio.Event = field(default_factory=asyncio.Event)
    moved_bytes: int = 0
    token: str = ""  # that the caller came with: once it is revoked, nothing more passes
    why: str = ""  # it ended

    def end_of(self, actor: Actor) -> str:
        """Which end an actor is; empty: none. A delegated token is none: it opens no streams either."""
        if actor.scopes or actor.job or actor.project:
            return ""
        if actor.has(Role.SITE) and actor.name == self.site:
            return "site"
        return "caller" if actor.name == self.caller else ""


class Relay:
    """All streams of one exchange process."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.streams: dict[str, Stream] = {}
        self.moved: Counter[str] = Counter()  # party -> bytes
        self.today: Counter[str] = Counter()
        self.site_today: Counter[str] = Counter()
        self.is_closed = False
        self._day = 0
        self._buckets: dict[str, Bucket] = {}
        self._server: web.Server | None = None
        self._closing: set[asyncio.Task[None]] = set()

    # -- from operations ----------------------------------------------------------------------------------------------

    def check(self, owner: str, caller: str, site: str = "") -> None:
        """Raises ThrottledError where no more streams can be opened, by this caller neither, or where the day of the
        owner or of the site is used up. ``owner`` and ``site`` may be empty: not known yet."""
        self._forget()
        limits = self.platform.limits
        if len(self.streams) >= limits.relay_streams:
            raise ThrottledError("overloaded", f"{limits.relay_streams:,} streams are open at the relay", 10.0)
        most = max(EACH, limits.relay_streams // EACH)
        if sum(each.caller == caller for each in self.streams.values()) >= most:
            raise ThrottledError("overloaded", f"{most:,} streams of `{caller}` are open at the relay", 10.0)
        self._turn_day()
        for name, used, most in self._days(owner, site):
            if used >= most:
                left_s = (DAY_MS - self.platform.clock.now_ms() % DAY_MS) / 1000
                said = f"{used:,} bytes went through the relay for `{name}` today, of {most:,}"
                raise ThrottledError("rate_limited", said, left_s)

    def _days(self, owner: str, site: str) -> tuple[tuple[str, int, int], ...]:
        """Of an owner and one of its sites: the name, what was moved today, and the most."""
        limits = self.platform.limits
        return (
            (owner, self.today[owner], limits.relay_day_bytes),
            (site, self.site_today[site], limits.relay_site_day_bytes),
        )

    def open(self, run: str, site: str, owner: str, caller: str) -> Stream:
        """A stream that waits for both ends; see `check`."""
        made = Stream(
            name=secrets.token_hex(16),
            run=run,
            site=site,
            owner=owner,
            caller=caller,
            until_ms=self.platform.clock.now_ms() + WAIT_MS,
        )
        self.streams[made.name] = made
        asyncio.get_running_loop().call_later(WAIT_MS / 1000, self._give_up, made)
        return made

    def drop(self, stream: Stream, why: str) -> None:
        """Nobody will come."""
        self._end(stream, why)

    def page(self, actor: Actor) -> RelayPage:
        """What was carried for whom, as far as the caller may see it."""
        self._turn_day()
        sees_all = actor.has(Role.ADMIN, Role.AUDITOR)
        open_of = Counter(each.owner for each in self.streams.values())
        open_of.update(each.caller for each in self.streams.values())
        parties = tuple(
            RelayedView(party=name, streams=open_of[name], bytes=self.moved[name], today_bytes=self.today[name])
            for name in sorted({*self.moved, *open_of})
            if sees_all or name in (actor.name, actor.owner)
        )
        return RelayPage(
            streams=len(self.streams) if sees_all else sum(open_of[each.party] for each in parties),
            day_bytes=self.platform.limits.relay_day_bytes,
            parties=parties,
        )

    def close(self) -> None:
        """End every stream: the process ends."""
        self.is_closed = True
        for stream in list(self.streams.values()):
            self._end(stream, "the exchange is stopping")

    # -- WebSockets ---------------------------------------------------------------------------------------------------

    def connection(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that asked to become a WebSocket."""
        from aiohttp import web

        if self._server is None:
            self._server = web.Server(self._handle, access_log=None)
        if len(self._server.connections) >= 2 * self.platform.limits.relay_streams:
            return Refusing()
        return self._server()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        try:
            stream, end, token = await self._met(request)
        except TielineError as error:
            body = msgspec.json.encode(error.envelope)
            answer = web.Response(body=body, status=CODES[error.code].status, content_type="application/json")
            answer.force_close()  # what else comes over this connection is not for the relay
            return answer
        socket = web.WebSocketResponse(max_msg_size=2 * MESSAGE_BYTES, compress=False, heartbeat=ALIVE_S, timeout=2.0)
        stream.ends[end] = socket  # before anything is awaited: an end comes once
        if end == "caller":
            stream.token = token
        try:
            await socket.prepare(request)
            await self._serve(stream, end, socket)
        finally:
            self._end(stream, stream.why or f"the {end} went")
            await hang_up(socket)
        return socket

    async def _met(self, request: web.BaseRequest) -> tuple[Stream, str, str]:
        """The stream that is asked for, which end of it the caller is, and its token. Raises TielineError."""
        actor = await self._caller(request)
        stream = self.streams.get(request.path.removeprefix(PREFIX))
        end = stream.end_of(actor) if stream is not None else ""
        if stream is None or not end or self.is_closed:
            raise TielineError("not_found", "there is no such stream, or it is not yours")
        if end in stream.ends:
            raise TielineError("conflict", f"the {end}'s end of this stream was taken before")
        if request.headers.get("Sec-WebSocket-Version", "") != "13":
            raise TielineError("invalid_request", "this is a WebSocket of version 13 (RFC 6455)")
        return stream, end, actor.token

    async def _caller(self, request: web.BaseRequest) -> Actor:
        platform, via = self.platform, request.remote or ""
        given = request.headers.get("Authorization", "")
        try:
            actor = await caller_of(platform, given, via, platform.clock.now_ms())
        except TielineError:
            platform.rates.request(platform.rates.meter(f"address {via}", is_site=False))
            raise
        meter = platform.rates.meter(actor.token or actor.name, is_site=actor.has(Role.SITE))
        wait_s = platform.rates.request(meter)
        if wait_s > 0:
            raise ThrottledError("rate_limited", "too many requests", wait_s)
        return actor

    async def _serve(self, stream: Stream, end: str, socket: web.WebSocketResponse) -> None:
        """Hand on what this end says to the other, until one of them ends."""
        from aiohttp import WSMsgType

        if len(stream.ends) == 2:
            stream.met.set()
            log.info("relay", extra={"run": stream.run, "site": stream.site, "caller": stream.caller})
        await stream.met.wait()
        if stream.why:
            return
        other = stream.ends["caller" if end == "site" else "site"]
        try:
            async for message in socket:
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT) or stream.why:
                    break
                size = len(message.data)
                if size > MESSAGE_BYTES + 1:
                    self._end(stream, f"a message of {size:,} bytes is over {MESSAGE_BYTES:,}")
                    break
                await self._pay(stream, size)
                async with asyncio.timeout(STALL_S):
                    if message.type is WSMsgType.BINARY:
                        await other.send_bytes(message.data)
                    else:
                        await other.send_str(message.data)
        except TimeoutError:
            self._end(stream, f"the other end took nothing for {STALL_S:.0f} s")
        except (ConnectionError, TielineError) as error:
            self._end(stream, str(error) or "the other end went")

    async def _pay(self, stream: Stream, size: int) -> None:
        """Count, and wait as the owner's rate wants. Raises TielineError `rate_limited` where the day is used up,
        `unauthenticated` where the caller's token was revoked or has expired."""
        limits, owner = self.platform.limits, stream.owner
        if stream.token and not lives(self.platform.view, stream.token, self.platform.clock.now_ms()):
            raise TielineError("unauthenticated", f"token `{stream.token}` was revoked or has expired")
        self._turn_day()
        for name, used, most in self._days(owner, stream.site):
            if used + size > most:  # what is left is too little to go on with
                (self.today if name == owner else self.site_today)[name] = most
                raise TielineError("rate_limited", f"the {most:,} bytes of `{name}` for today are used up")
        stream.moved_bytes += size
        if stream.site in self.site_today or len(self.site_today) < PARTIES:
            self.site_today[stream.site] += size
        for party in {owner: None, stream.caller: None}:
            if party in self.moved or len(self.moved) < PARTIES:
                self.moved[party] += size
                self.today[party] += size
        self.platform.metrics.relayed.inc(size)
        now_s = self.platform.rates.clock()
        bucket = self._buckets.get(owner)
        if bucket is None:
            bucket = self._buckets[owner] = Bucket(limits.relay_bytes_per_s, limits.relay_bytes_per_s, now_s)
        wait_s = bucket.take(size + MESSAGE_COST_BYTES, now_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _end(self, stream: Stream, why: str) -> None:
        """Close both ends. The first cause is the one that counts."""
        if self.streams.pop(stream.name, None) is None:
            return
        stream.why = why
        stream.met.set()
        log.info("relay ended", extra={"run": stream.run, "size_bytes": stream.moved_bytes, "why": why})
        for socket in stream.ends.values():
            task = asyncio.get_running_loop().create_task(_closed(socket, why))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if not any(each.owner == stream.owner for each in self.streams.values()):
            self._buckets.pop(stream.owner, None)

    def _give_up(self, stream: Stream) -> None:
        if not stream.met.is_set():
            missing = [end for end in ("site", "caller") if end not in stream.ends]
            self._end(stream, f"the {' and the '.join(missing)} did not come in {WAIT_MS // 1000} s")

    def _forget(self) -> None:
        now_ms = self.platform.clock.now_ms()
        for stream in [each for each in self.streams.values() if not each.met.is_set() and each.until_ms < now_ms]:
            self._give_up(stream)

    def _turn_day(self) -> None:
        day = self.platform.clock.now_ms() // DAY_MS
        if day != self._day:
            self._day = day
            self.today.clear()
            self.site_today.clear()


class Refusing(asyncio.Protocol):
    """One connection too many, or one to a process without a relay."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so and hang up."""
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        transport.close()


async def _closed(socket: web.WebSocketResponse, why: str) -> None:
    if socket.prepared:
        await hang_up(socket, why)
