"""What a site process says and hears. It dials out; its session's bearer opens nothing but this."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncGenerator
from typing import Annotated

import msgspec

from tieline.api.call import Call, named
from tieline.api.hub import Mailbox, OverError, session_name
from tieline.api.log import LAST_EVENT_ID, AfterQuery
from tieline.api.operation import BYTES, EVENTS, operation
from tieline.api.platform import Platform
from tieline.api.sealing import for_site
from tieline.api.stated import stated_caller
from tieline.api.stream import PING, PING_S, EventStream, frame, seq_of
from tieline.exchange.commands import OpenSession, TakeBeat, TakeReport
from tieline.exchange.permission import no_such
from tieline.model.api import LogKept
from tieline.model.error import TielineError
from tieline.model.party import Site
from tieline.model.protocol import (
    Accepted,
    Batch,
    Beat,
    Beaten,
    Hello,
    Orders,
    Outcome,
    Outcomes,
    Resync,
    Signed,
    Welcome,
)
from tieline.registry import open_statement, stated

encode = msgspec.json.Encoder().encode
HELLO, BEAT = "site-hello", "site-beat"
SESSION_S = 10.0
ENVELOPE_EXAMPLE = {"statement": '{"payload":"e30","protected":"e30","signature":"AA"}'}


class RunLogQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the bytes belong."""

    node: Annotated[int, msgspec.Meta(ge=0, le=99_999, description="rank within the gang")] = 0
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="of the first byte in the node's log")] = 0


@operation(
    "POST",
    "/v1/site/sessions",
    tag="site side",
    status=201,
    errors=("unauthenticated", "forbidden", "version_not_supported"),
    example=ENVELOPE_EXAMPLE,
)
async def open_session(call: Call, body: Signed) -> Welcome:
    """A site process proves the site's key with a signed hello, and is given a bearer.

    The newest session is the only one. A hello is used once: opening a session again needs a new one.
    """
    platform = call.platform
    statement = body.statement.encode()
    hello, kid = open_statement(statement, HELLO, Hello)
    call.note(site=hello.site)
    bearer = secrets.token_urlsafe(32)
    reply: tuple[Site, tuple[Orders, ...]] = await platform.ask(
        OpenSession(
            actor=stated_caller(call, hello.site, f"key {kid}"),
            statement=statement,
            hello=hello,
            bearer_sha256=hashlib.sha256(bearer.encode()).hexdigest(),
        )
    )
    site, orders = reply
    return Welcome(
        bearer=bearer,
        protocol=site.protocol,
        cursor=await session_cursor(platform, site),
        lease_ms=platform.limits.lease_ms,
        beat_ms=platform.limits.beat_ms,
        exchange=platform.exchange.id,
        proof=platform.prove(hello.nonce),
        is_admitted=site.is_admitted,
        is_draining=site.is_draining,
        orders=orders,
    )


async def session_cursor(platform: Platform, site: Site) -> int:
    """The position of the session's own event: all orders before it are in the welcome."""
    hub = platform.hub
    while hub.line(site.id).session < site.session and not hub.is_closed:
        with hub.waiting(session_name(site.id)) as opened:
            if hub.line(site.id).session < site.session and not await platform.within(opened, SESSION_S):
                raise TielineError("overloaded", "the session's beginning is not known yet")
    return hub.line(site.id).opened_seq


@operation(
    "GET",
    "/v1/site/stream",
    tag="site side",
    gives=EVENTS,
    errors=("invalid_cursor",),
    headers=(LAST_EVENT_ID,),
    events={
        "order": "an order: `offer`, `stop`, `ask`, `drain`, `resync` or `summon`; its `id`, where it has one, is the "
        "cursor to resume from"
    },
)
async def stream_orders(call: Call, query: AfterQuery) -> EventStream:
    """The orders to this site, from the welcome's `cursor` on.

    When they cannot be resumed from there, or a newer session was opened, a `resync` comes and the stream ends.
    """
    platform, site = call.platform, call.actor.name
    call.note(site=site)
    after = seq_of(call, query.after, platform.hub.head)
    mailbox = Mailbox()

    async def frames() -> AsyncGenerator[bytes, None]:
        if not platform.hub.open_line(site, after, mailbox):
            yield _order(after, Resync(why=f"orders after {after} are not remembered"))
            return
        try:
            yield PING
            while True:
                orders = await mailbox.take(PING_S)
                yield b"".join(_order(seq, order) for seq, _, order in orders) or PING
        except OverError as over:
            yield _order(platform.hub.head, Resync(why=over.why))
        finally:
            platform.hub.close_line(site, mailbox)

    return EventStream(call, frames)


def _order(seq: int, order: Orders) -> bytes:
    return frame(encode(order), id=str(seq) if seq else "", event="order")


@operation(
    "POST",
    "/v1/site/reports",
    tag="site side",
    errors=("conflict", "forbidden"),
    example={"reports": [{"report": "refused", "run": "j-0.1", "epoch": 1, "reason": {"code": "site_draining"}}]},
)
async def report(call: Call, body: Batch) -> Outcomes:
    """Reports of a site, taken in order. The same report again is answered as before."""
    platform, site = call.platform, call.actor.name
    call.note(site=site)
    commands = [TakeReport(actor=call.actor, site=site, report=report) for report in body.reports]
    outcomes: list[Outcome] = await platform.ask_many(commands)
    for at, (said, outcome) in enumerate(zip(body.reports, outcomes, strict=True)):
        if isinstance(said, Accepted) and outcome.is_ok:
            outcomes[at] = await with_secrets(platform, site, said.run, outcome)
    return Outcomes(outcomes=tuple(outcomes))


async def with_secrets(platform: Platform, site: str, run: str, outcome: Outcome) -> Outcome:
    """The outcome of an acceptance with the task's secrets, sealed to the site that accepted."""
    view = platform.view
    found = view.runs.get(run)
    job = view.jobs.peek(found.job) if found is not None and found.site == site else None
    if job is None or found is None:
        return outcome
    sealed = await for_site(platform, job, found, view.sites[site].sealing)
    return msgspec.structs.replace(outcome, sealed=sealed) if sealed else outcome


@operation("POST", "/v1/site/heartbeat", tag="site side", errors=("conflict",), example=ENVELOPE_EXAMPLE)
async def beat(call: Call, body: Signed) -> Beaten:
    """One signed vector of the whole site: what is available now, and which runs are alive. Last value only."""
    platform, name = call.platform, call.actor.name
    site = platform.view.sites.get(name)
    if site is None:
        raise TielineError("unauthenticated", f"`{name}` has no session here")
    said = stated(body.statement.encode(), site.public, BEAT, Beat)
    if said.site != name:
        raise TielineError("forbidden", f"this is the heartbeat of `{said.site}`, the session is `{name}`'s")
    beaten: Beaten = await platform.ask(TakeBeat(actor=call.actor, site=name, beat=said))
    platform.indexing.heard(name)
    return beaten


@operation(
    "POST",
    "/v1/site/runs/{run}/log",
    tag="site side",
    takes=BYTES,
    errors=("storage_full",),
    example="epoch 1: accuracy 0.97\n",
)
async def store_run_log(call: Call, run: str, query: RunLogQuery) -> LogKept:
    """Bytes of a run's output. The answer states how much is kept; the site goes on from there."""
    platform, site, name = call.platform, call.actor.name, named(run)
    call.note(site=site, run=name)
    call.expect(BYTES)
    if not await is_run_of(platform, name, site):
        raise no_such("run", name)
    content = await call.whole(platform.limits.body_bytes)
    return await platform.keep_log(name, query.node, query.offset, content)


async def is_run_of(platform: Platform, run: str, site: str) -> bool:
    """Whether the run is, or was, this site's."""
    view = platform.view
    found = view.runs.get(run) or view.recent.get(run)
    if found is None:
        found = await platform.read(platform.store.run, run)
    return found is not None and found.site == site
