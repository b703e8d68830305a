"""What placing gains by knowing the network: mean completion of jobs against the constant rate that launchers assume.

Twenty scenarios of `tieline.sim.wide_area` (fixed parameters, seeds 1 to 20), each twice through the exchange's own
use-cases and placing pass, with the time moved by hand:

- *network*: as the product places, by when the data would really be there on the calendar;
- *constant*: the same code, but every pair of sites is taken to be joined at 10 Gbit/s.

All else is the same: prices, weights, the queue, and how bytes travel. In both the data of a placed run is booked on
the calendar of the real topology, beside other people's transfers, and the run starts when its last byte is there.
Completion is from the submission of a job to its end. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import hashlib
from heapq import heappop, heappush
from itertools import count
from statistics import mean, median
from typing import Any, NamedTuple

from bench.row import Row
from tieline.exchange import commands as ask
from tieline.exchange.bookings import OrderTransfer
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.placing import schedule
from tieline.exchange.view import View
from tieline.model.event import JobEnded, RunOffered, TopologyChanged
from tieline.model.limits import Limits
from tieline.model.party import Actor, Role, Site
from tieline.model.protocol import Accepted, Ended, Started
from tieline.model.spec import DatasetSpec, PoolSpec, SiteSpec
from tieline.model.task import DataUse, Resources, Task
from tieline.place import DataFact, pool_row
from tieline.ports import ConstantDistances, FakeClock, FakeIds
from tieline.registry import Key
from tieline.sim.wide_area import GB, PREFIX, WideArea, WideJob, wide_area

SEEDS = range(1, 21)
START_MS = 1_764_547_200_000
LIMITS = Limits(offer_ttl_ms=3_600_000, lease_ms=86_400_000)
USER = Actor(name="alice", roles=(Role.USER,))
MOST_STEPS = 100_000
ASSUMED = ConstantDistances()


class Play:
    """One scenario under one kind of distances."""

    def __init__(self, area: WideArea, *, is_constant: bool) -> None:
        self.area = area
        self.clock, self.ids = FakeClock(at_ms=START_MS), FakeIds(area.seed)
        key = Key(hashlib.sha256(b"wide").digest())
        self.view = View(ExchangeKeys(key, PREFIX), LIMITS)
        create = ask.CreateExchange(
            id=f"{PREFIX}/exchange/main", prefix=PREFIX, public=key.public, admin_token_sha256="0" * 64
        )
        self.do(create)
        self._furnish()
        if is_constant:
            self.view.distances = ASSUMED  # type: ignore[assignment]
        self._order = count()
        self._due: list[tuple[int, int, str, Any]] = []
        self.work: dict[str, WideJob] = {}  # job -> what it is
        self.took_ms: list[int] = []
        self.moved_bytes = 0
        self.paid_micro_cny = 0  # for cards while they work, at the owners' prices

    def _furnish(self) -> None:
        view = self.view
        for site in self.area.sites:
            view.put_site(Site(id=site.id, owner=PREFIX, public="", is_admitted=True, is_silent=False))
            pool = PoolSpec(
                site=site.id,
                accelerator="a100",
                accelerator_count=site.cards,
                core_count=site.cards * 16,
                memory_bytes=site.cards * 64 * GB,
                sandbox="bubblewrap",
                price_micro_cny_per_accelerator_hour=site.price_micro_cny,
            )
            view.supply.pools.put(pool_row(site.pool, PREFIX, pool, SiteSpec()))
        for data in self.area.datasets:
            spec = DatasetSpec(sites=data.sites, size_bytes=data.size_bytes, residency="anywhere")
            view.supply.datasets[data.id] = DataFact(owner=PREFIX, spec=spec)
        self.take([TopologyChanged(topology=self.area.topology, why="")])
        for order in self.area.others:
            self.do(OrderTransfer(actor=USER, order=order))

    def run(self) -> float:
        """Mean completion in seconds."""
        for job in self.area.jobs:
            self._at(START_MS + job.at_ms, "submit", job)
        for _ in range(MOST_STEPS):
            if not self._due:
                break
            at_ms, _, what, of = heappop(self._due)
            self.clock.advance(at_ms - self.clock.now_ms())
            getattr(self, f"_{what}")(of)
        if len(self.took_ms) != len(self.area.jobs):
            raise AssertionError(f"{len(self.took_ms)} of {len(self.area.jobs)} jobs ended")
        return mean(self.took_ms) / 1_000

    def _at(self, at_ms: int, what: str, of: Any) -> None:
        heappush(self._due, (max(at_ms, self.clock.now_ms()), next(self._order), what, of))

    def _submit(self, job: WideJob) -> None:
        task = Task(
            name=job.name,
            run="true",
            resources=(Resources(accelerator="a100", accelerator_count=job.cards),),
            data=(DataUse(id=job.data, path="data"),),
            max_duration_s=job.most_s,
        )
        submit = ask.SubmitJobs(actor=USER, tasks=(task,))
        now_ms = self.clock.now_ms()
        decision = decide(self.view, submit, now_ms, self.ids)
        self.work[decision.reply[0].id] = job
        self.take(decision.events)
        self._place()

    def _offered(self, event: RunOffered) -> None:
        run = event.run
        self._report(run.site, Accepted(run=run.id, epoch=run.epoch, sandbox="bubblewrap", network="host"))
        booked = [self.view.network.transfers[name] for name in self.view.network.brings.get(run.job, ())]
        work_ms = self.work[run.job].work_ms
        self.paid_micro_cny += run.unit_count * run.price_micro_cny_per_unit_hour * work_ms // 3_600_000
        self.moved_bytes += sum(each.order.size_bytes for each in booked)
        self._arrived(run.id)

    def _arrived(self, name: str) -> None:
        """Start when the last byte is there: a booking may have been laid later meanwhile."""
        run = self.view.runs[name]
        transfers = [self.view.network.transfers[each] for each in self.view.network.brings.get(run.job, ())]
        there_ms = max((each.arrives_ms for each in transfers), default=0)
        if there_ms > self.clock.now_ms():
            self._at(there_ms, "arrived", name)
            return
        self._report(run.site, Started(run=name, epoch=run.epoch, at_ms=self.clock.now_ms()))
        self.do(ask.Tick())
        self._at(self.clock.now_ms() + self.work[run.job].work_ms, "end", name)

    def _end(self, name: str) -> None:
        run = self.view.runs[name]
        work_ms = self.work[run.job].work_ms
        self._report(
            run.site, Ended(run=name, epoch=run.epoch, state="succeeded", exit_codes=(0,), duration_ms=work_ms)
        )

    def _report(self, site: str, report: Any) -> None:
        self.do(ask.TakeReport(site=site, report=report))

    def do(self, command: Any) -> None:
        """One command and the placing pass after it."""
        self.take(decide(self.view, command, self.clock.now_ms(), self.ids).events)
        self._place()

    def _place(self) -> None:
        if self.view.exchange is not None:
            self.take(schedule(self.view, self.clock.now_ms(), self.ids, 1_000))

    def take(self, events: Any) -> None:
        """Let facts take effect."""
        now_ms = self.clock.now_ms()
        for event in events:
            self.view.apply(event, now_ms)
        for event in events:
            if isinstance(event, RunOffered):
                self._offered(event)
            if isinstance(event, JobEnded):
                job = self.work[event.job]
                self.took_ms.append(now_ms - START_MS - job.at_ms)


class Gain(NamedTuple):
    """One scenario played twice: with the network known, and with the constant."""

    network_s: float  # mean completion
    constant_s: float
    network: Play
    constant: Play

    @property
    def ratio(self) -> float:
        """Of the mean completions: below 1 is a gain."""
        return self.network_s / self.constant_s


def gain(seed: int) -> Gain:
    """Play the scenario of a seed."""
    area = wide_area(seed)
    network, constant = Play(area, is_constant=False), Play(area, is_constant=True)
    return Gain(network.run(), constant.run(), network, constant)


def run() -> list[Row]:
    """A row for each seed, and one for all."""
    gains = {seed: gain(seed) for seed in SEEDS}
    rows = [
        Row(
            claim=f"network_gain: mean completion, seed {seed}",
            figure=found.network_s,
            unit="s",
            anchor=found.constant_s,
            anchor_name="constant 10 Gbit/s, same run",
            ratio=found.ratio,
            note=_said(found),
        )
        for seed, found in gains.items()
    ]
    network_s = mean(found.network_s for found in gains.values())
    constant_s = mean(found.constant_s for found in gains.values())
    work_s = mean(job.work_ms / 1_000 for found in gains.values() for job in found.network.area.jobs)
    ratios = sorted(found.ratio for found in gains.values())
    rows.append(
        Row(
            claim=f"network_gain: mean completion over {len(rows)} seeds",
            figure=network_s,
            unit="s",
            anchor=constant_s,
            anchor_name="constant 10 Gbit/s, same run",
            ratio=network_s / constant_s,
            target="0.75, and no seed above 1.02",
            note=f"seeds {ratios[0]:.2f} to {ratios[-1]:.2f}, median {median(ratios):.2f}; bound: the work alone takes "
            f"{work_s:,.0f} s; same calendar, queue, prices and weights",
        )
    )
    return rows


def _said(found: Gain) -> str:
    """What else differs: bytes that were moved, and what the cards cost."""
    one, other = found.network, found.constant
    return (
        f"moved {one.moved_bytes / 1e12:.1f} TB and {other.moved_bytes / 1e12:.1f} TB; "
        f"cards {one.paid_micro_cny / 1e6:,.0f} and {other.paid_micro_cny / 1e6:,.0f} CNY"
    )
