"""Capacity: the owner's own count of what is free. Whatever an exchange believes, nothing is given twice."""

from __future__ import annotations

from typing import NamedTuple

from tieline.model.protocol import Offer
from tieline.model.reason import Reason
from tieline.site.pool import Pool
from tieline.site.state import SiteState


class Amount(NamedTuple):
    """Accelerators, cores and memory, over all nodes."""

    accelerators: int
    cores: int
    memory_bytes: int


class Free(NamedTuple):
    """What is left of a pool; the devices in order."""

    devices: tuple[int, ...]
    cores: int
    memory_bytes: int


def amount_of(offer: Offer) -> Amount:
    """What a run holds."""
    return Amount(offer.accelerator_count, offer.core_count, offer.memory_bytes)


def free_of(state: SiteState, pool: Pool) -> Free:
    """What no run holds. Never negative: the owner may have made the pool smaller while runs hold more."""
    taken: dict[int, None] = {}
    cores, memory_bytes = pool.core_count, pool.memory_bytes
    for held in state.holding(pool.id):
        taken.update(dict.fromkeys(held.devices))
        amount = amount_of(held.offer)
        cores -= amount.cores
        memory_bytes -= amount.memory_bytes
    devices = tuple(device for device in pool.devices if device not in taken)
    return Free(devices, max(0, cores), max(0, memory_bytes))


def too_much(pool: Pool, asked: Amount) -> Reason | None:
    """Why ``asked`` never fits the pool, or None."""
    if asked.accelerators > len(pool.devices):
        return Reason(code="accelerators_total", values={"asked": asked.accelerators, "most": len(pool.devices)})
    if asked.cores > pool.core_count:
        return Reason(code="cores_total", values={"asked": asked.cores, "most": pool.core_count})
    if asked.memory_bytes > pool.memory_bytes:
        return Reason(code="memory_total", values={"asked_bytes": asked.memory_bytes, "most_bytes": pool.memory_bytes})
    return None


def not_now(free: Free, asked: Amount) -> Reason | None:
    """Why ``asked`` does not fit what is free, or None."""
    if asked.accelerators > len(free.devices):
        return Reason(code="accelerators_free", values={"asked": asked.accelerators, "most": len(free.devices)})
    if asked.cores > free.cores:
        return Reason(code="cores_free", values={"asked": asked.cores, "most": free.cores})
    if asked.memory_bytes > free.memory_bytes:
        return Reason(code="memory_free", values={"asked_bytes": asked.memory_bytes, "most_bytes": free.memory_bytes})
    return None


def free_at_ms(state: SiteState, pool: Pool, asked: Amount, now_ms: int) -> int | None:
    """When ``asked`` will be free at the latest, by the time limits of the runs; None where that cannot be said."""
    left = free_of(state, pool)
    free = Amount(len(left.devices), left.cores, left.memory_bytes)
    if _covers(free, asked):
        return now_ms
    for held in sorted(state.holding(pool.id), key=lambda held: (held.stop_at_ms or 2**62, held.run)):
        if not held.stop_at_ms:
            return None
        amount = amount_of(held.offer)
        free = Amount(*(have + back for have, back in zip(free, amount, strict=True)))
        if _covers(free, asked):
            return max(now_ms, held.stop_at_ms + held.offer.task.grace_s * 1000)
    return None


def _covers(free: Amount, asked: Amount) -> bool:
    return all(have >= want for have, want in zip(free, asked, strict=True))
