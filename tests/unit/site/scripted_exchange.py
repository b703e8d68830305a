"""An exchange for the tests of a site process: it speaks the protocol over real HTTP, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from site_offers import core_offer

from tieline.drivers.siteprocess.home import Home, Identity
from tieline.drivers.siteprocess.process import SiteProcess
from tieline.model.api import BlobView, ExchangeView, JoinBody, JoinStatement, JoinView, LogKept, RecordBody
from tieline.model.error import CODES, ErrorEnvelope
from tieline.model.protocol import (
    WELCOME,
    Batch,
    Beat,
    Beaten,
    Ended,
    Hello,
    Offer,
    Orders,
    Outcome,
    Outcomes,
    Proof,
    Reports,
    Signed,
    Welcome,
)  # fmt: skip
from tieline.model.record import DelegatedKey, Delegation, Record
from tieline.registry import Key, open_statement, opened, seal, sealing_public, sign, sign_statement, verify_statement
from tieline.site.found import Machine

PREFIX = "cn.demo"
T = TypeVar("T")
OWNER = f"{PREFIX}.lab7"
SITE = f"{OWNER}/site/gz1"
CORES = f"{OWNER}/pool/gz1-cores"
MACHINE = Machine(architecture="x86_64", core_count=8, memory_bytes=16 * 10**9, disk_bytes=10**12)
OWNER_FILE = "pools: [{name: gz1-cores, cores: 8, memory: 8GB, price: 0.1, sandbox: optional}]\n"
PING = b": still here\n\n"
encode = msgspec.json.encode


@dataclass
class Exchange:
    """What it saw, and how it answers."""

    key: Key = field(default_factory=lambda: Key(b"e" * 32))
    answers_as: Key | None = None  # the key that signs proofs, when it is an impostor
    owner_key: Key | None = None
    seen: list[Reports] = field(default_factory=list)
    batches: int = 0
    sessions: int = 0
    cuts: int = 0
    bearers: list[str] = field(default_factory=list)
    refused_bearers: list[str] = field(default_factory=list)
    live: list[Orders] = field(default_factory=list)  # in the next welcome
    is_draining: bool = False
    orders: list[tuple[int, Orders]] = field(default_factory=list)
    seq: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    streams: int = 0
    cursors: list[str] = field(default_factory=list)
    cut_after: int | None = None  # bytes of the stream, once
    outcome: Callable[[Reports], Outcome] = lambda _: Outcome(is_ok=True)
    trouble: list[int | str | float] = field(default_factory=list)  # for the next reports: a status, a code, a delay
    beats: list[Beat] = field(default_factory=list)
    beaten: Beaten = field(default_factory=Beaten)
    is_down: bool = False
    logs: dict[tuple[str, int], bytes] = field(default_factory=dict)
    log_most: int = 10**9
    log_piece: int = 10**9
    blobs: dict[str, bytes] = field(default_factory=dict)
    lies_about: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    record_posts: int = 0
    joins: list[JoinBody] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    protocol: int = 2
    requests: list[str] = field(default_factory=list)
    sealing: str = ""
    url: str = ""

    # -- what a test does ---------------------------------------------------------------------------------------------

    def order(self, order: Orders) -> None:
        self.seq += 1
        self.orders.append((self.seq, order))
        self.woken.set()

    def of(self, kind: type, run: str = "") -> list[Any]:
        return [each for each in self.seen if isinstance(each, kind) and (not run or each.run == run)]

    async def until(self, holds: Callable[[], Any], seconds: float = 15.0) -> Any:
        """Wait until ``holds`` is true; what it gave."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, f"waited {seconds} s; reports: {self.seen[-5:]}; {self.requests[-5:]}"
            await asyncio.sleep(0.01)
        return found

    async def ended(self, run: str = "j-1.1") -> Ended:
        found: list[Ended] = await self.until(lambda: self.of(Ended, run))
        return found[0]

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def sealed(self, **values: str) -> str:
        import base64

        return base64.urlsafe_b64encode(seal(self.sealing, encode(values))).rstrip(b"=").decode()

    # -- what it answers ----------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append(f"{request.method} {path}")
        if self.is_down:
            return web.Response(status=502, text="bad gateway")
        if path == "/v1/exchange":
            return self.json(self.view())
        if path == "/v1/sites":
            return await self.join(request)
        if path == "/v1/site/sessions":
            return await self.open(request)
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.bearers or bearer != self.bearers[-1]:
            self.refused_bearers.append(bearer)
            return self.error("unauthenticated")
        if path == "/v1/site/stream":
            return await self.stream(request)
        if path == "/v1/site/reports":
            return await self.report(request)
        if path == "/v1/site/heartbeat":
            statement = msgspec.json.decode(await request.read(), type=Signed).statement.encode()
            self.beats.append(open_statement(statement, "site-beat", Beat)[0])
            return self.json(self.beaten)
        if path.startswith("/v1/site/runs/"):
            return await self.log(request, path.split("/")[4])
        if path.startswith("/v1/blobs"):
            return await self.blob(request)
        if path.startswith("/v1/records"):
            return await self.record(request)
        if path.startswith("/v1/sites/"):
            self.changes.append(path.rsplit("/", 1)[-1])
            return self.json(site_view(is_draining=self.changes[-1] == "drain"))
        return self.error("not_found")

    def json(self, value: Any, status: int = 200) -> web.Response:
        return web.Response(body=encode(value), status=status, content_type="application/json")

    def error(self, code: str) -> web.Response:
        return self.json(ErrorEnvelope(code=code, message=f"scripted {code}"), CODES[code].status)

    def view(self) -> ExchangeView:
        return ExchangeView(
            id=f"{PREFIX}/exchange/main", prefix=PREFIX, scope="enterprise", public=self.key.public,
            fingerprint=self.key.fingerprint, sealing="", version="0", protocols=(2, 1),
        )  # fmt: skip

    async def join(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read(), type=JoinBody)
        self.joins.append(body)
        said, kid = open_statement(body.statement.encode(), "site-join", JoinStatement)
        verify_statement(body.statement.encode(), said.owner_public, "site-join")
        prefix = f"{PREFIX}.{said.owner}"
        now = int(time.time())
        keys = (DelegatedKey(kid=kid, public=said.owner_public, nb=now - 60, exp=now + 10**6),)
        spec = Delegation(prefix=prefix, keys=keys, kinds=("site", "pool"), max_records=9)
        record = Record(
            id=f"{PREFIX}/owner/{said.owner}", kind="owner", rev=1, nb=now - 60, exp=now + 10**6,
            spec=msgspec.to_builtins(spec),
        )  # fmt: skip
        envelope = sign(record, self.answers_as or self.key, f"{PREFIX}#exchange").decode()
        site = f"{prefix}/site/{said.site}"
        joined = JoinView(
            site=site, owner=prefix, is_admitted=bool(body.token), delegation=envelope, exchange=self.view()
        )
        return self.json(joined, 201)

    async def open(self, request: web.Request) -> web.Response:
        statement = msgspec.json.decode(await request.read(), type=Signed).statement.encode()
        hello, _ = open_statement(statement, "site-hello", Hello)
        self.sessions += 1
        self.bearers.append(f"tl-bearer-{self.sessions}")
        self.woken.set()
        proof = Proof(nonce=hello.nonce, exchange=f"{PREFIX}/exchange/main")
        return self.json(
            Welcome(
                bearer=self.bearers[-1], protocol=self.protocol, cursor=self.seq, lease_ms=2_000, beat_ms=200,
                exchange=f"{PREFIX}/exchange/main", is_admitted=True, is_draining=self.is_draining,
                proof=sign_statement(proof, self.answers_as or self.key, f"{PREFIX}#exchange", WELCOME).decode(),
                orders=tuple(self.live),
            ), 201,
        )  # fmt: skip

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.streams += 1
        begun = self.sessions, self.cuts
        self.cursors.append(request.headers.get("Last-Event-ID", ""))
        after = int(self.cursors[-1] or 0)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(PING)
        while begun == (self.sessions, self.cuts):
            self.woken.clear()
            for seq, order in self.orders:
                if seq > after:
                    after = seq
                    frame = b"id: %d\nevent: order\ndata: %b\n\n" % (seq, encode(order))
                    if self.cut_after is not None:
                        await response.write(frame[: self.cut_after])
                        self.cut_after = None
                        assert request.transport is not None
                        request.transport.close()
                        return response
                    await response.write(frame)
            await self.woken.wait()
        return response

    def cut_streams(self) -> None:
        """End every stream; the session stands."""
        self.cuts += 1
        self.woken.set()

    def forget_sessions(self) -> None:
        """What a restart does: no bearer is known any more, streams end."""
        self.bearers.clear()
        self.cut_streams()

    async def report(self, request: web.Request) -> web.Response:
        self.batches += 1
        batch = msgspec.json.decode(await request.read(), type=Batch)
        if self.trouble:
            trouble = self.trouble.pop(0)
            if isinstance(trouble, float):
                await asyncio.sleep(trouble)
            elif isinstance(trouble, int):
                return web.Response(status=trouble, text="<html>no</html>")
            elif trouble == "short":
                return self.json(Outcomes(outcomes=()))
            else:
                return self.error(trouble)
        self.seen += batch.reports
        return self.json(Outcomes(outcomes=tuple(self.outcome(each) for each in batch.reports)))

    async def log(self, request: web.Request, run: str) -> web.Response:
        node, offset = int(request.query["node"]), int(request.query["offset"])
        content = await request.read()
        kept = self.logs.get((run, node), b"")
        if offset <= len(kept):
            kept += content[len(kept) - offset :][: self.log_piece]
        self.logs[run, node] = kept[: self.log_most]
        return self.json(LogKept(offset=len(self.logs[run, node]), is_full=len(kept) >= self.log_most))

    async def blob(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            digest = self.put(await request.read())
            return self.json(BlobView(sha256=digest, size_bytes=len(self.blobs[digest])), 201)
        digest = request.path.rsplit("/", 1)[-1]
        content = self.lies_about.get(digest, self.blobs.get(digest))
        return web.Response(body=content) if content is not None else self.error("not_found")

    async def record(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            name = request.path.rsplit("/", 1)[-1].replace("~", "/")
            found = self.records.get(name)
            return self.record_view(found) if found else self.error("not_found")
        self.record_posts += 1
        envelope = msgspec.json.decode(await request.read(), type=RecordBody).envelope.encode()
        record = opened(envelope).record
        held = self.records.get(record.id)
        if held is not None and record.rev != held.rev + 1:
            return self.error("record_refused")
        self.records[record.id] = record
        return self.record_view(record)

    def record_view(self, record: Record) -> web.Response:
        assert self.owner_key is not None
        envelope = sign(record, self.owner_key, f"{OWNER}#join")
        body = {
            "id": record.id, "kind": record.kind, "rev": record.rev, "sha256": opened(envelope).sha256.hex(),
            "status": record.status.value, "exp": record.exp, "kid": "", "is_valid": True, "why_not": "",
            "envelope": envelope.decode(), "record": {}, "equivocation": [],
        }  # fmt: skip
        return self.json(body, 201)


def site_view(**fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": SITE, "owner": OWNER, "tier": "edge", "region": "", "is_admitted": True, "is_draining": False,
        "is_silent": False, "has_left": False, "heard_ms": 0, "joined_ms": 0, "runs": 0, "readings": {},
        "declared_by": "", "pools": [],
    }  # fmt: skip
    return values | fields


@contextlib.asynccontextmanager
async def serving(exchange: Exchange, port: int = 0) -> AsyncIterator[Exchange]:
    """The exchange on loopback."""
    app = web.Application(client_max_size=2**28)
    app.router.add_route("*", "/{path:.*}", exchange.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    exchange.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield exchange
    finally:
        await runner.cleanup()


def home_at(folder: Path, exchange: Exchange, owner_file: str = OWNER_FILE) -> Home:
    """A site that has joined."""
    home = Home(folder)
    home.make_keys()
    exchange.owner_key = Key(home.seed("owner"))
    exchange.sealing = sealing_public(home.seed("sealing"))
    (home.folder / "site.yaml").write_text(owner_file)
    home.keep_identity(
        Identity(
            url=exchange.url, exchange=f"{PREFIX}/exchange/main", public=Key(b"e" * 32).public, site=SITE, owner=OWNER,
            kid=f"{OWNER}#join",
        )
    )  # fmt: skip
    return home


@contextlib.asynccontextmanager
async def running(home: Home, **options: Any) -> AsyncIterator[SiteProcess]:
    """A site process in this loop, stopped in order at the end."""
    process = SiteProcess(home, **({"machine": MACHINE, "is_measuring": False} | options))
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        process.stop()
        await asyncio.wait_for(task, 20)


@contextlib.asynccontextmanager
async def site(
    folder: Path, exchange: Exchange | None = None, owner_file: str = OWNER_FILE, **options: Any
) -> AsyncIterator[tuple[Exchange, SiteProcess]]:
    """An exchange and a site that has a session with it."""
    async with serving(exchange or Exchange()) as served:
        home = home_at(folder, served, owner_file)
        async with running(home, **options) as process:
            await served.until(lambda: served.streams)
            yield served, process


def go(work: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(bounded())


def offer(run: str = "j-1.1", script: str = "true", **fields: Any) -> Offer:
    """One trusted core that runs ``script``."""
    made = core_offer(run, pool=CORES, price_micro_cny_per_unit_hour=100_000, **fields)
    return msgspec.structs.replace(made, task=msgspec.structs.replace(made.task, run=script))


def tar_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return True


def read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""
