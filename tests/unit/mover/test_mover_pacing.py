"""Pacing: a schedule is kept to the byte, whoever asks; gaps pause, ends end."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.drivers.mover.pacing import (
    BURST_S,
    CREDIT_S,
    LATE_S,
    PEAK,
    Lane,
    LaneOverError,
    LanePausedError,
    Schedule,
    Span,
    lanes_of,
    relaid,
)
from tieline.model.error import TielineError
from tieline.model.transfer import Segment


def segment(path: str, from_s: int, until_s: int, rate_bps: int) -> Segment:
    return Segment(path=(path,), is_forward=(True,), from_ms=from_s * 1000, until_ms=until_s * 1000, rate_bps=rate_bps)


def test_a_booking_becomes_spans_and_what_overlaps_adds_up():
    made = Schedule.booked([segment("a", 10, 20, 800), segment("a", 15, 30, 200), segment("a", 100, 110, 80)])
    assert made.spans == (
        Span(10, 15, 800),
        Span(15, 20, 1000),
        Span(20, 30, 200),
        Span(100, 110 + LATE_S, 80),
    )
    assert made.most_bps == 1000
    assert made.opens_s(0) == 10
    assert made.opens_s(12) == 12
    assert made.opens_s(50) == 100
    assert made.opens_s(113) is None


def test_bytes_are_through_when_the_rates_have_carried_them():
    made = Schedule((Span(10, 20, 800), Span(30, 40, 80)))
    assert made.done_s(0, 100) == 11  # 800 bits at 800 bit/s from 10 s on
    assert made.done_s(0, 1_000) == 20
    assert made.done_s(0, 1_050) == 35  # the gap carries nothing
    assert made.done_s(15, 501) == pytest.approx(30.1)
    assert made.done_s(0, 1_101) is None
    assert Schedule(()).done_s(0, 1) is None
    assert Schedule.always().done_s(7, 10**12) == 7


@given(
    pieces=st.lists(st.integers(1, 10_000), min_size=1, max_size=30),
    rates=st.lists(st.integers(8, 10**6), min_size=1, max_size=5),
)
def test_however_bytes_are_cut_they_are_through_at_the_same_time(pieces: list[int], rates: list[int]):
    spans = tuple(Span(at * 10.0, at * 10.0 + 5, float(rate)) for at, rate in enumerate(rates))
    made = Schedule((*spans, Span(1_000, 10**9, 800.0)))
    at = 0.0
    for piece in pieces:
        at = made.done_s(at, piece)
    assert at == pytest.approx(made.done_s(0.0, sum(pieces)), rel=1e-9)


class Hand:
    """A clock that a test moves; sleeping moves it too."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0

        async def sleep(seconds: float) -> None:
            self.now += seconds

        monkeypatch.setattr("tieline.drivers.mover.pacing.asyncio.sleep", sleep)

    def __call__(self) -> float:
        return self.now


def test_a_lane_carries_its_rate_and_makes_up_for_little(monkeypatch):
    clock = Hand(monkeypatch)
    lane = Lane(schedule=Schedule.always(8_000_000), now_s=clock)

    async def much() -> None:
        for _ in range(100):
            await lane.pay(65_536)

    asyncio.run(much())
    exact_s = 100 * 65_536 * 8 / 8_000_000
    assert exact_s - 1e-6 <= clock.now <= exact_s + 1e-6
    clock.now += 100  # little of what could not be moved is made up for, and not at once
    began = clock.now
    asyncio.run(much())
    assert clock.now - began >= exact_s / PEAK - BURST_S - 1e-6
    asyncio.run(much())
    assert 2 * exact_s - CREDIT_S - 1e-6 <= clock.now - began <= 2 * exact_s + 1e-6
    assert lane.moved_bytes == 300 * 65_536


def test_two_who_share_a_lane_share_its_rate(monkeypatch):
    clock = Hand(monkeypatch)
    lane = Lane(schedule=Schedule.always(8_000), now_s=clock)

    async def both() -> None:
        await asyncio.gather(*(lane.pay(1_000) for _ in range(10)))

    asyncio.run(both())
    assert clock.now >= 10 - BURST_S


def test_a_lane_waits_for_its_first_segment_pauses_in_gaps_and_ends(monkeypatch):
    clock = Hand(monkeypatch)
    (lane,) = lanes_of([segment("a", 10, 20, 8_000), segment("a", 1_000, 1_001, 8_000)])
    lane.now_s = clock

    asyncio.run(lane.until_open())
    assert clock.now == 10
    asyncio.run(lane.pay(9_000))
    clock.now = 25
    with pytest.raises(LanePausedError):
        asyncio.run(lane.pay(500))
    asyncio.run(lane.until_open())
    assert clock.now >= 1_000
    clock.now = 1_001 + LATE_S + 1
    with pytest.raises(LaneOverError):
        asyncio.run(lane.pay(1))
    with pytest.raises(LaneOverError):
        asyncio.run(lane.until_open())


def test_a_booking_that_is_laid_anew_is_gone_by_at_once():
    lanes = lanes_of([segment("a", 0, 10, 800), segment("b", 0, 10, 800)], addresses=["127.0.0.2", "127.0.0.3"])
    assert relaid(lanes, [segment("a", 0, 20, 80), segment("c", 0, 10, 8)]) == 0
    assert [(lane.path, lane.is_bound) for lane in lanes] == [(("a",), True), (("c",), False)]
    assert lanes[0].schedule.spans == (Span(0, 20 + LATE_S, 80),)
    assert relaid(lanes, [segment(name, 0, 10, 8) for name in "xyz"]) == 1
    assert relaid(lanes, []) == 0
    assert all(not lane.schedule.spans for lane in lanes)


def test_who_waits_at_the_old_rate_goes_on_at_the_new_one(monkeypatch):
    monkeypatch.setattr("tieline.drivers.mover.pacing.LOOK_S", 0.01)
    lane = Lane(schedule=Schedule.always(8))

    async def work() -> None:
        paying = asyncio.create_task(lane.pay(10_000))  # hours
        await asyncio.sleep(0.02)
        assert not paying.done()
        lane.lay(Schedule.always())
        await asyncio.wait_for(paying, 30)
        await asyncio.wait_for(lane.pay(10**9), 30)

    asyncio.run(work())


def test_every_path_of_a_booking_has_a_lane_and_is_bound_only_where_it_is_led_there():
    booked = [segment("b", 5, 6, 8), segment("a", 1, 2, 8), segment("b", 0, 1, 8)]
    lanes = lanes_of(booked, addresses=["127.0.0.2"])
    assert [(lane.path, lane.source_address, lane.is_bound) for lane in lanes] == [
        (("b",), "127.0.0.2", True),
        (("a",), "", False),
    ]
    with pytest.raises(TielineError, match="more are to be bound"):
        lanes_of(booked, addresses=["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    with pytest.raises(TielineError, match="nothing is booked"):
        lanes_of([])
