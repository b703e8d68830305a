"""A plain site: the product's own decisions (`tieline.site.machine`), process engine and HTTP client in a small shell.

It stands in for the site process where a test or a benchmark needs one that starts in a moment and can be changed for a
planted mistake. It really runs processes, journals before it reports, and adopts what ran when it was killed. It leaves
out inventory, probes, blobs, secrets and questions.

    python -m bench.plain_site FOLDER      # FOLDER/site.json: a `Card`
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tieline.drivers.engines.process import ProcessEngine
from tieline.drivers.http import HttpClient
from tieline.model import api
from tieline.model.error import TielineError
from tieline.model.protocol import (
    PROTOCOL,
    Batch,
    Beat,
    Beaten,
    Hello,
    Orders,
    Outcomes,
    PoolBeat,
    Reports,
    Resync,
    Signed,
    Welcome,
)
from tieline.model.reason import Reason
from tieline.model.record import Record
from tieline.ports import Launch
from tieline.registry import Key, sealing_public, sign, sign_statement
from tieline.site import instruction as do
from tieline.site import stimulus as seen
from tieline.site.machine import recover, step
from tieline.site.pool import Pool
from tieline.site.state import Entry, Held, SiteState

GB = 10**9
RETRY_S = 0.05
TICK_S = 0.1
TAIL_S = 0.02
encode = msgspec.json.encode


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Who the site is, and what it sells."""

    url: str
    prefix: str  # of the exchange
    owner: str
    name: str
    cores: int = 4
    memory_bytes: int = 8 * GB
    price_micro_cny: int = 3_600_000
    sandbox: str = ""
    is_log_sent: bool = False

    @property
    def id(self) -> str:
        """Its identifier."""
        return f"{self.prefix}.{self.owner}/site/{self.name}"

    @property
    def pool(self) -> str:
        """Its one pool."""
        return f"{self.prefix}.{self.owner}/pool/{self.name}"

    @property
    def kid(self) -> str:
        """The owner's key."""
        return f"{self.prefix}.{self.owner}#k1"

    def seed(self, what: str) -> bytes:
        """32 bytes that stand for one of its keys: nothing here is secret."""
        return hashlib.sha256(f"{what} of {self.id}".encode()).digest()

    def key(self) -> Key:
        """The site's own key."""
        return Key(self.seed("site"))


async def join(card: Card, token: str) -> None:
    """Join the exchange with the token, and register the site and its pool."""
    owner = Key(card.seed("owner"))
    sealing = sealing_public(card.seed("sealing"))
    statement = api.JoinStatement(
        owner=card.owner,
        owner_public=owner.public,
        site=card.name,
        site_public=card.key().public,
        sealing=sealing,
        nonce=secrets.token_hex(16),
        at_ms=now(),
    )
    signed = sign_statement(statement, owner, card.kid, "site-join").decode()
    async with HttpClient(card.url) as http:
        await http.call("POST", "/v1/sites", api.JoinView, body=api.JoinBody(statement=signed, token=token))
        http.bearer = (await session(http, card)).bearer
        pool = {
            "site": card.id,
            "core_count": card.cores,
            "memory_bytes": card.memory_bytes,
            "price_micro_cny_per_accelerator_hour": card.price_micro_cny,
            "sandbox": card.sandbox,
            "networks": ["host"],
            "policy": "is_trusted or not is_trusted",  # it speaks of trust, so work without a sandbox is welcome
        }
        site = {"tier": "edge", "region": "shanghai", "sealing": sealing, "public": card.key().public}
        for name, spec in ((card.id, site), (card.pool, pool)):
            at_s = now() // 1000
            record = Record(id=name, kind=name.split("/")[1], rev=1, nb=at_s - 60, exp=at_s + 86_400, spec=spec)
            envelope = sign(record, owner, card.kid).decode()
            await http.call("POST", "/v1/records", api.RecordView, body=api.RecordBody(envelope=envelope))


async def session(http: HttpClient, card: Card) -> Welcome:
    """Open a session with the site's key."""
    hello = Hello(site=card.id, nonce=secrets.token_hex(16), at_ms=now(), protocols=(PROTOCOL,))
    statement = sign_statement(hello, card.key(), f"{card.id}#site", "site-hello").decode()
    return await http.call("POST", "/v1/site/sessions", Welcome, body=Signed(statement=statement), key=None)


def since(path: Path, offset: int) -> bytes:
    """What a log holds beyond ``offset``."""
    if not path.exists():
        return b""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(1 << 20)


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class PlainSite:
    """The shell around the machine."""

    def __init__(self, folder: Path) -> None:
        self.card = msgspec.json.decode((folder / "site.json").read_bytes(), type=Card)
        self.folder = folder
        self.runs = folder / "runs"
        self.journal = folder / "journal"
        for one in (self.runs, self.journal):
            one.mkdir(exist_ok=True)
        self.engine = ProcessEngine(hidden=(str(folder),))
        self.http = HttpClient(self.card.url, attempts=1, total_s=10)
        self.pending: dict[tuple[str, str], Reports] = {}
        self.is_pending = asyncio.Event()
        self.is_open = asyncio.Event()
        self.beat_ms = 1_000
        self.tasks: set[asyncio.Task[Any]] = set()
        self.watched: set[str] = set()
        self.sent: dict[str, int] = {}
        self.seq = now()
        entries = [msgspec.json.decode(path.read_bytes(), type=Entry) for path in sorted(self.journal.glob("*.json"))]
        pool = Pool(
            id=self.card.pool,
            owner=f"{self.card.prefix}.{self.card.owner}",
            core_count=self.card.cores,
            memory_bytes=self.card.memory_bytes,
            price_micro_cny_per_unit_hour=self.card.price_micro_cny,
            sandbox=self.card.sandbox,
        )
        self.state: SiteState
        self.state, instructions = recover(self.card.id, [pool], entries, now())
        self.first = instructions

    # -- the machine --------------------------------------------------------------------------------------------------

    def feel(self, stimulus: seen.Stimulus) -> None:
        """One step, and what follows from it."""
        self.state, instructions = step(self.state, stimulus, now())
        for one in instructions:
            self.carry_out(one)

    def carry_out(self, one: do.Instruction) -> None:
        """One instruction."""
        if isinstance(one, do.Persist):
            self.write(one.held.run, one.held, is_synced=one.is_durable)
        elif isinstance(one, do.Send):
            self.pending[report_name(one.report)] = one.report
            self.is_pending.set()
        elif isinstance(one, do.Withdraw):
            for name in [name for name in self.pending if name[0] == one.run and name[1] != "Ended"]:
                del self.pending[name]
        elif isinstance(one, do.Start):
            self.spawn(self.start(one.held))
        elif isinstance(one, do.Adopt):
            self.spawn(self.watch(one.held.run))
        elif isinstance(one, do.Halt):
            self.spawn(self.halt(one))
        elif isinstance(one, do.HandOver):
            self.spawn(self.hand_over(one))
        elif isinstance(one, do.Forget):
            self.forget(one)

    def spawn(self, work: Any) -> None:
        """A task that is held until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def write(self, run: str, entry: Entry, *, is_synced: bool = False) -> None:
        """Journal whole or not at all."""
        partial = self.journal / f".{run}"
        with open(partial, "wb") as file:
            file.write(encode(entry))
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        partial.rename(self.journal / f"{run}.json")

    def forget(self, one: do.Forget) -> None:
        """Keep what is to be remembered."""
        if one.done is None:
            (self.journal / f"{one.run}.json").unlink(missing_ok=True)
        else:
            self.write(one.run, one.done)

    # -- runs ---------------------------------------------------------------------------------------------------------

    def where(self, run: str) -> str:
        """The folder of a run; nodes are not told apart, a plain site runs single tasks."""
        return str(self.runs / run)

    async def start(self, held: Held) -> None:
        """Start it, or adopt what was started."""
        task = held.offer.task
        launch = Launch(
            run=held.run,
            node=0,
            folder=self.where(held.run),
            setup=task.setup,
            script=task.run,
            envs={**task.envs, "TIELINE_RUN_ID": held.run},
            sandbox=held.sandbox,
            network=held.network,
        )
        try:
            await self.engine.start(launch)
        except TielineError as error:
            self.feel(seen.StartFailed(run=held.run, reason=Reason(code="start_failed", values={"why": error.message})))
            return
        self.feel(seen.NodesStarted(run=held.run))
        await self.watch(held.run)

    async def watch(self, run: str) -> None:
        """Until it has ended."""
        if run in self.watched:
            return
        self.watched.add(run)
        if self.card.is_log_sent:
            self.spawn(self.tail(run))
        ending = await self.engine.wait(self.where(run))
        self.feel(seen.NodesEnded(run=run, endings=(ending,)))

    async def tail(self, run: str) -> None:
        """Send its output as it comes."""
        held = self.state.runs.get(run)
        while held is not None and held.may_run:
            if self.is_open.is_set():
                await self.send_log(run)
            await asyncio.sleep(TAIL_S)
            held = self.state.runs.get(run)

    async def send_log(self, run: str) -> None:
        """What its log holds beyond what the exchange keeps."""
        offset = self.sent.get(run, 0)
        content = since(Path(self.engine.log(self.where(run))), offset)
        if content:
            with contextlib.suppress(TielineError):
                path, params = f"/v1/site/runs/{run}/log", {"node": 0, "offset": offset}
                kept = await self.http.call("POST", path, api.LogKept, body=content, params=params, key=None)
                self.sent[run] = kept.offset

    async def halt(self, one: do.Halt) -> None:
        """End its processes."""
        ending = await self.engine.stop(self.where(one.run), one.grace_s)
        self.feel(seen.NodesEnded(run=one.run, endings=(ending,)))

    async def hand_over(self, one: do.HandOver) -> None:
        """The rest of its output; a plain site has no other bytes to bring."""
        if self.card.is_log_sent:
            await self.send_log(one.held.run)
            self.sent.pop(one.held.run, None)
        self.feel(seen.HandedOver(run=one.held.run, endings=one.endings))

    # -- the exchange -------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Everything at once, until SIGTERM."""
        over = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
        for one in self.first:
            self.carry_out(one)
        for work in (self.listen(), self.send(), self.beat(), self.tick()):
            self.spawn(work)
        await over.wait()
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.engine.close()
        await self.http.close()

    async def listen(self) -> None:
        """Sessions, one after the other."""
        while True:
            with contextlib.suppress(TielineError):
                self.http.bearer = ""
                welcome = await session(self.http, self.card)
                self.http.bearer, self.beat_ms = welcome.bearer, welcome.beat_ms
                self.is_open.set()
                self.feel(
                    seen.Welcomed(orders=welcome.orders, lease_ms=welcome.lease_ms, is_draining=welcome.is_draining)
                )
                params = {"after": welcome.cursor}
                async for event in self.http.listen("/v1/site/stream", params=params, silence_s=20):
                    if event.data:
                        order = msgspec.json.decode(event.data, type=Orders)
                        if isinstance(order, Resync):
                            break
                        self.feel(seen.Ordered(order=order))
            self.is_open.clear()
            self.feel(seen.Cut())
            await asyncio.sleep(RETRY_S)

    async def send(self) -> None:
        """Reports in their order, each until it has an outcome."""
        while True:
            await self.is_pending.wait()
            await self.is_open.wait()
            batch = list(self.pending.items())[:256]
            if not batch:
                self.is_pending.clear()
                continue
            body = Batch(reports=tuple(report for _, report in batch))
            try:
                answer = await self.http.call("POST", "/v1/site/reports", Outcomes, body=body, key=None)
            except TielineError:
                await asyncio.sleep(RETRY_S)
                continue
            for (name, report), outcome in zip(batch, answer.outcomes, strict=True):
                if self.pending.get(name) is report:
                    del self.pending[name]
                self.feel(seen.Answered(report=report, outcome=outcome))

    async def beat(self) -> None:
        """One signed vector, a few times in a lease."""
        while True:
            await self.is_open.wait()
            self.seq += 1
            card = self.card
            pool = PoolBeat(pool=card.pool, cores=card.cores, memory_bytes=card.memory_bytes)
            said = Beat(site=card.id, seq=self.seq, at_ms=now(), pools=(pool,), runs=tuple(self.state.runs))
            statement = sign_statement(said, card.key(), f"{card.id}#site", "site-beat").decode()
            with contextlib.suppress(TielineError):
                beaten = await self.http.call(
                    "POST", "/v1/site/heartbeat", Beaten, body=Signed(statement=statement), key=None
                )
                if beaten.stale:
                    self.feel(seen.Fenced(runs=beaten.stale))
            await asyncio.sleep(self.beat_ms / 1000)

    async def tick(self) -> None:
        """Time."""
        while True:
            await asyncio.sleep(TICK_S)
            self.feel(seen.Ticked())


def report_name(report: Reports) -> tuple[str, str]:
    """What a newer report of the same takes the place of."""
    return str(getattr(report, "run", "") or getattr(report, "quote", "")), type(report).__name__


def main(kind: type[PlainSite] = PlainSite) -> None:
    """Serve the folder that the command line names."""
    import uvloop

    async def serve() -> None:
        await kind(Path(sys.argv[1])).live()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
