"""Gangs: runs of one job in several pools, all or nothing, from their booking to their end.

::

    placed     a run in each pool and a circuit between every two sites, in one decision: all is booked or nothing
    accepted   an owner takes its part, and waits; the last acceptance confirms all of them, and they start
    broken     one is refused, expires, fails, is lost or stopped by a limit: the others are stopped, with the reason
    over       all runs have ended: the circuits end, and the job succeeds, ends, or is queued again

Every member is fenced by the one epoch of its gang, metered at its own site and billed at its own price; those that are
stopped because another one broke are paid for what they did until then. The circuits are charged by their receipts.
"""

from __future__ import annotations

from collections.abc import Container

import msgspec

from tieline.exchange.jobs import end_job, stops_of, why_ended
from tieline.exchange.runs import again_or_end, lose_run
from tieline.exchange.view import View
from tieline.model.circuit import CircuitState
from tieline.model.event import CircuitChanged, Events
from tieline.model.job import Job, JobState

replace = msgspec.structs.replace
ENDING_MS = 600_000  # beyond its grace, in which a member sends what it leaves behind
MOST = 200  # gangs that one tick changes; the others follow at the next


def gangs_due(view: View, now_ms: int, touched: Container[str] = ()) -> list[Events]:
    """What follows for gangs of which a run ended; ``touched`` are jobs that the same tick changed: they come next."""
    events: list[Events] = []
    changed = 0
    for name, gang in view.gangs.items():
        if name in touched or (gang.runs and not gang.is_over):
            continue
        job = view.jobs[name]
        if gang.runs:
            found = stops_of(view, job, why_ended(job), now_ms) or _overdue(view, job, now_ms)
        else:
            found = [*_joins_over(view, job, now_ms), *_over(view, job, now_ms)]
        events += found
        changed += bool(found)
        if changed >= MOST:
            break
    return events


def _overdue(view: View, job: Job, now_ms: int) -> list[Events]:
    """Whoever does not end what it was asked to is fenced: no work of others, and no circuit, waits for it for ever."""
    events: list[Events] = []
    for name in view.gangs[job.id].runs:
        run = view.runs[name]
        if run.stop_asked_ms and now_ms > run.stop_asked_ms + job.task.grace_s * 1_000 + ENDING_MS:
            events.extend(lose_run(view, run, now_ms, "lost"))
    return events


def _over(view: View, job: Job, now_ms: int) -> list[Events]:
    """All its runs have ended."""
    broken = job.broken
    if broken is None:
        state = JobState.CANCELLED if job.is_cancel_requested else JobState.SUCCEEDED
        reasons = (why_ended(job),) if state is JobState.CANCELLED else ()
        return end_job(view, job, state, reasons, now_ms, outputs=job.outputs)
    if broken.is_final and not job.is_cancel_requested:
        return end_job(view, job, JobState.FAILED, (broken.reason,), now_ms, outputs=job.outputs)
    codes = broken.exit_codes
    return again_or_end(view, job, broken.site, broken.reason, now_ms, is_loss=broken.is_loss, exit_codes=codes)


def _joins_over(view: View, job: Job, now_ms: int) -> list[Events]:
    """The circuits between its sites end; what was proven of them stays charged."""
    circuits = (view.network.circuits[name] for name in view.network.joins.get(job.id, ()))
    ended = (replace(each, state=CircuitState.ENDED, changed_ms=now_ms) for each in circuits)
    return [CircuitChanged(circuit=each, why=f"the gang of {job.id} is over") for each in ended]
