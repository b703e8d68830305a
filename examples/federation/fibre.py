"""Fibre: a TCP line between two exchanges that can be cut and mended, as a digger and a repair team would do."""

from __future__ import annotations

import asyncio
import contextlib

CHUNK_BYTES = 65_536


class Fibre:
    """Passes bytes on to ``target``. While it is cut, what is open hangs and what is new is refused."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.whole = asyncio.Event()
        self.whole.set()
        self.server: asyncio.Server | None = None
        self.open: dict[asyncio.Task[None], None] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> Fibre:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        self.whole.clear()
        assert self.server is not None
        self.server.close()

    async def mend(self) -> None:
        """As before, for new connections; what hung is gone."""
        for task in tuple(self.open):
            task.cancel()
        self.whole.set()
        await self.start()

    async def close(self) -> None:
        """Before the exchanges end: they need not wait for connections that lead nowhere."""
        if self.server is not None:
            self.server.close()
        tasks = tuple(self.open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open[task] = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.open.pop(task, None)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self.whole.wait()
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
