"""Which offers fit, and what would be done with a task now. Nothing is changed."""

from __future__ import annotations

from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.exchange.commands import PlanTasks
from tieline.model.api import FindBody, PlanBody, PlanPage
from tieline.model.plan import Answer


@operation(
    "POST",
    "/v1/find",
    tag="finding",
    errors=("invalid_expression",),
    example={"query": "cores >= 1 and price < 20", "kind": "pool", "limit": 5},
)
async def find(call: Call, body: FindBody) -> Answer:
    """Ranked offers, and counted reasons for everything else that was considered."""
    await call.platform.shown()  # what the caller was just answered, it finds
    return call.platform.indexing.find(body)


@operation(
    "POST",
    "/v1/plans",
    tag="finding",
    errors=("invalid_task", "invalid_expression", "unplaceable", "kind_not_offered"),
    example={"tasks": [{"name": "hello", "run": "echo hello"}]},
)
async def plan(call: Call, body: PlanBody) -> PlanPage:
    """A dry run: where each task would go now, at which price, and why the other pools lost."""
    plans = await call.platform.ask(PlanTasks(actor=call.actor, tasks=body.tasks))
    return PlanPage(plans=tuple(plans))
