"""Stream: server-sent events (WHATWG HTML, section 9.2), bounded in number, in memory and in how long they stall."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from litestar.types import Receive, Scope, Send

from tieline.api.answer import ThrottledError
from tieline.api.call import Call
from tieline.model.error import TielineError

PING_S = 15.0
SEND_S = 30.0  # a reader that takes nothing for so long is gone
PING = b":\n\n"
HEAD = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)


def frame(data: bytes, *, id: str = "", event: str = "") -> bytes:  # noqa: A002 - the field's name on the wire
    """One event. ``data`` is one line."""
    head = f"id: {id}\n" if id else ""
    if event:
        head += f"event: {event}\n"
    return b"%sdata: %s\n\n" % (head.encode(), data)


def position(id: int | str) -> bytes:  # noqa: A002 - the field's name on the wire
    """Move the reader's cursor on without an event, so that a quiet stream is not read again from far back."""
    return f"id: {id}\n\n".encode()


def cursor_of(call: Call, after: str | None) -> str:
    """``after`` or ``Last-Event-ID``; the header is newer: a reader that reconnects by itself sends it."""
    return call.header(b"last-event-id") or after or ""


def seq_of(call: Call, after: str | None, head: int) -> int:
    """The cursor as a position of the log. Raises TielineError `invalid_cursor`."""
    text = cursor_of(call, after)
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 16) or int(text) > head:
        raise TielineError(
            "invalid_cursor", f"`{text[:40]}` is no position from 0 to {head:,}", where="after", hints=("leave it out",)
        )
    return int(text)


class EventStream:
    """An answer that goes on until the reader, its slowness or the end of the process ends it."""

    def __init__(self, call: Call, frames: Callable[[], AsyncGenerator[bytes, None]], wake: Callable[[], None]) -> None:
        """``frames`` makes the generator; ``wake`` makes it look up when the reader has gone."""
        self.call = call
        self.frames = frames
        self.wake = wake
        self.is_gone = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send frames until there are no more.

        Raises ThrottledError `rate_limited` when the caller, or all callers together, have too many streams open.
        """
        rates, meter, limits = self.call.platform.rates, self.call.meter, self.call.platform.limits
        if rates.streams >= limits.streams:
            raise ThrottledError("rate_limited", f"{limits.streams:,} streams are open here", PING_S)
        if meter is not None and meter.streams >= limits.streams_per_caller:
            raise ThrottledError("rate_limited", f"{limits.streams_per_caller} of your streams are open", PING_S)
        rates.streams += 1
        if meter is not None:
            meter.streams += 1
        watch = asyncio.create_task(self._watch(receive))
        frames = self.frames()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEAD)})
            await self._pump(frames, send)
            if not self.is_gone:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            rates.streams -= 1
            if meter is not None:
                meter.streams -= 1
            watch.cancel()
            await frames.aclose()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _pump(self, frames: AsyncGenerator[bytes, None], send: Send) -> None:
        async for part in frames:
            if self.is_gone:
                return
            if not part:  # it only looked up
                continue
            try:
                async with asyncio.timeout(SEND_S):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except TimeoutError:
                self.is_gone = True
                return

    async def _watch(self, receive: Receive) -> None:
        while not self.is_gone:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.is_gone = True
                self.wake()
