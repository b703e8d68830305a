"""Which offers fit, and what would be done with a task now. Nothing is changed."""

from __future__ import annotations

import msgspec

from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.api.platform import Platform
from tieline.exchange.commands import PlanTasks
from tieline.exchange.peers import silence_of
from tieline.exchange.view import Branch
from tieline.exchange.ways import heard_ms
from tieline.model.api import FindBody, PlanBody, PlanPage
from tieline.model.peer import PeerState
from tieline.model.plan import Answer, BranchAnswer, Offer

replace = msgspec.structs.replace
FRESH_MS = 500  # what was heard so shortly before the question is as good as asked


@operation(
    "POST",
    "/v1/find",
    tag="finding",
    errors=("invalid_expression",),
    example={"query": "cores >= 1 and price < 20", "kind": "pool", "limit": 5},
)
async def find(call: Call, body: FindBody) -> Answer:
    """Ranked offers, and counted reasons for everything else that was considered."""
    platform = call.platform
    await platform.shown()  # what the caller was just answered, it finds
    asked_ms = platform.clock.now_ms()
    if body.branch_budget_ms and platform.federation is not None:
        await platform.federation.refresh(body.branch_budget_ms)
    branches = branches_at(platform)
    if body.branch_budget_ms and platform.federation is not None:
        branches = tuple(replace(each, is_late=each.is_reached and is_old(each, asked_ms)) for each in branches)
    platform.indexing.heard_branches()
    found = platform.indexing.find(body)
    return replace(
        found,
        offers=tuple(with_way(platform, offer) for offer in found.offers),
        branches=branches,
        unreachable=tuple(branch.exchange for branch in branches if not branch.is_reached),
        is_partial=any(not branch.is_reached or is_old(branch, asked_ms) for branch in branches),
    )


def is_old(branch: BranchAnswer, asked_ms: int) -> bool:
    """Whether what is known of a branch is older than the question."""
    return branch.as_of_ms + FRESH_MS < asked_ms


def branches_at(platform: Platform) -> tuple[BranchAnswer, ...]:
    """How old what is known of each active peer is."""
    view = platform.view
    found: list[BranchAnswer] = []
    for name, peer in sorted(view.peers.copy().items()):
        if peer.state is not PeerState.ACTIVE:
            continue
        branch = view.branches.get(name) or Branch()
        is_reached = bool(branch.heard_ms) and not branch.error
        silence = silence_of(view, name, platform.clock.now_ms())
        found.append(
            BranchAnswer(
                exchange=name,
                as_of_ms=branch.heard_ms,
                is_reached=is_reached,
                error=branch.error,
                silent_since_ms=silence.since_ms if silence is not None else 0,
                stale=silence.stale if silence is not None else 0,
                is_frozen=silence is not None and silence.is_frozen,
            )
        )
    return tuple(found)


def with_way(platform: Platform, offer: Offer) -> Offer:
    """``offer`` with the exchange that leads there, how old what is known of it is, and whether its lease is over."""
    view, site = platform.view, ""
    if offer.kind == "site":
        site = offer.id
    elif offer.kind == "pool":
        row = view.supply.pools.get(offer.id)
        site = row.site if row is not None else ""
    via = view.way_to(site) if site else ""
    is_stale = platform.indexing.index.is_over(offer.id)
    return replace(offer, via=via, as_of_ms=heard_ms(view, via), is_stale=is_stale) if via or is_stale else offer


@operation(
    "POST",
    "/v1/plans",
    tag="finding",
    errors=("invalid_task", "invalid_expression", "unplaceable", "kind_not_offered"),
    example={"tasks": [{"name": "hello", "run": "echo hello"}]},
)
async def plan(call: Call, body: PlanBody) -> PlanPage:
    """A dry run: where each task would go now, at which price, and why the other pools lost."""
    plans = await call.platform.ask(PlanTasks(actor=call.actor, tasks=body.tasks, project=body.project))
    return PlanPage(plans=tuple(plans))
