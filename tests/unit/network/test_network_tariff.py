"""Prices and charges: by the hour and class, never above what was booked, whole however the receipts are cut."""

from __future__ import annotations

import functools
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_worlds import line

from tieline.model.circuit import Circuit, CircuitOrder, Diversity, Receipt
from tieline.model.tariff import Hours, Tariff
from tieline.model.topology import Window
from tieline.model.transfer import Segment, TrafficClass, Transfer, TransferOrder
from tieline.network.slots import wires_of
from tieline.network.tariff import circuit_price, metered_circuit, metered_transfer, transfer_price

GB = 10**9
HOUR_MS = 3_600_000
NIGHT = Hours(begin_s=22 * 3_600, end_s=6 * 3_600, permille=400)
SHARED = Hours(begin_s=12 * 3_600, end_s=14 * 3_600, permille=100, classes=(TrafficClass.BEST_EFFORT,))
TARIFF = Tariff(
    deadline_micro_cny_per_gb=1_000,
    best_effort_micro_cny_per_gb=500,
    circuit_micro_cny_per_gbps_hour=8_000_000,
    hours=(NIGHT, SHARED),
    utc_offset_s=0,
)
WIRES = wires_of(line(10**10))


def price(from_h: int, hours: int, deadline_ms: int = 10**12) -> int:
    """Of 1 Gbit/s for so long: 450 GB an hour."""
    segment = Segment(
        path=("l0",), is_forward=(True,), from_ms=from_h * HOUR_MS, until_ms=(from_h + hours) * HOUR_MS, rate_bps=10**9
    )
    order = TransferOrder(source="n0", target="n1", size_bytes=segment.size_bytes, deadline_ms=deadline_ms)
    return transfer_price(TARIFF, WIRES, order, (segment,))


def test_a_price_goes_by_class_and_hour() -> None:
    assert price(8, 1) == 450_000
    assert price(8, 1, deadline_ms=0) == 225_000
    assert price(23, 2) == 900_000 * 4 // 10, "over midnight"
    assert price(5, 2) == 450_000 * 14 // 10
    assert price(12, 2) == 900_000
    assert price(12, 2, deadline_ms=0) == 45_000, "the shared window is for best effort alone"
    local = msgspec.structs.replace(TARIFF, utc_offset_s=8 * 3_600)
    segment = Segment(path=("l0",), is_forward=(True,), from_ms=14 * HOUR_MS, until_ms=15 * HOUR_MS, rate_bps=10**9)
    order = TransferOrder(source="n0", target="n1", size_bytes=segment.size_bytes, deadline_ms=10**12)
    assert transfer_price(local, WIRES, order, (segment,)) == 180_000, "22 o'clock there"


def test_a_link_adds_its_own_price_and_best_effort_without_room_costs_the_plain_price() -> None:
    dear = line(10**10)
    link = msgspec.structs.replace(dear.links[0], price_micro_cny_per_gb=50)
    wires = wires_of(msgspec.structs.replace(dear, links=(link,)))
    segment = Segment(path=("l0",), is_forward=(True,), from_ms=8 * HOUR_MS, until_ms=9 * HOUR_MS, rate_bps=10**9)
    order = TransferOrder(source="n0", target="n1", size_bytes=450 * GB, deadline_ms=10**12)
    assert transfer_price(TARIFF, wires, order, (segment,)) == 450 * 1_050
    waits = TransferOrder(source="n0", target="n1", size_bytes=450 * GB)
    assert transfer_price(TARIFF, wires, waits, ()) == 225_000


def test_a_circuit_costs_its_rate_and_its_spare_route() -> None:
    order = CircuitOrder(a="n0", b="n1", rate_bps=10**9)
    assert circuit_price(TARIFF, order) == 8_000_000
    assert circuit_price(TARIFF, msgspec.structs.replace(order, diversity=Diversity.LINK)) == 12_000_000


def receipt(seq: int, moved: int, ended_ms: int = 1) -> Receipt:
    return Receipt(subject="t", seq=seq, begun_ms=0, ended_ms=ended_ms, moved_bytes=moved)


def transfer(size: int, cost: int, deadline_ms: int = 100) -> Transfer:
    order = TransferOrder(source="n0", target="n1", size_bytes=size, deadline_ms=deadline_ms)
    return Transfer(id="t", order=order, user="u", price_micro_cny=cost)


def charges(asked: Transfer, receipts: list[Receipt]) -> list[int]:
    totals = [0]
    for each in receipts:
        asked = metered_transfer(asked, each)
        totals.append(asked.charged_micro_cny)
    return totals


@given(
    st.integers(1, 2**53 - 1),
    st.integers(0, 10**12),
    st.lists(st.tuples(st.integers(0, 2**53 - 1), st.integers(1, 200)), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_a_charge_never_passes_the_price_and_never_shrinks(size: int, cost: int, parts: list[tuple[int, int]]) -> None:
    receipts = [receipt(seq, moved, ended) for seq, (moved, ended) in enumerate(parts, 1)]
    totals = charges(transfer(size, cost), receipts)
    assert totals == sorted(totals)
    assert totals[-1] <= cost
    if sum(moved for moved, _ in parts) >= size and all(ended <= 100 for _, ended in parts):
        assert totals[-1] == cost


def test_late_bytes_cost_less_and_what_is_too_much_nothing() -> None:
    asked = transfer(100, 1_000)
    assert charges(asked, [receipt(1, 60), receipt(2, 40, ended_ms=101)])[-1] == 800
    assert charges(asked, [receipt(1, 500)])[-1] == 1_000


@given(st.integers(1, 100), st.integers(0, 10**9), st.lists(st.integers(0, 100), max_size=6))
def test_a_total_is_the_same_however_the_receipts_are_cut(size: int, cost: int, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    parts = [receipt(seq, high - low) for seq, (low, high) in enumerate(itertools.pairwise(edges), 1)]
    assert charges(transfer(size, cost), parts)[-1] == cost
    hour = Window(from_ms=0, until_ms=24 * HOUR_MS)
    circuit = Circuit(
        id="c",
        order=CircuitOrder(a="n0", b="n1", rate_bps=1),
        user="u",
        windows=(hour,),
        price_micro_cny_per_hour=cost,
        hours=(NIGHT,),
    )
    ends = [edge * 700_001 for edge in edges]
    seen = [
        Receipt(subject="c", seq=seq, begun_ms=low, ended_ms=high, is_path_proven=True)
        for seq, (low, high) in enumerate(itertools.pairwise(ends), 1)
    ]
    whole = Receipt(subject="c", seq=1, begun_ms=0, ended_ms=ends[-1], is_path_proven=True)
    cut = functools.reduce(metered_circuit, seen, circuit)
    assert cut.charged_micro_cny == metered_circuit(circuit, whole).charged_micro_cny
    assert cut.charged_micro_cny <= cost * ends[-1] // HOUR_MS


def test_a_circuit_has_a_line_for_each_day_and_price() -> None:
    window = Window(from_ms=0, until_ms=100 * HOUR_MS)
    order = CircuitOrder(a="n0", b="n1", rate_bps=1)
    circuit = Circuit(id="c", order=order, user="u", windows=(window,), price_micro_cny_per_hour=100)
    lines = []
    for hour in (0, 1, 24, 25):
        if hour == 25:
            circuit = msgspec.structs.replace(circuit, price_micro_cny_per_hour=300)
        begun, ended = hour * HOUR_MS, (hour + 1) * HOUR_MS
        seen = Receipt(subject="c", seq=hour + 1, begun_ms=begun, ended_ms=ended, is_path_proven=True)
        circuit = metered_circuit(circuit, seen)
        lines.append((circuit.meter.line, circuit.meter.charged_micro_cny, circuit.charged_micro_cny))
    assert lines == [(1, 100, 100), (1, 200, 200), (2, 100, 300), (3, 300, 600)]


@pytest.mark.parametrize(
    ("changes", "charge"),
    [
        ({}, 8_000_000),
        ({"is_path_proven": False}, 0),
        ({"goodput_bps": 500}, 4_000_000),
        ({"goodput_bps": 980}, 8_000_000),
        ({"goodput_bps": 5_000}, 8_000_000),
        ({"ended_ms": 12 * HOUR_MS}, 16_000_000),
        ({"begun_ms": 11 * HOUR_MS, "ended_ms": 12 * HOUR_MS}, 0),
    ],
)
def test_a_circuit_is_charged_for_proven_time_in_its_windows(changes: dict[str, int], charge: int) -> None:
    window = Window(from_ms=8 * HOUR_MS, until_ms=10 * HOUR_MS)
    order = CircuitOrder(a="n0", b="n1", rate_bps=10**9)
    circuit = Circuit(id="c", order=order, user="u", windows=(window,), price_micro_cny_per_hour=8_000_000)
    plain = Receipt(
        subject="c",
        seq=1,
        begun_ms=8 * HOUR_MS,
        ended_ms=9 * HOUR_MS,
        is_path_proven=True,
        goodput_bps=1_000,
        computed_bps=1_000,
    )
    seen = msgspec.structs.replace(plain, **changes)
    once = metered_circuit(circuit, seen)
    assert once.charged_micro_cny == charge
    overlapping = msgspec.structs.replace(seen, seq=2)
    assert metered_circuit(once, overlapping).charged_micro_cny == charge, "no time is paid twice"
