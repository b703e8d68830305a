"""Plan: what would happen to one demand now, with every pool accounted for. Nothing is held.

`choose` and `plan` ask the same steps and the same score, so that what a plan shows first is what `choose` takes.
Cost: about 1 ms on 30,000 pools; a few milliseconds more where nothing fits and the nearest change is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tieline.model.plan import Plan
from tieline.model.reason import Reason
from tieline.place.coded import Numbers, Rows
from tieline.place.demand import Demand
from tieline.place.pipeline import FIRST_PASSING, LASTING, Funnel, fitting, funnel, furthest, nearest, reasons_of
from tieline.place.pools import Pools
from tieline.place.scene import Asking, Scene
from tieline.place.score import MOST_SETTLED, candidate, costs, left
from tieline.place.terms import Terms
from tieline.ports import Distances

STRIDE = 256  # pools that are looked at together for the first that would do


class _Ranked(NamedTuple):
    alternative: Numbers
    rows: Rows


def plan(
    demand: Demand,
    pools: Pools,
    distances: Distances,
    *,
    now_ms: int,
    terms: Terms | None = None,
    limit: int = 20,
    held_back: Mapping[str, str] | None = None,
) -> Plan:
    """Rank what fits, account for the rest, and say which change would help where nothing fits.

    ``limit`` bounds the candidates that are listed, not those that are ranked (``fitting`` counts them all; with the
    reasons' counts it adds up to ``considered``). ``held_back`` maps pools to the jobs that they wait for, as the last
    `choose` answered.
    """
    scene = Scene(pools, distances, now_ms, terms)
    scene.hold_back(held_back or {})
    askings = [Asking(scene, demand, need) for need in demand.needs]
    funnels = [_settled(asking, limit) for asking in askings]
    losses = furthest(funnels, pools.table.capacity)
    ranked = _ranked(demand, funnels)
    shown = tuple(
        candidate(askings[int(alternative)], int(row), is_chosen=place == 0)
        for place, (alternative, row) in enumerate(zip(ranked.alternative[:limit], ranked.rows[:limit], strict=True))
    )
    count = len(ranked.rows)
    return Plan(
        name=demand.name,
        candidates=shown,
        considered=len(pools),
        fitting=count,
        chosen=shown[0].pool if shown else "",
        because=_because(shown[0].pool, shown[0].cost_micro_cny_per_hour, count) if shown else None,
        reasons=reasons_of(losses, demand, len(pools)),
        nearest=None if count else nearest(askings, pools.live),
        not_applied=demand.not_applied,
        is_possible=bool(count) or any(at >= FIRST_PASSING for _, at, _ in losses),
        as_of_ms=now_ms,
    )


def is_possible(demand: Demand, pools: Pools, distances: Distances, *, now_ms: int, terms: Terms | None = None) -> bool:
    """Whether anything that exists here could ever run it: what `plan` says of it, without a plan (about 30 us)."""
    scene = Scene(pools, distances, now_ms, terms)
    for need in demand.needs:
        asking = Asking(scene, demand, need)
        rows = pools.posting(need.asked).rows
        steps = [step for step in LASTING if step.asked(asking)]
        for start in range(0, len(rows), STRIDE):
            if len(fitting(asking, rows[start : start + STRIDE], steps)):
                return True
    return False


def _settled(asking: Asking, limit: int) -> Funnel:
    """The funnel of one alternative, once it is known of the first ``limit`` what bringing the data really takes."""
    rows = asking.pools.live
    for _ in range(MOST_SETTLED if asking.is_moving else 0):
        found = funnel(asking, rows).fitting
        score = costs(asking, found).hourly_micro_cny
        first = found[np.lexsort((asking.pools.rank[found], left(asking, found), score))][:limit]
        if not [row for row in first.tolist() if not asking.settle(row)]:
            break
    return funnel(asking, rows)


def _ranked(demand: Demand, funnels: list[Funnel]) -> _Ranked:
    """Every pool that fits, best first, under its best alternative."""
    parts = [(one, one.fitting) for one in funnels if len(one.fitting)]
    if not parts:
        none = np.zeros(0, np.int64)
        return _Ranked(none, none)
    rows = np.concatenate([rows for _, rows in parts])
    alternative = np.concatenate([np.full(len(rows), one.asking.need.index) for one, rows in parts])
    score = np.concatenate([costs(one.asking, rows).hourly_micro_cny for one, rows in parts])
    spare = np.concatenate([left(one.asking, rows) for one, rows in parts])
    pools = funnels[0].asking.pools
    site = pools.table.texts("site")
    avoided = np.isin(site.codes[rows], [site.code(each) for each in demand.avoid])
    first, second = (score, alternative) if not demand.is_ordered else (alternative, score)
    order = np.lexsort((pools.rank[rows], spare, second, first, avoided))
    _, once = np.unique(rows[order], return_index=True)
    order = order[np.sort(once)]
    return _Ranked(alternative[order], rows[order])


def _because(pool: str, cost_micro_cny: int, count: int) -> Reason:
    if count == 1:
        return Reason(code="chosen_only", values={"pool": pool})
    return Reason(code="chosen_cheapest", count=count, values={"pool": pool, "cost_micro_cny": cost_micro_cny})
