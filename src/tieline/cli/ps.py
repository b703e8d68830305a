"""`ps`: jobs, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, as_json, flag, hint, is_terminal, option, pass_face, show_json, verb

if TYPE_CHECKING:
    from tieline.model.job import Job

STATES = ("queued", "booked", "staging", "running", "succeeded", "failed", "cancelled")
LIVE = STATES[:4]


@verb("ps")
@option("--state", type=click.Choice(STATES), default=None, help="state")
@option("--user", default="", help="user")
@option("--project", default="", metavar="NAME", help="project_only")
@option("--limit", default=50, type=click.IntRange(1, 1000), help="limit")
@flag("--live", help="live")
@as_json
@pass_face
def ps(face: Face, state: str | None, user: str, project: str, limit: int, live: bool, as_json: bool) -> None:
    """Jobs that you may see."""
    page = face.call(lambda client: client.jobs(state or "", user, limit=limit, project=project))
    jobs = [job for job in page.jobs if job.state in LIVE] if live else list(page.jobs)
    if as_json:
        show_json(jobs)
        return
    import time

    now_ms = int(time.time() * 1000)
    columns: tuple[str, ...] = ("job", "name", "state", "run", "user", "submitted", "charge", "via")
    rows = [_row(job, now_ms) for job in jobs]
    if is_terminal() and not any(job.via for job in jobs):  # programs find the same columns whatever is in them
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table.show(columns, rows, right=(6,))
    if not jobs and is_terminal():
        hint("tieline run -- echo hello")


def _row(job: Job, now_ms: int) -> tuple[str, ...]:
    from tieline.model.quantity import show_money

    return (
        table.short(job.id),
        job.task.name,
        words.word(job.state),
        _run(job),
        job.user,
        table.when(job.submitted_ms, now_ms),
        show_money(job.charged_micro_cny),
        job.via or "-",
    )


def _run(job: Job) -> str:
    """Its newest run; of a gang over several pools the first of them, and for people how many more."""
    if job.members > 1 and is_terminal():
        return words.say("gang_members", run=job.run, more=job.members - 1)
    return job.run or "-"
