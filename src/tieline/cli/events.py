"""`events`: the log of everything that happened, and whether its hash chain holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from tieline.cli import table, words
from tieline.cli.face import Face, as_json, flag, note, option, pass_face, show_json, verb
from tieline.model.job import Break

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.api import EventView

MOST_DETAIL = 100


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run was offered."""

    pool: str = ""
    via: str = ""
    offered_ms: int = 0
    as_of_ms: int = 0
    members: int = 0
    rank: int = 0
    nodes: int = 0


class _Offered(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an offer, as far as it is shown."""

    run: _Run = _Run()


class _Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a gang's break: whose run did not end well, and why."""

    why: Break


@verb("events")
@option("--after", default=0, type=click.IntRange(0), help="after")
@option("--job", default="", help="job_only")
@option("--limit", default=100, type=click.IntRange(1, 1000), help="limit")
@flag("-f", "--follow", help="follow_events")
@flag("--verify", help="verify_log")
@as_json
@pass_face
@click.pass_context
def events(
    ctx: click.Context, face: Face, after: int, job: str, limit: int, follow: bool, verify: bool, as_json: bool
) -> None:
    """The event log."""
    if verify:
        _verify(ctx, face, as_json)
        return
    if follow:
        face.call(lambda client: _follow(client, after, as_json))
        return
    page = face.call(lambda client: client.events(after, limit, job))
    if as_json:
        show_json(page.events)
        return
    for event in page.events:
        click.echo(event_line(event))


def event_line(event: EventView) -> str:
    """One entry on one line: position, time, what, of whom, by whom, from where and under which right."""
    return "\t".join(
        (
            f"{event.seq}",
            table.stamp(event.time_ms),
            event.kind,
            table.clean(event.subject),
            table.clean(event.actor),
            table.clean(event.source) or "-",
            _detail(event),
        )
    )


def _detail(event: EventView) -> str:
    """What the entry's own reason says, if it has one; of an offer to whom it went."""
    from tieline.cli.gang import ranks
    from tieline.cli.show import Because, said, through

    if event.kind == "run_offered":
        run = msgspec.json.decode(event.body, type=_Offered).run
        if run.members:
            return f"{table.clean(run.pool)} [{ranks(run.rank, run.nodes)}]"
        return table.clean(run.pool) + ("; " + through(run.via, run.offered_ms - run.as_of_ms) if run.via else "")
    if event.kind == "gang_broken":
        broken = msgspec.json.decode(event.body, type=_Broken).why
        return table.cut(f"{table.clean(broken.site)}: {said(broken.reason)}", MOST_DETAIL)
    try:
        part = msgspec.json.decode(event.body, type=Because)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return ""
    reason = part.reason or (part.reasons[0] if part.reasons else None)
    return table.cut(said(reason), MOST_DETAIL) if reason is not None else ""


async def _follow(client: AsyncClient, after: int, as_json: bool) -> None:
    """Entries as they come, one JSON object to a line with ``as_json``; until interrupted."""
    from tieline.model.api import EventView

    async for event in client.stream(after):
        if event.event not in ("", "message") or not event.data:
            continue
        if as_json:
            click.echo(event.data)
            continue
        click.echo(event_line(msgspec.json.decode(event.data, type=EventView)))


def _verify(ctx: click.Context, face: Face, as_json: bool) -> None:
    found = face.call(lambda client: client.verify_log())
    if as_json:
        show_json(found)
    elif found.is_verified:
        note(words.say("chain_holds", events=found.events, head=found.head))
    else:
        note(words.say("chain_broken", at=found.broken_at, why=table.clean(found.why)))
    ctx.exit(0 if found.is_verified else 1)
