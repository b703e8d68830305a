"""Two exchanges cut apart for 60 s while records go on being stored; how long after the heal the other has them all.

The cut is a relay between the two that stops passing bytes on: connections that were open hang, new ones are refused.
``TIELINE_BENCH_CUT_S`` makes the cut shorter (or longer).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

from bench.peer_world import Exchange, opened, until_seen
from bench.row import Row

CUT_S = float(os.environ.get("TIELINE_BENCH_CUT_S", "60"))
TURNS = 3 if CUT_S >= 30 else 5
EVERY_S = 0.25
PATIENCE_S = 120.0


class Relay:
    """A TCP relay that can be cut."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.is_cut = False
        self.server: asyncio.Server | None = None
        self.port = 0
        self.open: dict[asyncio.Task[None], None] = {}

    async def start(self) -> Relay:
        """Listen."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def cut(self) -> None:
        """Pass nothing on, and take no new connection."""
        self.is_cut = True
        assert self.server is not None
        self.server.close()

    async def heal(self) -> None:
        """As before, for new connections; what hung has died meanwhile."""
        self.is_cut = False
        for task in self.open:
            task.cancel()
        await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open[task] = None
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await asyncio.gather(self._pass(reader, other_writer), self._pass(other_reader, writer))
            finally:
                other_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.open.pop(task, None)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            while self.is_cut:  # noqa: ASYNC110 - a cut that nobody announces
                await asyncio.sleep(0.05)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


def run() -> list[Row]:
    """One row: from the heal until everything that was stored during the cut is kept at the other side."""
    waits, records = asyncio.run(_measured())
    return [
        Row(
            claim=f"partition_heal: caught up after a cut of {CUT_S:g} s",
            figure=median(waits),
            unit="s",
            target="2 s",
            note=f"{records} records each time, median of {len(waits)}, {min(waits):.2f} to {max(waits):.2f} s",
        )
    ]


async def _measured() -> tuple[list[float], int]:
    async with opened(Path(mkdtemp(prefix="tieline-bench-")), "cn", "cn.sh") as (hub, region):
        to_hub = await Relay(int(hub.url.rpartition(":")[2])).start()
        to_region = await Relay(int(region.url.rpartition(":")[2])).start()
        await hub.add(f"http://127.0.0.1:{to_region.port}", "child", is_elsewhere=True)
        await region.add(f"http://127.0.0.1:{to_hub.port}", "parent", is_elsewhere=True)
        await follow(hub, region)
        waits, count = [], 0
        for turn in range(TURNS):
            await to_hub.cut()
            await to_region.cut()
            end_s, names = time.monotonic() + CUT_S, []
            while time.monotonic() < end_s:
                names.append(await region.publish(f"t{turn}-{len(names)}"))
                await asyncio.sleep(EVERY_S)
            if any(name in hub.seen for name in names):
                raise AssertionError("the cut leaks")
            await to_hub.heal()
            await to_region.heal()
            began_s = time.perf_counter()
            for name in names:
                await until_seen(hub, name, PATIENCE_S)
            waits.append(max(hub.seen[name] for name in names) - began_s)
            count = len(names)
        return waits, count


async def follow(hub: Exchange, region: Exchange) -> None:
    """Wait until both listen to each other."""
    end_s = time.monotonic() + PATIENCE_S
    while not ((await hub.branch(region)).is_listening and (await region.branch(hub)).is_listening):
        if time.monotonic() > end_s:
            raise AssertionError("the two do not follow each other")
        await asyncio.sleep(0.05)
