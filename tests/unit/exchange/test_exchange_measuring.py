"""What sites measure: kept when it can be, refuted with counted reasons when not, and what is answered from it."""

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, World, task

from tieline.exchange import measuring
from tieline.exchange.commands import (
    ChangePoints,
    PlanProbes,
    PlanTasks,
    ReadCats,
    ReadReadings,
    ReadWay,
    TakeReadings,
    Tick,
)
from tieline.exchange.readings import FRESH_MS, FRESH_RATE_MS, MOST_OF_A_SITE, Readings
from tieline.model.door import door_url
from tieline.model.error import TielineError
from tieline.model.event import PointsChanged
from tieline.model.evidence import Evidence
from tieline.model.job import JobState
from tieline.model.party import Actor, Role
from tieline.model.reading import Method, Point, ProbePlan, Reading, ReadingBatch
from tieline.model.task import Resources
from tieline.network.physics import Frame
from tieline.network.probing import SPAN_MS

OPERATOR = Actor(name="olga", roles=(Role.OPERATOR,))
SHANGHAI = Point(name="shanghai", address="192.0.2.1:443", latitude_udeg=31_230_000, longitude_udeg=121_470_000)


class Measured(World):
    """Two sites with doors, and a reference point."""

    def __post_init__(self):
        super().__post_init__()
        self.seqs = 0
        self.a, self.b = self.join("lab7", "a", core_count=8), self.join("lab8", "b", core_count=8)
        self.do(ChangePoints(actor=OPERATOR, put=(SHANGHAI,)))

    def reading(self, source, target, p50_us=1_000, method=Method.UDP, **more):
        now_ms = self.clock.now_ms()
        values = {"count": 10, "sent": 10, "min_us": p50_us - 1, "p50_us": p50_us, "p99_us": p50_us + 9}
        if method is Method.RATE:
            values = {"count": 1, "sent": 1, "moved_bytes": 10**6}
        values |= {"begun_ms": now_ms - 500, "ended_ms": now_ms, **more}
        return Reading(source=source, target=target, method=method, **values)

    def bring(self, by, *readings, **more):
        self.seqs += 1
        batch = {"site": by, "seq": self.seqs, "at_ms": self.clock.now_ms(), "readings": readings, **more}
        return self.do(TakeReadings(site=by, batch=ReadingBatch(**batch)))

    def rtt(self, one, other):
        return self.view.distances.rtt_us(one, other)

    def plan(self, site):
        return self.do(PlanProbes(site=site))


@pytest.fixture
def world():
    return Measured()


def refused(code, act):
    with pytest.raises(TielineError) as caught:
        act()
    assert caught.value.code == code
    return str(caught.value)


def test_a_round_trip_is_known_as_the_slower_end_saw_it_and_unknown_once_it_is_old(world):
    assert world.rtt("shanghai", world.a) is None
    taken = world.bring(world.a, world.reading(world.a, "shanghai", 700), world.reading(world.a, world.b, 900))
    assert (taken.kept, taken.unchanged, taken.refuted) == (2, 0, ())
    assert world.rtt("shanghai", world.a) == 700
    assert world.rtt(world.a, world.b) == world.rtt(world.b, world.a) == 900
    world.bring(world.b, world.reading(world.b, world.a, 1_400))
    assert world.rtt(world.a, world.b) == 1_400, "nobody looks nearer than the other end saw"
    assert world.rtt(world.a, world.a) == 0
    world.pass_ms(FRESH_MS, world.a, world.b)
    assert world.rtt(world.a, world.b) == 1_400
    world.pass_ms(2_000, world.a, world.b)
    assert world.rtt(world.a, world.b) is None
    page = world.do(ReadReadings(actor=ALICE, source=world.a))
    assert [each.is_fresh for each in page.readings] == [False, False]
    assert page.readings[0].age_us == (FRESH_MS + 2_000) * 1_000


def test_the_newest_that_was_answered_counts_relays_and_what_nobody_measured_do_not(world):
    world.bring(
        world.a, world.reading(world.a, world.b, 900, Method.TCP), world.reading(world.a, world.b, 5, Method.RELAY)
    )
    assert world.rtt(world.a, world.b) == 900
    world.clock.advance(1_000)
    lost = {"count": 0, "min_us": 0, "p50_us": 0, "p99_us": 0}
    world.bring(world.a, world.reading(world.a, world.b, **lost))
    assert world.rtt(world.a, world.b) == 900, "UDP is blocked; TCP is answered"
    assert world.view.readings.loss_ppm(world.a, world.b) == 1_000_000
    world.bring(world.a, world.reading(world.a, "shanghai", 5, evidence=Evidence.SIMULATED))
    assert world.rtt(world.a, "shanghai") is None


def test_rates_are_measured_ones_where_there_are_any_else_what_is_declared_and_the_language_knows_the_difference(world):
    distances = world.view.distances
    assert (distances.read_bps(world.a, world.b), distances.rate_bps(world.a, world.b)) == (None, 10**10)
    world.bring(world.a, world.reading(world.a, world.b, method=Method.RATE, rate_bps=3 * 10**8))
    world.bring(world.b, world.reading(world.b, world.a, method=Method.RATE, rate_bps=2 * 10**8))
    assert distances.read_bps(world.a, world.b) == distances.rate_bps(world.b, world.a) == 2 * 10**8
    world.view.readings.turn(world.clock.now_ms() + FRESH_RATE_MS + 1)
    assert distances.read_bps(world.a, world.b) is None


def test_a_job_that_waits_for_a_way_to_be_known_is_placed_once_somebody_measured_it(world):
    near = task(resources=(Resources(core_count=8, where="rtt(shanghai) < 1ms"),))
    world.bring(world.a, world.reading(world.a, "shanghai", 700))
    first, job = world.submit(near, near)
    run = world.run_of(first)
    world.start(run)
    world.pass_ms(FRESH_MS + 4_000, world.a, world.b)
    world.end(run)
    world.pass_ms(4_000, world.a, world.b)
    assert world.view.jobs[job.id].state is JobState.QUEUED, "there is room, and nobody knows how far it is"
    world.bring(world.a, world.reading(world.a, "shanghai", 5_000))
    world.pass_ms(6_000, world.a, world.b)
    assert world.view.jobs[job.id].state is JobState.QUEUED
    version = world.view.supply.version
    for p50_us in (5_100, 4_900, 5_600):
        world.clock.advance(100)
        world.bring(world.a, world.reading(world.a, "shanghai", p50_us))
    world.pass_ms(8_000, world.a, world.b)
    assert world.view.supply.version == version, "hardly another value helps nobody"
    world.bring(world.a, world.reading(world.a, "shanghai", 700))
    world.bring(world.b, world.reading(world.b, "shanghai", 6_000))
    world.pass_ms(2_000, world.a, world.b)
    assert (world.view.jobs[job.id].state, world.run_of(job).site) == (JobState.BOOKED, world.a)
    world.clock.advance(100)
    version = world.view.supply.version
    world.bring(world.b, world.reading(world.b, "shanghai", 600))
    world.do(Tick())
    assert world.view.supply.version == version, "all that comes within some seconds is one look"
    world.pass_ms(6_000, world.a, world.b)
    assert world.view.supply.version > version


def test_a_job_waits_for_a_way_that_nobody_measured_yet_and_is_refused_where_nobody_ever_will(world):
    mute = Point(name="mute", latitude_udeg=31_230_000, longitude_udeg=121_470_000)
    world.do(ChangePoints(actor=OPERATOR, put=(mute,)))
    asked = {name: task(resources=(Resources(core_count=8, where=where),)) for name, where in {
        "near": "rtt(shanghai) < 5ms", "mute": "rtt(mute) < 5ms", "nowhere": "rtt(atlantis) < 5ms",
        "rate": "bandwidth(shanghai) > 1Mbps", "doorless": f'rtt("{world.b}") < 5ms and rtt("{world.b}") > 1us',
    }.items()}  # fmt: skip
    for name, why in (("mute", "unknown"), ("nowhere", "unknown"), ("rate", "unknown"), ("doorless", "not_met")):
        with pytest.raises(TielineError) as caught:
            world.submit(asked[name])
        assert (caught.value.code, caught.value.reasons[0].code) == ("unplaceable", f"query_{why}"), name
    (job,) = world.submit(asked["near"])
    world.pass_ms(4_000, world.a, world.b)
    assert world.view.jobs[job.id].state is JobState.QUEUED
    plan = world.do(PlanTasks(actor=ALICE, tasks=(asked["near"],)))[0]
    assert (plan.is_possible, [(each.code, each.count) for each in plan.reasons]) == (True, [("query_unmeasured", 2)])
    world.bring(world.a, world.reading(world.a, "shanghai", 7_000))
    world.bring(world.b, world.reading(world.b, "shanghai", 4_000))
    world.pass_ms(2_000, world.a, world.b)
    assert world.run_of(job).site == world.b
    world.bring(world.b, world.reading(world.b, "shanghai", 6_000))
    with pytest.raises(TielineError) as caught:
        world.submit(asked["near"])
    assert caught.value.reasons[0].values == {"term": "rtt(shanghai) < 5ms", "nearest": "6 ms"}


def test_pages_of_readings_hold_each_once_in_order_and_what_is_forgotten_together_is_gone_in_both_directions(world):
    readings, now_ms = Readings(), world.clock.now_ms()
    sites = [f"cn.demo.lab7/site/{name}" for name in "dbac"]
    for source in sites:
        ways = [
            (target, method) for target in [*sites, "shanghai"] for method in (Method.UDP, Method.TCP, Method.RELAY)
        ]
        some = [world.reading(source, target, method=method) for target, method in ways if target != source]
        frame = Frame(source, now_ms, [*sites, "shanghai"], addresses={"shanghai": SHANGHAI.address})
        assert readings.take_far("peer", source, some, frame, f"said by {source}")[0] == len(some) == 12

    def pages(source, target, limit):
        found, is_more = [], True
        while is_more:
            page, is_more = readings.page(source, target, len(found), limit)
            assert len(page) == limit if is_more else len(page) <= limit
            found += page
        return found

    for source in ("", *sites, "nobody"):
        for target in ("", *sites, "shanghai", "nobody"):
            held = [each for each in readings if source in ("", each.source) and target in ("", each.target)]
            held.sort(key=lambda each: (each.source, each.target, each.method))
            assert all(pages(source, target, limit) == held for limit in (1, 5, 12, 13, 48, 1_000)), (source, target)
    assert readings.page("", "", 10**9, 5) == ([], False)
    readings.forget(sites[0], sites[1], "nobody")
    assert {each.source for each in readings} == {sites[2], sites[3]}
    assert {each.target for each in readings} == {sites[2], sites[3], "shanghai"}
    assert len(readings.statements) == 2
    readings.forget_over("peer")
    assert (list(readings), len(readings.statements), readings.via) == ([], 0, {})


def test_hostile_readings_are_refuted_one_by_one_counted_and_shown(world):
    ahead = world.clock.now_ms() + 60_000
    taken = world.bring(
        world.a,
        world.reading(world.b, "shanghai", 5),
        world.reading(world.a, "nowhere", 5),
        world.reading(world.a, world.b, ended_ms=ahead),
        world.reading(world.a, world.b, ended_ms=ahead + 1),
        world.reading(world.a, "shanghai", 800),
    )
    assert taken.kept == 1
    assert {reason.code: reason.count for reason in taken.refuted} == {
        "reading_not_own": 1,
        "reading_target": 1,
        "reading_ahead": 2,
    }
    page = world.do(ReadReadings(actor=ALICE))
    assert [each.reading.target for each in page.readings] == ["shanghai"]
    assert len(page.refuted) == 4
    assert page.refuted[0].site == world.a
    assert page.counts[0].site == world.a
    assert sum(reason.count for reason in page.counts[0].reasons) == 4
    assert world.bring(world.a, world.reading(world.a, "shanghai", 800)).unchanged == 1


def test_batches_of_others_old_ones_and_those_of_who_is_not_admitted_are_refused_whole(world):
    reading = world.reading(world.a, "shanghai")
    assert "the session is" in refused("forbidden", lambda: world.bring(world.b, reading, site=world.a))
    refused("unauthenticated", lambda: world.bring(world.a, reading, at_ms=world.clock.now_ms() - 400_000))
    world.bring(world.a, reading)
    refused("conflict", lambda: world.bring(world.a, reading, seq=world.seqs))
    waiting = world.join("lab9", "c", token="")
    assert "not admitted" in refused("forbidden", lambda: world.bring(waiting))
    refused("forbidden", lambda: world.plan(waiting))
    world.open(world.a)
    world.seqs = 0
    assert world.bring(world.a, reading).unchanged == 1, "a new session counts anew and sends again what it has"


def test_a_plan_names_doors_and_points_within_the_share_and_is_given_once_in_a_span(world):
    plan = world.plan(world.a)
    assert {(probe.target, probe.method) for probe in plan.probes} == {
        ("shanghai", Method.TCP),
        (world.b, Method.RELAY),  # neither of both has a door
    }
    assert not world.plan(world.a).probes
    spec = {"tier": "edge", "region": "shanghai", "door": "http://127.0.0.1:7443"}
    world.register("lab8", "site/b", spec, rev=2, prev=world.view.catalogue.head(world.b).sha256)
    world.clock.advance(2 * SPAN_MS)
    doors = [probe for probe in world.plan(world.a).probes if probe.target == world.b]
    assert {probe.method for probe in doors} == {Method.UDP, Method.TCP, Method.RATE}
    assert {(probe.address, probe.public) for probe in doors} == {(spec["door"], world.view.sites[world.b].public)}
    assert all(probe.target != world.b for probe in world.plan(world.b).probes)


def test_of_many_sites_without_doors_each_chooses_from_a_few_others_every_span(world, monkeypatch):
    monkeypatch.setattr(measuring, "MOST_CHOSEN", 2)
    sites = [world.a, world.b, *(world.join(f"lab{at}", "x") for at in (2, 3, 4))]
    for _ in range(6):
        world.clock.advance(SPAN_MS)
        before = len(tuple(world.view.readings))
        probes = [probe for probe in world.plan(world.a).probes if probe.method is Method.RELAY]
        assert len(probes) <= 2
        world.bring(world.a, *(world.reading(world.a, probe.target, method=Method.RELAY) for probe in probes))
        assert len(tuple(world.view.readings)) == before + len(probes)
    assert {reading.target for reading in world.view.readings} == {*sites} - {world.a}
    world.view.limits = msgspec.structs.replace(world.view.limits, relay_streams=0)
    world.clock.advance(3 * 3_600_000)
    assert all(probe.method is not Method.RELAY for probe in world.plan(world.b).probes), "there is no relay"


@pytest.mark.parametrize(
    "door",
    [
        "http://10.0.0.1/" + "x" * 300,
        "http://a b:7443",
        "http://user:word@10.0.0.1:80",
        "http://10.0.0.1:80/admin?delete=all&x=",
        "http://10.0.0.1:80/#",
        "file:///etc/passwd",
        "10.0.0.1:80",
        "http://10.0.0.1:99999",
        "http://\u4e0a\u6d77:80",
    ],
)
def test_a_record_that_names_no_door_is_measured_by_nobody_and_spoils_nobody_s_plan(world, door):
    """A site reads its plan whole or not at all: one address without the form would blind all sites."""
    spec = {"tier": "edge", "region": "shanghai", "door": door}
    world.register("lab8", "site/b", spec, rev=2, prev=world.view.catalogue.head(world.b).sha256)
    world.clock.advance(2 * SPAN_MS)
    plan = world.plan(world.a)
    assert {(probe.target, probe.method, probe.address) for probe in plan.probes} == {
        ("shanghai", Method.TCP, SHANGHAI.address),
        (world.b, Method.RELAY, ""),
    }
    assert msgspec.json.decode(msgspec.json.encode(plan), type=ProbePlan) == plan
    assert door_url(door) == ""


@pytest.mark.parametrize("door", ["https://gz1.lab7.example", "http://[fd00::7]:7443", "http://127.0.0.1:7443/tieline"])
def test_a_door_has_a_name_or_an_address_and_may_stand_in_a_folder(door):
    assert door_url(door) == door


def test_points_are_changed_by_operators_whole_and_survive_in_the_log(world):
    refused("forbidden", lambda: world.do(ChangePoints(actor=ALICE, put=(SHANGHAI,))))
    before = len(world.events)
    assert world.do(ChangePoints(actor=ADMIN, put=(SHANGHAI,))).points == (SHANGHAI,)
    assert len(world.events) == before, "a change of nothing is none"
    for address in ("host", ":443", "host:0", "host:65536", "host:٤٤", "host:99999999999999999999"):
        moved = msgspec.structs.replace(SHANGHAI, address=address)
        assert "host:port" in refused(
            "invalid_request", lambda moved=moved: world.do(ChangePoints(actor=ADMIN, put=(moved,)))
        )
    half = Point(name="half", latitude_udeg=1)
    refused("invalid_request", lambda: world.do(ChangePoints(actor=ADMIN, put=(Point(name="ok"), half))))
    refused("not_found", lambda: world.do(ChangePoints(actor=ADMIN, remove=("nobody",))))
    assert list(world.view.network.points) == ["shanghai"]
    world.bring(world.a, world.reading(world.a, "shanghai", 700))
    gone = world.do(
        ChangePoints(actor=OPERATOR, remove=("shanghai",), put=(Point(name="beijing", address="[::1]:80"),))
    )
    assert [point.name for point in gone.points] == ["beijing"]
    assert isinstance(world.events[-1], PointsChanged)
    assert world.rtt("shanghai", world.a) is None
    assert not tuple(world.view.readings)


def test_a_way_says_what_is_measured_what_light_allows_and_what_is_only_estimated(world):
    for at in range(6):
        world.clock.advance(1_000)
        world.bring(world.a, world.reading(world.a, "shanghai", 2_000 + at))
        world.bring(world.b, world.reading(world.b, "shanghai", 3_000 + at))
    way = world.do(ReadWay(actor=ALICE, source=world.a, target=world.b))
    assert (way.rtt_us, way.rtt_evidence, way.readings) == (None, Evidence.UNKNOWN, ())
    assert 0 < way.estimate_us < 100_000
    assert 0 < way.estimate_error_ppm <= 1_500_000
    known = world.do(ReadWay(actor=ALICE, source="shanghai", target=world.a))
    assert (known.rtt_us, known.rtt_evidence, len(known.readings)) == (2_005, Evidence.MEASURED, 1)
    assert known.light_us is None, "nobody says where the site stands"
    beijing = {"tier": "edge", "latitude_udeg": 39_900_000, "longitude_udeg": 116_400_000}
    world.register("lab7", "site/a", beijing, rev=2, prev=world.view.catalogue.head(world.a).sha256)
    placed = world.do(ReadWay(actor=ALICE, source="shanghai", target=world.a))
    assert (placed.apart_km, placed.light_us) == (1_067, 7_092)
    assert placed.fibre_us > placed.light_us
    late = world.bring(world.a, world.reading(world.a, "shanghai", 7_000))
    assert [reason.code for reason in late.refuted] == ["reading_light"]
    refused("not_found", lambda: world.do(ReadWay(actor=ALICE, source="atlantis", target=world.a)))


def test_cats_metrics_leave_out_what_is_not_known(world):
    bare = world.do(ReadCats(actor=ALICE))
    assert {metric.metric_type for metric in bare.instances[0].metrics} == {
        "cores_total",
        "cores_free",
        "price",
        "computing_comb",
    }
    world.bring(world.a, world.reading(world.a, "shanghai", 1_000))
    near, far = world.do(ReadCats(actor=ALICE, point="shanghai")).instances
    scores = {metric.metric_type: metric.value for metric in near.metrics if metric.level}
    assert scores == {"computing_comb": 10, "communication_comb": 10, "norm_fi": 10}
    assert "norm_fi" not in {metric.metric_type for metric in far.metrics}, "unknown never counts as good"
    refused("not_found", lambda: world.do(ReadCats(actor=ALICE, point="atlantis")))


def test_what_one_source_says_is_bounded_and_the_oldest_goes():
    readings, targets = Readings(), [f"t{at}" for at in range(MOST_OF_A_SITE + 5)]
    frame = Frame("s", 10_000_000, dict.fromkeys(targets))
    many = [
        Reading(
            source="s", target=name, method=Method.UDP, count=1, sent=1, min_us=1, p50_us=1, p99_us=1,
            begun_ms=at, ended_ms=9_000_000 + at,
        )
        for at, name in enumerate(targets)
    ]  # fmt: skip
    assert readings.take("s", 1, 1, many, frame) == (len(many), 0)
    assert len(readings.of("s")) == MOST_OF_A_SITE
    assert readings.newest("s", "t4", Method.UDP) is None
    assert readings.newest("s", "t5", Method.UDP) is not None


def test_what_a_laboratory_measured_says_so_until_it_is_measured_for_real_or_forgotten(world):
    measured, emulated = {"rtt": "measured", "bandwidth": "measured"}, {"rtt": "emulated", "bandwidth": "emulated"}
    readings = world.view.readings
    world.bring(world.a, world.reading(world.a, world.b, evidence=Evidence.EMULATED))
    assert readings.evidence == emulated
    world.clock.advance(1_000)
    world.bring(world.a, world.reading(world.a, world.b))
    assert readings.evidence == measured
    for end in (world.a, world.b):
        world.clock.advance(1_000)
        world.bring(world.a, world.reading(world.a, world.b, evidence=Evidence.EMULATED))
        assert readings.evidence == emulated
        readings.forget(end)
        assert readings.evidence == measured


def test_what_is_remembered_of_a_refuted_reading_is_bounded_by_its_form(world):
    said = msgspec.to_builtins(ReadingBatch(site=world.a, seq=1, at_ms=1, readings=(world.reading(world.a, "x"),)))
    assert msgspec.convert(said, ReadingBatch).readings[0].target == "x"
    for field in ("source", "target"):
        wrong = {**said, "readings": [{**said["readings"][0], field: "x" * 201}]}
        with pytest.raises(msgspec.ValidationError, match="length <= 200"):
            msgspec.convert(wrong, ReadingBatch)
