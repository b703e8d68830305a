"""Data is brought by transfers that are booked with the run, ride on its order, and end with it."""

from collections import Counter
from contextlib import suppress
from itertools import pairwise
from random import Random

import pytest
from exchange_world import ADMIN, ALICE, PREFIX, World, task

from tieline.exchange import transfers
from tieline.exchange.bookings import CancelTransfer, OrderTransfer
from tieline.exchange.commands import ChangeLinks, ChangeProject, PlanTasks, StopJob, SubmitJobs, Tick
from tieline.exchange.decide import decide
from tieline.exchange.orders import offer_of
from tieline.exchange.placing import schedule
from tieline.exchange.projection import ROW, load, rows
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import RunOffered, TariffChanged, TopologyChanged, TransferChanged
from tieline.model.job import JobState, Run
from tieline.model.project import Member, Quota
from tieline.model.protocol import Refused
from tieline.model.reason import Reason
from tieline.model.tariff import Tariff
from tieline.model.task import DataUse, Task
from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import Transfer, TransferOrder, TransferState

GBIT = 10**9
GB = 10**9
SMALL = {"core_count": 4, "memory_bytes": 8 * GB}
HOME, NEAR, FAR = (f"{PREFIX}.lab7/site/{name}" for name in ("home", "near", "far"))


@pytest.fixture
def wide(world: World) -> World:
    """Data at `home`; `near` is dearer and on a fast link, `far` is cheaper and on a slow one."""
    world.join("lab7", "near", price_micro_cny_per_accelerator_hour=2_000_000, **SMALL)
    world.join("lab7", "far", price_micro_cny_per_accelerator_hour=1_000_000, **SMALL)
    world.register("lab7", "dataset/d", {"sites": [HOME], "size_bytes": 90 * GB})
    nodes = tuple(Node(name=name, site=site) for name, site in (("h", HOME), ("n", NEAR), ("f", FAR)))
    links = (
        Link(name="fast", a="h", b="n", capacity_bps=10 * GBIT),
        Link(name="slow", a="n", b="f", capacity_bps=GBIT // 10),
    )
    world.take([TopologyChanged(topology=Topology(name="t", nodes=nodes, links=links), why="")], world.clock.now_ms())
    world.take([TariffChanged(tariff=Tariff(best_effort_micro_cny_per_gb=1_000), why="")], world.clock.now_ms())
    return world


def reading(name: str = "t", **fields: object) -> Task:
    fields = {"max_duration_s": 3_600, **fields}
    return task(name, data=(DataUse(id=f"{PREFIX}.lab7/dataset/d", path="d"),), **fields)


def live(world: World) -> list[Transfer]:
    return list(world.view.network.transfers.values())


def placed(world: World, **fields: object) -> Run:
    (job,) = world.submit(reading(**fields))
    return world.run_of(job)


def test_the_run_goes_where_the_data_is_there_first_and_its_transfer_is_booked_with_it(wide: World) -> None:
    run = placed(wide)
    assert run.site == NEAR
    (transfer,) = live(wide)
    assert (transfer.order.source, transfer.order.target, transfer.order.job, transfer.run) == (
        HOME,
        NEAR,
        run.job,
        run.id,
    )
    assert transfer.price_micro_cny == 90 * 1_000
    assert sum(segment.size_bytes for segment in transfer.segments) >= 90 * GB
    kinds = [type(event) for event in wide.events]
    assert kinds.index(TransferChanged) < kinds.index(RunOffered)
    assert offer_of(wide.view, run, wide.clock.now_ms()).transfers == (transfer,)


def test_nothing_is_brought_while_bookings_wait_to_be_mended(wide: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MOST_AT_ONCE", 0)
    order = TransferOrder(source=NEAR, target=FAR, size_bytes=GB)
    wide.do(OrderTransfer(actor=ALICE, order=order))
    wide.do(ChangeLinks(actor=ADMIN, down=("slow",)))
    assert wide.view.network.waiting
    assert placed(wide).site == NEAR
    assert [each.order for each in live(wide)] == [order], "who was booked before gets his room first"
    wide.do(Tick())
    placed(wide)
    assert len(live(wide)) == 2


def test_the_plan_shows_the_way_its_rate_and_its_price(wide: World) -> None:
    (plan,) = wide.do(PlanTasks(actor=ALICE, tasks=(reading(),)))
    assert [each.site for each in plan.candidates] == [NEAR, FAR]
    (near,), (far,) = (each.transfers for each in plan.candidates)
    assert (near.links, far.links) == (("fast",), ("fast", "slow"))
    assert near.rate_bps > 10 * far.rate_bps
    assert (near.price_micro_cny, near.rtt_us) == (90_000, None)
    assert not live(wide)


def test_runs_of_one_pass_see_what_each_other_booked(wide: World) -> None:
    jobs = wide.submit(*(reading(f"t{number}") for number in range(1)))
    alone = live(wide)[0]
    now_ms = wide.clock.now_ms()
    wide.do(StopJob(actor=ALICE, job=jobs[0].id))
    wide.do(Tick())
    assert not live(wide)
    for number in range(3):  # a pass places all three
        wide.take(wide_decided(wide, f"t{number}"), now_ms)
    wide.take(schedule(wide.view, now_ms, wide.ids, 1_000), now_ms)
    arrivals = sorted(each.arrives_ms for each in live(wide))
    assert len(arrivals) == 3
    assert arrivals[0] == alone.arrives_ms < arrivals[1] < arrivals[2]
    calendar = wide.view.network.calendar_at(now_ms)
    assert calendar is not None
    assert calendar.is_kept()


def wide_decided(world: World, name: str):
    command = SubmitJobs(actor=ALICE, tasks=(reading(name),))
    return decide(world.view, command, world.clock.now_ms(), world.ids).events


def test_a_pass_whose_events_are_dropped_leaves_nothing_in_the_calendar(wide: World) -> None:
    now_ms = wide.clock.now_ms()
    calendar = wide.view.network.calendar_at(now_ms)
    assert calendar is not None
    before = calendar.free.copy()
    wide.take(wide_decided(wide, "t"), now_ms)
    first = schedule(wide.view, now_ms, wide.ids, 1_000)
    assert any(isinstance(event, TransferChanged) for event in first)
    assert (calendar.free == before).all()
    assert not live(wide)


@pytest.mark.parametrize("how", ["refused", "cancelled", "lost", "ended"])
def test_transfers_end_with_their_run(wide: World, how: str) -> None:
    run = placed(wide)
    (transfer,) = live(wide)
    if how == "cancelled":
        wide.do(StopJob(actor=ALICE, job=run.job))
    elif how == "lost":
        wide.pass_ms(30_000)
    elif how == "ended":
        wide.accept(run)
        wide.end(run, state="failed", code=1)
    else:
        wide.report(NEAR, Refused(run=run.id, epoch=run.epoch, reason=Reason(code="policy_refuses")))
    wide.do(Tick())
    over = [e.transfer for e in wide.events if isinstance(e, TransferChanged) and e.transfer.id == transfer.id]
    assert over[-1].state is TransferState.CANCELLED
    assert all(each.run != run.id for each in live(wide))


def test_a_run_that_runs_has_the_time_that_was_booked(wide: World) -> None:
    run = placed(wide)
    wide.start(run)
    wide.pass_ms(20_000, NEAR, FAR)
    (transfer,) = live(wide)
    assert transfer.state is TransferState.MOVING
    wide.pass_ms(transfer.arrives_ms - wide.clock.now_ms() + 4_000, NEAR, FAR)
    assert not live(wide)
    (*_, last) = (event.transfer for event in wide.events if isinstance(event, TransferChanged))
    assert (last.state, last.charged_micro_cny) == (TransferState.ARRIVED, 0)  # charged by receipts alone


def test_a_deadline_books_a_promised_transfer_and_one_that_no_way_can_hold_is_a_reason(wide: World) -> None:
    run = placed(wide, deadline_s=7_200)
    (transfer,) = live(wide)
    assert transfer.order.deadline_ms == wide.clock.now_ms() + (7_200 - 3_600) * 1_000
    assert run.site == NEAR
    (plan,) = wide.do(PlanTasks(actor=ALICE, tasks=(reading(deadline_s=3_660),)))
    assert not plan.candidates
    assert [reason.code for reason in plan.reasons] == ["deadline_missed"]


def test_a_project_books_no_transfer_that_it_cannot_pay_beside_its_runs(wide: World) -> None:
    quota, member = Quota(micro_cny=2_000_000), Member(name="alice")
    wide.do(ChangeProject(actor=ADMIN, project="p", what="create", quota=quota, put=(member,)))
    wide.take([TariffChanged(tariff=Tariff(best_effort_micro_cny_per_gb=2_000), why="")], wide.clock.now_ms())
    first, second = (wide.submit(reading(name, max_duration_s=900))[0] for name in ("a", "b"))
    runs = [wide.run_of(job) for job in (first, second)]  # half a yuan each, and 0.18 for the data of each
    assert [each.run for each in live(wide)] == [run.id for run in runs]
    assert {each.project for each in live(wide)} == {"p"}
    third = wide.run_of(wide.submit(reading("c", max_duration_s=900))[0])
    assert third.id not in [each.run for each in live(wide)]


def test_a_job_whose_way_is_cut_waits_and_goes_on_when_it_is_mended(wide: World) -> None:
    wide.do(ChangeLinks(actor=ADMIN, down=("fast",)))
    (job,) = wide.submit(reading())
    assert wide.view.jobs[job.id].state is JobState.QUEUED
    (plan,) = wide.do(PlanTasks(actor=ALICE, tasks=(reading("u"),)))
    assert [(reason.code, reason.count) for reason in plan.reasons] == [("data_rate_unknown", 2)]
    wide.do(ChangeLinks(actor=ADMIN, up=("fast",)))
    assert wide.run_of(job).site == NEAR


def test_a_job_that_finds_no_room_is_looked_at_again_when_a_booking_ends(wide: World) -> None:
    order = TransferOrder(source=HOME, target=NEAR, size_bytes=2 * 10**15, is_partial_useful=True, deadline_ms=2**42)
    full = wide.do(OrderTransfer(actor=ALICE, order=order)).transfer
    (job,) = wide.submit(reading())
    assert wide.view.jobs[job.id].state is JobState.QUEUED
    wide.do(CancelTransfer(actor=ALICE, transfer=full.id))
    assert wide.run_of(job).site == NEAR


def test_without_a_topology_nothing_is_booked(world: World) -> None:
    world.join("lab7", "near", price_micro_cny_per_accelerator_hour=2_000_000, **SMALL)
    world.register("lab7", "dataset/d", {"sites": [HOME], "size_bytes": 90 * GB})
    assert placed(world).site == NEAR
    assert not live(world)
    (plan,) = world.do(PlanTasks(actor=ADMIN, tasks=(reading("u"),)))
    assert plan.candidates[0].transfers[0].rate_bps == 10 * GBIT


SITES = ("home", "near", "far", "edge")
TURNS = 60


class Busy:
    """Jobs that read data over a small network whose links are cut and mended, and the bookings of others."""

    def __init__(self, seed: int) -> None:
        self.dice, self.world = Random(seed), World()
        self.seen: Counter[str] = Counter()
        for at, name in enumerate(SITES):
            price = 1_000_000 * (at + 1)
            self.world.join("lab7", name, price_micro_cny_per_accelerator_hour=price, **SMALL)
        for at in range(3):
            sites = [f"{PREFIX}.lab7/site/{name}" for name in self.dice.sample(SITES, 1 + at % 2)]
            self.world.register("lab7", f"dataset/d{at}", {"sites": sites, "size_bytes": (at + 1) * 20 * GB})
        nodes = tuple(Node(name=name, site=f"{PREFIX}.lab7/site/{name}") for name in SITES)
        ends = [*pairwise(SITES), ("home", "edge")]
        links = tuple(Link(name=f"{a}-{b}", a=a, b=b, capacity_bps=GBIT * self.dice.choice((1, 2, 5))) for a, b in ends)
        topology = Topology(name="t", nodes=nodes, links=links)
        self.links = [link.name for link in links]
        self.world.take([TopologyChanged(topology=topology, why="")], self.world.clock.now_ms())

    def turn(self) -> None:
        """One thing that happens, some time, and what has to hold."""
        what = self.dice.choice(("submit", "submit", "start", "start", "end", "refuse", "cut", "mend", "other", "stop"))
        if getattr(self, f"_{what}")():
            self.seen[what] += 1
        self.world.pass_ms(self.dice.choice((500, 4_000, 30_000)), *(f"{PREFIX}.lab7/site/{name}" for name in SITES))
        self.world.do(Tick())  # a run that the last tick lost had its transfers until now
        self.check()

    def check(self) -> None:
        view = self.world.view
        network = view.network
        for transfer in network.transfers.values():
            if transfer.run:
                assert transfer.run in view.runs
                assert view.runs[transfer.run].job == transfer.order.job
                assert view.runs[transfer.run].site == transfer.order.target
        brings = [name for names in network.brings.values() for name in names]
        assert sorted(brings) == sorted(each.id for each in network.transfers.values() if each.order.job)
        calendar = network.calendar_at(self.world.clock.now_ms())
        assert calendar is not None
        assert set(calendar.transfers) == set(network.transfers)
        assert calendar.is_kept()

    def _run(self, *states: str) -> Run | None:
        runs = [run for run in self.world.view.runs.values() if run.state.value in states]
        return self.dice.choice(runs) if runs else None

    def _submit(self) -> bool:
        data = DataUse(id=f"{PREFIX}.lab7/dataset/d{self.dice.randrange(3)}", path="d")
        deadline_s = self.dice.choice((0, 0, 7_200))
        self.world.submit(
            task(cores=self.dice.choice((1, 2)), data=(data,), deadline_s=deadline_s, max_duration_s=3_600)
        )
        return True

    def _start(self) -> bool:
        run = self._run("offered")
        return run is not None and self.world.start(run).is_ok

    def _end(self) -> bool:
        run = self._run("running", "accepted")
        return run is not None and self.world.end(run, state=self.dice.choice(("succeeded", "failed"))).is_ok

    def _refuse(self) -> bool:
        run = self._run("offered")
        refused = Refused(run=run.id, epoch=run.epoch, reason=Reason(code="policy_refuses")) if run else None
        return run is not None and self.world.report(run.site, refused).is_ok

    def _stop(self) -> bool:
        run = self._run("offered", "running")
        if run is not None:
            self.world.do(StopJob(actor=ALICE, job=run.job))
        return run is not None

    def _cut(self) -> bool:
        self.world.do(ChangeLinks(actor=ADMIN, down=(self.dice.choice(self.links),)))
        return True

    def _mend(self) -> bool:
        down = tuple(self.world.view.network.down)
        if down:
            self.world.do(ChangeLinks(actor=ADMIN, up=(self.dice.choice(down),)))
        return bool(down)

    def _other(self) -> bool:
        a, b = self.dice.sample(SITES, 2)
        order = TransferOrder(source=a, target=b, size_bytes=self.dice.randint(1, 50) * GB)
        with suppress(TielineError):
            self.world.do(OrderTransfer(actor=ALICE, order=order))
            return True
        return False


def test_whatever_happens_no_link_is_oversold_and_no_transfer_outlives_its_run() -> None:
    seen: Counter[str] = Counter()
    for seed in range(4):
        busy = Busy(seed)
        for _ in range(TURNS):
            busy.turn()
        seen += busy.seen
        again = View(busy.world.keys)
        for event in busy.world.events:
            again.apply(event, busy.world.clock.now_ms())
        assert again.network.transfers == busy.world.view.network.transfers
        assert again.network.brings == busy.world.view.network.brings
        tables: dict[str, dict[str, object]] = {name: {} for name in ROW}
        for table, key, row in rows(busy.world.view):
            tables[table][key] = row
        loaded = View(busy.world.keys)
        load(loaded, {name: list(kept.values()) for name, kept in tables.items()}, busy.world.clock.now_ms())  # type: ignore[misc]
        assert loaded.network.transfers == busy.world.view.network.transfers
    assert min(seen[what] for what in ("submit", "start", "end", "refuse", "cut", "mend", "other", "stop")) > 5
