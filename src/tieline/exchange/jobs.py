"""Jobs: submitted, stopped, ended. An acknowledged job ends succeeded, failed or cancelled; it is never forgotten."""

from __future__ import annotations

import msgspec

from tieline.exchange.commands import Decision, StopJob, SubmitJobs
from tieline.exchange.permission import allow, check_run_token, no_such
from tieline.exchange.placing import check_spans, demand_now, may_ever_span, plan_demand
from tieline.exchange.possible import plain_shape
from tieline.exchange.projects import manages, project_for, sees_work
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import CancelRequested, Events, JobEnded, JobSubmitted, RunEnded, StopRequested
from tieline.model.job import Job, JobState, Output, RunState
from tieline.model.party import Actor, Role
from tieline.model.reason import Reason
from tieline.model.task import Task
from tieline.place import Demand, is_possible
from tieline.ports import Ids

replace = msgspec.structs.replace


def submit_jobs(view: View, command: SubmitJobs, now_ms: int, ids: Ids) -> Decision:
    """Acknowledge one task, or a pipeline of several; refused whole when one of them can never run here."""
    allow(command.actor, Role.USER, Role.ADMIN, what="submit jobs")
    if len(view.jobs) + len(command.tasks) > view.limits.live_jobs:
        raise TielineError("overloaded", f"{len(view.jobs):,} jobs wait or run, {view.limits.live_jobs:,} are allowed")
    project = project_for(view, command.actor, command.project, command.tasks)
    check_spans(command.tasks)
    demands = [check_possible(view, command.actor, task, now_ms) for task in command.tasks]
    pipeline = command.pipeline or (command.tasks[0].name if len(command.tasks) > 1 else "")
    jobs: list[Job] = []
    for task in command.tasks:
        after = jobs[-1].id if jobs else ""
        jobs.append(new_job(view, command.actor, task, now_ms, ids, pipeline=pipeline, after=after, project=project))
    for job, demand in zip(jobs, demands, strict=True):  # what the placing pass would compile again
        view.supply.remember(job.id, replace(demand, id=job.id))
    return Decision(tuple(JobSubmitted(job=job) for job in jobs), tuple(jobs))


def new_job(
    view: View,
    actor: Actor,
    task: Task,
    now_ms: int,
    ids: Ids,
    *,
    pipeline: str = "",
    after: str = "",
    project: str = "",
) -> Job:
    """A job as it is when it is acknowledged. Raises TielineError `forbidden`."""
    check_run_token(actor, task)
    return Job(
        id=f"{view.prefix}/job/{ids.new('job')}",
        user=actor.name,
        user_owner=actor.owner,
        state=JobState.QUEUED,
        task=task,
        submitted_ms=now_ms,
        eligible_ms=now_ms,
        pipeline=pipeline,
        after=after,
        project=project,
    )


def check_possible(view: View, actor: Actor, task: Task, now_ms: int) -> Demand:
    """The task's demand. Refuses, with the plan's own reasons, what nothing that exists here could ever run."""
    if not task.run and not task.setup and task.type == "task":
        raise TielineError("invalid_task", f"task `{task.name}` has nothing to run", where="run")
    demand = demand_now(view, actor, task, now_ms)
    pools, possible = view.supply.pools, view.supply.possible
    shape = plain_shape(task, demand, pools.policies > 0)
    if shape and possible.has(shape, pools.version):
        return demand
    if is_possible(demand, pools, view.distances, now_ms=now_ms) or may_ever_span(view, demand, now_ms):
        if shape:
            possible.add(shape)
        return demand
    plan = plan_demand(view, demand, now_ms)
    code = "kind_not_offered" if any(reason.code == "kind_not_offered" for reason in plan.reasons) else "unplaceable"
    hints = ["tieline find ''  # everything that is offered"]
    if plan.nearest is not None:
        hints.insert(0, f"relax `{plan.nearest.term}` from {plan.nearest.asked} to {plan.nearest.needed}")
    raise TielineError(
        code,
        f"no placement for `{task.name}`: {plan.considered} pools considered, none can ever run it",
        reasons=plan.reasons,
        hints=tuple(hints),
    )


def stop_job(view: View, command: StopJob, now_ms: int, ids: Ids) -> Decision:
    """Cancel what waits; ask the site to end what runs (checkpoint first where one is declared)."""
    row = view.jobs.rows.get(command.job)
    if row is None or not sees_work(view, command.actor, row.user, row.project):
        raise no_such("live job", command.job)
    job = view.jobs[row.id]
    is_its = job.user == command.actor.name or manages(view, command.actor, job.project)
    if not is_its and not command.actor.has(Role.ADMIN):
        raise TielineError("forbidden", f"`{command.job}` belongs to `{job.user}`")
    why = Reason(code="cancelled_by", values={"who": command.actor.name})
    asked = CancelRequested(job=job.id, by=command.actor.name, why=command.why)
    if job.id in view.gangs:
        return Decision((*_gang_stopped(view, job, asked, why, now_ms),), job)
    run = view.runs.get(job.run)
    if run is None:
        return Decision((asked, *end_job(view, job, JobState.CANCELLED, (why,), now_ms)), job)
    if run.state is RunState.OFFERED:
        over = RunEnded(run=run.id, state=RunState.STOPPED, at_ms=now_ms, reason=why)
        return Decision((asked, over, *end_job(view, job, JobState.CANCELLED, (why,), now_ms)), job)
    events: list[Events] = [] if job.is_cancel_requested else [asked]
    if not run.is_stop_requested:
        events.append(StopRequested(run=run.id, why=command.why or f"cancelled by {command.actor.name}"))
    return Decision(tuple(events), job)


def _gang_stopped(view: View, job: Job, asked: CancelRequested, why: Reason, now_ms: int) -> list[Events]:
    """The end of a gang, asked for by somebody; where all its members have succeeded there is nothing left to end."""
    if job.is_cancel_requested or (job.broken is None and not view.gangs[job.id].runs):
        return []
    return [asked, *stops_of(view, job, why, now_ms)]


def why_ended(job: Job) -> Reason:
    """What the members of its gang that did nothing wrong end for."""
    if job.broken is None:
        return Reason(code="cancelled_by", values={"who": job.user})
    return Reason(code="gang_broken", values={"site": job.broken.site, "why": job.broken.reason.code})


def stops_of(view: View, job: Job, why: Reason, now_ms: int) -> list[Events]:
    """The end of every run of a gang that lives: at once where nobody has answered yet, else by its site."""
    events: list[Events] = []
    for name in view.gangs[job.id].runs:
        run = view.runs[name]
        if run.state is RunState.OFFERED:
            events.append(RunEnded(run=name, state=RunState.STOPPED, at_ms=now_ms, reason=why))
        elif not run.is_stop_requested:
            events.append(StopRequested(run=name, why=f"the gang of {job.id} ends: {why.code}", reason=why))
    return events


def end_job(
    view: View,
    job: Job,
    state: JobState,
    reasons: tuple[Reason, ...],
    now_ms: int,
    outputs: tuple[Output, ...] = (),
) -> list[Events]:
    """End the job, and with it, when it did not succeed, the steps that wait for it."""
    events: list[Events] = [JobEnded(job=job.id, state=state, at_ms=now_ms, reasons=reasons, outputs=outputs)]
    if state is JobState.SUCCEEDED:
        return events
    name, ended = job.id, state
    following = list(view.dependents.get(name, ()))
    while following:
        step = view.jobs.get(following.pop(0))
        if step is None:
            continue
        why = Reason(code="dependency_failed", values={"job": name, "state": ended.value})
        events.append(JobEnded(job=step.id, state=JobState.CANCELLED, at_ms=now_ms, reasons=(why,)))
        name, ended = step.id, JobState.CANCELLED
        following.extend(view.dependents.get(step.id, ()))
    return events
