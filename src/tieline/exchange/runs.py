"""Runs: what a site reports, and what that means for the job. An epoch fences everything that is not the latest run.

At-least-once execution, exactly-once billing: a usage line is written with the event that ends a run, once, and only
for a run that this exchange did not fence.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tieline.exchange.commands import Decision, TakeReport
from tieline.exchange.jobs import end_job, why_ended
from tieline.exchange.orders import first_run_of
from tieline.exchange.quotes import take_quoted
from tieline.exchange.settlement import Terms, claim_of, metered_ms, settle
from tieline.exchange.sharing import month_reasons
from tieline.exchange.view import View
from tieline.market import usage_of
from tieline.model.error import TielineError
from tieline.model.event import (
    CheckpointStored,
    Events,
    GangBroken,
    JobQueued,
    RunAccepted,
    RunConfirmed,
    RunEnded,
    RunStarted,
)
from tieline.model.job import Break, Job, JobState, Run, RunState, Usage
from tieline.model.protocol import (
    Accepted,
    CheckpointKept,
    Ended,
    Lost,
    Outcome,
    Quoted,
    Refused,
    Reports,
    Started,
)
from tieline.model.reason import Reason, Value
from tieline.ports import Ids

replace = msgspec.structs.replace

OfRun = Accepted | Refused | Started | Ended | Lost | CheckpointKept
OK = Outcome(is_ok=True)
STALE = Outcome(is_ok=False, what="stale")
WAIT = Outcome(is_ok=False, what="wait")
UNKNOWN = Outcome(is_ok=False, what="unknown")
MOST_AVOIDED = 16
MOST_RUNS = 1_000  # of one job: every loop is bounded
LOSSES = ("lost", "lost_behind", "branch_lost")  # not the job's doing: it need not wait
MOST_LASTING = 8  # refusals of data that no wait mends, each by the site that was avoided longest
SAME_ANYWHERE = ("data_wrong", "data_over_disk")  # no other site would do better
PREEMPTED = ("preempted_for_share", "preempted_for_priority")
BACKOFF_MS = 500
BACKOFF_MOST_MS = 60_000
BEYOND_MOST_MS = 600_000  # where it is beyond what the exchange behind which it was to run ever gives us


def take_report(view: View, command: TakeReport, now_ms: int, ids: Ids) -> Decision:
    """Answer one report; the same report again is answered as before."""
    site = view.sites.get(command.site)
    if site is None or site.has_left:
        raise TielineError("unauthenticated", f"`{command.site}` has no session here")
    view.heard_ms[site.id] = now_ms
    events, outcome = judge(view, site.id, command.report, now_ms)
    return Decision(tuple(events), outcome)


def judge(view: View, station: str, report: Reports, now_ms: int) -> tuple[list[Events], Outcome]:
    """What a report of a site, or of a peer behind which we placed the run, means, and the answer to it."""
    if isinstance(report, Quoted):
        return take_quoted(view, station, report, now_ms)
    run = view.runs.get(report.run)
    if run is None:
        return [], _answered(view, station, report)
    if run.station != station or (isinstance(report, Lost) and not run.via):
        return [], UNKNOWN
    if run.epoch != report.epoch:
        return [], STALE
    if isinstance(report, Accepted):
        return _accepted(view, run, report, now_ms)
    if isinstance(report, Started | CheckpointKept) and not _may_start(run):
        return [], STALE  # of a gang whose other members were not all accepted: nobody told it to start
    if isinstance(report, Refused):
        return refuse_run(view, run, report.reason, now_ms), OK
    if isinstance(report, Lost):
        values = {"exchange": run.via, "why": report.reason.code}
        return lose_run(view, run, now_ms, "lost_behind", values), OK
    if isinstance(report, Started):
        if run.state is RunState.ACCEPTED:
            at_ms = min(max(report.at_ms, run.accepted_ms), now_ms)
            return [RunStarted(run=run.id, at_ms=at_ms, devices=report.devices)], OK
        return [], OK if run.state is RunState.RUNNING else STALE
    if isinstance(report, CheckpointKept):
        if run.rank:
            return [], OK  # of a gang the first node's counts
        stored = CheckpointStored(
            run=run.id, job=run.job, sha256=report.sha256, size_bytes=report.size_bytes, at_ms=now_ms
        )
        return ([stored] if view.jobs[run.job].checkpoint != report.sha256 else []), OK
    return _ended(view, run, report, now_ms), OK


def _answered(view: View, station: str, report: OfRun) -> Outcome:
    """The answer to a report about a run that is over: what was taken before is taken; what was fenced is stale."""
    over = view.recent.get(report.run)
    if over is None or over.station != station:
        return STALE
    return OK if isinstance(report, Ended | Refused) and over.state is not RunState.LOST else STALE


def _accepted(view: View, run: Run, report: Accepted, now_ms: int) -> tuple[list[Events], Outcome]:
    if run.state is not RunState.OFFERED:  # said before; the first acceptance stands
        return [], OK if _may_start(run) else WAIT
    if run.members and view.gangs[run.job].is_over:  # another one was quicker to refuse
        why = why_ended(view.jobs[run.job])
        return [RunEnded(run=run.id, state=RunState.STOPPED, at_ms=now_ms, reason=why)], STALE
    accepted = RunAccepted(run=run.id, at_ms=now_ms, sandbox=report.sandbox, network=report.network)
    if not run.members:
        return [accepted], OK
    confirmed = _confirmed(view, run, now_ms)
    return [accepted, *confirmed], OK if confirmed else WAIT


def _may_start(run: Run) -> bool:
    """Whether its site may have started it: one of a gang waits until all of them are accepted."""
    return not run.members or run.is_confirmed


def _confirmed(view: View, last: Run, now_ms: int) -> list[Events]:
    """That all of a gang may start, where ``last`` is the only one that was not accepted yet."""
    gang = view.gangs[last.job]
    others = [view.runs[name] for name in gang.runs if name != last.id]
    if len(others) + 1 < last.members or any(each.state is not RunState.ACCEPTED for each in others):
        return []
    return [RunConfirmed(run=name, at_ms=now_ms) for name in gang.runs]


def refuse_run(view: View, run: Run, reason: Reason, now_ms: int) -> list[Events]:
    """The owner's word is final: the run is over and the job is placed elsewhere."""
    if run.state is not RunState.OFFERED:
        return _ended(
            view, run, Ended(run=run.id, epoch=run.epoch, state="failed", reason=reason, is_start_failure=True), now_ms
        )
    why = Reason(code="refused_by_owner", values={"why": reason.code, "site": run.site, **reason.values})
    over = RunEnded(run=run.id, state=RunState.REFUSED, at_ms=now_ms, reason=why)
    if reason.code == "quote_not_open" and not run.members:  # at that price or not at all
        return [over, *end_job(view, view.jobs[run.job], JobState.FAILED, (why,), now_ms)]
    return [over, *_lost(view, run, why, now_ms)]


def lose_run(view: View, run: Run, now_ms: int, code: str, values: Mapping[str, Value] | None = None) -> list[Events]:
    """The site fell silent, left, or let the offer expire: the run is fenced and bills nothing."""
    why = Reason(code=code, values={"site": run.site, "run": run.id, "pool": run.pool, **(values or {})})
    over = RunEnded(run=run.id, state=RunState.LOST, at_ms=now_ms, reason=why)
    return [over, *_lost(view, run, why, now_ms)]


def _lost(view: View, run: Run, why: Reason, now_ms: int) -> list[Events]:
    """What the loss of a run means for its job; one of a gang takes the others with it."""
    if not run.members:
        return again_or_end(view, view.jobs[run.job], run.site, why, now_ms, is_loss=True)
    loss, before = Break(reason=why, site=run.site, is_loss=True, at_ms=now_ms), view.jobs[run.job].broken
    if before is None or before.is_loss or before.is_final or view.heard_ms.get(run.site, 0) > before.at_ms:
        return _broken(view, run, loss)
    # Programs whose peers are gone fail long before a silent site is given up: that is held against nobody.
    return [GangBroken(job=run.job, run=run.id, why=loss)]


def _broken(view: View, run: Run, why: Break) -> list[Events]:
    """Its gang cannot go on, unless that is known."""
    return [] if view.gangs[run.job].is_over else [GangBroken(job=run.job, run=run.id, why=why)]


def _ended(view: View, run: Run, report: Ended, now_ms: int) -> list[Events]:
    job = view.jobs[run.job]
    if not _may_start(run):
        return _given_up(view, job, run, report, now_ms)
    events: list[Events] = []
    if report.checkpoint and report.checkpoint != job.checkpoint and not run.rank:
        events.append(CheckpointStored(run=run.id, job=job.id, sha256=report.checkpoint, size_bytes=0, at_ms=now_ms))
    state = RunState(report.state)
    if run.state is RunState.OFFERED:  # it ended before it was accepted: the site and we disagree
        state = RunState.STOPPED
    is_billed = not report.is_start_failure and run.state in (RunState.ACCEPTED, RunState.RUNNING)
    usage = _usage(view, job, run, report, now_ms) if is_billed else None
    is_preempted = _is_preempted(job, run, report, state)
    is_asked = is_preempted or (state is RunState.STOPPED and report.reason is None and run.members > 0)
    reason = run.stop_reason if is_asked else report.reason or _reason(run, report)
    over = RunEnded(
        run=run.id, state=state, at_ms=now_ms, exit_codes=report.exit_codes[:100], reason=reason, usage=usage
    )
    if run.members:
        return [*events, *_member_ended(view, job, over, report)]
    events.append(over)
    if state is RunState.SUCCEEDED:
        events.extend(end_job(view, job, JobState.SUCCEEDED, (), now_ms, outputs=report.outputs))
    elif is_preempted and run.stop_reason is not None:
        events.extend(again_or_end(view, job, run.site, run.stop_reason, now_ms, is_loss=True, is_preempted=True))
    elif state is RunState.STOPPED and not job.is_cancel_requested and reason is not None:
        events.extend(_stopped(view, job, run, reason, report, now_ms))
    else:
        why = reason or Reason(code="exit_code", values={"exit_code": 1, "pool": run.pool})
        events.extend(
            again_or_end(
                view, job, run.site, why, now_ms, is_loss=report.is_start_failure, exit_codes=report.exit_codes
            )
        )
    return events


def _given_up(view: View, job: Job, run: Run, report: Ended, now_ms: int) -> list[Events]:
    """One of a gang ends before all of it was accepted: it cannot have run, whatever is said, and bills nothing."""
    said = report.reason or run.stop_reason
    reason = said or Reason(code="lost", values={"site": run.site, "run": run.id, "pool": run.pool})
    over = RunEnded(run=run.id, state=RunState.STOPPED, at_ms=now_ms, reason=reason)
    if job.is_cancel_requested:
        return [over]
    return [over, *_broken(view, run, Break(reason=reason, site=run.site, is_loss=True))]


def _member_ended(view: View, job: Job, over: RunEnded, report: Ended) -> list[Events]:
    """The end of one run of a gang, and whether the gang can go on. What is left behind counts by the gang's ranks."""
    run = view.runs[over.run]
    if over.state is RunState.SUCCEEDED:
        return [replace(over, outputs=tuple(replace(each, node=run.rank + each.node) for each in report.outputs))]
    if job.is_cancel_requested:
        return [over]
    is_stopped = over.state is RunState.STOPPED and over.reason is not None
    is_final = is_stopped and over.reason is not None and over.reason.code == "limit_reached"
    reason = over.reason or Reason(code="exit_code", values={"exit_code": 1, "pool": run.pool})
    is_loss = report.is_start_failure or (is_stopped and not is_final)
    why = Break(
        reason=reason,
        site=run.site,
        is_loss=is_loss,
        is_final=is_final,
        exit_codes=over.exit_codes,
        at_ms=over.at_ms,
    )
    return [over, *_broken(view, run, why)]


def _stopped(view: View, job: Job, run: Run, reason: Reason, report: Ended, now_ms: int) -> list[Events]:
    """Stopped by a limit ends the job; stopped by its owner (a drain, a reclaim) sends it elsewhere."""
    if reason.code == "limit_reached":
        reasons = (reason, *month_reasons(view, job, run, now_ms))
        return end_job(view, job, JobState.FAILED, reasons, now_ms, outputs=report.outputs)
    return again_or_end(view, job, run.site, reason, now_ms, is_loss=True)


def _is_preempted(job: Job, run: Run, report: Ended, state: RunState) -> bool:
    """Whether a run stopped because it was asked to, so that another has room. What its site says otherwise stands."""
    if state is not RunState.STOPPED or job.is_cancel_requested or report.reason is not None:
        return False
    return run.stop_reason is not None and run.stop_reason.code in PREEMPTED


def _usage(view: View, job: Job, run: Run, report: Ended, now_ms: int) -> Usage | None:
    """The usage line of a run, with the signed words that belong to it."""
    if run.via:
        usage = settle(terms_of(view, run, job), run, report.receipt, job.held_micro_cny, now_ms)
    else:
        observed_ms = max(0, now_ms - run.accepted_ms)  # nobody is billed for more than this exchange saw
        site = view.sites.get(run.site)
        metered = metered_ms(report.receipt, site.public, run) if site is not None and report.receipt else None
        usage = usage_of(
            run,
            duration_ms=min(report.duration_ms, observed_ms, report.duration_ms if metered is None else metered),
            cpu_ms=report.cpu_ms,
            max_memory_bytes=report.max_memory_bytes,
            ended_ms=now_ms,
            most_micro_cny=run.held_micro_cny if run.members else job.held_micro_cny,
        )
        usage = replace(usage, site_receipt=report.receipt if metered else "")
    if usage is None or job.origin is None:
        return usage
    usage = replace(usage, origin=job.origin.peer)
    us = view.exchange.id if view.exchange else ""
    return replace(usage, given_claim=claim_of(us, view.keys, job.origin, run, usage, report.state))


def terms_of(view: View, run: Run, job: Job | None = None) -> Terms:
    """What settling with the exchange behind which it ran needs; ``job``: where something may be paid."""
    assert view.exchange is not None
    site = view.supply.site_specs.get(run.site)
    first_run = first_run_of(view, run, job) if job is not None else ""
    return Terms(view.exchange.id, view.keys, view.peers[run.via].public, site.public if site else "", first_run)


def _reason(run: Run, report: Ended) -> Reason | None:
    code = next((code for code in report.exit_codes if code), 0)
    if code > 128:
        return Reason(code="signal", values={"signal": code - 128, "pool": run.pool})
    if code or report.state == "failed":
        return Reason(code="exit_code", values={"exit_code": code or 1, "pool": run.pool})
    return None


def again_or_end(
    view: View,
    job: Job,
    site: str,
    reason: Reason,
    now_ms: int,
    *,
    is_loss: bool,
    exit_codes: tuple[int, ...] = (),
    is_preempted: bool = False,
) -> list[Events]:
    """Place the job once more where its task and its budget allow that, or end it.

    One that gave way to another is queued again at once, and that is held against nobody.
    """
    if job.is_cancel_requested:
        return end_job(view, job, JobState.CANCELLED, job.reasons or (reason,), now_ms)
    if job.task.deadline_s and now_ms >= job.submitted_ms + job.task.deadline_s * 1000:
        late_us = (now_ms - job.submitted_ms - job.task.deadline_s * 1000) * 1000
        late = Reason(code="deadline_missed", values={"earliest_us": late_us})
        return end_job(view, job, JobState.FAILED, (reason, late), now_ms)
    if is_preempted and job.origin is None:
        queued = JobQueued(
            job=job.id,
            eligible_ms=now_ms,
            attempts=job.attempts,
            losses=job.losses,
            avoid=job.avoid,
            reasons=(reason,),
            is_preempted=True,
        )
        return [queued]
    is_lasting = reason.code == "data_not_fetched" and reason.values.get("lasting") == 1
    if reason.code in SAME_ANYWHERE or (is_lasting and job.losses + 1 >= MOST_LASTING):
        return end_job(view, job, JobState.FAILED, (reason,), now_ms)
    if job.quote_pool:  # a booked quote, or a peer's offer, names one pool at one price: there is no elsewhere
        return end_job(view, job, JobState.FAILED, (reason,), now_ms)
    recovers = is_loss or any(code in job.task.retry.on_exit_codes for code in exit_codes if code)
    attempts = job.attempts if recovers else job.attempts + 1
    losses = job.losses + 1 if recovers else job.losses
    if attempts > job.task.retry.limit or attempts + losses >= MOST_RUNS:
        allowed = Reason(
            code="attempts_exhausted",
            values={"attempts": attempts + losses, "allowed": min(job.task.retry.limit + 1, MOST_RUNS)},
        )
        return end_job(view, job, JobState.FAILED, (reason, allowed), now_ms)
    is_lost = reason.code in LOSSES
    steps = min(10, attempts + losses - 1)
    most_ms = BEYOND_MOST_MS if reason.values.get("beyond") == 1 else BACKOFF_MOST_MS
    wait_ms = 0 if is_lost else min(most_ms, BACKOFF_MS << steps)
    avoid = tuple(dict.fromkeys((*(name for name in job.avoid if name != site), site)))[-MOST_AVOIDED:]
    queued = JobQueued(
        job=job.id,
        eligible_ms=now_ms + wait_ms,
        attempts=attempts,
        losses=losses,
        avoid=avoid if is_loss else job.avoid,
        reasons=(reason,),
    )
    return [queued]
