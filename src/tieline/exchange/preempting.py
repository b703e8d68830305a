"""Preempting: who gives way for those who wait by right or with a higher priority, and what room is kept for them.

A job that no pool has room for asks which runs could give way for it (`place.preempt`). Those are asked to stop,
checkpoint first, and the room is kept for the job from then on, so that nobody else takes what was made for it. Room
that comes anyway, because runs are stopping, is kept as well. A job outside of projects makes nobody give way.

Bounded: so many are asked about in a pass, each within so many rounds over so many runs; who was asked about in vain is
passed over for a second. Whoever is left out has another look at the next tick.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Final

import numpy as np

from tieline.exchange.jobrow import JobRow
from tieline.exchange.sharing import Sharing
from tieline.exchange.supply import amount_of
from tieline.exchange.view import View
from tieline.exchange.yielding import ACTIVE, KeptRoom
from tieline.model.event import StopRequested
from tieline.model.job import Run
from tieline.place import Amount, Demand
from tieline.place.coded import Rows
from tieline.place.demand import Need as Alternative
from tieline.place.preempt import MARGIN, MOST_RUNS, GiveWay, Live, Need, Room, give_way, why_stopped
from tieline.place.room import would_fit

MOST_ASKS: Final = 8  # in vain, of one pass
MOST_WAYS: Final = 32  # jobs for which room is made, of one pass
MOST_STOPS: Final = 64  # of one pass
MOST_SIBLINGS: Final = 16  # of one shape, that are asked for together
MOST_POOLS: Final = 64  # that are looked at together for one job
MOST_LOOKS: Final = 4  # of so many pools each, until some can be cleared
MOST_LIVE: Final = 256  # runs of one pool that are looked at
ROUNDS: Final = 2_000  # of the search, for one job
AGAIN_MS: Final = 1_000
MOST_REMEMBERED: Final = 4_096


class Preempting:
    """One pass."""

    def __init__(self, view: View, sharing: Sharing, now_ms: int) -> None:
        self._view, self._sharing, self._now_ms = view, sharing, now_ms
        self._asks, self._ways, self._stops = MOST_ASKS, MOST_WAYS, MOST_STOPS
        self._stopped: dict[str, Run] = {}
        self._leaving = Counter[str]()  # cards of runs that were asked to stop, by project
        for run in view.yielding.stopping.values():
            self._leaving[run.project] += run.accelerator_count
        self._rows: Rows | None = None  # the pools where runs may end

    def forget(self, row: JobRow) -> None:
        """Nothing is kept any more for jobs of a shape that was refused, where nobody is leaving for them."""
        leaving = [*self._view.yielding.stopping.values(), *self._stopped.values()]
        pools = dict.fromkeys(run.pool for run in leaving)
        for name, room in tuple(self._view.yielding.kept.items()):
            if room.shape == row.shape and room.pool not in pools:
                self._sharing.let_go(name)

    def make_way(self, row: JobRow, demand: Demand) -> list[StopRequested]:
        """What is asked of others for a job that has no room, and for those of its shape behind it."""
        events: list[StopRequested] = []
        if not row.project or not self._may_ask(row, demand):
            return events
        for name in dict.fromkeys(self._view.waiting.near(row, MOST_SIBLINGS)):
            if name in self._view.yielding.kept:
                continue
            if not self._may_ask_for(name):
                break
            found = self._ask(name, row, demand)
            if found is None:
                break
            events += found
        return events

    def _may_ask(self, row: JobRow, demand: Demand) -> bool:
        """Whether anybody might give way; notes that somebody wants it."""
        yielding, shares = self._view.yielding, self._sharing.shares
        by_right = any(shares.is_by_right(row.project, need.amount.accelerators) for need in demand.needs)
        lowest = min(yielding.priorities, default=None)
        if not by_right and (lowest is None or _priority(demand) < lowest + MARGIN):
            yielding.is_wanted = yielding.is_wanted or _priority(demand) >= MARGIN
            return False
        yielding.is_wanted = True
        return bool(yielding.pools)

    def _may_ask_for(self, job: str) -> bool:
        """Whether it is its turn to ask; if not, everybody is looked at again soon."""
        yielding = self._view.yielding
        asked_ms = yielding.asked_ms.get(job)
        if min(self._asks, self._ways, self._stops) <= 0 or (
            asked_ms is not None and 0 <= self._now_ms - asked_ms < AGAIN_MS
        ):
            yielding.look_ms = yielding.look_ms or self._now_ms + AGAIN_MS
            return False
        return True

    def _ask(self, job: str, row: JobRow, demand: Demand) -> list[StopRequested] | None:
        """Who is asked to stop for one job, the room being kept from now on; None where nobody can be asked."""
        project = row.project
        for need in demand.needs:
            if self._sharing.refusal(project, demand, need) is not None:
                continue  # with what is kept for others of its project
            right = self._sharing.shares.is_by_right(project, need.amount.accelerators)
            asker = Need(job, project, _priority(demand), right)
            answer = self._answer(asker, demand, need, row.seq + self._now_ms // AGAIN_MS)
            if answer is None:
                continue
            self._view.yielding.asked_ms.pop(job, None)
            self._sharing.keep(job, KeptRoom(answer.pool, project, need.amount, row.shape))
            self._ways -= 1
            self._stops -= len(answer.runs)
            for live in answer.runs:
                self._stopped[live.id] = self._view.runs[live.id]
                self._leaving[live.project] += live.amount.accelerators
            why = f"gives way to {job}"
            return [StopRequested(run=live.id, why=why, reason=why_stopped(asker, live)) for live in answer.runs]
        self._asks -= 1
        asked = self._view.yielding.asked_ms
        if len(asked) >= MOST_REMEMBERED:
            asked.clear()
        asked[job] = self._now_ms
        return None

    def _answer(self, asker: Need, demand: Demand, need: Alternative, turn: int) -> GiveWay | None:
        """Who gives way in one of the pools, the first of which is another one for each ``turn``."""
        fit = self._fit(demand, need)
        start = turn * MOST_POOLS % len(fit) if len(fit) > MOST_POOLS * MOST_LOOKS else 0
        fit = np.concatenate([fit[start:], fit[:start]])
        most = min(MOST_RUNS, self._stops)
        for at in range(0, min(len(fit), MOST_POOLS * MOST_LOOKS), MOST_POOLS):
            rooms = [self._room(row, need.amount) for row in fit[at : at + MOST_POOLS].tolist()]
            names = sorted({live.project for room in rooms for live in room.runs})
            borrowed = {name: max(0, self._sharing.shares.borrowed(name) - self._leaving[name]) for name in names}
            found = give_way(asker, rooms, borrowed, now_ms=self._now_ms, most=most, rounds=ROUNDS)
            if found is not None:
                return found
        return None

    def _fit(self, demand: Demand, need: Alternative) -> Rows:
        """The pools with runs that may end, which would fit if enough of them were free."""
        view = self._view
        pools = view.supply.pools
        if self._rows is None:
            known = (pools.index(pool) for pool in view.yielding.pools)
            self._rows = np.array(sorted(at for at in known if at is not None), np.int64)
        held_back = {pool: job for pool, job in view.held_back.items() if job != demand.id}
        return would_fit(demand, need, pools, view.distances, self._rows, now_ms=self._now_ms, held_back=held_back)

    def _room(self, at: int, needed: Amount) -> Room:
        pools = self._view.supply.pools
        pool = pools.at(at).id
        free = Amount(*(int(each.free[at]) for each in (pools.accelerators, pools.cores, pools.memory)))
        names = islice(self._view.yielding.pools[pool], MOST_LIVE)
        return Room(pool, needed, free, [self._live(self._view.runs[name]) for name in names])

    def _live(self, run: Run) -> Live:
        is_stopping = run.is_stop_requested or run.id in self._stopped
        return Live(
            run.id,
            run.project,
            run.priority,
            amount_of(run),
            max(run.kept_ms, run.started_ms or run.accepted_ms),
            is_preemptible=run.is_preemptible and run.state in ACTIVE,
            is_stopping=is_stopping,
            preemptions=run.preemptions,
        )


def _priority(demand: Demand) -> int:
    return int(demand.values[0]["priority"]) if demand.values else 0
