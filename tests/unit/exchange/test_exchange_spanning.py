"""A gang over several pools is booked whole or not at all: cards, circuits and money, within what everybody has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from types import SimpleNamespace

import pytest
from exchange_world import ADMIN, ALICE, PREFIX, World, task
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tieline.exchange import joining
from tieline.exchange.bookings import OrderCircuit, TakeReceipt
from tieline.exchange.commands import ChangeLinks, ChangeProject, PlanTasks, StopJob, SubmitJobs, Tick, WhyJob
from tieline.exchange.decide import decide
from tieline.exchange.placing import MOST_SPANS, schedule
from tieline.exchange.queue import MOST_SEARCHED, MOST_VAIN, VAIN_MS
from tieline.exchange.spanning import STAGING_S
from tieline.model.circuit import Circuit, CircuitOrder, Receipt
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, RecordStored, RunOffered, TariffChanged, TopologyChanged
from tieline.model.job import Job, JobState, Run, RunState
from tieline.model.project import Member, Quota
from tieline.model.protocol import PROTOCOL_GANGS, Accepted, Refused
from tieline.model.reason import Reason
from tieline.model.spec import PoolSpec, SiteSpec
from tieline.model.tariff import Hours, Tariff
from tieline.model.task import DataUse, Resources, Retry, Span, Task
from tieline.model.topology import Link, Node, Topology
from tieline.network.calendar import Calendar, Waiting
from tieline.place import Amount, SiteFlags, pool_row
from tieline.place.choose import Choosing

GBIT = 10**9
GB = 10**9
CNY = 10**6
POOL = {"core_count": 4, "memory_bytes": 8 * GB}
SITES = ("a", "b", "c")


def site(name: str) -> str:
    return f"{PREFIX}.{name}/site/{name}"


def join(world: World, name: str, price: int = CNY, **pool: object) -> None:
    """A site of its own owner with one pool of four cores."""
    world.join(name, name, price_micro_cny_per_accelerator_hour=price, **{**POOL, **pool})


def network(*links: Link, sites: tuple[str, ...] = SITES) -> Topology:
    return Topology(name="t", nodes=tuple(Node(name=name, site=site(name)) for name in sites), links=links)


def triangle(capacity_bps: int = 10 * GBIT, delay_us: int = 1_000) -> Topology:
    return network(
        *(
            Link(name=f"{a}{b}", a=a, b=b, capacity_bps=capacity_bps, delay_us=delay_us)
            for a, b in combinations(SITES, 2)
        )
    )


def told(world: World, topology: Topology, tariff: Tariff | None = None) -> World:
    now_ms = world.clock.now_ms()
    world.take([TopologyChanged(topology=topology, why="")], now_ms)
    if tariff is not None:
        world.take([TariffChanged(tariff=tariff, why="")], now_ms)
    return world


@pytest.fixture
def wide(world: World) -> World:
    """Three owners with four cores each, dearer by the letter, joined by a triangle of 10 Gbit/s."""
    for name, price in zip(SITES, (1, 2, 3), strict=True):
        join(world, name, price * CNY)
    return told(world, triangle())


def spanning(nodes: int = 6, name: str = "g", **fields: object) -> Task:
    span = fields.pop("span", Span(rate_bps=GBIT))
    return task(name, nodes=nodes, span=span, **fields)


def submitted(world: World, *tasks: Task) -> Job:
    return world.submit(*(tasks or (spanning(),)))[0]


def runs(world: World, job: Job) -> list[Run]:
    return [run for run in world.view.runs.values() if run.job == job.id]


def circuits(world: World) -> list[Circuit]:
    return list(world.view.network.circuits.values())


def why(world: World, job: Job) -> list[str]:
    """What a job waits for."""
    return [reason.code for reason in world.do(WhyJob(actor=ALICE, job=job.id)).reasons]


def tried(world: World, asked: Task) -> Job | None:
    """The job, or nothing where it is told at once that it can never run here."""
    with suppress(TielineError):
        return submitted(world, asked)
    return None


def planned(world: World, asked: Task):
    (plan,) = world.do(PlanTasks(actor=ALICE, tasks=(asked,)))
    return plan


def test_a_gang_that_no_pool_holds_is_booked_at_the_cheapest_sites_with_a_circuit_between_them(wide: World) -> None:
    job = submitted(wide)
    first, second = runs(wide, job)
    assert [(run.site, run.nodes, run.rank, run.member, run.members) for run in (first, second)] == [
        (site("a"), 4, 0, 0, 2),
        (site("b"), 2, 4, 1, 2),
    ]
    assert (second.id, first.epoch, second.epoch) == (f"{first.id}.1", 1, 1)
    assert [member.run for member in first.gang] == [first.id, second.id]
    assert not first.is_preemptible
    (circuit,) = circuits(wide)
    assert (circuit.job, circuit.run, circuit.held_bps) == (job.id, first.id, GBIT)
    assert circuit.route is not None
    assert circuit.route.links == ("ab",)
    assert circuit.order.until_ms == 0
    kinds = [type(event) for event in wide.events]
    assert kinds.index(CircuitChanged) < kinds.index(RunOffered)
    assert wide.view.jobs[job.id].state is JobState.BOOKED


def test_where_one_pool_has_room_it_is_an_ordinary_run(wide: World) -> None:
    job = submitted(wide, spanning(4))
    (run,) = runs(wide, job)
    assert (run.members, circuits(wide)) == (0, [])


def test_the_plan_shows_members_ways_and_prices_and_takes_nothing(wide: World) -> None:
    told(wide, triangle(), Tariff(circuit_micro_cny_per_gbps_hour=5 * CNY))
    wide.register("b", "site/b", {"tier": "edge", "door": "https://127.0.0.1:1", "region": "x"}, rev=2, prev=_sha(wide))
    plan = planned(wide, spanning(12, span=Span(rate_bps=2 * GBIT, rtt_us=2_000)))
    assert not plan.candidates
    assert plan.gang is not None
    assert [(each.candidate.site, each.nodes, each.rank) for each in plan.gang.members] == [
        (site("a"), 4, 0),
        (site("b"), 4, 4),
        (site("c"), 4, 8),
    ]
    assert [
        (way.meets, way.links, way.rate_bps, way.rtt_us, way.price_micro_cny_per_hour) for way in plan.gang.ways
    ] == [
        ("door", ("ab",), 2 * GBIT, 2_000, 10 * CNY),
        ("relay", ("ac",), 2 * GBIT, 2_000, 10 * CNY),
        ("door", ("bc",), 2 * GBIT, 2_000, 10 * CNY),
    ]
    assert plan.gang.cost_micro_cny_per_hour == (4 * 1 + 4 * 2 + 4 * 3 + 3 * 10) * CNY
    assert plan.gang.bound_micro_cny_per_hour == plan.gang.cost_micro_cny_per_hour
    assert plan.because is not None
    assert (plan.because.code, plan.is_possible) == ("chosen_gang", True)
    assert sum(reason.count for reason in plan.reasons) == plan.considered
    assert (circuits(wide), dict(wide.view.runs)) == ([], {})


def _sha(world: World) -> str:
    return next(e.sha256 for e in world.events if isinstance(e, RecordStored) and e.id == site("b"))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"nodes": 13}, "gang_nodes"),
        ({"nodes": 9, "span": Span(sites=2)}, "gang_sites"),
        ({"span": Span(rate_bps=11 * GBIT)}, "gang_apart"),
        ({"span": Span(rtt_us=1_999)}, "gang_apart"),
    ],
)
def test_what_nothing_here_can_ever_hold_is_refused_at_once_with_the_number(wide: World, fields, code) -> None:
    with pytest.raises(TielineError) as refused:
        submitted(wide, spanning(**fields))
    assert (refused.value.code, refused.value.reasons[0].code) == ("unplaceable", code)
    assert not runs_of_all(wide)


def runs_of_all(world: World) -> list[Run]:
    return list(world.view.runs.values())


def test_a_rate_that_fits_by_pairs_and_not_at_once_waits_with_its_reason(wide: World) -> None:
    chain = network(
        Link(name="ab", a="a", b="b", capacity_bps=10 * GBIT), Link(name="bc", a="b", b="c", capacity_bps=10 * GBIT)
    )
    told(wide, chain)
    job = submitted(wide, spanning(12, span=Span(rate_bps=6 * GBIT)))
    assert not runs(wide, job)
    assert not circuits(wide)
    assert why(wide, job) == ["gang_joint"]
    told(wide, triangle())
    wide.do(Tick())
    assert len(runs(wide, job)) == 3


def test_sites_that_can_never_meet_are_in_no_gang_until_one_of_them_lets_the_other_in(wide: World) -> None:
    def say(*names: str, rev: int, **spec: object) -> None:
        for name in names:
            stored = [e.sha256 for e in wide.events if isinstance(e, RecordStored) and e.id == site(name)]
            wide.register(name, f"site/{name}", {"tier": "edge", **spec}, rev=rev, prev=stored[-1])

    say(*SITES, rev=2, relay=False)
    refused = planned(wide, spanning())
    assert refused.gang is None
    assert (refused.reasons[0].code, refused.reasons[0].count) == ("gang_unmet", 3)
    assert refused.reasons[0].values["most"] == 4
    job = submitted(wide)
    assert (runs(wide, job), circuits(wide), why(wide, job)) == ([], [], ["gang_unmet"])

    say("c", rev=3, relay=False, door="https://c.example:7000")
    wide.do(Tick())
    assert sorted({run.site for run in runs(wide, job)}) == [site("a"), site("c")]
    wide.do(StopJob(actor=ALICE, job=job.id))
    (way,) = planned(wide, spanning()).gang.ways
    assert way.meets == "door"
    # Without a relay at this exchange, doors alone are left.
    wide.view.limits = replace(wide.view.limits, relay_streams=0)
    say("c", rev=4)
    assert planned(wide, spanning()).reasons[0].code == "gang_unmet"


def test_two_gangs_of_one_pass_share_neither_cards_nor_links(wide: World) -> None:
    for name, price in zip(SITES, (1, 2, 3), strict=True):
        more = {"price_micro_cny_per_accelerator_hour": price * CNY, **POOL}
        wide.register(name, f"pool/{name}2", {"site": site(name), "sandbox": "bubblewrap", **more})
    now_ms, jobs = wide.clock.now_ms(), []
    for number in range(2):
        command = SubmitJobs(actor=ALICE, tasks=(spanning(9, f"g{number}", span=Span(rate_bps=6 * GBIT)),))
        decision = decide(wide.view, command, now_ms, wide.ids)
        wide.take(decision.events, now_ms)
        jobs += decision.reply
    wide.take(schedule(wide.view, now_ms, wide.ids, 1_000), now_ms)
    assert [len({run.site for run in runs(wide, job)}) for job in jobs] == [2, 2]
    calendar = wide.view.network.calendar_at(now_ms)
    assert calendar is not None
    assert calendar.is_kept()
    routes = [each.route.links for each in circuits(wide) if each.route is not None]
    assert len(routes) == len(set(routes)) == 2, "no link carries 12 of its 10 Gbit/s"


def test_a_way_that_is_gone_books_nothing_and_one_that_goes_later_leaves_the_gang_running(wide: World) -> None:
    def cut(*down: str, up: tuple[str, ...] = ()) -> None:
        wide.do(ChangeLinks(actor=ADMIN, down=down, up=up))

    wanted = spanning(12, span=Span(rate_bps=6 * GBIT))
    assert planned(wide, wanted).gang is not None
    cut("ab", "ac")
    job = submitted(wide, wanted)
    assert (runs(wide, job), circuits(wide), why(wide, job)) == ([], [], ["gang_apart"])
    cut(up=("ab", "ac"))
    members = runs(wide, job)
    assert (len(members), len(circuits(wide))) == (3, 3)
    for run in members:
        wide.accept(run)
    cut("ab")
    wide.do(Tick())
    assert [run.state for run in runs(wide, job)] == [RunState.ACCEPTED] * 3
    lost = [each for each in circuits(wide) if each.route is None]
    assert [{each.order.a, each.order.b} for each in lost] == [{site("a"), site("b")}]
    cut(up=("ab",))
    wide.pass_ms(10_000, *map(site, SITES))
    assert all(each.route is not None for each in circuits(wide))


def test_data_that_is_bound_to_some_sites_binds_the_gang(wide: World) -> None:
    bound = {"sites": [site("a"), site("c")], "size_bytes": GB, "residency": "site"}
    wide.register("a", "dataset/d", bound)
    job = submitted(wide, spanning(data=(DataUse(id=f"{PREFIX}.a/dataset/d", path="d"),)))
    assert [run.site for run in runs(wide, job)] == [site("a"), site("c")]
    assert not wide.view.network.transfers


def test_a_pass_whose_events_are_dropped_leaves_nothing(wide: World) -> None:
    calendar = wide.view.network.calendar_at(wide.clock.now_ms())
    assert calendar is not None
    before = calendar.free.copy(), wide.view.supply.pools.cores.free.copy()
    real, wide.take = wide.take, lambda events, now_ms: _but_offers(real, events, now_ms)  # type: ignore[method-assign]
    submitted(wide)
    assert (calendar.free == before[0]).all()
    assert (wide.view.supply.pools.cores.free == before[1]).all()


def _but_offers(take, events, now_ms) -> None:
    take([event for event in events if not isinstance(event, RunOffered | CircuitChanged)], now_ms)


def test_all_start_once_all_are_accepted_and_one_that_refuses_ends_the_circuits_too(wide: World) -> None:
    job = submitted(wide)
    first, second = runs(wide, job)
    outcome = wide.accept(first)
    assert (outcome.is_ok, outcome.what) == (False, "wait")
    wide.report(second.site, Refused(run=second.id, epoch=1, reason=Reason(code="policy_refuses")))
    wide.do(Tick())
    wide.end(first, state="stopped")
    wide.do(Tick())
    assert not circuits(wide)
    assert wide.view.jobs[job.id].state is JobState.QUEUED
    wide.pass_ms(4_000, *map(site, SITES))
    again = runs(wide, job)
    assert [run.epoch for run in again] == [2, 2]
    assert site("b") not in {run.site for run in again}, "whoever refused comes last"
    assert all(wide.accept(run).what in ("ok", "wait") for run in again)
    assert [wide.report(run.site, Accepted(run=run.id, epoch=2)).what for run in again] == ["ok", "ok"]


def test_cancelled_while_it_waits_for_owners_nothing_stays(wide: World) -> None:
    job = submitted(wide)
    wide.do(StopJob(actor=ALICE, job=job.id))
    wide.do(Tick())
    assert (runs_of_all(wide), circuits(wide)) == ([], [])
    assert job.id not in wide.view.jobs


@pytest.mark.parametrize(
    ("name", "pool", "fields"),
    [
        ("policy", {"policy": "user == 'bob'"}, {}),
        ("policy of a part", {"policy": "nodes >= 3"}, {}),
        ("owners", {}, {"owners": (f"{PREFIX}.a", f"{PREFIX}.c")}),
        ("where", {}, {"resources": (Resources(core_count=1, where="price != 2"),)}),
        ("price", {"price": 9 * CNY}, {"resources": (Resources(core_count=1, max_price_micro_cny=3 * CNY),)}),
        ("access", {"access": "private"}, {}),
        ("network", {"networks": ("none",)}, {}),
    ],
)  # fmt: skip
def test_a_pool_that_is_left_out_by_anybody_is_no_member(world: World, name, pool, fields) -> None:
    join(world, "a", CNY)
    join(world, "b", **{"price": 2 * CNY, **pool})
    join(world, "c", 3 * CNY)
    told(world, triangle())
    job = submitted(world, spanning(**fields))
    assert [run.site for run in runs(world, job)] == [site("a"), site("c")], name


def test_an_owner_is_asked_about_its_own_part_and_gives_no_more_than_it_admits(world: World) -> None:
    join(world, "a", CNY, policy="cores <= 2 and nodes <= 2")
    join(world, "b", 2 * CNY)
    join(world, "c", 3 * CNY)
    told(world, triangle())
    assert [(run.site, run.nodes) for run in runs(world, submitted(world))] == [(site("a"), 2), (site("b"), 4)]


def test_sites_of_an_older_version_are_no_members_and_are_counted(wide: World) -> None:
    old = replace(wide.view.sites[site("b")], protocol=PROTOCOL_GANGS - 1)
    wide.view.put_site(old)
    assert [run.site for run in runs(wide, submitted(wide))] == [site("a"), site("c")]
    plan = planned(wide, spanning(9))
    assert ("gang_no_part", 1) in [(reason.code, reason.count) for reason in plan.reasons]
    assert sum(reason.count for reason in plan.reasons) == plan.considered


def test_without_a_topology_only_what_was_measured_joins_and_no_rate_is_booked(world: World) -> None:
    for name in SITES:
        join(world, name)
    with pytest.raises(TielineError) as refused:
        submitted(world)
    assert refused.value.code == "unplaceable"
    assert len(runs(world, submitted(world, spanning(span=Span())))) == 2
    job = submitted(world, spanning(6, span=Span(rtt_us=10_000)))
    assert not runs(world, job)
    assert why(world, job)[0] == "gang_apart"


@pytest.mark.parametrize("few", [64, 1])
def test_without_a_topology_a_round_trip_is_the_measured_one(world: World, monkeypatch, few: int) -> None:
    trips = {("a", "b"): 9_000, ("a", "c"): 5_000}  # nobody measured from b to c

    def rtt_us(one: str, other: str) -> int | None:
        ends = sorted(name.rpartition("/")[2] for name in (one, other))
        return trips.get((ends[0], ends[1]))

    for name, price in zip(SITES, (1, 2, 3), strict=True):
        join(world, name, price * CNY)
    readings = {site("a"): [SimpleNamespace(target=site(b)) for b in "bc"]}
    monkeypatch.setattr(world.view.distances, "rtt_us", rtt_us)
    monkeypatch.setattr(world.view.readings, "of", lambda name: tuple(readings.get(name, ())))
    monkeypatch.setattr(joining, "FEW", few)
    plan = planned(world, spanning(6, span=Span(rtt_us=10_000)))
    assert plan.gang is not None
    (way,) = plan.gang.ways
    assert ({way.a, way.b}, way.rtt_us, way.links, way.rate_bps) == ({site("a"), site("b")}, 9_000, (), 0)
    plan = planned(world, spanning(6, span=Span(rtt_us=8_999)))
    assert plan.gang is not None
    assert [member.candidate.site for member in plan.gang.members] == [site("a"), site("c")]
    three = planned(world, spanning(12, span=Span(rtt_us=10_000)))
    assert three.gang is None
    assert three.is_possible, "somebody may still measure it"


@given(
    budget=st.integers(0, 40 * CNY),
    rate_gbps=st.integers(0, 5),
    duration_s=st.sampled_from((0, 60, 3_600)),
    permille=st.sampled_from((500, 1_000, 2_000)),
    nodes=st.integers(5, 12),
)
@settings(deadline=None, max_examples=40)
def test_the_parts_of_a_budget_never_come_to_more_than_it(budget, rate_gbps, duration_s, permille, nodes) -> None:
    world = World()
    for name, price in zip(SITES, (1, 2, 3), strict=True):
        join(world, name, price * CNY)
    hours = (Hours(begin_s=0, end_s=43_200, permille=permille),)
    told(world, triangle(), Tariff(circuit_micro_cny_per_gbps_hour=7 * CNY, hours=hours))
    asked = spanning(nodes, span=Span(rate_bps=rate_gbps * GBIT), budget_micro_cny=budget, max_duration_s=duration_s)
    job = tried(world, asked)
    if job is None:
        assert 0 < budget < 3 * 8 * CNY * 7 // 3_600 + 1, "it does not pay for one node for some seconds"
        return
    members = runs(world, job)
    if not budget:
        assert len(members) > 1
        return
    if not members:
        assert why(world, job) == ["budget_below"]
        return
    assert len({run.stop_after_s for run in members}) == 1
    (stop_s,) = {run.stop_after_s for run in members}
    held = sum(run.held_micro_cny for run in members)
    now_ms = world.clock.now_ms()
    lasts_ms = {each.order.until_ms - now_ms for each in circuits(world)}
    late_s = min(stop_s, STAGING_S)  # of a member whose bytes come slowly
    assert lasts_ms <= {world.view.limits.offer_ttl_ms + (late_s + stop_s + asked.grace_s + 1) * 1_000}
    factor = max(permille, 1_000)
    ways = sum(each.price_micro_cny_per_hour * max(lasts_ms) * factor for each in circuits(world)) / 3_600_000_000
    assert held + ways <= budget
    if not duration_s:
        rates = sum(run.unit_count * run.price_micro_cny_per_unit_hour for run in members)
        rates += sum(each.price_micro_cny_per_hour * factor // 1_000 for each in circuits(world))
        assert budget - held - ways <= rates * 14 / 3_600 + 10, "and nearly all of it is used"


def test_what_circuits_cost_is_spent_of_the_budget_when_the_gang_is_placed_again(wide: World) -> None:
    told(wide, triangle(), Tariff(circuit_micro_cny_per_gbps_hour=60 * CNY))
    job = submitted(wide, spanning(6, budget_micro_cny=20 * CNY, retry=Retry(limit=1)))
    (circuit,) = circuits(wide)
    assert circuit.route is not None
    begun_ms, first = wide.clock.now_ms(), runs(wide, job)
    for run in first:
        wide.accept(run)
    wide.pass_ms(60_000, *map(site, SITES))
    seen = Receipt(
        subject=circuit.id,
        seq=1,
        begun_ms=begun_ms,
        ended_ms=wide.clock.now_ms(),
        path=circuit.route.links,
        is_path_proven=True,
        goodput_bps=GBIT,
        computed_bps=GBIT,
    )
    wide.do(TakeReceipt(actor=ADMIN, receipt=seen))
    assert wide.view.jobs[job.id].charged_micro_cny == CNY, "a minute of 60 an hour"
    wide.end(first[0], state="failed", code=1)
    wide.pass_ms(2_000, *map(site, SITES))
    wide.end(first[1], state="stopped", code=143)
    wide.pass_ms(8_000, *map(site, SITES))
    again = runs(wide, job)
    assert [run.epoch for run in again] == [2, 2]
    assert sum(run.held_micro_cny for run in again) < sum(run.held_micro_cny for run in first)


def test_quotas_hold_for_the_whole_gang_and_its_money_is_pledged(wide: World) -> None:
    told(wide, triangle(), Tariff(circuit_micro_cny_per_gbps_hour=6 * CNY))
    quota, member = Quota(core_count=7, micro_cny=14 * CNY), Member(name="alice")
    wide.do(ChangeProject(actor=ADMIN, project="p", what="create", quota=quota, put=(member,)))
    job = submitted(wide, spanning(6))  # 4 + 4 for cores and 6 for the circuit an hour: an hour or so of the month
    members = runs(wide, job)
    assert wide.view.shares is not None
    pledged = wide.view.shares.standing("p").pledged_micro_cny
    assert sum(run.pledged_micro_cny for run in members) == pledged <= 14 * CNY
    assert members[0].pledged_micro_cny > members[0].held_micro_cny
    assert 2_500 < members[0].stop_after_s < 14 * 3_600 // (8 + 2 * 6)  # as long again for who begins late
    more = submitted(wide, spanning(5, "h"))
    assert not runs(wide, more)
    assert why(wide, more)[0] == "quota_cores"


def test_what_circuits_may_cost_stays_pledged_until_the_last_member_is_over(wide: World) -> None:
    told(wide, triangle(), Tariff(circuit_micro_cny_per_gbps_hour=6 * CNY))
    quota, member = Quota(micro_cny=14 * CNY), Member(name="alice")
    wide.do(ChangeProject(actor=ADMIN, project="p", what="create", quota=quota, put=(member,)))
    first, second = runs(wide, submitted(wide))
    ways = first.pledged_micro_cny - first.held_micro_cny
    assert ways > 0
    assert second.pledged_micro_cny == second.held_micro_cny
    for run in (first, second, first):
        wide.accept(run)
    wide.end(first)
    assert wide.view.shares is not None
    assert wide.view.shares.standing("p").pledged_micro_cny == second.held_micro_cny + ways
    assert wide.view.runs[second.id].pledged_micro_cny == second.held_micro_cny + ways
    wide.end(second)
    assert wide.view.shares.standing("p").pledged_micro_cny == 0
    wide.pass_ms(1_000, *map(site, SITES))
    assert not circuits(wide)


def test_a_member_that_begins_late_has_its_circuit_to_its_end(wide: World) -> None:
    """Its own time runs from its start; until then it may stage for as long as it would run, or an hour."""
    begun_ms = wide.clock.now_ms()
    for duration_s, late_s in ((600, 600), (7_200, 3_600)):
        job = submitted(wide, spanning(6, max_duration_s=duration_s))
        (circuit,) = circuits(wide)
        (run, _), grace_s = runs(wide, job), wide.view.jobs[job.id].task.grace_s
        ends_ms = run.expires_ms + (late_s + run.stop_after_s + grace_s + 1) * 1_000
        assert circuit.order.until_ms == max(each.until_ms for each in circuit.windows) == ends_ms
        wide.do(StopJob(actor=ALICE, job=job.id))
        wide.do(Tick())
        assert not circuits(wide)
    assert wide.clock.now_ms() == begun_ms


def test_a_gang_has_the_room_of_a_circuit_whose_time_is_over_and_not_minutes_later(world: World) -> None:
    for name in SITES[:2]:
        join(world, name)
    told(world, network(Link(name="ab", a="a", b="b", capacity_bps=GBIT), sites=SITES[:2]))
    until_ms = world.clock.now_ms() + 600_000
    order = CircuitOrder(a=site("a"), b=site("b"), rate_bps=GBIT, until_ms=until_ms)
    world.do(OrderCircuit(actor=ALICE, order=order))
    job = submitted(world)
    assert not runs(world, job)
    assert why(world, job)[0] == "gang_apart"
    slot_ms = 300_000
    while world.clock.now_ms() < -(-until_ms // slot_ms) * slot_ms - 10_000:
        world.pass_ms(10_000, *map(site, SITES[:2]))
        assert not runs(world, job)
    world.pass_ms(10_000, *map(site, SITES[:2]))
    world.pass_ms(1_000, *map(site, SITES[:2]))
    assert len(runs(world, job)) == 2
    assert len(circuits(world)) == 2, "what is over still waits for its last receipt"


@pytest.mark.parametrize(("mtu_bytes", "code"), [(1_400, "gang_mtu"), (9_000, "gang_apart")])
def test_links_for_small_packets_are_named_with_the_number(world: World, mtu_bytes: int, code: str) -> None:
    for name in SITES[:2]:
        join(world, name)
    capacity_bps = 10 * GBIT if code == "gang_mtu" else GBIT // 2
    told(
        world,
        network(
            Link(name="ab", a="a", b="b", capacity_bps=capacity_bps, mtu_bytes=mtu_bytes),
            Link(name="small", a="a", b="b", capacity_bps=GBIT // 2, mtu_bytes=1_280),
            sites=SITES[:2],
        ),
    )
    with pytest.raises(TielineError) as caught:
        submitted(world)
    assert caught.value.code == "unplaceable"
    (first, *_) = caught.value.reasons
    assert (first.code, first.values["asked"], first.values["most"]) == (code, 6, 4)
    assert first.values.get("needed_bytes") == (1_496 if code == "gang_mtu" else None)


def test_only_so_many_are_looked_for_in_a_pass_and_the_others_come_in_the_next(wide: World, monkeypatch) -> None:
    looked: list[str] = []

    real = Choosing.gang
    monkeypatch.setattr(
        Choosing, "gang", lambda self, demand, *a, **b: looked.append(demand.name) or real(self, demand, *a, **b)
    )
    first = submitted(wide, spanning(12, "first"))
    assert len(runs(wide, first)) == 3
    looked.clear()
    names = [f"g{number}" for number in range(2 * MOST_SEARCHED + 1)]
    now_ms = wide.clock.now_ms()
    for number, name in enumerate(names):
        asked = spanning(5 + number % 7, name, priority=number // 7)
        wide.take(decide(wide.view, SubmitJobs(actor=ALICE, tasks=(asked,)), now_ms, wide.ids).events, now_ms)
    seen = []
    for _ in range(5):
        looked.clear()
        wide.take(schedule(wide.view, now_ms, wide.ids, 1_000), now_ms)
        seen.append(len(looked))
    assert seen == [MOST_SEARCHED, MOST_SEARCHED, 1, 0, 0]


def test_searches_in_vain_leave_time_for_others_however_often_something_changes(wide: World, monkeypatch) -> None:
    looked: list[str] = []
    real = Choosing.gang
    monkeypatch.setattr(
        Choosing, "gang", lambda self, demand, *a, **b: looked.append(demand.name) or real(self, demand, *a, **b)
    )
    wide.start(runs(wide, submitted(wide, task("full", cores=4)))[0])
    gangs = [submitted(wide, spanning(9 + at % 4, f"g{at}", priority=at)) for at in range(6)]
    assert not any(runs(wide, job) for job in gangs)

    def counted(now_ms: int) -> list[str]:
        looked.clear()
        for _ in range(3 * MOST_VAIN):
            wide.view.supply.version += 1
            wide.take(schedule(wide.view, now_ms, wide.ids, 1_000), now_ms)
        return list(looked)

    now_ms = wide.clock.now_ms() + MOST_VAIN * VAIN_MS
    assert len(counted(now_ms)) == MOST_VAIN
    assert not counted(now_ms + VAIN_MS - 1)
    later = [each for at in range(1, 7) for each in counted(now_ms + at * VAIN_MS)]
    assert sorted(later) == [f"g{at}" for at in range(6)], "each in its turn"
    assert not counted(now_ms), "a clock that goes back gives nothing"
    small = submitted(wide, spanning(5, "small"))
    assert not runs(wide, small)
    wide.pass_ms(20 * VAIN_MS, *map(site, SITES))
    assert runs(wide, small)


@pytest.mark.parametrize("has_projects", [False, True])
def test_a_gang_that_was_passed_over_for_long_has_its_pools_kept_until_all_of_them_have_room(
    wide, has_projects
) -> None:
    if has_projects:
        wide.do(ChangeProject(actor=ADMIN, project="p", what="create", put=(Member(name="alice"),)))
    everywhere = tuple(map(site, SITES))
    long = [runs(wide, submitted(wide, task(f"long{at}", cores=3, max_duration_s=600)))[0] for at in range(3)]
    assert {run.site for run in long} == set(everywhere)
    for run in long:
        wide.start(run)
    gang = submitted(wide, spanning(9, "big"))
    (other,) = runs(wide, submitted(wide, task("other")))
    assert why(wide, gang)[0] == "gang_nodes"
    wide.start(other)
    wide.pass_ms(62_000, *everywhere)
    wide.end(other)
    small = submitted(wide, task("small"))
    assert not runs(wide, small), "one core is free at each of the three, and waits for the gang"
    assert "held_back" in why(wide, small)
    assert set(wide.view.held_back.values()) == {gang.id}
    short = submitted(wide, task("short", max_duration_s=60))
    wide.end(long[0])
    (filling,) = runs(wide, short)  # it ends before the others can
    assert not runs(wide, small)
    for run in long[1:]:
        wide.end(run)
    wide.start(filling)
    wide.end(filling)
    wide.do(Tick())
    assert sum(run.nodes for run in runs(wide, gang)) == 9
    assert not wide.view.held_back
    assert len(runs(wide, small)) == 1


def test_pools_that_were_kept_for_a_gang_are_given_back_when_it_lacks_a_rate(wide: World) -> None:
    everywhere = tuple(map(site, SITES))
    for at in range(3):
        wide.start(runs(wide, submitted(wide, task(f"long{at}", cores=3)))[0])
    gang = submitted(wide, spanning(9, "big"))
    wide.pass_ms(62_000, *everywhere)
    wide.view.supply.version += 1
    wide.do(Tick())
    assert set(wide.view.held_back.values()) == {gang.id}
    small = submitted(wide, task("small"))
    assert not runs(wide, small)
    wide.do(ChangeLinks(actor=ADMIN, down=("ab", "bc", "ac"), why="dug up"))
    wide.view.supply.version += 1
    wide.do(Tick())
    assert not wide.view.held_back
    wide.do(Tick())
    assert len(runs(wide, small)) == 1


def test_what_was_kept_for_a_job_is_for_others_as_soon_as_it_is_cancelled(wide: World) -> None:
    everywhere = tuple(map(site, SITES))
    for at in range(3):
        wide.start(runs(wide, submitted(wide, task(f"long{at}", cores=3)))[0])
    for wish in (task("large", cores=4), spanning(9, "big")):
        large = submitted(wide, wish)
        wide.pass_ms(62_000, *everywhere)
        wide.view.supply.version += 1
        wide.do(Tick())
        assert set(wide.view.held_back.values()) == {large.id}
        small = [submitted(wide, task(f"small{at}")) for at in range(3)]
        assert not all(runs(wide, job) for job in small)
        wide.do(StopJob(actor=ALICE, job=large.id))
        assert all(runs(wide, job) for job in small)
        for job in small:
            wide.do(StopJob(actor=ALICE, job=job.id))


def test_many_gangs_that_wait_keep_nobody_else_from_another_look(wide: World) -> None:
    everywhere = tuple(map(site, SITES))
    full = [runs(wide, submitted(wide, task(f"full{at}", cores=4)))[0] for at in range(3)]
    for run in full:
        wide.start(run)
    gangs = [submitted(wide, spanning(5 + at % 8, f"g{at}", priority=at)) for at in range(5 * MOST_SEARCHED)]
    small = submitted(wide, task("small", priority=-5))
    wide.beat(everywhere[0])
    assert not any(runs(wide, job) for job in (*gangs, small))
    wide.end(full[0])  # one pass: room for one node, and for no gang
    assert len(runs(wide, small)) == 1
    wide.do(StopJob(actor=ALICE, job=gangs[7].id))
    for run in full[1:]:
        wide.end(run)
    left = [job for job in gangs if job.id in wide.view.jobs]
    for _ in range(5 * MOST_SEARCHED):
        wide.pass_ms(MOST_SEARCHED * VAIN_MS, *everywhere)
        for run in [run for run in runs_of_all(wide) if run.state is RunState.OFFERED]:
            wide.report(run.site, Accepted(run=run.id, epoch=run.epoch))
        for run in runs_of_all(wide):
            wide.end(run)
    assert not any(job.id in wide.view.jobs for job in left), "each had its turn"


def test_nothing_is_kept_for_a_gang_that_lacks_money_or_bandwidth_and_not_room(wide: World) -> None:
    everywhere = tuple(map(site, SITES))
    (long,) = runs(wide, submitted(wide, task("long", cores=4)))
    wide.start(long)
    poor = submitted(wide, spanning(8, "poor", budget_micro_cny=12_000))  # some seconds of one node, and not of eight
    apart = submitted(wide, spanning(12, "apart", span=Span(rate_bps=10 * GBIT)))
    wide.view.network.put_links(("ab",), ())
    wide.pass_ms(62_000, *everywhere)
    wide.view.supply.version += 1
    wide.do(Tick())
    assert (why(wide, poor)[0], why(wide, apart)[0]) == ("budget_below", "gang_nodes")
    assert not wide.view.held_back
    assert len(runs(wide, submitted(wide, task("small")))) == 1


def test_who_was_hurt_by_a_cut_has_its_room_before_a_gang(wide: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(_calendar: Calendar) -> Waiting:
        return Waiting(("c-1",) * count, ())

    count = 1
    monkeypatch.setattr(Calendar, "waiting", waiting)
    job = submitted(wide)
    assert why(wide, job) == ["network_mending"]
    count = 0
    wide.do(Tick())
    assert len(runs(wide, job)) == 2


def test_a_site_behind_another_exchange_is_no_member(wide: World) -> None:
    pools = wide.view.supply.pools
    spec = PoolSpec(site="cn.far/site/f", core_count=99, sandbox="bubblewrap")
    pools.put(pool_row("cn.far/pool/f", "cn.far", spec, SiteSpec()))
    wide.view.remote_sites["cn.far/site/f"] = "cn.far/exchange/main"
    pools.set_site("cn.far/site/f", SiteFlags(is_admitted=True, is_remote=True))
    pools.hold("cn.far/pool/f", Amount(0, 94))
    assert {run.site for run in runs(wide, submitted(wide))} == {site("a"), site("b")}


def test_each_site_is_brought_its_data_once_over_what_the_circuits_leave(world: World) -> None:
    for name in "ab":
        join(world, name)
        world.register(name, f"pool/{name}2", {"site": site(name), "sandbox": "bubblewrap", **POOL})
    world.register("a", "dataset/d", {"sites": [site("c")], "size_bytes": 9 * GB})
    told(world, triangle())
    data = (DataUse(id=f"{PREFIX}.a/dataset/d", path="d"),)
    job = submitted(world, spanning(14, data=data, span=Span(rate_bps=9 * GBIT), max_duration_s=3_600))
    members = runs(world, job)
    assert [run.site for run in members] == [site("a")] * 2 + [site("b")] * 2
    live = list(world.view.network.transfers.values())
    assert [(each.order.target, each.run) for each in live] == [
        (site("a"), members[0].id),
        (site("b"), members[2].id),
    ]
    calendar = world.view.network.calendar_at(world.clock.now_ms())
    assert calendar is not None
    assert calendar.is_kept()
    plan = planned(world, spanning(2, data=data, span=Span(rate_bps=2 * GBIT)))
    assert plan.gang is None, "one pool has room for two"


def test_a_request_with_too_many_gangs_is_refused_whole(wide: World) -> None:
    many = [spanning(6, f"g{number}") for number in range(MOST_SPANS + 1)]
    for asked in (PlanTasks(actor=ALICE, tasks=tuple(many)), SubmitJobs(actor=ALICE, tasks=tuple(many))):
        with pytest.raises(TielineError) as refused:
            wide.do(asked)
        assert refused.value.code == "too_large"
    assert len(wide.do(PlanTasks(actor=ALICE, tasks=tuple(many[1:])))) == MOST_SPANS


def a_link(number: int, ends: tuple[str, str], gbps: int) -> Link:
    return Link(name=f"l{number}", a=ends[0], b=ends[1], capacity_bps=gbps * GBIT, delay_us=100)


PAIRS = tuple(combinations("abcd", 2))


@st.composite
def worlds(draw) -> Iterator[tuple[list[int], list[Link]]]:
    cores = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    pairs = draw(st.lists(st.sampled_from(PAIRS), min_size=1, max_size=6, unique=True))
    names = "abcd"[: len(cores)]
    links = [
        a_link(number, ends, draw(st.integers(1, 10))) for number, ends in enumerate(pairs) if set(ends) <= set(names)
    ]
    return cores, links


@given(
    made=worlds(),
    asked=st.lists(
        st.tuples(st.integers(2, 12), st.integers(0, 4), st.integers(2, 4), st.sampled_from((0, 60, 7_200))),
        min_size=1,
        max_size=4,
    ),
    others=st.lists(st.tuples(st.sampled_from(PAIRS), st.integers(1, 6), st.sampled_from((0, 1, 3))), max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_what_is_booked_fits_cards_and_links_and_is_whole(made, asked, others) -> None:
    cores, links = made
    names = tuple("abcd"[: len(cores)])
    world = World()
    for name, count in zip(names, cores, strict=True):
        join(world, name, core_count=count)
    told(world, network(*links, sites=names))
    for (one, other), rate, hours in others:
        from_ms = world.clock.now_ms() + hours * 3_600_000
        order = CircuitOrder(a=site(one), b=site(other), rate_bps=rate * GBIT, from_ms=from_ms)
        with suppress(TielineError):
            world.do(OrderCircuit(actor=ALICE, order=order))
    for number, (nodes, rate, sites, duration_s) in enumerate(asked):
        span = Span(sites=sites, rate_bps=rate * GBIT)
        wish = spanning(nodes, f"g{number}", span=span, max_duration_s=duration_s)
        plan = planned(world, wish)
        job = tried(world, wish)
        members = runs(world, job) if job is not None else []
        assert plan.is_possible == (job is not None)
        shown = [(each.candidate.pool, each.nodes) for each in plan.gang.members] if plan.gang is not None else []
        assert shown == [(run.pool, run.nodes) for run in members if run.members], "as it was planned"
        if job is None or not members:
            assert sum(reason.count for reason in plan.reasons) == plan.considered
            continue
        if len(members) > 1:
            assert sum(run.nodes for run in members) == nodes
            assert [run.rank for run in members] == [
                sum(run.nodes for run in members[:at]) for at in range(len(members))
            ]
        there = {run.site for run in members}
        assert len(there) <= sites
        joined = {frozenset((each.order.a, each.order.b)) for each in circuits(world) if each.job == job.id}
        wanted = {frozenset(pair) for pair in combinations(sorted(there), 2)} if rate else set()
        assert joined == wanted
    for name, count in zip(names, cores, strict=True):
        used = sum(run.core_count for run in runs_of_all(world) if run.site == site(name))
        assert used <= count
    calendar = world.view.network.calendar_at(world.clock.now_ms())
    assert calendar is not None
    assert calendar.is_kept()
