"""Who answers, who asks, and how the exchange is doing."""

from __future__ import annotations

from typing import Any

from tieline import __version__
from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.api.platform import Platform
from tieline.exchange.commands import ReadSituation
from tieline.exchange.reading import count_jobs, count_sites
from tieline.model.api import ExchangeView, MeView, SituationView, StatusView
from tieline.model.job import JobState
from tieline.model.protocol import PROTOCOL, PROTOCOL_LEAST

SCOPE = "enterprise"


def exchange_view(platform: Platform) -> ExchangeView:
    """What anybody may know of this exchange."""
    row = platform.exchange
    return ExchangeView(
        id=row.id,
        prefix=row.prefix,
        scope=platform.scope,
        public=platform.keys.key.public,
        fingerprint=platform.fingerprint,
        sealing=platform.sealing_public,
        version=__version__,
        protocols=tuple(range(PROTOCOL, PROTOCOL_LEAST - 1, -1)),
        issuers=platform.issuers.views() if platform.issuers is not None else (),
    )


@operation("GET", "/v1/exchange", tag="exchange")
async def read_exchange(call: Call) -> ExchangeView:
    """Who answers here, with the keys that a caller may pin."""
    return exchange_view(call.platform)


@operation("GET", "/v1/me", tag="exchange")
async def read_me(call: Call) -> MeView:
    """The caller as the exchange sees it."""
    actor = call.actor
    return MeView(
        name=actor.name,
        roles=actor.roles,
        owner=actor.owner,
        right=actor.right,
        groups=actor.groups,
        scopes=actor.scopes,
        project=actor.project,
        job=actor.job,
    )


@operation("GET", "/v1/status", tag="exchange")
async def read_status(call: Call) -> StatusView:
    """How the exchange itself is doing, with every limit of its configuration."""
    platform = call.platform
    view = platform.view
    counts = await platform.read(platform.store.counts)
    jobs = {state.value: counts.get(f"jobs.{state.value}", 0) for state in JobState}
    jobs.update({state: count for state, count in count_jobs(view).items() if count})
    seq, head = platform.writer.position
    return StatusView(
        id=platform.exchange.id,
        version=__version__,
        started_ms=platform.started_ms,
        now_ms=platform.clock.now_ms(),
        events=seq,
        head=head.hex(),
        jobs=jobs,
        sites=count_sites(view),
        pools=len(view.supply.pools),
        records=counts["records"],
        queue_depth=platform.writer.queue_depth,
        store=await platform.read(platform.sizes),
        limits=platform.limit_values(),
        collected=dict(platform.collected()),
        is_writable=platform.writer.is_writable,
    )


@operation("GET", "/v1/situation", tag="exchange")
async def read_situation(call: Call) -> SituationView:
    """The situation in sums: supply, demand, prices, load.

    No owner, user or job is named.
    """
    found: SituationView = await call.platform.ask(ReadSituation(actor=call.actor))
    return found


@operation("GET", "/v1/schema/task", tag="exchange")
async def read_task_schema(call: Call) -> dict[str, Any]:
    """The JSON Schema of a task as this API reads it."""
    return call.platform.task_schema
