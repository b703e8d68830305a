"""SIGKILL of the exchange and its sites at random points under load: nothing lost, nothing twice, nothing oversold.

Everything is a process of its own on loopback, as the command line starts it, and runs small processes. A planted
mistake is in a wrapper that is started instead; for the site's it is a plain site (`bench.plain_site`).
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from crash_world import CrashWorld

KILLS = 50
SEED = 20_261_121
FREEZES = 5
PLANTED_KILLS = 14
STORIES = 4  # until a planted mistake shows; where a kill falls is chance, and every further story has more of them


def played(folder: Path, kills: int, *, seed: int = SEED, freezes: int = 0, **story: Any) -> CrashWorld:
    """A world after its story and its books; ends every process that it started."""
    world = CrashWorld(folder, seed, **story)
    try:
        asyncio.run(world.play(kills, freezes))
        world.check()
    finally:
        world.world.close()
    return world


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_after_fifty_kills_under_load_the_books_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = played(tmp_path, KILLS, freezes=FREEZES)
    with capsys.disabled():
        print(f"\n{world.summary()}")
    assert sum(count for fault, count in world.faults.items() if "killed" in fault) == KILLS
    assert len(world.faults) == 4
    assert min(world.faults.values()) >= 5
    assert len(world.books.acknowledged) > KILLS
    assert world.ledger.checked["no pool is oversold"] > KILLS


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("mistake", "found_by", "story"),
    [
        ("answers-before-commit", "no acknowledged job is lost", {"exchange_share": 0.8}),
        (
            "fences-nothing",
            "nothing is billed before it has ended|every acknowledged job ends well",
            {"exchange_share": 0.1, "long_share": 0.7},
        ),
        ("starts-unconfirmed", "nothing starts before it is confirmed", {}),
    ],
)
def test_a_planted_mistake_is_found_by_the_same_books(
    tmp_path: Path, mistake: str, found_by: str, story: dict[str, float]
) -> None:
    command = ("tests.real.crash_planted", mistake)
    planted = {"site" if mistake == "starts-unconfirmed" else "exchange": command}
    said = []
    for turn in range(1, STORIES + 1):
        try:
            played(tmp_path / str(turn), turn * PLANTED_KILLS, seed=SEED + turn, **planted, **story)
            said.append("the books are right")
        except AssertionError as error:
            said.append(str(error))
            if re.search(found_by, said[-1]):
                return
    pytest.fail(f"{STORIES} stories did not show `{mistake}`: {'; '.join(said)}")
