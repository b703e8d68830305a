"""Sites that are joined: all pairs at once, both ways, and no link gives more than it has."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from network_worlds import MBIT, SLOT_MS, SLOTS, line, network, topologies

from tieline.model.transfer import Segment, Transfer, TransferOrder
from tieline.network.calendar import Calendar
from tieline.network.joint import joint as joint_of


def small(topology):
    return Calendar(topology, 0, slot_ms=SLOT_MS, count=SLOTS)


def joined(joint, sites, rate_bps, most_rtt_us=0):
    held = joint.first(sites[0])
    for site in sites[1:]:
        held = joint.extended(held, site, rate_bps, most_rtt_us)
        if held is None:
            return None
    return held


def test_a_triangle_joins_three_and_a_line_shares_its_middle() -> None:
    triangle = network(("a", "b", 10 * MBIT, 1), ("b", "c", 10 * MBIT, 1), ("a", "c", 10 * MBIT, 1))
    assert joined(joint_of(small(triangle), 0), ["a", "b", "c"], 10 * MBIT) is not None
    chain = joint_of(small(line(10 * MBIT, 10 * MBIT)), 0)
    assert chain.allowed(["n0", "n1", "n2"], 10 * MBIT).all()
    assert joined(chain, ["n0", "n1", "n2"], 10 * MBIT) is None
    assert joined(chain, ["n0", "n1", "n2"], 5 * MBIT) is not None


def test_a_pair_goes_round_where_the_quickest_way_is_taken() -> None:
    square = network(
        ("a", "b", 10 * MBIT, 1), ("b", "c", 10 * MBIT, 1), ("c", "d", 10 * MBIT, 9), ("d", "a", 10 * MBIT, 9)
    )
    found = joined(joint_of(small(square), 0), ["a", "b", "c"], 10 * MBIT)
    assert found is not None
    assert len(found.paths["a", "c"]) == 2
    unrouted = joint_of(small(square), 0)
    unrouted.routes = 0
    none = joined(unrouted, ["a", "b", "c"], 10 * MBIT)
    assert none is None


def test_round_trips_and_what_others_booked_count() -> None:
    calendar = small(line(10 * MBIT, delay_us=1_000))
    assert joint_of(calendar, 0).allowed(["n0", "n1"], MBIT, 2_000).all()
    assert not joint_of(calendar, 0).allowed(["n0", "n1"], MBIT, 1_999)[0, 1]
    segment = Segment(path=("l0",), is_forward=(False,), from_ms=0, until_ms=SLOT_MS, rate_bps=6 * MBIT)
    order = TransferOrder(source="n1", target="n0", size_bytes=1)
    calendar.put_transfer(Transfer(id="t", order=order, user="u", segments=(segment,)))
    assert not joint_of(calendar, 0, SLOT_MS).allowed(["n0", "n1"], 5 * MBIT)[0, 1]
    assert joint_of(calendar, SLOT_MS, 2 * SLOT_MS).allowed(["n0", "n1"], 5 * MBIT)[0, 1]
    assert not joint_of(calendar, 0).allowed(["n0", "n1"], 5 * MBIT)[0, 1]


def test_a_site_that_nobody_knows_is_joined_with_nobody() -> None:
    joint = joint_of(small(line(10 * MBIT)), 0)
    assert not joint.allowed(["n0", "nowhere"], MBIT)[0, 1]
    assert not joint.allowed(["nowhere"], MBIT).any()
    assert joint.most_joined(["n0", "nowhere"], 4 * MBIT).tolist() == [2, 0]


@given(topology=topologies(), rate=st.sampled_from((1, MBIT // 3, MBIT)), rtt=st.sampled_from((0, 3_000, 50_000)))
def test_whoever_is_joined_has_room_and_is_near_enough(topology, rate, rtt) -> None:
    joint = joint_of(small(topology), 0)
    names = [node.name for node in topology.nodes]
    pairs = joint.allowed(names, rate, rtt)
    assert (pairs == pairs.T).all()
    assert pairs.diagonal().all()
    for size in (2, 3, 4):
        for sites in combinations(names, size):
            found = joined(joint, list(sites), rate, rtt)
            if found is None:
                continue
            used = np.zeros(len(joint.free_bps), np.int64)
            for path in found.paths.values():
                np.add.at(used, path, rate)
                np.add.at(used, path ^ 1, rate)
            assert (used <= np.maximum(joint.free_bps, 0)).all()
            assert (found.free_bps == joint.free_bps - used).all()
            assert set(found.paths) == set(combinations(sites, 2))
            most = joint.most_joined(sites, rate)
            for at, (a, b) in enumerate(combinations(sites, 2)):
                assert at >= 0
                assert pairs[names.index(a), names.index(b)]
            assert (most >= size - 1).all()
    for a, b in combinations(names, 2):
        assert (joined(joint, [a, b], rate, rtt) is not None) == pairs[names.index(a), names.index(b)]
