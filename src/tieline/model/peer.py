"""Peers: exchanges of other owners that this one knows, what each lets the other do, and what they owe each other.

::

    A: tieline exchange peer add URL-of-B      A pins B's key and asks B, signed          A: asked      B: offered
    B: tieline exchange peer accept A          B pins A's key; the next call of A         A: active     B: active
                                               finds itself welcome

Both sides say yes, or nothing flows. Peers form a directed graph: any exchange may have several parents, children and
equals. *Who uses, dials*: records are pulled by whoever wants them, orders are sent and reports are fetched by whoever
placed the run. So only the used side has to be reachable, and what was lost is asked for again from a cursor.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.identifier import DOTTED, MAX_IDENTIFIER_BYTES
from tieline.model.party import Role
from tieline.model.project import Quota
from tieline.model.reason import Reason
from tieline.model.record import Id, Public
from tieline.model.spec import Word

Prefix = Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES, pattern=rf"\A{DOTTED}\Z")]
Url = Annotated[str, msgspec.Meta(max_length=400, pattern=r"\Ahttps?://[^\s]+\Z")]


class PinnedRoot(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix whose key an admin here chose to believe, without peering with its exchange."""

    prefix: Prefix
    public: str  # of its exchange
    since_ms: int


class PeerRole(StrEnum):
    """What the other exchange is to this one."""

    PARENT = "parent"  # it gave us our prefix, or speaks for a wider scope
    CHILD = "child"  # we gave it its prefix, or speak for a wider scope
    PEER = "peer"


class PeerState(StrEnum):
    """How far the double opt-in has come."""

    ASKED = "asked"  # we asked; they have not said yes
    OFFERED = "offered"  # they asked; we have not said yes
    ACTIVE = "active"
    REMOVED = "removed"


class Peer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One other exchange as this one knows it. Its key is pinned: no record and no answer can change it."""

    id: Id
    prefix: Prefix
    public: Public
    url: str
    role: PeerRole
    state: PeerState
    scope: str = ""  # national, regional, industry, enterprise: as it says of itself
    title: str = ""
    kinds: tuple[Word, ...] = ()  # what we pull from it; empty: every kind
    prefixes: tuple[Prefix, ...] = ()  # what we pull from it: these and below; empty: everything
    may_read: bool = True  # it may pull our records
    may_use: bool = False  # its users may run here, within `quota`
    quota: Quota = Quota()
    reports_after: int = 0  # position in its list up to which its reports are taken
    reports_session: str = ""  # of that list: a restored peer begins another one
    fault: Reason | None = None  # proof against it: rolled back, equivocated, forged; shown until an admin clears it
    since_ms: int = 0
    changed_ms: int = 0
    cleared_ms: int = 0  # what was known of its logs until then is held against it no more


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a job comes from that another exchange asked for; the pair (peer, run) is named once and for ever."""

    peer: str  # exchange identifier
    run: str  # short name of the peer's run
    epoch: int
    job: str  # the peer's job identifier
    user: str = ""  # as the peer names it
    token: str = ""  # identifier of the delegated token under which it was asked for
    path: tuple[str, ...] = ()  # exchanges that the offer passed through, the first one first
    first_run: str = ""  # `<exchange>#<run>` where it was asked for first
    data_class: tuple[str, ...] = ()  # of its data, as the peer knows it
    residency: tuple[str, ...] = ()
    offered_ms: int = 0  # by the peer's clock
    expires_ms: int = 0  # by ours: not started later than that
    accelerator_count: int = 0
    core_count: int = 0


class Cursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the log of one prefix was taken from one peer. Another session means: begin with the snapshot."""

    peer: str
    prefix: str
    session: str = ""
    serial: int = 0
    taken_ms: int = 0


class PoolState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is free in one pool now, for the peer that asks: what its own runs hold there is counted as free."""

    pool: str
    accelerators: int = 0
    cores: int = 0
    memory_bytes: int = 0


class SiteState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One site behind a branch; ``path`` names the exchanges that lead to it, the answering one first."""

    id: str
    owner: str
    path: Annotated[tuple[str, ...], msgspec.Meta(max_length=4)]
    is_draining: bool = False
    is_silent: bool = False
    pools: Annotated[tuple[PoolState, ...], msgspec.Meta(max_length=1_000)] = ()


class BranchState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What changes fast at a peer: last value only, never logged. ``log`` and ``head`` name the state it rests on."""

    exchange: str
    at_ms: int
    head: int
    sites: Annotated[tuple[SiteState, ...], msgspec.Meta(max_length=100_000)] = ()
    quota: Quota = Quota()  # of the exchange that asks: nothing larger is worth asking


class UsageClaim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the exchange that ran it says a run used: signed (statement type `CLAIM`), held by both sides."""

    claim: str  # identifier of the exchange that makes it
    to: str  # identifier of the exchange that it is made to
    origin_run: str  # short name of the run over there
    origin_job: str
    first_run: str = ""  # `<exchange>#<run>` where it was asked for first, as the site's reading names it too
    epoch: int
    run: str  # short name of the run here
    job: str
    user: str  # as the other exchange names it
    owner: str
    pool: str
    unit: str
    unit_count: int
    duration_ms: int
    unit_seconds: int
    price_micro_cny_per_unit_hour: int
    charge_micro_cny: int
    remainder: int
    state: str
    ended_ms: int
    cpu_ms: int = 0
    max_memory_bytes: int = 0
    site_receipt: str = ""  # the site's own signed statement (type `METER`), where it gave one


class UsageAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the exchange whose user it was says to a claim: signed (statement type `ANSWER`), held by both sides."""

    claim_sha256: str  # of the claim's bytes as signed
    by: str
    run: str  # short name there
    accepted_ms: int  # of the claimed duration
    charge_micro_cny: int  # that it pays
    disputed_micro_cny: int = 0
    why: Reason | None = None


class MeterReading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a site's process measured of one run, signed with the site's key (statement type `METER`)."""

    site: str
    run: str
    first_run: str = ""  # `<exchange>#<run>` where it was asked for first: no reading stands in for another run's
    epoch: int
    state: str
    duration_ms: int
    cpu_ms: int = 0
    max_memory_bytes: int = 0


class DelegatedToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A right that an exchange passes on: this user, these scopes, this job, until then (statement type `DELEGATED`).

    It holds nothing that its giver's own token did not allow, and it is never stored: whoever shows it is checked
    against the signature, the times and the job's state. A field that is not known here could narrow it: refused.
    """

    id: str
    by: str  # the exchange that signed it
    to: str  # the exchange that may take it; itself for its own API
    user: str
    scopes: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)]
    nb_s: int
    exp_s: int
    owner: str = ""
    project: str = ""
    job: str = ""  # only for this job
    run: str = ""
    pool: str = ""
    roles: tuple[Role, ...] = ()  # of the giver, as far as they are passed on; they mean nothing at another exchange
    groups: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()  # of the giver, for projects
    parent: str = ""  # the token that it comes from; it ends with it


class Introduction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an exchange says of itself and signs with its own key (statement types `GREETING` and `PEERING`)."""

    id: Id
    prefix: Prefix
    public: Public
    url: Url
    nonce: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{16,64}\Z")]
    at_ms: int
    scope: Annotated[str, msgspec.Meta(max_length=32)] = ""
    title: Annotated[str, msgspec.Meta(max_length=400)] = ""
    to: str = ""  # of a request to peer: the exchange that is asked
    role: PeerRole = PeerRole.PEER  # of a request to peer: what the asker is to the one that is asked


GREETING = "exchange-greeting"
PEERING = "peer-request"
CLAIM = "usage-claim"
ANSWER = "usage-answer"
METER = "site-meter"
DELEGATED = "delegated-token"
