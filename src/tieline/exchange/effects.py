"""Effects: what each fact changes in the view, one function per fact. Nothing but `View.apply` calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from tieline.exchange.network import NetworkEvent
from tieline.exchange.supply import PLACEABLE
from tieline.model import event as fact
from tieline.model.job import JobState, Run, RunState
from tieline.model.party import Token
from tieline.model.task import Mount
from tieline.registry import Judged, Kept

if TYPE_CHECKING:
    from tieline.exchange.view import View

replace = msgspec.structs.replace


def _exchange_created(view: View, event: fact.ExchangeCreated, now_ms: int) -> None:
    view.begin(event)


def _put_token(view: View, token: Token) -> None:
    view.tokens[token.sha256] = token
    view.token_sha256[token.id] = token.sha256
    view.touch("token", token.sha256, token)


def _token_created(view: View, event: fact.TokenCreated, now_ms: int) -> None:
    _put_token(view, event.token)


def _token_used(view: View, event: fact.TokenUsed, now_ms: int) -> None:
    token = view.tokens[view.token_sha256[event.id]]
    _put_token(view, replace(token, uses_left=token.uses_left - 1))


def _token_revoked(view: View, event: fact.TokenRevoked, now_ms: int) -> None:
    token = view.tokens[view.token_sha256[event.id]]
    _put_token(view, replace(token, revoked_ms=event.at_ms))


def _record_stored(view: View, event: fact.RecordStored, now_ms: int) -> None:
    kept = view.catalogue.keep(event.envelope.encode())
    view.supply.put_record(event, view.sites, Kept(kept.record, kept.spec))
    prefix = event.id.partition("/")[0]
    serial = view.serials[prefix] = view.serials.get(prefix, 0) + 1
    view.touch("serial", prefix, serial)
    view.touch("record", event.id, (kept, serial))


def _equivocation_seen(view: View, event: fact.EquivocationSeen, now_ms: int) -> None:
    view.catalogue.note_equivocation(event.id, event.rev)
    view.touch("equivocation", f"{event.id}#{event.rev}", event)


def _records_forgotten(view: View, event: fact.RecordsForgotten, now_ms: int) -> None:
    for name in event.ids:
        view.catalogue.forget(name)
        view.supply.forget_record(name)
        view.touch("record", name, None)


def _site_joined(view: View, event: fact.SiteJoined, now_ms: int) -> None:
    view.put_site(event.site)


def _site_changed(view: View, event: fact.SiteChanged, now_ms: int) -> None:
    view.put_site(event.site)


def _session_opened(view: View, event: fact.SessionOpened, now_ms: int) -> None:
    view.put_site(event.site)
    view.heard_ms[event.site.id] = now_ms
    view.beat_seq.pop(event.site.id, None)


def _job_submitted(view: View, event: fact.JobSubmitted, now_ms: int) -> None:
    view.put_job(event.job)
    if event.job.after:
        view.dependents.setdefault(event.job.after, []).append(event.job.id)


def _job_queued(view: View, event: fact.JobQueued, now_ms: int) -> None:
    job = view.jobs[event.job]
    view.put_job(
        replace(
            job,
            state=JobState.QUEUED,
            eligible_ms=event.eligible_ms,
            attempts=event.attempts,
            losses=event.losses,
            avoid=event.avoid,
            reasons=event.reasons,
            held_micro_cny=0,
            outputs=(),
            broken=None,
            preemptions=job.preemptions + event.is_preempted,
        )
    )
    view.supply.demands.pop(job.id, None)


def _job_ended(view: View, event: fact.JobEnded, now_ms: int) -> None:
    job = view.jobs[event.job]
    view.put_job(
        replace(
            job, state=event.state, ended_ms=event.at_ms, reasons=event.reasons, outputs=event.outputs, held_micro_cny=0
        )
    )
    for name in view.dependents.pop(event.job, ()):
        following = view.jobs.get(name)
        if following is None:
            continue
        # What a step leaves behind is laid into the working folder of the next step, at the same paths.
        laid = tuple(
            Mount(path=output.path, sha256=output.sha256, size_bytes=output.size_bytes) for output in event.outputs
        )
        task = replace(following.task, mounts=following.task.mounts + laid)
        view.put_job(replace(following, task=task, after="" if event.state is JobState.SUCCEEDED else following.after))


def _cancel_requested(view: View, event: fact.CancelRequested, now_ms: int) -> None:
    view.put_job(replace(view.jobs[event.job], is_cancel_requested=True))


def _run_offered(view: View, event: fact.RunOffered, now_ms: int) -> None:
    run = event.run
    job = view.jobs[run.job]
    view.put_run(run)
    if run.member:  # the first member of its gang came before
        view.put_job(replace(job, held_micro_cny=job.held_micro_cny + event.held_micro_cny))
        return
    booked = replace(job, state=JobState.BOOKED, epoch=run.epoch, run=run.id, via=run.via, reasons=())
    view.put_job(replace(booked, members=run.members, held_micro_cny=event.held_micro_cny))


def _run_accepted(view: View, event: fact.RunAccepted, now_ms: int) -> None:
    run = replace(
        view.runs[event.run],
        state=RunState.ACCEPTED,
        accepted_ms=event.at_ms,
        sandbox=event.sandbox,
        network=event.network,
    )
    view.put_run(run)
    if not run.members:
        view.put_job(replace(view.jobs[run.job], state=JobState.STAGING))


def _run_confirmed(view: View, event: fact.RunConfirmed, now_ms: int) -> None:
    run = replace(view.runs[event.run], is_confirmed=True)
    view.put_run(run)
    job = view.jobs[run.job]
    if job.state is JobState.BOOKED:
        view.put_job(replace(job, state=JobState.STAGING))


def _gang_broken(view: View, event: fact.GangBroken, now_ms: int) -> None:
    job = view.jobs[event.job]
    if job.broken is None or (event.why.is_loss and not job.broken.is_loss):  # the first counts, or what made it fail
        view.put_job(replace(job, broken=event.why))


def _run_started(view: View, event: fact.RunStarted, now_ms: int) -> None:
    run = replace(view.runs[event.run], state=RunState.RUNNING, started_ms=event.at_ms)
    view.put_run(run)
    gang = view.gangs.get(run.job)
    if gang is None or all(view.runs[name].state is RunState.RUNNING for name in gang.runs):
        view.put_job(replace(view.jobs[run.job], state=JobState.RUNNING))


def _stop_requested(view: View, event: fact.StopRequested, now_ms: int) -> None:
    asked = replace(view.runs[event.run], is_stop_requested=True, stop_reason=event.reason, stop_asked_ms=now_ms)
    view.put_run(asked)


def _checkpoint_stored(view: View, event: fact.CheckpointStored, now_ms: int) -> None:
    job = view.jobs[event.job]
    view.put_job(replace(job, checkpoint=event.sha256, checkpoint_ms=event.at_ms))
    run = view.runs.get(event.run)
    if run is not None and run.is_preemptible:
        view.put_run(replace(run, kept_ms=event.at_ms))


def _run_ended(view: View, event: fact.RunEnded, now_ms: int) -> None:
    run = view.runs[event.run]
    if run.members and run.project:
        _pass_pledge_on(view, run)
    view.put_run(
        replace(
            run,
            state=event.state,
            ended_ms=event.at_ms,
            exit_codes=event.exit_codes,
            reason=event.reason,
            answer=event.usage.answer if event.usage is not None else "",
        )
    )
    if run.members:
        job = view.jobs[run.job]
        held = max(0, job.held_micro_cny - run.held_micro_cny)
        view.put_job(replace(job, held_micro_cny=held, outputs=job.outputs + event.outputs))
    if event.usage is not None:
        job = view.jobs[run.job]
        view.put_job(replace(job, charged_micro_cny=job.charged_micro_cny + event.usage.charge_micro_cny))
        view.charged_micro_cny += event.usage.charge_micro_cny
        view.touch("usage", run.id, event.usage)
        for who in (event.usage.origin, run.project):  # a peer's identifier has slashes, a project's word has none
            if who:
                view.spend(who, event.usage)


def _pass_pledge_on(view: View, run: Run) -> None:
    """What the circuits of a gang may still cost stays pledged until its last run is over."""
    ways_micro_cny = run.pledged_micro_cny - run.held_micro_cny
    others = (view.runs[name] for name in view.gangs[run.job].runs if name != run.id)
    heir = next(others, None)
    if heir is not None and ways_micro_cny > 0:
        view.put_run(replace(heir, pledged_micro_cny=heir.pledged_micro_cny + ways_micro_cny))


def _quote_changed(view: View, event: fact.QuoteChanged, now_ms: int) -> None:
    quote = event.quote
    if quote.state in ("asked", "open"):
        view.quotes[quote.id] = quote
    else:
        view.quotes.pop(quote.id, None)
    view.touch("quote", quote.id, quote)


def _session_renewed(view: View, event: fact.SessionRenewed, now_ms: int) -> None:
    assert view.exchange is not None
    view.exchange = replace(view.exchange, session=event.session)
    view.touch("exchange", view.exchange.id, view.exchange)


def _peer_changed(view: View, event: fact.PeerChanged, now_ms: int) -> None:
    view.put_peer(event.peer)


def _root_changed(view: View, event: fact.RootChanged, now_ms: int) -> None:
    assert view.exchange is not None
    kept = tuple(root for root in view.roots if root.prefix != event.root.prefix)
    view.put_exchange(replace(view.exchange, roots=(*kept, event.root) if event.is_pinned else kept))


def _stored_again(kept: Judged) -> fact.RecordStored:
    held = kept.held
    return fact.RecordStored(
        id=kept.id,
        kind=held.kind,
        rev=held.rev,
        sha256=held.sha256.hex(),
        exp=held.exp,
        status=held.status.value,
        kid=held.key.kid,
        envelope=kept.envelope.decode(),
    )


def _records_taken(view: View, event: fact.RecordsTaken, now_ms: int) -> None:
    prefix = event.cursor.prefix
    serial = view.serials.get(prefix, 0)
    touched, before = view.touched, serial
    for kept in view.catalogue.take(event.page):
        serial += 1
        if kept.held.kind in PLACEABLE:
            view.supply.put_record(_stored_again(kept), view.sites, Kept(kept.record, kept.spec))
        touched[("record", kept.id)] = (kept, serial)
    if serial > before:
        view.serials[prefix] = serial
        view.touch("serial", prefix, serial)
    view.put_cursor(event.cursor)


def _reports_taken(view: View, event: fact.ReportsTaken, now_ms: int) -> None:
    view.put_peer(replace(view.peers[event.peer], reports_after=event.after, reports_session=event.session))


def _usage_answered(view: View, event: fact.UsageAnswered, now_ms: int) -> None:
    view.touch("usage", event.usage.run, event.usage)


def _project_changed(view: View, event: fact.ProjectChanged, now_ms: int) -> None:
    view.put_project(event.project)


def _network_changed(view: View, event: NetworkEvent, now_ms: int) -> None:
    view.supply.version += view.network.may_help(event)  # jobs that wait for their data's way are looked at again
    for table, key, value in view.network.apply(event):
        view.touch(table, key, value)
    if isinstance(event, fact.ReceiptStored) and event.usage is not None:
        view.charged_micro_cny += event.charged_micro_cny
        if event.usage.project:
            view.spend(event.usage.project, replace(event.usage, charge_micro_cny=event.charged_micro_cny))
        if event.usage.unit == "circuit" and event.usage.job in view.jobs.rows:  # its budget pays for the ways, too
            job = view.jobs[event.usage.job]
            view.put_job(replace(job, charged_micro_cny=job.charged_micro_cny + event.charged_micro_cny))
            view.supply.demands.pop(job.id, None)


def _points_changed(view: View, event: fact.PointsChanged, now_ms: int) -> None:
    _network_changed(view, event, now_ms)
    for name in (*(point.name for point in event.put), *event.removed):
        view.readings.forget(name)  # what was measured may have been another place


APPLY: dict[type, Callable[[View, Any, int], None]] = {
    fact.ExchangeCreated: _exchange_created,
    fact.TokenCreated: _token_created,
    fact.TokenUsed: _token_used,
    fact.TokenRevoked: _token_revoked,
    fact.RecordStored: _record_stored,
    fact.EquivocationSeen: _equivocation_seen,
    fact.RecordsForgotten: _records_forgotten,
    fact.SiteJoined: _site_joined,
    fact.SiteChanged: _site_changed,
    fact.SessionOpened: _session_opened,
    fact.JobSubmitted: _job_submitted,
    fact.JobQueued: _job_queued,
    fact.JobEnded: _job_ended,
    fact.CancelRequested: _cancel_requested,
    fact.RunOffered: _run_offered,
    fact.RunAccepted: _run_accepted,
    fact.RunConfirmed: _run_confirmed,
    fact.GangBroken: _gang_broken,
    fact.RunStarted: _run_started,
    fact.StopRequested: _stop_requested,
    fact.CheckpointStored: _checkpoint_stored,
    fact.RunEnded: _run_ended,
    fact.QuoteChanged: _quote_changed,
    fact.SessionRenewed: _session_renewed,
    fact.PeerChanged: _peer_changed,
    fact.RootChanged: _root_changed,
    fact.RecordsTaken: _records_taken,
    fact.ReportsTaken: _reports_taken,
    fact.UsageAnswered: _usage_answered,
    fact.ProjectChanged: _project_changed,
    fact.ShellOpened: lambda *_: None,  # the log says it; nothing else does
    **dict.fromkeys(get_args(NetworkEvent), _network_changed),
    fact.PointsChanged: _points_changed,
}
