"""Door: one HTTP server and one UDP socket on the same port, open while the owner says so.

It answers nothing but what `tieline.model.door` lists, to holders of passes, and is bounded in connections, sessions,
bytes a second and bytes on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from tieline.drivers.doors.chunks import PIECE_BYTES, Chunks
from tieline.drivers.doors.clockerror import clock_error_us
from tieline.drivers.doors.echo import Responder, Session, Sessions, stamped
from tieline.drivers.doors.guard import Guard
from tieline.drivers.doors.link import MESSAGE_BYTES
from tieline.drivers.doors.pace import Pace
from tieline.drivers.doors.packet import MOST_BYTES
from tieline.model.door import CHUNK_BYTES, LINK, SESSION, ChunkKept, EchoSession, Knock, Linked, Pass, RateSeen, Right
from tieline.model.error import CODES, TielineError
from tieline.ports import Clock
from tieline.registry import Key, seal, sign_statement
from tieline.registry.keys import base64url
from tieline.site.configuration import DoorConfig

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger("tieline.site")
CONNECTIONS = 64
SILENT_EACH = 8  # of one address that have sent no request yet: the newest; through the relay as many as it lets come
HOLDER_EACH = 32  # of one holder
FIRST_S = 10.0  # the first request of a connection is there by then
STALL_S = 30.0
ALIVE_S = 20.0  # the other end of a link that answers no ping for half of that is gone
ECHO_SHARE = 100  # of the door's rate, one part in so many is for echoes
RATE_BYTES = 64 * 2**20  # of one upload that is thrown away
SOCKET_S = 300.0
CHUNK = re.compile(r"/v1/chunks/([0-9a-f]{64})")
ECHO = re.compile(r"/v1/echo/([0-9a-f]{16})")
LINKED = re.compile(r"/v1/runs/([a-z0-9][a-z0-9._-]{0,99})/link")
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")
PORT_TRIES = 16


class Meets(Protocol):
    """Whoever has runs of gangs over several sites here."""

    def expect(self, run: str, holder: str) -> None:
        """Raises TielineError where ``run`` is no live member of a gang here to which the site ``holder`` belongs."""

    async def serve(self, run: str, holder: str, stream: web.WebSocketResponse, key: bytes) -> None:
        """Carry connections over ``stream`` until either side has enough."""


class Door:
    """``key`` is the site's, ``public`` the pinned key of its exchange. Doors of one site share a ``guard``."""

    def __init__(
        self,
        config: DoorConfig,
        site: str,
        key: Key,
        public: str,
        clock: Clock,
        chunks: Chunks,
        guard: Guard | None = None,
        meets: Meets | None = None,
    ) -> None:
        self.config = config
        self.site = site
        self.key = key
        self.kid = f"{site.partition('/')[0]}#site"
        self.clock = clock
        self.chunks = chunks
        self.guard = guard or Guard(site, public, clock)
        self.meets = meets
        self.sessions = Sessions(clock.now_ms, max(1, config.bytes_per_s // ECHO_SHARE))
        self.pace = Pace(config.bytes_per_s)
        self.moved: Counter[str] = Counter()  # bytes by what they were for
        self.url = ""
        self.port = 0
        self._responder: Responder | None = None
        self._server: asyncio.Server | None = None
        self._web: web.Server | None = None
        self._is_closed = False
        self._awaited: dict[web.RequestHandler, _Awaited] = {}  # no request came yet, the oldest first
        self._holders: dict[web.RequestHandler, str] = {}  # whose pass opened a connection

    # -- life ---------------------------------------------------------------------------------------------------------

    async def prepare(self) -> Door:
        """Be ready for connections that come through a relay; nothing listens."""
        await asyncio.to_thread(self.chunks.open)
        self._is_closed = False
        return self

    async def open(self) -> Door:
        """Listen. Raises TielineError `conflict` where the address cannot be had."""
        await self.prepare()
        stream, datagram = await asyncio.to_thread(bound, self.config.host, self.config.port)
        self.port = stream.getsockname()[1]
        self._responder = Responder(datagram, self.sessions)
        self._server = await asyncio.get_running_loop().create_server(self.connection, sock=stream)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        self.url = self.config.url or f"http://{host}:{self.port}"
        log.info("door open", extra={"site": self.site, "url": self.url})
        return self

    async def close(self) -> None:
        """Listen no more, and end what is under way."""
        self._is_closed = True  # the loop may have accepted some that it has not shown yet
        if self._responder is not None:
            self._responder.close()
        if self._server is not None:
            self._server.close()
        for awaited in self._awaited.values():
            awaited.timer.cancel()
        self._awaited.clear()
        self._holders.clear()
        if self._web is not None:
            await self._web.shutdown(1.0)
        self._responder = self._server = self._web = None
        self.url = ""

    def connection(self) -> asyncio.BaseProtocol:
        """The protocol of one more connection, whether it was accepted here or comes through a relay."""
        return _Gate(self)

    def begin(self, transport: asyncio.Transport) -> web.RequestHandler | None:
        """What serves a connection; None where there is no room.

        Whoever says nothing makes room for whoever comes: the oldest of the same address, or of that with the most.
        """
        from aiohttp import web

        if self._is_closed:
            return None
        if self._web is None:
            self._web = web.Server(self._handle, access_log=None, keepalive_timeout=30.0, lingering_time=1.0)
        address = _address_of(transport)
        silent: dict[str, list[web.RequestHandler]] = {}
        for made, awaited in self._awaited.items():
            silent.setdefault(awaited.address, []).append(made)
        if address and len(silent.get(address, ())) >= SILENT_EACH:
            self._let_go(silent[address][0])
        elif len(self._web.connections) >= CONNECTIONS:
            if not silent:
                self.guard.refused["overloaded"] += 1
                return None
            self._let_go(max(silent.values(), key=len)[0])
        made = self._web()
        timer = asyncio.get_running_loop().call_later(FIRST_S, self._hang_up, made)
        self._awaited[made] = _Awaited(address, timer)
        return made

    def _let_go(self, made: web.RequestHandler) -> None:
        self.guard.refused["overloaded"] += 1
        self._awaited[made].timer.cancel()
        self._hang_up(made)

    def _hang_up(self, made: web.RequestHandler) -> None:
        self._awaited.pop(made, None)
        made.force_close()
        if made.transport is not None:
            made.transport.close()

    def _admit(self, request: web.BaseRequest, method: str, path: str, right: Right) -> tuple[Pass, Knock]:
        """The pass and the knock of a request. Raises TielineError as `Guard.admit`, `overloaded` for one too many."""
        given, knock = self.guard.admit(_headers(request), method, path, right)
        assert self._web is not None
        live = self._web.connections
        self._holders = {made: holder for made, holder in self._holders.items() if made in live}
        its = sum(holder == given.holder for made, holder in self._holders.items() if made is not request.protocol)
        if its >= HOLDER_EACH:
            self.guard.refused["overloaded"] += 1
            raise TielineError("overloaded", f"{its} connections of `{given.holder}` are open here")
        self._holders[request.protocol] = given.holder
        return given, knock

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        awaited = self._awaited.pop(request.protocol, None)
        if awaited is not None:
            awaited.timer.cancel()
        try:
            return await self._routed(request)
        except TielineError as error:
            refused = error
        except TimeoutError:
            refused = TielineError("timeout", f"nothing came for {STALL_S:.0f} s")
        answer = _said(msgspec.json.encode(refused.envelope), CODES[refused.code].status)
        if request.protocol not in self._holders:  # who has shown no pass keeps no connection
            answer.force_close()
        return answer

    async def _routed(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path = request.method, request.path
        if (method, path) == ("POST", "/v1/echo"):
            return self._begin(request)
        if (method, path) == ("POST", "/v1/rate"):
            return await self._rate(request)
        if method == "GET" and (match := ECHO.fullmatch(path)):
            return await self._echoes(request, match[1])
        if method == "GET" and (match := LINKED.fullmatch(path)):
            return await self._link(request, match[1])
        if match := CHUNK.fullmatch(path):
            if method == "PUT":
                return await self._put(request, match[1])
            if method in ("GET", "HEAD"):
                return await self._get(request, match[1])
        self.guard.refused["not_found"] += 1
        raise TielineError("not_found", "there is no such thing at this door")

    def _begin(self, request: web.BaseRequest) -> web.Response:
        given, knock = self._admit(request, "POST", "/v1/echo", Right.ECHO)
        session = self.sessions.begin(given)
        said = EchoSession(
            session=session.id.hex(),
            sealed=base64url(seal(knock.sealing, session.key)),
            nonce=knock.nonce,
            udp_port=self.port,
            until_ms=session.until_ms,
            packet_bytes=MOST_BYTES,
            rate_bytes_per_s=session.pace.bytes_per_s,
            clock_error_us=clock_error_us(),
        )
        return _said(sign_statement(said, self.key, self.kid, SESSION), 201)

    async def _echoes(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        from aiohttp import WSMsgType, web

        given, _ = self._admit(request, "GET", request.path, Right.ECHO)
        if not web.WebSocketResponse().can_prepare(request):
            raise TielineError("invalid_request", "this is a WebSocket")
        found: Session | None = self.sessions.open.get(bytes.fromhex(name))
        if found is None or found.holder != given.holder:
            raise TielineError("not_found", "there is no such session")
        stream = web.WebSocketResponse(max_msg_size=2 * MOST_BYTES, compress=False, receive_timeout=STALL_S)
        await stream.prepare(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOCKET_S):
                async for message in stream:
                    heard_ns = time.time_ns()
                    if message.type is not WSMsgType.BINARY:
                        break
                    answer = self.sessions.answer(message.data, heard_ns)
                    if answer is not None:
                        await stream.send_bytes(answer)
        return stream

    async def _link(self, request: web.BaseRequest, run: str) -> web.StreamResponse:
        """A link to the nodes of a run here, for another site of its gang. The door proves itself with the key."""
        from aiohttp import web

        given, knock = self._admit(request, "GET", request.path, Right.PORT)
        if not web.WebSocketResponse().can_prepare(request) or not knock.sealing:
            raise TielineError("invalid_request", "this is a WebSocket, and its knock names a key to seal to")
        if given.run != run or self.meets is None:
            self.guard.refused["forbidden"] += 1
            raise TielineError("forbidden", f"the pass does not lead to `{run}`")
        self.meets.expect(run, given.holder)
        key = os.urandom(32)
        said = Linked(run=run, nonce=knock.nonce, sealed=base64url(seal(knock.sealing, key)))
        stream = web.WebSocketResponse(max_msg_size=2 * MESSAGE_BYTES, compress=False, heartbeat=ALIVE_S, timeout=2.0)
        await stream.prepare(request)
        await stream.send_str(sign_statement(said, self.key, self.kid, LINK).decode())
        await self.meets.serve(run, given.holder, stream, key)
        return stream

    async def _rate(self, request: web.BaseRequest) -> web.Response:
        given, _ = self._admit(request, "POST", "/v1/rate", Right.RATE)
        size = _length(request, RATE_BYTES)
        self.guard.spend(given, size)
        moved = counted = 0
        began_s = quarter_s = time.perf_counter()
        async for piece in self._pieces(request, "rate", is_paced=False):
            now_s = time.perf_counter()
            if not moved:
                began_s = quarter_s = now_s
            moved += len(piece)
            if moved * 4 <= size:
                quarter_s = now_s
            else:
                counted += len(piece)
        ended_s = time.perf_counter()
        said = RateSeen(
            moved_bytes=moved,
            took_us=int((ended_s - began_s) * 1e6),
            counted_bytes=counted,
            counted_us=int((ended_s - quarter_s) * 1e6),
        )
        return _said(msgspec.json.encode(said), 200)

    async def _put(self, request: web.BaseRequest, sha256: str) -> web.Response:
        given, _ = self._admit(request, "PUT", request.path, Right.WRITE)
        self._check_named(given, sha256)
        size = _length(request, CHUNK_BYTES)
        if (path := self.chunks.path(sha256)) is not None:
            return _said(msgspec.json.encode(ChunkKept(sha256=sha256, size_bytes=path.stat().st_size)), 200)
        self.guard.spend(given, size)
        kept = await self.chunks.keep(sha256, self._pieces(request, "write"), size)
        return _said(msgspec.json.encode(ChunkKept(sha256=sha256, size_bytes=kept)), 201)

    async def _get(self, request: web.BaseRequest, sha256: str) -> web.StreamResponse:
        from aiohttp import web

        given, _ = self._admit(request, request.method, request.path, Right.READ)
        self._check_named(given, sha256)
        path = self.chunks.path(sha256)
        if path is None:
            raise TielineError("not_found", f"`{sha256}` is not here")
        with open(path, "rb") as file:  # noqa: ASYNC230 - pieces of a page cache
            size = file.seek(0, 2)
            start, end = _range(request.headers.get("Range", ""), size)
            headers = {"Content-Length": str(end - start), "ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
            if end - start != size:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            answer = web.StreamResponse(status=206 if end - start != size else 200, headers=headers)
            answer.content_type = "application/octet-stream"
            if request.method == "HEAD":
                await answer.prepare(request)
                return answer
            self.guard.spend(given, end - start)
            await answer.prepare(request)
            file.seek(start)
            left = end - start
            while left and (piece := file.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                self.moved["read"] += len(piece)
                await asyncio.sleep(self.pace.take(len(piece)))
                async with asyncio.timeout(STALL_S):
                    await answer.write(piece)
        await answer.write_eof()
        return answer

    async def _pieces(self, request: web.BaseRequest, what: str, *, is_paced: bool = True) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(STALL_S):
                piece = await request.content.readany()
            if not piece:
                return
            self.moved[what] += len(piece)
            if is_paced:
                await asyncio.sleep(self.pace.take(len(piece)))
            yield piece

    def _check_named(self, given: Pass, sha256: str) -> None:
        if sha256 not in given.chunks:
            self.guard.refused["forbidden"] += 1
            raise TielineError("forbidden", f"the pass does not name `{sha256}`")


class _Awaited(NamedTuple):
    """A connection that has said nothing yet."""

    address: str
    timer: asyncio.TimerHandle


class _Gate(asyncio.Protocol):
    """Knows who is there before anything is given to it."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or hang up."""
        assert isinstance(transport, asyncio.Transport)
        made = self.door.begin(transport)
        if made is None:
            transport.close()
            return
        transport.set_protocol(made)
        made.connection_made(transport)


def _address_of(transport: asyncio.Transport) -> str:
    """Of whoever is there; of IPv6 the 64 bits of a network, in which a host may take any. Empty: the relay."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return ""
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def chunks_of(folder: Path, config: DoorConfig) -> Chunks:
    """The chunks of the site in ``folder``: what was put, and the blobs and datasets that it holds anyway."""
    return Chunks(folder / "chunks", config.chunk_bytes, (folder / "cache", folder / "held"))


def bound(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket and a UDP socket on the same port; 0 takes a free one. Raises TielineError `conflict`."""
    why = ""
    for _ in range(PORT_TRIES if not port else 1):
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            stream = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise TielineError("conflict", f"the door's `{host}` is no address of this machine: {error}") from None
        try:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind(address)
            datagram = stamped(family)
            try:
                datagram.bind((address[0], stream.getsockname()[1], *address[2:]))
            except OSError:
                datagram.close()
                raise
            stream.listen(CONNECTIONS)
            stream.setblocking(False)
        except OSError as error:
            stream.close()
            why = str(error)
            continue
        return stream, datagram
    raise TielineError("conflict", f"the door's address `{host}` port {port} cannot be bound: {why}")


def _said(body: bytes, status: int) -> web.Response:
    from aiohttp import web

    return web.Response(body=body, status=status, content_type="application/json")


def _headers(request: web.BaseRequest) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _length(request: web.BaseRequest, most: int) -> int:
    size = request.content_length
    if size is None:
        raise TielineError("invalid_request", "this needs a `Content-Length`", where="Content-Length")
    if size > most:
        raise TielineError("too_large", f"{size:,} bytes are over {most:,}")
    return size


def _range(asked: str, size: int) -> tuple[int, int]:
    """The half-open range that is asked for; what is not understood is ignored (RFC 9110, section 14.2)."""
    match = RANGE.fullmatch(asked)
    if match is None:
        return 0, size
    start = int(match[1])
    end = min(size, int(match[2]) + 1) if match[2] else size
    if start >= end:
        raise TielineError("range_not_satisfiable", f"the chunk has {size:,} bytes", where="Range")
    return start, end
