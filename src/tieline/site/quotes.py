"""Quotes: what the owner answers when asked before anything is taken: as listed, a counter, or no, with a reason."""

from __future__ import annotations

from tieline.model.protocol import Ask, Quoted
from tieline.model.reason import Reason
from tieline.site.admission import isolate, unwilling
from tieline.site.capacity import Amount, free_at_ms, too_much
from tieline.site.pool import Counter, Pool
from tieline.site.state import SiteState


def answer(state: SiteState, ask: Ask, now_ms: int) -> Quoted:
    """The owner's answer to ``ask``; the same question in the same state has the same answer."""
    if state.is_draining:
        return _no(ask, Reason(code="site_draining"))
    pool = state.pools.get(ask.pool)
    if pool is None:
        return _no(ask, Reason(code="pool_not_here", values={"pool": ask.pool}))
    refusal = unwilling(pool, ask)
    if refusal is not None:
        return _no(ask, refusal)
    isolation = isolate(pool, ask.task, ask.alternative)
    if isinstance(isolation, Reason):
        return _no(ask, isolation)
    asked = _amount(pool, ask)
    refusal = too_much(pool, asked)
    if refusal is not None:
        return _no(ask, refusal)
    free_ms = free_at_ms(state, pool, asked, now_ms)
    if free_ms is None:
        return _no(ask, _busy(pool, asked))
    terms = pool.counter or Counter()
    wait_s = -(-(free_ms - now_ms) // 1000)
    return Quoted(
        quote=ask.quote,
        price_micro_cny_per_unit_hour=_price(pool, ask),
        duration_s=_duration(terms, ask),
        start_after_s=max(terms.start_after_s, wait_s),
        ttl_s=terms.ttl_s,
    )


def _no(ask: Ask, reason: Reason) -> Quoted:
    return Quoted(quote=ask.quote, is_refused=True, reason=reason)


def _amount(pool: Pool, ask: Ask) -> Amount:
    """What the task would hold, over all nodes."""
    task = ask.task
    resources = task.resources[ask.alternative]
    units = max(ask.unit_count, task.nodes)
    if pool.is_sold_by_core:
        return Amount(0, units, resources.memory_bytes * task.nodes)
    return Amount(units, resources.core_count * task.nodes, resources.memory_bytes * task.nodes)


def _busy(pool: Pool, asked: Amount) -> Reason:
    """It would fit, and nobody knows when: a run here has no end."""
    if pool.is_sold_by_core:
        return Reason(code="cores_free", values={"asked": asked.cores, "most": 0})
    return Reason(code="accelerators_free", values={"asked": asked.accelerators, "most": 0})


def _price(pool: Pool, ask: Ask) -> int:
    """The price that is wished for down to the owner's floor; the listed one otherwise, and never more than that."""
    listed, wished = pool.price_micro_cny_per_unit_hour, ask.asked_price_micro_cny_per_unit_hour
    floor = pool.counter.price_floor_micro_cny if pool.counter is not None else 0
    if not wished or wished >= listed or not floor:
        return listed
    return max(wished, floor)


def _duration(terms: Counter, ask: Ask) -> int:
    wished = ask.duration_s or ask.task.max_duration_s
    if terms.max_duration_s and (not wished or wished > terms.max_duration_s):
        return terms.max_duration_s
    return wished
