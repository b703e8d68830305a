"""Peering over the API: what an admin and another exchange send about peers, and how branches are shown.

::

    greeting   GET  /v1/greeting?nonce                     who this is, signed
    peers      POST /v1/peers   GET /v1/peers   POST /v1/peers/{id}/accept|grant|clear   DELETE /v1/peers/{id}
               POST /v1/peers/requests (another exchange asks)   GET /v1/standing (how the caller stands here)
    roots      POST /v1/roots   GET /v1/roots   DELETE /v1/roots/{prefix}
    logs       GET  /v1/logs | /v1/logs/{prefix}/records | .../snapshot | .../digest   GET /v1/tail (SSE)
               POST /v1/logs/{prefix}/buckets | .../fetch
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.api import Body, View
from tieline.model.kinds import KINDS
from tieline.model.peer import PeerRole, PeerState, Prefix, Url
from tieline.model.project import Quota
from tieline.model.reason import Reason
from tieline.model.record import Public

KindName = Annotated[str, msgspec.Meta(pattern=rf"\A({'|'.join(KINDS)})\Z")]


class GreetingView(View, frozen=True, kw_only=True):
    """Who this exchange is, signed by its key with the caller's nonce in it (statement type ``exchange-greeting``)."""

    statement: str


class PeerAddBody(Body, frozen=True, kw_only=True):
    """Peer with the exchange at ``url``. ``fingerprint``, where given, must be that of its key."""

    url: Url
    role: PeerRole
    fingerprint: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    kinds: Annotated[tuple[KindName, ...], msgspec.Meta(max_length=64)] = ()
    prefixes: Annotated[tuple[Prefix, ...], msgspec.Meta(max_length=256)] = ()
    may_read: bool = True
    may_use: bool = False
    quota: Quota = Quota()
    is_elsewhere: bool = False  # keep ``url`` although the exchange says that its address is another


class RootBody(Body, frozen=True, kw_only=True):
    """Believe what the key ``public`` signs for ``prefix``, and what it gave away below."""

    prefix: Prefix
    public: Public


class RootView(View, frozen=True, kw_only=True):
    """A prefix that this exchange believes by its own choice. ``peer`` is the exchange whose peering pinned it."""

    prefix: str
    public: str
    fingerprint: str
    peer: str  # empty: an admin pinned it by itself
    since_ms: int


class RootPage(View, frozen=True, kw_only=True):
    """Every root, by prefix."""

    roots: tuple[RootView, ...]


class PeerRequestBody(Body, frozen=True, kw_only=True):
    """Another exchange asks to peer (statement type ``peer-request``), proved by its own key."""

    statement: Annotated[str, msgspec.Meta(max_length=131_072)]


class PeerGrantBody(Body, frozen=True, kw_only=True):
    """What is granted to a peer, and what is pulled from it; what is absent stays as it is."""

    kinds: Annotated[tuple[KindName, ...], msgspec.Meta(max_length=64)] | None = None
    prefixes: Annotated[tuple[Prefix, ...], msgspec.Meta(max_length=256)] | None = None
    may_read: bool | None = None
    may_use: bool | None = None
    quota: Quota | None = None


class PeerStanding(View, frozen=True, kw_only=True):
    """How a peer stands here, as it may know: what it may do."""

    exchange: str
    state: PeerState
    role: PeerRole  # what it is to the exchange that answers
    may_read: bool
    may_use: bool
    quota: Quota
    is_at_fault: bool
    session: str  # of the logs here


class SilenceView(View, frozen=True, kw_only=True):
    """A branch that is not heard: its leases are frozen while too many of them would end at once."""

    since_ms: int
    alive: int  # leases that ran when it fell silent
    stale: int  # of those, that would have ended since
    is_frozen: bool
    until_ms: int  # from when on they end whatever happens


class BranchView(View, frozen=True, kw_only=True):
    """One peer and how its branch stands: what was taken from it, how far behind that is, what was wrong with it."""

    exchange: str
    prefix: str
    fingerprint: str
    url: str
    role: PeerRole
    state: PeerState
    scope: str
    title: str
    kinds: tuple[str, ...]
    prefixes: tuple[str, ...]
    may_read: bool
    may_use: bool
    quota: Quota
    since_ms: int
    logs: int  # that are followed
    serial: int  # sum over the logs: taken here
    heard_ms: int  # last answer, by our clock
    use_error: str  # why its fast state is not known
    fault: Reason | None
    lag: int  # serials that it named and that were not taken yet
    lag_ms: int  # since when some are missing; 0: none is
    silence: SilenceView | None  # while it is not heard: what of its goes stale
    is_listening: bool  # its tail is open
    stale_ms: int  # since the last answer
    freshness: str  # fresh, stale (not heard for a lease), silent (no answer), frozen (its leases do not end); or empty
    stored: int  # records since the process began, as the next four
    parked: int
    equivocations: int
    refused: dict[str, int]  # records by the rule that they broke
    rejected: dict[str, int]  # answers and calls of it by the reason for which they were refused
    in_bytes: int  # bodies that came from it, packed as they travelled
    out_bytes: int  # and that went to it
    calls: dict[str, int]  # from it to us: `calls`, `limited`, `unproved` by whoever claimed to be it
    paused: tuple[str, ...]  # logs that broke a rule, the first 20
    error: Reason | None  # of the last failure; None once an answer came


class BranchPage(View, frozen=True, kw_only=True):
    """Every exchange that this one knows, in order of identifier."""

    exchange: str
    now_ms: int
    branches: tuple[BranchView, ...]
