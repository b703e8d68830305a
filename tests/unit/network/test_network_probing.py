"""Who measures whom: below 1 % of any link whatever is asked, everybody in the end, the near ones more often."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.model.reading import Method
from tieline.model.topology import Link, Node, Topology
from tieline.network.probing import (
    ACCESS_BPS,
    CORE,
    CORE_BPS,
    ECHO_BYTES,
    NEAR_MS,
    PEERS,
    RELAYED_MOST,
    SPAN_MS,
    Ledger,
    Links,
    Side,
    links_of,
    planned,
)

LIGHT = (Method.UDP, Method.TCP)


class World:
    """Sites that ask span after span and do what they are told; what was sent is kept by end and span."""

    def __init__(self, sites, doors, points=(), links=None, *, has_relay=False):
        self.sites = [f"cn.s{at:03}/site/x" for at in range(sites)]
        self.sides = [Side(name, f"http://{name}", "k") for name in self.sites[:doors]]
        if has_relay:
            self.sides += [Side(name, "", "k", is_relayed=True) for name in self.sites[doors:]]
        self.sides += [Side(name, f"{name}:443") for name in points]
        self.links, self.ledger, self.seen = links or Links(), Ledger(), {}
        self.sent = {}
        self.near = {}

    def ask(self, site, now_ms):
        def nearest(name, names, most):
            return [each for each in self.near.get(name, ()) if each in names][:most]

        def ended_ms(*key):
            return self.seen.get(key)

        plan = planned(site, self.sides, self.sites, ended_ms, nearest, self.ledger, self.links, now_ms)
        sent = self.sent.setdefault(now_ms // SPAN_MS, Counter())
        for probe in plan.probes:
            self.seen[site, probe.target, probe.method] = now_ms
            for name in (CORE, site, probe.target):
                sent[name] += probe.most_bytes * (1 + (probe.method is Method.RELAY))  # to the exchange and from it
        return plan

    def span(self, number):
        for site in self.sites:
            self.ask(site, number * SPAN_MS + 500)

    def check(self):
        for spent in self.sent.values():
            for name, size_bytes in spent.items():
                rate_bps = self.links.access_bps.get(name, ACCESS_BPS) if name else self.links.core_bps
                assert size_bytes * 8 <= 0.005 * rate_bps * SPAN_MS / 1_000


def test_three_hundred_sites_stay_below_one_percent_of_the_slowest_link_and_none_is_left_out():
    world = World(300, 300, points=("shanghai",))
    for number in range(3):
        world.span(number)
    world.check()
    in_all = sum(spent[CORE] for spent in world.sent.values())
    assert in_all * 8 / (3 * SPAN_MS / 1_000) < 0.01 * CORE_BPS
    assert {source for source, _, _ in world.seen} == set(world.sites)
    inbound = Counter(target for _, target, method in world.seen if method is Method.UDP)
    assert min(inbound[site] for site in world.sites) >= 1, "nobody waits for others to be done"
    assert inbound["shanghai"] == 0
    assert sum(target == "shanghai" for _, target, _ in world.seen) > 100


def test_every_pair_is_measured_by_both_ends_and_what_is_near_more_often():
    world = World(24, 24)
    first = world.sites[0]
    world.near = {first: world.sites[1:5]}
    often = Counter()
    for number in range(90):
        before = dict(world.seen)
        world.span(number)
        often.update(key for key, at_ms in world.seen.items() if before.get(key) != at_ms)
    world.check()
    pairs = [(a, b) for a in world.sites for b in world.sites if a != b]
    assert all((a, b, Method.UDP) in world.seen for a, b in pairs)
    near = [often[first, b, Method.UDP] + often[b, first, Method.UDP] for b in world.sites[1:5]]
    far = [often[first, b, Method.UDP] + often[b, first, Method.UDP] for b in world.sites[10:]]
    assert min(near) > max(far)
    assert often[first, world.sites[1], Method.UDP] <= 90 * SPAN_MS / NEAR_MS + 1
    assert {method for _, _, method in world.seen} == {Method.UDP, Method.TCP, Method.RATE, Method.MTU}


def test_an_end_that_says_that_it_measured_all_the_time_is_measured_all_the_same():
    world = World(3, 3)
    honest, liar, _ = world.sites
    heard_ms = {}
    for number in range(400):
        now_ms = number * SPAN_MS
        world.seen |= {(liar, honest, method): now_ms for method in Method}
        world.ask(honest, now_ms + 500)
        for method in (*LIGHT, Method.RATE, Method.MTU):
            heard_ms.setdefault(method, []).append(world.seen.get((honest, liar, method)))
    world.check()
    assert all(each is not None for times in heard_ms.values() for each in times[10:]), "it was never heard of before"
    ages_ms = [number * SPAN_MS - at_ms for number, at_ms in enumerate(heard_ms[Method.UDP]) if at_ms is not None]
    assert max(ages_ms) < 3_600_000, "a round trip counts for an hour"
    alone = [times[-1] for times in heard_ms.values()]
    assert min(alone) > 0


def test_two_honest_ends_take_turns():
    world = World(2, 2)
    turns = []
    for number in range(300):
        before = dict(world.seen)
        world.span(number)
        turns += [
            (number, key[0])
            for key, at_ms in world.seen.items()
            if key[2] is Method.UDP and before.get(key) != at_ms and number > 60
        ]
    assert len(turns) >= 4
    assert all(one[1] != other[1] for one, other in pairwise(turns)), turns
    apart = [other[0] - one[0] for one, other in pairwise(turns)]
    assert max(apart) <= 2 * min(apart) + 2, turns


def test_peers_have_a_part_of_the_core_and_one_of_them_half_of_that():
    links, ledger = Links(), Ledger()
    ledger.turn(SPAN_MS)
    taken = {
        peer: sum(ledger.take(links, (CORE, PEERS, PEERS + peer), 100_000) for _ in range(1_000))
        for peer in ("cn.a/exchange/main", "cn.b/exchange/main", "cn.c/exchange/main")
    }
    most = links.budget_bytes(CORE) // 100_000
    assert list(taken.values()) == [most // 8, most // 8, most // 4 - 2 * (most // 8)]


def test_sites_without_doors_measure_each_other_through_the_relay_few_at_a_time_and_doors_never():
    world = World(40, 4, points=("p",), has_relay=True)
    for number in range(60):
        before = dict(world.seen)
        world.span(number)
        new = [key for key, at_ms in world.seen.items() if before.get(key) != at_ms]
        assert sum(method is Method.RELAY for _, _, method in new) <= RELAYED_MOST
    world.check()
    doors, others = world.sites[:4], world.sites[4:]
    relayed = [(source, target) for source, target, method in world.seen if method is Method.RELAY]
    assert not any(end in doors for pair in relayed for end in pair)
    pairs = {frozenset(pair) for pair in relayed}
    assert len(pairs) == len(others) * (len(others) - 1) // 2, "every pair, in the end"
    assert all((site, door, Method.UDP) in world.seen for site in others for door in doors)
    assert {method for _, target, method in world.seen if target in others} == {Method.RELAY}


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(0, 12),
    st.booleans(),
    st.lists(st.integers(10_000, 10**10), min_size=12, max_size=12),
    st.integers(10_000, 10**10),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 400_000)), max_size=60),
)
def test_no_link_is_ever_charged_beyond_its_share_whoever_asks_however_often(
    sites, doors, has_relay, access, core_bps, asks
):
    names = [f"cn.s{at:03}/site/x" for at in range(12)]
    links = Links(dict(zip(names, access, strict=True)), core_bps)
    world = World(sites, min(doors, sites), points=("p",), links=links, has_relay=has_relay)
    now_ms = 0
    for who, after_ms in asks:
        now_ms += after_ms
        plan = world.ask(world.sites[who % sites], now_ms)
        assert 1_000 <= plan.again_ms <= 2 * SPAN_MS
        assert all(probe.target != world.sites[who % sites] for probe in plan.probes)
    world.check()


def test_asking_again_in_a_span_or_with_a_clock_that_went_back_gives_nothing_more():
    world = World(3, 3, points=("p",))
    site = world.sites[0]
    assert world.ask(site, 10 * SPAN_MS).probes
    assert not world.ask(site, 10 * SPAN_MS + 40_000).probes
    assert not world.ask(site, 3 * SPAN_MS).probes
    assert not world.ask("cn.other/site/x", 11 * SPAN_MS).probes


def test_who_has_no_door_measures_and_is_not_measured_and_points_answer_handshakes_alone():
    world = World(4, 2, points=("p",))
    for number in range(6):
        world.span(number)
    targets = {target for _, target, _ in world.seen}
    assert targets == {*world.sites[:2], "p"}
    assert {method for _, target, method in world.seen if target == "p"} == {Method.TCP}
    assert (world.sites[3], world.sites[0], Method.UDP) in world.seen


def test_links_are_those_of_the_topology_the_slowest_that_carries_of_each_end_and_of_the_rest():
    nodes = (Node(name="a", site="x"), Node(name="b", site="y"), Node(name="c"), Node(name="d"))

    def link(name, a, b, bps, **more):
        return Link(name=name, a=a, b=b, capacity_bps=bps, **more)

    access = (link("1", "a", "c", 10**9, capacity_back_bps=10**8), link("2", "a", "d", 5 * 10**8))
    dead = link("3", "b", "c", 0)
    core = (link("4", "c", "d", 10**10), link("5", "d", "c", 4 * 10**9))
    assert links_of(Topology(name="t", nodes=nodes, links=(*access, dead, *core))) == Links({"x": 10**8}, 4 * 10**9)
    assert links_of(Topology(name="t", nodes=nodes, links=access)) == Links({"x": 10**8}, 10**8)
    assert links_of(None).budget_bytes(CORE) == 37_500_000
    assert Links({"x": ECHO_BYTES}).budget_bytes("x") < ECHO_BYTES


@pytest.mark.parametrize("method", LIGHT)
def test_two_ends_with_doors_do_not_measure_the_same_pair_in_one_span(method):
    world = World(8, 8)
    world.span(1)
    done = {(a, b) for a, b, how in world.seen if how is method}
    assert done
    assert not [(a, b) for a, b in done if (b, a) in done]
