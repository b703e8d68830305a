"""Doors as ends of a move: chunks under their hash, by passes that are asked for again before they end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import pytest
from moody_server import bytes_of, run

from tieline.drivers.mover import Lane, Schedule, Terms, move
from tieline.drivers.mover.doors import DoorSource, DoorTarget
from tieline.drivers.mover.files import FileSource, FileTarget
from tieline.model.error import TielineError
from tieline.model.passing import PassView

sys.path.insert(0, str(Path(__file__).parents[1] / "doors"))
from door_world import CLOCK, DOOR_SITE, SITE, a_pass, open_door

BYTES = bytes_of(6, 1_300_000)
DIGEST = hashlib.sha256(BYTES).hexdigest()


class Exchange:
    """Gives passes through one door; ``life_ms`` is how long they hold."""

    def __init__(self, door, life_ms: int = 120_000) -> None:
        self.url, self.life_ms = door.url, life_ms
        self.asked: list[tuple[str, ...]] = []

    async def __call__(self, site, body) -> PassView:
        assert site == DOOR_SITE
        self.asked.append(tuple(right.value for right in body.rights))
        until_ms = CLOCK.now_ms() + self.life_ms
        text = a_pass(
            public=body.public, rights=body.rights, chunks=body.chunks, most_bytes=body.most_bytes, until_ms=until_ms
        )
        return PassView(door_pass=text, site=site, url=self.url, public=SITE.public, until_ms=until_ms)


def test_a_chunk_goes_in_at_a_door_and_comes_out_again_in_parts(place, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)

    async def work():
        async with open_door(tmp_path / "site") as door:
            ask = Exchange(door)
            target = DoorTarget(DOOR_SITE, ask, CLOCK)
            up = await move(FileSource(str(tmp_path / "from")), target, Terms())
            assert (up.target, up.sha256) == (f"door:{DOOR_SITE}#{DIGEST}", DIGEST)
            assert (tmp_path / "site" / "chunks" / DIGEST).read_bytes() == BYTES
            down = await move(
                DoorSource(DOOR_SITE, DIGEST, ask, CLOCK),
                FileTarget(str(place / "it")),
                Terms(chunk_bytes=100_000),
                [Lane(schedule=Schedule.always(100_000_000))],
            )
            assert (place / "it").read_bytes() == BYTES
            assert down.sha256 == DIGEST
            assert ask.asked == [("write",), ("read",)]

    run(work())


def test_a_pass_that_is_about_to_end_is_asked_for_again(place, tmp_path):
    async def work():
        async with open_door(tmp_path / "site") as door:
            (tmp_path / "site" / "chunks").mkdir(exist_ok=True)
            (tmp_path / "site" / "chunks" / DIGEST).write_bytes(BYTES)
            ask = Exchange(door, life_ms=30_000)  # less than what is spared
            await move(DoorSource(DOOR_SITE, DIGEST, ask, CLOCK), FileTarget(str(place / "it")), Terms())
            assert (place / "it").read_bytes() == BYTES
            assert len(ask.asked) > 3

    run(work())


def test_what_a_door_gives_is_believed_for_its_hash_alone(place, tmp_path):
    async def work():
        async with open_door(tmp_path / "site") as door:
            (tmp_path / "site" / "chunks").mkdir(exist_ok=True)
            (tmp_path / "site" / "chunks" / DIGEST).write_bytes(BYTES[::-1])
            await move(DoorSource(DOOR_SITE, DIGEST, Exchange(door), CLOCK), FileTarget(str(place / "it")), Terms())

    with pytest.raises(TielineError, match="other bytes") as caught:
        run(work())
    assert caught.value.code == "check_failed"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("what", ["not there", "no pass", "too large", "closed"])
def test_a_door_that_refuses_is_told_and_leaves_nothing(place, tmp_path, what):
    async def work():
        async with open_door(tmp_path / "site") as door:
            ask = Exchange(door, life_ms=-1_000 if what == "no pass" else 120_000)
            if what == "closed":
                await door.close()
            if what == "too large":
                (tmp_path / "large").touch()
                os.truncate(tmp_path / "large", 64 * 2**20 + 1)
                await move(FileSource(str(tmp_path / "large")), DoorTarget(DOOR_SITE, ask, CLOCK), Terms())
            else:
                source = DoorSource(DOOR_SITE, DIGEST, ask, CLOCK)
                await move(source, FileTarget(str(place / "it")), Terms(tries=2, stall_s=5))

    with pytest.raises(TielineError) as caught:
        run(asyncio.wait_for(work(), 60))
    expected = {"not there": "not_found", "too large": "too_large", "closed": "exchange_unreachable"}
    assert caught.value.code == expected.get(what, caught.value.code)
    assert caught.value.code in ("not_found", "too_large", "exchange_unreachable", "forbidden", "invalid_request")
    assert list(place.iterdir()) == []
