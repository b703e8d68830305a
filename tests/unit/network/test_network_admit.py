"""The calendar: nothing is sold twice, no promise is broken for a newcomer, every refusal has its numbers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_worlds import (
    MBIT,
    SLOT_MS,
    SLOTS,
    booked,
    line,
    network,
    nothing_is_sold_twice,
    promises_hold,
    recurrences,
    topologies,
    without,
)

from tieline.model.circuit import CircuitOrder, CircuitState, Diversity
from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import TransferOrder, TransferState
from tieline.network.admit import Admitted, Refused, admitted
from tieline.network.calendar import Calendar
from tieline.network.heal import healed, topped
from tieline.network.lease import Leased, leased, resized

MINUTE_BYTES = MBIT * 60 // 8  # of 1 Mbit/s


def free(*_: object) -> int:
    return 0


def ask(calendar: Calendar, name: str, order: TransferOrder, now_ms: int = 0) -> Admitted | Refused:
    answer = admitted(calendar, order, name=name, user="u", now_ms=now_ms, price_of=free)
    if isinstance(answer, Admitted):
        booked(calendar, (answer.transfer, *answer.moved))
    return answer


def order(size_bytes: int, deadline_slot: int = 0, earliest_slot: int = 0, **more: object) -> TransferOrder:
    made = TransferOrder(
        source="n0",
        target="n1",
        size_bytes=size_bytes,
        deadline_ms=deadline_slot * SLOT_MS,
        earliest_ms=earliest_slot * SLOT_MS,
    )
    return msgspec.structs.replace(made, **more)


def small(topology: object = None) -> Calendar:
    return Calendar(topology or line(MBIT), 0, slot_ms=SLOT_MS, count=SLOTS)  # type: ignore[arg-type]


def test_who_can_wait_is_laid_elsewhere_for_who_cannot() -> None:
    calendar = small()
    first = ask(calendar, "patient", order(2 * MINUTE_BYTES, deadline_slot=6))
    assert isinstance(first, Admitted)
    assert first.transfer.arrives_ms == 2 * SLOT_MS
    second = ask(calendar, "urgent", order(2 * MINUTE_BYTES, deadline_slot=2))
    assert isinstance(second, Admitted)
    assert [each.id for each in second.moved] == ["patient"]
    assert calendar.transfers["patient"].transfer.arrives_ms == 4 * SLOT_MS
    nothing_is_sold_twice(calendar)
    third = ask(calendar, "third", order(1, deadline_slot=2))
    assert isinstance(third, Refused)
    assert third.reasons[0].code == "transfer_no_room"
    assert third.reasons[0].values == {"room_bytes": 0, "asked_bytes": 1}


def test_what_has_begun_is_not_moved() -> None:
    calendar = small()
    ask(calendar, "patient", order(2 * MINUTE_BYTES, deadline_slot=6))
    assert isinstance(ask(calendar, "urgent", order(MINUTE_BYTES, deadline_slot=1), now_ms=1), Refused)
    late = ask(calendar, "later", order(MINUTE_BYTES, deadline_slot=2), now_ms=1)
    assert isinstance(late, Admitted)
    segments = calendar.transfers["patient"].transfer.segments
    assert [(each.from_ms, each.until_ms) for each in segments] == [(0, SLOT_MS), (2 * SLOT_MS, 3 * SLOT_MS)]


def test_best_effort_gives_way_and_is_topped_up_again() -> None:
    calendar = small()
    ask(calendar, "rest", order(20 * MINUTE_BYTES))
    assert calendar.transfers["rest"].transfer.arrives_ms == 0
    assert isinstance(ask(calendar, "promised", order(3 * MINUTE_BYTES, deadline_slot=3)), Admitted)
    assert sum(each.size_bytes for each in calendar.transfers["rest"].transfer.segments) == 9 * MINUTE_BYTES
    calendar.roll(12 * SLOT_MS)
    again = topped(calendar, 12 * SLOT_MS)
    assert [each.id for each in again] == ["rest"]
    booked(calendar, again)
    assert calendar.transfers["rest"].transfer.arrives_ms == 23 * SLOT_MS
    nothing_is_sold_twice(calendar)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (order(2 * MINUTE_BYTES + 1, deadline_slot=2), "transfer_physical"),
        (order(1, deadline_slot=1, target="nowhere"), "network_unknown_end"),
        (order(1, deadline_slot=1, target="n0"), "network_same_end"),
        (order(1, deadline_slot=1, target="n9"), "network_no_path"),
        (order(1, deadline_slot=99, earliest_slot=50), "calendar_too_far"),
        (order(1, deadline_slot=2, earliest_slot=3), "transfer_physical"),
        (order(2**53 - 1, deadline_slot=99), "transfer_physical"),
    ],
)
def test_the_impossible_is_refused_with_its_bound(asked: TransferOrder, code: str) -> None:
    calendar = small(network(("n0", "n1", MBIT, 0), ("n8", "n9", MBIT, 0)))
    answer = ask(calendar, "t", asked)
    assert isinstance(answer, Refused)
    assert [reason.code for reason in answer.reasons] == [code]
    assert answer.reasons[0].values
    assert not calendar.transfers
    assert np.array_equal(calendar.free, calendar.capacity)


def test_a_price_over_the_limit_is_refused_and_nothing_changes() -> None:
    calendar = small()
    asked = order(MINUTE_BYTES, deadline_slot=3, limit_micro_cny=9)
    answer = admitted(calendar, asked, name="t", user="u", now_ms=0, price_of=lambda *_: 10)
    assert isinstance(answer, Refused)
    assert answer.reasons[0].values == {"limit_micro_cny": 9, "price_micro_cny": 10}
    assert np.array_equal(calendar.free, calendar.capacity)


def test_a_part_is_booked_where_a_part_is_of_use() -> None:
    calendar = small()
    ask(calendar, "a", order(2 * MINUTE_BYTES, deadline_slot=3))
    answer = ask(calendar, "b", order(2 * MINUTE_BYTES, deadline_slot=3, is_partial_useful=True))
    assert isinstance(answer, Admitted)
    assert answer.transfer.short_bytes == MINUTE_BYTES
    assert answer.transfer.reasons[0].code == "transfer_partial"
    promises_hold(calendar)


def test_not_splittable_goes_over_one_path() -> None:
    two = network(("n0", "n1", MBIT, 0), ("n0", "n1", MBIT, 9), ("n0", "n2", MBIT, 0), ("n2", "n1", MBIT, 0))
    whole = ask(small(two), "t", order(4 * MINUTE_BYTES, deadline_slot=2))
    assert isinstance(whole, Admitted)
    assert len({each.path for each in whole.transfer.segments}) == 3
    assert isinstance(ask(small(two), "t", order(4 * MINUTE_BYTES, deadline_slot=2, is_splittable=False)), Refused)
    one = ask(small(two), "t", order(2 * MINUTE_BYTES, deadline_slot=2, is_splittable=False))
    assert isinstance(one, Admitted)
    assert len({each.path for each in one.transfer.segments}) == 1


def test_a_clock_that_jumps_changes_no_booking() -> None:
    calendar = small()
    ask(calendar, "t", order(2 * MINUTE_BYTES, deadline_slot=6), now_ms=3 * SLOT_MS)
    before = calendar.free.copy()
    calendar.roll(0)
    calendar.roll(-5)
    assert np.array_equal(calendar.free, before)
    calendar.roll(10**12)
    assert np.array_equal(calendar.free, calendar.capacity)
    assert calendar.transfers["t"].transfer.segments


def test_the_same_booking_twice_is_one() -> None:
    calendar = small()
    answer = ask(calendar, "t", order(MINUTE_BYTES, deadline_slot=6))
    assert isinstance(answer, Admitted)
    before = calendar.free.copy()
    calendar.put_transfer(answer.transfer)
    assert np.array_equal(calendar.free, before)
    calendar.put_transfer(msgspec.structs.replace(answer.transfer, state=TransferState.CANCELLED))
    assert np.array_equal(calendar.free, calendar.capacity)


TIMES = st.integers(0, SLOTS * SLOT_MS)
TRANSFERS = st.tuples(
    st.integers(0, 5),
    st.integers(0, 5),
    st.one_of(st.integers(1, 8 * MINUTE_BYTES), st.just(2**53 - 1)),
    TIMES,
    st.one_of(st.just(0), TIMES),
    st.booleans(),
    st.booleans(),
)
CIRCUITS = st.tuples(
    st.integers(0, 5),
    st.integers(0, 5),
    st.sampled_from((0, 1_000, MBIT // 3, MBIT, 5 * MBIT)),
    st.sampled_from((0, 2 * MBIT)),
    st.sampled_from((0, 3_000)),
    st.sampled_from(list(Diversity)),
    TIMES,
    st.one_of(st.just(0), TIMES),
    recurrences(),
)
STEPS = st.one_of(
    st.tuples(st.just("transfer"), TRANSFERS),
    st.tuples(st.just("circuit"), CIRCUITS),
    st.tuples(st.just("cut"), st.integers(0, 8)),
    st.tuples(st.just("time"), st.integers(-SLOT_MS, 4 * SLOT_MS)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("resize"), st.sampled_from((0, 10, MBIT, 2 * MBIT))),
)


@given(topologies(), st.lists(STEPS, max_size=14))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_nothing_is_sold_twice_and_promises_hold(topology, steps) -> None:  # noqa: C901
    calendar = small(topology)
    now_ms, cut = 0, set()
    for number, (kind, what) in enumerate(steps):
        before = {name: laid.transfer for name, laid in calendar.transfers.items()}
        free_before = calendar.free.copy()
        if kind == "transfer":
            a, b, size, earliest, deadline, split, partial = what
            asked = TransferOrder(
                source=f"n{a}",
                target=f"n{b}",
                size_bytes=size,
                earliest_ms=earliest,
                deadline_ms=deadline,
                is_splittable=split,
                is_partial_useful=partial,
            )
            answer = admitted(calendar, asked, name=f"t{number}", user="u", now_ms=now_ms, price_of=free)
            assert np.array_equal(calendar.free, free_before), "deciding changes nothing"
            if isinstance(answer, Refused):
                assert answer.reasons
                continue
            booked(calendar, (answer.transfer, *answer.moved))
        elif kind == "circuit":
            a, b, rate, most, latency, diversity, begin, end, again = what
            wanted = CircuitOrder(
                a=f"n{a}",
                b=f"n{b}",
                rate_bps=rate,
                most_bps=most,
                latency_us=latency,
                diversity=diversity,
                from_ms=begin,
                until_ms=end,
                recurrence=again,
            )
            held = leased(calendar, wanted, name=f"c{number}", user="u", now_ms=now_ms, price_of=free)
            assert np.array_equal(calendar.free, free_before), "deciding changes nothing"
            if isinstance(held, Refused):
                assert held.reasons
                continue
            booked(calendar, held.moved, (*held.shrunk, held.circuit))
        elif kind == "resize" and calendar.circuits:
            circuit = next(iter(calendar.circuits.values()))
            again = resized(calendar, circuit, what, now_ms=now_ms)
            assert np.array_equal(calendar.free, free_before), "deciding changes nothing"
            if isinstance(again, Leased):
                booked(calendar, again.moved, (again.circuit,))
        elif kind == "cancel" and calendar.transfers:
            name = sorted(calendar.transfers)[what % len(calendar.transfers)]
            ended = msgspec.structs.replace(before.pop(name), state=TransferState.CANCELLED)
            calendar.put_transfer(ended)
        elif kind == "time":
            now_ms = max(0, now_ms + what)
            calendar.roll(now_ms)
        elif kind == "cut" and topology.links:
            cut ^= {what % len(topology.links)}
            calendar.rewire(without(topology, *cut))
        changed = healed(calendar, now_ms) if kind in ("cut", "time") else None
        if changed:
            booked(calendar, changed.transfers, changed.circuits)
        nothing_is_sold_twice(calendar)
        if kind != "cut":
            promises_hold(calendar)
        for name, transfer in before.items():
            after = calendar.transfers[name].transfer
            assert after.price_micro_cny == transfer.price_micro_cny
            if kind not in ("cut", "time"):
                assert after.short_bytes <= transfer.short_bytes, "a newcomer takes nothing that was promised"
        for circuit in calendar.circuits.values():
            assert circuit.state is CircuitState.DOWN or circuit.held_bps >= circuit.order.rate_bps


def test_who_makes_way_for_a_circuit_begins_no_earlier_than_was_asked() -> None:
    topology = Topology(
        name="two",
        nodes=(Node(name="n0"), Node(name="n1")),
        links=(Link(name="l0", a="n0", b="n1", capacity_bps=7_777),),
    )
    calendar = small(topology)
    order = TransferOrder(source="n0", target="n1", size_bytes=2**53 - 1, earliest_ms=1)
    answer = admitted(calendar, order, name="t", user="u", now_ms=0, price_of=free)
    assert not isinstance(answer, Refused)
    booked(calendar, (answer.transfer,))
    held = leased(calendar, CircuitOrder(a="n0", b="n1", rate_bps=1_000), name="c", user="u", now_ms=0, price_of=free)
    assert isinstance(held, Leased)
    booked(calendar, held.moved, (*held.shrunk, held.circuit))
    assert held.moved
    promises_hold(calendar)
