"""Choose: decide a whole batch, in the order given, against one snapshot.

Each demand takes the pool with the lowest score that fits now; what it takes is held while the rest of the batch is
decided, and given back at the end: the bookings become real by the caller's events, not here. A demand that nothing
fits is refused with counted reasons. A list goes in, so that prices over the whole batch (shadow prices) can later
decide in place of the order without another signature.

A search reads its posting from the cheapest on, in growing strides, and stops when no later pool can score lower: the
answer is that of an exhaustive scan. Cost: about 50 us for a demand on 30,000 pools of 12 kinds; a refusal with its
reasons about 0.5 ms, and nothing for the next demand of the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
import numpy as np

from tieline.model.plan import Candidate
from tieline.model.reason import Reason
from tieline.place.backfill import RunEnd, shadow_ms
from tieline.place.coded import Rows
from tieline.place.demand import Demand, Need
from tieline.place.gangs import Between, Gang, Member, NoGang, Room, gang_in
from tieline.place.pipeline import FIRST_PASSING, STEPS, asked_steps, fitting, funnel, furthest, reasons_of
from tieline.place.pools import Amount, Pools
from tieline.place.present import Free
from tieline.place.scene import Asking, HeldBack, Scene, among
from tieline.place.score import Best, best, candidate, costs, floor_micro_cny
from tieline.place.terms import Terms
from tieline.ports import Distances

FIRST_STRIDE = 128
STRIDE_GROWTH = 4
FEW_REFUSALS = 4  # of owners' policies, after which all that are left are asked at once
PATIENCE_MS = 60_000
MOST_TRIES = 64  # shapes for which it is tried to hold a pool back, of one batch of `offer`
FREE_AT = next(at for at, step in enumerate(STEPS) if isinstance(step, Free))


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where one demand goes, and what it holds there over all nodes."""

    demand: str
    candidate: Candidate
    amount: Amount


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why one demand goes nowhere now. The counts of the reasons add up to ``considered``."""

    demand: str
    considered: int
    reasons: tuple[Reason, ...]
    is_possible: bool  # False: nothing that exists here can ever run it
    held_back: str = ""  # the pool that waits for it, once it was passed over for too long


def choose(
    demands: Sequence[Demand],
    pools: Pools,
    distances: Distances,
    *,
    now_ms: int,
    terms: Terms | None = None,
    patience_ms: int = PATIENCE_MS,
    most_held_back: int = 16,
    ends: Mapping[str, Sequence[RunEnd]] | None = None,
    held_back: Mapping[str, str] | None = None,
) -> list[Placement | Refusal]:
    """One answer for each of ``demands``, in their order, which is their order of preference (see `queue.order`).

    A demand that is refused only because pools are busy, and has waited ``patience_ms``, has its best pool held back
    from those that come after it, unless they end before it could start (``ends``: of the runs of each pool, where they
    are known). ``most_held_back`` bounds the pools that wait. ``held_back`` (pool -> demand) are those of earlier
    batches whose demand is not in this one: they go on waiting, and nobody else may take them.
    """
    here = {demand.id for demand in demands}
    elsewhere = {pool: job for pool, job in (held_back or {}).items() if job not in here}
    with Choosing(
        pools,
        distances,
        now_ms=now_ms,
        terms=terms,
        patience_ms=patience_ms,
        most_held_back=most_held_back,
        ends=ends,
        held_back=elsewhere,
    ) as choosing:
        return [choosing.answer(demand) for demand in demands]


class Choosing:
    """One batch in the making: answers demand after demand, and holds what it gave until it is closed.

    The arguments are those of `choose`, but that ``held_back`` names only demands that will not be asked about.
    """

    def __init__(
        self,
        pools: Pools,
        distances: Distances,
        *,
        now_ms: int,
        terms: Terms | None = None,
        patience_ms: int = PATIENCE_MS,
        most_held_back: int = 16,
        ends: Mapping[str, Sequence[RunEnd]] | None = None,
        held_back: Mapping[str, str] | None = None,
    ) -> None:
        self._pools, self._now_ms = pools, now_ms
        self._patience_ms, self._most_held_back = patience_ms, most_held_back
        self._ends = ends or {}
        self._scene = Scene(pools, distances, now_ms, terms)
        self._scene.hold_back(held_back or {})
        self._refused: dict[str, Refusal] = {}
        self._passed_over: dict[str, None] = {}  # shapes for which it was tried to hold a pool back
        self._unfit: dict[str, None] = {}  # shapes that were refused without a why
        self._full: dict[tuple[str, Amount], None] = {}  # what no pool has enough of
        self._words: list[str] | None = None
        self._taken: list[tuple[int, Amount]] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what was held."""
        while self._taken:
            self._pools.release_at(*self._taken.pop())

    def answer(self, demand: Demand) -> Placement | Refusal:
        """Where it goes, or why it goes nowhere now."""
        shape = "" if self._words is None else self._shape(demand)
        known = self._refused.get(shape)
        placement = self._place(demand) if known is None else None
        if placement is not None:
            return placement
        shape = self._shape(demand)
        is_late = self._may_hold_back(demand) and shape not in self._passed_over
        if known is None or (is_late and known.is_possible):
            known = self._refused[shape] = _refuse(self._scene, demand, is_late, self._ends)
            if is_late:
                self._passed_over[shape] = None
            return known
        # What was refused before stays refused: capacity only shrinks within a batch.
        return msgspec.structs.replace(known, demand=demand.id, held_back="")

    def offer(self, demand: Demand) -> Placement | Refusal | None:
        """The same decision in a fraction of the time; None for a refusal that holds nothing back, without its why."""
        if self._may_hold_back(demand) and len(self._passed_over) < MOST_TRIES:
            return self.answer(demand)
        if self._unfit or self._refused:  # until somebody is refused there is nothing to know beforehand
            if all(self._is_full(need) for need in demand.needs):
                return None
            shape = self._shape(demand)
            if shape in self._unfit or shape in self._refused:
                return None
        placement = self._place(demand)
        if placement is None:
            self._unfit[self._shape(demand)] = None
        return placement

    def place(self, demand: Demand) -> Placement | None:
        """Where a demand goes for which room was kept, whatever was refused to others of its shape; None: nowhere."""
        return self._place(demand)

    @property
    def considered(self) -> int:
        """How many pools there are."""
        return len(self._pools)

    def gang(
        self, demand: Demand, between: Between[Any], *, way_micro_cny: int, most_looks: int, room: Room = Room.NOW
    ) -> Gang | NoGang:
        """Where the nodes of a demand go that may stand over several pools; nothing is held (`hold`)."""
        return gang_in(self._scene, demand, between, way_micro_cny=way_micro_cny, most_looks=most_looks, room=room)

    def may_keep(self, demand: Demand) -> bool:
        """Whether it was passed over for so long that pools may be held back for it."""
        return self._may_hold_back(demand)

    def keep(self, demand: Demand, found: Gang) -> tuple[str, ...]:
        """Hold back the pools of a gang that would be made if everything were free, all of them or none.

        Others may use them as long as they end before the last of them has the room.
        """
        rows = [row for member in found.members if (row := self._pools.index(member.candidate.pool)) is not None]
        if len({*self._scene.held_back, *rows}) > self._most_held_back:
            return ()
        ends = [self._room_ms(member) for member in found.members]
        until_ms = None if None in ends else max(end for end in ends if end is not None)
        self._scene.held_back |= dict.fromkeys(rows, HeldBack(demand.id, until_ms))
        return tuple(member.candidate.pool for member in found.members)

    def hold_back(self, pools: Mapping[str, str]) -> None:
        """Go on keeping pools (pool -> demand) that an earlier batch held back."""
        self._scene.hold_back(pools)

    def _room_ms(self, member: Member) -> int | None:
        """When the pool of a member has room for it; None: that is not known."""
        pool, free = member.candidate.pool, self._pools.free(member.candidate.pool)
        if all(have >= asked for have, asked in zip(free, member.amount, strict=True)):
            return self._now_ms
        return shadow_ms(member.amount, free, self._ends.get(pool, ()))

    def hold(self, found: Gang) -> None:
        """Take what a gang takes, for the rest of the batch."""
        for member in found.members:
            row = self._pools.index(member.candidate.pool)
            assert row is not None, member.candidate.pool
            self._pools.hold_at(row, member.amount)
            self._taken.append((row, member.amount))

    def unsettle(self) -> None:
        """Something was booked of the network: how long data takes is asked anew."""
        self._scene.unsettle()

    def _place(self, demand: Demand) -> Placement | None:
        found = search(self._scene, demand)
        if found is None:
            return None
        asking, row = found
        placement = _placement(asking, row)
        self._pools.hold_at(row, asking.need.amount)
        self._taken.append((row, asking.need.amount))
        return placement

    def _may_hold_back(self, demand: Demand) -> bool:
        """Whether it was passed over for so long that a pool may be held back for it."""
        return (
            self._now_ms - demand.waits_since_ms >= self._patience_ms
            and len(self._scene.held_back) < self._most_held_back
        )

    def _is_full(self, need: Need) -> bool:
        """Whether no pool of the kind has enough free; one that was full stays so within a batch."""
        key = need.asked, need.amount
        if key not in self._full:
            rows, start, stride = self._pools.posting(need.asked).rows, 0, FIRST_STRIDE
            while start < len(rows):
                if self._have(need.amount, rows[start : start + stride]):
                    return False
                start, stride = start + stride, stride * STRIDE_GROWTH
            self._full[key] = None
        return True

    def _have(self, amount: Amount, rows: Rows) -> bool:
        """Whether any of ``rows`` has enough free."""
        pools = self._pools
        for dimension, asked in zip((pools.accelerators, pools.cores, pools.memory), amount, strict=True):
            if asked:
                rows = rows[dimension.free[rows] >= asked]
        return len(rows) > 0

    def _shape(self, demand: Demand) -> str:
        if self._words is None:
            self._words = policy_words(self._pools)
        return _shape(demand, self._words)


def search(scene: Scene, demand: Demand) -> tuple[Asking, int] | None:
    """The best alternative and the row where it goes now, or None."""
    table = scene.pools.table
    avoid = [code for code in map(table.texts("site").code, demand.avoid) if code > 0] if demand.avoid else []
    for is_last_resort in (False, True) if avoid else (False,):
        found: tuple[Asking, Best] | None = None
        for need in demand.needs:
            asking = Asking(scene, demand, need)
            one = _search_one(asking, avoid, is_last_resort)
            if one is not None and (found is None or one.score_micro_cny < found[1].score_micro_cny):
                found = asking, one
                if demand.is_ordered:
                    break
        if found is not None:
            return found[0], found[1].row
    return None


def _search_one(asking: Asking, avoid: list[int], is_last_resort: bool) -> Best | None:
    """The best pool of one alternative, at the avoided sites or away from them."""
    rows, prices = asking.pools.posting(asking.need.asked)
    steps = asked_steps(asking)
    found: Best | None = None
    start, stride = 0, FIRST_STRIDE
    while start < len(rows):
        if found is not None and floor_micro_cny(asking, int(prices[start])) > found.score_micro_cny:
            break
        end = max(start + stride, int(prices.searchsorted(prices[start], side="right")))  # equal prices in one stride
        fit = fitting(asking, rows[start:end], steps)
        if avoid and len(fit):
            sites = asking.pools.table.texts("site").codes[fit]
            fit = fit[among(sites, avoid) == is_last_resort]
        one = _best_admitted(asking, fit)
        if one is not None:
            found = one if found is None else min(found, one)
        start, stride = end, stride * STRIDE_GROWTH
    return found


def _best_admitted(asking: Asking, rows: Rows) -> Best | None:
    """The best of ``rows`` whose owner admits the demand. Owners are asked last and best first: one is often enough."""
    policies = asking.pools.policy
    for _ in range(FEW_REFUSALS):
        if not len(rows):
            return None
        one = best(asking, rows)
        if one is None or asking.admits(policies.of(one.row)) is True:
            return one
        rows = rows[policies.codes[rows] != policies.codes[one.row]]
    rows = rows[policies.test(rows, lambda policy: asking.admits(policy) is True)]
    return best(asking, rows) if len(rows) else None


def _placement(asking: Asking, row: int) -> Placement:
    return Placement(
        demand=asking.demand.id, candidate=candidate(asking, row, is_chosen=True), amount=asking.need.amount
    )


def _refuse(scene: Scene, demand: Demand, is_late: bool, ends: Mapping[str, Sequence[RunEnd]]) -> Refusal:
    live = scene.pools.live
    funnels = [funnel(Asking(scene, demand, need), live) for need in demand.needs]
    losses = furthest(funnels, scene.pools.table.capacity)
    held = ""
    if is_late:
        held = _hold_back(scene, [(asking, rows) for asking, at, rows in losses if at == FREE_AT], ends)
    return Refusal(
        demand=demand.id,
        considered=len(live),
        reasons=reasons_of(losses, demand, len(live)),
        is_possible=any(at >= FIRST_PASSING for _, at, _ in losses),
        held_back=held,
    )


def _hold_back(scene: Scene, busy: list[tuple[Asking, Rows]], ends: Mapping[str, Sequence[RunEnd]]) -> str:
    """Keep the pool that lacks the least for the demand: what it lacks shrinks as runs end, so the wait ends too."""
    offers: list[tuple[int, int, int, int, int]] = []
    for index, (asking, rows) in enumerate(busy):
        pools, amount = scene.pools, asking.need.amount
        lacks = np.maximum(0, amount.accelerators - pools.accelerators.free[rows])
        lacks += np.maximum(0, amount.cores - pools.cores.free[rows])
        memory = np.maximum(0, amount.memory_bytes - pools.memory.free[rows])
        score = costs(asking, rows).hourly_micro_cny
        at = int(np.lexsort((pools.rank[rows], score, memory, lacks))[0])
        offers.append((int(lacks[at]), int(memory[at]), int(score[at]), index, int(rows[at])))
    if not offers:
        return ""
    _, _, _, index, row = min(offers)
    asking = busy[index][0]
    pool = scene.pools.at(row).id
    until_ms = shadow_ms(asking.need.amount, scene.pools.free(pool), ends.get(pool, ()))
    scene.held_back[row] = HeldBack(asking.demand.id, until_ms)
    return pool


def _shape(demand: Demand, words: Sequence[str]) -> str:
    """Everything of a demand that decides whether it fits, so that equal ones are refused once."""
    needs = [(need, need.where.text if need.where else "") for need in demand.needs]
    values = [{name: one.get(name) for name in words} for one in demand.values]
    rest = (
        demand.type, demand.caller, demand.nodes, demand.span, demand.network, demand.is_trusted, demand.owners,
        demand.data, demand.unknown_data, demand.deadline_ms, demand.max_duration_s, demand.grace_s,
        demand.budget_micro_cny, demand.refused, demand.pool, demand.price_micro_cny, demand.has_secrets,
    )  # fmt: skip
    return repr((needs, values, rest))


def policy_words(pools: Pools) -> list[str]:
    """The attributes of a demand that any owner's policy reads, in order."""
    if not pools.policies:
        return []
    compiled = (policy.expression for policy in pools.policy.words)
    return sorted({ref.name for expression in compiled if expression is not None for ref in expression.refs})
