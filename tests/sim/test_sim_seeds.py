"""A dozen stories of disasters: nothing that must hold breaks, and every kind of disaster was there."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from tieline.sim.play import play
from tieline.sim.search import Found, search
from tieline.sim.story import FAULTS, HAPPENINGS, Size, story_of, tell

SEEDS = range(1, 13)
SIZE = Size()
CENTRAL = (
    "no acknowledged job is lost",
    "a run is billed once",
    "a fenced run bills nothing",
    "no card is sold twice",
    "no pool is booked twice",
    "no record without a valid chain",
    "a withdrawn record stays withdrawn",
    "revisions only grow",
    "epochs only grow",
    "money is conserved",
    "every waiting job is explained",
    "catalogues converge",
    "both sides of a bill agree",
    "a bill proves itself",
    "a project keeps its quotas",
    "a gang is booked whole",
    "no member starts before all are accepted",
    "who waits for its gang is paid nothing",
    "no circuit lives without its gang",
    "everything settles",
)


@pytest.fixture(scope="module")
def dozen() -> Found:
    return search(SEEDS, SIZE, most=len(SEEDS))


def test_in_a_dozen_stories_every_invariant_holds(dozen: Found) -> None:
    told = [f"seed {each.seed}, {each.invariant}: {each.what}" for each in dozen.violations]
    assert told == [], "tieline sim run --seed N shrinks it"
    assert dozen.seeds == len(SEEDS)


def test_in_a_dozen_stories_every_invariant_is_looked_at(dozen: Found) -> None:
    assert {name: dozen.checks.get(name, 0) > 10 for name in CENTRAL} == dict.fromkeys(CENTRAL, True)


def test_in_a_dozen_stories_every_kind_of_fault_happens(dozen: Found) -> None:
    assert [name for name in FAULTS if not dozen.faults.get(name)] == []
    for consequence in ("message lost", "message doubled", "message overtaken", "crash within a step", "copy refused"):
        assert dozen.faults[consequence] > 0, consequence


def test_a_world_without_faults_loses_nothing_on_the_way() -> None:
    outcome = play(story_of(5, SIZE, ()))
    assert (outcome.invariant, outcome.jobs > 10) == ("", True)
    assert [name for name in outcome.faults if name.startswith(("message", "crash", "relay", "peer"))] == []


def test_a_hundred_exchanges_live_in_one_process() -> None:
    story = story_of(1, Size(exchanges=100, sites=40, users=10, steps=20), horizon_ms=5_000)
    outcome = play(story)
    assert (outcome.invariant, outcome.what) == ("", "")
    assert outcome.jobs > 10


def test_equal_seeds_give_equal_histories_whatever_python_hashes_with() -> None:
    said = []
    for hashing in ("0", "12345"):
        code = (
            "from tieline.sim.search import search; from tieline.sim.story import Size;"
            "print(search(range(20, 23), Size(), most=9).sha256)"
        )
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200, check=True
        )
        said.append(done.stdout.strip())
    assert len(said[0]) == 64
    assert said[0] == said[1] == search(range(20, 23), SIZE, most=9).sha256


def test_other_seeds_give_other_histories() -> None:
    assert len({play(story_of(seed, Size(steps=5))).sha256 for seed in (1, 2, 3)}) == 3


def test_a_story_is_told_and_kept_as_it_is() -> None:
    story = story_of(9, Size(steps=200))
    assert {each.what for each in story.happenings} <= set(HAPPENINGS)
    assert all("{" not in tell(each) for each in story.happenings)
    assert msgspec.json.decode(msgspec.json.encode(story), type=type(story)) == story
