"""Gate: what every request passes, as one plain ASGI application: name it, know its caller, count it, log it.

It stands before the router, so that a path that does not exist is counted, logged and answered in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from tieline.api.answer import ThrottledError, refusal_answer
from tieline.api.call import Call
from tieline.api.caller import caller_of
from tieline.api.peercaller import LIMITED, SIGNED, peer_actor
from tieline.model.error import TielineError
from tieline.model.party import ANONYMOUS, Actor, Role

if TYPE_CHECKING:
    from tieline.api.platform import Platform

log = logging.getLogger("tieline.api")
MOST_HEADERS = 100
QUIET = ("beat",)  # of thousands of sites every few seconds: only what is refused is told to the log
UNCOUNTED = ("/healthz", "/readyz")  # asked by machines that must not be told to wait


class Gate:
    """Wraps the router. One `Call` is made for each request and found in ``scope["state"]["call"]``."""

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self.app = app
        self.platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await send({"type": "websocket.close", "code": 4404, "reason": "no WebSocket here"})
            return
        await _Passage(self, scope, receive, send).pass_through()


class _Passage:
    """One request on its way through."""

    __slots__ = ("call", "gate", "inner_send", "receive", "scope", "started_s", "status")

    def __init__(self, gate: Gate, scope: HTTPScope, receive: Receive, send: Send) -> None:
        self.gate = gate
        self.scope = scope
        self.receive = receive
        self.inner_send = send
        self.started_s = time.perf_counter()
        self.status = 0
        self.call = Call(gate.platform, scope)
        self.call.receive = receive
        scope["state"]["call"] = self.call

    async def send(self, message: Message) -> None:
        """Send, with the request's name in the head of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            named = (b"x-request-id", self.call.request_id.encode())
            message["headers"] = [*message.get("headers", ()), named]
        elif message["type"] == "http.response.body" and self.call.tally is not None:
            self.call.tally.out_bytes += len(message["body"])
        await self.inner_send(message)

    async def pass_through(self) -> None:
        """Admit, route, answer, log."""
        try:
            unslash(self.scope)
            await self.admit()
            await self.gate.app(self.scope, self.receive, self.send)
        except TielineError as error:
            await refusal_answer(error, self.call.request_id)(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.status = self.status or 499
            raise
        except Exception as error:  # noqa: BLE001 - the answer has begun: all that is left is to say so and hang up
            log.warning("an answer broke off: %r", error, extra={"request": self.call.request_id})
        finally:
            self.note()

    async def admit(self) -> None:
        """Know the caller and count the request. A wrong bearer is counted for the address that it came from."""
        call, platform = self.call, self.gate.platform
        if len(list(self.scope["headers"])) > MOST_HEADERS:
            raise TielineError("invalid_request", f"more than {MOST_HEADERS} headers", where="headers")
        call.actor = Actor(name=ANONYMOUS.name, via=call.via)
        given = call.header(b"authorization")
        if given:
            try:
                call.actor = await caller_of(platform, given, call.via, platform.clock.now_ms())
            except TielineError as error:
                call.refused = error
        elif call.header(SIGNED):
            try:
                call.actor = peer_actor(platform, call)
            except TielineError as error:
                call.refused = error
        if self.scope["path"] in UNCOUNTED:
            return
        name = call.actor.token or call.actor.name if call.actor.roles else f"address {call.via}"
        call.meter = platform.rates.meter(name, is_site=call.actor.has(Role.SITE, Role.PEER))
        wait_s = platform.rates.request(call.meter)
        if wait_s > 0:
            if call.actor.has(Role.PEER):
                platform.peer_calls.count(call.actor.name, LIMITED)
                platform.peer_calls.tally(call.actor.name).reject("rate_limited")
            limit = platform.limits.requests_per_s
            raise ThrottledError("rate_limited", f"over {limit:,} requests a second from {name}", wait_s)

    def note(self) -> None:
        """One line in the log, one count in the metrics."""
        call, platform = self.call, self.gate.platform
        took_s = time.perf_counter() - self.started_s
        operation = call.operation.id if call.operation else "none"
        status = self.status or 499
        metrics = platform.metrics
        metrics.requests.labels(operation, str(status)).inc()
        if call.operation is None or call.operation.gives != "text/event-stream":
            metrics.seconds.labels(operation).observe(took_s)
        if call.read_bytes:
            metrics.received.inc(call.read_bytes)
        level = logging.INFO if status < 500 else logging.ERROR
        if operation in QUIET and status < 300:
            level = logging.DEBUG
        if log.isEnabledFor(level):
            said = {
                "request": call.request_id,
                "method": self.scope["method"],
                "path": self.scope["path"][:400],
                "status": status,
                "caller": call.actor.name,
                "duration_ms": round(took_s * 1000, 2),
                "size_bytes": call.read_bytes,
                **call.notes,
            }
            log.log(level, operation, extra=said)


def unslash(scope: HTTPScope) -> None:
    """Let ``%2F`` inside a path be ``~``: clients that quote an identifier mean one segment, not several."""
    raw = scope.get("raw_path") or b""
    if b"%2f" in raw or b"%2F" in raw:
        from urllib.parse import unquote

        scope["path"] = unquote(raw.decode("ascii", "replace").replace("%2f", "~").replace("%2F", "~"))
