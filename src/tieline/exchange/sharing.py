"""Sharing: how the projects of this exchange share what is free, within one placing pass or for one question.

::

    turn_ms    whose turn it is: dominant share, and by right before borrowed    } by the row alone, asked of every line
    may_take   whether what is asked at least is within the quotas               }
    allowed    the demand without the alternatives that its project may not take now, and with what it may spend
    take       what was placed counts for the rest of the pass

While it is open, the room that is kept for those for whom others give way is held, in the pools and in the shares; to
whoever it is kept for it is given back while that job is looked at (`own`). Closed, it leaves everything as it was: the
bookings become real by events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import msgspec

from tieline.exchange.jobrow import JobRow
from tieline.exchange.supply import amount_of
from tieline.exchange.view import View, month_of
from tieline.exchange.yielding import KeptRoom
from tieline.market.rating import ROUNDING_S
from tieline.model.job import Job, Run
from tieline.model.reason import Reason, Value
from tieline.place import Amount, Demand, Pools
from tieline.place.demand import Need
from tieline.place.share import Left, Shares

replace = msgspec.structs.replace
LEAST_S: Final = 1  # of work, without which a run is not begun


class Sharing:
    """One pass, or one question, of an exchange that has projects."""

    def __init__(self, view: View, now_ms: int) -> None:
        assert view.shares is not None
        self.view, self.now_ms = view, now_ms
        self.shares: Shares = view.shares
        self._month = month_of(now_ms)
        self._told: dict[str, None] = {}  # projects whose spending of the month was said
        self._taken: list[Run] = []
        self._reserved: dict[str, KeptRoom] = {}
        self._shapes = Counter[int]()  # for how many jobs of a shape room is kept

    def __enter__(self) -> Self:
        """Hold what is kept for those who wait for it."""
        self.shares.capacity = capacity_of(self.view.supply.pools)
        for job in tuple(self.view.yielding.kept):
            self._reserve(job)
        self._shapes.update(room.shape for room in self._reserved.values())
        return self

    def __exit__(self, *_: object) -> None:
        """Give everything back."""
        for job in tuple(self._reserved):
            self._give_back(job)
        while self._taken:
            run = self._taken.pop()
            self.shares.release(run.project, amount_of(run), run.pledged_card_ms, run.pledged_micro_cny)

    # -- whose turn it is (queue.Share) -------------------------------------------------------------------------------

    def turn_ms(self, row: JobRow) -> int:
        """The number by which the job goes; who has room kept for it has had its turn."""
        if self.is_kept(row):
            return row.turn_ms
        return self.shares.turn_ms(row.project, row.turn_ms, row.cards)

    def may_take(self, row: JobRow) -> bool:
        """Whether its project may take the least that the job asks for."""
        if self.is_kept(row):
            return True
        self._tell(row.project)
        return self.shares.refusal(row.project, Amount(row.cards, row.cores)) is None

    # -- what may be taken --------------------------------------------------------------------------------------------

    @contextmanager
    def own(self, row: JobRow) -> Iterator[None]:
        """While a job is looked at, the room that is kept for it and for others of its shape is free."""
        names = [name for name, room in self._reserved.items() if room.shape == row.shape] if self.is_kept(row) else []
        for name in names:
            self._give_back(name)
        try:
            yield
        finally:
            for name in names:
                if name in self.view.yielding.kept:
                    self._reserve(name)

    def asked_by(self, job: str) -> None:
        """For one question about one job: the room that is kept for it, and for it alone, is free."""
        if job in self._reserved:
            self._give_back(job)

    def allowed(self, project: str, demand: Demand) -> Demand | None:
        """The demand as its project may have it met now; None where it may not at all."""
        needs = tuple(need for need in demand.needs if self.refusal(project, demand, need) is None)
        if not needs:
            return None
        left = self.left(project)
        budget = demand.budget_micro_cny
        if left.micro_cny is not None and (budget is None or left.micro_cny < budget):
            demand = replace(demand, budget_micro_cny=left.micro_cny)
        return demand if len(needs) == len(demand.needs) else replace(demand, needs=needs)

    def refusal(self, project: str, demand: Demand, need: Need) -> Reason | None:
        """Why the project may not have this alternative of the demand now."""
        self._tell(project)
        return self.shares.refusal(project, need.amount, LEAST_S + demand.grace_s + ROUNDING_S)

    def left(self, project: str) -> Left:
        """What its project may still use up this month."""
        self._tell(project)
        return self.shares.left(project)

    def money(self, project: str) -> Reason:
        """How much of the month's money is spent or pledged."""
        left = self.left(project).micro_cny
        assert left is not None, project
        bound = self.view.projects[project].quota.micro_cny
        values: dict[str, Value] = {"project": project, "used_micro_cny": bound - left, "bound_micro_cny": bound}
        return Reason(code="quota_money", values=values)

    def take(self, row: JobRow, run: Run) -> None:
        """A run is about to be booked; what was kept there is taken, and nothing more is kept for its job."""
        self.shares.hold(run.project, amount_of(run), run.pledged_card_ms, run.pledged_micro_cny)
        self._taken.append(run)
        kept = self.view.yielding.kept
        mine = kept.pop(row.id, None)
        if mine is not None and mine.pool == run.pool:
            self._shapes[row.shape] -= 1
            return
        other = next((name for name, room in kept.items() if (room.pool, room.shape) == (run.pool, row.shape)), "")
        if other and mine is not None:
            kept[other] = mine  # they ask for the same
        elif other:
            del kept[other]
            self._shapes[row.shape] -= 1
        elif mine is not None:
            self._shapes[row.shape] -= 1
            self.view.supply.version += 1

    # -- room that is kept --------------------------------------------------------------------------------------------

    def keep(self, job: str, room: KeptRoom) -> None:
        """Keep room for a job until it takes it."""
        self.view.yielding.kept[job] = room
        self._shapes[room.shape] += 1
        self._reserve(job)

    def let_go(self, job: str) -> None:
        """Keep nothing for a job any more; others may look again."""
        room = self.view.yielding.kept.pop(job, None)
        if room is not None:
            self._shapes[room.shape] -= 1
            self.view.supply.version += 1
        if job in self._reserved:
            self._give_back(job)

    def is_kept(self, row: JobRow) -> bool:
        """Whether room is kept for the job or another of its shape. Each is kept for one."""
        return self._shapes[row.shape] > 0

    # -- inside -------------------------------------------------------------------------------------------------------

    def _tell(self, project: str) -> None:
        if project in self._told:
            return
        self._told[project] = None
        if project in self.view.projects:
            spent = self.view.spent.get((project, self._month))
            self.shares.use(project, spent.card_ms if spent else 0, spent.charge_micro_cny if spent else 0)

    def _reserve(self, job: str) -> None:
        room = self.view.yielding.kept[job]
        if not self.view.supply.pools.hold_again(room.pool, room.amount):
            del self.view.yielding.kept[job]  # the pool is gone
            return
        self.shares.hold(room.project, room.amount)
        self._reserved[job] = room

    def _give_back(self, job: str) -> None:
        room = self._reserved.pop(job)
        self.view.supply.pools.release(room.pool, room.amount)
        self.shares.release(room.project, room.amount)


def month_reasons(view: View, job: Job, run: Run, now_ms: int) -> tuple[Reason, ...]:
    """That a run whose time was over had no limit of its own, but what was left of its project's month."""
    task = job.task
    if view.shares is None or task.max_duration_s or task.deadline_s or task.budget_micro_cny:
        return ()
    with Sharing(view, now_ms) as sharing:
        sharing.left(run.project)
        refusal = sharing.shares.refusal(run.project, amount_of(run))
    return (refusal,) if refusal is not None and refusal.code in ("quota_card_hours", "quota_money") else ()


def look_again(view: View, now_ms: int) -> None:
    """Let the next pass look at everybody where a month began, or where the last one left somebody out."""
    if view.shares is None:
        return
    yielding, month = view.yielding, month_of(now_ms)
    is_late = 0 < yielding.look_ms <= now_ms
    if is_late or month != yielding.month:
        yielding.month, yielding.look_ms = month, 0
        view.supply.version += 1


def capacity_of(pools: Pools) -> Amount:
    """All that there is, booked or not, as the records say."""
    rows = pools.live
    dimensions = (pools.accelerators, pools.cores, pools.memory)
    return Amount(*(int(each.total[rows].sum()) for each in dimensions))
