"""Queue order: whose turn it is, so that nothing starves.

The rule: ``effective = priority + waited / ageing``. All jobs age alike, so the order of any two never changes while
they wait, and it is the order of one number that a job has from the start::

    turn_ms = submitted_ms - priority x ageing_ms        the smaller goes first

One point of priority is a head start of ``ageing_ms``: a job with priority 10 goes before one with priority 0 that was
submitted up to ten ageings earlier, and never before one that was submitted earlier still. Priorities are bounded
(1,000 either way), so every wait is. Ties go to the earlier submission, then to the place in the given order.

Order alone does not save a large gang from small jobs that fit wherever something ends: after its patience `choose`
holds its best pool back from those behind it (`backfill`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tieline.place.coded import Flags, Numbers, Rows

AGEING_MS: Final = 60_000


def turn_ms(priority: int, submitted_ms: int, ageing_ms: int = AGEING_MS) -> int:
    """The number by which jobs go: the smaller first. It never changes, so it may be kept and sorted by."""
    assert ageing_ms > 0, ageing_ms
    return submitted_ms - priority * ageing_ms


def order(
    priorities: Numbers,
    submitted_ms: Numbers,
    *,
    ageing_ms: int = AGEING_MS,
    eligible: Flags | None = None,
    most: int | None = None,
) -> Rows:
    """Places of the jobs whose turn it is, first one first.

    ``eligible`` leaves out those that wait for something else (a dependency, a retry). ``most`` bounds a pass: only the
    first so many are sorted (1,000,000 jobs: 30 ms for the first 1,000).
    """
    turn = submitted_ms - priorities * np.int64(ageing_ms)
    places = np.arange(len(turn)) if eligible is None else np.flatnonzero(eligible)
    if most is not None and most < len(places):
        if most <= 0:
            return places[:0]
        last = np.partition(turn[places], most - 1)[most - 1]
        places = places[turn[places] <= last]  # with every tie, so that the cut is the same as that of a full sort
    ranked = places[np.lexsort((places, submitted_ms[places], turn[places]))]
    return ranked if most is None else ranked[:most]
