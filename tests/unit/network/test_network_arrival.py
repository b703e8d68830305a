"""Arrivals: as early as there is room, never beyond it, and nothing of the calendar changes by asking."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from network_worlds import MBIT, SLOT_MS, SLOTS, line, network, topologies

from tieline.model.transfer import Transfer, TransferOrder
from tieline.network.admit import Admitted, admitted
from tieline.network.arrival import arrival, ends_of
from tieline.network.calendar import Calendar

GBIT = 1_000 * MBIT


def small(topology, now_ms=0):
    return Calendar(topology, now_ms, slot_ms=SLOT_MS, count=SLOTS)


def booked(name, found, source, target, size_bytes):
    order = TransferOrder(source=source, target=target, size_bytes=size_bytes)
    return Transfer(id=name, order=order, user="u", segments=found.segments, arrives_ms=found.arrives_ms)


def test_little_data_is_there_at_once_and_leaves_room_for_the_next() -> None:
    calendar = small(line(GBIT, GBIT))
    first = arrival(calendar, "n0", "n2", 1_000_000, now_ms=5_000)
    assert first is not None
    assert 5_000 < first.arrives_ms <= 5_000 + 17  # 8 Mbit at half of 1 Gbit/s, and a millisecond of rounding
    calendar.put_transfer(booked("a", first, "n0", "n2", 1_000_000))
    second = arrival(calendar, "n0", "n2", 1_000_000, now_ms=5_000)
    assert second is not None
    assert 5_000 < second.arrives_ms <= 5_000 + 34
    assert calendar.is_kept()


def test_much_data_takes_what_there_is_and_waits_behind_what_is_booked() -> None:
    calendar = small(line(8 * MBIT))
    size = 8 * MBIT // 8 * SLOT_MS // 1_000  # one slot, full
    first = arrival(calendar, "n0", "n1", size, now_ms=0)
    assert first is not None
    assert first.arrives_ms == SLOT_MS
    calendar.put_transfer(booked("a", first, "n0", "n1", size))
    second = arrival(calendar, "n0", "n1", size, now_ms=0)
    assert second is not None
    assert [(each.from_ms, each.until_ms) for each in second.segments] == [(SLOT_MS, 2 * SLOT_MS)]


def test_two_ways_carry_more_than_one() -> None:
    calendar = small(network(("a", "b", 8 * MBIT, 1), ("a", "c", 8 * MBIT, 1), ("c", "b", 8 * MBIT, 1)))
    size = 2 * 8 * MBIT // 8 * SLOT_MS // 1_000
    both, one = (arrival(calendar, "a", "b", size, now_ms=0, is_splittable=each) for each in (True, False))
    assert both is not None
    assert one is not None
    assert (both.arrives_ms, one.arrives_ms) == (SLOT_MS, 2 * SLOT_MS)


def test_what_cannot_arrive_is_none_and_what_is_there_is_there() -> None:
    calendar = small(network(("a", "b", 1_000, 1), ("c", "d", MBIT, 1)))
    assert arrival(calendar, "a", "nowhere", 1, now_ms=0) is None
    assert arrival(calendar, "a", "c", 1, now_ms=0) is None
    assert arrival(calendar, "a", "b", 10**12, now_ms=0) is None
    assert arrival(calendar, "a", "b", 1, now_ms=SLOTS * SLOT_MS) is None
    here = arrival(calendar, "a", "a", 10**12, now_ms=7)
    assert here is not None
    assert (here.segments, here.arrives_ms) == ((), 7)


@given(
    topology=topologies(),
    ends=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    size_bytes=st.integers(1, 10**9),
    now_ms=st.integers(0, 3 * SLOT_MS),
    others=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 10**8)), max_size=3),
)
def test_an_arrival_can_be_booked_is_no_later_than_admission_and_no_sooner_than_the_ends_allow(
    topology, ends, size_bytes, now_ms, others
) -> None:
    calendar = small(topology)
    for at, (a, b, size) in enumerate(others):
        found = arrival(calendar, f"n{a}", f"n{b}", size, now_ms=0)
        if found is not None and found.segments:
            calendar.put_transfer(booked(f"t{at}", found, f"n{a}", f"n{b}", size))
    source, target = (f"n{each}" for each in ends)
    before = calendar.free.copy()
    found = arrival(calendar, source, target, size_bytes, now_ms=now_ms)
    assert np.array_equal(calendar.free, before)
    order = TransferOrder(source=source, target=target, size_bytes=size_bytes, deadline_ms=SLOTS * SLOT_MS)
    if found is None:
        plain = admitted(calendar, order, name="x", user="u", now_ms=now_ms, price_of=lambda _o, _s: 0)
        assert not isinstance(plain, Admitted) or plain.moved  # only by moving others
        return
    if not found.segments:
        assert source == target
        return
    assert sum(segment.size_bytes for segment in found.segments) >= size_bytes
    assert all(segment.from_ms >= now_ms for segment in found.segments)
    assert max(segment.until_ms for segment in found.segments) == found.arrives_ms
    most_bps = ends_of(calendar.wires).most_bps(source, target)
    assert most_bps is not None
    assert (found.arrives_ms - now_ms) * most_bps >= size_bytes * 8_000
    plain = admitted(calendar, order, name="x", user="u", now_ms=now_ms, price_of=lambda _o, _s: 0)
    if isinstance(plain, Admitted) and not plain.moved:
        assert found.arrives_ms <= plain.transfer.arrives_ms
    calendar.put_transfer(booked("x", found, source, target, size_bytes))
    assert calendar.is_kept()
