"""A whole exchange on loopback for the tests of its API: real store, writer, core and server; its clock stands."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tieline.api.app import make_app
from tieline.api.platform import Platform
from tieline.api.serve import address_of, bound, make_server
from tieline.drivers.stores.blobs import Blobs
from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.logs import Logs
from tieline.drivers.stores.secrets import ended_secrets
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import CreateExchange, CreateToken
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.orders import order_of
from tieline.exchange.placing import schedule
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.api import JoinStatement
from tieline.model.limits import Limits
from tieline.model.party import SYSTEM, Role
from tieline.model.protocol import Beat, Hello, PoolBeat, Welcome
from tieline.model.record import Record
from tieline.ports import FakeClock, FakeIds
from tieline.registry import Key, sealing_public, sign, sign_statement, verify_statement

PREFIX = "cn.demo"
EXCHANGE = "cn.demo/exchange/main"
ADMIN = "tl-admin-secret"
NOW_MS = 1_763_000_000_000


def seeded(name: str) -> bytes:
    """32 bytes that stand for ``name``."""
    return hashlib.sha256(name.encode()).digest()


@dataclass
class World:
    """One exchange. ``http`` has no token; `as_` gives a client with one."""

    folder: Path
    limits: Limits = field(default_factory=lambda: Limits(requests_per_s=1_000_000, requests_burst=1_000_000))
    clock: FakeClock = field(default_factory=lambda: FakeClock(at_ms=NOW_MS))
    tick_ms: int = 0
    is_new: bool = True
    is_stopped: bool = False
    tls: tuple[Path, Path] | None = None  # certificate and key
    address: str = ""  # of the store, where it is not a file in the folder

    def prepare(self) -> World:
        """Everything but the thread that serves."""
        self.keys = ExchangeKeys(Key(seeded("exchange")), PREFIX)
        disk = Disk(self.folder, 0)
        self.store = Store(self.address or f"sqlite:///{self.folder}/tieline.db").open()
        self.writer: Writer[View] = Writer(
            self.store,
            lambda: View(self.keys, self.limits, fetch=self.store.jobs_named),
            decide,
            schedule,
            rows,
            load,
            self.clock,
            FakeIds(7),
            order_of=order_of,
            aside=ended_secrets,
            tick_ms=self.tick_ms,
            queue=self.limits.queue,
        ).start()
        self.blobs = Blobs(self.folder / "blobs", self.clock, disk, self.limits.blobs_bytes).open()
        self.logs = Logs(self.folder / "logs", disk, self.limits.log_bytes, self.limits.logs_bytes).open()
        self.platform = Platform(
            store=self.store,
            writer=self.writer,
            blobs=self.blobs,
            logs=self.logs,
            clock=self.clock,
            limits=self.limits,
            keys=self.keys,
            sealing_key=seeded("sealing"),
            started_ms=NOW_MS,
        )
        if self.is_new:
            self.do(
                CreateExchange(
                    id=EXCHANGE,
                    prefix=PREFIX,
                    public=self.keys.key.public,
                    admin_token_sha256=hashlib.sha256(ADMIN.encode()).hexdigest(),
                )
            )
        self.app = make_app(self.platform)
        certificate, key = self.tls or (None, None)
        self.server = make_server(self.app, self.platform, certificate=certificate, key=key)
        self.listener = bound("127.0.0.1", 0)
        self.url = address_of(self.listener, has_tls=self.tls is not None)
        self.platform.url = self.url
        return self

    def start(self) -> World:
        """Serve in a thread, and wait until it answers."""
        self.prepare()
        self._thread = threading.Thread(target=self._serve, name="api-world")
        self._thread.start()
        self.http = httpx.Client(base_url=self.url, timeout=30)
        while not self.server.started:
            threading.Event().wait(0.005)
        self._clients = [self.http]
        return self

    def _serve(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.listener]))

    def stop(self) -> None:
        if self.is_stopped:
            return
        self.is_stopped = True
        for client in self._clients:
            client.close()
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"
        assert self.writer.close()
        self.store.close()
        self.listener.close()

    # -- callers ------------------------------------------------------------------------------------------------------

    def do(self, command: Any) -> Any:
        """A command past the API."""
        return self.writer.submit(command).result(30)

    def token(self, name: str, *roles: Role, owner: str = "", ttl_s: int = 0, uses: int = -1) -> str:
        """The secret of a new token."""
        secret = f"tl-{name}-{'-'.join(roles)}-secret"
        sha256 = hashlib.sha256(secret.encode()).hexdigest()
        if sha256 not in self.writer.view.tokens:
            self.token_with(secret, name, roles, owner=owner, ttl_s=ttl_s, uses=uses)
        return secret

    def token_with(self, secret: str, name: str, roles: tuple[Role, ...], **fields: Any) -> None:
        """A token with this very secret."""
        sha256 = hashlib.sha256(secret.encode()).hexdigest()
        self.do(CreateToken(actor=SYSTEM, sha256=sha256, name=name, roles=roles, **fields))

    def bearer(self, secret: str) -> httpx.Client:
        """A client with this token."""
        client = httpx.Client(base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {secret}"})
        self._clients.append(client)
        return client

    def as_(self, name: str, *roles: Role, owner: str = "") -> httpx.Client:
        """A client of somebody with these roles."""
        return self.bearer(self.token(name, *roles, owner=owner))

    @property
    def admin(self) -> httpx.Client:
        """The first admin, who is a user too."""
        return self.bearer(ADMIN)

    def site(self, owner: str = "lab7", name: str = "gz1", **pool: Any) -> Site:
        """An admitted site with one pool and an open session."""
        return Site(self, owner, name).join().open().offer(**pool)


@dataclass
class Site:
    """What a site process does, by hand."""

    world: World
    owner: str
    name: str
    protocols: tuple[int, ...] = (2, 1)

    def __post_init__(self) -> None:
        self.key = Key(seeded(f"{self.owner} owner"))
        self.site_key = Key(seeded(f"{self.owner} {self.name}"))
        self.sealing = seeded(f"{self.owner} {self.name} sealing")
        self.prefix = f"{PREFIX}.{self.owner}"
        self.id = f"{self.prefix}/site/{self.name}"
        self.pool = f"{self.prefix}/pool/{self.name}-cpu"
        self.nonce = 0
        self.beats = 0
        self.revs: dict[str, tuple[int, str]] = {}

    def statement(self, typ: str, payload: Any, key: Key | None = None) -> str:
        kid = f"{self.prefix}#join" if typ == "site-join" else f"{self.prefix}#site"
        return sign_statement(payload, key or self.site_key, kid, typ).decode()

    def new_nonce(self) -> str:
        self.nonce += 1
        return hashlib.sha256(f"{self.id} {self.nonce}".encode()).hexdigest()[:32]

    def join_statement(self) -> str:
        statement = JoinStatement(
            owner=self.owner,
            owner_public=self.key.public,
            site=self.name,
            site_public=self.site_key.public,
            sealing=sealing_public(self.sealing),
            nonce=self.new_nonce(),
            at_ms=self.world.clock.now_ms(),
        )
        return self.statement("site-join", statement, self.key)

    def join(self, token: str | None = None) -> Site:
        if token is None:
            token = self.world.token(f"join-{self.owner}", Role.JOIN, owner=self.owner)
        answer = self.world.http.post("/v1/sites", json={"token": token, "statement": self.join_statement()})
        assert answer.status_code == 201, answer.text
        return self

    def hello(self) -> str:
        said = Hello(
            site=self.id, nonce=self.new_nonce(), at_ms=self.world.clock.now_ms(), protocols=self.protocols, version="0"
        )
        return self.statement("site-hello", said)

    def open(self) -> Site:
        answer = self.world.http.post("/v1/site/sessions", json={"statement": self.hello()})
        assert answer.status_code == 201, answer.text
        self.welcome = msgspec.json.decode(answer.content, type=Welcome)
        verify_statement(self.welcome.proof.encode(), self.world.keys.key.public, "site-welcome")
        self.http = self.world.bearer(self.welcome.bearer)
        return self

    def envelope(self, kind: str, name: str, spec: dict[str, Any], **fields: Any) -> str:
        """The next revision of a record, signed with the owner's key."""
        identifier = f"{self.prefix}/{kind}/{name}"
        rev, prev = self.revs.get(identifier, (0, ""))
        now_s = self.world.clock.now_ms() // 1000
        record = Record(
            id=identifier, kind=kind, rev=rev + 1, prev=prev, nb=now_s - 60, exp=now_s + 86_400, spec=spec, **fields
        )
        return sign(record, self.key, f"{self.prefix}#join").decode()

    def record(self, kind: str, name: str, spec: dict[str, Any], **fields: Any) -> httpx.Response:
        identifier = f"{self.prefix}/{kind}/{name}"
        answer = self.http.post("/v1/records", json={"envelope": self.envelope(kind, name, spec, **fields)})
        if answer.status_code == 201:
            self.revs[identifier] = (self.revs.get(identifier, (0, ""))[0] + 1, answer.json()["sha256"])
        return answer

    def records(self, **pool: Any) -> list[tuple[str, str, dict[str, Any]]]:
        """The site, and one pool of cores."""
        public = {"public": self.site_key.public, "sealing": sealing_public(self.sealing), "tier": "edge"}
        spec = {
            "site": self.id,
            "core_count": 8,
            "memory_bytes": 16 * 10**9,
            "disk_bytes": 10**12,
            "price_micro_cny_per_accelerator_hour": 1_000_000,
            "networks": ["host"],
            "engines": ["process"],
            "sandbox": "bubblewrap",
            **pool,
        }
        return [("site", self.name, public), ("pool", f"{self.name}-cpu", spec)]

    def offer(self, **pool: Any) -> Site:
        """Register the site and one pool of cores, and say that all of it is free."""
        for record in self.records(**pool):
            answer = self.record(*record)
            assert answer.status_code == 201, answer.text
        self.beat()
        return self

    def beat_statement(self, runs: tuple[str, ...] = ()) -> str:
        """The next heartbeat: everything is free."""
        self.beats += 1
        said = Beat(
            site=self.id,
            seq=self.beats,
            at_ms=self.world.clock.now_ms(),
            pools=(PoolBeat(pool=self.pool, cores=8, memory_bytes=16 * 10**9),),
            runs=runs,
        )
        return self.statement("site-beat", {"load_millionths": 0, "health": "ok", **msgspec.to_builtins(said)})

    def beat(self, runs: tuple[str, ...] = ()) -> httpx.Response:
        answer = self.http.post("/v1/site/heartbeat", json={"statement": self.beat_statement(runs)})
        assert answer.status_code == 200, answer.text
        return answer

    def report(self, *reports: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.http.post("/v1/site/reports", json={"reports": list(reports)})
        assert answer.status_code == 200, answer.text
        return answer.json()["outcomes"]
