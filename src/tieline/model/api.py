"""Bodies of the HTTP API under ``/v1``: what a caller sends and what comes back (errors: `model.error.ErrorEnvelope`).

::

    who        GET  /v1/exchange | /v1/me | /v1/status | /v1/situation | /v1/schema/task   GET /healthz /readyz /metrics
    records    POST /v1/records   GET /v1/records?prefix&kind&after&limit | /v1/records/{id} | /v1/chain/{id}
    find       POST /v1/find      POST /v1/plans
    quotes     POST /v1/quotes    GET /v1/quotes/{id}    POST /v1/quotes/{id}/accept
    jobs       POST /v1/jobs      GET /v1/jobs | /v1/jobs/{id}?wait_s | /v1/jobs/{id}/why | /v1/jobs/{id}/history
               POST /v1/jobs/{id}/stop   GET /v1/jobs/{id}/log?node&offset | /v1/jobs/{id}/log/stream (SSE)
    projects   POST /v1/projects   GET /v1/projects | /v1/projects/{id}
               POST /v1/projects/{id}/set|members|close|reopen
    money      GET  /v1/usage | /v1/bills
    log        GET  /v1/events?after&limit&job | /v1/events/stream (SSE) | /v1/events/verify
    sites      GET  /v1/sites | /v1/sites/{id}   POST /v1/sites (join)   POST /v1/sites/{id}/accept|drain|undrain|leave
    tokens     POST /v1/tokens    GET /v1/tokens   DELETE /v1/tokens/{id}   POST /v1/tokens/delegated
    blobs      POST /v1/blobs     HEAD|GET /v1/blobs/{sha256}
    site side  POST /v1/site/sessions | /v1/site/reports | /v1/site/heartbeat | /v1/site/runs/{run}/log
               GET  /v1/site/stream (SSE)

Identifiers contain slashes: in a path they are written with ``~`` for ``/`` (``cn.demo.lab7~pool~a100``); a job's short
name (``j-7f3k2m9qab``) is accepted wherever its identifier is. Every change takes an ``Idempotency-Key`` header: the
same key with the same body from the same caller is answered as before.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.bill import Bill
from tieline.model.job import Job, Run, Usage
from tieline.model.kinds import KINDS
from tieline.model.party import Role
from tieline.model.plan import Plan
from tieline.model.project import PRIORITY_MOST, Member, Priority, Quota, Weight
from tieline.model.protocol import Ms
from tieline.model.reason import Reason, Relaxation
from tieline.model.spec import MicroCny, OptionalWord, Title, Word
from tieline.model.task import Seconds, Task

FINDABLE = "|".join(kind for kind, row in KINDS.items() if row.is_findable)
Text = Annotated[str, msgspec.Meta(max_length=4_000)]
# base64url of a sealed JSON object
Sealed = Annotated[str, msgspec.Meta(max_length=131_072, pattern=r"\A[A-Za-z0-9_-]*={0,2}\Z")]
Id = Annotated[str, msgspec.Meta(max_length=200)]
Members = Annotated[tuple[Member, ...], msgspec.Meta(max_length=1_000)]
ScopeName = Annotated[str, msgspec.Meta(max_length=40)]


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a caller sends: unknown fields are errors."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back: every field is present, so that a reader needs no defaults."""


# -- who --------------------------------------------------------------------------------------------------------------


class IssuerView(View, frozen=True, kw_only=True):
    """An identity provider that this exchange believes, and what a program needs to log in there."""

    alias: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    bearer: str  # which token is sent here: `access` or `id`
    hosts: tuple[str, ...]  # of its endpoints, beside the issuer's own


class ExchangeView(View, frozen=True, kw_only=True):
    """Who answers here, and the keys that a caller may pin."""

    id: str
    prefix: str
    scope: str
    public: str  # Ed25519, base64url
    fingerprint: str
    sealing: str  # X25519 that secrets are sealed to
    version: str
    protocols: tuple[int, ...]
    issuers: tuple[IssuerView, ...] = ()


class MeView(View, frozen=True, kw_only=True):
    """The caller as the exchange sees it."""

    name: str
    roles: tuple[Role, ...]
    owner: str
    right: str  # under which right: `token ID`, `delegated ID`, `oidc ALIAS`, `session`
    groups: tuple[str, ...]  # of the identity provider
    scopes: tuple[str, ...]  # what a delegated token narrows this to; empty: all that the roles allow
    project: str
    job: str


class StatusView(View, frozen=True, kw_only=True):
    """How the exchange itself is doing, with every limit of its configuration."""

    id: str
    version: str
    started_ms: int
    now_ms: int
    events: int
    head: str  # hash of the newest event
    jobs: dict[str, int]  # by state
    sites: dict[str, int]  # admitted, waiting, silent, draining
    pools: int
    records: int
    queue_depth: int
    store: dict[str, int]  # bytes of the database, blobs, logs; free bytes of the disk
    limits: dict[str, int]
    collected: dict[str, int]  # what garbage collection removed so far
    is_writable: bool


class SituationView(View, frozen=True, kw_only=True):
    """The situation 态势 in sums: supply, demand, prices, load. No owner, user or job is named."""

    as_of_ms: int
    sites: dict[str, int]
    supply: dict[str, dict[str, int]]  # by accelerator kind (or `cores`): total, free, pools
    price_micro_cny: dict[str, dict[str, int]]  # by kind: least, median, most
    demand: dict[str, int]  # jobs by state
    charged_micro_cny: int


# -- records, find, plan ----------------------------------------------------------------------------------------------


class RecordBody(Body, frozen=True, kw_only=True):
    """An envelope, as text (flattened JWS JSON)."""

    envelope: Annotated[str, msgspec.Meta(max_length=131_072)]


class RecordView(View, frozen=True, kw_only=True):
    """A stored record: the bytes as signed, and what the exchange decided about them."""

    id: str
    kind: str
    rev: int
    sha256: str
    status: str
    exp: int
    kid: str
    is_valid: bool  # signed by a key that is delegated, not expired, not revoked, as of now
    why_not: str
    envelope: str
    record: msgspec.Raw  # the decoded payload
    equivocation: tuple[str, ...]  # hashes of two payloads of one revision, when that was seen


class RecordPage(View, frozen=True, kw_only=True):
    """A page of records in order of identifier."""

    records: tuple[RecordView, ...]
    next_after: str


class ChainView(View, frozen=True, kw_only=True):
    """The envelopes from the pinned root down to the record: all that a verifier needs."""

    root: str  # prefix of the pinned root
    root_public: str
    envelopes: tuple[str, ...]


class FindBody(Body, frozen=True, kw_only=True):
    """An expression or words; both empty finds everything of the kind."""

    query: Text = ""
    words: Annotated[str, msgspec.Meta(max_length=400)] = ""
    kind: Annotated[str, msgspec.Meta(pattern=rf"\A({FINDABLE})?\Z")] = ""
    order: Annotated[str, msgspec.Meta(max_length=200)] = ""  # empty: match where words are given, else price
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 20
    partners: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1_000)] = ()  # the caller's named set `partners`
    branch_budget_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 200  # for asking peers; 0: what is known here


class PlanBody(Body, frozen=True, kw_only=True):
    """Tasks to be planned; nothing is changed."""

    tasks: Annotated[tuple[Task, ...], msgspec.Meta(min_length=1, max_length=100)]
    project: OptionalWord = ""  # empty: the caller's only one, or none


class PlanPage(View, frozen=True, kw_only=True):
    """One plan per task."""

    plans: tuple[Plan, ...]


# -- quotes -----------------------------------------------------------------------------------------------------------


class QuoteBody(Body, frozen=True, kw_only=True):
    """Ask for a quote for one task: at the cheapest fitting pool, or at ``pool``."""

    task: Task
    pool: Id = ""
    price_micro_cny: MicroCny = 0  # what the caller would like to pay per unit-hour; 0: the listed price
    duration_s: Seconds = 0


class AcceptBody(Body, frozen=True, kw_only=True):
    """Accepting a quote books it."""

    sealed_secrets: Sealed = ""
    project: OptionalWord = ""  # empty: the caller's only one, or none


# -- jobs -------------------------------------------------------------------------------------------------------------


class JobsBody(Body, frozen=True, kw_only=True):
    """One task, or several that run one after the other (a pipeline). Secrets are sealed to the exchange's key."""

    tasks: Annotated[tuple[Task, ...], msgspec.Meta(min_length=1, max_length=100)]
    pipeline: Annotated[str, msgspec.Meta(max_length=63, pattern=r"\A([A-Za-z0-9][A-Za-z0-9._-]*)?\Z")] = ""
    sealed_secrets: Sealed = ""
    project: OptionalWord = ""  # empty: the caller's only one, or none


class JobView(View, frozen=True, kw_only=True):
    """A job with its runs, oldest first."""

    job: Job
    runs: tuple[Run, ...]


class JobPage(View, frozen=True, kw_only=True):
    """Jobs, newest first."""

    jobs: tuple[Job, ...]
    next_before: str


class WhyView(View, frozen=True, kw_only=True):
    """Why a job is where it is: the binding constraint first."""

    job: str
    state: str
    reasons: tuple[Reason, ...]
    considered: int
    nearest: Relaxation | None
    plan: Plan | None  # what placing says now, for a job that waits
    via: str  # the exchange behind which its newest run is, or was; empty: it is at a site of this one
    as_of_ms: int  # when what is free behind that exchange was heard, as the choice rests on it


class StopBody(Body, frozen=True, kw_only=True):
    """Stop a job: checkpoint first where the task declares one."""

    why: Annotated[str, msgspec.Meta(max_length=400)] = ""


# -- projects ---------------------------------------------------------------------------------------------------------


class ProjectBody(Body, frozen=True, kw_only=True):
    """A project to be made."""

    id: Word
    title: Title = ""
    quota: Quota = Quota()
    weight: Weight = 1
    may_borrow: bool = True
    priority_most: Priority = PRIORITY_MOST
    members: Members = ()


class ProjectSetBody(Body, frozen=True, kw_only=True):
    """Other terms of a project; what is absent stays as it is."""

    title: Title | None = None
    quota: Quota | None = None
    weight: Weight | None = None
    may_borrow: bool | None = None
    priority_most: Priority | None = None


class MembersBody(Body, frozen=True, kw_only=True):
    """Who is in a project from now on, or in another role, and who is not any more, whatever the role was."""

    put: Members = ()
    remove: Members = ()


class ProjectView(View, frozen=True, kw_only=True):
    """A project: its terms, what it used this month, and what it holds now."""

    id: str
    title: str
    role: str  # of the caller: member, manager or none
    members: tuple[Member, ...]  # in a list of projects empty
    member_count: int
    quota: Quota
    weight: int
    may_borrow: bool
    priority_most: int
    is_closed: bool
    created_ms: int
    changed_ms: int
    month: str  # that the next two are of, UTC
    card_ms: int
    charge_micro_cny: int
    held_card_count: int  # by its live runs
    held_core_count: int  # of pools without accelerators
    pledged_card_ms: int  # what they may still use up
    pledged_micro_cny: int


class ProjectPage(View, frozen=True, kw_only=True):
    """The projects that the caller may see, in order of name."""

    projects: tuple[ProjectView, ...]


# -- money ------------------------------------------------------------------------------------------------------------


class UsagePage(View, frozen=True, kw_only=True):
    """Usage lines, oldest first; each names its run, whose events are in the log."""

    lines: tuple[Usage, ...]
    next_after: str


class UsageKeys(View, frozen=True, kw_only=True):
    """Public keys (base64url) by exchange: this one and its peers, as it pinned them. Pin them yourself to be sure."""

    exchange: str
    keys: dict[str, str]


class BillPage(View, frozen=True, kw_only=True):
    """Bills, one for each owner or user."""

    bills: tuple[Bill, ...]


# -- log --------------------------------------------------------------------------------------------------------------


class EventView(View, frozen=True, kw_only=True):
    """One entry of the log as its readers see it; ``hash`` chains it to the one before."""

    seq: int
    time_ms: int
    kind: str
    subject: str
    actor: str
    source: str  # from where and under which right: `10.0.0.7 token t-...`; for admins and auditors, else empty
    hash: str
    body: msgspec.Raw


class EventPage(View, frozen=True, kw_only=True):
    """A page of the log."""

    events: tuple[EventView, ...]
    next_after: int


class VerifyView(View, frozen=True, kw_only=True):
    """Whether the hash chain holds from the first entry to the last."""

    is_verified: bool
    events: int
    head: str
    broken_at: int
    why: str


# -- sites and tokens -------------------------------------------------------------------------------------------------


class JoinBody(Body, frozen=True, kw_only=True):
    """A site asks to join: a token, or nothing (then it waits). ``statement`` is signed with the owner's key."""

    token: Annotated[str, msgspec.Meta(max_length=2_000)] = ""
    statement: Annotated[str, msgspec.Meta(max_length=131_072)]


class JoinStatement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the owner signs (statement type ``site-join``, kid ``<owner>#join``) to prove that it holds its key."""

    owner: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,62}\Z")]  # one label below the exchange's prefix
    owner_public: str
    site: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,62}\Z")]
    site_public: str
    sealing: str
    nonce: str
    at_ms: Ms
    title: str = ""


class JoinView(View, frozen=True, kw_only=True):
    """The exchange's answer: the prefix it delegated, and the envelope that says so."""

    site: str
    owner: str  # prefix
    is_admitted: bool
    delegation: str  # envelope
    exchange: ExchangeView


class PoolView(View, frozen=True, kw_only=True):
    """A pool as placing sees it now."""

    id: str
    accelerator: str
    accelerator_count: int
    accelerators_free: int
    core_count: int
    cores_free: int
    memory_bytes: int
    memory_free_bytes: int
    price_micro_cny_per_unit_hour: int
    sandbox: str
    networks: tuple[str, ...]
    evidence: dict[str, str]
    is_emulated: bool


class SiteView(View, frozen=True, kw_only=True):
    """A site as the exchange sees it."""

    id: str
    owner: str
    tier: str
    region: str
    is_admitted: bool
    is_draining: bool
    is_silent: bool
    has_left: bool
    heard_ms: int
    joined_ms: int
    runs: int
    readings: dict[str, int]
    declared_by: str
    pools: tuple[PoolView, ...]


class SitePage(View, frozen=True, kw_only=True):
    """All sites that the caller may see."""

    sites: tuple[SiteView, ...]


class TokenBody(Body, frozen=True, kw_only=True):
    """A token to be made. ``join`` is for one owner's sites; the other roles are for people and programs."""

    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1, max_length=8)]
    name: Annotated[str, msgspec.Meta(max_length=63, pattern=r"\A[a-z0-9][a-z0-9._-]*\Z")]
    owner: Annotated[str, msgspec.Meta(max_length=200)] = ""
    ttl_s: Seconds = 86_400
    uses: Annotated[int, msgspec.Meta(ge=-1, le=100_000)] = -1


class TokenMade(View, frozen=True, kw_only=True):
    """The only time that the secret is seen. A join token carries the exchange's URL and fingerprint."""

    id: str
    secret: str
    name: str
    roles: tuple[Role, ...]
    expires_ms: int


class DelegateBody(Body, frozen=True, kw_only=True):
    """A right to be passed on: which part of the caller's own, and for how long."""

    scopes: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=40)], ...], msgspec.Meta(min_length=1, max_length=32)
    ]
    job: Id = ""  # only for this job, and void once it has ended
    project: Annotated[str, msgspec.Meta(max_length=63)] = ""
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 3_600


class DelegatedMade(View, frozen=True, kw_only=True):
    """The token is nowhere else: it is not stored, and the same request makes another."""

    id: str
    secret: str
    user: str
    scopes: tuple[str, ...]
    job: str
    expires_ms: int  # never after the token that it comes from


class TokenView(View, frozen=True, kw_only=True):
    """A token without its secret."""

    id: str
    name: str
    roles: tuple[Role, ...]
    owner: str
    created_ms: int
    created_by: str
    expires_ms: int
    uses_left: int
    is_revoked: bool


class TokenPage(View, frozen=True, kw_only=True):
    """All tokens."""

    tokens: tuple[TokenView, ...]


class BlobView(View, frozen=True, kw_only=True):
    """Bytes that are kept."""

    sha256: str
    size_bytes: int


class LogKept(View, frozen=True, kw_only=True):
    """How much of a run's log is kept; the site goes on from there."""

    offset: int
    is_full: bool
