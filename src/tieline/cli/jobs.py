"""`logs`, `why`, `stop` and `fetch`: one job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import words
from tieline.cli.face import Face, as_json, confirmed, flag, hint, note, option, pass_face, show_json, verb, yes

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.api import EventView, WhyView
    from tieline.model.job import Job


@verb("logs")
@click.argument("job")
@flag("-f", "--follow", help="follow")
@option("--node", default=0, type=click.IntRange(0, 99_999), help="node")
@option("--run", "run_id", default="", help="run_id")
@pass_face
@click.pass_context
def logs(ctx: click.Context, face: Face, job: str, follow: bool, node: int, run_id: str) -> None:
    """What a job printed."""
    from tieline.cli.follow import follow_output, write

    if not follow:
        write(face.call(lambda client: client.log(job, node, run=run_id)))
        return
    is_stated = ctx.get_parameter_source("node") is not click.core.ParameterSource.DEFAULT
    face.call(lambda client: follow_output(client, job, node if is_stated else None))


@verb("why")
@click.argument("job")
@as_json
@pass_face
def why(face: Face, job: str, as_json: bool) -> None:
    """Why a job is where it is."""

    async def work(client: AsyncClient) -> tuple[WhyView, tuple[EventView, ...]]:
        found = await client.why(job)
        return found, (() if as_json else await client.history(job))

    found, history = face.call(work)
    if as_json:
        show_json(found)
        return
    from tieline.cli.events import event_line
    from tieline.cli.show import said, show_nearest, show_reasons, through

    click.echo(f"{found.job}\t{words.word(found.state)}")
    if found.via:
        click.echo("  " + through(found.via))
    for reason in found.reasons[:1]:
        click.echo("  " + said(reason))
    show_reasons(found.reasons[1:])
    show_nearest(found.nearest)
    if found.plan is not None and found.plan.gang is not None:
        note("  " + words.say("would_go", pool=", ".join(each.candidate.pool for each in found.plan.gang.members)))
    elif found.plan is not None and found.plan.chosen:
        note("  " + words.say("would_go", pool=found.plan.chosen))
    if history:
        note(words.say("history"))
    for event in history:
        note("  " + event_line(event))


@verb("stop")
@click.argument("jobs", nargs=-1, required=True)
@option("--why", "reason", default="", help="stop_why")
@yes
@as_json
@pass_face
def stop(face: Face, jobs: tuple[str, ...], reason: str, yes: bool, as_json: bool) -> None:
    """Stop jobs: what waits is cancelled, what runs is ended (checkpoint first where there is one)."""
    confirmed(words.say("stop_it", jobs=", ".join(jobs)), yes or not sys.stdin.isatty())

    async def work(client: AsyncClient) -> list[Job]:
        return [await client.stop(job, reason) for job in jobs]

    from tieline.model.job import JOB_ENDED

    stopped = face.call(work)
    if as_json:
        show_json(stopped)
        return
    for job, found in zip(jobs, stopped, strict=True):
        key = "ended_before" if found.state in JOB_ENDED else "stopping"
        note(words.say(key, job=job, state=words.word(found.state.value)))


@verb("fetch")
@click.argument("job")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@as_json
@pass_face
def fetch(face: Face, job: str, folder: Path, as_json: bool) -> None:
    """Fetch what a job left behind, verified by hash."""
    written = face.call(lambda client: client.fetch(job, folder))
    if as_json:
        show_json([str(path) for path in written])
        return
    for path in written:
        click.echo(str(path))
    if not written:
        note(words.say("no_outputs", job=job))
        hint("tieline run --output PATH -- COMMAND")
