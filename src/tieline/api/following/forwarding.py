"""Forwarding: a request that only the leader can answer, passed on to it and its answer passed back, both as they come.

What happens when the leader goes away in the middle depends on what may be said twice::

    never sent                                      sent to the next leader
    SAFE methods; an Idempotency-Key; REPEATED      sent again with the same key: a decision that was kept is answered
                                                    as it was
    everything else                                 refused with `not_leader`: it may have been kept, the caller looks

While there is no leader requests wait, at most `WAIT_S` and at most `MOST_WAITING` of them; then 503 with Retry-After.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.api.answer import GoneError, ThrottledError
from tieline.api.following.local import REPEATED, SIGNED
from tieline.api.following.sibling import HEADER, Siblings
from tieline.model.error import ErrorEnvelope, TielineError
from tieline.ports import Clock

if TYPE_CHECKING:
    import aiohttp
    from litestar.types import HTTPScope, Receive, Send

    from tieline.api.operation import Operation
    from tieline.drivers.stores.leadership import Leader

WAIT_S = 10.0
PAUSE_S = 0.05
DRAIN_S = 30.0
CONNECT_S = 2.0
STALL_S = 60.0  # a part of a body must come by then
KEPT_BYTES = 2 * 2**20  # a body up to this is kept, so that it can be sent again; a larger one is streamed once
REFUSAL_BYTES = 65_536
ASK_S = 2.0
ASKED_BYTES = 64 * 2**20
MOST_WAITING = 2_000  # requests that wait for a leader
MOST_OPEN = 12_000  # requests that are passed on at once, streams included
HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "expect",
    }
)  # fmt: skip
OWN = frozenset({"content-length", HEADER.decode()})  # stated anew
SAFE = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")  # saying it twice is as good as once (RFC 9110, 9.2.2)
NOT_NOW = ("not_leader", "store_unreachable")
AS_OF = "tieline-as-of"
UNTAKEN = b"tieline-untaken"  # on a refusal of a process that does not lead: the request went nowhere
log = logging.getLogger("tieline.following")


class LeaderGoneError(Exception):
    """The leader did not answer. ``is_sent``: it may have seen the request."""

    def __init__(self, why: str, *, is_sent: bool) -> None:
        super().__init__(why)
        self.is_sent = is_sent


class Forwarder:
    """Passes requests on to the leader. Lives on one loop; `turn` says who leads now."""

    def __init__(self, siblings: Siblings, clock: Clock, suspect: Callable[[], None]) -> None:
        """``suspect`` is called when the leader does not answer."""
        self._siblings, self._clock, self._suspect = siblings, clock, suspect
        self.leader: Leader | None = None
        self._turned: asyncio.Future[None] | None = None  # done when somebody else leads
        self._session: aiohttp.ClientSession | None = None
        self.waiting = self.open = 0
        self.is_closed = False

    # -- who leads ----------------------------------------------------------------------------------------------------

    def turn(self, leader: Leader | None) -> None:
        """``leader`` leads from now on; None: nobody does. What another one has not answered yet is taken back."""
        before, self.leader = self.leader, leader
        if _name(before) != _name(leader):
            self._wake()

    def closing(self) -> None:
        """The process is about to end: nobody waits any more, and streams end."""
        self.is_closed = True
        self.leader = None
        self._wake()

    async def close(self) -> None:
        """Let go of the connections."""
        self.closing()
        if self._session is not None:
            await self._session.close()

    async def drain(self) -> None:
        """Wait until everything that is being passed on was answered, for a bounded time, then close."""
        for _ in range(round(DRAIN_S / PAUSE_S)):
            if not self.open:
                break
            await asyncio.sleep(PAUSE_S)
        await self.close()

    def _wake(self) -> None:
        turned, self._turned = self._turned, None
        if turned is not None and not turned.done():
            turned.set_result(None)

    @property
    def turned(self) -> asyncio.Future[None]:
        """Done as soon as somebody else leads, or nobody."""
        if self._turned is None:
            self._turned = asyncio.get_running_loop().create_future()
        return self._turned

    # -- one request --------------------------------------------------------------------------------------------------

    async def forward(
        self,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        operation: Operation | None,
        reached: Callable[[int], Any] | None = None,
        body: bytes | None = None,
    ) -> None:
        """Answer one request as the leader does. Raises TielineError `not_leader`, `overloaded`; GoneError.

        ``reached(position)`` is awaited before what changed something is answered, so that the caller sees its change
        here. ``body`` is what was read of it already.
        """
        if self.open >= MOST_OPEN:
            raise ThrottledError("overloaded", f"{MOST_OPEN:,} requests are being passed on to the leader", 1)
        self.open += 1
        try:
            request = _Request(self, scope, receive, send, operation, reached)
            await request.take(body)
            await request.answer()
        finally:
            self.open -= 1

    async def ask(self, path: str) -> bytes:
        """What the leader says to a sibling alone. Raises LeaderGoneError, and what breaks on the way."""
        leader = self.leader
        if leader is None:
            raise LeaderGoneError("nobody leads", is_sent=False)
        stated = self._siblings.stated("", "GET", path.encode(), self._clock.now_ms())
        async with asyncio.timeout(ASK_S):
            async with self.session.get(
                leader.url + path, headers={HEADER.decode(): stated.decode()}, ssl=tls_of(leader), allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise LeaderGoneError(f"it answers with {response.status}", is_sent=True)
                said = bytearray()
                async for piece in response.content.iter_any():
                    said += piece
                    if len(said) > ASKED_BYTES:
                        raise LeaderGoneError(f"it says more than {ASKED_BYTES:,} bytes", is_sent=True)
                return bytes(said)

    async def await_leader(self, until_s: float) -> Leader:
        """The leader, waiting for one. Raises ThrottledError `not_leader`."""
        loop = asyncio.get_running_loop()
        if self.leader is None and self.waiting >= MOST_WAITING:
            raise ThrottledError("not_leader", f"{self.waiting:,} requests wait for a leader already", 2)
        self.waiting += 1
        try:
            while self.leader is None:
                left_s = until_s - loop.time()
                if left_s <= 0 or self.is_closed:
                    raise ThrottledError("not_leader", "no process of this exchange leads now; nothing was changed", 2)
                await asyncio.wait((self.turned,), timeout=left_s)
        finally:
            self.waiting -= 1
        return self.leader

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections to the leader."""
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=5),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    def head(self, scope: HTTPScope, target: bytes) -> list[tuple[str, str]]:
        """The headers of a request as the leader gets them."""
        client = scope.get("client")
        dropped = HOP | OWN | _named(_value(scope, b"connection"))
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        kept = [(name, value) for name, value in headers if name not in dropped]
        stated = self._siblings.stated(client[0] if client else "", scope["method"], target, self._clock.now_ms())
        return [*kept, (HEADER.decode(), stated.decode())]

    def suspect(self) -> None:
        """The leader does not answer: look who leads."""
        self._suspect()


class _Request:
    """One request on its way to the leader and back."""

    def __init__(
        self,
        forwarder: Forwarder,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        operation: Operation | None,
        reached: Callable[[int], Any] | None,
    ) -> None:
        self.forwarder, self.scope, self.receive, self.send = forwarder, scope, receive, send
        self.operation, self.reached = operation, reached
        query = scope["query_string"]
        self.target = (scope.get("raw_path") or scope["path"].encode()) + (b"?" + query if query else b"")
        self.body: bytes | None = None  # None: it is streamed
        self.length = _value(scope, b"content-length")
        self.is_streamed = False  # some of it has gone

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be said twice. A peer's signature counts once."""
        if self.body is None or _value(self.scope, SIGNED):
            return False
        is_safe = self.scope["method"] in SAFE or bool(_value(self.scope, b"idempotency-key"))
        return is_safe or (self.operation is not None and self.operation.id in REPEATED)

    async def take(self, body: bytes | None) -> None:
        """Read a body that is small enough to be kept."""
        if body is not None:
            self.body = body
        elif not self.length and not _value(self.scope, b"transfer-encoding"):
            self.body = b""
        elif self.length.isdigit() and int(self.length) <= KEPT_BYTES:
            self.body = b"".join([part async for part in self._parts()])

    async def _parts(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(STALL_S):
                    message: Any = await self.receive()
            except TimeoutError:
                raise TielineError("timeout", f"nothing of the body came for {STALL_S:.0f} s") from None
            if message["type"] == "http.disconnect":
                raise GoneError
            self.is_streamed = True
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return

    async def answer(self) -> None:
        """Ask the leader, and the next one, until there is an answer."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + WAIT_S
        while True:
            leader = await self.forwarder.await_leader(until_s)
            try:
                answered = await self._ask(leader, is_last=loop.time() >= until_s)
            except LeaderGoneError as gone:
                self.forwarder.suspect()
                can_go_on = self.is_repeatable or not (gone.is_sent or (self.is_streamed and self.body is None))
                if not can_go_on:
                    raise TielineError(
                        "not_leader",
                        f"the leader went away while it had this request, and may have kept it: look first ({gone})",
                        hints=("send requests with an Idempotency-Key: then sending one again is safe",),
                    ) from None
                if loop.time() >= until_s:
                    raise ThrottledError("not_leader", f"the leader does not answer: {gone}", 2) from None
            else:
                if answered:
                    return
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, leader: Leader, *, is_last: bool) -> bool:
        """One try. False when the leader refused and should be asked again."""
        import aiohttp
        from yarl import URL

        headers = self.forwarder.head(self.scope, self.target)
        data: Any = self.body
        if self.body is None:
            data = self._parts()
            if self.length.isdigit():
                headers.append(("content-length", self.length))
        turned = self.forwarder.turned
        asking = asyncio.create_task(
            self.forwarder.session.request(
                self.scope["method"],
                URL(leader.url + self.target.decode("latin-1"), encoded=True),
                headers=headers,
                data=data or None,
                ssl=tls_of(leader),
                allow_redirects=False,
            ).__aenter__()
        )
        leaving = asyncio.create_task(self._gone()) if self.body is not None else None
        try:
            await asyncio.wait({asking, turned, *((leaving,) if leaving else ())}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                if leaving is not None and leaving.done():
                    raise GoneError
                raise LeaderGoneError("another process leads now", is_sent=True)
            try:
                response = asking.result()
            except aiohttp.ClientConnectorError as error:
                raise LeaderGoneError(str(error), is_sent=False) from None
            except aiohttp.ServerFingerprintMismatch as error:
                raise LeaderGoneError(f"its certificate is another one: {error}", is_sent=False) from None
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                raise LeaderGoneError(f"{type(error).__name__}: {error}", is_sent=True) from None
            try:
                return await self._relay(response, turned, leaving, is_last=is_last)
            finally:
                response.close()
        finally:
            for task in (asking, leaving):
                if task is not None:
                    await _ended(task)

    async def _gone(self) -> None:
        """Wait until the caller has gone."""
        while True:
            message: Any = await self.receive()
            if message["type"] == "http.disconnect":
                return

    async def _relay(
        self,
        response: aiohttp.ClientResponse,
        turned: asyncio.Future[None],
        leaving: asyncio.Task[None] | None,
        *,
        is_last: bool,
    ) -> bool:
        first = b""
        if response.status == 503:
            first = await _refusal(response)
            if not is_last and self._is_untaken(response, first):
                return False
        await self._reach(response)
        dropped = HOP | {"date", UNTAKEN.decode()} | _named(response.headers.get("connection", ""))
        head = [(name.lower(), value) for name, value in response.raw_headers]
        headers = [(name, value) for name, value in head if name.decode("latin-1") not in dropped]
        await self.send({"type": "http.response.start", "status": response.status, "headers": headers})
        is_stream = response.content_type == "text/event-stream"
        pieces = asyncio.create_task(self._pieces(response, first))
        watched: set[asyncio.Future[Any]] = {pieces}
        watched.update((leaving,) if leaving is not None else ())
        watched.update((turned,) if is_stream else ())  # its reader listens again, to who leads then
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if pieces.done():
                pieces.result()
        except Exception as error:
            if not is_stream:  # the answer has begun: all that is left is to break it off
                raise GoneError from error
        finally:
            await _ended(pieces)
        if leaving is None or not leaving.done():
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    async def _pieces(self, response: aiohttp.ClientResponse, first: bytes) -> None:
        if first:
            await self.send({"type": "http.response.body", "body": first, "more_body": True})
        async for piece in response.content.iter_any():
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    def _is_untaken(self, response: aiohttp.ClientResponse, said: bytes) -> bool:
        """Whether a refusal is one of a leader that is none any more, or not yet, and nothing of it was kept."""
        if UNTAKEN.decode() in response.headers:
            return self.body is not None
        if not self.is_repeatable:
            return False
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(said, type=ErrorEnvelope).code in NOT_NOW
        return False

    async def _reach(self, response: aiohttp.ClientResponse) -> None:
        """Wait until what was changed can be seen here too."""
        position = response.headers.get(AS_OF, "").partition(";")[0]
        is_change = self.operation is not None and self.operation.is_change
        if is_change and self.reached is not None and position.isdigit():
            await self.reached(int(position))


async def _refusal(response: aiohttp.ClientResponse) -> bytes:
    """The whole of a refusal, or the beginning of what is too long to be one."""
    said = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STALL_S):
            while len(said) < REFUSAL_BYTES and (piece := await response.content.readany()):
                said += piece
    return said


def _name(leader: Leader | None) -> tuple[int, str] | None:
    return (leader.term, leader.url) if leader is not None else None


def tls_of(leader: Leader) -> aiohttp.Fingerprint | bool:
    """How the leader's certificate is checked: it is the one that its row names, or signed by an authority."""
    import aiohttp

    return aiohttp.Fingerprint(bytes.fromhex(leader.certificate)) if leader.certificate else True


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def _value(scope: HTTPScope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return ""


def _named(connection: str) -> set[str]:
    """Headers that a Connection header names as its own."""
    return {name.strip().lower() for name in connection.split(",") if name.strip()}
