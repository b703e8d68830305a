"""Exchanges and sites as processes that are killed and cut apart, and what is asked of them from outside."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import msgspec
from bench.plain_world import OPEN_RATES, spawn

from tieline.cli.processes import Started, await_file, end, kill, spawn_site
from tieline.client import AsyncClient
from tieline.drivers.siteprocess import join_site
from tieline.model.party import Role

ROOT = Path(__file__).parents[2]
sys.path.extend((str(ROOT / "tests" / "unit" / "peers"), str(ROOT / "examples" / "federation")))
from fibre import Fibre  # noqa: E402 - of the example, which is cut in the same way
from use_world import lines, until  # noqa: E402

# A silence is seen soon. Where a site is killed it gets time to come back, and what is behind it is not given up.
LIMITS = {**OPEN_RATES, "beat_ms": 500, "lease_ms": 3_000, "tick_ms": 100, "branch_lost_ms": 600_000}
PATIENT = {**LIMITS, "lease_ms": 60_000}
SITE = """\
title: a site
tier: edge
region: {name}
pools:
  - name: cpu
    cores: 4
    memory: 2GB
    price: 3600
    sandbox: optional
    policy: is_trusted or not is_trusted
"""


class Exchange:
    """One exchange as a process; `kill` and `start` are a power cut and a restart with the same folder and port."""

    def __init__(self, folder: Path, prefix: str, *, limits: dict[str, int], module: str = "tieline.cli") -> None:
        self.home, self.prefix, self.module = folder / prefix, prefix, module
        self.id = f"{prefix}/exchange/main"
        self.port = 0
        self.home.mkdir(parents=True, mode=0o700)
        (self.home / "limits.json").write_bytes(msgspec.json.encode(limits))

    def start(self) -> Exchange:
        log = self.home.with_suffix(".log")
        (self.home / "address").unlink(missing_ok=True)
        options = ["--prefix", self.prefix, "--port", str(self.port)]
        self.process: Started = spawn(self.prefix, [self.module, "exchange-process", str(self.home), *options], log)
        self.url = await_file(self.home / "address", self.process, log)
        self.port = int(self.url.rpartition(":")[2])
        self.token = (self.home / "admin.token").read_text().strip()
        self.http = httpx.Client(base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {self.token}"})
        self.public = str(self.http.get("/v1/exchange").json()["public"])
        return self

    def kill(self) -> None:
        kill(self.process)
        self.http.close()

    def stop(self) -> None:
        end(self.process, 5)
        self.http.close()

    def add(self, url: str, role: str, **fields: Any) -> None:
        answer = self.http.post("/v1/peers", json={"url": url, "role": role, "may_use": True, **fields})
        assert answer.status_code < 300, answer.text

    def accept(self, other: Exchange) -> None:
        answer = self.http.post(f"/v1/peers/{other.id.replace('/', '~')}/accept", json={"may_use": True})
        assert answer.status_code < 300, answer.text

    def branch(self, other: Exchange) -> dict[str, Any]:
        branches = self.http.get("/v1/peers").json()["branches"]
        found: dict[str, Any] = next(each for each in branches if each["exchange"] == other.id)
        return found

    def find(self, query: str) -> dict[str, Any]:
        body = {"query": query, "kind": "pool", "branch_budget_ms": 2_000}
        found: dict[str, Any] = self.http.post("/v1/find", json=body).json()
        return found

    def can_place(self, pool: str) -> bool:
        """Whether a plan would go there now."""
        task = {"name": "try", "run": "true", "resources": [{"where": f'id == "{pool}"', "core_count": 1}]}
        answer = self.http.post("/v1/plans", json={"tasks": [task]})
        plans = answer.json().get("plans", []) if answer.status_code < 300 else []
        return any(each["is_chosen"] for plan in plans for each in plan["candidates"])


class Site:
    """The site process of an owner below an exchange."""

    def __init__(self, exchange: Exchange, folder: Path, owner: str) -> None:
        self.folder = folder / owner
        self.pool = f"{exchange.prefix}.{owner}/pool/cpu"
        self.folder.mkdir(parents=True, mode=0o700)
        (self.folder / "site.yaml").write_text(SITE.format(name=owner))

        async def join() -> None:
            async with AsyncClient(exchange.url, exchange.token) as client:
                made = await client.create_token("join", [Role.JOIN], owner=owner, ttl_s=600, uses=1)
            await join_site(self.folder, token=made.secret, owner=owner, name="site")

        asyncio.run(join())
        self.start()

    def start(self) -> None:
        self.process = spawn_site("site", self.folder, self.folder.with_suffix(".log"))

    def kill(self) -> None:
        kill(self.process)

    def stop(self) -> None:
        end(self.process, 5)


class Line:
    """The line between two exchanges, both ways, as relays in a thread of their own."""

    def __init__(self, *exchanges: Exchange) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="line", daemon=True)
        self.thread.start()
        self.fibres = {each.id: self._do(self._started(each.port)) for each in exchanges}

    async def _started(self, port: int) -> Fibre:
        return await Fibre(port).start()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def to(self, exchange: Exchange) -> str:
        """Where the other one reaches ``exchange``."""
        return str(self.fibres[exchange.id].url)

    def cut(self) -> None:
        async def cut() -> None:
            for fibre in self.fibres.values():
                fibre.cut()

        self._do(cut())

    def mend(self) -> None:
        for fibre in self.fibres.values():
            self._do(fibre.mend())

    def close(self) -> None:
        for fibre in self.fibres.values():
            self._do(fibre.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        self.loop.close()


class World:
    """A national exchange with a site, a regional one below it, and below that a third, which claims too much.

    ::

        cn  site --- line --- cn.a --- cn.a.far  site
    """

    def __init__(self, folder: Path) -> None:
        self.hub = Exchange(folder, "cn", limits=PATIENT)
        self.region = Exchange(folder, "cn.a", limits=LIMITS)
        self.far = Exchange(folder, "cn.a.far", limits=PATIENT, module="tests.real.federation_planted")
        self.exchanges = (self.hub, self.region, self.far)
        self.sites: list[Site] = []
        self.line: Line | None = None
        try:
            self._open(folder)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path) -> None:
        threads = [threading.Thread(target=each.start) for each in self.exchanges]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        self.near_site, self.far_site = Site(self.hub, folder, "lab"), Site(self.far, folder, "mine")
        self.sites += [self.near_site, self.far_site]
        self.line = Line(self.hub, self.region)
        self.hub.add(self.line.to(self.region), "child", is_elsewhere=True)
        self.region.add(self.line.to(self.hub), "parent", is_elsewhere=True)
        self.far.add(self.region.url, "parent")
        self.region.accept(self.far)
        self.await_places()

    def await_places(self) -> None:
        """Until every pool can be placed on from where the tests do it."""
        for exchange in (self.hub, self.region):
            for site in self.sites:
                until(
                    lambda exchange=exchange, site=site: exchange.can_place(site.pool),
                    90,
                    lambda exchange=exchange, site=site: (
                        f"{exchange.id} {site.pool} {exchange.http.get('/v1/peers').text}"
                    ),
                )

    def keys(self) -> dict[str, str]:
        return {each.id: each.public for each in self.exchanges}

    def close(self) -> None:
        if self.line is not None:
            self.line.close()
        for each in (*self.sites, *self.exchanges):
            if hasattr(each, "process"):
                each.stop()


def books(payer: Exchange, run: str, owner: Exchange) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one line of a run at either side, once the side that ran it has heard what is paid."""

    def both() -> tuple[dict[str, Any], dict[str, Any]] | None:
        ours = [line for line in lines(payer) if line["run"] == run]
        assert len(ours) < 2, ours
        given = [line for line in lines(owner) if ours and line.get("given_claim") == ours[0]["claim"]]
        assert len(given) < 2, given
        return (ours[0], given[0]) if given and given[0].get("given_answer") else None

    found: tuple[dict[str, Any], dict[str, Any]] = until(both, 60, lambda: f"{lines(payer)} {lines(owner)}")
    return found
