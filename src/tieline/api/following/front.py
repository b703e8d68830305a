"""Front: the application of one exchange process for its whole life. Its part changes when the leader does."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from tieline.api.answer import Answer, GoneError, ThrottledError, refusal_answer
from tieline.api.following.available import PATH as AVAILABLE
from tieline.api.following.available import Available
from tieline.api.following.forwarding import AS_OF, KEPT_BYTES, STALL_S, UNTAKEN, Forwarder
from tieline.api.following.local import FILES, LOCAL, OWN, SIGNED, Routes
from tieline.api.following.platform import FollowingPlatform
from tieline.api.following.sibling import HEADER, Siblings
from tieline.api.following.trail import Trail
from tieline.api.relaying import Relay
from tieline.drivers.stores.leadership import Lease
from tieline.model.error import TielineError
from tieline.model.peer import PeerState
from tieline.ports import Clock

REFUSAL_BYTES = 65_536
ALIVE = "/healthz"
QUIET_S = 5.0
PAUSE_S = 0.02
log = logging.getLogger("tieline.following")


class Part(Protocol):
    """What a process does now."""

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises TielineError before anything was answered."""

    def closing(self) -> None:
        """End streams and waits."""


class Front:
    """An ASGI application. Until it has a part, everybody is told to wait."""

    def __init__(self) -> None:
        self.part: Part | None = None
        self.relay: Relay | None = None  # of the process that leads: its WebSockets come past this application
        self._open: Counter[Part] = Counter()  # requests that each part has not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request by the part of now."""
        kind: str = scope["type"]
        if kind == "lifespan":
            await _live(receive, send)
            return
        if kind != "http":
            await send({"type": "websocket.close", "code": 4404, "reason": "no WebSocket here"})
            return
        request: Any = scope
        part = self.part
        if part is not None:
            self._open[part] += 1
        try:
            if part is None:
                raise ThrottledError("overloaded", "the exchange is starting", 1)
            await part(request, receive, send)
        except GoneError:
            return
        except TielineError as error:
            untaken = ((UNTAKEN, b"1"),) if isinstance(error, NoLeaderError) else ()
            await refusal_answer(error, "", untaken)(scope, receive, send)
        finally:
            if part is not None:
                self._open[part] -= 1
                if not self._open[part]:
                    del self._open[part]

    async def quiet(self, part: Part, timeout_s: float = QUIET_S) -> bool:
        """Wait until ``part``, which is not the part of now any more, has answered everybody; for a bounded time."""
        for _ in range(round(timeout_s / PAUSE_S)):
            if part not in self._open:
                return True
            await asyncio.sleep(PAUSE_S)
        return part not in self._open

    def closing(self) -> None:
        """The process is about to end."""
        if self.part is not None:
            self.part.closing()


class NoLeaderError(ThrottledError):
    """This process does not lead, and did nothing with the request."""

    def __init__(self, why: str) -> None:
        super().__init__("not_leader", why, 1)


class Leading:
    """The part of the one that writes. ``app`` is the exchange's application, ``position`` the end of its log."""

    def __init__(
        self,
        app: ASGIApp,
        siblings: Siblings,
        lease: Lease,
        clock: Clock,
        position: Callable[[], int],
        available: Callable[[], bytes],
        close: Callable[[], None],
        *,
        peers_from_ms: int = 0,
    ) -> None:
        """``available`` is what siblings are told of heartbeats (`available.py`).

        ``peers_from_ms``: peers' requests are taken from then on; a leader before may have taken older ones.
        """
        self._app, self._siblings = app, siblings
        self._lease, self._clock, self._position = lease, clock, position
        self._available, self._close = available, close
        self._peers_from_ms = peers_from_ms

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Hand it to the exchange, as long as this process may speak for it."""
        is_sibling = forwarded(scope, self._siblings, self._clock.now_ms())
        if not self._lease.holds and target_of(scope)[0] != ALIVE:
            raise NoLeaderError("this process has not been able to say that it leads for a while")
        if is_sibling and target_of(scope)[0] == AVAILABLE:
            await Answer(self._available())(scope, receive, send)
            return
        wait_ms = self._peers_from_ms - self._clock.now_ms()
        if wait_ms > 0 and value_of(scope, SIGNED):
            wait_s = math.ceil(wait_ms / 1000)
            raise ThrottledError("not_leader", f"this process began to lead: peers call again in {wait_s} s", wait_s)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), as_of(self._position(), self._clock.now_ms())]
            await send(message)

        await self._app(scope, receive, stamped)

    def closing(self) -> None:
        """End streams and waits."""
        self._close()


class Following:
    """The part of one that does not write: what it can answer it answers, all else the leader does."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Routes,
        platform: FollowingPlatform,
        trail: Trail,
        forwarder: Forwarder,
        available: Available,
        *,
        has_files: bool,
    ) -> None:
        """``has_files``: blobs and logs lie in a folder that the processes share."""
        self._app, self._routes, self._platform, self._trail = app, routes, platform, trail
        self._forwarder, self._available = forwarder, available
        self._local = LOCAL if has_files else LOCAL - FILES

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer here or pass it on."""
        if value_of(scope, HEADER):
            raise NoLeaderError("this process does not lead")
        path, _ = target_of(scope)
        operation = self._routes.find(scope["method"], path)
        reached = self._platform.reached
        if operation is None or not self._is_local(operation.id):
            await self._forwarder.forward(scope, receive, send, operation, reached)
            return
        if operation.id == "find":
            await self._available.refresh()
        if operation.id in OWN:
            await self._app(scope, receive, send)
            return
        body, again = await kept_body(scope, receive)
        if operation.id == "find" and _rests_on_readings(body) and self._forwarder.leader is not None:
            await self._forwarder.forward(scope, again, send, operation, reached, body)
            return
        tried = _Tried(send, self._stamp)
        await self._app(scope, again, tried.send)
        if tried.refusal is None:
            return
        if self._forwarder.leader is not None:  # this process may be behind; the leader knows
            try:
                await self._forwarder.forward(scope, again, send, operation, reached, body)
            except TielineError:
                log.info("a refusal could not be confirmed by the leader")
            else:
                return
        for message in tried.refusal:
            await send(message)

    def _is_local(self, operation: str) -> bool:
        if operation == "find":  # what is free behind peers is known to the leader alone
            return not any(peer.state is PeerState.ACTIVE for peer in self._trail.view.peers.copy().values())
        return operation in self._local

    def _stamp(self) -> tuple[bytes, bytes]:
        return as_of(self._trail.position[0], self._trail.as_of_ms)

    def closing(self) -> None:
        """End streams and waits."""
        self._available.close()
        self._forwarder.closing()
        self._platform.closing()


def _rests_on_readings(body: bytes) -> bool:
    """Whether a question may speak of what sites measured: last values, which the leader alone has."""
    return b"rtt" in body or b"bandwidth" in body


class _Tried:
    """An answer that is held back while it may still be a refusal that somebody else should confirm."""

    def __init__(self, send: Send, stamp: Callable[[], tuple[bytes, bytes]]) -> None:
        self._send, self._stamp = send, stamp
        self.refusal: list[Message] | None = None
        self._size = 0

    async def send(self, message: Message) -> None:
        """Pass on what is no refusal; keep what is one."""
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), self._stamp()]
            if message["status"] >= 400 and message["status"] != 429:
                self.refusal = []
        if self.refusal is None:
            await self._send(message)
            return
        self._size += len(message.get("body", b"")) if message["type"] == "http.response.body" else 0
        assert self._size <= REFUSAL_BYTES, "no refusal is so long"
        self.refusal.append(message)


async def kept_body(scope: HTTPScope, receive: Receive) -> tuple[bytes, Receive]:
    """The body of a question and a ``receive`` that gives it again, each time anew. Raises `too_large`, `timeout`."""
    parts: list[bytes] = []
    size = 0
    if value_of(scope, b"content-length") or value_of(scope, b"transfer-encoding"):
        while True:
            try:
                async with asyncio.timeout(STALL_S):
                    message: Any = await receive()
            except TimeoutError:
                raise TielineError("timeout", f"nothing of the body came for {STALL_S:.0f} s") from None
            if message["type"] == "http.disconnect":
                raise GoneError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > KEPT_BYTES:
                raise TielineError("too_large", f"the body is over its limit of {KEPT_BYTES:,} bytes")
            if not message.get("more_body", False):
                break
    body = b"".join(parts)
    is_given = not parts

    async def again() -> Any:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return body, again


def forwarded(scope: HTTPScope, siblings: Siblings, now_ms: int) -> bool:
    """Let a request that a sibling passed on come from where it came from; False: nobody says that one did.

    Raises `unauthenticated` for a false claim.
    """
    stated = value_of(scope, HEADER)
    if not stated:
        return False
    path, query = target_of(scope)
    target = path.encode("latin-1") + (b"?" + query if query else b"")
    address = siblings.address(stated, scope["method"], target, now_ms)
    scope["client"] = (address, 0)
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != HEADER]
    return True


def target_of(scope: HTTPScope) -> tuple[str, bytes]:
    """Path and query as they were sent."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1"), scope["query_string"]


def value_of(scope: HTTPScope, name: bytes) -> bytes:
    """The first header of that lower-case name; empty: there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


def as_of(position: int, at_ms: int) -> tuple[bytes, bytes]:
    """The header that says up to which entry, and when, an answer knows the log (an item of RFC 8941)."""
    return AS_OF.encode(), b"%d;at=%d" % (position, at_ms)


async def _live(receive: Receive, send: Any) -> None:
    """uvicorn's lifespan: parts are started and ended by whoever gives them."""
    while True:
        message: Any = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
