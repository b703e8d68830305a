"""Search: many seeds, one after the other, until an invariant does not hold or there are no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

import msgspec

from tieline.sim.planted import planted
from tieline.sim.play import Outcome, play
from tieline.sim.story import FAULTS, Size, story_of


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What became of several stories. ``sha256`` is that of the history; of several, of their hashes in order."""

    seeds: int
    sha256: str
    jobs: int
    events: int
    faults: dict[str, int]
    checks: dict[str, int]
    violations: tuple[Outcome, ...]


def search(
    seeds: Iterable[int], size: Size, faults: tuple[str, ...] = FAULTS, *, mistake: str = "", most: int = 1
) -> Found:
    """Play each of ``seeds`` until ``most`` of them found something."""
    outcomes: list[Outcome] = []
    violations = 0
    for seed in seeds:
        with planted(mistake):
            outcomes.append(play(story_of(seed, size, faults)))
        violations += bool(outcomes[-1].invariant)
        if violations >= most:
            break
    return summed(outcomes)


def summed(outcomes: Iterable[Outcome]) -> Found:
    """Several outcomes as one."""
    faults: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    jobs = events = 0
    hashes: list[str] = []
    violations: list[Outcome] = []
    for outcome in outcomes:
        hashes.append(outcome.sha256)
        jobs += outcome.jobs
        events += outcome.events
        faults.update(outcome.faults)
        checks.update(outcome.checks)
        if outcome.invariant:
            violations.append(outcome)
    whole = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()
    return Found(
        seeds=len(hashes),
        sha256=whole,
        jobs=jobs,
        events=events,
        faults=dict(sorted(faults.items())),
        checks=dict(sorted(checks.items())),
        violations=tuple(violations),
    )
