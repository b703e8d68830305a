"""An exchange and sites of the product's own command line as processes of their own in one folder.

Sites may also be plain ones (`bench.plain_site`), where a mistake is to be planted in one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.plain_site import Card, join
from tieline.cli.processes import Started, await_file, end, is_alive, kill, start_of
from tieline.client import AsyncClient
from tieline.drivers.siteprocess import join_site
from tieline.model.party import Role

ROOT = Path(__file__).parents[1]
PREFIX = "cn.demo"
SITES_S = 60
OPEN_RATES = {"requests_per_s": 1_000_000, "requests_burst": 1_000_000}  # the caller is the only one here


def spawn(name: str, arguments: list[str], log: Path) -> Started:
    """Start ``python -m ARGUMENTS`` in a session of its own."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            cwd=ROOT,
        )
    finally:
        os.close(handle)
    process.returncode = 0  # it is ended by `close`, by its identity
    return Started(name=name, pid=process.pid, start=start_of(process.pid))


def configuration(card: Card) -> str:
    """The site.yaml of a card. Trusted work runs without a sandbox, other work in one."""
    return f"""\
tier: edge
region: shanghai
pools:
  - name: {card.name}
    cores: {card.cores}
    memory: {card.memory_bytes // 10**9}GB
    price: {card.price_micro_cny / 10**6}
    sandbox: optional
    policy: is_trusted or not is_trusted
"""


@dataclass
class PlainWorld:
    """Everything is below ``folder``. The commands are modules with
    arguments: what is started as the exchange and as a site."""

    folder: Path
    limits: dict[str, int] = field(default_factory=dict)
    exchange_command: tuple[str, ...] = ("tieline.cli",)
    site_command: tuple[str, ...] = ("tieline.cli", "site-process")
    is_plain: bool = False  # the sites are plain ones, and `site_command` starts one
    url: str = ""
    admin: str = ""
    exchange: Started | None = None
    cards: dict[str, Card] = field(default_factory=dict)
    sites: dict[str, Started] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The exchange's folder."""
        return self.folder / "exchange"

    def open(self) -> None:
        """Start the exchange and wait until it answers; it keeps its port."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.home / "limits.json").write_bytes(msgspec.json.encode({**OPEN_RATES, **self.limits}))
        (self.home / "address").unlink(missing_ok=True)
        port = self.url.rpartition(":")[2] or "0"
        log = self.folder / "exchange.log"
        arguments = [*self.exchange_command, "exchange-process", str(self.home), "--prefix", PREFIX, "--port", port]
        self.exchange = spawn("exchange", arguments, log)
        self.url = await_file(self.home / "address", self.exchange, log)
        self.admin = (self.home / "admin.token").read_text().strip()

    def client(self) -> AsyncClient:
        """The admin's client, who is a user too."""
        return AsyncClient(self.url, self.admin)

    async def add(self, client: AsyncClient, owner: str, name: str, **fields: int | str | bool) -> None:
        """A site that joins, and starts."""
        card = Card(url=self.url, prefix=PREFIX, owner=owner, name=name, **fields)  # type: ignore[arg-type]
        made = await client.create_token(f"join-{name}", [Role.JOIN], owner=owner, ttl_s=600, uses=1)
        home = self.folder / "sites" / name
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.is_plain:
            await join(card, made.secret)
            (home / "site.json").write_bytes(msgspec.json.encode(card))
        else:
            (home / "site.yaml").write_text(configuration(card))
            await join_site(home, token=made.secret, owner=owner, name=name)
        self.cards[name] = card
        self.start_site(name)

    async def await_sites(self, client: AsyncClient) -> None:
        """Wait until every site that was added is heard and its pool is offered."""
        for _ in range(SITES_S * 20):
            found = {site.id: site for site in await client.sites()}
            if all((site := found.get(card.id)) and site.pools and not site.is_silent for card in self.cards.values()):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not all of {', '.join(self.cards)} are heard within {SITES_S} s")

    def start_site(self, name: str) -> None:
        """Start the process of a site that has joined."""
        home = self.folder / "sites" / name
        self.sites[name] = spawn(name, [*self.site_command, str(home)], self.folder / f"{name}.log")

    def kill_site(self, name: str) -> None:
        """SIGKILL; its runs go on."""
        kill(self.sites[name])

    def kill_exchange(self) -> None:
        """SIGKILL."""
        assert self.exchange is not None
        kill(self.exchange)

    def close(self, *, is_removed: bool = True) -> None:
        """End every process that was started here, and remove the folder."""
        for started in (*self.sites.values(), *([self.exchange] if self.exchange else [])):
            if is_alive(started):
                end(started, 5)
        if is_removed:
            shutil.rmtree(self.folder, ignore_errors=True)
