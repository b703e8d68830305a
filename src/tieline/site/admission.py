"""Admission: whether the owner takes an offer, how it will be isolated, and which devices it is given.

The exchange has placed by the same rules; it may be late, mistaken or lying. Nothing is held that is not here.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline.model.protocol import MOST_MEMBERS, MOST_NODES, Ask, Offer, Part
from tieline.model.reason import Reason
from tieline.model.task import Task
from tieline.site.capacity import amount_of, free_of, not_now, too_much
from tieline.site.policy import demand_values, policy_refusal
from tieline.site.pool import ALWAYS, OPTIONAL, Pool
from tieline.site.state import SiteState

TYPES = ("task",)
MOST_PORTS = 16


class Isolation(NamedTuple):
    """How a run is kept apart."""

    engine: str
    sandbox: str
    network: str


class Admission(NamedTuple):
    """What an accepted run is given."""

    isolation: Isolation
    devices: tuple[int, ...]


def admit(state: SiteState, offer: Offer) -> Admission | Reason:
    """What ``offer`` is given here, or why it is refused."""
    if state.is_draining:
        return Reason(code="site_draining")
    for held in state.of_job(offer.job):
        if held.offer.epoch >= offer.epoch and not _is_beside(held.offer, offer):
            return Reason(code="epoch_stale", values={"newest": held.run})
    pool = state.pools.get(offer.pool)
    if pool is None:
        return Reason(code="pool_not_here", values={"pool": offer.pool})
    refusal = _contradiction(state.site, pool, offer) or unwilling(pool, offer) or _too_cheap(pool, offer)
    if refusal is not None:
        return refusal
    isolation = isolate(pool, offer.task, offer.alternative)
    if isinstance(isolation, Reason):
        return isolation
    amount = amount_of(offer)
    free = free_of(state, pool)
    refusal = too_much(pool, amount) or not_now(free, amount)
    return refusal or Admission(isolation, free.devices[: amount.accelerators])


def _is_beside(here: Offer, offer: Offer) -> bool:
    """Whether both are members of one gang: of one epoch, and neither is the other once more."""
    if here.part is None or offer.part is None or here.epoch != offer.epoch:
        return False
    return here.part.members == offer.part.members and here.part.member != offer.part.member


def _contradiction(site: str, pool: Pool, offer: Offer) -> Reason | None:
    """What no honest offer says."""
    nodes = offer.task.nodes
    why = ""
    if min(offer.accelerator_count, offer.core_count, offer.memory_bytes, offer.stop_after_s, offer.epoch) < 0:
        why = "it holds a negative amount"
    elif not 0 <= offer.alternative < len(offer.task.resources):
        why = f"there is no alternative {offer.alternative}"
    elif pool.is_sold_by_core and offer.core_count < nodes:
        why = f"{offer.core_count} cores for {nodes} nodes"
    elif not pool.is_sold_by_core and (offer.accelerator_count < nodes or offer.accelerator_count % nodes):
        why = f"{offer.accelerator_count} accelerators for {nodes} nodes"
    elif not _is_run_name(offer.run):
        why = "the name of the run is none"
    elif offer.part is not None:
        why = _part_contradiction(site, offer, offer.part)
    return Reason(code="offer_wrong", values={"why": why}) if why else None


def _part_contradiction(site: str, offer: Offer, part: Part) -> str:
    """What no honest part of a gang is; empty: nothing."""
    members = part.members
    if not 2 <= len(members) <= MOST_MEMBERS or not 0 <= part.member < len(members):
        return f"it is member {part.member} of {len(members)}, and {MOST_MEMBERS} are allowed"
    own = members[part.member]
    if (own.run, own.site, own.nodes) != (offer.run, site, offer.task.nodes):
        return f"member {part.member} of its gang is another run"
    rank = 0
    for member in members:
        if member.rank != rank or member.nodes < 1 or not _is_run_name(member.run):
            return f"`{member.run[:100]}` has {member.nodes} nodes from rank {member.rank}, the next is {rank}"
        rank += member.nodes
    if rank > MOST_NODES or len({member.run for member in members}) < len(members):
        return f"{len(members)} runs with {rank} nodes, or one of them twice"
    if len(part.ports) > MOST_PORTS or not all(1 <= port <= 65_535 for port in part.ports):
        return f"{len(part.ports)} ports, of which one is none, or more than {MOST_PORTS}"
    return ""


def _is_run_name(run: str) -> bool:
    """Whether it can name a folder: it came from outside."""
    is_short = 0 < len(run) <= 100 and run.isascii()
    return is_short and run[0].isalnum() and all(c.isalnum() or c in "._-" for c in run)


def unwilling(pool: Pool, asked: Offer | Ask) -> Reason | None:
    """What the owner has against this asker or this task, whatever is free; None when nothing."""
    task = asked.task
    if not 0 <= asked.alternative < len(task.resources):
        return Reason(code="offer_wrong", values={"why": f"there is no alternative {asked.alternative}"})
    if task.type not in TYPES:
        return Reason(code="kind_not_offered", values={"asked": task.type})
    if pool.access != "public" and asked.user_owner != pool.owner:
        if pool.access == "private":
            return Reason(code="access_private")
        if not {asked.user, asked.user_owner} & set(pool.partners):
            return Reason(code="access_partner")
    disk = task.resources[asked.alternative].disk_bytes * task.nodes
    if pool.disk_bytes and disk > pool.disk_bytes:
        return Reason(code="disk_total", values={"asked_bytes": disk, "most_bytes": pool.disk_bytes})
    return policy_refusal(pool.policy, pool.partners, demand_values(asked)) if pool.policy else None


def _too_cheap(pool: Pool, offer: Offer) -> Reason | None:
    """Less than the owner asks, or went down to in an answer, is not taken."""
    lowest = pool.price_micro_cny_per_unit_hour
    if pool.counter is not None and pool.counter.price_floor_micro_cny:
        lowest = min(lowest, pool.counter.price_floor_micro_cny)
    if offer.price_micro_cny_per_unit_hour >= lowest:
        return None
    values = {"limit_micro_cny": offer.price_micro_cny_per_unit_hour, "lowest_micro_cny": lowest}
    return Reason(code="price_above", values=dict(values))


def isolate(pool: Pool, task: Task, alternative: int) -> Isolation | Reason:
    """Engine, sandbox and network for a task; untrusted work without a sandbox is refused, never run bare."""
    image = task.resources[alternative].image
    if image:
        if "container" not in pool.engines:
            return Reason(code="image_not_offered", values={"asked": image})
        return _networked(task, "container", "container", pool.networks)
    if "process" not in pool.engines:
        return Reason(code="kind_not_offered", values={"asked": task.type})
    wants_none = task.is_trusted and (not pool.sandbox or pool.sandbox_rule == OPTIONAL)
    if wants_none and pool.sandbox_rule != ALWAYS:
        return _networked(task, "process", "none", tuple(name for name in pool.networks if name == "host"))
    if not pool.sandbox:
        return Reason(code="sandbox_missing")
    return _networked(task, "process", pool.sandbox, pool.networks)


def _networked(task: Task, engine: str, sandbox: str, offered: tuple[str, ...]) -> Isolation | Reason:
    """A gang needs a network to meet on; otherwise the owner's first choice stands where the task has none."""
    asked = task.network or ("host" if task.nodes > 1 or task.span is not None else "")
    if asked and asked not in offered:
        return Reason(code="network_not_offered", values={"asked": asked})
    if not offered:
        return Reason(code="network_not_offered", values={"asked": "host"})
    return Isolation(engine, sandbox, asked or offered[0])
