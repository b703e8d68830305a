"""An exchange with three sites and gangs over them that are booked by hand, so that each answer can be tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from exchange_world import ALICE, PREFIX, World, task

from tieline.exchange.commands import Command, StopJob, Tick
from tieline.exchange.decide import decide
from tieline.exchange.orders import as_gang, order_of
from tieline.exchange.projection import ROW, load, rows
from tieline.exchange.view import View
from tieline.model.circuit import Circuit, CircuitOrder, CircuitState
from tieline.model.event import CircuitChanged, Event, JobSubmitted, RunOffered
from tieline.model.job import Job, JobState, Run, RunState
from tieline.model.protocol import Accepted, Ended, Offer, Outcome, Refused, Started
from tieline.model.reason import Reason
from tieline.model.task import Span

OWNERS = ("lab1", "lab2", "lab3")
PRICE = 3_600_000  # of a core for an hour: a micro-yuan a millisecond


class GangWorld(World):
    """No placing pass follows a command: what is booked is booked by `book`."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, Any]] = []
        self.tables: dict[str, dict[str, Any]] = {name: {} for name in ROW}
        super().__init__()
        self.sites = [self.join(owner, "s", core_count=16, memory_bytes=10**11) for owner in OWNERS]

    def do(self, command: Command) -> Any:
        now_ms = self.clock.now_ms()
        decision = decide(self.view, command, now_ms, self.ids)
        self.take(decision.events, now_ms)
        return decision.reply

    def take(self, events: Sequence[Event], now_ms: int) -> None:
        for event in events:
            self.view.apply(event, now_ms)
            self.events.append(event)
            order = order_of(event, self.view, now_ms)
            if order is not None:
                self.orders.append(order)

    def keep(self) -> None:
        """Keep what changed, as the store does."""
        for table, key, row in rows(self.view):
            if row is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = row

    def restarted(self) -> View:
        """The view that a new process would fill from what was kept."""
        self.keep()
        fresh = View(self.keys)
        load(fresh, {table: list(kept.values()) for table, kept in self.tables.items()}, self.clock.now_ms())
        return fresh

    def restart(self) -> None:
        """Go on with it."""
        fresh = self.restarted()
        fresh.carry(self.view)
        fresh.touched.clear()
        self.view = fresh

    def submitted(self, nodes: int = 4, **fields: Any) -> Job:
        """A job that asks for nodes at several sites, and waits."""
        now_ms = self.clock.now_ms()
        job = Job(
            id=f"{PREFIX}/job/{self.ids.new('job')}",
            user=ALICE.name,
            state=JobState.QUEUED,
            task=task(nodes=nodes, span=Span(rate_bps=10**9, ports=(29_500,)), **fields),
            submitted_ms=now_ms,
            eligible_ms=now_ms,
        )
        self.take([JobSubmitted(job=job)], now_ms)
        return job

    def book(self, job: Job, *parts: tuple[int, int]) -> list[Run]:
        """Book a gang: for each part the number of a site, and how many nodes it takes there."""
        now_ms = self.clock.now_ms()
        job = self.view.jobs[job.id]
        epoch = job.epoch + 1
        first = f"{job.id.rsplit('/', 1)[1]}.{epoch}"
        runs: list[Run] = []
        rank = 0
        for at, (place, nodes) in enumerate(parts or ((0, 2), (1, 1), (2, 1))):
            site = self.sites[place]
            owner = site.split("/")[0]
            run = Run(
                id=f"{first}.{at}" if at else first, job=job.id, epoch=epoch, state=RunState.OFFERED,
                pool=f"{owner}/pool/s", site=site, owner=owner, user=job.user, price_micro_cny_per_unit_hour=PRICE,
                unit_count=nodes, core_count=nodes, memory_bytes=10**9, offered_ms=now_ms, expires_ms=now_ms + 5_000,
                rank=rank, nodes=nodes, held_micro_cny=nodes * 100_000,
            )  # fmt: skip
            rank += nodes
            runs.append(run)
        circuits = [self.circuit(job, first, one, two) for one, two in _pairs([run.site for run in runs])]
        offered = [RunOffered(run=run, held_micro_cny=run.held_micro_cny) for run in as_gang(runs)]
        self.take([*(CircuitChanged(circuit=each, why="gang") for each in circuits), *offered], now_ms)
        return list(as_gang(runs))

    def circuit(self, job: Job, run: str, one: str, two: str) -> Circuit:
        return Circuit(
            id=f"{PREFIX}/circuit/{self.ids.new('circuit')}", user=job.user, state=CircuitState.ORDERED, job=job.id,
            run=run, order=CircuitOrder(a=one, b=two, rate_bps=10**9), ordered_ms=self.clock.now_ms(),
        )  # fmt: skip

    # -- what sites say, and what came to them ------------------------------------------------------------------------

    def said(self, run: Run, kind: type, **fields: Any) -> Outcome:
        return self.report(run.site, kind(run=run.id, epoch=fields.pop("epoch", run.epoch), **fields))

    def accepts(self, run: Run) -> Outcome:
        return self.said(run, Accepted, sandbox="bubblewrap", network="host")

    def refuses(self, run: Run, code: str = "site_draining") -> Outcome:
        return self.said(run, Refused, reason=Reason(code=code, values={}))

    def starts(self, run: Run) -> Outcome:
        return self.said(run, Started, at_ms=self.clock.now_ms())

    def ends(self, run: Run, state: str = "succeeded", code: int = 0, **fields: Any) -> Outcome:
        return self.said(run, Ended, state=state, exit_codes=(code,), **fields)

    def all_run(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self.accepts(run)
        for run in runs:
            assert self.accepts(run).is_ok
            assert self.starts(run).is_ok

    def tick(self, ms: int = 100) -> None:
        """Time passes; every site is heard."""
        self.clock.advance(ms)
        for site in self.sites:
            if not self.view.sites[site].has_left:
                self.beat(site)
        self.do(Tick())

    def cancel(self, job: Job) -> Any:
        return self.do(StopJob(actor=ALICE, job=job.id, why="enough"))

    def told(self, run: Run, kind: type = Offer) -> list[Any]:
        """The orders of a kind that went out for a run, in order."""
        return [order for site, order in self.orders if isinstance(order, kind) and order.run == run.id]

    def state_of(self, run: Run) -> RunState:
        found = self.view.runs.get(run.id) or self.view.recent[run.id]
        return found.state

    def kept(self, job: Job) -> Job:
        """The job as it is, or as it ended."""
        self.keep()
        return self.kept_job(job.id)

    def kept_job(self, name: str) -> Job:
        return msgspec.json.decode(self.tables["job"][name]["doc"], type=Job)


def _pairs(sites: list[str]) -> list[tuple[str, str]]:
    names = list(dict.fromkeys(sites))
    return [(one, two) for at, one in enumerate(names) for two in names[at + 1 :]]
