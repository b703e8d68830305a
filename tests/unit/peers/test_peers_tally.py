"""What is counted of a peer is bounded, and counts nothing that is not its doing."""

import asyncio

from tieline.drivers.peers.tally import MOST_REASONS, NOT_ITS, OTHER, Tally
from tieline.model.reason import CATALOGUE


def test_reasons_are_counted_apart_up_to_a_number():
    tally = Tally()
    for number in range(MOST_REASONS + 5):
        tally.reject(f"reason_{number}")
        tally.reject("reason_0")
    assert len(tally.rejected) == MOST_REASONS + 1
    assert tally.rejected["reason_0"] == MOST_REASONS + 6
    assert tally.rejected[OTHER] == 5


def test_a_peer_that_cannot_be_reached_has_sent_nothing_that_was_refused():
    tally = Tally()
    for code in NOT_ITS:
        assert code in CATALOGUE
        tally.reject(code)
    assert tally.rejected == {}


def test_what_is_sent_is_counted_as_it_goes():
    tally = Tally()

    async def chunks():
        yield b"12345"
        assert tally.out_bytes == 8
        yield b"67"

    async def sent():
        return [chunk async for chunk in tally.counted(chunks())]

    assert tally.counted(b"abc") == b"abc"
    assert tally.counted(None) is None
    assert asyncio.run(sent()) == [b"12345", b"67"]
    tally.take(4)
    assert (tally.in_bytes, tally.out_bytes) == (4, 10)
