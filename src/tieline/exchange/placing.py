"""Placing: who is next, where it goes, and what booking follows. The engine decides; this turns answers into facts.

A pass looks at the jobs whose turn it is, in order, and places what fits now; what refuses one job refuses every other
of its shape (`Queue`), so that it looks at ``limit`` jobs at most however many wait. What was refused is looked at
again when something changed that might help (`Supply.version`); where there are more shapes than one pass can look at,
once all of them had their turn.
"""

from __future__ import annotations

from tieline.exchange.commands import Decision, PlanTasks
from tieline.exchange.jobrow import JobRow
from tieline.exchange.permission import allow
from tieline.exchange.projects import project_for
from tieline.exchange.queue import PLAIN, Share, Turns
from tieline.exchange.supply import amount_of
from tieline.exchange.view import View
from tieline.market import hold_of, stop_after_s
from tieline.model.event import Events, RunOffered
from tieline.model.job import Job, Run, RunState
from tieline.model.party import Actor, Role
from tieline.model.plan import Plan
from tieline.model.task import Task
from tieline.place import Caller, DataFact, Demand, Placement, RunEnd, demand_of, plan
from tieline.place.choose import Choosing, policy_words
from tieline.ports import Ids

MOST_ENDS = 1_000  # live runs up to which their ends are looked at for backfill
NEAR = 32  # jobs that are brought from the store together
GLANCES = 16  # refusals at a glance that take as long as one look
WORDS = frozenset({"name", "label"})  # what a policy may read of a task beside its shape


def plan_tasks(view: View, command: PlanTasks, now_ms: int, ids: Ids) -> Decision:
    """A dry run for each task: no events."""
    allow(command.actor, Role.USER, Role.ADMIN, Role.OWNER, Role.AUDITOR, what="plan")
    project_for(view, command.actor, command.project, command.tasks)
    return Decision((), tuple(plan_task(view, command.actor, task, now_ms) for task in command.tasks))


def plan_task(view: View, actor: Actor, task: Task, now_ms: int, pool: str = "") -> Plan:
    """What would happen to ``task`` now."""
    return plan_demand(view, demand_now(view, actor, task, now_ms, pool), now_ms)


def demand_now(view: View, actor: Actor, task: Task, now_ms: int, pool: str = "") -> Demand:
    """The demand of a task that is not a job yet."""
    return demand_of(task, caller_of(actor.name, actor.owner), data=facts(view, task), submitted_ms=now_ms, pool=pool)


def plan_demand(view: View, demand: Demand, now_ms: int) -> Plan:
    """The engine's plan against this view."""
    return plan(demand, view.supply.pools, view.distances, now_ms=now_ms, held_back=view.held_back)


def caller_of(name: str, owner: str) -> Caller:
    """A user as owners' policies see it."""
    return Caller(name=name, owner=owner, roles=("user",))


def facts(view: View, task: Task) -> dict[str, DataFact]:
    """What is known here of the datasets that the task names."""
    known = view.supply.datasets
    return {use.id: known[use.id] for use in task.data if use.id in known}


def demand_for(view: View, job: Job, now_ms: int) -> Demand:
    """The demand of a waiting job; kept until something about the job changes."""
    demand = view.supply.demands.get(job.id)
    if demand is None:
        demand = demand_of(
            job.task,
            caller_of(job.user, job.user_owner),
            id=job.id,
            data=facts(view, job.task),
            submitted_ms=job.submitted_ms,
            waits_since_ms=max(job.eligible_ms, job.submitted_ms),
            spent_micro_cny=job.charged_micro_cny,
            avoid=job.avoid,
            pool=job.quote_pool,
            price_micro_cny=job.quote_price_micro_cny if job.quote_pool else None,
        )
        view.supply.remember(job.id, demand)
    return demand


def share_of(view: View) -> Share:
    """How those who wait share what is free: whose turn it is, and whether their project may take more now."""
    return PLAIN


def schedule(view: View, now_ms: int, ids: Ids, limit: int) -> list[Events]:
    """One placing pass. Bounded by ``limit`` jobs; the writer comes again when it returns that many events."""
    pools, waiting = view.supply.pools, view.waiting
    if waiting.worded_at != pools.version:
        waiting.word(not WORDS.isdisjoint(policy_words(pools)), pools.version)
    turns = waiting.turns(view.supply.version, now_ms, share_of(view))
    if turns is None:
        return []
    # A pool that waits for a large job goes on waiting while that job does, also in passes that do not look at it.
    elsewhere = {pool: job for pool, job in view.held_back.items() if not waiting.is_open(job)}
    choosing = Choosing(pools, view.distances, now_ms=now_ms, ends=_ends(view, now_ms), held_back=elsewhere)
    try:
        with choosing:
            return _placed(view, turns, choosing, now_ms, limit)
    finally:
        turns.close()


def _placed(view: View, turns: Turns, choosing: Choosing, now_ms: int, limit: int) -> list[Events]:
    """The offers of a pass over at most ``limit`` jobs; one that is refused at a glance counts for less."""
    events: list[Events] = []
    left = limit * GLANCES
    while left > 0 and (row := turns.next()) is not None:
        answer = choosing.offer(demand_at(view, row, now_ms))
        left -= 1 if answer is None else GLANCES
        if isinstance(answer, Placement):
            events.append(offer_run(view, view.jobs[row.id], answer, now_ms))
            turns.take()
            continue
        turns.refuse()
        if answer is not None and answer.held_back:
            view.held_back[answer.held_back] = row.id
    return events


def demand_at(view: View, row: JobRow, now_ms: int) -> Demand:
    """The demand of a job whose turn it is. Those behind it come from the store with it."""
    demand = view.supply.demands.get(row.id)
    if demand is None:
        view.jobs.prefetch(view.waiting.near(row, NEAR))
        demand = demand_for(view, view.jobs[row.id], now_ms)
    return demand


def _ends(view: View, now_ms: int) -> dict[str, list[RunEnd]]:
    """When the runs of each pool will have ended at the latest, where their limits say so."""
    ends: dict[str, list[RunEnd]] = {}
    if len(view.runs) > MOST_ENDS:
        return ends
    for run in view.runs.values():
        if run.stop_after_s:
            end_ms = max(now_ms, (run.started_ms or now_ms) + run.stop_after_s * 1000)
            ends.setdefault(run.pool, []).append(RunEnd(end_ms, amount_of(run)))
    return ends


def _most_s(job: Job, now_ms: int) -> int:
    """How long a run of the job may last: its duration limit, or what is left until its deadline; 0: no limit.

    The owner's site keeps the time, so that the limit holds while it is cut off.
    """
    limits = [job.task.max_duration_s] if job.task.max_duration_s else []
    if job.task.deadline_s:
        limits.append(max(1, (job.submitted_ms + job.task.deadline_s * 1000 - now_ms) // 1000))
    return min(limits, default=0)


def offer_run(view: View, job: Job, answer: Placement, now_ms: int) -> RunOffered:
    """The booking that follows from a placement: held until the owner's site answers."""
    found, amount = answer.candidate, answer.amount
    task = job.task
    left = max(0, task.budget_micro_cny - job.charged_micro_cny) if task.budget_micro_cny else 0
    price = found.price_micro_cny_per_unit_hour
    terms = {
        "budget_micro_cny": left,
        "max_duration_s": _most_s(job, now_ms),
        "unit_count": found.unit_count,
        "price_micro_cny_per_unit_hour": price,
        "grace_s": task.grace_s,
    }
    epoch = job.epoch + 1
    via = view.way_to(found.site)
    ttl_ms = view.limits.peer_offer_ttl_ms if via else view.limits.offer_ttl_ms
    run = Run(
        id=f"{job.id.rsplit('/', 1)[1]}.{epoch}",
        job=job.id,
        epoch=epoch,
        state=RunState.OFFERED,
        pool=found.pool,
        site=found.site,
        owner=found.owner,
        user=job.user,
        price_micro_cny_per_unit_hour=price,
        unit=found.unit,
        unit_count=found.unit_count,
        accelerator_count=amount.accelerators,
        core_count=amount.cores,
        memory_bytes=amount.memory_bytes,
        alternative=found.alternative,
        network=found.network,
        sandbox=found.sandbox,
        via=via,
        project=job.project,
        offered_ms=now_ms,
        expires_ms=now_ms + ttl_ms,
        stop_after_s=stop_after_s(**terms),
        checkpoint=job.checkpoint,
    )
    return RunOffered(run=run, held_micro_cny=hold_of(**terms))
