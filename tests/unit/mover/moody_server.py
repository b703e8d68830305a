"""A server whose mood a test sets, and bytes from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

from aiohttp import web


class Moody:
    """An HTTP server on loopback: it gives ``content`` by ranges, and lets a test spoil any answer."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.tag = '"one"'
        self.is_ranged = True
        self.refuses_empty = False  # answers 416 where there is nothing to give a range of
        self.says_length = True
        self.asked: list[str] = []  # the `Range` of every request
        self.stored: dict[str, bytes] = {}  # by PUT, whole ones only
        self.addresses: set[str] = set()  # whom requests came from
        self.spoil: Callable[[int, bytes], bytes | None] = lambda _start, part: part  # None: the connection is cut
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            return await self._put(request)
        span = request.headers.get("Range", "")
        self.asked.append(span)
        assert request.transport is not None
        self.addresses.add(request.transport.get_extra_info("peername")[0])
        size = len(self.content)
        start, end = 0, size
        if span and not size and self.refuses_empty:
            return web.Response(status=416)
        if span and self.is_ranged and size:
            if int(span.removeprefix("bytes=").partition("-")[0]) >= size:
                return web.Response(status=416)
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, end = int(first), min(size, int(last or size) + 1)
        headers = {"ETag": self.tag} if self.tag else {}
        is_part = bool(span) and self.is_ranged and size > 0
        if is_part:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        reply = web.StreamResponse(status=206 if is_part else 200, headers=headers)
        if self.says_length:
            reply.content_length = end - start
        else:
            reply.enable_chunked_encoding()
        await reply.prepare(request)
        part = self.content[start:end]
        if not (is_part and end - start == 1):  # the first look is not spoilt
            kept = self.spoil(start, part)
            if kept is None or len(kept) < len(part):
                await reply.write((kept or b"")[: len(part)])
                request.transport.abort()
                return reply
            part = kept
        await reply.write(part)
        await reply.write_eof()
        return reply

    async def _put(self, request: web.Request) -> web.StreamResponse:
        parts = [chunk async for chunk in request.content.iter_any()]
        self.stored[request.path] = b"".join(parts)
        return web.Response(status=201)


@contextlib.asynccontextmanager
async def moody(content: bytes) -> AsyncIterator[Moody]:
    """The server, for as long as the block lasts."""
    mine = Moody(content)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", mine.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    mine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield mine
    finally:
        await runner.cleanup()


def bytes_of(seed: int, size: int) -> bytes:
    """The same bytes for the same seed."""
    return random.Random(seed).randbytes(size)


def run(work):
    """Run a coroutine to its end."""
    return asyncio.run(work)
