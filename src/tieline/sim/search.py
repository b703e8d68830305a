"""Search: many seeds, one after the other, until an invariant does not hold or there are no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from tieline.sim.planted import planted
from tieline.sim.play import Outcome, play
from tieline.sim.story import FAULTS, Size, story_of


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What became of several seeds."""

    seeds: int
    jobs: int
    events: int
    faults: dict[str, int]
    checks: dict[str, int]
    violations: tuple[Outcome, ...]


def search(
    seeds: Iterable[int], size: Size, faults: tuple[str, ...] = FAULTS, *, mistake: str = "", most: int = 1
) -> Found:
    """Play each of ``seeds`` until ``most`` of them found something."""
    played = jobs = events = 0
    injected: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    violations: list[Outcome] = []
    for seed in seeds:
        with planted(mistake):
            outcome = play(story_of(seed, size, faults))
        played += 1
        jobs += outcome.jobs
        events += outcome.events
        injected.update(outcome.faults)
        checked.update(outcome.checks)
        if outcome.invariant:
            violations.append(outcome)
            if len(violations) >= most:
                break
    return Found(
        seeds=played,
        jobs=jobs,
        events=events,
        faults=dict(sorted(injected.items())),
        checks=dict(sorted(checked.items())),
        violations=tuple(violations),
    )
