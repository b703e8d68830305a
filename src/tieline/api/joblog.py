"""What a job printed: the part that is kept, and the rest as it comes."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from typing import Annotated

import msgspec
from litestar.types import Receive, Scope, Send

from tieline.api.answer import PLAIN
from tieline.api.call import Call, named
from tieline.api.hub import log_name
from tieline.api.jobs import job_id, visible_job
from tieline.api.log import LAST_EVENT_ID
from tieline.api.operation import BYTES, EVENTS, Parameter, operation
from tieline.api.platform import Platform
from tieline.api.stream import PING, PING_S, EventStream, cursor_of, frame
from tieline.drivers.stores.columns import short
from tieline.exchange.meeting import Node, node_among
from tieline.exchange.permission import no_such
from tieline.exchange.projects import sees_work
from tieline.model.api import JobView
from tieline.model.error import TielineError
from tieline.model.job import JOB_ENDED, Job

PIECE_BYTES = 262_144
CURSOR = re.compile(r"([1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,14})")
Rank = Annotated[int, msgspec.Meta(ge=0, le=99_999, description="rank within the gang")]


class LogQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of which log."""

    node: Rank = 0
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="begin at this byte")] = 0
    run: Annotated[
        str, msgspec.Meta(pattern=r"\A([a-z0-9][a-z0-9._-]{0,199})?\Z", description="this run; else the latest")
    ] = ""


class FollowQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to begin."""

    node: Rank = 0
    after: Annotated[str, msgspec.Meta(max_length=80, description="go on after this event (`<epoch>.<offset>`)")] = ""


class LogAnswer:
    """A part of a log, read in pieces while it is sent."""

    __slots__ = ("call", "node", "offset", "run", "size")

    def __init__(self, call: Call, run: str, node: int, offset: int, size: int) -> None:
        self.call, self.run, self.node, self.offset, self.size = call, run, node, offset, size

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [
            (b"content-type", BYTES.encode()),
            (b"content-length", str(self.size - self.offset).encode()),
            (b"tieline-log-run", self.run.encode()),
            (b"tieline-log-next", str(self.size).encode()),
            *PLAIN,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        at = self.offset
        while at < self.size:
            wanted = min(PIECE_BYTES, self.size - at)
            piece = await self.call.platform.logs.read(self.run, self.node, at, wanted)
            if not piece:
                raise TielineError("internal", f"the log of {self.run} became shorter while it was read")
            at += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@operation(
    "GET",
    "/v1/jobs/{job}/log",
    tag="jobs",
    gives=BYTES,
    answers=(
        Parameter(name="Tieline-Log-Run", description="the run; empty before the first", schema={"type": "string"}),
        Parameter(
            name="Tieline-Log-Next",
            description="the offset after the last byte here",
            schema={"type": "integer", "minimum": 0},
        ),
    ),
)
async def read_job_log(call: Call, job: str, query: LogQuery) -> LogAnswer:
    """The output of a node that is kept, as bytes from `offset` on.

    The node is known by its rank in the job's latest gang, or in the named run.
    """
    view = await readable_job(call, job)
    if query.run:
        named_run = next((run for run in view.runs if run.id == query.run), None)
        if named_run is None:
            raise no_such("run", query.run)
        found = Node(named_run, query.node)
    else:
        newest = max((run.epoch for run in view.runs), default=0)
        node = node_among((run for run in view.runs if run.epoch == newest), query.node)
        if node is None:
            return LogAnswer(call, "", query.node, 0, 0)
        found = node
    size = await call.platform.logs.size(found.run.id, found.local)
    return LogAnswer(call, found.run.id, found.local, min(query.offset, size), size)


@operation(
    "GET",
    "/v1/jobs/{job}/log/stream",
    tag="jobs",
    gives=EVENTS,
    errors=("invalid_cursor",),
    headers=(LAST_EVENT_ID,),
    events={
        "log": "bytes in base64; the event's `id` is `<epoch>.<offset after them>`",
        "end": "JSON: the `state` in which the job ended; the stream is over",
    },
)
async def stream_job_log(call: Call, job: str, query: FollowQuery) -> EventStream:
    """The output as it comes, over all runs from the latest one on, until the job has ended."""
    view = await readable_job(call, job)
    epoch, offset = cursor(call, query.after, view)
    platform, name = call.platform, view.job.id
    run, node = await _log_of(platform, view.job, epoch, query.node)

    async def frames() -> AsyncGenerator[bytes, None]:
        nonlocal epoch, offset, run, node
        while not platform.hub.is_closed:
            with platform.hub.waiting(short(name), log_name(run)) as more:
                piece = await platform.logs.read(run, node, offset, PIECE_BYTES) if epoch else b""
                if piece:
                    offset += len(piece)
                    yield frame(base64.b64encode(piece), id=f"{epoch}.{offset}", event="log")
                    continue
                now = await platform.read(platform.store.job, name)
                if now is None:
                    return
                if now.epoch > epoch:
                    epoch, offset = now.epoch, 0
                    run, node = await _log_of(platform, now, epoch, query.node)
                    continue
                if now.state in JOB_ENDED:
                    rest = await platform.logs.read(run, node, offset, PIECE_BYTES) if epoch else b""
                    if rest:
                        continue
                    yield frame(msgspec.json.encode({"state": now.state.value}), event="end")
                    return
                done, _ = await asyncio.wait((more,), timeout=PING_S)
            if not done:
                yield PING

    return EventStream(call, frames)


async def _log_of(platform: Platform, job: Job, epoch: int, rank: int) -> tuple[str, int]:
    """Whose log a node's output of that epoch is in: a run, and the node's rank within it."""
    first = f"{short(job.id)}.{epoch}"
    if job.task.span is None or not epoch:
        return first, rank
    runs = await platform.read(platform.store.runs, job.id)
    found = node_among((run for run in runs if run.epoch == epoch), rank)
    return (found.run.id, found.local) if found is not None else (first, rank)


def cursor(call: Call, after: str, view: JobView) -> tuple[int, int]:
    """Epoch and offset to go on from: the latest run's beginning without a cursor. Raises `invalid_cursor`."""
    text = cursor_of(call, after)
    if not text:
        return view.job.epoch, 0
    match = CURSOR.fullmatch(text)
    if match is None or int(match[1]) > view.job.epoch:
        raise TielineError("invalid_cursor", f"`{text[:40]}` is no `<epoch>.<offset>` of this job's log", where="after")
    return int(match[1]), int(match[2])


async def readable_job(call: Call, job: str) -> JobView:
    """The job, if the caller may read what it printed: its user, members of its project, admins, auditors."""
    name = job_id(call.platform, named(job))
    call.note(job=name)
    view = await visible_job(call.platform, call.actor, name)
    if not sees_work(call.platform.view, call.actor, view.job.user, view.job.project):
        raise no_such("log of", name)
    return view
