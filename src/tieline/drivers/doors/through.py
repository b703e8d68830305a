"""Through: a door at the other end of a relay's stream, for a site that listens to nobody.

The site hands the stream to its door as one more connection; the caller's HTTP client dials a socket in a folder of its
own, and every connection there becomes a stream. Passes and knocks are what they are at an open door.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tieline.drivers.http import HttpClient
from tieline.model.error import TielineError
from tieline.model.relay import MESSAGE_BYTES, Channel, RelayView, StreamBody

if TYPE_CHECKING:
    import aiohttp

PIECE_BYTES = 32_768
STREAMS = 8  # of one caller to one site


async def join_door(stream: aiohttp.ClientWebSocketResponse, door: Callable[[], asyncio.BaseProtocol]) -> None:
    """The site's end: a stream becomes a connection of ``door`` until either has enough."""
    inner, outer = socket.socketpair()
    inner.setblocking(False)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(door, inner)
    reader, writer = await asyncio.open_connection(sock=outer)
    try:
        await _both(stream, reader, writer, Channel.INPUT, Channel.OUTPUT)
    finally:
        writer.close()
        transport.close()


@contextlib.asynccontextmanager
async def relayed_door(exchange: HttpClient, site: str, door_pass: str) -> AsyncIterator[Through]:
    """A client of the door of ``site`` through the relay of ``exchange``. Raises TielineError."""
    path = f"/v1/sites/{site.replace('/', '~')}/streams"
    room = asyncio.Semaphore(STREAMS)
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with room:
                view = await exchange.call("POST", path, RelayView, body=StreamBody(door_pass=door_pass), key=None)
                async with exchange.websocket(f"/v1/relay/{view.stream}", limit_bytes=MESSAGE_BYTES) as stream:
                    await _both(stream, reader, writer, Channel.OUTPUT, Channel.INPUT)
        except (TielineError, ConnectionError):  # the client above sees its connection end
            pass
        finally:
            writer.close()

    def began(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(carry(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with tempfile.TemporaryDirectory(prefix="tieline-door-") as folder:
        where = str(Path(folder, "door"))
        server = await asyncio.start_unix_server(began, where)
        client = Through(where)
        try:
            yield client
        finally:
            await client.close()
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Through(HttpClient):
    """The one HTTP client, over a socket of this machine."""

    def __init__(self, where: str) -> None:
        super().__init__("http://door", attempts=1)
        self.where = where

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self.where), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


async def _both(
    stream: aiohttp.ClientWebSocketResponse,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    taken: Channel,
    given: Channel,
) -> None:
    """Bytes both ways until one side ends."""

    async def out() -> None:
        while data := await reader.read(PIECE_BYTES):
            await stream.send_bytes(bytes([given]) + data)

    async def back() -> None:
        from aiohttp import WSMsgType

        async for message in stream:
            if message.type is not WSMsgType.BINARY or message.data[:1] != bytes([taken]):
                return
            writer.write(message.data[1:])
            await writer.drain()

    tasks = [asyncio.create_task(out()), asyncio.create_task(back())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
