"""A peer that lies: it passes calls on to a real exchange and twists what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from peer_world import Exchange

Twist = Callable[[web.Request, "Said"], Awaitable[web.StreamResponse | None]]
HOP = ("transfer-encoding", "content-length", "connection", "content-encoding", "date", "server")


class Said:
    """What the real exchange answered, and how to say something else in the same form."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def head(self) -> dict[str, Any]:
        return json.loads(self.body.split(b"\n", 1)[0])

    @property
    def lines(self) -> list[bytes]:
        return self.body.split(b"\n")[1:-1]

    def page(self, lines: list[bytes], **head: Any) -> web.Response:
        """Another page whose count and hash fit it, unless ``head`` says otherwise."""
        body = b"".join(line + b"\n" for line in lines)
        fitting = {"count": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
        said = json.dumps({**self.head, **fitting, **head}).encode()
        return web.Response(status=self.status, headers=self.headers, body=said + b"\n" + body)

    def plain(self) -> web.Response:
        return web.Response(status=self.status, headers=self.headers, body=self.body)


class Liar:
    """A server in a thread of its own, in front of ``real``. ``twist`` may answer instead, or give None to pass on."""

    def __init__(self, real: Exchange) -> None:
        self.real = real
        self.twist: Twist | None = None
        self.calls: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.stopping: asyncio.Event | None = None
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._live(ready)), name="liar")
        self.thread.start()
        assert ready.wait(30)
        real.platform.url = self.url  # what the greeting says

    async def _live(self, ready: threading.Event) -> None:
        self.stopping = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.session = aiohttp.ClientSession(auto_decompress=True)
        ready.set()
        await self.stopping.wait()
        await self.session.close()
        await runner.cleanup()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def stop(self) -> None:
        assert self.stopping is not None
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(30)
        self.loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(request.path)
        body = await request.read()
        url = self.real.url + request.path_qs
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            async with self.session.request(
                request.method,
                url,
                headers=request.headers,
                data=body or None,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
                if "text/event-stream" in answer.headers.get("Content-Type", ""):
                    return await self._passed_on(request, answer, headers)
                said = Said(answer.status, headers, await answer.read())
                twisted = await self.twist(request, said) if self.twist is not None else None
                return twisted if twisted is not None else said.plain()
        return web.Response(status=502)

    async def _passed_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        if self.twist is not None:
            twisted = await self.twist(request, Said(answer.status, headers, b""))
            if twisted is not None:
                return twisted
        out = web.StreamResponse(status=answer.status, headers=headers)
        await out.prepare(request)
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for chunk in answer.content.iter_any():
                await out.write(chunk)
        return out
