"""What pairs of sites cost each other: packets' sizes, bounds, searches that end, answers that are not shared."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from network_worlds import MBIT, SLOT_MS, SLOTS, line, network

from tieline.model.topology import Topology
from tieline.network import joint as module
from tieline.network.calendar import Calendar
from tieline.network.joint import Joint, idle
from tieline.network.joint import joint as joint_of
from tieline.network.slots import wires_of


def small(topology: Topology) -> Calendar:
    return Calendar(topology, 0, slot_ms=SLOT_MS, count=SLOTS)


def ring() -> Topology:
    return network(
        ("a", "b", 10 * MBIT, 10), ("b", "c", 10 * MBIT, 10), ("c", "d", 10 * MBIT, 90), ("d", "a", 10 * MBIT, 90)
    )


def with_mtu(topology: Topology, *sizes: int) -> Topology:
    links = tuple(replace(link, mtu_bytes=size) for link, size in zip(topology.links, sizes, strict=True))
    return replace(topology, links=links)


def test_a_link_for_smaller_packets_carries_none_of_it() -> None:
    wires = with_mtu(line(10 * MBIT, 10 * MBIT), 9_000, 1_500)
    for made in (joint_of(small(wires), 0, mtu_bytes=2_000), idle(wires, mtu_bytes=2_000)):
        assert made.allowed(["n0", "n1", "n2"], MBIT).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert idle(wires, mtu_bytes=1_500).allowed(["n0", "n2"], MBIT).all()


def test_the_round_trip_of_a_pair_is_there_and_back_over_links_that_carry_the_rate() -> None:
    joint = joint_of(small(ring()), 0)
    assert joint.rtt_us("a", "c") == 40
    assert joint.rtt_us("a", "a") == 0
    assert joint.rtt_us("a", "nowhere") is None
    assert joint.rtt_us("a", "c", 11 * MBIT) is None
    narrow = network(("a", "b", MBIT, 10), ("b", "c", 10 * MBIT, 10), ("a", "c", 10 * MBIT, 50))
    both = joint_of(small(narrow), 0)
    assert (both.rtt_us("a", "c", MBIT), both.rtt_us("a", "c", 2 * MBIT)) == (40, 100)  # each rate has its own ways


def test_a_bound_holds_of_the_way_that_is_left_and_nobody_is_charged_for_a_try() -> None:
    joint = joint_of(small(ring()), 0)
    ab = joint.extended(joint.first("a"), "b", 10 * MBIT)
    assert ab is not None
    before = ab.free_bps.copy()
    assert joint.extended(ab, "c", 10 * MBIT, 359) is None  # a-c goes round by d now: 180 one way
    assert joint.extended(ab, "c", 10 * MBIT, 360) is not None
    assert ab.free_bps.tolist() == before.tolist()
    assert joint.extended(ab, "c", 10 * MBIT, 360) is not None


def test_both_directions_of_a_pair_are_taken() -> None:
    joint = joint_of(small(line(10 * MBIT)), 0)
    two = joint.extended(joint.first("n0"), "n1", 4 * MBIT)
    assert two is not None
    assert two.free_bps.tolist() == [6 * MBIT, 6 * MBIT]
    assert joint.free_bps.tolist() == [10 * MBIT, 10 * MBIT]


def test_searches_beside_the_quickest_way_are_counted_and_end() -> None:
    joint = Joint(wires_of(ring()), np.full(8, 10 * MBIT, np.int64), most_routes=2)
    for left in (1, 0):
        assert joint.extended(held(joint), "c", 10 * MBIT) is not None
        assert joint.routes == left
    assert joint.extended(held(joint), "c", 10 * MBIT) is None
    assert joint.routes == 0


def held(joint: Joint) -> module.Joined:
    made = joint.extended(joint.first("a"), "b", 10 * MBIT)
    assert made is not None
    return made


def test_a_link_that_has_the_rate_to_the_bit_carries_it() -> None:
    joint = joint_of(small(ring()), 0)
    found = joint.extended(held(joint), "c", 10 * MBIT)
    assert found is not None
    assert [len(found.paths[pair]) for pair in (("a", "c"), ("b", "c"))] == [2, 1]
    assert found.free_bps.max() == 0


def test_of_links_side_by_side_the_quickest_that_has_room_is_taken() -> None:
    wires = network(("a", "b", 10 * MBIT, 90), ("a", "b", 10 * MBIT, 10), ("a", "b", 2 * MBIT, 1))
    joint = joint_of(small(wires), 0)
    assert [joint.rtt_us("a", "b", rate * MBIT) for rate in (1, 5)] == [2, 20]
    roads = module.roads_of(joint._graph, joint.free_bps, 5 * MBIT, np.array([0], np.int32))
    assert sorted(roads.between.values()) == [2, 3]


def test_what_is_remembered_is_bounded_and_asked_again_for_others() -> None:
    joint = joint_of(small(ring()), 0)
    for rate in range(1, 4 * module.MOST_KNOWN):
        assert joint.allowed(["a"], rate).all()
        assert joint.allowed(["a", "b", "c", "d"], rate).all()  # more sites than were asked before
    assert len(joint._known) <= module.MOST_KNOWN


def test_a_link_that_is_down_carries_nothing_even_for_nothing() -> None:
    wires = wires_of(line(10 * MBIT, 10 * MBIT))
    dark = wires._replace(graph=wires.graph.without([1]))
    joint = Joint(dark, np.full(wires.graph.arc_count, 10 * MBIT, np.int64))
    for rate in (0, MBIT):
        assert not joint.allowed(["n0", "n2"], rate)[0, 1]


def test_only_the_time_that_is_asked_for_counts() -> None:
    calendar = small(line(10 * MBIT))
    calendar.roll(SLOT_MS)
    calendar.free[:, 0] = MBIT
    first = calendar.grid.begin_ms
    assert joint_of(calendar, first, first + SLOT_MS).free_bps.tolist() == [MBIT, MBIT]
    assert joint_of(calendar, first + SLOT_MS, first + 2 * SLOT_MS).free_bps.tolist() == [10 * MBIT] * 2
    assert joint_of(calendar, 0).free_bps.tolist() == [MBIT, MBIT]
