"""Work, from its submission to its end."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import msgspec

from tieline.api.call import OPTIONAL_NAME, Call, named
from tieline.api.hub import end_name
from tieline.api.log import EventQuery, event_page
from tieline.api.operation import Follow, operation
from tieline.api.platform import Platform
from tieline.api.quotes import TASK_ERRORS
from tieline.api.reading import check_taken_along
from tieline.api.sealing import kept_secrets
from tieline.drivers.stores.columns import short
from tieline.exchange.commands import StopJob, SubmitJobs, WhyJob
from tieline.exchange.permission import no_such, owns
from tieline.exchange.projects import manages, sees_work
from tieline.model.api import EventPage, JobPage, JobsBody, JobView, StopBody, WhyView
from tieline.model.error import TielineError
from tieline.model.job import JOB_ENDED, Job, JobState, Run
from tieline.model.party import Actor, Role
from tieline.model.spec import OptionalWord

MOST_WAIT_S = 60
STATES = "|".join(state.value for state in JobState)


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs."""

    state: Annotated[str, msgspec.Meta(pattern=rf"\A({STATES})?\Z", description="only those in this state")] = ""
    user: Annotated[
        str, msgspec.Meta(max_length=200, description="of this user; others' jobs are for admins and auditors")
    ] = ""
    pipeline: Annotated[str, msgspec.Meta(max_length=63)] = ""
    project: Annotated[OptionalWord, msgspec.Meta(description="of this project; its members see all of its jobs")] = ""
    before: Annotated[str, msgspec.Meta(pattern=OPTIONAL_NAME, description="go on before this job (`next_before`)")] = (
        ""
    )
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class JobQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait."""

    wait_s: Annotated[
        int, msgspec.Meta(ge=0, le=MOST_WAIT_S, description="answer when the job has ended, or after so many seconds")
    ] = 0


JOB_FOLLOWS = tuple(
    Follow(operation=name, parameter="job", pointer="/jobs/0/id")
    for name in ("read_job", "read_job_why", "read_job_history", "stop_job", "read_job_log")
)


@operation(
    "POST",
    "/v1/jobs",
    tag="jobs",
    status=201,
    is_change=True,
    errors=(*TASK_ERRORS, "not_found"),
    follows=JOB_FOLLOWS,
    example={"tasks": [{"name": "hello", "run": "echo hello", "resources": [{"core_count": 1}]}]},
)
async def submit_jobs(call: Call, body: JobsBody) -> JobPage:
    """Submit one task, or several that run one after the other.

    The answer comes once the jobs are kept: from then on each of them ends succeeded, failed or cancelled. The request
    is refused whole when nothing that exists here could ever run one of its tasks.
    """
    await check_taken_along(call.platform, call.actor, body.tasks)
    keep = kept_secrets(call.platform, body.sealed_secrets, body.tasks)
    command = call.command(SubmitJobs, tasks=body.tasks, pipeline=body.pipeline, project=body.project)
    jobs: tuple[Job, ...] = await call.platform.ask(command, keep)
    call.note(job=jobs[0].id)
    return JobPage(jobs=tuple(jobs), next_before="")


@operation("GET", "/v1/jobs", tag="jobs", errors=("invalid_cursor",), follows=JOB_FOLLOWS)
async def list_jobs(call: Call, query: JobsQuery) -> JobPage:
    """Jobs, newest first: the caller's own, or those of a project that it is in; for admins and auditors, everybody's.

    A token that is bound to a project shows the jobs of that project alone.
    """
    actor, user, project = call.actor, query.user, query.project or call.actor.project
    if actor.project not in ("", project):
        return JobPage(jobs=(), next_before="")
    is_member = bool(project) and call.platform.view.members.role(actor, project) is not None
    if not actor.has(Role.ADMIN, Role.AUDITOR) and not is_member:
        if user not in ("", actor.name):
            return JobPage(jobs=(), next_before="")
        user = actor.name
    before = job_id(call.platform, named(query.before.replace("/", "~"), "before")) if query.before else ""
    jobs = await call.platform.read(
        call.platform.store.jobs,
        user=user,
        states=(query.state,) if query.state else (),
        pipeline=query.pipeline,
        project=project,
        before=before,
        limit=query.limit,
    )
    return JobPage(jobs=tuple(jobs), next_before=jobs[-1].id if len(jobs) == query.limit else "")


@operation("GET", "/v1/jobs/{job}", tag="jobs")
async def read_job(call: Call, job: str, query: JobQuery) -> JobView:
    """A job with its runs, oldest first; with `wait_s`, once it has ended or the time is over."""
    name = job_id(call.platform, named(job))
    call.note(job=name)
    if not query.wait_s:
        return await visible_job(call.platform, call.actor, name)
    until_s = time.monotonic() + query.wait_s
    with call.platform.hub.waiting(end_name(short(name))) as ended:
        view = await visible_job(call.platform, call.actor, name)
        if view.job.state in JOB_ENDED:
            return view
        await asyncio.wait((ended,), timeout=until_s - time.monotonic())
    return await visible_job(call.platform, call.actor, name)


@operation("GET", "/v1/jobs/{job}/why", tag="jobs")
async def read_job_why(call: Call, job: str) -> WhyView:
    """Why a job is where it is: the binding constraint first."""
    platform, name = call.platform, job_id(call.platform, named(job))
    view = await visible_job(platform, call.actor, name)
    if view.job.state not in JOB_ENDED:
        try:
            found: WhyView = await platform.ask(WhyJob(actor=call.actor, job=name))
        except TielineError as error:
            if error.code != "not_found":
                raise
            view = await visible_job(platform, call.actor, name)
        else:
            return found
    run = view.runs[-1] if view.runs else None
    return WhyView(
        job=name,
        state=view.job.state.value,
        reasons=view.job.reasons,
        considered=0,
        nearest=None,
        plan=None,
        via=run.via if run is not None else "",
        as_of_ms=run.as_of_ms if run is not None else 0,
    )


@operation("GET", "/v1/jobs/{job}/history", tag="jobs", errors=("invalid_cursor",))
async def read_job_history(call: Call, job: str, query: EventQuery) -> EventPage:
    """Everything that happened to a job, oldest first."""
    name = job_id(call.platform, named(job))
    await visible_job(call.platform, call.actor, name)
    return await event_page(call, query, short(name))


@operation("POST", "/v1/jobs/{job}/stop", tag="jobs", is_change=True, example={"why": "not needed any more"})
async def stop_job(call: Call, job: str, body: StopBody) -> JobView:
    """Stop a job: cancel what waits, ask the site to end what runs (checkpoint first, where the task declares one).

    A job that has ended is answered as it is.
    """
    platform, name = call.platform, job_id(call.platform, named(job))
    call.note(job=name)
    view = await visible_job(platform, call.actor, name)
    if view.job.state not in JOB_ENDED:
        try:
            await platform.ask(call.command(StopJob, job=name, why=body.why))
        except TielineError as error:
            if error.code != "not_found":
                raise
        view = await visible_job(platform, call.actor, name)
    else:
        is_its = view.job.user == call.actor.name or manages(platform.view, call.actor, view.job.project)
        if not is_its and not call.actor.has(Role.ADMIN):
            raise TielineError("forbidden", f"`{name}` belongs to `{view.job.user}`")
    return view


def job_id(platform: Platform, name: str) -> str:
    """A job's identifier from its short name or its identifier."""
    return name if "/" in name else f"{platform.exchange.prefix}/job/{name}"


async def visible_job(platform: Platform, actor: Actor, name: str) -> JobView:
    """The job with the runs that the caller may see. An owner sees jobs that ran at its sites, and those runs."""
    job, runs = await platform.read(_job_and_runs, platform, name)
    if job is None:
        raise no_such("job", name)
    if sees_work(platform.view, actor, job.user, job.project):
        return JobView(job=job, runs=tuple(runs))
    theirs = tuple(run for run in runs if owns(actor, run.owner)) if actor.project in ("", job.project) else ()
    if not theirs:
        raise no_such("job", name)
    return JobView(job=job, runs=theirs)


def _job_and_runs(platform: Platform, name: str) -> tuple[Job | None, list[Run]]:
    job = platform.store.job(name)
    return job, platform.store.runs(name) if job is not None else []
