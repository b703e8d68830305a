"""Exchanges of the product's own command line as processes of their own, peered with each other, on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.plain_world import OPEN_RATES, spawn
from tieline.cli.processes import Started, await_file, end, is_alive
from tieline.drivers.http import HttpClient
from tieline.model.api import RecordBody
from tieline.model.peering import BranchPage, BranchView, PeerAddBody, PeerGrantBody
from tieline.model.record import Record
from tieline.registry import Key, sign
from tieline.registry.serving import TailLine

UP_S = 60.0


@dataclass
class Exchange:
    """One process. ``seen`` holds when a record was first heard on its own tail, by our clock."""

    folder: Path
    prefix: str
    url: str = ""
    started: Started | None = None
    seen: dict[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its identifier."""
        return f"{self.prefix}/exchange/main"

    def open(self, public_url: str = "", port: int = 0) -> Exchange:
        """Start it, and wait until it answers."""
        home, log = self.folder / self.prefix, self.folder / f"{self.prefix}.log"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "limits.json").write_bytes(msgspec.json.encode(OPEN_RATES))
        options = ["--prefix", self.prefix, "--port", str(port)]
        options += ["--public-url", public_url] if public_url else []
        self.started = spawn(self.prefix, ["tieline.cli", "exchange-process", str(home), *options], log)
        self.url = await_file(home / "address", self.started, log)
        self.http = HttpClient(self.url, bearer=(home / "admin.token").read_text().strip())
        seed = msgspec.json.decode((home / "exchange.json").read_bytes())["seed"]
        self.key = Key(base64.b64decode(seed))
        return self

    async def publish(self, name: str) -> str:
        """A record that the exchange signs itself."""
        now_s = int(time.time())
        identifier = f"{self.prefix}/dataset/{name}"
        record = Record(id=identifier, kind="dataset", rev=1, nb=now_s - 60, exp=now_s + 86_400, spec={"size_bytes": 1})
        envelope = sign(record, self.key, f"{self.prefix}#exchange").decode()
        await self.http.raw("POST", "/v1/records", body=RecordBody(envelope=envelope))
        return identifier

    async def watch(self) -> None:
        """Note when each record is first said by this exchange's own tail."""
        decoder = msgspec.json.Decoder(TailLine)
        while True:
            with contextlib.suppress(Exception):
                async for event in self.http.listen("/v1/tail"):
                    at_s = time.perf_counter()
                    for line in decoder.decode(event.data).body.split(b"\n")[:-1]:
                        payload = msgspec.json.decode(line)["payload"]
                        name = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["id"]
                        self.seen.setdefault(name, at_s)
            await asyncio.sleep(0.2)

    async def add(self, url: str, role: str, *, is_elsewhere: bool = False) -> BranchView:
        """Ask the exchange at ``url`` to peer."""
        body = PeerAddBody(url=url, role=role, is_elsewhere=is_elsewhere)  # type: ignore[arg-type]
        return await self.http.call("POST", "/v1/peers", BranchView, body=body)

    async def accept(self, other: Exchange) -> None:
        """Say yes."""
        name = other.id.replace("/", "~")
        await self.http.call("POST", f"/v1/peers/{name}/accept", BranchView, body=PeerGrantBody())

    async def branch(self, other: Exchange) -> BranchView:
        """How a branch stands."""
        page = await self.http.call("GET", "/v1/peers", BranchPage)
        return next(each for each in page.branches if each.exchange == other.id)

    async def close(self) -> None:
        """End it."""
        await self.http.close()
        if self.started is not None and is_alive(self.started):
            await asyncio.to_thread(end, self.started, 5)


async def linked(up: Exchange, down: Exchange, url: str = "") -> None:
    """``down`` asks ``up``, ``up`` accepts; wait until both follow each other."""
    await down.add(url or up.url, "parent", is_elsewhere=bool(url))
    await up.accept(down)
    end_s = time.monotonic() + UP_S
    while not ((await up.branch(down)).is_listening and (await down.branch(up)).is_listening):
        if time.monotonic() > end_s:
            raise AssertionError(f"{down.id} and {up.id} do not follow each other within {UP_S:.0f} s")
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def opened(folder: Path, *prefixes: str) -> AsyncIterator[list[Exchange]]:
    """Exchanges by prefix, each watched; all end with the block."""
    made: list[Exchange] = []
    watching: list[asyncio.Task[Any]] = []
    try:
        for prefix in prefixes:
            made.append(await asyncio.to_thread(Exchange(folder, prefix).open))
            watching.append(asyncio.create_task(made[-1].watch()))
        yield made
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in made))
        shutil.rmtree(folder, ignore_errors=True)


async def until_seen(exchange: Exchange, name: str, patience_s: float) -> None:
    """Wait until an exchange has said a record."""
    end_s = time.monotonic() + patience_s
    while name not in exchange.seen:
        if time.monotonic() > end_s:
            raise AssertionError(f"`{name}` did not reach {exchange.id} within {patience_s:.0f} s")
        await asyncio.sleep(0.005)
