"""Everything that happened, hash-chained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

import msgspec

from tieline.api.call import OPTIONAL_NAME, Call
from tieline.api.hub import HEAD
from tieline.api.operation import EVENTS, Parameter, operation
from tieline.api.stream import PING, PING_S, EventStream, frame, position, seq_of
from tieline.drivers.stores.log import LogRow
from tieline.drivers.stores.reader import event_view
from tieline.model.api import EventPage, VerifyView
from tieline.model.error import TielineError
from tieline.model.party import Role

STREAM_ROWS = 500
MOST_SCANNED = 20_000  # entries that one page looks at for a caller who may see few of them
GATHER_S = 0.02  # a stream that was woken waits so long for more to come
encode = msgspec.json.Encoder().encode
LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    description="Go on after this event; it is stronger than `after`.",
    schema={"type": "string", "maxLength": 80},
)


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="go on after this position (`next_after`)")] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="go on after this position (`next_after`)")] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    job: Annotated[str, msgspec.Meta(pattern=OPTIONAL_NAME, description="only of this job")] = ""


class AfterQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to begin."""

    after: Annotated[str, msgspec.Meta(max_length=80, description="go on after this event; 0 is the beginning")] = ""


@operation("GET", "/v1/events", tag="log", errors=("invalid_cursor",))
async def list_events(call: Call, query: EventsQuery) -> EventPage:
    """A page of the event log, as far as the caller may see it.

    `next_after` is where to go on, also when the caller may see nothing of what was looked at; a page that is shorter
    than its limit is not the end, a `next_after` that does not grow is.
    """
    job = query.job.replace("~", "/").rpartition("/")[2]
    return await event_page(call, EventQuery(after=query.after, limit=query.limit), job)


@operation(
    "GET",
    "/v1/events/stream",
    tag="log",
    gives=EVENTS,
    errors=("invalid_cursor",),
    headers=(LAST_EVENT_ID,),
    events={"(unnamed)": "an `EventView`; its `id` is its position"},
)
async def stream_events(call: Call, query: AfterQuery) -> EventStream:
    """The event log as it grows, from any position on, as far as the caller may see it.

    A comment comes every 15 s. The stream is read from the log itself: a slow reader misses nothing.
    """
    platform = call.platform
    after = seq_of(call, query.after, platform.hub.head)

    async def frames() -> AsyncGenerator[bytes, None]:
        cursor = said = after
        while not platform.hub.is_closed:
            with platform.hub.waiting(HEAD) as more:
                rows = await platform.read(platform.store.log_rows, cursor, STREAM_ROWS)
                if rows:
                    cursor = rows[-1].seq
                    shown = await visible_rows(call, rows)
                    if shown:
                        said = shown[-1].seq
                        yield b"".join(frame(encode(event_view(row)), id=str(row.seq)) for row in shown)
                    continue
                done, _ = await asyncio.wait((more,), timeout=PING_S)
            if done:
                await asyncio.sleep(GATHER_S)
            elif cursor > said:
                said = cursor
                yield position(cursor)
            else:
                yield PING

    return EventStream(call, frames)


@operation("GET", "/v1/events/verify", tag="log")
async def verify_events(call: Call) -> VerifyView:
    """Whether the hash chain holds from the first entry to the last."""
    return await call.platform.read(call.platform.store.verify_chain)


async def event_page(call: Call, query: EventQuery, job: str) -> EventPage:
    """A page of what the caller may see; looks at a bounded number of entries."""
    platform = call.platform
    if query.after > platform.hub.head:
        raise TielineError(
            "invalid_cursor", f"`{query.after}` is no position from 0 to {platform.hub.head:,}", where="after"
        )
    found: list[LogRow] = []
    after, scanned = query.after, 0
    while len(found) < query.limit and scanned < MOST_SCANNED:
        wanted = min(1_000, query.limit - len(found)) if not scanned else 1_000
        rows = await platform.read(platform.store.log_rows, after, wanted, job=job)
        scanned += len(rows)
        shown = await visible_rows(call, rows)
        room = query.limit - len(found)
        found.extend(shown[:room])
        if len(shown) > room:
            after = found[-1].seq
            break
        if rows:
            after = rows[-1].seq
        if len(rows) < wanted:
            break
    return EventPage(events=tuple(event_view(row) for row in found), next_after=after)


async def visible_rows(call: Call, rows: Sequence[LogRow]) -> list[LogRow]:
    """Those of ``rows`` that the caller may see; where they came from only for those who may see everything."""
    platform = call.platform
    await platform.learn(platform.facts.unknown(row.job for row in rows))
    members = platform.view.members
    shown = [row for row in rows if platform.facts.sees(call.actor, row, members)]
    if call.actor.has(Role.ADMIN, Role.AUDITOR):
        return shown
    return [row._replace(source=None) for row in shown]
