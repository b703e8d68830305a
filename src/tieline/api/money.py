"""What was used and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from tieline.api.call import OPTIONAL_NAME, Call, named
from tieline.api.jobs import job_id
from tieline.api.operation import operation
from tieline.api.platform import Platform
from tieline.exchange.permission import owns
from tieline.market import bills_of
from tieline.model.api import BillPage, Id, UsageKeys, UsagePage
from tieline.model.error import TielineError
from tieline.model.job import Usage
from tieline.model.party import Actor, Role

PAGE = 1_000
MOST_LINES = 20_000
Ms = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which lines."""

    job: Annotated[str, msgspec.Meta(pattern=OPTIONAL_NAME, description="only of this job")] = ""
    after: Annotated[Id, msgspec.Meta(description="go on after the line of this run (`next_after`)")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class BillsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which bills."""

    side: Annotated[
        str, msgspec.Meta(pattern=r"\A(user|owner)\Z", description="user: what users owe; owner: what owners earned")
    ] = "user"
    from_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="runs that ended then or later")] = 0
    until_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="runs that ended before; 0: until now")] = 0


@operation("GET", "/v1/usage", tag="money", errors=("invalid_cursor",))
async def list_usage(call: Call, query: UsageQuery) -> UsagePage:
    """Usage lines, oldest first: of the caller's jobs and of runs at the caller's sites.

    `next_after` is empty at the end; a page may be shorter than its limit before that.
    """
    job = job_id(call.platform, named(query.job.replace("/", "~"), "job")) if query.job else ""
    lines, after = await call.platform.read(_page, call.platform, call.actor, job, query.after, query.limit)
    return UsagePage(lines=tuple(lines), next_after=after)


@operation("GET", "/v1/bills", tag="money", errors=("too_large", "invalid_cursor"))
async def list_bills(call: Call, query: BillsQuery) -> BillPage:
    """Bills: one for each user (what it owes) or owner (what it earned) whose lines the caller may see."""
    lines = await call.platform.read(_lines, call.platform, call.actor, query)
    return BillPage(bills=bills_of(lines, query.side))


@operation("GET", "/v1/usage/keys", tag="money")
async def list_usage_keys(call: Call) -> UsageKeys:
    """The keys by which claims and answers in usage lines are checked: ours, and those of peers as pinned here."""
    platform = call.platform
    peers = sorted(platform.view.peers.copy().items())
    keys = {name: peer.public for name, peer in peers}
    return UsageKeys(exchange=platform.exchange.id, keys={**keys, platform.exchange.id: platform.keys.key.public})


def _page(platform: Platform, actor: Actor, job: str, after: str, limit: int) -> tuple[list[Usage], str]:
    """A page of visible lines and where to go on; one look at the store for each call."""
    found = platform.store.usages(job=job, after=after, limit=limit, **_narrowed(actor))
    shown = [line for line in found if sees_line(actor, line)]
    return shown, found[-1].run if len(found) == limit else ""


def _lines(platform: Platform, actor: Actor, query: BillsQuery) -> list[Usage]:
    return list(_bounded(_all(platform, actor, query)))


def _all(platform: Platform, actor: Actor, query: BillsQuery) -> Iterator[Usage]:
    after = ""
    while True:
        found = platform.store.usages(after=after, limit=PAGE, **_narrowed(actor))
        for line in found:
            if query.until_ms and line.ended_ms >= query.until_ms:
                return
            if line.ended_ms >= query.from_ms and sees_line(actor, line):
                yield line
        if len(found) < PAGE:
            return
        after = found[-1].run


def _bounded(lines: Iterator[Usage]) -> Iterator[Usage]:
    for count, line in enumerate(lines):
        if count >= MOST_LINES:
            raise TielineError(
                "too_large",
                f"more than {MOST_LINES:,} usage lines: narrow the time with `from_ms` and `until_ms`",
                where="from_ms",
            )
        yield line


def _narrowed(actor: Actor) -> dict[str, str]:
    """The filter that an index can answer, where one suffices."""
    if actor.has(Role.ADMIN, Role.AUDITOR):
        return {}
    if not (actor.has(Role.OWNER) and actor.owner):
        return {"user": actor.name}
    return {}


def sees_line(actor: Actor, line: Usage) -> bool:
    """Both sides of a line see it: who used and who provided."""
    return actor.has(Role.ADMIN, Role.AUDITOR) or line.user == actor.name or owns(actor, line.owner)
