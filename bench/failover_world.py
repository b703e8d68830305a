"""Several exchange processes on one real PostgreSQL, behind one address that a small balancer keeps."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.plain_world import OPEN_RATES, PREFIX, ROOT, PlainWorld, spawn
from tieline.cli.processes import Started, await_file, end, is_alive, kill
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.leadership import Leader
from tieline.model.error import TielineError

sys.path.append(str(ROOT / "tests"))
from postgres import Postgres

CHECK_S = 0.5
ANSWER_S = 1.0  # an exchange that has not said that it is ready by then is left out
LED_S = 60.0
LEADS = re.compile(r'"time":"([^"]+)"[^\n]*this process leads, as writer ([0-9]+) ')


class Balancer:
    """One TCP address before several: new connections go to who is ready; who is not loses those that it has."""

    def __init__(self) -> None:
        self.backends: dict[str, bool] = {}  # "host:port" -> ready
        self._open: dict[str, set[asyncio.StreamWriter]] = {}
        self._pick = random.Random(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="balancer", daemon=True)
        self._started = threading.Event()

    def start(self) -> str:
        """Its URL."""
        self._thread.start()
        self._started.wait(30)
        return f"http://127.0.0.1:{self.port}"

    def add(self, url: str) -> None:
        """One more backend."""
        self.backends[url.rpartition("/")[2]] = True

    def close(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._relay, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        checking = self._loop.create_task(self._check())
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in [checking, *asyncio.all_tasks(self._loop)]:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self._loop), return_exceptions=True))
        self._loop.close()

    async def _check(self) -> None:
        while True:
            for name in list(self.backends):
                is_ready = await _is_ready(name)
                self.backends[name] = is_ready
                if not is_ready:
                    for writer in self._open.pop(name, set()):
                        writer.transport.abort()
            await asyncio.sleep(CHECK_S)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names = [name for name, is_ready in self.backends.items() if is_ready]
        self._pick.shuffle(names)
        for name in names:
            host, _, port = name.rpartition(":")
            try:
                async with asyncio.timeout(ANSWER_S):
                    far_reader, far_writer = await asyncio.open_connection(host, int(port))
            except (OSError, TimeoutError):
                continue
            both = (writer, far_writer)
            self._open.setdefault(name, set()).update(both)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer), return_exceptions=True)
            self._open.get(name, set()).difference_update(both)
            return
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


async def _is_ready(name: str) -> bool:
    host, _, port = name.rpartition(":")
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


@dataclass
class FailoverWorld(PlainWorld):
    """``count`` processes; `url` is the balancer's."""

    count: int = 3
    processes: dict[int, Started] = field(default_factory=dict)
    addresses: dict[int, str] = field(default_factory=dict)

    def open(self) -> None:
        """Start the database, the balancer and the processes; the first one makes the exchange."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.postgres = Postgres(is_durable=True)
        self.store = self.postgres.url(self.postgres.database(is_made=False))
        self.balancer = Balancer()
        self.url = self.balancer.start()
        (self.folder / "shared").mkdir()
        self.start(0)
        with ThreadPoolExecutor(self.count) as threads:
            list(threads.map(self.start, range(1, self.count)))
        self.admin = (self.home_of(0) / "admin.token").read_text().strip()
        self.follower = Follower(self.store).open()

    def home_of(self, number: int) -> Path:
        """The folder of a process."""
        return self.folder / f"x{number}"

    def start(self, number: int) -> None:
        """Start a process, and wait until it answers. It has what makes it the same exchange as the first one."""
        home, log = self.home_of(number), self.folder / f"x{number}.log"
        home.mkdir(exist_ok=True, mode=0o700)
        (home / "limits.json").write_bytes(msgspec.json.encode({**OPEN_RATES, **self.limits}))
        if number and not (home / "exchange.json").exists():
            shutil.copy(self.home_of(0) / "exchange.json", home)
        (home / "address").unlink(missing_ok=True)
        port = self.addresses.get(number, ":0").rpartition(":")[2]
        arguments = [*self.exchange_command, "exchange-process", str(home), "--prefix", PREFIX, "--store", self.store]
        arguments += ["--shared", str(self.folder / "shared"), "--public-url", self.url, "--port", port]
        self.processes[number] = spawn(f"x{number}", arguments, log)
        self.addresses[number] = await_file(home / "address", self.processes[number], log)
        self.balancer.add(self.addresses[number])

    def leader(self) -> tuple[int, Leader]:
        """Which process leads, and what it says of itself; waits until one does and lives."""
        deadline = time.monotonic() + LED_S
        while True:
            try:
                seen = self.follower.seen()
            except TielineError:
                seen = None
            if seen is not None and seen.leader is not None and seen.holder and seen.leader.term == seen.term:
                for number, address in self.addresses.items():
                    if address == seen.leader.url and is_alive(self.processes[number]):
                        return number, seen.leader
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody leads: {seen}")
            time.sleep(0.02)

    def kill(self, number: int) -> None:
        """SIGKILL."""
        kill(self.processes[number])

    def signal(self, number: int, what: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        os.kill(self.processes[number].pid, what)

    def terms(self) -> list[tuple[str, int, int]]:
        """Who began to lead: time, term, process; in order of time."""
        found = []
        for number in self.processes:
            text = (self.folder / f"x{number}.log").read_text()
            found += [(time_, int(term), number) for time_, term in LEADS.findall(text)]
        return sorted(found)

    def close(self, *, is_removed: bool = True) -> None:
        """End every process that was started here, and remove the folder."""
        for started in (*self.sites.values(), *self.processes.values()):
            if is_alive(started):
                os.kill(started.pid, signal.SIGCONT)
                end(started, 10)
        if hasattr(self, "follower"):
            self.follower.close()
        self.balancer.close()
        self.postgres.remove()
        super().close(is_removed=is_removed)
