"""Stage: one exchange and several sites as processes of their own in one folder, for the demo and the federation's.

Every site has its own owner, key, price and policy; they share nothing but the loopback interface.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tieline.cli.processes import Started, await_file, end, is_alive, kill, spawn, spawn_site
from tieline.client import AsyncClient
from tieline.model.error import TielineError
from tieline.model.party import Role

PREFIX = "cn.demo"
SITE_S = 30


@dataclass
class Actor:
    """One site of the stage: its folder and, while it runs, its process."""

    name: str
    owner: str
    folder: Path
    configuration: Path
    prefix: str = PREFIX  # of its exchange
    process: Started | None = None

    @property
    def id(self) -> str:
        """Its identifier."""
        return f"{self.prefix}.{self.owner}/site/{self.name}"


@dataclass
class Stage:
    """Everything is below ``folder``; `close` ends every process that was started here."""

    folder: Path
    limits: dict[str, int] = field(default_factory=dict)
    prefix: str = PREFIX
    scope: str = "enterprise"
    url: str = ""
    admin: str = ""
    exchange: Started | None = None
    sites: dict[str, Actor] = field(default_factory=dict)

    # -- the exchange -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the exchange and wait until it answers. A port that it had before is kept."""
        home = self.folder / "exchange"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.limits:
            (home / "limits.json").write_bytes(msgspec.json.encode(self.limits))
        (home / "address").unlink(missing_ok=True)
        port = self.url.rpartition(":")[2] or "0"
        log = self.folder / "exchange.log"
        options = ["--prefix", self.prefix, "--scope", self.scope, "--port", port]
        self.exchange = spawn("exchange", ["exchange-process", str(home), *options], log)
        self.url = await_file(home / "address", self.exchange, log)
        self.admin = (home / "admin.token").read_text().strip()

    def client(self, token: str = "") -> AsyncClient:
        """A client with this token; without one the admin's."""
        return AsyncClient(self.url, token or self.admin)

    # -- sites --------------------------------------------------------------------------------------------------------

    def add(self, name: str, owner: str, configuration: Path) -> Actor:
        """A site that is to join."""
        actor = Actor(name, owner, self.folder / "sites" / name, configuration, self.prefix)
        self.sites[name] = actor
        return actor

    async def join(self, client: AsyncClient, actor: Actor) -> None:
        """Give the owner a token, let its site join with it, and start its process."""
        from tieline.drivers.siteprocess import join_site

        made = await client.create_token(f"join-{actor.name}", [Role.JOIN], owner=actor.owner, ttl_s=600, uses=1)
        actor.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copy(actor.configuration, actor.folder / "site.yaml")
        await join_site(actor.folder, token=made.secret, owner=actor.owner, name=actor.name)
        self.start_site(actor)

    def start_site(self, actor: Actor) -> None:
        """Start the process of a site that has joined."""
        log = self.folder / f"{actor.name}.log"
        actor.process = spawn_site(actor.name, actor.folder, log)

    async def await_sites(self, client: AsyncClient) -> None:
        """Wait until every site is heard and its pools are there."""
        for _ in range(SITE_S * 20):
            found = {site.id: site for site in await client.sites()}
            waiting = [
                actor
                for actor in self.sites.values()
                if actor.id not in found or found[actor.id].is_silent or not found[actor.id].pools
            ]
            if not waiting:
                return
            for actor in waiting:
                if actor.process is not None and not is_alive(actor.process):
                    words = (self.folder / f"{actor.name}.log").read_text(errors="replace").splitlines()[-3:]
                    raise TielineError("site_unreachable", f"the site {actor.name} ended: {' | '.join(words)[-600:]}")
            await asyncio.sleep(0.05)
        names = ", ".join(actor.name for actor in waiting)
        raise TielineError("site_unreachable", f"not heard within {SITE_S} s: {names}", hints=(f"ls {self.folder}",))

    def power_cut(self, actor: Actor) -> None:
        """SIGKILL of the site process, in the middle of whatever it does."""
        assert actor.process is not None
        kill(actor.process)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End every process, sites first; what their runs left behind goes with the sites' next start or the folder."""
        for actor in self.sites.values():
            if actor.process is not None:
                end(actor.process)
        if self.exchange is not None:
            end(self.exchange)
