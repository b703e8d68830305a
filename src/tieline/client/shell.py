"""Shell: a command beside a job's run, or a port of it, as the caller sees them: bytes both ways through the relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from tieline.client.asynchronous import AsyncClient, in_path
from tieline.model.error import TielineError
from tieline.model.relay import MESSAGE_BYTES, Channel, Notice, RelayView, ShellBody

if TYPE_CHECKING:
    import aiohttp

PIECE_BYTES = 32_768
CONNECTIONS = 32  # to one forwarded port at once


class Shell:
    """One open stream. ``exit_code`` is known once `output` has ended."""

    def __init__(self, stream: aiohttp.ClientWebSocketResponse) -> None:
        self._stream = stream
        self.exit_code = -1

    async def write(self, data: bytes) -> None:
        """Its input. Raises ConnectionError where it has ended."""
        await self._stream.send_bytes(bytes([Channel.INPUT]) + data)

    async def end_input(self) -> None:
        """No more comes."""
        await self._say(Notice(is_end=True))

    async def resize(self, rows: int, columns: int) -> None:
        """The caller's terminal has another size."""
        await self._say(Notice(rows=rows, columns=columns))

    async def _say(self, notice: Notice) -> None:
        await self._stream.send_str(msgspec.json.encode(notice).decode())

    async def output(self) -> AsyncIterator[tuple[Channel, bytes]]:
        """What it says, until it has ended. Raises TielineError where it could not be run, or the stream broke."""
        from aiohttp import WSMsgType

        async for message in self._stream:
            if message.type is WSMsgType.TEXT:
                try:
                    said = msgspec.json.decode(message.data, type=Notice)
                except msgspec.MsgspecError:
                    raise TielineError(
                        "check_failed", "the site said what nobody says at the end of a stream"
                    ) from None
                if said.error:
                    raise TielineError("conflict", said.error)
                self.exit_code = said.exit_code
                return
            if message.type is WSMsgType.BINARY and message.data:
                channel = Channel.ERRORS if message.data[0] == Channel.ERRORS else Channel.OUTPUT
                yield channel, message.data[1:]
        raise TielineError(
            "site_unreachable", f"the stream broke (code {self._stream.close_code}) before the command ended"
        )


@contextlib.asynccontextmanager
async def opened_shell(client: AsyncClient, job: str, body: ShellBody) -> AsyncIterator[Shell]:
    """Run a command beside the job's run, or reach a port of it. Raises TielineError."""
    path = f"/v1/jobs/{in_path(job)}/shells"
    view = await client.http.call("POST", path, RelayView, body=body, key=None)
    async with client.http.websocket(f"/v1/relay/{view.stream}", limit_bytes=MESSAGE_BYTES) as stream:
        yield Shell(stream)


async def listening(client: AsyncClient, job: str, node: int, local: int, remote: int) -> asyncio.Server:
    """Listen at ``local`` on this machine alone, and carry every connection to port ``remote`` of the job's run."""
    room = asyncio.Semaphore(CONNECTIONS)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with room:
            try:
                async with opened_shell(client, job, ShellBody(port=remote, node=node)) as shell:
                    await _both(shell, reader, writer)
            except (TielineError, ConnectionError):  # the peer sees its connection end; the next one may do better
                pass
            finally:
                writer.close()

    return await asyncio.start_server(carry, "127.0.0.1", local)


async def _both(shell: Shell, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def out() -> None:
        while data := await reader.read(PIECE_BYTES):
            await shell.write(data)
        await shell.end_input()

    sending = asyncio.create_task(out())
    try:
        async for channel, data in shell.output():
            if channel is Channel.OUTPUT:
                writer.write(data)
                await writer.drain()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
