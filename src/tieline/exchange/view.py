"""View: everything live of one exchange, in memory, changed by events and by nothing else.

`apply` is the only writer. It keeps two things apart: what is durable (noted in `touched`, so that the projections are
written with the events) and what is last value only (heartbeats, sessions), which a restart may forget.
Ended jobs and runs leave the view once they are projected; the store answers for them, and for the whole of the live
jobs of which only a row is here (`Shelf`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from tieline.exchange.arrivals import WideArea
from tieline.exchange.guests import Guest, tell
from tieline.exchange.jobrow import JobRow
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.membership import Membership
from tieline.exchange.network import Network, NetworkEvent
from tieline.exchange.queue import Queue
from tieline.exchange.readings import Readings
from tieline.exchange.shelf import Fetch, Shelf
from tieline.exchange.showing import Showing
from tieline.exchange.supply import PLACEABLE, Supply, amount_of
from tieline.exchange.yielding import Yielding
from tieline.model import event as fact
from tieline.model.job import JOB_ENDED, JOB_NEXT, RUN_ENDED, RUN_NEXT, Job, JobState, Run, RunState, Usage
from tieline.model.limits import Limits
from tieline.model.party import Site, Token
from tieline.model.peer import BranchState, Cursor, Peer, PeerState, PinnedRoot, SiteState
from tieline.model.plan import Quote
from tieline.model.project import Project, Spending
from tieline.model.record import DelegatedKey, Root
from tieline.model.task import Mount
from tieline.place import Amount
from tieline.place.share import Shares
from tieline.ports import Distances
from tieline.registry import Catalogue, Judged, Kept, Silence

replace = msgspec.structs.replace
MOST_RECENT = 20_000


def month_of(at_ms: int) -> str:
    """The calendar month of a time, UTC, as ``2026-11``."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m")


class ExchangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """Who this exchange is."""

    id: str
    prefix: str
    public: str
    session: str = ""  # of the logs of records that this exchange serves; a restore begins a new one
    roots: tuple[PinnedRoot, ...] = ()  # prefixes that are believed beside those of peers


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """How a peer stands now: last value only. ``state`` is the newest that it answered."""

    state: BranchState | None = None
    heard_ms: int = 0  # by our clock
    error: str = ""  # of the last attempt; empty: it answered


class LiveGang:
    """A gang over several pools, until its job waits again or ends."""

    __slots__ = ("is_over", "runs")

    def __init__(self, *, is_over: bool = False) -> None:
        self.runs: dict[str, None] = {}  # that live
        self.is_over = is_over  # it broke, or somebody asked for its end: those that live are to be stopped


class View:
    """The state that use-cases decide on. ``fetch`` gives whole jobs from the store; without it all stay in memory."""

    def __init__(
        self,
        keys: ExchangeKeys,
        limits: Limits | None = None,
        distances: Distances | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.keys = keys
        self.limits = limits or Limits()
        self.exchange: ExchangeRow | None = None
        self.tokens: dict[str, Token] = {}  # by sha256 of the secret
        self.token_sha256: dict[str, str] = {}  # by id
        self.sites: dict[str, Site] = {}
        self.sessions: dict[str, str] = {}  # sha256 of a session's bearer -> site; last value only
        self.session_of: dict[str, str] = {}  # site -> the sha256 of its bearer
        self.jobs = Shelf(fetch)
        self.dependents: dict[str, list[str]] = {}
        self.runs: dict[str, Run] = {}
        self.offered: dict[str, None] = {}  # runs whose owner has not answered
        self.gangs: dict[str, LiveGang] = {}  # jobs whose newest runs are a gang over several pools
        self.runs_at: dict[str, dict[str, None]] = {}  # station (site or peer) -> live runs, in order
        self.recent: dict[str, Run] = {}  # the newest ended runs, so that a repeated report is answered as before
        self.quotes: dict[str, Quote] = {}
        self.catalogue: Catalogue = keys.catalogue()
        self.supply = Supply()
        self.waiting = Queue(self.jobs.rows)
        self.held_back: dict[str, str] = {}  # pool -> the job that it waits for, as the last pass said
        self.heard_ms: dict[str, int] = {}  # site -> last sign of life; last value only
        self.is_restored = False  # it was filled from a store, and no time has passed since
        self.returning_until_ms = 0  # until then nobody is silent: all sites come back at once after a start
        self.beat_seq: dict[str, int] = {}
        self.nonces: dict[str, int] = {}  # of hellos and joins -> when seen; bounded by their age
        self.serials: dict[str, int] = {}  # prefix -> the newest serial of its log here
        self.peers: dict[str, Peer] = {}
        self.cursors: dict[tuple[str, str], Cursor] = {}  # peer, prefix -> how far its log was taken
        self.branches: dict[str, Branch] = {}  # peer -> how it stands; last value only
        self.silences: dict[str, Silence] = {}  # peers that are not heard -> what of theirs goes stale; last value only
        self.ways: dict[str, dict[str, int]] = {}  # peer -> sites that it leads to, and how good a way; 1 is best
        self.remote_sites: dict[str, str] = {}  # site -> the peer that leads to it; last value only
        self.said: dict[str, SiteState] = {}  # what that peer said of it last
        self.showing = Showing()  # what peers are told is free here; last value only
        self.guests: dict[str, Guest] = {}  # peer -> what its users have here
        self.spent: dict[tuple[str, str], Spending] = {}  # peer or project, month -> what it used up
        self.projects: dict[str, Project] = {}
        self.shares: Shares | None = None  # what each project holds; none while there are no projects
        self.yielding = Yielding()
        self.members = Membership()
        self.network = Network()
        self.readings = Readings()  # last value only
        self.distances: WideArea = WideArea(self.network, self.readings, distances)
        self.charged_micro_cny = 0
        self.touched: dict[tuple[str, str], Any] = {}

    def carry(self, before: View) -> None:
        """Take over what is last value only from the view that this one replaces in the same process."""
        self.sessions = dict(before.sessions)
        self.session_of = dict(before.session_of)
        self.heard_ms = dict(before.heard_ms)
        self.beat_seq = dict(before.beat_seq)
        self.nonces = dict(before.nonces)
        self.branches = dict(before.branches)
        self.readings = self.distances.readings = before.readings

    # -- what everything is derived from ------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        """The prefix under which this exchange names jobs and delegates."""
        assert self.exchange is not None
        return self.exchange.prefix

    def way_to(self, site: str) -> str:
        """The peer through which a site is reached; empty: it is ours, or no way is known."""
        ours = self.sites.get(site)
        return self.remote_sites.get(site, "") if ours is None or ours.has_left else ""

    def apply(self, event: fact.Event, now_ms: int) -> None:
        """Let one fact take effect. Raises AssertionError when a use-case produced an impossible transition."""
        tell(self, event)
        APPLY[type(event)](self, event, now_ms)

    def touch(self, table: str, key: str, value: Any) -> None:
        """Note that a projection row changed; the newest value wins."""
        self.touched[(table, key)] = value

    # -- changes of one thing -----------------------------------------------------------------------------------------

    def put_site(self, site: Site) -> None:
        """Keep a site and let placing know how it stands."""
        self.sites[site.id] = site
        self.supply.flag_site(site)
        self.supply.touch(site.id)
        self.touch("site", site.id, site)
        if site.has_left:
            self.readings.forget(site.id)

    @property
    def roots(self) -> tuple[PinnedRoot, ...]:
        """Prefixes that an admin believes without peering."""
        return self.exchange.roots if self.exchange is not None else ()

    def put_exchange(self, row: ExchangeRow) -> None:
        """Keep who this exchange is, and whom it believes beside its peers."""
        before, self.exchange = self.roots, row
        for root in before:
            is_peer = any(peer.prefix == root.prefix and peer.state is PeerState.ACTIVE for peer in self.peers.values())
            if root not in row.roots and not is_peer:
                self.catalogue.unpin(root.prefix)
        for root in row.roots:
            if root not in before:
                self._pin(root.prefix, root.public)
        self.touch("exchange", row.id, row)

    def put_peer(self, peer: Peer) -> None:
        """Keep a peer; while it is active, its key speaks for its prefix, unless that prefix is ours to give."""
        before = self.peers.get(peer.id)
        self.peers[peer.id] = peer
        is_same = before is not None and (before.state, before.public) == (peer.state, peer.public)
        if not is_same:
            self._trust(peer)
        self.touch("peer", peer.id, peer)

    def _trust(self, peer: Peer) -> None:
        """Pin or unpin a peer's key."""
        if peer.state is PeerState.ACTIVE and not peer.prefix.startswith(self.prefix + "."):
            self._pin(peer.prefix, peer.public)
        elif peer.state is PeerState.REMOVED:
            self.branches.pop(peer.id, None)
            self.readings.forget_over(peer.id)
            others = (each for each in self.peers.values() if each.state is PeerState.ACTIVE)
            if peer.prefix != self.prefix and all(each.prefix != peer.prefix for each in others):
                self.catalogue.unpin(peer.prefix)
                for root in self.roots:
                    if root.prefix == peer.prefix:
                        self._pin(root.prefix, root.public)

    def _pin(self, prefix: str, public: str) -> None:
        key = DelegatedKey(kid=f"{prefix}#exchange", public=public, nb=0, exp=253_402_300_799)
        self.catalogue.pin(Root(prefix=prefix, keys=(key,)))

    def put_cursor(self, cursor: Cursor) -> None:
        """Note how far the log of one prefix was taken from one peer."""
        self.cursors[(cursor.peer, cursor.prefix)] = cursor
        self.touch("cursor", f"{cursor.peer} {cursor.prefix}", cursor)

    def put_project(self, project: Project) -> None:
        """Keep a project, and who is in it."""
        self.projects[project.id] = project
        self.members.put(project)
        if self.shares is None:
            self.shares = Shares(Amount())
            for run in self.runs.values():
                _share(self.shares, run, is_over=False)
        self.shares.put(project)
        self.supply.version += 1  # what its jobs may take, and whose turn it is, may be another
        self.touch("project", project.id, project)

    def spend(self, who: str, usage: Usage) -> None:
        """Add a usage line to what a peer or a project used up in its month."""
        month = month_of(usage.ended_ms)
        before = self.spent.get((who, month)) or Spending(project=who, month=month)
        card_ms = usage.unit_count * usage.duration_ms if usage.unit == "accelerator" else 0
        charge_micro_cny = before.charge_micro_cny + usage.charge_micro_cny
        spent = replace(before, card_ms=before.card_ms + card_ms, charge_micro_cny=charge_micro_cny)
        self.spent[(who, month)] = spent
        self.touch("spending", f"{who} {month}", spent)

    def put_job(self, job: Job) -> None:
        """Keep a job; an ended one leaves the view."""
        known = self.jobs.rows.get(job.id)
        if known is not None and known.state is not job.state:
            assert job.state in JOB_NEXT[known.state], f"{job.id}: {known.state} -> {job.state}"
        if job.state in JOB_ENDED:
            before = self.jobs.end(job.id)
            if before is not None and before.state is JobState.QUEUED:
                self._waits_no_more(before)
            self.supply.demands.pop(job.id, None)
            self.gangs.pop(job.id, None)
        else:
            before, row = self.jobs.put(job)
            if job.state is JobState.QUEUED:
                self.gangs.pop(job.id, None)
            elif job.id in self.gangs:
                self.gangs[job.id].is_over = job.broken is not None or job.is_cancel_requested
            if before is not row:
                if before is not None and before.state is JobState.QUEUED:
                    self._waits_no_more(before)
                if row.state is JobState.QUEUED:
                    self.waiting.add(row)
        self.touch("job", job.id, job)

    def _waits_no_more(self, row: JobRow) -> None:
        """A job leaves the queue, and what was held back for it is held back no more."""
        self.waiting.remove(row)
        if self.yielding.kept.pop(row.id, None) is not None:
            self.supply.version += 1
        if row.id in self.held_back.values():
            self.held_back = {pool: job for pool, job in self.held_back.items() if job != row.id}

    def open_session(self, site: str, bearer_sha256: str) -> None:
        """Let a bearer speak for a site; the one before it does so no more. An empty one ends the session."""
        self.sessions.pop(self.session_of.pop(site, ""), None)
        if bearer_sha256:
            self.sessions[bearer_sha256] = site
            self.session_of[site] = bearer_sha256

    def put_run(self, run: Run, *, is_restored: bool = False) -> None:
        """Keep a run; an ended one gives its capacity back and leaves the view."""
        before = self.runs.get(run.id)
        if before is not None and before.state is not run.state:
            assert run.state in RUN_NEXT[before.state], f"{run.id}: {before.state} -> {run.state}"
        if run.state in RUN_ENDED:
            if before is not None:
                del self.runs[run.id]
                self.offered.pop(run.id, None)
                self.runs_at.get(run.station, {}).pop(run.id, None)
                if run.job in self.gangs:
                    self.gangs[run.job].runs.pop(run.id, None)
                self.supply.release(run)
                if self.shares is not None:
                    _share(self.shares, before, is_over=True)
                self.recent[run.id] = run
                if len(self.recent) > MOST_RECENT:
                    del self.recent[next(iter(self.recent))]
        else:
            if before is None:
                if is_restored:
                    self.supply.hold_again(run)
                else:
                    self.supply.hold(run)
                if self.shares is not None:
                    _share(self.shares, run, is_over=False)
                self.runs_at.setdefault(run.station, {})[run.id] = None
                if run.members:
                    self.gangs.setdefault(run.job, LiveGang()).runs[run.id] = None
            self.runs[run.id] = run
            if run.state is RunState.OFFERED:
                self.offered[run.id] = None
            else:
                self.offered.pop(run.id, None)
        if self.yielding.put(run):
            self.supply.version += 1
        self.touch("run", run.id, run)


def _share(shares: Shares, run: Run, *, is_over: bool) -> None:
    """What a run that was booked holds of its project's share, or gives back."""
    change = shares.release if is_over else shares.hold
    change(run.project, amount_of(run), run.pledged_card_ms, run.pledged_micro_cny)


# -- one function per fact --------------------------------------------------------------------------------------------


def _exchange_created(view: View, event: fact.ExchangeCreated, now_ms: int) -> None:
    view.exchange = ExchangeRow(id=event.id, prefix=event.prefix, public=event.public, session=event.session)
    view.touch("exchange", event.id, view.exchange)


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
