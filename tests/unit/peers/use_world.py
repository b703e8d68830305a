"""Sites with real processes below exchanges of `peer_world`, and what an admin's client asks of these exchanges."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from peer_world import ADMIN, Exchange, until
from tieline.cli.processes import Started, end, kill, spawn_site
from tieline.client import AsyncClient
from tieline.drivers.peers.puller import Puller
from tieline.drivers.peers.use import Use
from tieline.drivers.siteprocess import join_site
from tieline.model.limits import Limits
from tieline.model.party import Role

MAKERS = (Puller, Use)
LIMITS = Limits(
    requests_per_s=1_000_000, requests_burst=1_000_000, beat_ms=500, lease_ms=6_000, tick_ms=100, branch_lost_ms=600_000
)
SITE = """\
title: a site
tier: edge
region: shanghai
pools:
  - name: cpu
    cores: 4
    memory: 2GB
    price: 3600
"""


class Site:
    """A site process of an owner below an exchange."""

    def __init__(self, exchange: Exchange, folder: Path, owner: str = "lab", name: str = "lab7") -> None:
        self.exchange, self.folder = exchange, folder
        self.id = f"{exchange.prefix}.{owner}/site/{name}"
        self.process: Started | None = None
        folder.mkdir(parents=True)
        (folder / "site.yaml").write_text(SITE)

        async def join() -> None:
            async with AsyncClient(exchange.url, ADMIN) as client:
                made = await client.create_token("join", [Role.JOIN], owner=owner, ttl_s=600, uses=1)
            await join_site(folder, token=made.secret, owner=owner, name=name)

        asyncio.run(join())
        self.start()

    def start(self) -> None:
        self.process = spawn_site("site", self.folder, self.folder / "site.log")

    def is_heard(self) -> bool:
        site = self.exchange.view.sites.get(self.id)
        return site is not None and site.is_admitted and not site.is_silent and bool(self.exchange.view.heard_ms)

    def kill(self) -> None:
        assert self.process is not None
        kill(self.process)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)


def placeable(exchange: Exchange, site: str) -> bool:
    """Whether the exchange knows of something free at a site behind a peer."""
    pools = exchange.view.supply.pools
    rows = list(pools.site_pools(site))
    return bool(rows) and site in exchange.view.remote_sites and pools.free(rows[0].id).cores > 0


def used(a: Exchange, b: Exchange, folder: Path) -> Site:
    """A site of ``b``, once the users of ``a`` may be placed there."""
    assert a.add(b).status_code < 300
    assert b.accept(a, may_use=True).status_code < 300
    until(lambda: a.is_active(b) and b.is_active(a))
    site = Site(b, folder)
    until(lambda: placeable(a, site.id), why=lambda: str(a.branch(b)) + (folder / "site.log").read_text())
    return site


def ask(exchange: Exchange, work: Any) -> Any:
    """What ``work(client)`` gives, as the admin of ``exchange``."""

    async def call() -> Any:
        async with AsyncClient(exchange.url, ADMIN) as client:
            return await work(client)

    return asyncio.run(call())


def submit(exchange: Exchange, **task: Any) -> str:
    """The identifier of a new job."""
    answer = exchange.http.post("/v1/jobs", json={"tasks": [task]})
    assert answer.status_code < 300, answer.text
    return str(answer.json()["jobs"][0]["id"])


def job(exchange: Exchange, name: str) -> dict[str, Any]:
    """The job with its runs."""
    found: dict[str, Any] = exchange.http.get(f"/v1/jobs/{name.replace('/', '~')}").json()
    return found


def ended(exchange: Exchange, name: str) -> dict[str, Any]:
    """The job once it is over."""
    over = ("succeeded", "failed", "cancelled")
    return until(
        lambda: (found := job(exchange, name))["job"]["state"] in over and found, 90, lambda: str(job(exchange, name))
    )


def log(exchange: Exchange, name: str) -> str:
    return exchange.http.get(f"/v1/jobs/{name.replace('/', '~')}/log").text


def lines(exchange: Exchange) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = exchange.http.get("/v1/usage").json()["lines"]
    return found
