"""Commands: everything that may be asked of an exchange that can change it, and who asks.

A use-case is a pure function ``(view, command, now_ms, ids) -> Decision``. It raises TielineError to refuse the command
whole; then nothing has changed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.model.event import Events
from tieline.model.party import SYSTEM, Actor, Role
from tieline.model.peer import BranchState, PeerRole
from tieline.model.project import Member, Quota
from tieline.model.protocol import Ask, Beat, Hello, Offer, PeerReport, Reports, Roll, Stop
from tieline.model.reading import Point, ReadingBatch
from tieline.model.relay import ShellBody
from tieline.model.task import Task
from tieline.model.topology import Topology


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What every command carries. ``key`` is the caller's idempotency key with the digest of the body, or empty."""

    actor: Actor = SYSTEM
    key: str = ""
    digest: str = ""


class Decision(msgspec.Struct, frozen=True):
    """What follows from a command: facts to be committed, and the answer that is given once they are."""

    events: tuple[Events, ...] = ()
    reply: Any = None


class CreateExchange(Command, frozen=True, kw_only=True):
    """The first command of an exchange: its name, and the first admin's token hash."""

    id: str
    prefix: str
    public: str
    admin_token_sha256: str
    session: str = ""


class CreateToken(Command, frozen=True, kw_only=True):
    """Make a token; the secret's hash is made by the shell. Reply: model.party.Token."""

    sha256: str
    name: str
    roles: tuple[Role, ...]
    owner: str = ""
    ttl_s: int = 0
    uses: int = -1


class OpenShell(Command, frozen=True, kw_only=True):
    """Reach a run by the relay. Reply: model.job.Run."""

    job: str
    body: ShellBody


class RevokeToken(Command, frozen=True, kw_only=True):
    """Reply: Token."""

    id: str


class StoreRecord(Command, frozen=True, kw_only=True):
    """Verify and keep a record. Reply: RecordStored (of the kept revision)."""

    envelope: bytes


class Rekey(Command, frozen=True, kw_only=True):
    """Give an owner's prefix to another of its keys; an admin names it without a statement. Reply: RekeyView."""

    statement: bytes = b""
    owner: str = ""
    public: str = ""
    is_revoking: bool = False


class ForgetRecords(Command, frozen=True, kw_only=True):
    """The sweeper asks to let go of records whose lease ended long ago. Reply: how many went."""

    ids: tuple[str, ...]


class JoinSite(Command, frozen=True, kw_only=True):
    """A site asks to join. ``token_sha256`` is empty without a token. Reply: `Joined`."""

    statement: bytes
    token_sha256: str = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to JoinSite."""

    site: str
    owner: str
    is_admitted: bool
    delegation: bytes


class ChangeSite(Command, frozen=True, kw_only=True):
    """``what`` is accept, drain, undrain or leave. Reply: model.party.Site."""

    site: str
    what: str


class OpenSession(Command, frozen=True, kw_only=True):
    """A site process opens its session; the shell made ``bearer_sha256``. Reply: model.party.Site, live Orders."""

    statement: bytes
    hello: Hello
    bearer_sha256: str


class TakeReport(Command, frozen=True, kw_only=True):
    """One report of one site; a batch is submitted as many of these, in order. Reply: Outcome."""

    site: str
    report: Reports


class TakeBeat(Command, frozen=True, kw_only=True):
    """A verified heartbeat (the shell checks the signature against the site's key). Reply: Beaten."""

    site: str
    beat: Beat


class SubmitJobs(Command, frozen=True, kw_only=True):
    """Reply: tuple of Job. Refused whole when nothing that exists here could ever run one of the tasks."""

    tasks: tuple[Task, ...]
    pipeline: str = ""
    project: str = ""  # empty: the caller's only one, or none


class ChangeProject(Command, frozen=True, kw_only=True):
    """``what`` is create, set, members, close or reopen. What is None stays as it is. Reply: Project."""

    project: str
    what: str
    title: str | None = None
    quota: Quota | None = None
    weight: int | None = None
    may_borrow: bool | None = None
    priority_most: int | None = None
    put: tuple[Member, ...] = ()  # members, new or with another role
    remove: tuple[Member, ...] = ()  # whatever their role


class ReadProjects(Command, frozen=True, kw_only=True):
    """No events. The named project, or all that the caller may see. Reply: tuple of ProjectView."""

    project: str = ""


class StopJob(Command, frozen=True, kw_only=True):
    """Reply: Job."""

    job: str
    why: str = ""


class AskQuote(Command, frozen=True, kw_only=True):
    """Reply: Quote, asked."""

    task: Task
    pool: str = ""
    price_micro_cny: int = 0
    duration_s: int = 0


class AcceptQuote(Command, frozen=True, kw_only=True):
    """Reply: Job."""

    quote: str
    project: str = ""  # as in SubmitJobs


class PlanTasks(Command, frozen=True, kw_only=True):
    """A dry run: no events. Reply: tuple of Plan."""

    tasks: tuple[Task, ...]
    project: str = ""  # as in SubmitJobs


class WhyJob(Command, frozen=True, kw_only=True):
    """No events. Reply: model.api.WhyView."""

    job: str


class ReadSites(Command, frozen=True, kw_only=True):
    """No events. Reply: tuple of SiteView."""

    site: str = ""


class ReadSituation(Command, frozen=True, kw_only=True):
    """No events. Reply: SituationView."""


class RenewSession(Command, frozen=True, kw_only=True):
    """The logs of records begin anew: an older store was upgraded, or a backup restored. Reply: the session."""

    session: str
    why: str


# -- peers ------------------------------------------------------------------------------------------------------------


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """What an exchange says of itself when it asks to peer, or is asked; proved by its key."""

    id: str
    prefix: str
    public: str
    url: str
    scope: str = ""
    title: str = ""


class AskPeer(Command, frozen=True, kw_only=True):
    """An admin wants to peer with an exchange whose greeting was fetched and proved. Reply: Peer, asked or active."""

    greeting: Greeting
    role: PeerRole  # what it is to us
    kinds: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    may_read: bool = True
    may_use: bool = False
    quota: Quota = Quota()


class TakePeering(Command, frozen=True, kw_only=True):
    """Another exchange, proved by the key in its greeting, asks to peer with us. Reply: Peer, offered or active."""

    greeting: Greeting
    role: PeerRole  # what it is to us
    nonce: str
    at_ms: int


class ChangePeer(Command, frozen=True, kw_only=True):
    """``what`` is accept, grant, remove, clear (a fault) or confirm (it said yes to us). Reply: Peer."""

    peer: str
    what: str
    kinds: tuple[str, ...] | None = None
    prefixes: tuple[str, ...] | None = None
    may_read: bool | None = None
    may_use: bool | None = None
    quota: Quota | None = None


class ChangeRoot(Command, frozen=True, kw_only=True):
    """Pin ``public`` as the key of ``prefix``; without a key the prefix is believed no longer. Reply: PinnedRoot."""

    prefix: str
    public: str = ""


class BlamePeer(Command, frozen=True, kw_only=True):
    """The shell found proof against a peer: rolled back, forged, equivocated. Reply: Peer, with its fault."""

    peer: str
    code: str
    values: dict[str, int | str]


class TakePage(Command, frozen=True, kw_only=True):
    """Records of the log of ``prefix`` as ``peer`` serves it; each is verified here. Reply: `PageTaken`.

    With ``checkpoint`` (envelope of the owner's signed list of page digests) and ``page``, the page's bytes are proved
    by one signature; a page that does not match is taken record by record.
    """

    peer: str
    prefix: str
    session: str
    serial: int  # of the last record of the page: the cursor once it is taken
    envelopes: tuple[bytes, ...]
    checkpoint: bytes = b""
    page: int = -1


class PageTaken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a page. ``refused`` counts by rule; nothing of a refused record is kept.

    ``parked``: the delegation of the log's prefix is not known here yet, so nothing of it can be judged. The whole log
    waits then: the cursor stays, and the page is to be brought again.
    """

    stored: int = 0
    unchanged: int = 0  # held already, or a newer revision is
    parked: int = 0
    equivocations: int = 0
    refused: dict[str, int] = {}
    is_proved: bool = False  # by its owner's checkpoint


class TakeBranch(Command, frozen=True, kw_only=True):
    """A peer's fast state, or why there is none. Last value only. Reply: None."""

    peer: str
    state: BranchState | None
    error: str = ""


class TakeOffer(Command, frozen=True, kw_only=True):
    """A peer asks for a run here, or says again that it did. Reply: `OfferTaken`."""

    peer: str
    offer: Offer


class OfferTaken(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to say of an offer, oldest first, and the job that it became just now."""

    reports: tuple[Reports, ...] = ()
    run: str = ""  # as the peer names it
    job: str = ""  # ours; empty where it was known, or is refused


class TakeAsk(Command, frozen=True, kw_only=True):
    """A peer asks for a quote of an owner here, or asks again. Reply: the Quote, as it is here."""

    peer: str
    ask: Ask


class TakeRoll(Command, frozen=True, kw_only=True):
    """A peer names every run that it believes to be here. Reply: tuple of runs that were fenced."""

    peer: str
    roll: Roll


class ReadLive(Command, frozen=True, kw_only=True):
    """No events. All that a peer must be told again after a reconnect. Reply: `Live`."""

    peer: str


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The orders of every live run behind a peer, and the names of these runs."""

    roll: Roll
    orders: tuple[Offer | Stop, ...] = ()


class ReadReports(Command, frozen=True, kw_only=True):
    """What a peer is told of its runs; with ``after`` it says that it knows what comes before. Reply: ReportPage."""

    peer: str
    session: str = ""  # of our list, as it knows it; another one: everything is told again
    after: int = 0
    most: int = 256


class TakeStop(Command, frozen=True, kw_only=True):
    """A peer wants its run to end. Reply: tuple of Reports, what there is to say of it."""

    peer: str
    run: str
    epoch: int
    why: str = ""
    is_fenced: bool = False


class TakePeerReports(Command, frozen=True, kw_only=True):
    """Reports of a peer about runs that we placed there, in order. Reply: tuple of Outcome, one for each."""

    peer: str
    reports: tuple[PeerReport, ...]
    session: str = ""  # of the peer's list; empty: they were said in answer to an order


class TakeAnswer(Command, frozen=True, kw_only=True):
    """A peer signed what it pays of a claim of ours. Reply: None."""

    peer: str
    answer: str


class ReadBranches(Command, frozen=True, kw_only=True):
    """No events. Reply: tuple of model.peering.BranchView."""


class ReadState(Command, frozen=True, kw_only=True):
    """No events. What a peer may see of what is free here. Reply: BranchState."""

    peer: str


class Tick(Command, frozen=True, kw_only=True):
    """Time passes: leases, offers, quotes and deadlines end; what waits is placed. Reply: None."""


class ChangeTopology(Command, frozen=True, kw_only=True):
    """Take a topology in the place of the one before; bookings are mended. Reply: NetworkChangedView."""

    topology: Topology
    why: str = ""


class ChangeLinks(Command, frozen=True, kw_only=True):
    """Cut and restore links; bookings are mended. Reply: NetworkChangedView."""

    down: tuple[str, ...] = ()
    up: tuple[str, ...] = ()
    why: str = ""


class ReadTopology(Command, frozen=True, kw_only=True):
    """No events. Reply: TopologyView."""


class TakeReadings(Command, frozen=True, kw_only=True):
    """A verified batch (the shell checks the signature against the site's key). Reply: ReadingsTaken."""

    site: str
    batch: ReadingBatch
    statement: str = ""  # as it was signed, to be passed on


class PlanProbes(Command, frozen=True, kw_only=True):
    """What a site measures next. No events. Reply: ProbePlan, without passes."""

    site: str


class ChangePoints(Command, frozen=True, kw_only=True):
    """Reply: PointPage."""

    put: tuple[Point, ...] = ()
    remove: tuple[str, ...] = ()


class ReadReadings(Command, frozen=True, kw_only=True):
    """No events. Reply: ReadingPage."""

    source: str = ""
    target: str = ""
    after: int = 0
    limit: int = 200


class ReadWay(Command, frozen=True, kw_only=True):
    """No events. Reply: WayView."""

    source: str
    target: str


class ReadCats(Command, frozen=True, kw_only=True):
    """No events. Reply: CatsView."""

    point: str = ""
