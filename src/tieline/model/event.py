"""Events: everything that ever happens to the state of an exchange, and nothing else does.

An entry of the log is (seq, time_ms, actor, event); its hash covers these, as stored, and the hash of the one before.
State tables are projections of these, written in the same transaction.
"""

from __future__ import annotations

import msgspec

from tieline.model.circuit import Circuit, Receipt
from tieline.model.job import Break, Job, JobState, Output, Run, RunState, Usage
from tieline.model.party import Site, Token
from tieline.model.peer import Cursor, Peer, PinnedRoot
from tieline.model.plan import Quote
from tieline.model.project import Project
from tieline.model.reading import Point
from tieline.model.reason import Reason
from tieline.model.recordline import said_of
from tieline.model.tariff import Tariff
from tieline.model.topology import Topology
from tieline.model.transfer import Transfer


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """One fact. `Events` are those that there are; what stands between says what several are about."""

    @property
    def subject(self) -> str:
        """The identifier that the event is about."""
        raise AssertionError(type(self).__name__)


class OfId(Event, frozen=True, kw_only=True):
    """About what bears this identifier."""

    id: str

    @property
    def subject(self) -> str:
        """What bears it."""
        return self.id


class OfSite(Event, frozen=True, kw_only=True):
    """About a site, as it is from now on."""

    site: Site

    @property
    def subject(self) -> str:
        """The site."""
        return self.site.id


class OfJob(Event, frozen=True, kw_only=True):
    """About a job."""

    job: str

    @property
    def subject(self) -> str:
        """The job."""
        return self.job


class OfRun(Event, frozen=True, kw_only=True):
    """About a run."""

    run: str

    @property
    def subject(self) -> str:
        """The run."""
        return self.run


class ExchangeCreated(OfId, frozen=True, kw_only=True, tag="exchange_created"):
    """The first entry of every log."""

    prefix: str
    public: str
    session: str = ""  # of its logs of records


class TokenCreated(Event, frozen=True, kw_only=True, tag="token_created"):
    """A token was given out; only its hash is known here."""

    token: Token

    @property
    def subject(self) -> str:
        """The token."""
        return self.token.id


class TokenUsed(OfId, frozen=True, kw_only=True, tag="token_used"):
    """A token with a limited number of uses was used."""

    by: str


class TokenRevoked(OfId, frozen=True, kw_only=True, tag="token_revoked"):
    """A token is worth nothing from now on."""

    at_ms: int


class RecordStored(OfId, frozen=True, kw_only=True, tag="record_stored"):
    """A record was verified and is kept, as signed."""

    kind: str
    rev: int
    sha256: str
    exp: int
    status: str
    kid: str
    envelope: str


class EquivocationSeen(OfId, frozen=True, kw_only=True, tag="equivocation_seen"):
    """Two payloads of one revision, both signed: proof against their writer."""

    rev: int
    kept_sha256: str  # of the one that was held when the other came
    other_sha256: str
    other_envelope: str


class RecordsForgotten(Event, frozen=True, kw_only=True, tag="records_forgotten"):
    """Records whose lease ended long ago are kept no more; what they said stays in the log."""

    ids: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The first of them."""
        return self.ids[0]


class SiteJoined(OfSite, frozen=True, kw_only=True, tag="site_joined"):
    """A site proved its owner's key; it is admitted, or waits to be."""


class SiteChanged(OfSite, frozen=True, kw_only=True, tag="site_changed"):
    """Accepted, drained, undrained, left, silent or back: the new state and why."""

    why: str


class SessionOpened(OfSite, frozen=True, kw_only=True, tag="session_opened"):
    """A site process proved the site's key."""


class JobSubmitted(Event, frozen=True, kw_only=True, tag="job_submitted"):
    """A job is acknowledged: it will end succeeded, failed or cancelled, and never be forgotten."""

    job: Job

    @property
    def subject(self) -> str:
        """The job."""
        return self.job.id


class JobQueued(OfJob, frozen=True, kw_only=True, tag="job_queued"):
    """The job waits again, for a stated reason."""

    eligible_ms: int
    attempts: int
    losses: int
    avoid: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    is_preempted: bool = False  # its run gave way to another


class JobEnded(OfJob, frozen=True, kw_only=True, tag="job_ended"):
    """The job is over."""

    state: JobState
    at_ms: int
    reasons: tuple[Reason, ...] = ()
    outputs: tuple[Output, ...] = ()


class CancelRequested(OfJob, frozen=True, kw_only=True, tag="cancel_requested"):
    """Somebody asked for the job to stop."""

    by: str
    why: str = ""


class RunOffered(Event, frozen=True, kw_only=True, tag="run_offered"):
    """A booking is held on a pool until the owner's site answers or its time to live ends."""

    run: Run
    held_micro_cny: int = 0

    @property
    def subject(self) -> str:
        """The run."""
        return self.run.id


class RunAccepted(OfRun, frozen=True, kw_only=True, tag="run_accepted"):
    """The owner's site took it: the booking is real."""

    at_ms: int
    sandbox: str = ""
    network: str = ""


class RunConfirmed(OfRun, frozen=True, kw_only=True, tag="run_confirmed"):
    """Of a gang over several pools: all its runs are accepted, and this one may start."""

    at_ms: int


class GangBroken(OfJob, frozen=True, kw_only=True, tag="gang_broken"):
    """A run of a gang over several pools did not end well: the gang cannot go on."""

    run: str
    why: Break


class RunStarted(OfRun, frozen=True, kw_only=True, tag="run_started"):
    """It runs."""

    at_ms: int
    devices: tuple[int, ...] = ()


class StopRequested(OfRun, frozen=True, kw_only=True, tag="stop_requested"):
    """The site is asked to end the run."""

    why: str
    reason: Reason | None = None  # where there is more to say, such as for whom it gives way


class CheckpointStored(OfRun, frozen=True, kw_only=True, tag="checkpoint_stored"):
    """A checkpoint that the next run can start from."""

    job: str
    sha256: str
    size_bytes: int
    at_ms: int


class RunEnded(OfRun, frozen=True, kw_only=True, tag="run_ended"):
    """The run is over; its capacity is free. ``usage`` is there exactly when it is billed."""

    state: RunState  # succeeded, failed, stopped, refused or lost
    at_ms: int
    exit_codes: tuple[int, ...] = ()
    reason: Reason | None = None
    usage: Usage | None = None
    outputs: tuple[Output, ...] = ()  # of a member of a gang, by the ranks of the gang; else the job's end says them


class QuoteChanged(Event, frozen=True, kw_only=True, tag="quote_changed"):
    """A quote was asked for, answered, accepted or expired."""

    quote: Quote

    @property
    def subject(self) -> str:
        """The quote."""
        return self.quote.id


class SessionRenewed(Event, frozen=True, kw_only=True, tag="session_renewed"):
    """The logs of records begin anew (after a restore): whoever follows them takes the snapshots."""

    session: str
    why: str

    @property
    def subject(self) -> str:
        """The session."""
        return self.session


class PeerChanged(Event, frozen=True, kw_only=True, tag="peer_changed"):
    """Asked, offered, accepted, granted, found at fault, cleared or removed: the new state and why."""

    peer: Peer
    why: str

    @property
    def subject(self) -> str:
        """The peer."""
        return self.peer.id


class RootChanged(Event, frozen=True, kw_only=True, tag="root_changed"):
    """An admin pinned the key of a prefix, or believes it no longer."""

    root: PinnedRoot
    is_pinned: bool

    @property
    def subject(self) -> str:
        """The prefix."""
        return self.root.prefix


class RecordsTaken(Event, frozen=True, kw_only=True, tag="records_taken"):
    """A page of a peer's log: records that were verified and are kept, as signed, and how far the log was taken.

    One fact for many records, so that a page costs one entry. Equivocations are facts of their own.
    """

    cursor: Cursor
    page: str = ""  # NDJSON of envelopes: of what was kept, in the order in which it came

    @property
    def records(self) -> tuple[RecordStored, ...]:
        """What was kept, record by record. Read anew each time: some microseconds for each."""
        return tuple([RecordStored(**said_of(line)) for line in self.page.splitlines()])

    @property
    def subject(self) -> str:
        """The prefix whose log it is."""
        return self.cursor.prefix


class ReportsTaken(Event, frozen=True, kw_only=True, tag="reports_taken"):
    """The reports of a peer up to this position of its list have taken effect."""

    peer: str
    after: int
    session: str = ""  # of its list

    @property
    def subject(self) -> str:
        """The peer."""
        return self.peer


class UsageAnswered(Event, frozen=True, kw_only=True, tag="usage_answered"):
    """The other side signed what it pays of a usage line, and what it disputes."""

    usage: Usage

    @property
    def subject(self) -> str:
        """The run."""
        return self.usage.run


class ProjectChanged(Event, frozen=True, kw_only=True, tag="project_changed"):
    """A project was made or changed."""

    project: Project
    why: str

    @property
    def subject(self) -> str:
        """The project."""
        return self.project.id


class ShellOpened(OfJob, frozen=True, kw_only=True, tag="shell_opened"):
    """Somebody runs a command beside a run, or reaches one of its ports. What the words after the first say is his."""

    run: str
    by: str
    program: str
    words: int = 0


class TopologyChanged(Event, frozen=True, kw_only=True, tag="topology_changed"):
    """The network was declared anew, whole."""

    topology: Topology
    why: str

    @property
    def subject(self) -> str:
        """The topology."""
        return self.topology.name


class TariffChanged(Event, frozen=True, kw_only=True, tag="tariff_changed"):
    """Bytes and rates have other prices from now on; what is booked keeps its own."""

    tariff: Tariff
    why: str

    @property
    def subject(self) -> str:
        """The tariff: there is one."""
        return "tariff"


class LinksChanged(Event, frozen=True, kw_only=True, tag="links_changed"):
    """Links of the topology were cut, or carry again."""

    down: tuple[str, ...] = ()
    up: tuple[str, ...] = ()
    why: str = ""

    @property
    def subject(self) -> str:
        """The first of the links."""
        return (*self.down, *self.up, "")[0]


class PointsChanged(Event, frozen=True, kw_only=True, tag="points_changed"):
    """Reference points were named, changed or taken back."""

    put: tuple[Point, ...] = ()
    removed: tuple[str, ...] = ()
    why: str = ""

    @property
    def subject(self) -> str:
        """The first of the points."""
        return (*(point.name for point in self.put), *self.removed, "")[0]


class TransferChanged(Event, frozen=True, kw_only=True, tag="transfer_changed"):
    """A transfer as it stands now: admitted, moved to other slots or paths, or ended."""

    transfer: Transfer
    why: str

    @property
    def subject(self) -> str:
        """The transfer."""
        return self.transfer.id


class CircuitChanged(Event, frozen=True, kw_only=True, tag="circuit_changed"):
    """A circuit as it stands now."""

    circuit: Circuit
    why: str

    @property
    def subject(self) -> str:
        """The circuit."""
        return self.circuit.id


class ReceiptStored(Event, frozen=True, kw_only=True, tag="receipt_stored"):
    """What was seen of a transfer or a circuit; the change that follows from it is an event of its own.

    ``usage`` is the usage line as it stands then, and ``charged_micro_cny`` what this receipt added to it.
    """

    receipt: Receipt
    usage: Usage | None = None
    charged_micro_cny: int = 0

    @property
    def subject(self) -> str:
        """The transfer or circuit."""
        return self.receipt.subject


Events = (
    ExchangeCreated
    | TokenCreated
    | TokenUsed
    | TokenRevoked
    | RecordStored
    | EquivocationSeen
    | RecordsForgotten
    | SiteJoined
    | SiteChanged
    | SessionOpened
    | JobSubmitted
    | JobQueued
    | JobEnded
    | CancelRequested
    | RunOffered
    | RunAccepted
    | RunConfirmed
    | GangBroken
    | RunStarted
    | StopRequested
    | CheckpointStored
    | RunEnded
    | QuoteChanged
    | SessionRenewed
    | PeerChanged
    | RootChanged
    | RecordsTaken
    | ReportsTaken
    | UsageAnswered
    | ProjectChanged
    | ShellOpened
    | TopologyChanged
    | TariffChanged
    | LinksChanged
    | PointsChanged
    | TransferChanged
    | CircuitChanged
    | ReceiptStored
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One position of the log."""

    seq: int
    time_ms: int
    actor: str
    event: Events
