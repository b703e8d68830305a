"""Requests by hand, and leaders that do as a test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tieline.api.app import OPERATIONS
from tieline.api.following.forwarding import Forwarder
from tieline.api.following.local import Routes
from tieline.api.following.sibling import Siblings
from tieline.drivers.stores.leadership import Leader
from tieline.ports import FakeClock

NOW_MS = 1_763_000_000_000
SIBLINGS = Siblings(b"the seed of one exchange")
ROUTES = Routes(OPERATIONS)
WAIT_S = 30.0


def scope(method: str = "GET", path: str = "/v1/me", query: str = "", **headers: str) -> dict[str, Any]:
    """The scope of a request."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": ("203.0.113.9", 4711),
        "state": {},
    }


class Caller:
    """One who asks: what it sends, and what it was answered."""

    def __init__(self, *parts: bytes) -> None:
        self._parts: Iterator[bytes] = iter(parts)
        self._count = len(parts)
        self._at = 0
        self.left = asyncio.Event()
        self.messages: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        """The next part of the body, then that it has gone."""
        if self._at < max(1, self._count):
            self._at += 1
            return {"type": "http.request", "body": next(self._parts, b""), "more_body": self._at < self._count}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """An answer's message."""
        self.messages.append(message)

    @property
    def status(self) -> int:
        """Of the answer; 0: there was none."""
        return int(self.messages[0]["status"]) if self.messages else 0

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        """Of the answer."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])


class LeaderStub:
    """A process that answers as ``answer`` does, and remembers what it was asked."""

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._answer = answer
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.came = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.bodies.append(await request.read())
        self.asked.append(request)
        self.came.set()
        return await self._answer(request)

    @asynccontextmanager
    async def running(self, term: int = 1, tls: ssl.SSLContext | None = None) -> Any:
        """Serve; gives what a leader says of itself."""
        runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        try:
            scheme = "https" if tls else "http"
            yield Leader(term=term, url=f"{scheme}://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()


@asynccontextmanager
async def forwarding() -> Any:
    """A forwarder; its looks at who leads are counted in ``suspected``."""
    suspected: list[None] = []
    forwarder = Forwarder(SIBLINGS, FakeClock(at_ms=NOW_MS), lambda: suspected.append(None))
    try:
        yield forwarder, suspected
    finally:
        await forwarder.close()


def operation(name: str) -> Any:
    """A row of the table."""
    (found,) = [each for each in OPERATIONS if each.id == name]
    return found
