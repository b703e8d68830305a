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

from tieline.exchange.jobs import end_job, stops_of
from tieline.exchange.runs import again_or_end
from tieline.exchange.view import View
from tieline.model.circuit import CircuitState
from tieline.model.event import CircuitChanged, Events
from tieline.model.job import Job, JobState
from tieline.model.reason import Reason

replace = msgspec.structs.replace
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
            found = stops_of(view, job, _why(job), now_ms)
        else:
            found = [*_joins_over(view, job, now_ms), *_over(view, job, now_ms)]
        events += found
        changed += bool(found)
        if changed >= MOST:
            break
    return events


def _why(job: Job) -> Reason:
    """What its members that did nothing wrong are stopped for."""
    if job.broken is None:
        return Reason(code="cancelled_by", values={"who": job.user})
    return Reason(code="gang_broken", values={"site": job.broken.site, "why": job.broken.reason.code})


def _over(view: View, job: Job, now_ms: int) -> list[Events]:
    """All its runs have ended."""
    broken = job.broken
    if broken is None:
        state = JobState.CANCELLED if job.is_cancel_requested else JobState.SUCCEEDED
        return end_job(view, job, state, job.reasons, now_ms, outputs=job.outputs)
    if broken.is_final and not job.is_cancel_requested:
        return end_job(view, job, JobState.FAILED, (broken.reason,), now_ms, outputs=job.outputs)
    codes = broken.exit_codes
    return again_or_end(view, job, broken.site, broken.reason, now_ms, is_loss=broken.is_loss, exit_codes=codes)


def _joins_over(view: View, job: Job, now_ms: int) -> list[Events]:
    """The circuits between its sites end; what was proven of them stays charged."""
    circuits = (view.network.circuits[name] for name in view.network.joins.get(job.id, ()))
    ended = (replace(each, state=CircuitState.ENDED, changed_ms=now_ms) for each in circuits)
    return [CircuitChanged(circuit=each, why=f"the gang of {job.id} is over") for each in ended]
