"""Disasters from a seed: cuts, lies, deaths and other rates, again and again; what is seen at the end is right."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter

import pytest
from moody_server import bytes_of, moody, run

from tieline.drivers.mover import Lane, Schedule, Terms, address_of, move
from tieline.drivers.mover.files import FileSource, FileTarget
from tieline.drivers.mover.web import HttpSource
from tieline.model.error import TielineError

LEAST_SEEDS, MOST_SEEDS = 12, 300  # so many stories, and on until everything has happened
TRIES = 60
WANTED = {"cut", "lie", "death", "torn", "check_failed"}


async def story(place, seed: int, happened: Counter[str]) -> bool:
    """Try until it is there. Checks after every try that nothing half done is seen; whether the end was right."""
    pick = random.Random(seed)
    content = bytes_of(seed, pick.choice((1, 300_000, 900_001)))
    digest = hashlib.sha256(content).hexdigest()
    path = place / f"it-{seed}"
    terms = Terms(chunk_bytes=pick.choice((50_000, 2**18)), streams=pick.choice((1, 3)), tries=2, sha256=digest)

    def spoil(_start: int, part: bytes) -> bytes | None:
        chance = pick.random()
        if chance < 0.15:
            happened["cut"] += 1
            return part[: pick.randrange(len(part) + 1) - 1] if len(part) > 1 else None
        if chance < 0.2:
            happened["lie"] += 1
            return bytes(len(part))
        return part

    async with moody(content) as server:
        server.spoil = spoil
        for _ in range(TRIES):
            target = FileTarget(str(path))
            lane = Lane(schedule=Schedule.always(pick.choice((0, 200_000_000))))
            trying = asyncio.create_task(move(HttpSource(address_of(server.url)), target, terms, [lane]))
            if pick.random() < 0.3:
                happened["death"] += 1
                await asyncio.sleep(pick.random() * 0.02)
                trying.cancel()
                await asyncio.wait({trying})  # who is dead writes no more: no file is torn under a thread that finishes
                if pick.random() < 0.5:
                    tear(place, pick, happened)
            try:
                await trying
            except asyncio.CancelledError:
                pass
            except TielineError as error:
                happened[error.code] += 1
            else:
                happened["arrived"] += 1
                return path.read_bytes() == content
            if path.exists():  # it was cancelled when all was done
                return path.read_bytes() == content
    return False


def tear(place, pick: random.Random, happened: Counter[str]) -> None:
    """What a power cut does to files that were not synced: zeros where chunks were, half a line in the journal."""
    for part in place.glob(".*.part"):
        happened["torn"] += 1
        with open(part, "r+b") as file:
            file.seek(pick.randrange(max(1, part.stat().st_size)))
            file.write(bytes(min(1_000, part.stat().st_size)))
    for journal in place.glob(".*.moves"):
        content = journal.read_bytes()
        journal.write_bytes(content[: pick.randrange(len(content) + 1)])


def believing(target: FileTarget):
    """A planted mistake: chunks that the journal names are taken without a look."""
    real = target._open

    def open_it(job):
        real(job)
        return {index: entry.sha256 for index, entry in target._journal.entries.items()}

    return open_it


def test_whatever_happens_the_whole_is_right_or_nothing_is_seen(place):
    happened: Counter[str] = Counter()
    seeds = 0
    while seeds < LEAST_SEEDS or (not set(happened) >= WANTED and seeds < MOST_SEEDS):
        assert run(story(place, seeds, happened)), f"seed {seeds}"
        seeds += 1
    assert set(happened) >= WANTED, happened
    assert sorted(path.name for path in place.iterdir()) == sorted(f"it-{seed}" for seed in range(seeds))


def test_a_mover_that_believes_its_journal_never_gets_there_after_a_power_cut(place, tmp_path):
    """The whole is hashed all the same, so a torn chunk that is believed can never be shown."""
    content = bytes_of(1, 900_001)
    (tmp_path / "from").write_bytes(content)

    class Dying(FileTarget):
        async def put(self, index, chunk, sha256):
            if index == 10:
                raise TielineError("internal", "killed")
            await super().put(index, chunk, sha256)

    terms = Terms(chunk_bytes=50_000, streams=1, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(TielineError, match="killed"):
        run(move(FileSource(str(tmp_path / "from")), Dying(str(place / "it")), terms))
    (part,) = place.glob(".*.part")
    with open(part, "r+b") as file:
        file.write(bytes(100))
    target = FileTarget(str(place / "it"))
    target._open = believing(target)  # type: ignore[method-assign]
    with pytest.raises(TielineError, match="other bytes arrived"):
        run(move(FileSource(str(tmp_path / "from")), target, terms))
    assert not (place / "it").exists()
