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

    def __init__(self, call: Call, frames: Callable[[], AsyncGenerator[bytes, None]]) -> None:
        """``frames`` makes the generator; it is cancelled where it waits as soon as the reader has gone."""
        self.call = call
        self.frames = frames

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
        frames = self.frames()
        sending = asyncio.create_task(_pump(frames, send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await frames.aclose()
            rates.streams -= 1
            if meter is not None:
                meter.streams -= 1


async def _pump(frames: AsyncGenerator[bytes, None], send: Send) -> None:
    """Send a whole answer; one whose reader takes nothing for `SEND_S` is left unfinished."""
    await send({"type": "http.response.start", "status": 200, "headers": list(HEAD)})
    with contextlib.suppress(TimeoutError):
        async for part in frames:
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Wait until the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
