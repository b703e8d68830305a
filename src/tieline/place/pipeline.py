"""The pipeline: which pools fit a demand, each question a line, in the order in which a refusal is told.

What lasts comes before what passes, and what a pool is before what it costs. A pool that does not fit is counted once,
at the first line that drops it; over several alternatives, under the one in which it came furthest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from tieline.model.reason import Reason, Relaxation
from tieline.place.admit import Access, DataKnown, Infra, Owners, Pinned, Policy, Residency, Secrets
from tieline.place.coded import Rows
from tieline.place.demand import Demand
from tieline.place.fit import (
    OFFERED_TYPES,
    AcceleratorMemory,
    Architecture,
    DiskTotal,
    Engine,
    Kind,
    Network,
    Sandbox,
    Total,
    TypeOffered,
)
from tieline.place.present import Free, Granted, NotHeldBack, NotRefused, SiteOpen, Unexpired
from tieline.place.scene import Asking
from tieline.place.step import Step
from tieline.place.worth import Budget, DataRate, Deadline, Price, Unmeasured, Where

STEPS: Final[tuple[Step, ...]] = (
    TypeOffered(),  # first: nothing else about a service or a fleet means anything here
    DataKnown(),  # a misspelt dataset would otherwise look like a full country
    Pinned(),  # a quote is for one pool; all others are not asked
    Kind(),  # drops most, for the reason that users expect first
    Architecture(),
    AcceleratorMemory(),
    Total("accelerators"),  # never fits, before anything that money or permission could change
    Total("cores"),
    Total("memory"),
    DiskTotal(),
    Engine(),  # an image is a requirement
    Network(),
    Sandbox(),  # untrusted work never runs bare
    Access(),  # who may use it, before what it costs
    Owners(),
    Infra(),
    Price(),
    Where(),  # the dearest question over columns, so after the cheap ones
    Policy(),  # the owner's word, asked once per distinct policy of what is left
    Residency(),
    Secrets(),
    Budget(),
    Deadline(),  # lasting too: it only gets later
    Unmeasured(),  # from here on it may pass by itself: readings come,
    DataRate(),
    Unexpired(),  # records are renewed,
    SiteOpen(),  # sites come back,
    Granted(),  # quotas are raised,
    NotRefused(),  # owners change their mind,
    NotHeldBack(),  # those who waited longer are served,
    Free(),  # and runs end. Last, so that busy is told from never
)
SEARCHED: Final = tuple(step for step in reversed(STEPS) if step.is_searched)  # what passes drops most: asked first
ALWAYS: Final = frozenset(step for step in STEPS if type(step).asked is Step.asked)
FIRST_PASSING: Final = next(at for at, step in enumerate(STEPS) if not step.is_lasting)
assert all(not step.is_lasting for step in STEPS[FIRST_PASSING:])
LASTING: Final = tuple(step for step in STEPS[:FIRST_PASSING] if not isinstance(step, Kind))  # a posting says the kind

# What a user might change, nearest to hand first; a step may only be mended together with those that imply it.
TOTALS: Final = tuple(step for step in STEPS if isinstance(step, Total))
RELAXED: Final[tuple[type[Step], ...]] = (
    Price, Budget, Deadline, Where, Network, Architecture, AcceleratorMemory, DiskTotal, Owners, Infra, Free, Kind,
    Engine,
)  # fmt: skip


class Funnel(NamedTuple):
    """What one alternative leaves of the pools: those that fit, and for each step those that it dropped."""

    asking: Asking
    fitting: Rows
    dropped: list[tuple[int, Rows]]  # place of the step in STEPS, and rows


def funnel(asking: Asking, rows: Rows) -> Funnel:
    """Ask every step in order; each pool is dropped once."""
    dropped = []
    for at, step in enumerate(STEPS):
        if len(rows) and step.asked(asking):
            kept = step.test(asking, rows)
            if not kept.all():
                dropped.append((at, rows[~kept]))
                rows = rows[kept]
    return Funnel(asking, rows, dropped)


def asked_steps(asking: Asking) -> list[Step]:
    """The steps that can drop anything of this demand's posting, in the order in which a search asks them."""
    return [step for step in SEARCHED if step in ALWAYS or step.asked(asking)]


def fitting(asking: Asking, rows: Rows, steps: Sequence[Step]) -> Rows:
    """Those of ``rows`` that every step keeps, in their order."""
    for step in steps:
        kept = step.test(asking, rows)
        count = np.count_nonzero(kept)  # a third of what `all` takes
        if count < len(rows):
            rows = rows[kept]
            if not count:
                break
    return rows


def furthest(funnels: Sequence[Funnel], size: int) -> list[tuple[Asking, int, Rows]]:
    """(alternative, place of the step, rows) of every pool that fits none of the alternatives, furthest steps first.

    ``size`` is the number of rows there can be. A pool is counted under the alternative in which it came furthest, the
    first of those.
    """
    reached = np.full(size, -1, np.int64)
    under = np.zeros(size, np.int64)
    for index, one in enumerate(funnels):
        for at, rows in [*one.dropped, (len(STEPS), one.fitting)]:
            better = rows[reached[rows] < at]
            reached[better] = at
            under[better] = index
    found = []
    for index, one in enumerate(funnels):
        for at, rows in one.dropped:
            mine = rows[(reached[rows] == at) & (under[rows] == index)]
            if len(mine):
                found.append((one.asking, at, mine))
    return sorted(found, key=lambda loss: -loss[1])


def reasons_of(losses: Sequence[tuple[Asking, int, Rows]], demand: Demand, considered: int) -> tuple[Reason, ...]:
    """Counted reasons, nearest misses first; equal ones of several alternatives are one."""
    if not considered:
        offered = demand.type in OFFERED_TYPES
        return (Reason(code="no_pools" if offered else "kind_not_offered", count=0, values={"asked": demand.type}),)
    merged: dict[tuple[str, tuple[tuple[str, int | str], ...]], int] = {}
    for asking, at, rows in losses:
        for each in STEPS[at].explain(asking, rows):
            key = each.code, tuple(each.values.items())
            merged[key] = merged.get(key, 0) + each.count
    return tuple(Reason(code=code, count=count, values=dict(values)) for (code, values), count in merged.items())


def nearest(askings: Sequence[Asking], rows: Rows) -> Relaxation | None:
    """The first single change of the ask, in a fixed order, that would let some pool fit now."""
    for kind in RELAXED:
        for asking in askings:
            for step in STEPS:
                if not isinstance(step, kind) or not step.asked(asking):
                    continue
                without = (step, *TOTALS) if isinstance(step, Free) else (step,)
                left = fitting(asking, rows, [each for each in STEPS if each not in without and each.asked(asking)])
                found = step.relax(asking, left) if len(left) else None
                if found is not None:
                    return found
    return None
