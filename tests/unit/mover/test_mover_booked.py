"""A move that obeys a booking: receipts on the way and at the end, and a booking that is laid anew meanwhile."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from moody_server import bytes_of, run

from tieline.drivers.mover import Terms
from tieline.drivers.mover.booked import Booking
from tieline.drivers.mover.files import FileSource, FileTarget
from tieline.model.error import TielineError
from tieline.model.transfer import Segment, Transfer, TransferOrder

BYTES = bytes_of(8, 600_000)


def booked(rate_bps: int, path: str = "a") -> Transfer:
    now_ms = int(time.time() * 1000)
    segment = Segment(
        path=(path,), is_forward=(True,), from_ms=now_ms - 1_000, until_ms=now_ms + 3_600_000, rate_bps=rate_bps
    )
    order = TransferOrder(source="x", target="y", size_bytes=len(BYTES))
    return Transfer(id="t-1", order=order, user="alice", segments=(segment,))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("tieline.drivers.mover.booked.REPORT_S", 0.05)
    monkeypatch.setattr("tieline.drivers.mover.moving.LOOK_S", 0.01)


def test_a_booking_that_gets_another_way_and_rate_is_followed(quick, place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    looks, receipts = [], []

    async def look():
        looks.append(1)
        return booked(8_000) if len(looks) < 3 else booked(80_000_000, "b")  # ten minutes, or an instant

    async def send(receipt):
        receipts.append(receipt)

    booking = Booking(look=look, send=send, is_whole=True)
    source, target = FileSource(str(tmp_path / "from")), FileTarget(str(place / "it"))
    moved = run(asyncio.wait_for(booking.carry(source, target, Terms(chunk_bytes=50_000)), 60))
    assert (place / "it").read_bytes() == BYTES
    assert moved.paths[0].path == ("b",)
    assert sum(each.moved_bytes for each in receipts) == len(BYTES)
    assert [each.seq for each in receipts] == list(range(1, len(receipts) + 1))
    assert [bool(each.sha256) for each in receipts] == [False] * (len(receipts) - 1) + [True]


def test_an_exchange_that_is_away_for_a_while_stops_no_move_but_the_last_receipt_is_sent_until_it_is_taken(
    quick, place, tmp_path, monkeypatch
):
    monkeypatch.setattr("tieline.drivers.mover.booked.RETRY_S", 0.01)
    (tmp_path / "from").write_bytes(BYTES)
    looks, receipts = [], []

    async def look():
        looks.append(1)
        if len(looks) > 1:
            raise TielineError("exchange_unreachable", "away")
        return booked(8 * 2_000_000)

    async def send(receipt):
        receipts.append(receipt)
        if len(receipts) < 4:
            raise TielineError("exchange_unreachable", "away")

    booking = Booking(look=look, send=send)
    source, target = FileSource(str(tmp_path / "from")), FileTarget(str(place / "it"))
    run(asyncio.wait_for(booking.carry(source, target, Terms(chunk_bytes=50_000)), 60))
    assert (place / "it").read_bytes() == BYTES
    assert receipts[-1].sha256
    assert len(receipts) >= 4
    taken = {each.seq: each for each in receipts}  # what is sent again is the same, whether its answer was lost or not
    assert all(taken[each.seq] == each for each in receipts)
    assert sum(each.moved_bytes for each in taken.values()) == len(BYTES)


def test_what_was_wrong_as_a_whole_is_claimed_by_no_last_receipt(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    receipts = []

    async def look():
        return msgspec.structs.replace(booked(10**9), seq=7)

    async def send(receipt):
        receipts.append(receipt)

    booking = Booking(look=look, send=send, is_whole=True)
    source, target = FileSource(str(tmp_path / "from")), FileTarget(str(place / "it"))
    with pytest.raises(TielineError, match="nothing is kept"):
        run(booking.carry(source, target, Terms(sha256="0" * 64)))
    assert receipts == []


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_is_late_goes_on_at_the_last_rate_where_that_was_said(quick, place, tmp_path, goes_on):
    (tmp_path / "from").write_bytes(BYTES)
    over = booked(40_000_000)
    now_ms = int(time.time() * 1000)
    ended = msgspec.structs.replace(over.segments[0], from_ms=now_ms - 101_000, until_ms=now_ms - 100_000)
    over = msgspec.structs.replace(over, segments=(ended,))
    receipts = []

    async def look():
        return over

    async def send(receipt):
        receipts.append(receipt)

    booking = Booking(look=look, send=send, is_whole=True, goes_on=goes_on)
    source, target = FileSource(str(tmp_path / "from")), FileTarget(str(place / "it"))
    work = booking.carry(source, target, Terms(chunk_bytes=50_000))
    if not goes_on:
        with pytest.raises(TielineError, match="the booked time is over"):
            run(asyncio.wait_for(work, 60))
        return
    moved = run(asyncio.wait_for(work, 60))
    assert (place / "it").read_bytes() == BYTES
    assert moved.goodput_bps < 60_000_000, "600,000 bytes at 40 Mbit/s, a quarter more at the peak"
    assert sum(each.moved_bytes for each in receipts) == len(BYTES)
