"""Readings across exchanges: passed on as sites signed them, checked again, and counted as if they had come here."""

import msgspec
import pytest
from branches_world import Federation
from exchange_world import ADMIN, ALICE

from tieline.drivers.peers.readings import checkable, checked
from tieline.exchange import readings as held
from tieline.exchange import statements as kept
from tieline.exchange.circles import ReadGround
from tieline.exchange.commands import ChangePeer, ChangePoints, PlanProbes, ReadReadings, ReadWay, TakeReadings, Tick
from tieline.exchange.crossing import AllowProbes
from tieline.exchange.readings import FRESH_MS
from tieline.exchange.said import ReadSaid, TakeSaid
from tieline.exchange.statements import Statements
from tieline.model.circle import Measure
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.measuring import PassesBody, PeerReadingsBody, Wish
from tieline.model.party import SYSTEM
from tieline.model.reading import READINGS, Method, Point, Reading, ReadingBatch
from tieline.network.circle import circle_of
from tieline.network.probing import PEERS, SPAN_MS, Links
from tieline.registry import sign_statement

SHANGHAI = Point(name="shanghai", address="192.0.2.1:443", latitude_udeg=31_230_000, longitude_udeg=121_470_000)


class Measured(Federation):
    """A uses what is behind B, which has two sites; both know `shanghai`, and B another point of its own."""

    def __init__(self, *names):
        super().__init__()
        self.a, self.b, *self.others = [self.add(name) for name in names or ("a", "b")]
        self.one, self.two = self.b.join("lab", "one"), self.b.join("lab2", "two")
        for node in (self.a, self.b, *self.others):
            node.do(ChangePoints(actor=ADMIN, put=(SHANGHAI,)))
        self.b.do(ChangePoints(actor=ADMIN, put=(Point(name="beijing", address="192.0.2.2:443"),)))
        self.join_up(self.a, self.b)
        self.seq = 0

    def reading(self, source, target, p50_us=1_000, **more):
        now_ms = self.clock.now_ms()
        values = {"method": Method.TCP, "count": 10, "sent": 10, "min_us": p50_us - 1, "p50_us": p50_us}
        values |= {"p99_us": p50_us + 9, "begun_ms": now_ms - 500, "ended_ms": now_ms}
        if target in ("shanghai", "beijing"):
            values["address"] = "192.0.2.1:443" if target == "shanghai" else "192.0.2.2:443"
        return Reading(source=source, target=target, **{**values, **more})

    def statement(self, site, *readings, key=None, **more):
        self.seq += 1
        batch = {"site": site, "seq": self.seq, "at_ms": self.clock.now_ms(), "readings": readings, **more}
        made = ReadingBatch(**batch)
        signed_by = key or self.b.site_key(site.rsplit("/", 1)[1])
        return made, sign_statement(made, signed_by, "cn.b.lab#site", READINGS).decode()

    def bring(self, site, *readings, **more):
        batch, statement = self.statement(site, *readings, **more)
        return self.b.do(TakeReadings(site=site, batch=batch, statement=statement))

    def bring_here(self, node, site, *readings):
        self.seq += 1
        batch = ReadingBatch(site=site, seq=self.seq, at_ms=self.clock.now_ms(), readings=readings)
        return node.do(TakeReadings(site=site, batch=batch))

    def page(self, asker=None, host=None, **body):
        said = (host or self.b).do(ReadSaid(peer=(asker or self.a).id, body=PeerReadingsBody(**body)))
        return msgspec.json.decode(msgspec.json.encode(said), type=type(said))

    def pull(self, asker=None, host=None, **body):
        asker, host = asker or self.a, host or self.b
        return self.told(self.page(asker, host, **body).statements, asker, host)

    def told(self, statements, asker=None, host=None):
        asker, host = asker or self.a, host or self.b
        return asker.do(TakeSaid(peer=host.id, said=tuple(checked(asker.view, statements))))


@pytest.fixture
def world():
    return Measured()


def codes(taken):
    return [reason.code for reason in taken.refused]


def test_what_a_peers_site_measured_is_known_here_with_its_age_and_by_which_way_it_came(world):
    a, one, two = world.a, world.one, world.two
    world.bring(one, world.reading(one, "shanghai", 700), world.reading(one, two, 900))
    rate = world.reading(one, two, 0, method=Method.RATE, count=1, sent=1, min_us=0, p99_us=0, rate_bps=10**8)
    world.bring(one, msgspec.structs.replace(rate, moved_bytes=10**6))
    assert a.view.distances.rtt_us("shanghai", one) is None
    assert (world.pull().kept, codes(world.pull())) == (3, [])
    assert a.view.distances.rtt_us("shanghai", one) == 700
    assert a.view.distances.rtt_us(one, two) == 900
    assert a.view.distances.read_bps(two, one) == 10**8
    world.clock.advance(60_000)
    page = a.do(ReadReadings(actor=ALICE, source=one))
    assert {(each.via, each.age_us) for each in page.readings} == {(world.b.id, 60_000_000)}
    assert a.do(ReadWay(actor=ALICE, source="shanghai", target=one)).rtt_us == 700
    ground = a.do(ReadGround(actor=ALICE, place="shanghai"))
    sites = tuple(site.site for site in ground.sites)
    found = circle_of(ground.names, Measure(within_us=1_000), sites, ground.readings, ground.places, ground.as_of_ms)
    assert [member.site for member in found.inside] == [one]
    assert [member.site for member in found.unknown] == [two]
    world.clock.advance(FRESH_MS)
    a.do(Tick())
    assert a.view.distances.rtt_us("shanghai", one) is None, "age counts from when it was measured, not told"


def test_a_peer_that_alters_replays_or_makes_up_readings_changes_nothing(world):
    a, one, two = world.a, world.one, world.two
    _, old = world.statement(one, world.reading(one, "shanghai", 300))
    world.clock.advance(10_000)
    _, new = world.statement(one, world.reading(one, "shanghai", 700))
    assert world.told([new]).kept == 1
    assert (world.told([old]).kept, world.told([new]).kept) == (0, 0)
    assert a.view.distances.rtt_us("shanghai", one) == 700
    batch, mine = world.statement(one, world.reading(one, "shanghai", 5), key=world.b.keys.key)
    altered = old.replace(old[40:44], "AAAA")
    assert checked(a.view, [mine, altered, "{}", ""]) == []
    forged = checked(a.view, [new])[0]._replace(batch=batch, public=world.b.keys.key.public)
    assert codes(a.do(TakeSaid(peer=world.b.id, said=(forged,)))) == ["reading_unsigned"]
    _, lie = world.statement(one, world.reading(two, "shanghai", 5))
    _, fast = world.statement(one, world.reading(one, "shanghai", 900, min_us=901))
    _, ahead = world.statement(one, at_ms=world.clock.now_ms() + 600_000)
    assert (world.told([lie, fast]).refuted, codes(world.told([ahead]))) == (2, ["reading_ahead"])
    assert {reason.code for each in a.do(ReadReadings(actor=ALICE)).counts for reason in each.reasons} == {
        "reading_not_own",
        "reading_order",
    }
    assert a.view.distances.rtt_us("shanghai", one) == 700


def test_a_peer_speaks_of_no_site_that_it_does_not_lead_to(world):
    ours = world.a.join("lab9", "mine")
    key = world.a.site_key("mine")
    _, said = world.statement(ours, world.reading(ours, "shanghai", 5), key=key)
    assert codes(world.told([said])) == ["reading_not_behind"]
    assert world.a.view.distances.rtt_us("shanghai", ours) is None
    unknown = "cn.b.lab9/site/late"
    _, early = world.statement(unknown, world.reading(unknown, "shanghai", 5), key=world.b.site_key("late"))
    taken = world.told([early])
    assert (taken.kept, taken.refused) == (0, ()), "nothing is known of it yet, which is nobody's fault"
    assert world.a.view.distances.rtt_us("shanghai", unknown) is None
    stranger = world.add("c")
    world.a.knows(stranger)
    _, said = world.statement(world.one, world.reading(world.one, "shanghai", 5))
    assert codes(world.told([said], host=stranger)) == ["reading_not_behind"]


def test_a_reference_point_is_the_same_only_with_the_same_address_and_a_laboratory_is_none_here(world):
    one, two = world.one, world.two
    elsewhere = {"address": "192.0.2.9:443"}
    _, said = world.statement(
        one,
        world.reading(one, "beijing", 700),
        world.reading(one, "shanghai", 600, **elsewhere),
        world.reading(one, two, 800, evidence=Evidence.EMULATED),
    )
    taken = world.told([said])
    assert (taken.kept, taken.refuted, taken.refused) == (0, 0, ())
    assert world.a.view.distances.rtt_us("shanghai", one) is None
    assert world.a.view.readings.evidence["rtt"] == "measured"
    here = world.bring(one, world.reading(one, "shanghai", 600, **elsewhere))
    assert [reason.code for reason in here.refuted] == ["reading_moved"], "a session says again what was moved since"
    world.a.do(ChangePoints(actor=ADMIN, put=(msgspec.structs.replace(SHANGHAI, address=""),)))
    _, said = world.statement(one, world.reading(one, "shanghai", 600, address=""))
    assert world.told([said]).kept == 0, "nobody probes a point without an address"


def test_pages_go_on_after_a_serial_show_what_the_peer_is_shown_and_let_go_of_what_is_older(world, monkeypatch):
    one, two = world.one, world.two
    monkeypatch.setattr(kept, "PAGE", 2)
    for at, site in enumerate((one, two, one)):
        world.clock.advance(1_000)
        world.bring(site, world.reading(site, "beijing" if at == 2 else "shanghai"))
    first = world.page()
    assert (len(first.statements), first.is_more) == (2, True)
    rest = world.page(session=first.session, after=first.after)
    assert (len(rest.statements), rest.is_more) == (1, False)
    assert len(world.page(session="another", after=rest.after).statements) == 2, "another numbering begins anew"
    assert len(world.page(sites=(two,)).statements) == 1
    assert checkable(world.a.view, world.b.id) == (one, two)
    world.clock.advance(1_000)
    world.bring(one, world.reading(one, "shanghai"), world.reading(one, "beijing"))
    assert len(world.b.view.readings.statements) == 2, "what has nothing newest in it is let go"
    assert world.page(session=rest.session, after=rest.after).statements
    hidden = world.b.join("lab3", "hidden", access="private")
    world.bring(hidden, world.reading(hidden, "shanghai"))
    assert len(world.page(session=rest.session, after=rest.after).statements) == 1
    world.b.do(ChangePeer(actor=SYSTEM, peer=world.a.id, what="grant", may_use=False))
    assert world.page().statements == ()


def test_readings_go_on_over_a_peer_in_between_as_they_were_signed():
    world = Measured("hub", "b", "a")
    (a,) = world.others
    a.knows(world.b)  # it believes the key that gave the prefix of the site's owner, and asks nothing there
    world.join_up(a, world.a)
    world.bring(world.one, world.reading(world.one, "shanghai", 700))
    assert world.pull().kept == 1
    assert world.page(world.a, world.b).statements == world.page(a, world.a).statements
    assert world.pull(a, world.a).kept == 1
    assert a.view.distances.rtt_us("shanghai", world.one) == 700
    assert a.view.readings.via == {world.one: world.a.id}
    world.a.knows(world.b, may_use=True)
    assert world.page(world.b, world.a).statements == (), "who leads there is not told of it"


def test_a_site_measures_doors_of_a_peer_that_gives_it_passes_within_what_both_sides_allow(world):
    a, b, one = world.a, world.b, world.one
    mine = a.join("lab9", "mine")
    door = {"tier": "edge", "public": b.site_key("one").public, "door": "http://192.0.2.9:7443"}
    b.register("lab", "site/one", door, rev=2, prev=b.view.catalogue.head(one).sha256)
    assert all(probe.target != one for probe in a.do(PlanProbes(site=mine)).probes), "it is not known here yet"
    a.copy_records(b)
    a.look(b)
    world.clock.advance(SPAN_MS)
    plan = a.do(PlanProbes(site=mine))
    at_one = [probe for probe in plan.probes if probe.target == one]
    assert {probe.method for probe in at_one} == {Method.UDP, Method.TCP, Method.RATE}
    assert {(probe.address, probe.public) for probe in at_one} == {(door["door"], door["public"])}

    key = a.site_key("mine").public

    def asked(holder=mine, public=key, peer=a, **wish):
        values = {"door": one, "most_bytes": sum(probe.most_bytes for probe in at_one), "is_rated": True, **wish}
        body = PassesBody(holder=holder, public=public, wishes=(Wish(**values),))
        return b.do(AllowProbes(peer=peer.id, body=body))

    assert [wish.door for wish in asked()] == [one]
    assert asked(door=world.two) == () == asked(door=mine), "there is no door, or it is not of this exchange"
    assert asked(is_rated=False) == (), "more than what it is for takes"
    for wrong in ({"holder": one}, {"holder": "cn.c.x/site/y"}):
        with pytest.raises(TielineError) as caught:
            asked(**wrong)
        assert caught.value.code == "forbidden"
    b.knows(a, may_use=True)
    b.copy_records(a)
    with pytest.raises(TielineError):
        asked(public=b.keys.key.public)  # the record says otherwise
    assert asked() == (), "the door was charged with what may be moved, and a second such upload is too much"
    total = sum(probe.most_bytes for probe in at_one)
    while asked(most_bytes=200_000, is_rated=False):
        total += 200_000
    used = b.view.readings.ledger.used_bytes
    assert used[PEERS] == used[one] == total <= Links().budget_bytes(one) < total + 200_000
    assert used[PEERS + a.id] == total, "one peer leaves something to the others"
    world.clock.advance(SPAN_MS)
    assert asked()
    b.register("lab", "pool/one", {"site": one, "core_count": 1, "access": "private"}, rev=2,
               prev=b.view.catalogue.head("cn.b.lab/pool/one").sha256)  # fmt: skip
    assert asked() == (), "a site that the peer is not shown"
    world.bring_here(a, mine, world.reading(mine, one, 800, method=Method.UDP))
    assert a.view.distances.rtt_us(mine, one) == 800


def test_what_is_held_of_a_peer_is_bounded_and_goes_with_it_or_once_it_is_old(world, monkeypatch):
    one, two = world.one, world.two
    monkeypatch.setattr(held, "MOST_OF_A_PEER", 2)
    _, first = world.statement(one, world.reading(one, "shanghai"), world.reading(one, two))
    _, more = world.statement(two, world.reading(two, "shanghai"), world.reading(two, one))
    assert world.told([first]).kept == 2
    full = world.told([more]).refused
    assert [(reason.code, reason.count) for reason in full] == [("reading_full", 2)]
    world.clock.advance(1_000)
    _, newer = world.statement(one, world.reading(one, "shanghai", 800))
    assert world.told([newer]).kept == 1, "what is newer takes the place of what is held"
    world.clock.advance(25 * 3_600_000)
    _, last = world.statement(two, world.reading(two, "shanghai"))
    world.told([last])
    assert {reading.source for reading in world.a.view.readings} == set()
    assert world.told([last]).kept == 1, "the old ones made room"
    world.a.do(ChangePeer(actor=SYSTEM, peer=world.b.id, what="remove"))
    assert not tuple(world.a.view.readings)
    assert not world.a.view.readings.via
    assert not len(world.a.view.readings.statements)
    with pytest.raises(TielineError) as caught:
        world.told([last])
    assert caught.value.code == "not_found"


def test_what_came_over_one_peer_takes_the_room_of_no_other(monkeypatch):
    monkeypatch.setattr(kept, "MOST_PEER_BYTES", 100)
    statements = Statements()
    ours = statements.put("ours", "x" * 40, 1)
    far = [statements.put(f"far{at}", "x" * 40, 1, "peer") for at in range(50)]
    assert ([bool(serial) for serial in far[:4]], sum(map(bool, far))) == ([True, True, False, False], 2)
    assert statements.put("other", "x" * 40, 1, "another")
    assert len(statements.page(0, (), lambda site: True).statements) == 4
    statements.release(far[0])
    assert statements.put("far9", "x" * 60, 1, "peer")
    assert not statements.put("far8", "x" * 60, 1, "peer")
    for site in ("far1", "far9", "other"):
        statements.forget(site)
    assert (len(statements), statements.size_bytes, len(statements.page(ours - 1, (), lambda site: True)[0])) == (
        1,
        40,
        1,
    )
    assert statements.put("far8", "x" * 100, 1, "peer")


def test_statements_are_bounded_for_each_site_and_in_all(monkeypatch):
    monkeypatch.setattr(kept, "MOST_SITE_BYTES", 100)
    monkeypatch.setattr(kept, "MOST_BYTES", 250)
    statements = Statements()
    for at in range(30):
        statements.put(f"s{at % 3}", f"{at:040d}", 1)
    assert (len(statements), statements.size_bytes) == (6, 240)
    page = statements.page(0, (), lambda site: site != "s1")
    assert [int(text) for text in page.statements] == [24, 26, 27, 29]
    statements.release(29)
    statements.release(29)
    statements.forget("s0")
    assert (len(statements), statements.size_bytes, page.after) == (3, 120, 30)
