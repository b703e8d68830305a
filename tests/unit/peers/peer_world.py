"""Several whole exchanges on loopback in one process: real stores, writers, servers, clocks, and federations."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tieline.api.app import make_app
from tieline.api.platform import Platform
from tieline.api.serve import Server, address_of, bound, make_server
from tieline.drivers.clock import SystemClock, SystemIds
from tieline.drivers.peers.federation import DutyMaker, Federation
from tieline.drivers.peers.puller import Puller
from tieline.drivers.stores.blobs import Blobs
from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.logs import Logs
from tieline.drivers.stores.secrets import ended_secrets
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import ChangePeer, CreateExchange, RenewSession, StoreRecord
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.orders import order_of
from tieline.exchange.placing import schedule
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.limits import Limits, share_bytes
from tieline.model.party import SYSTEM
from tieline.model.peer import PeerState
from tieline.model.record import Record
from tieline.registry import Key, sign

ADMIN = "tl-admin-secret"
PATIENCE_S = 90.0  # what was refused and may be good by then is asked for again after 30 s


def seeded(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def until(what: Callable[[], Any], patience_s: float = PATIENCE_S, why: Callable[[], str] | None = None) -> Any:
    """The first true answer of ``what``."""
    end = time.monotonic() + patience_s
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, why() if why is not None else "it did not happen in time"
        time.sleep(0.01)


class Exchange:
    """One exchange in a thread of its own; `stop` and `start` are a restart with the same folder."""

    def __init__(
        self,
        folder: Path,
        prefix: str,
        *,
        scope: str = "enterprise",
        limits: Limits | None = None,
        makers: tuple[DutyMaker, ...] = (Puller,),
        seed: str = "",
    ) -> None:
        self.folder, self.prefix, self.scope = folder, prefix, scope
        self.limits = limits or Limits(requests_per_s=1_000_000, requests_burst=1_000_000)
        self.makers = makers
        self.id = f"{prefix}/exchange/main"
        self.keys = ExchangeKeys(Key(seeded(seed or prefix)), prefix)
        self.clock = SystemClock()
        self.port = 0
        self.revs: dict[str, tuple[int, str]] = {}
        self.is_running = False
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, session: str = "") -> Exchange:
        """Serve; with ``session`` the logs begin anew, as after a restore."""
        disk = Disk(self.folder, 0)
        self.store = Store(f"sqlite:///{self.folder}/tieline.db").open()
        self.writer: Writer[View] = Writer(
            self.store,
            lambda: View(self.keys, self.limits),
            decide,
            schedule,
            rows,
            load,
            self.clock,
            SystemIds(self.clock),
            order_of=order_of,
            aside=ended_secrets,
            tick_ms=250,
        ).start()
        self.platform = Platform(
            store=self.store,
            writer=self.writer,
            blobs=Blobs(
                self.folder / "blobs", self.clock, disk, self.limits.blobs_bytes, share_bytes(self.limits)
            ).open(),
            logs=Logs(self.folder / "logs", disk, self.limits.log_bytes, self.limits.logs_bytes).open(),
            clock=self.clock,
            limits=self.limits,
            keys=self.keys,
            sealing_key=seeded(self.prefix + " sealing"),
            started_ms=self.clock.now_ms(),
            scope=self.scope,
        )
        if not self.writer.position[0]:
            self.do(
                CreateExchange(
                    id=self.id,
                    prefix=self.prefix,
                    public=self.keys.key.public,
                    admin_token_sha256=hashlib.sha256(ADMIN.encode()).hexdigest(),
                    session=f"s-{self.prefix}",
                )
            )
        if session:
            self.do(RenewSession(actor=SYSTEM, session=session, why="restored"))
        self.platform.federation = Federation(self.platform, self.makers)
        self.server: Server = make_server(make_app(self.platform), self.platform)
        self.listener: socket.socket = bound("127.0.0.1", self.port)
        self.port = self.listener.getsockname()[1]
        self.url = self.platform.url = address_of(self.listener)
        self.http = httpx.Client(base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {ADMIN}"})
        self.thread = threading.Thread(target=self._serve, name=f"exchange {self.prefix}")
        self.thread.start()
        until(lambda: self.server.started)
        self.is_running = True
        return self

    def _serve(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.listener]))

    def stop(self) -> None:
        if not self.is_running:
            return
        self.is_running = False
        self.http.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server did not stop"
        assert self.writer.close()
        self.store.close()
        self.listener.close()

    # -- doing --------------------------------------------------------------------------------------------------------

    def do(self, command: Any) -> Any:
        return self.writer.submit(command).result(30)

    def add(self, other: Exchange, role: str = "peer", **fields: Any) -> httpx.Response:
        return self.http.post("/v1/peers", json={"url": other.url, "role": role, **fields})

    def accept(self, other: Exchange, **grants: Any) -> httpx.Response:
        return self.http.post(f"/v1/peers/{other.id.replace('/', '~')}/accept", json=grants)

    def change(self, other: Exchange | str, what: str, **grants: Any) -> Any:
        name = other if isinstance(other, str) else other.id
        return self.do(ChangePeer(actor=SYSTEM, peer=name, what=what, **grants))

    def own(self, owner: str) -> Owner:
        return Owner(self, owner)

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        return self.writer.view

    def branch(self, other: Exchange | str) -> dict[str, Any]:
        """How a branch stands, as the status shows it."""
        name = other if isinstance(other, str) else other.id
        page = self.http.get("/v1/peers").json()
        (found,) = [branch for branch in page["branches"] if branch["exchange"] == name]
        return found

    def is_active(self, other: Exchange) -> bool:
        peer = self.view.peers.get(other.id)
        return peer is not None and peer.state is PeerState.ACTIVE

    def holds(self, name: str, rev: int = 1) -> bool:
        """Whether it keeps at least that revision."""
        head = self.view.catalogue.head(name)
        return head is not None and head.rev >= rev

    def counts(self, name: str) -> bool:
        return self.holds(name) and self.view.catalogue.standing(name, self.clock.now_ms() // 1000) is None


class Owner:
    """An owner below an exchange that signs records of its own."""

    def __init__(self, exchange: Exchange, name: str) -> None:
        self.exchange, self.prefix = exchange, f"{exchange.prefix}.{name}"
        self.key, self.kid = Key(seeded(self.prefix)), f"{exchange.prefix}.{name}#k"
        self.revs: dict[str, tuple[int, str]] = {}
        if exchange.view.catalogue.delegation(self.prefix) is None:
            envelope = exchange.keys.delegate(
                self.prefix, self.kid, self.key.public, "", exchange.clock.now_ms() // 1000
            )
            exchange.do(StoreRecord(actor=SYSTEM, envelope=envelope))

    def envelope(self, name: str, **fields: Any) -> bytes:
        """The next revision of a dataset."""
        identifier = f"{self.prefix}/dataset/{name}"
        rev, prev = self.revs.get(identifier, (0, ""))
        now_s = self.exchange.clock.now_ms() // 1000
        spec = {"sites": [], "size_bytes": rev + 1}
        record = Record(
            id=identifier,
            kind="dataset",
            rev=rev + 1,
            prev=prev,
            **{"nb": now_s - 60, "exp": now_s + 86_400, "spec": spec, **fields},
        )
        envelope = sign(record, self.key, self.kid)
        from tieline.registry import opened

        self.revs[identifier] = (rev + 1, opened(envelope).sha256.hex())
        return envelope

    def publish(self, name: str, **fields: Any) -> str:
        envelope = self.envelope(name, **fields)
        self.exchange.do(StoreRecord(actor=SYSTEM, envelope=envelope))
        return f"{self.prefix}/dataset/{name}"
