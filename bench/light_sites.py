"""Many sites in one process, each with its own key, session, stream of orders and signed heartbeats.

Each dials the exchange twice, as a site process does: one connection for the stream, one for what it says. They come
back as a site process does, with the same jitter. They accept what they are offered and say that it runs, for ever, and
run nothing. Once a second a line of JSON says how they stand.

    python -m bench.light_sites URL FIRST COUNT
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.scale_world import CARDS, POOLS_OF_SITE, secret_of, site_name
from tieline.drivers.http.backoff import Backoff
from tieline.model.protocol import (
    PROTOCOL,
    Accepted,
    Batch,
    Beat,
    Beaten,
    Ended,
    Hello,
    Offer,
    Orders,
    PoolBeat,
    Reports,
    Resync,
    Signed,
    Started,
    Stop,
    Welcome,
)
from tieline.registry import sign_statement

HELLO_S = 15.0
SILENCE_S = 40.0
RETRY_S = 5.0
decode_welcome = msgspec.json.Decoder(Welcome).decode
decode_order = msgspec.json.Decoder(Orders).decode
decode_beaten = msgspec.json.Decoder(Beaten).decode
encode = msgspec.json.encode


class Counts(msgspec.Struct):
    """How the sites of this process stand. Times are seconds since it began."""

    at_s: float = 0.0
    connected: int = 0
    runs: int = 0
    beats: int = 0
    refused: int = 0  # answers that were not 2xx
    broken: int = 0  # connections that broke
    slowest_ms: float = 0.0  # answer to a heartbeat, since the last line
    cpu_s: float = 0.0
    why: str = ""  # the newest one broke


class RefusedError(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, retry_s: float) -> None:
        super().__init__(f"status {status}")
        self.retry_s = retry_s


class Wire:
    """One HTTP/1.1 connection that is kept."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, path: str, body: bytes, bearer: str) -> bytes:
        """The body of the answer. Raises RefusedError, or OSError and EOFError when the connection breaks."""
        reader = await self.send(method, path, body, bearer)
        status, heads = await head_of(reader)
        content = await reader.readexactly(int(heads.get(b"content-length", b"0")))
        if status >= 300:
            raise RefusedError(status, float(heads.get(b"retry-after", b"0")))
        return content

    async def send(self, method: str, path: str, body: bytes, bearer: str) -> asyncio.StreamReader:
        """Ask; the answer is to be read."""
        if self.writer is None or self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=2**18)
        right = f"authorization: Bearer {bearer}\r\n" if bearer else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n{right}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        return self.reader

    def close(self) -> None:
        """Hang up."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return int(first.split(b" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}


class LightSite:
    """One site."""

    def __init__(self, number: int, host: str, port: int, counts: Counts) -> None:
        self.name = site_name(number)
        self.kid = f"{self.name.partition('/')[0]}#site"
        self.key = secret_of(number)
        self.said, self.heard = Wire(host, port), Wire(host, port)
        self.counts = counts
        self.talking = asyncio.Lock()
        self.backoff = Backoff(first_s=0.2, most_s=RETRY_S)
        owner = self.name.partition("/")[0]
        self.pools = tuple(
            PoolBeat(pool=f"{owner}/pool/s{number}-{at}", accelerators=CARDS, cores=64, memory_bytes=512 * 10**9)
            for at in range(POOLS_OF_SITE)
        )
        self.seq = 0
        self.runs: dict[str, int] = {}  # with their epochs
        self.orders: asyncio.Queue[Orders] = asyncio.Queue()

    async def run(self, first_s: float) -> None:
        """Hold a session for ever; the first hello comes after ``first_s``."""
        await asyncio.sleep(first_s)
        while True:
            least_s = 0.0
            try:
                await self.live()
            except RefusedError as refused:
                self.counts.refused += 1
                least_s = refused.retry_s
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.counts.broken += 1
                self.counts.why = f"{type(error).__name__}: {error}"
            finally:
                self.said.close()
                self.heard.close()
            await asyncio.sleep(least_s + self.backoff.next_s())

    async def live(self) -> None:
        """One session."""
        hello = Hello(site=self.name, nonce=os.urandom(16).hex(), at_ms=now_ms(), protocols=(PROTOCOL,))
        async with asyncio.timeout(HELLO_S):
            welcome = decode_welcome(await self.said.call("POST", "/v1/site/sessions", self.signed(hello, "hello"), ""))
            self.backoff.most_s = min(30.0, max(1.0, welcome.lease_ms / 2_000))
            path = f"/v1/site/stream?after={welcome.cursor}"
            reader = await self.heard.send("GET", path, b"", welcome.bearer)
            status, heads = await head_of(reader)
        if status != 200:
            raise RefusedError(status, float(heads.get(b"retry-after", b"0")))
        self.counts.connected += 1
        self.backoff.reset()
        self.orders = asyncio.Queue()
        known = {order.run: order.epoch for order in welcome.orders if isinstance(order, Offer)}
        self.counts.runs -= len(self.runs)
        self.runs = {run: epoch for run, epoch in self.runs.items() if known.get(run) == epoch}
        self.counts.runs += len(self.runs)
        for order in welcome.orders:
            self.orders.put_nowait(order)
        try:
            await either(self.beat(welcome), self.listen(reader), self.answer(welcome.bearer))
        finally:
            self.counts.connected -= 1

    async def beat(self, welcome: Welcome) -> None:
        """Say for ever that it is alive."""
        every_s = welcome.beat_ms / 1_000
        while True:
            self.seq = max(self.seq + 1, now_ms())
            beat = Beat(site=self.name, seq=self.seq, at_ms=now_ms(), pools=self.pools, runs=tuple(self.runs))
            began = time.perf_counter()
            async with asyncio.timeout(10):
                async with self.talking:
                    answer = await self.said.call(
                        "POST", "/v1/site/heartbeat", self.signed(beat, "beat"), welcome.bearer
                    )
            took_ms = (time.perf_counter() - began) * 1_000
            self.counts.slowest_ms = max(self.counts.slowest_ms, took_ms)
            self.counts.beats += 1
            for run in decode_beaten(answer).stale:
                self.counts.runs -= self.runs.pop(run, None) is not None
            await asyncio.sleep(every_s)

    async def answer(self, bearer: str) -> None:
        """Say yes to every offer, and that it runs."""
        while True:
            order = await self.orders.get()
            reports: tuple[Reports, ...] = ()
            if isinstance(order, Offer) and order.run not in self.runs:
                self.runs[order.run] = order.epoch
                self.counts.runs += 1
                accepted = Accepted(run=order.run, epoch=order.epoch, sandbox="bubblewrap", network="host")
                reports = accepted, Started(run=order.run, epoch=order.epoch, at_ms=now_ms())
            elif isinstance(order, Stop) and self.runs.pop(order.run, None) is not None:
                self.counts.runs -= 1
                reports = (Ended(run=order.run, epoch=order.epoch, state="stopped"),)
            elif isinstance(order, Resync):
                raise EOFError(order.why)
            if reports:
                async with asyncio.timeout(10), self.talking:
                    await self.said.call("POST", "/v1/site/reports", encode(Batch(reports=reports)), bearer)

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take what comes until it ends."""
        while True:
            async with asyncio.timeout(SILENCE_S):
                line = await reader.readline()
            if not line:
                raise EOFError
            if line.startswith(b"data: "):
                self.orders.put_nowait(decode_order(line[6:]))

    def signed(self, statement: Any, kind: str) -> bytes:
        """The body of a request with a signed statement."""
        return encode(Signed(statement=sign_statement(statement, self.key, self.kid, f"site-{kind}").decode()))


async def either(*parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts until one ends, and raise what it raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


async def run(url: str, first: int, count: int) -> None:
    """Hold ``count`` sites until SIGTERM."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    counts = Counts()
    began = time.monotonic()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    sites = [LightSite(first + at, address.hostname, address.port, counts) for at in range(count)]
    tasks = [asyncio.create_task(site.run(10.0 * at / count)) for at, site in enumerate(sites)]
    while not over.is_set():
        counts.at_s, counts.cpu_s = round(time.monotonic() - began, 2), time.process_time()
        print(encode(counts).decode(), flush=True)
        counts.slowest_ms = 0.0
        try:
            async with asyncio.timeout(1):
                await over.wait()
        except TimeoutError:
            continue
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
