"""Several exchanges as pure views, joined by lines over a network that loses, doubles, delays and cuts.

Everything is drawn from one seed. A node's durable state is what its projections hold: `crash` loads it anew and begins
its lines again. Sites do as their exchange's view says; how long a run took is what the clock says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from exchange_ledger import Ledger
from exchange_world import ALICE, seed, task

from tieline.exchange import line
from tieline.exchange.commands import (
    Command,
    CreateExchange,
    JoinSite,
    OpenSession,
    ReadReports,
    ReadState,
    StopJob,
    StoreRecord,
    SubmitJobs,
    TakeBeat,
    TakeBranch,
    TakePage,
    TakePeerReports,
    TakeReport,
    Tick,
)
from tieline.exchange.commands import ReadLive as ReadLiveCommand
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.orders import order_of
from tieline.exchange.placing import schedule
from tieline.exchange.projection import ROW, load, rows
from tieline.exchange.view import View
from tieline.model import event as fact
from tieline.model.api import JoinStatement
from tieline.model.error import TielineError
from tieline.model.job import Job, Run, RunState, Usage
from tieline.model.limits import Limits
from tieline.model.peer import METER, MeterReading, Peer, PeerRole, PeerState
from tieline.model.protocol import (
    PROTOCOL,
    Accepted,
    Beat,
    CheckpointKept,
    Ended,
    Hello,
    Offer,
    PeerAnswers,
    Refused,
    Started,
    Stop,
)
from tieline.model.reason import Reason
from tieline.model.record import Record
from tieline.model.task import Task
from tieline.ports import FakeClock, FakeIds
from tieline.registry import Key, sealing_public, sign, sign_statement

replace = msgspec.structs.replace
GB = 2**30
PRICE = 3_600_000_000  # micro-yuan per core-hour: a million micro-yuan for each core-second
START_MS = 1_763_000_000_000


class Node:
    """One exchange: commands in, events applied, orders for peers put on their lines."""

    def __init__(self, world: Federation, name: str, *, ahead_ms: int = 0, **limits: int) -> None:
        self.world = world
        self.name = name
        self.prefix = f"cn.{name}"
        self.id = f"{self.prefix}/exchange/main"
        self.ahead_ms = ahead_ms
        self.limits = Limits(**limits)
        self.keys = ExchangeKeys(Key(seed(name)), self.prefix)
        self.ids = FakeIds(len(name) * 1_000 + sum(name.encode()))
        self.view = View(self.keys, self.limits)
        self.tables: dict[str, dict[str, Any]] = {}
        self.events: list[Any] = []
        self.ledger = Ledger({})
        self.usages: dict[str, Usage] = {}
        self.lines: dict[str, line.LineState] = {}
        self.generation = 0  # of the process: what was on its way to an older one is nobody's
        self.count = 0
        self.do(
            CreateExchange(
                id=self.id, prefix=self.prefix, public=self.keys.key.public, admin_token_sha256="0" * 64, session="s1"
            )
        )

    @property
    def now_ms(self) -> int:
        return self.world.clock.now_ms() + self.ahead_ms

    # -- deciding -----------------------------------------------------------------------------------------------------

    def do(self, command: Command) -> Any:
        decision = decide(self.view, command, self.now_ms, self.ids)
        self.take(decision.events)
        self.take(schedule(self.view, self.now_ms, self.ids, 100))
        return decision.reply

    def take(self, events: Any) -> None:
        for event in events:
            self.view.apply(event, self.now_ms)
            self.events.append(event)
            self._book(event)
            order = order_of(event, self.view, self.now_ms)
            if order is not None and order[0] in self.lines and isinstance(order[1], Offer | Stop):
                self.step(order[0], line.Ordered(order=order[1]))
        for table, key, row in rows(self.view):
            if row is None:
                self.tables.get(table, {}).pop(key, None)
            else:
                self.tables.setdefault(table, {})[key] = dict(row)

    def _book(self, event: Any) -> None:
        self.ledger.take(event)
        if isinstance(event, fact.RunEnded) and event.usage is not None:
            self.usages[event.run] = event.usage
        elif isinstance(event, fact.UsageAnswered):
            before = self.usages[event.usage.run]
            assert not before.given_answer, "a claim is answered once"
            self.usages[event.usage.run] = event.usage

    def reloaded(self) -> View:
        """A view as a restart fills it."""
        view = View(self.keys, self.limits)
        tables = {name: list(self.tables.get(name, {}).values()) for name in ROW}
        tables["run"].sort(key=lambda row: row["offered_ms"])
        load(view, tables, self.now_ms)
        return view

    def crash(self) -> None:
        """The process dies, and another one begins with what was kept."""
        self.view = self.reloaded()
        self.generation += 1
        for peer in tuple(self.lines):
            self.lines[peer], actions = line.begin(peer, self.now_ms)
            self.world.carry_out(self, peer, actions)

    # -- peers --------------------------------------------------------------------------------------------------------

    def knows(self, other: Node, **fields: Any) -> None:
        """An active peer, its records, and a line to it where we use it."""
        peer = Peer(
            id=other.id, prefix=other.prefix, public=other.keys.key.public, url=f"https://{other.name}.example",
            role=PeerRole.PEER, state=PeerState.ACTIVE, since_ms=self.now_ms, **fields,
        )  # fmt: skip
        self.take((fact.PeerChanged(peer=peer, why="test"),))

    def uses(self, other: Node) -> None:
        """Take the other's records and keep a line to it."""
        self.copy_records(other)
        self.lines[other.id], actions = line.begin(other.id, self.now_ms)
        self.world.carry_out(self, other.id, actions)

    def copy_records(self, other: Node) -> None:
        """What replication does: pages of every log that the other holds, but for our own."""
        held = sorted(other.tables.get("record", {}).values(), key=lambda row: (len(row["prefix"]), row["id"]))
        for at, row in enumerate(held, 1):
            if row["prefix"] != self.prefix and not row["prefix"].startswith(self.prefix + "."):
                self.do(
                    TakePage(peer=other.id, prefix=row["prefix"], session="s1", serial=at, envelopes=(row["envelope"],))
                )

    def look(self, other: Node) -> None:
        """Ask the other what is free there."""
        self.do(TakeBranch(peer=other.id, state=other.do(ReadState(peer=self.id))))

    def step(self, peer: str, what: line.Input) -> None:
        self.lines[peer], actions = line.step(self.lines[peer], what, self.now_ms)
        self.world.carry_out(self, peer, actions)

    # -- sites --------------------------------------------------------------------------------------------------------

    def join(self, owner: str, site: str, *, cores: int = 8, price: int = PRICE, **spec: Any) -> str:
        """A site with one pool of cores."""
        key, prefix = Key(seed(self.name + owner)), f"{self.prefix}.{owner}"
        self.count += 1
        statement = JoinStatement(
            owner=owner, owner_public=key.public, site=site, site_public=self.site_key(site).public,
            sealing=sealing_public(seed("sealing" + site)), nonce=f"nonce-{self.count:016d}", at_ms=self.now_ms,
        )  # fmt: skip
        signed = sign_statement(statement, key, f"{prefix}#k1", "site-join")
        joined = self.do(JoinSite(statement=signed))
        self.take((fact.SiteChanged(site=replace(self.view.sites[joined.site], is_admitted=True), why="accept"),))
        public = self.site_key(site).public
        self.register(owner, f"site/{site}", {"tier": "edge", "public": public, "sealing": statement.sealing})
        pool = {
            "site": joined.site, "sandbox": "bubblewrap", "core_count": cores, "memory_bytes": 64 * GB,
            "price_micro_cny_per_accelerator_hour": price, **spec,
        }  # fmt: skip
        self.register(owner, f"pool/{site}", pool)
        amounts = (pool.get("accelerator_count", 0), cores, 64 * GB)
        for node in self.world.nodes.values():
            node.ledger.capacity[f"{prefix}/pool/{site}"] = amounts
        self.world.sites[joined.site] = self
        self.open(joined.site)
        return str(joined.site)

    def site_key(self, site: str) -> Key:
        return Key(seed(f"{self.name} {site}"))

    def register(self, owner: str, name: str, spec: dict[str, Any], **fields: Any) -> None:
        now_s = self.now_ms // 1000
        stated = {"rev": 1, "nb": now_s - 100, "exp": now_s + 86_400 * 30, **fields}
        record = Record(id=f"{self.prefix}.{owner}/{name}", kind=name.split("/")[0], spec=spec, **stated)
        envelope = sign(record, Key(seed(self.name + owner)), f"{self.prefix}.{owner}#k1")
        self.do(StoreRecord(envelope=envelope))

    def open(self, site: str) -> None:
        self.count += 1
        hello = Hello(site=site, nonce=f"nonce-{self.count:016d}", at_ms=self.now_ms, protocols=(PROTOCOL,))
        statement = sign_statement(hello, self.site_key(site.rsplit("/", 1)[1]), "cn.x#site", "site-hello")
        self.do(OpenSession(statement=statement, hello=hello, bearer_sha256=seed(hello.nonce).hex()))

    def beat(self) -> None:
        """Every site of ours is heard."""
        for site in tuple(self.view.sites):
            self.count += 1
            runs = tuple(self.view.runs_at.get(site, ()))
            beat = Beat(site=site, seq=self.world.clock.now_ms() + self.count, at_ms=self.now_ms, runs=runs)
            self.do(TakeBeat(site=site, beat=beat))

    def own_runs(self, *states: RunState) -> list[Run]:
        return [run for run in self.view.runs.values() if not run.via and run.state in states]

    def accept(self, run: Run) -> None:
        self.do(TakeReport(site=run.site, report=Accepted(run=run.id, epoch=run.epoch, sandbox="bubblewrap")))

    def start(self, run: Run) -> None:
        self.do(TakeReport(site=run.site, report=Started(run=run.id, epoch=run.epoch, at_ms=self.now_ms)))

    def refuse(self, run: Run) -> None:
        why = Reason(code="policy_not_met", values={"term": "no"})
        self.do(TakeReport(site=run.site, report=Refused(run=run.id, epoch=run.epoch, reason=why)))

    def checkpoint(self, run: Run) -> None:
        self.count += 1
        kept = CheckpointKept(run=run.id, epoch=run.epoch, sha256=f"{self.count:064x}", size_bytes=10)
        self.do(TakeReport(site=run.site, report=kept))

    def end(self, run: Run, state: str = "succeeded", code: int = 0, *, is_metered: bool = True, **fields: Any) -> Any:
        """The site's last report, with its own signed reading unless told otherwise."""
        duration_ms = fields.pop("duration_ms", max(0, self.now_ms - (run.started_ms or run.accepted_ms)))
        origin = self.view.jobs[run.job].origin if run.job in self.view.jobs else None
        reading = MeterReading(
            site=run.site, run=run.id, first_run=origin.first_run if origin is not None else "", epoch=run.epoch,
            state=state, duration_ms=duration_ms,
        )  # fmt: skip
        key = self.site_key(run.site.rsplit("/", 1)[1])
        receipt = sign_statement(reading, key, "cn.x#site", METER).decode() if is_metered else ""
        ended = Ended(
            run=run.id, epoch=run.epoch, state=state, exit_codes=(code,), duration_ms=duration_ms,
            **{"receipt": receipt, **fields},
        )  # fmt: skip
        return self.do(TakeReport(site=run.site, report=ended))

    # -- users --------------------------------------------------------------------------------------------------------

    def submit(self, *tasks: Task) -> tuple[Job, ...]:
        jobs: tuple[Job, ...] = self.do(SubmitJobs(actor=ALICE, tasks=tasks))
        return jobs

    def stop(self, job: str) -> None:
        self.do(StopJob(actor=ALICE, job=job))

    def run_of(self, job: Job) -> Run:
        return self.view.runs[self.view.jobs[job.id].run]

    def ended(self, job: Job) -> fact.JobEnded | None:
        return next((each for each in self.events if isinstance(each, fact.JobEnded) and each.job == job.id), None)


@dataclass(order=True)
class Letter:
    """Something on its way: it is opened at its time, by whoever it is for."""

    at_ms: int
    number: int
    open: Callable[[], None] = field(compare=False)


class Federation:
    """The nodes, the clock and the network between them."""

    def __init__(self, seed_of: int = 0, *, loss: float = 0.0, doubling: float = 0.0, delay_ms: int = 20) -> None:
        self.clock = FakeClock(at_ms=START_MS)
        self.random = random.Random(seed_of)
        self.nodes: dict[str, Node] = {}
        self.sites: dict[str, Node] = {}
        self.letters: list[Letter] = []
        self.sent = 0
        self.loss, self.doubling, self.delay_ms = loss, doubling, delay_ms
        self.cuts: set[frozenset[str]] = set()
        self.faults: Counter[str] = Counter()

    def add(self, name: str, **fields: int) -> Node:
        node = Node(self, name, **fields)
        self.nodes[node.id] = node
        return node

    def join_up(self, user: Node, host: Node, **grants: Any) -> None:
        """``user`` may use ``host``."""
        host.knows(user, may_use=True, **grants)
        user.knows(host)
        user.uses(host)
        user.look(host)

    # -- carrying out -------------------------------------------------------------------------------------------------

    def carry_out(self, node: Node, peer: str, actions: list[line.Action]) -> None:
        for action in actions:
            if isinstance(action, line.ReadLive):
                self._locally(node, peer, action.ask, lambda a=action: self._read_live(node, peer, a))
            elif isinstance(action, line.Take):
                self._locally(node, peer, 0, lambda a=action: self._take(node, peer, a))
            else:
                self._ask(node, peer, action)

    def _locally(self, node: Node, peer: str, ask: int, what: Callable[[], None]) -> None:
        generation = node.generation

        def opened() -> None:
            if node.generation == generation:
                what()

        self.post(opened, 1)

    def _read_live(self, node: Node, peer: str, action: line.ReadLive) -> None:
        node.step(peer, line.LiveRead(ask=action.ask, live=node.do(ReadLiveCommand(peer=peer))))

    def _take(self, node: Node, peer: str, action: line.Take) -> None:
        try:
            outcomes = node.do(TakePeerReports(peer=peer, session=action.session, reports=action.reports))
        except TielineError as error:
            node.step(peer, line.NotTaken(take=action.take, reason=Reason(code=error.code)))
            return
        node.step(peer, line.Taken(take=action.take, outcomes=outcomes))

    def _ask(self, node: Node, peer: str, action: Any) -> None:
        """A request over the network: it may get lost, or come twice; so may its answer."""
        generation, host = node.generation, self.nodes[peer]
        answered: list[None] = []

        def back(what: line.Input) -> None:
            if node.generation == generation:
                answered.append(None)
                node.step(peer, what)

        def there() -> None:
            if self.is_cut(node, host):
                return
            answer = self._serve(node, host, action)
            if answer is not None and not self._loses("answer"):
                self.post(lambda: None if self.is_cut(node, host) else back(answer), self._delay())

        def late() -> None:
            if not answered and node.generation == generation:
                back(line.Failed(ask=action.ask, reason=Reason(code="timeout")))

        for _ in range(1 + self._doubles()):
            if not self._loses("request"):
                self.post(there, self._delay())
        self.post(late, 3_000)

    def _serve(self, node: Node, host: Node, action: Any) -> line.Input | None:
        try:
            if isinstance(action, line.Say):
                return line.Said(ask=action.ask, answers=self.said(node, host, action.orders).answers)
            if isinstance(action, line.AskReports):
                page = host.do(ReadReports(peer=node.id, session=action.session, after=action.after, most=7))
                return line.Paged(ask=action.ask, page=page)
            for command in line.payments_of(node.id, action.answers):
                self._try(host, command)
            return line.Given(ask=action.ask)
        except TielineError as error:
            return line.Failed(ask=action.ask, reason=Reason(code=error.code))

    def said(self, node: Node, host: Node, orders: Any) -> PeerAnswers:
        """What the host does with orders, and says to them."""
        replies = [self._try(host, command) for command in line.commands_of(node.id, orders)]
        return line.answer_of(orders, replies[len(replies) - len(orders.orders) :])

    def _try(self, host: Node, command: Command) -> Any:
        try:
            return host.do(command)
        except TielineError as error:
            return error

    # -- the network --------------------------------------------------------------------------------------------------

    def post(self, what: Callable[[], None], after_ms: int) -> None:
        self.sent += 1
        self.letters.append(Letter(self.clock.now_ms() + after_ms, self.sent, what))

    def _delay(self) -> int:
        return 1 + self.random.randrange(self.delay_ms)

    def _loses(self, what: str) -> bool:
        is_lost = self.random.random() < self.loss
        self.faults[f"lost {what}"] += is_lost
        return is_lost

    def _doubles(self) -> bool:
        is_double = self.random.random() < self.doubling
        self.faults["doubled"] += is_double
        return is_double

    def is_cut(self, one: Node, other: Node) -> bool:
        return frozenset((one.id, other.id)) in self.cuts

    def cut(self, one: Node, other: Node) -> None:
        self.cuts.add(frozenset((one.id, other.id)))

    def heal(self, one: Node, other: Node) -> None:
        self.cuts.discard(frozenset((one.id, other.id)))

    def pass_ms(self, ms: int, *, step_ms: int = 1_000, is_looking: bool = True) -> None:
        """Let time pass: letters arrive, sites are heard, states are asked for, everybody ticks."""
        end_ms = self.clock.now_ms() + ms
        while self.clock.now_ms() < end_ms:
            until_ms = min(end_ms, self.clock.now_ms() + step_ms)
            self.deliver(until_ms)
            for node in self.nodes.values():
                node.beat()
                for peer in node.lines:
                    host = self.nodes[peer]
                    if is_looking and not self.is_cut(node, host):
                        self._try_look(node, host)
                node.do(Tick())
                for peer in tuple(node.lines):
                    node.step(peer, line.Ticked())

    def _try_look(self, node: Node, host: Node) -> None:
        try:
            node.look(host)
        except TielineError:
            self.faults["look refused"] += 1

    def deliver(self, until_ms: int) -> None:
        """Open every letter that is due by then, in the order of their times."""
        while True:
            due = min((letter for letter in self.letters if letter.at_ms <= until_ms), default=None)
            if due is None:
                break
            self.letters.remove(due)
            self.clock.at_ms = max(self.clock.at_ms, due.at_ms)
            due.open()
        self.clock.at_ms = until_ms


def keys_of(world: Federation) -> dict[str, str]:
    """The public keys of all exchanges and sites."""
    keys = {node.id: node.keys.key.public for node in world.nodes.values()}
    for site, node in world.sites.items():
        keys[site] = node.site_key(site.rsplit("/", 1)[1]).public
    return keys


def pair(**grants: object) -> tuple[Federation, Node, Node]:
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one")
    world.join_up(a, b, **grants)
    return world, a, b


def running(world: Federation, a: Node, b: Node, **fields: object) -> tuple[Job, Run, Run]:
    """A job of A's user that runs at B, A's run and B's."""
    (job,) = a.submit(task(**{"cores": 2, **fields}))
    world.pass_ms(2_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(2_000)
    return job, a.run_of(job), b.view.runs[guest.id]
