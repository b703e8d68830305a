"""Offering: the booking that follows from a placement: for how long, for how much, and what is pledged to it."""

from __future__ import annotations

from tieline.exchange.view import View
from tieline.exchange.ways import heard_ms
from tieline.market import hold_of, stop_after_s
from tieline.market.rating import MAX_STOP_S, ROUNDING_S
from tieline.model.event import RunOffered
from tieline.model.job import Job, Run, RunState
from tieline.model.plan import Candidate
from tieline.place import Amount, Placement
from tieline.place.share import NO_BOUND, Left

MOST_PREEMPTIONS = 100  # of one job: it gives way no more then


def longest_s(limit_s: int, deadline_ms: int, cards: int, grace_s: int, now_ms: int, left: Left) -> int:
    """How long a run may last: by its duration limit, until its deadline, and by the card-hours that are left of its
    project's month; 0: no limit.

    The owner's site keeps the time, so that the limit holds while it is cut off.
    """
    limits = [limit_s] if limit_s else []
    if deadline_ms:
        limits.append(max(1, (deadline_ms - now_ms) // 1000))
    month_s = left.run_s(cards, grace_s + ROUNDING_S)
    if month_s is not None and month_s <= MAX_STOP_S:
        limits.append(max(1, month_s))
    return min(limits, default=0)


def offer_run(view: View, job: Job, answer: Placement, now_ms: int, left: Left = NO_BOUND) -> RunOffered:
    """The booking that follows from a placement: held until the owner's site answers.

    ``left`` is what the project may still use up this month: what the run may take of it is pledged to the run.
    """
    task, found, amount = job.task, answer.candidate, answer.amount
    budget = max(0, task.budget_micro_cny - job.charged_micro_cny) if task.budget_micro_cny else 0
    if left.micro_cny is not None:
        budget = min(budget or left.micro_cny, left.micro_cny)
    due_ms = job.submitted_ms + task.deadline_s * 1000 if task.deadline_s else 0
    terms = {
        "budget_micro_cny": budget,
        "max_duration_s": longest_s(task.max_duration_s, due_ms, amount.accelerators, task.grace_s, now_ms, left),
        "unit_count": found.unit_count,
        "price_micro_cny_per_unit_hour": found.price_micro_cny_per_unit_hour,
        "grace_s": task.grace_s,
    }
    held_micro_cny = hold_of(**terms)
    run = new_run(view, job, found, amount, stop_after_s(**terms), held_micro_cny, now_ms)
    return RunOffered(run=run, held_micro_cny=held_micro_cny)


def new_run(
    view: View, job: Job, found: Candidate, amount: Amount, stop_s: int, held_micro_cny: int, now_ms: int
) -> Run:
    """The next run of a job, on a pool. ``stop_s``: when its site stops it; 0: never."""
    task, epoch = job.task, job.epoch + 1
    via = view.way_to(found.site)
    ttl_ms = view.limits.peer_offer_ttl_ms if via else view.limits.offer_ttl_ms
    end_s = stop_s + task.grace_s + ROUNDING_S if stop_s else 0
    return Run(
        id=f"{job.id.rsplit('/', 1)[1]}.{epoch}",
        job=job.id,
        epoch=epoch,
        state=RunState.OFFERED,
        pool=found.pool,
        site=found.site,
        owner=found.owner,
        user=job.user,
        price_micro_cny_per_unit_hour=found.price_micro_cny_per_unit_hour,
        unit=found.unit,
        unit_count=found.unit_count,
        accelerator_count=amount.accelerators,
        core_count=amount.cores,
        memory_bytes=amount.memory_bytes,
        alternative=found.alternative,
        network=found.network,
        sandbox=found.sandbox,
        via=via,
        as_of_ms=heard_ms(view, via),
        project=job.project,
        offered_ms=now_ms,
        expires_ms=now_ms + ttl_ms,
        stop_after_s=stop_s,
        checkpoint=job.checkpoint,
        priority=task.priority,
        is_preemptible=task.checkpoint is not None and not via and job.preemptions < MOST_PREEMPTIONS,
        preemptions=job.preemptions,
        pledged_card_ms=amount.accelerators * end_s * 1000 if job.project else 0,
        pledged_micro_cny=held_micro_cny if job.project else 0,
    )
