"""Logs of records, by prefix: what whoever follows them asks. Nothing of an answer has to be believed (docs/internals).

An answer that carries records begins with one line of JSON that says what follows (`registry/serving.py`: the answer
without its body); then come its bytes, as NDJSON of envelopes, lines of hashes, or the compact digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec

from tieline.api.answer import Answer, encode, packed
from tieline.api.call import Call
from tieline.api.log import LAST_EVENT_ID
from tieline.api.operation import BYTES, EVENTS, NDJSON, Parameter, operation
from tieline.api.peercaller import active_peer
from tieline.api.stream import PING, EventStream, cursor_of, frame
from tieline.api.tailing import LateError
from tieline.drivers.peers.wire import framed
from tieline.model.error import TielineError
from tieline.model.identifier import DOTTED, MAX_IDENTIFIER_BYTES
from tieline.model.kinds import KINDS
from tieline.model.party import Role
from tieline.model.record import Seconds
from tieline.registry.pulling import is_wanted
from tieline.registry.serving import (
    MOST_BUCKETS_ASKED,
    MOST_IDS_ASKED,
    AskBuckets,
    AskDigest,
    AskEnvelopes,
    AskLogs,
    AskRecords,
    AskSnapshot,
    Grant,
    Kinds,
    LogsAnswer,
    Name,
    Request,
    Serial,
    answer,
    granted_line,
)

TAIL_PING_S = 3.0  # so that a listener soon knows that it was cut off
PREFIX = re.compile(DOTTED)
KINDS_PATTERN = rf"\A(({'|'.join(KINDS)})(,({'|'.join(KINDS)})){{0,63}})?\Z"
PREFIXES_PATTERN = r"\A([a-z0-9._-]{1,200}(,[a-z0-9._-]{1,200}){0,63})?\Z"
KindList = Annotated[str, msgspec.Meta(pattern=KINDS_PATTERN, description="only of these kinds, comma-separated")]
IF_NONE_MATCH = Parameter(
    name="If-None-Match",
    description="The `ETag` of the answer that the caller has: 304 when it is still the same.",
    schema={"type": "string"},
)
ETAG = Parameter(name="ETag", description="Names these very bytes.", schema={"type": "string"})


class LogsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which logs."""

    after: Annotated[Name, msgspec.Meta(description="go on after this prefix")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000


class RecordsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records of a log."""

    after: Annotated[Serial, msgspec.Meta(description="go on after this serial")] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=2_000)] = 2_000
    kinds: KindList = ""


class SnapshotQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page."""

    page: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0


class DigestQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which records."""

    kinds: KindList = ""
    alive_s: Annotated[Seconds, msgspec.Meta(description="without what had expired then; 0: all")] = 0


class TailQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is listened for."""

    after: Annotated[str, msgspec.Meta(max_length=80, description="go on after this event")] = ""
    kinds: KindList = ""
    prefixes: Annotated[
        str,
        msgspec.Meta(
            pattern=PREFIXES_PATTERN,
            description="only of these prefixes, what is below and what is above, comma-separated",
        ),
    ] = ""


class BucketsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Buckets that differ, in ascending order."""

    buckets: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, lt=MOST_BUCKETS_ASKED)], ...],
        msgspec.Meta(min_length=1, max_length=MOST_BUCKETS_ASKED),
    ]
    kinds: Kinds = ()
    alive_s: Seconds = 0


class FetchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Identifiers of one log."""

    ids: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=MOST_IDS_ASKED)]


@operation("GET", "/v1/logs", tag="peers")
async def list_logs(call: Call, query: LogsQuery) -> LogsAnswer:
    """Which logs are here: prefix, newest serial and count of each; the session that numbers them."""
    grant = await granted(call)
    found = await call.platform.read(
        answer, call.platform.archive, AskLogs(after=query.after, limit=query.limit), grant
    )
    assert isinstance(found, LogsAnswer)
    return found


@operation("GET", "/v1/logs/{prefix}/records", tag="peers", gives=NDJSON, headers=(IF_NONE_MATCH,), answers=(ETAG,))
async def read_log_records(call: Call, prefix: str, query: RecordsQuery) -> Answer:
    """A page of a log, from a serial on."""
    asked = AskRecords(prefix=_prefix(prefix), after=query.after, limit=query.limit, kinds=_list(query.kinds))
    return await said(call, asked, NDJSON)


@operation("GET", "/v1/logs/{prefix}/snapshot", tag="peers", gives=NDJSON, headers=(IF_NONE_MATCH,), answers=(ETAG,))
async def read_log_snapshot(call: Call, prefix: str, query: SnapshotQuery) -> Answer:
    """A page of the owner's last checkpoint: one signature proves a page's bytes."""
    return await said(call, AskSnapshot(prefix=_prefix(prefix), page=query.page), NDJSON)


@operation("GET", "/v1/logs/{prefix}/digest", tag="peers", gives=BYTES, headers=(IF_NONE_MATCH,), answers=(ETAG,))
async def read_log_digest(call: Call, prefix: str, query: DigestQuery) -> Answer:
    """The 4,096 buckets of a log, compact: two that are equal hold the same."""
    return await said(call, AskDigest(prefix=_prefix(prefix), kinds=_list(query.kinds), alive_s=query.alive_s), BYTES)


@operation("POST", "/v1/logs/{prefix}/buckets", tag="peers", gives=NDJSON, example={"buckets": [0]})
async def read_log_buckets(call: Call, prefix: str, body: BucketsBody) -> Answer:
    """Identifier and hash of every record in the buckets that differ."""
    asked = AskBuckets(prefix=_prefix(prefix), buckets=body.buckets, kinds=body.kinds, alive_s=body.alive_s)
    return await said(call, asked, NDJSON)


@operation("POST", "/v1/logs/{prefix}/fetch", tag="peers", gives=NDJSON, example={"ids": ["cn.demo.lab7/pool/a100"]})
async def fetch_log_records(call: Call, prefix: str, body: FetchBody) -> Answer:
    """Records by identifier, as far as a page goes."""
    return await said(call, AskEnvelopes(prefix=_prefix(prefix), ids=body.ids), NDJSON)


@operation(
    "GET",
    "/v1/tail",
    tag="peers",
    gives=EVENTS,
    errors=("invalid_cursor",),
    headers=(LAST_EVENT_ID,),
    events={"log": "a `TailLine` (its `body` is base64): a log grew from `after` to `serial` by these records"},
)
async def stream_tail(call: Call, query: TailQuery) -> EventStream:
    """What is stored from now on, of all logs, with the records themselves; a comment comes every 3 s."""
    platform = call.platform
    await granted(call)
    kinds = Grant(kinds=_list(query.kinds))
    tail, prefixes = platform.tail, _list(query.prefixes)
    at = await tail.open(cursor_of(call, query.after))

    async def frames() -> AsyncGenerator[bytes, None]:
        cursor = at
        tail.enter()
        try:
            yield PING
            while not platform.hub.is_closed:
                lines = await tail.take(cursor, TAIL_PING_S)
                if not lines:
                    yield PING
                    continue
                cursor = lines[-1][0]
                wanted = [(each, line) for each, line in lines if is_wanted(prefixes, line.prefix)]
                shown = [(each, granted_line(line, kinds)) for each, line in wanted]
                parts = [frame(encode(line), id=tail.name(each), event="log") for each, line in shown if line]
                yield b"".join(parts) or PING
        except LateError:
            return
        finally:
            tail.leave()

    return EventStream(call, frames)


async def granted(call: Call) -> Grant:
    """What the caller may read of the logs. Raises TielineError `forbidden`."""
    if call.actor.has(Role.PEER):
        await active_peer(call, reads=True)
    return Grant()


async def said(call: Call, request: Request, media: str) -> Answer:
    """The answer in its frame, packed where the caller takes that and it helps."""
    platform = call.platform
    grant = await granted(call)

    def made() -> tuple[bytes, list[tuple[bytes, bytes]], str]:
        body = framed(answer(platform.archive, request, grant))
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return *packed(body, call.header(b"accept-encoding")), tag

    body, packing, tag = await platform.read(made)
    named = [(b"etag", tag.encode()), *packing]
    if call.header(b"if-none-match") == tag:
        return Answer(status=304, media=media, headers=named[:2])
    return Answer(body, media=media, headers=named)


def _prefix(text: str) -> str:
    """A prefix from a path; one that breaks another rule of identifiers has no log, and is not found."""
    if len(text) > MAX_IDENTIFIER_BYTES or not PREFIX.fullmatch(text):
        raise TielineError("invalid_identifier", f"`{text[:80]}` is no prefix", where="path")
    return text


def _list(text: str) -> Any:
    return tuple(text.split(",")) if text else ()
