"""View: everything live of one exchange, in memory, changed by events and by nothing else.

`apply` is the only writer. It keeps two things apart: what is durable (noted in `touched`, so that the projections are
written with the events) and what is last value only (heartbeats, sessions), which a restart may forget.
Ended jobs and runs leave the view once they are projected; the store answers for them, and for the whole of the live
jobs of which only a row is here (`Shelf`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from tieline.exchange.arrivals import WideArea
from tieline.exchange.effects import APPLY
from tieline.exchange.guests import Guest, tell
from tieline.exchange.jobrow import JobRow
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.membership import Membership
from tieline.exchange.network import Network
from tieline.exchange.queue import Queue
from tieline.exchange.readings import Readings
from tieline.exchange.shelf import Fetch, Shelf
from tieline.exchange.showing import Showing
from tieline.exchange.supply import Supply, amount_of
from tieline.exchange.yielding import Yielding
from tieline.model import event as fact
from tieline.model.job import JOB_ENDED, JOB_NEXT, RUN_ENDED, RUN_NEXT, Job, JobState, Run, RunState, Usage
from tieline.model.limits import Limits
from tieline.model.party import Site, Token
from tieline.model.peer import BranchState, Cursor, Peer, PeerState, PinnedRoot, SiteState
from tieline.model.plan import Quote
from tieline.model.project import Project, Spending
from tieline.model.record import DelegatedKey, Root
from tieline.place import Amount
from tieline.place.share import Shares
from tieline.ports import Distances
from tieline.registry import Catalogue, Silence

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
        self.distances.specs = self.supply.site_specs
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

    def begin(self, event: fact.ExchangeCreated) -> None:
        """Be this exchange from now on."""
        self.exchange = ExchangeRow(id=event.id, prefix=event.prefix, public=event.public, session=event.session)
        self.touch("exchange", event.id, self.exchange)

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
                self.supply.version += self._waits_no_more(before)  # others may have that
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

    def _waits_no_more(self, row: JobRow) -> bool:
        """A job leaves the queue, and what was held back for it is held back no more; whether anything was."""
        self.waiting.remove(row)
        if self.yielding.kept.pop(row.id, None) is not None:
            self.supply.version += 1
        return self.keep_back(row.id, ())

    def keep_back(self, job: str, pools: Iterable[str]) -> bool:
        """Let these pools wait for a job, and no others; whether some wait for it no more."""
        now = dict.fromkeys(pools, job)
        is_less = any(other == job and pool not in now for pool, other in self.held_back.items())
        if is_less:
            self.held_back = {pool: other for pool, other in self.held_back.items() if other != job}
        self.held_back |= now
        return is_less

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
            elif self.shares is not None and run.pledged_micro_cny != before.pledged_micro_cny:
                _share(self.shares, before, is_over=True)
                _share(self.shares, run, is_over=False)
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
