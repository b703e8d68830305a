"""A relay of bytes in front of an exchange that cuts or holds what it answers to some requests."""

from __future__ import annotations

import asyncio
import threading

from peer_world import Exchange


class Relay:
    """Listens in a thread of its own. ``marked``: the beginning of the request lines that it treats in its own way."""

    def __init__(self, real: Exchange, marked: bytes) -> None:
        self.real, self.marked = real, marked
        self.cuts = 0  # so often an answer to a marked request is cut ...
        self.after_bytes = 0  # ... after so many bytes
        self.is_held = False  # nothing of such an answer comes through
        self.is_cut = False  # nobody is reached through it
        self.heads: list[bytes] = []  # of marked requests
        self.down_bytes = 0  # of their answers
        self.loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._serving: dict[asyncio.Task[None], None] = {}
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._live(ready)), name="relay")
        self._thread.start()
        assert ready.wait(30)
        real.platform.url = self.url  # what the greeting says

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection, and take no other."""
        self.is_cut = True
        self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._serving])

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)
        self.loop.close()

    async def _live(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopping.wait()
        server.close()
        while tasks := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.05)  # aborted transports are closed on the next turns

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link, ends = _Link(self, writer), [writer]
        pumps: list[asyncio.Task[None]] = []
        this = asyncio.current_task()
        assert this is not None
        self._serving[this] = None
        try:
            if self.is_cut:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.real.port)
            ends.append(back)
            pumps = [asyncio.create_task(link.up(reader, back)), asyncio.create_task(link.down(there))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:  # nobody is there
            pass
        finally:
            del self._serving[this]
            for task in pumps:
                task.cancel()
            for each in ends:
                each.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)


class _Link:
    """One connection."""

    def __init__(self, relay: Relay, writer: asyncio.StreamWriter) -> None:
        self.relay, self.writer = relay, writer
        self.is_marked, self.seen_bytes = False, 0

    async def up(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if data.split(b" ", 1)[0] in (b"GET", b"HEAD", b"POST", b"PUT"):
                self.is_marked, self.seen_bytes = data.startswith(self.relay.marked), 0
                if self.is_marked:
                    self.relay.heads.append(data.split(b"\r\n\r\n")[0])
            back.write(data)
            await back.drain()

    async def down(self, there: asyncio.StreamReader) -> None:
        relay = self.relay
        while data := await there.read(2**16):
            while self.is_marked and relay.is_held:  # noqa: ASYNC110 - another thread says so
                await asyncio.sleep(0.05)
            if self.is_marked and relay.cuts:
                data = data[: max(0, relay.after_bytes - self.seen_bytes)]
            self.seen_bytes += len(data)
            relay.down_bytes += len(data) if self.is_marked else 0
            self.writer.write(data)
            await self.writer.drain()
            if self.is_marked and relay.cuts and self.seen_bytes >= relay.after_bytes:
                relay.cuts -= 1
                return
