"""`plan` and `run`: what would happen, and make it happen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tieline.cli import words
from tieline.cli.face import (
    INTERRUPTED,
    Face,
    as_json,
    confirmed,
    flag,
    hint,
    note,
    pass_context,
    pass_face,
    show_json,
    verb,
    yes,
)
from tieline.cli.taskinput import Asked, asked, task_options

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.job import Job
    from tieline.model.plan import Plan


@verb("plan")
@click.argument("what", nargs=-1, type=click.UNPROCESSED, metavar="FILE | -- COMMAND...")
@task_options
@as_json
@pass_face
@pass_context
def plan(ctx: click.Context, face: Face, what: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """A dry run: nothing is uploaded, submitted or changed."""
    from tieline.cli.show import check_possible, show_plans

    work = asked(ctx, what, options)
    plans = face.call(lambda client: client.plan(work.tasks, project=work.project))
    if as_json:
        show_json(plans)
    else:
        show_plans(plans, work.notes)
    check_possible(plans)


@verb("run")
@click.argument("what", nargs=-1, type=click.UNPROCESSED, metavar="FILE | -- COMMAND...")
@task_options
@yes
@flag("-d", "--detach", help="detach")
@as_json
@pass_face
@pass_context
def run(
    ctx: click.Context, face: Face, what: tuple[str, ...], yes: bool, detach: bool, as_json: bool, **options: Any
) -> None:
    """Plan, ask, submit, follow. Exit code 0 when every job succeeded."""
    work = asked(ctx, what, options)
    jobs: list[Job] = []
    try:
        code = face.call(lambda client: _run(client, work, jobs, is_yes=yes, is_detached=detach, as_json=as_json))
    except KeyboardInterrupt:
        if not jobs:
            raise
        note()
        note(words.say("detached", job=_short(jobs[0])))
        hint(f"tieline logs -f {_short(jobs[0])}", f"tieline stop {_short(jobs[0])}")
        code = INTERRUPTED
    ctx.exit(code)


async def _run(
    client: AsyncClient, work: Asked, jobs: list[Job], *, is_yes: bool, is_detached: bool, as_json: bool
) -> int:
    from tieline.cli.follow import follow_jobs
    from tieline.cli.show import check_possible, show_plans

    plans: tuple[Plan, ...] = await client.plan(work.tasks, project=work.project)
    show_plans(plans, work.notes)
    check_possible(plans)
    confirmed(words.say("run_it", count=len(plans)), is_yes)
    for each in work.works:
        if each.workdir is not None:
            note(words.say("packing", folder=_shown(each.workdir)))
    tasks = await work.packed(client)
    jobs += await client.submit(*tasks, pipeline=work.pipeline, project=work.project, secrets=work.secrets)
    for job in jobs:
        note(words.say("submitted", job=_short(job), name=job.task.name))
    if is_detached:
        if as_json:
            show_json(jobs)
        hint(f"tieline logs -f {_short(jobs[0])}")
        return 0
    views = await follow_jobs(client, [job.id for job in jobs], is_quiet=as_json)
    if as_json:
        show_json(views)
    return 0 if all(view.job.state == "succeeded" for view in views) else 1


def _short(job: Job) -> str:
    return job.id.rpartition("/")[2]


def _shown(folder: Path) -> str:
    return str(folder)
