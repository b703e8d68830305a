"""Placing: who is next, where it goes, and what booking follows. The engine decides; this turns answers into facts.

A pass looks at the jobs whose turn it is, in order, and places what fits now; what refuses one job refuses every other
of its shape (`Queue`), so that it looks at ``limit`` jobs at most however many wait. What was refused is looked at
again when something changed that might help (`Supply.version`); where there are more shapes than one pass can look at,
once all of them had their turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tieline.exchange.bringing import brought
from tieline.exchange.commands import Decision, PlanTasks
from tieline.exchange.jobrow import JobRow
from tieline.exchange.joining import Joining
from tieline.exchange.offering import offer_run
from tieline.exchange.permission import allow
from tieline.exchange.preempting import Preempting
from tieline.exchange.projects import project_for
from tieline.exchange.queue import PLAIN, Turns
from tieline.exchange.sharing import Sharing
from tieline.exchange.spanning import Spanning, find, planned
from tieline.exchange.supply import amount_of
from tieline.exchange.view import View
from tieline.exchange.ways import with_ways
from tieline.model.error import TielineError
from tieline.model.event import Events, RunOffered, TransferChanged
from tieline.model.job import Job
from tieline.model.party import Actor, Role
from tieline.model.plan import Plan
from tieline.model.reason import Reason, Value
from tieline.model.task import Task
from tieline.place import Caller, DataFact, Demand, Placement, Refusal, RunEnd, demand_of, plan
from tieline.place.choose import Choosing, policy_words
from tieline.place.gangs import NoGang, is_possible_gang
from tieline.place.scene import Scene
from tieline.place.share import NO_BOUND, Left
from tieline.ports import Ids

replace = msgspec.structs.replace

MOST_ENDS = 1_000  # live runs up to which their ends are looked at for backfill
MOST_SPANS = 8  # tasks of one request that may stand at several sites
NEAR = 32  # jobs that are brought from the store together
GLANCES = 16  # refusals at a glance that take as long as one look
WORDS = frozenset({"name", "label"})  # what a policy may read of a task beside its shape


def plan_tasks(view: View, command: PlanTasks, now_ms: int, ids: Ids) -> Decision:
    """A dry run for each task: no events."""
    allow(command.actor, Role.USER, Role.ADMIN, Role.OWNER, Role.AUDITOR, what="plan")
    check_spans(command.tasks)
    project = project_for(view, command.actor, command.project, command.tasks)
    demands = [demand_now(view, command.actor, task, now_ms) for task in command.tasks]
    plans = (plan_demand(view, demand, now_ms, project) for demand in demands)
    return Decision((), tuple(with_ways(view, found) for found in plans))


def check_spans(tasks: Sequence[Task]) -> None:
    """Refuse more gangs over several sites than are looked at in one request. Raises TielineError `too_large`."""
    count = sum(task.span is not None for task in tasks)
    if count > MOST_SPANS:
        raise TielineError("too_large", f"{count} tasks have a `span`; {MOST_SPANS} are allowed in one request")


def plan_task(view: View, actor: Actor, task: Task, now_ms: int, pool: str = "") -> Plan:
    """What would happen to ``task`` now."""
    return plan_demand(view, demand_now(view, actor, task, now_ms, pool), now_ms)


def demand_now(view: View, actor: Actor, task: Task, now_ms: int, pool: str = "") -> Demand:
    """The demand of a task that is not a job yet."""
    return demand_of(task, caller_of(actor.name, actor.owner), data=facts(view, task), submitted_ms=now_ms, pool=pool)


def plan_demand(view: View, demand: Demand, now_ms: int, project: str = "") -> Plan:
    """The engine's plan against this view, as far as the project may have it; a job is known by its demand's name."""
    pools, distances, held_back = view.supply.pools, view.distances, view.held_back
    if view.shares is None:
        found = plan(demand, pools, distances, now_ms=now_ms, held_back=held_back)
        return with_gang(view, demand, found, now_ms)
    with Sharing(view, now_ms) as sharing:
        sharing.asked_by(demand.id)
        allowed = sharing.allowed(project, demand)
        found = plan(allowed or demand, pools, distances, now_ms=now_ms, held_back=held_back)
        if allowed is not None:
            found = with_gang(view, allowed, found, now_ms, sharing.left(project))
        if allowed is not None and allowed.budget_micro_cny != demand.budget_micro_cny:
            found = _of_month(found, sharing.money(project))
        refusal = sharing.refusal(project, demand, demand.needs[0]) if allowed is None and demand.needs else None
    if refusal is None:
        return replace(found, reasons=(*_coming(view, demand.id), *found.reasons)) if not found.candidates else found
    refusal = replace(refusal, count=found.fitting)
    return replace(
        found, candidates=(), fitting=0, chosen="", because=None, nearest=None, reasons=(refusal, *found.reasons)
    )


def with_gang(view: View, demand: Demand, found: Plan, now_ms: int, left: Left = NO_BOUND) -> Plan:
    """The plan of a demand that may stand over several pools, where no single one has room: its gang, or why none."""
    if demand.span is None or found.candidates:
        return found
    choosing = Choosing(view.supply.pools, view.distances, now_ms=now_ms, held_back=view.held_back)
    answer = find(view, choosing, demand, now_ms, left)
    if isinstance(answer, NoGang):
        is_possible = found.is_possible or may_ever_span(view, demand, now_ms)
        return replace(found, reasons=answer.reasons, is_possible=is_possible)
    gang = planned(view, demand, answer, now_ms)
    values: dict[str, Value] = {
        "nodes": demand.nodes,
        "members": len(gang.members),
        "sites": len(answer.gang.sites),
        "cost_micro_cny": gang.cost_micro_cny_per_hour,
    }
    because = Reason(code="chosen_gang", values=values)
    return replace(found, gang=gang, because=because, nearest=None, is_possible=True)


def may_ever_span(view: View, demand: Demand, now_ms: int) -> bool:
    """Whether what exists here could ever hold its gang over several pools."""
    if demand.span is None:
        return False
    scene = Scene(view.supply.pools, view.distances, now_ms)
    return is_possible_gang(scene, demand, Joining(view, now_ms, is_idle=True))


def _of_month(found: Plan, money: Reason) -> Plan:
    """A plan whose budget is what its project has left of the month, and which says so."""
    reasons = tuple(replace(money, count=each.count) if each.code == "budget_below" else each for each in found.reasons)
    is_budget = found.nearest is not None and found.nearest.term == "budget"
    is_possible = found.is_possible or reasons != found.reasons  # in another month
    return replace(found, reasons=reasons, is_possible=is_possible, nearest=None if is_budget else found.nearest)


def _coming(view: View, job: str) -> tuple[Reason, ...]:
    """That room is kept for a job, and how many have still to leave there."""
    room = view.yielding.kept.get(job)
    if room is None:
        return ()
    runs = sum(run.pool == room.pool for run in view.yielding.stopping.values())
    return (Reason(code="waiting_for_room", count=0, values={"pool": room.pool, "runs": runs}),)


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


def schedule(view: View, now_ms: int, ids: Ids, limit: int) -> list[Events]:
    """One placing pass. Bounded by ``limit`` jobs; the writer comes again when it returns that many events."""
    pools, waiting = view.supply.pools, view.waiting
    if waiting.worded_at != pools.version:
        waiting.word(not WORDS.isdisjoint(policy_words(pools)), pools.version)
    view.supply.version += view.network.is_mended(now_ms) or view.network.has_room_again(now_ms)
    if view.shares is not None:
        with Sharing(view, now_ms) as sharing:
            return _pass(
                view, waiting.turns(view.supply.version, now_ms, sharing, limit * GLANCES), now_ms, ids, limit, sharing
            )
    return _pass(view, waiting.turns(view.supply.version, now_ms, PLAIN), now_ms, ids, limit, None)


def _pass(view: View, turns: Turns | None, now_ms: int, ids: Ids, limit: int, sharing: Sharing | None) -> list[Events]:
    if turns is None:
        return []
    pools, waiting = view.supply.pools, view.waiting
    # A pool that waits for a large job goes on waiting while that job does, also in passes that do not look at it.
    elsewhere = {pool: job for pool, job in view.held_back.items() if not waiting.is_open(job)}
    choosing = Choosing(pools, view.distances, now_ms=now_ms, ends=_ends(view, now_ms), held_back=elsewhere)
    try:
        with choosing:
            if sharing is not None:
                return _shared(view, turns, choosing, sharing, now_ms, ids, limit)
            return _placed(view, turns, choosing, now_ms, ids, limit)
    finally:
        turns.close()
        view.network.give_back()


def _placed(view: View, turns: Turns, choosing: Choosing, now_ms: int, ids: Ids, limit: int) -> list[Events]:
    """The offers of a pass over at most ``limit`` jobs; one that is refused at a glance counts for less."""
    events: list[Events] = []
    spanning = Spanning(view, choosing, now_ms, ids)
    left = limit * GLANCES
    while left > 0 and (row := turns.next()) is not None:
        demand = demand_at(view, row, now_ms)
        answer = choosing.offer(demand)
        left -= 1 if answer is None else GLANCES
        if isinstance(answer, Placement):
            transfers, offered = _booked(view, row, answer, now_ms, ids, choosing)
            events.extend((*transfers, offered))
            turns.take()
            continue
        if demand.span is not None:
            if not turns.may_search():
                turns.pass_over()
                spanning.pass_over(row)
                continue
            if (booked := spanning.booked(row, demand)) is not None:
                events.extend(booked)
                turns.take()
                continue
        turns.refuse()
        if answer is not None and answer.held_back:
            view.held_back[answer.held_back] = row.id
        elif demand.span is not None:
            spanning.keep(row, demand)
    return events


def _shared(
    view: View, turns: Turns, choosing: Choosing, sharing: Sharing, now_ms: int, ids: Ids, limit: int
) -> list[Events]:
    """The same where projects share: what each may take, and who gives way for those who find no room."""
    events: list[Events] = []
    preempting, spanning = Preempting(view, sharing, now_ms), Spanning(view, choosing, now_ms, ids)
    left = limit * GLANCES
    while left > 0 and (row := turns.next()) is not None:
        demand = demand_at(view, row, now_ms)
        with sharing.own(row):
            allowed = sharing.allowed(row.project, demand)
            answer: Placement | Refusal | None = None
            booked: list[Events] | None = None
            is_passed = False
            if allowed is not None:
                answer = choosing.place(allowed) if sharing.is_kept(row) else choosing.offer(allowed)
            if isinstance(answer, Placement):
                transfers, offered = _booked(view, row, answer, now_ms, ids, choosing, sharing.left(row.project))
                booked = [*transfers, offered]
            elif allowed is not None and allowed.span is not None:
                is_passed = not turns.may_search()
                booked = None if is_passed else spanning.booked(row, allowed, sharing.left(row.project))
            for event in booked or ():
                if isinstance(event, RunOffered):
                    sharing.take(row, event.run)
        left -= 1 if answer is None else GLANCES
        if booked is not None:
            events.extend(booked)
            turns.take()
            continue
        if is_passed:
            turns.pass_over()
            spanning.pass_over(row)
            continue
        turns.refuse()
        if sharing.is_kept(row):
            preempting.forget(row)
        if isinstance(answer, Refusal) and answer.held_back:
            view.held_back[answer.held_back] = row.id
        elif allowed is not None and allowed.span is not None:
            spanning.keep(row, allowed, sharing.left(row.project))
        if allowed is not None:
            stops = preempting.make_way(row, allowed)
            left -= len(stops) * GLANCES
            events.extend(stops)
    return events


def _booked(
    view: View, row: JobRow, answer: Placement, now_ms: int, ids: Ids, choosing: Choosing, left: Left = NO_BOUND
) -> tuple[list[TransferChanged], RunOffered]:
    """The transfers that bring a run's data, and the booking of the run: in this order they become facts."""
    job = view.jobs[row.id]
    offered = offer_run(view, job, answer, now_ms, left)
    if not answer.candidate.transfers:
        return [], offered
    room_micro_cny = None if left.micro_cny is None else left.micro_cny - offered.held_micro_cny
    transfers = brought(view, job, offered.run, answer.candidate, now_ms, ids, room_micro_cny)
    if transfers:
        choosing.unsettle()
    return transfers, offered


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
