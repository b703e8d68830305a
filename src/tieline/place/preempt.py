"""Preemption 抢占: which runs give way for a demand, so that it fits into one pool and the least work is lost.

A run may be taken for a demand where all of this holds:

- it is preemptible (its job declares a checkpoint, so that it goes on later), and was not told to stop already;
- it is of another project, and either the demand is within its own project's guaranteed share (`share.is_by_right`),
  or the run's priority is lower by `MARGIN` or more; or it is of the same project, and its priority is so much lower;
- a run that holds cards, of another project, is taken only while that project holds more than its guaranteed share. The
  last of them may reach below it: a gang gives way whole. What it asks for is then again more than its project's share,
  so that it cannot take the cards back by right.

Lost is the time since the last checkpoint (or the start) times the units held. Of sets that lose the same, the one that
gave way less often before is taken, then the smaller one. A set from which a run could be spared is never the answer.
Runs that are stopping already count as room that comes, so that a second pass does not stop more than the first.

The search is a branch and bound over the runs of each pool, cheapest first, from what two greedy orders find. It ends
after ``rounds`` runs were looked at in all; `GiveWay.is_least` says whether it came to its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from tieline.model.reason import Reason, Value
from tieline.place.pools import Amount

MARGIN: Final = 10  # points of priority: what ten minutes of waiting are worth
MOST_RUNS: Final = 16  # that give way for one demand
ROUNDS: Final = 20_000  # about 80 ms where it does not come to its end

Cost = tuple[int, int, int]  # unit-milliseconds lost, earlier preemptions, runs
NOTHING: Final[Cost] = (0, 0, 0)


class Live(NamedTuple):
    """A run that holds a part of a pool."""

    id: str
    project: str
    priority: int
    amount: Amount
    kept_ms: int  # its work until then is safe: the last checkpoint, or its start
    is_preemptible: bool = False
    is_stopping: bool = False
    preemptions: int = 0  # times that its job gave way before


class Need(NamedTuple):
    """Who needs room."""

    job: str
    project: str
    priority: int
    is_by_right: bool  # within the guaranteed share of its project


class Room(NamedTuple):
    """A pool that would fit if enough of it were free."""

    pool: str
    needed: Amount
    free: Amount  # below zero where the owner shrank the pool below what is held
    runs: Sequence[Live]


class GiveWay(NamedTuple):
    """Which runs to stop; none where enough is stopping or free already."""

    pool: str
    runs: tuple[Live, ...]
    lost_unit_ms: int
    is_least: bool  # nothing cheaper exists, in any of the pools


class Search:
    """The best set so far, over all pools, and how many rounds are left."""

    def __init__(self, most: int, rounds: int, lent: Mapping[str, int], now_ms: int) -> None:
        self.most = most
        self.rounds = rounds
        self.lent = lent  # cards that a project holds beyond its guarantee; only projects that are protected by one
        self.now_ms = now_ms
        self.cost: Cost | None = None
        self.runs: tuple[Live, ...] = ()
        self.pool = ""

    def offer(self, pool: str, runs: Sequence[Live]) -> None:
        """A set that is enough: kept if it is the best so far."""
        cost = cost_of(runs, self.now_ms)
        if self.cost is None or cost < self.cost:
            self.pool, self.runs, self.cost = pool, tuple(runs), cost

    def may_join(self, runs: Sequence[Live], run: Live) -> bool:
        """Whether ``run`` may give way beside ``runs``; where it may, it also may beside fewer."""
        if run.project not in self.lent or not run.amount.accelerators:
            return True
        cards = [run.amount.accelerators]
        cards += [each.amount.accelerators for each in runs if each.project == run.project]
        return sum(cards) - max(cards) < self.lent[run.project]


def give_way(
    need: Need,
    rooms: Sequence[Room],
    borrowed: Mapping[str, int],
    *,
    now_ms: int,
    most: int = MOST_RUNS,
    rounds: int = ROUNDS,
) -> GiveWay | None:
    """The runs that give way for ``need``; None where no pool can be cleared by right, or by ``most`` runs.

    ``borrowed`` are the cards that each project holds beyond its guaranteed share (`share.Standing.borrowed`); of a
    project that is not named there, none.
    """
    names = sorted({run.project for room in rooms for run in room.runs if run.project != need.project})
    search = Search(most, rounds, {name: borrowed.get(name, 0) for name in names}, now_ms)
    asked = []
    for room in sorted(rooms, key=lambda room: room.pool):
        short = _short(room)
        if not any(short):
            return GiveWay(room.pool, (), 0, is_least=True)
        runs = [run for run in room.runs if may_give_way(need, run, borrowed)]
        runs.sort(key=lambda run: (cost_of((run,), now_ms), run.id))
        if _covers(short, runs):
            asked.append((room.pool, short, runs))
            _greedy(search, room.pool, short, runs)
    for pool, short, runs in asked:
        _branch(search, pool, runs, _tails(runs), 0, short, [], NOTHING)
    if search.cost is None:
        return None
    return GiveWay(search.pool, search.runs, search.cost[0], is_least=search.rounds > 0)


def may_give_way(need: Need, run: Live, borrowed: Mapping[str, int]) -> bool:
    """Whether ``run`` alone may be taken for ``need``."""
    if not run.is_preemptible or run.is_stopping:
        return False
    is_lower = run.priority + MARGIN <= need.priority
    if run.project == need.project:
        return is_lower
    if not run.amount.accelerators:
        return is_lower  # no cores are guaranteed to anybody, so none are had by right
    return borrowed.get(run.project, 0) > 0 and (is_lower or need.is_by_right)


def cost_of(runs: Iterable[Live], now_ms: int) -> Cost:
    """What it costs that these give way."""
    lost = earlier = count = 0
    for run in runs:
        lost += max(0, now_ms - run.kept_ms) * max(1, run.amount.accelerators or run.amount.cores)
        earlier += run.preemptions
        count += 1
    return lost, earlier, count


def why_stopped(need: Need, run: Live) -> Reason:
    """What the user of a run is told that gives way."""
    if run.priority + MARGIN <= need.priority:
        values: dict[str, Value] = {"job": need.job, "priority": need.priority, "own": run.priority}
        return Reason(code="preempted_for_priority", values=values)
    return Reason(code="preempted_for_share", values={"job": need.job, "project": need.project or "-"})


def why_waiting(answer: GiveWay) -> Reason:
    """What the user of the demand is told meanwhile."""
    return Reason(code="waiting_for_room", values={"pool": answer.pool, "runs": len(answer.runs)})


def _short(room: Room) -> Amount:
    """What is missing when those that are stopping will have stopped."""
    coming = [run.amount for run in room.runs if run.is_stopping]
    have = [sum(parts) for parts in zip(room.free, *coming, strict=True)]
    # What nothing is asked of is not missing, even where the owner took more away than was free.
    return Amount(*(max(0, asked - has) if asked else 0 for asked, has in zip(room.needed, have, strict=True)))


def _less(short: Amount, run: Live) -> Amount:
    return Amount(*(max(0, lacks - more) for lacks, more in zip(short, run.amount, strict=True)))


def _covers(short: Amount, runs: Iterable[Live]) -> bool:
    for run in runs:
        short = _less(short, run)
    return not any(short)


def _greedy(search: Search, pool: str, short: Amount, runs: Sequence[Live]) -> None:
    """A first answer, by what each unit that is missing costs, and by how much of it a run brings."""
    main = next(at for at, lacks in enumerate(short) if lacks)
    useful = {run.id: min(run.amount[main], short[main]) for run in runs}
    by_price = sorted(runs, key=lambda run: (cost_of((run,), search.now_ms)[0] // max(1, useful[run.id]), run.id))
    by_size = sorted(runs, key=lambda run: (-useful[run.id], run.id))
    for ordered in (by_price, by_size):
        taken: list[Live] = []
        lacks = short
        for run in ordered:
            if any(lacks) and _less(lacks, run) != lacks and search.may_join(taken, run):
                taken.append(run)
                lacks = _less(lacks, run)
        taken = _spared(short, taken, search.now_ms)
        if not any(lacks) and len(taken) <= search.most:
            search.offer(pool, taken)


def _spared(short: Amount, taken: list[Live], now_ms: int) -> list[Live]:
    """Without those that the others make up for, the dearest spared first."""
    for run in sorted(taken, key=lambda run: (cost_of((run,), now_ms), run.id), reverse=True):
        rest = [each for each in taken if each is not run]
        if _covers(short, rest):
            taken = rest
    return taken


def _tails(runs: Sequence[Live]) -> list[Amount]:
    """From each place on, what all runs bring together."""
    tails = [Amount()]
    for run in reversed(runs):
        tails.append(Amount(*(one + more for one, more in zip(tails[-1], run.amount, strict=True))))
    return tails[::-1]


def _branch(
    search: Search,
    pool: str,
    runs: Sequence[Live],
    tails: Sequence[Amount],
    start: int,
    short: Amount,
    taken: list[Live],
    cost: Cost,
) -> None:
    """Try each run from ``start`` on beside those taken; they stand cheapest first, so the first too dear ends it."""
    if len(taken) >= search.most:
        return
    for at in range(start, len(runs)):
        if search.rounds <= 0 or any(lacks > rest for lacks, rest in zip(short, tails[at], strict=True)):
            return
        search.rounds -= 1
        run = runs[at]
        more = cost_of((run,), search.now_ms)
        total = (cost[0] + more[0], cost[1] + more[1], cost[2] + more[2])
        if search.cost is not None and total >= search.cost:
            return
        lacks = _less(short, run)
        if lacks == short or not search.may_join(taken, run):
            continue
        taken.append(run)
        if any(lacks):
            _branch(search, pool, runs, tails, at + 1, lacks, taken, total)
        else:
            search.offer(pool, taken)
        taken.pop()
