"""What was used and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

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
from tieline.model.spec import OptionalWord
from tieline.registry.delegated import refusal

PAGE = 1_000
MOST_LINES = 20_000
Ms = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which lines."""

    job: Annotated[str, msgspec.Meta(pattern=OPTIONAL_NAME, description="only of this job")] = ""
    project: Annotated[OptionalWord, msgspec.Meta(description="of this project; its members see all of its lines")] = ""
    after: Annotated[Id, msgspec.Meta(description="go on after the line of this run (`next_after`)")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class BillsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which bills."""

    side: Annotated[
        str, msgspec.Meta(pattern=r"\A(user|owner)\Z", description="user: what users owe; owner: what owners earned")
    ] = "user"
    from_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="runs that ended then or later")] = 0
    until_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="runs that ended before; 0: until now")] = 0
    project: Annotated[OptionalWord, msgspec.Meta(description="lines of this project; its members see all of them")] = (
        ""
    )


@operation("GET", "/v1/usage", tag="money", errors=("invalid_cursor",))
async def list_usage(call: Call, query: UsageQuery) -> UsagePage:
    """Usage lines, oldest first: of the caller's jobs, of runs at the caller's sites, or of a project that it is in.

    `next_after` is empty at the end; a page may be shorter than its limit before that.
    """
    job = job_id(call.platform, named(query.job.replace("/", "~"), "job")) if query.job else ""
    seen = seen_lines(call, query.project)
    lines, after = await call.platform.read(_page, call.platform, seen, job, query.after, query.limit)
    return UsagePage(lines=tuple(lines), next_after=after)


@operation("GET", "/v1/bills", tag="money", errors=("too_large", "invalid_cursor"))
async def list_bills(call: Call, query: BillsQuery) -> BillPage:
    """Bills: one for each user (what it owes) or owner (what it earned) whose lines the caller may see."""
    lines = await call.platform.read(_lines, call.platform, seen_lines(call, query.project), query)
    return BillPage(bills=bills_of(lines, query.side))


@operation("GET", "/v1/usage/keys", tag="money")
async def list_usage_keys(call: Call) -> UsageKeys:
    """The keys by which claims and answers in usage lines are checked: ours, and those of peers as pinned here."""
    platform = call.platform
    peers = sorted(platform.view.peers.copy().items())
    keys = {name: peer.public for name, peer in peers}
    return UsageKeys(exchange=platform.exchange.id, keys={**keys, platform.exchange.id: platform.keys.key.public})


class Seen(NamedTuple):
    """Which lines a caller asks for and may see."""

    actor: Actor
    project: str  # only of this one; empty: any
    is_member: bool  # of that project: it sees all of its lines

    @property
    def filters(self) -> dict[str, str]:
        """The filters that an index can answer, where they suffice."""
        filters = {"project": self.project} if self.project else {}
        if self.is_member or self.actor.has(Role.ADMIN, Role.AUDITOR):
            return filters
        if not (self.actor.has(Role.OWNER) and self.actor.owner):
            filters["user"] = self.actor.name
        return filters

    def sees(self, line: Usage) -> bool:
        """Both sides of a line see it: who used and who provided; and who shares the budget that it counts for."""
        if self.project and line.project != self.project:
            return False
        if self.is_member or self.actor.has(Role.ADMIN, Role.AUDITOR):
            return True
        return line.user == self.actor.name or owns(self.actor, line.owner)


def seen_lines(call: Call, asked: str) -> Seen:
    """What the caller may see; a token that is bound to a project sees the lines of that one alone.

    Raises TielineError `forbidden` where such a token asks for another project.
    """
    actor = call.actor
    project = asked or actor.project
    if actor.project not in ("", project):
        raise refusal("token_bound", "forbidden", what="project", bound=actor.project, asked=asked)
    return Seen(actor, project, bool(project) and call.platform.view.members.role(actor, project) is not None)


def _page(platform: Platform, seen: Seen, job: str, after: str, limit: int) -> tuple[list[Usage], str]:
    """A page of visible lines and where to go on; one look at the store for each call."""
    found = platform.store.usages(job=job, after=after, limit=limit, **seen.filters)
    shown = [line for line in found if seen.sees(line)]
    return shown, found[-1].run if len(found) == limit else ""


def _lines(platform: Platform, seen: Seen, query: BillsQuery) -> list[Usage]:
    return list(_bounded(_all(platform, seen, query)))


def _all(platform: Platform, seen: Seen, query: BillsQuery) -> Iterator[Usage]:
    after = ""
    while True:
        found = platform.store.usages(after=after, limit=PAGE, **seen.filters)
        for line in found:
            if query.until_ms and line.ended_ms >= query.until_ms:
                return
            if line.ended_ms >= query.from_ms and seen.sees(line):
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
