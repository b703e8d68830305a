"""Readings of a peer's sites: fetched over HTTP page by page, again after a restart, and known here by their point."""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import use_world
from use_world import LIMITS, MAKERS, used

from peer_world import until
from tieline.drivers.peers import readings as taking
from tieline.drivers.peers.readings import ReadingsDuty
from tieline.drivers.peers.tally import Tally
from tieline.exchange import statements as kept
from tieline.exchange.commands import ChangePoints
from tieline.model.door import Pass, Right
from tieline.model.error import TielineError
from tieline.model.measuring import GivenPass, PassesBody, PassesView, PeerReadings, Wish
from tieline.model.party import Actor, Role
from tieline.model.reading import Method, Point
from tieline.registry.passes import issued

sys.path.insert(0, str(Path(__file__).parents[1] / "exchange"))
from test_exchange_said import Measured


class Client:
    """Answers as the world's B does, after ``twist``."""

    def __init__(self, world):
        self.world = world
        self.tally = Tally()
        self.asked = []
        self.twist = lambda page: page

    async def call(self, method, path, shape, *, body, **_):
        assert (method, path, shape) == ("POST", "/v1/peer/readings", PeerReadings)
        self.asked.append(body)
        return self.twist(self.world.page(**msgspec.to_builtins(body)))


class Host:
    def __init__(self, world):
        self.world = world

    @property
    def view(self):
        return self.world.a.view

    async def read(self, question, *args):
        return question(*args)

    async def ask(self, command):
        return self.world.a.do(command)


@pytest.fixture
def world():
    return Measured()


@pytest.fixture
def duty(world):
    return ReadingsDuty(Host(world), world.a.view.peers[world.b.id], Client(world))


def rtt(world, site):
    return world.a.view.distances.rtt_us("shanghai", site)


def test_pages_are_taken_to_the_end_and_only_what_is_new_the_next_time(world, duty, monkeypatch):
    monkeypatch.setattr(kept, "PAGE", 1)
    world.bring(world.one, world.reading(world.one, "shanghai", 700))
    world.bring(world.two, world.reading(world.two, "shanghai", 800))
    asyncio.run(duty.look())
    assert (rtt(world, world.one), rtt(world, world.two), len(duty.client.asked)) == (700, 800, 2)
    asyncio.run(duty.look())
    assert duty.client.asked[-1].after == duty.after == 2
    three = world.b.join("lab3", "three")
    world.clock.advance(1_000)
    world.bring(three, world.reading(three, "shanghai", 900))
    asyncio.run(duty.look())
    assert rtt(world, three) is None, "its record is not here yet"
    world.a.copy_records(world.b)
    world.a.look(world.b)
    asyncio.run(duty.look())
    assert rtt(world, three) == 900, "a site that is led to only now is asked for from the start"
    assert duty.client.asked[-2].sites == (three,)


def test_a_peer_that_was_restarted_numbers_anew_and_loses_nothing(world, duty):
    world.bring(world.one, world.reading(world.one, "shanghai", 700))
    asyncio.run(duty.look())
    world.b.crash()
    world.clock.advance(5_000)
    world.b.open(world.one)
    world.bring(world.one, world.reading(world.one, "shanghai", 750))
    asyncio.run(duty.look())
    assert rtt(world, world.one) == 750


def test_a_lying_peer_is_counted_bounded_and_believed_in_nothing(world, duty):
    world.bring(world.one, world.reading(world.one, "shanghai", 700))
    _, forged = world.statement(world.one, world.reading(world.one, "shanghai", 5), key=world.b.keys.key)
    duty.client.twist = lambda page: msgspec.structs.replace(page, statements=(forged, "no statement"))
    asyncio.run(duty.look())
    assert rtt(world, world.one) is None
    assert duty.client.tally.rejected == {"reading_unsigned": 2}
    duty.client.twist = lambda page: msgspec.structs.replace(page, is_more=True, after=1)
    with pytest.raises(TielineError) as caught:
        asyncio.run(duty.look())
    assert caught.value.code == "check_failed"
    duty.client.asked.clear()
    duty.client.twist = lambda page: msgspec.structs.replace(page, is_more=True, session=f"s{len(duty.client.asked)}")
    asyncio.run(duty.look())
    assert len(duty.client.asked) == taking.MOST_PAGES, "however it numbers its pages"


def test_a_duty_waits_where_it_may_not_ask_and_is_begun_again_only_for_what_is_wrong(world, duty, monkeypatch):
    waits = []

    async def sleep(wait_s):
        waits.append(wait_s)
        if len(waits) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(taking, "asyncio", SimpleNamespace(sleep=sleep))
    codes = iter(("not_found", "forbidden", "exchange_unreachable", "check_failed"))

    def refuse(page):
        raise TielineError(next(codes), "no")

    duty.client.twist = refuse
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(duty.run())
    assert waits == [taking.OLDER_S, taking.ROUND_S, taking.ROUND_S]
    with pytest.raises(TielineError):
        asyncio.run(duty.run())


def test_passes_are_those_that_were_asked_for_and_a_peer_that_gives_none_is_left_alone_for_a_while(world, duty):
    now_ms = world.clock.now_ms()
    wish = Wish(door=world.one, most_bytes=8_000)
    body = PassesBody(holder="cn.a.lab/site/mine", public="AAAA", wishes=(wish,))
    asked = []

    def given(holder=body.holder, door=world.one, public="AAAA", shown=None):
        said = Pass(
            id="a" * 16, door=door, holder=holder, public=public, rights=(Right.ECHO,), from_ms=now_ms,
            until_ms=now_ms + 1_000,
        )  # fmt: skip
        return GivenPass(door=shown or door, door_pass=issued(said, world.b.keys.key, world.b.keys.kid))

    async def call(method, path, shape, **fields):
        asked.append(fields["body"])
        if len(asked) == 1:
            wrong = (
                given(door=world.two), given(door=world.two, shown=world.one), given(holder="cn.c.x/site/y"),
                given(public="BBBB"), GivenPass(door=world.one, door_pass="nonsense"),
            )  # fmt: skip
            return PassesView(passes=(*wrong, given()))
        raise TielineError("timeout", "nothing")

    duty.client.call = call

    async def story():
        return [await duty.passes(body) for _ in range(4)]

    found = asyncio.run(story())
    assert [list(each) for each in found] == [[world.one], [], [], []]
    assert duty.client.tally.rejected == {"peer_garbled": 5}
    assert len(asked) == 2, "a site does not wait for it again and again"


@pytest.mark.slow
def test_sites_of_two_exchanges_measure_points_and_each_other_and_are_found_by_it(
    exchange, tieline, tmp_path, monkeypatch
):
    monkeypatch.setattr(taking, "ROUND_S", 0.2)
    monkeypatch.setattr(use_world, "SITE", use_world.SITE + "door: {listen: 127.0.0.1:0}\n")
    a = exchange("cn.a", makers=(*MAKERS, ReadingsDuty), limits=LIMITS)
    b = exchange("cn.b", makers=MAKERS, limits=LIMITS)
    point = Point(name="harbour", address=b.url.removeprefix("http://"), region="cn-east")
    for each in (a, b):
        each.do(ChangePoints(actor=Actor(name="olga", roles=(Role.OPERATOR,)), put=(point,)))
    sites = [used(a, b, tmp_path / "far")]
    far = sites[0].id
    logs = lambda: "".join(each.read_text() for each in tmp_path.glob("*/site.log"))  # noqa: E731
    try:
        known = lambda: a.view.readings.newest(far, "harbour", Method.TCP)  # noqa: E731
        until(lambda: known() is not None and known().count, why=logs)
        assert known() == b.view.readings.newest(far, "harbour", Method.TCP)
        found = a.http.post("/v1/find", json={"query": "rtt(harbour) < 1s", "kind": "site"}).json()
        assert [offer["id"] for offer in found["offers"]] == [far]
        (shown,) = a.http.get("/v1/readings", params={"source": far}).json()["readings"]
        assert shown["via"] == b.id
        assert b.id in tieline(a, "circle", "--of", "harbour", "--within", "1s")
        assert b.id in tieline(a, "reading", "ls")
        assert a.http.post("/v1/peer/readings", json={}).status_code == 403, "only a peer is told"

        until(lambda: a.view.supply.site_specs[far].door, why=logs)
        sites.append(use_world.Site(a, tmp_path / "near", owner="shop", name="near"))
        near = sites[1].id
        there = lambda: a.view.readings.newest(near, far, Method.UDP)  # noqa: E731
        until(lambda: there() is not None and there().count, 240, why=logs)
        way = a.http.get("/v1/ways", params={"source": near, "target": far}).json()
        assert way["rtt_us"] >= there().min_us
    finally:
        for each in sites:
            each.stop()
