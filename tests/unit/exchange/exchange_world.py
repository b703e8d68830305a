"""A whole exchange without a store: commands in, events out, a clock that moves when told, and sites that answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tieline.exchange.commands import (
    AcceptQuote,
    AskQuote,
    Command,
    CreateExchange,
    CreateToken,
    JoinSite,
    OpenSession,
    StoreRecord,
    SubmitJobs,
    TakeBeat,
    TakeReport,
    Tick,
)
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.placing import schedule
from tieline.exchange.view import View
from tieline.model.api import JoinStatement
from tieline.model.event import Event
from tieline.model.job import Job, Run
from tieline.model.party import SYSTEM, Actor, Role
from tieline.model.protocol import PROTOCOL, Accepted, Beat, Ended, Hello, Outcome, PoolBeat, Started
from tieline.model.record import Record
from tieline.model.task import Resources, Task
from tieline.ports import FakeClock, FakeIds
from tieline.registry import Key, sealing_public, sign, sign_statement

PREFIX = "cn.demo"
ALICE = Actor(name="alice", roles=(Role.USER,))
ADMIN = Actor(name="admin", roles=(Role.ADMIN, Role.USER))


def seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@dataclass
class World:
    clock: FakeClock = field(default_factory=lambda: FakeClock(at_ms=1_763_000_000_000))
    ids: FakeIds = field(default_factory=lambda: FakeIds(1))
    events: list[Event] = field(default_factory=list)
    nonces: int = 0

    def __post_init__(self) -> None:
        self.keys = ExchangeKeys(Key(seed("exchange")), PREFIX)
        self.view = View(self.keys)
        self.beats: dict[str, int] = {}
        self.do(
            CreateExchange(
                id=f"{PREFIX}/exchange/main", prefix=PREFIX, public=self.keys.key.public, admin_token_sha256="0" * 64
            )
        )

    def do(self, command: Command) -> Any:
        """One command, its events, and the placing pass that follows."""
        now_ms = self.clock.now_ms()
        decision = decide(self.view, command, now_ms, self.ids)
        self.take(decision.events, now_ms)
        self.take(schedule(self.view, now_ms, self.ids, 1_000), now_ms)
        return decision.reply

    def take(self, events: Any, now_ms: int) -> None:
        for event in events:
            self.view.apply(event, now_ms)
            self.events.append(event)

    def pass_ms(self, ms: int, *heard: str) -> None:
        """Let time pass; the sites named are heard every two seconds."""
        left = ms
        while left > 0:
            step = min(2_000, left)
            self.clock.advance(step)
            left -= step
            for site in heard:
                self.beat(site)
            self.do(Tick())

    def nonce(self) -> str:
        self.nonces += 1
        return f"nonce-{self.nonces:016d}"

    def token(self, owner: str, uses: int = -1) -> str:
        sha256 = hashlib.sha256(f"{owner}{self.nonces}".encode()).hexdigest()
        self.do(CreateToken(actor=ADMIN, sha256=sha256, name="join", roles=(Role.JOIN,), owner=owner, uses=uses))
        return sha256

    def join(self, owner: str, site: str, token: str | None = None, **pool: Any) -> str:
        """A site with one pool that is there and was heard."""
        key = Key(seed(owner))
        statement = JoinStatement(
            owner=owner,
            owner_public=key.public,
            site=site,
            site_public=Key(seed(owner + site)).public,
            sealing=sealing_public(seed("sealing" + site)),
            nonce=self.nonce(),
            at_ms=self.clock.now_ms(),
        )
        kid = f"{PREFIX}.{owner}#k1"
        signed = sign_statement(statement, key, kid, "site-join")
        sha256 = self.token(owner) if token is None else token
        joined = self.do(JoinSite(statement=signed, token_sha256=sha256))
        self.register(owner, f"site/{site}", {"tier": "edge", "region": "shanghai", "sealing": statement.sealing})
        self.register(owner, f"pool/{site}", {"site": joined.site, "sandbox": "bubblewrap", **pool})
        self.open(joined.site)
        return str(joined.site)

    def register(self, owner: str, name: str, spec: dict[str, Any], **fields: Any) -> None:
        now_s = self.clock.now_ms() // 1000
        identifier = f"{PREFIX}.{owner}/{name}"
        stated = {"rev": 1, "nb": now_s - 10, "exp": now_s + 86_400, **fields}
        record = Record(id=identifier, kind=name.split("/")[0], spec=spec, **stated)
        envelope = sign(record, Key(seed(owner)), f"{PREFIX}.{owner}#k1")
        self.do(StoreRecord(actor=ADMIN, envelope=envelope))

    def open(self, site: str) -> Any:
        owner, name = site.split("/site/")
        hello = Hello(site=site, nonce=self.nonce(), at_ms=self.clock.now_ms(), protocols=(PROTOCOL,))
        key = Key(seed(owner.removeprefix(PREFIX + ".") + name))
        statement = sign_statement(hello, key, f"{owner}#site", "site-hello")
        return self.do(OpenSession(statement=statement, hello=hello, bearer_sha256=seed(hello.nonce).hex()))

    def beat(self, site: str, runs: tuple[str, ...] | None = None, pools: tuple[PoolBeat, ...] = ()) -> Any:
        self.beats[site] = self.beats.get(site, 0) + 1
        live = tuple(self.view.runs_at.get(site, ())) if runs is None else runs
        beat = Beat(
            site=site, seq=self.clock.now_ms() + self.beats[site], at_ms=self.clock.now_ms(), runs=live, pools=pools
        )
        return self.do(TakeBeat(site=site, beat=beat))

    def submit(self, *tasks: Task, actor: Actor = ALICE) -> tuple[Job, ...]:
        jobs: tuple[Job, ...] = self.do(SubmitJobs(actor=actor, tasks=tasks))
        return jobs

    def run_of(self, job: Job) -> Run:
        return self.view.runs[self.view.jobs[job.id].run]

    def report(self, site: str, report: Any) -> Outcome:
        outcome: Outcome = self.do(TakeReport(site=site, report=report))
        return outcome

    def accept(self, run: Run) -> Outcome:
        return self.report(run.site, Accepted(run=run.id, epoch=run.epoch, sandbox="bubblewrap", network="host"))

    def start(self, run: Run) -> Outcome:
        self.accept(run)
        return self.report(run.site, Started(run=run.id, epoch=run.epoch, at_ms=self.clock.now_ms()))

    def end(self, run: Run, state: str = "succeeded", code: int = 0, **fields: Any) -> Outcome:
        return self.report(run.site, Ended(run=run.id, epoch=run.epoch, state=state, exit_codes=(code,), **fields))

    def quote(self, task: Task, **fields: Any) -> Any:
        return self.do(AskQuote(actor=ALICE, task=task, **fields))

    def accept_quote(self, quote: str) -> Job:
        job: Job = self.do(AcceptQuote(actor=ALICE, quote=quote))
        return job


def task(name: str = "t", cores: int = 1, **fields: Any) -> Task:
    resources = fields.pop("resources", (Resources(core_count=cores),))
    return Task(name=name, run="true", resources=resources, **fields)


__all__ = ["ADMIN", "ALICE", "PREFIX", "SYSTEM", "World", "seed", "task"]
