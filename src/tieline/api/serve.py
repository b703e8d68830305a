"""Serve: uvicorn as a part of this process: loopback unless told otherwise, and a stop that does not hang.

Beside uvicorn's own protocol: a connection that sends no request, or a head that does not end, is closed after
`HEAD_S`; a head over `HEAD_BYTES` is refused; bytes that are no HTTP are answered with the error envelope. It writes
nothing to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tieline.api.platform import Platform
from tieline.api.relaying import PREFIX, Refusing, Relay
from tieline.model.error import ErrorEnvelope, TielineError

HEAD_S = 20.0
HEAD_BYTES = 65_536
KEEP_ALIVE_S = 65
GRACE_S = 2
BACKLOG = 2_048


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with a bounded head."""

    head_bytes = 0
    head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A request has to come in time."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head; bodies are counted where they are read."""
        super().data_received(data)
        if self.head_timer is not None:  # the head has not ended yet
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"the head of the request is over {HEAD_BYTES:,} bytes")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self.head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request with the one error envelope, and hang up."""
        body = msgspec.json.encode(ErrorEnvelope(code="invalid_request", message=msg[:1].lower() + msg[1:].rstrip(".")))
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        self.transport.close()

    def _should_upgrade_to_ws(self) -> bool:
        """Only the relay is a WebSocket; anything else goes on as a request."""
        return self.url.startswith(PREFIX.encode())

    def _expect_head(self) -> None:
        self.head_bytes = 0
        self.head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _head_is_late(self) -> None:
        self.head_timer = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def _relayed(platform: Platform, **_: Any) -> asyncio.BaseProtocol:
    """The protocol of a connection that becomes a WebSocket; where another process has the relay, it is refused."""
    relay: Relay | None = getattr(platform, "relay", None)
    return relay.connection() if relay is not None else Refusing()


class Server(uvicorn.Server):
    """Ends every stream before it waits for connections to end, since they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, platform: Platform) -> None:
        super().__init__(config)
        self.platform = platform

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, end streams and waits, and give what is left `GRACE_S`."""
        self.platform.closing()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT, and let the caller end the process (uvicorn would raise the signal once more)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def signals(self) -> tuple[int, ...]:
        """The signals that asked it to stop, in order."""
        return tuple(self._captured_signals)


def make_server(
    app: Litestar,
    platform: Platform,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
) -> Server:
    """A server to be run with ``await server.serve(sockets=[...])`` on sockets of `bound`."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws=partial(_relayed, platform),  # type: ignore[arg-type]
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    return Server(config, platform)


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound(
    host: str, port: int, *, has_tls: bool = False, is_plain_allowed: bool = False, is_shared: bool = False
) -> socket.socket:
    """A listening socket; port 0 takes a free one. ``is_shared``: other processes may listen on the same port too.

    Raises TielineError `invalid_request` for an address beyond this machine without TLS or the explicit permission to
    do without, and `conflict` for one that is taken.
    """
    if not (is_loopback(host) or has_tls or is_plain_allowed):
        raise TielineError(
            "invalid_request",
            f"`{host}` is beyond this machine: tokens and data would travel unprotected",
            where="host",
            hints=(
                "tieline up --tls-cert FILE --tls-key FILE",
                "tieline up --insecure-bind  # behind a proxy with TLS",
            ),
        )
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
    except OSError as error:
        raise TielineError(
            "invalid_request", f"`{host}` is no address of this machine: {error}", where="host"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise TielineError(
            "conflict", f"`{host}` port {port} cannot be bound: {error.strerror}", hints=("tieline up --port 0",)
        ) from None
    listener.setblocking(False)
    return listener


async def serve(server: Server, listener: socket.socket) -> None:
    """Run until SIGTERM, SIGINT or ``server.should_exit``."""
    await server.serve(sockets=[listener])


def address_of(listener: socket.socket, *, has_tls: bool = False) -> str:
    """The base URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    shown: Any = f"[{host}]" if ":" in host else host
    return f"{'https' if has_tls else 'http'}://{shown}:{port}"
