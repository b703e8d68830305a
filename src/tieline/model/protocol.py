"""The site's protocol: what a site and an exchange say to each other (design, sections 2 and 5).

The site dials out. It opens a session with a signed hello, listens to server-sent events (``Order``), and posts batches
of reports. Every report names its run and the run's epoch; the answer to each is an outcome. Everything may be sent
again: a report that was already taken is answered as before.

::

    site                                            exchange
      POST /v1/site/sessions   Signed(Hello)   ->     verifies the site's key; a new session ends the older one
                                               <-   Welcome: bearer, cursor, orders for every live run of this site
      GET  /v1/site/stream?after=cursor        ->
                                               <-   Order: Offer | Stop | Ask | Drain | Resync | Summon
      POST /v1/site/reports    Reports         ->     accepted, refused, started, ended, checkpoint, answer
                                               <-   Outcomes, one for each report, in order
      POST /v1/site/heartbeat  Signed(Beat)    ->     one vector per site, last value only
      POST /v1/site/runs/{run}/log?node&offset ->     bytes; the answer states the offset that is kept
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.job import Member as Member
from tieline.model.job import Output
from tieline.model.reason import Reason
from tieline.model.task import Task
from tieline.model.transfer import Transfer

PROTOCOL = 3  # this end speaks N and N-1
PROTOCOL_LEAST = 2
PROTOCOL_GANGS = 3  # from here on a site knows that a member of a gang waits for the others
WELCOME = "site-welcome"  # type of the statement in `Welcome.proof`

RunId = Annotated[str, msgspec.Meta(max_length=200)]
Why = Annotated[str, msgspec.Meta(max_length=2_000)]
Ms = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Sealed = Annotated[str, msgspec.Meta(max_length=98_304, pattern=r"\A[A-Za-z0-9_-]*\Z")]  # base64url


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Unknown fields of a newer version are ignored, so that N and N-1 interoperate."""


# -- opening a session ------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """Signed with the site's key as a statement of type ``site-hello``; ``nonce`` counts once, ``at_ms`` bounds it."""

    site: str
    nonce: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
    at_ms: Ms
    protocols: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=16)]
    version: str = ""


class Welcome(Message, frozen=True, kw_only=True):
    """The exchange's answer, with ``proof``: a statement `Proof` signed with the exchange's pinned key."""

    bearer: str
    protocol: int
    cursor: int  # resume the stream after this position
    lease_ms: int
    beat_ms: int
    exchange: str
    proof: str
    is_admitted: bool
    is_draining: bool = False
    orders: tuple[Orders, ...] = ()  # the live runs of this site; a run that is not among them is to be stopped


class Proof(Message, frozen=True, kw_only=True):
    """What the exchange signs (statement type `WELCOME`) to prove that it holds the key that the site pinned."""

    nonce: str  # of the hello
    exchange: str


# -- down: orders -----------------------------------------------------------------------------------------------------


class Order(Message, frozen=True, kw_only=True, tag_field="order"):
    """What the exchange asks of the site; the owner's word is final."""


class Offer(Order, frozen=True, kw_only=True, tag="offer"):
    """Please run this. Answer `accepted` or `refused` within ``ttl_ms``."""

    run: RunId
    job: str
    epoch: int
    pool: str
    task: Task
    alternative: int
    user: str
    user_owner: str = ""
    accelerator_count: int = 0  # over all nodes
    core_count: int = 0
    memory_bytes: int = 0
    price_micro_cny_per_unit_hour: int = 0
    stop_after_s: int = 0
    checkpoint: str = ""
    data_class: tuple[str, ...] = ()  # of the datasets that the task names, as their records say
    residency: tuple[str, ...] = ()
    ttl_ms: int = 5_000
    project: str = ""
    path: tuple[str, ...] = ()  # exchanges that it passed through, the first one first
    first_run: str = ""  # `<exchange>#<run>` where it was asked for first; empty: here, and no other exchange is in it
    token: str = ""  # to another exchange: the delegated token under which it may be carried out
    quote: str = ""  # to another exchange: the quote that it was asked for before, as the asker calls it
    sealed: Sealed = ""  # to another exchange: the run's secrets, sealed to the site that the pool is of
    offered_ms: Ms = 0  # by the clock of the exchange that offers it
    transfers: tuple[Transfer, ...] = ()  # that bring its data, with the segments that were booked for them
    state: str = "offered"  # what the exchange believes; after a reconnect it may be accepted or running
    part: Part | None = None  # of a gang over several pools; `task.nodes` are those of this part


MOST_MEMBERS = 64  # of one gang over several pools
MOST_NODES = 65_024  # that have an address of their own where their gang meets


class Part(Message, frozen=True, kw_only=True):
    """What a run is of a gang over several pools. Every node has the same address at every site: see `site.meeting`."""

    member: int  # which of `members`
    members: tuple[Member, ...]  # by rank, this one too
    number: Annotated[int, msgspec.Meta(ge=0, le=65_535)]  # that all members derive addresses and the meeting port from
    ports: tuple[int, ...] = ()  # on which nodes listen for those of other sites
    circuits: tuple[str, ...] = ()  # that are booked between the sites


class Stop(Order, frozen=True, kw_only=True, tag="stop"):
    """End this run. A fenced run is stopped without a last checkpoint and bills nothing."""

    run: RunId
    epoch: int
    why: str = ""
    is_fenced: bool = False


class Ask(Order, frozen=True, kw_only=True, tag="ask"):
    """At what price, for how long and from when would you run this?"""

    quote: str
    pool: str
    task: Task
    alternative: int
    user: str
    user_owner: str = ""
    unit_count: int = 0
    price_micro_cny_per_unit_hour: int = 0  # listed
    asked_price_micro_cny_per_unit_hour: int = 0  # wished for; 0: none
    duration_s: int = 0
    data_class: tuple[str, ...] = ()  # of the datasets that the task names, as their records say
    residency: tuple[str, ...] = ()
    path: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()  # exchanges that it passed, the first one first


class Drain(Order, frozen=True, kw_only=True, tag="drain"):
    """Take no new runs (or take them again)."""

    is_draining: bool


class Summon(Order, frozen=True, kw_only=True, tag="summon"):
    """Dial the relay. ``statement``: a `model.relay.Summons`, signed with the exchange's pinned key."""

    statement: Annotated[str, msgspec.Meta(max_length=131_072)]


class Resync(Order, frozen=True, kw_only=True, tag="resync"):
    """The stream was cut or the site was accepted: open a new session."""

    why: str = ""


Orders = Offer | Stop | Ask | Drain | Resync | Summon


# -- up: reports ------------------------------------------------------------------------------------------------------


class Report(Message, frozen=True, kw_only=True, tag_field="report"):
    """What the site says happened."""


class Accepted(Report, frozen=True, kw_only=True, tag="accepted"):
    """The owner takes the run; what is held for it is really held. It starts only after the outcome says ``ok``."""

    run: RunId
    epoch: int
    sandbox: str = ""
    network: str = ""


class Refused(Report, frozen=True, kw_only=True, tag="refused"):
    """The owner does not take the run."""

    run: RunId
    epoch: int
    reason: Reason


class Started(Report, frozen=True, kw_only=True, tag="started"):
    """Every node's setup has begun."""

    run: RunId
    epoch: int
    at_ms: Ms = 0
    devices: tuple[int, ...] = ()


class Ended(Report, frozen=True, kw_only=True, tag="ended"):
    """All nodes have ended and the outputs are uploaded."""

    run: RunId
    epoch: int
    state: Annotated[str, msgspec.Meta(pattern=r"\A(succeeded|failed|stopped)\Z")]
    exit_codes: tuple[int, ...] = ()
    duration_ms: Ms = 0
    cpu_ms: Ms = 0
    max_memory_bytes: Ms = 0
    outputs: tuple[Output, ...] = ()
    checkpoint: str = ""
    reason: Reason | None = None
    is_start_failure: bool = False  # the owner's side could not start it: nothing is billed
    first_run: Annotated[str, msgspec.Meta(max_length=600)] = ""  # as the offer said
    receipt: Annotated[str, msgspec.Meta(max_length=16_384)] = ""  # signed: a site's meter reading, a peer's claim


class Lost(Report, frozen=True, kw_only=True, tag="lost"):
    """Said by a peer: the run was lost over there, and bills nothing."""

    run: RunId
    epoch: int
    reason: Reason


class CheckpointKept(Report, frozen=True, kw_only=True, tag="checkpoint"):
    """A checkpoint is uploaded as a blob."""

    run: RunId
    epoch: int
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    size_bytes: Ms = 0
    at_ms: Ms = 0


class Quoted(Report, frozen=True, kw_only=True, tag="quoted"):
    """The answer to `ask`: as listed, a counter, or a refusal."""

    quote: str
    is_refused: bool = False
    price_micro_cny_per_unit_hour: Ms = 0
    duration_s: Ms = 0
    start_after_s: Ms = 0
    ttl_s: Ms = 60
    reason: Reason | None = None


Reports = Accepted | Refused | Started | Ended | Lost | CheckpointKept | Quoted


class Batch(Message, frozen=True, kw_only=True):
    """Up to 256 reports."""

    reports: Annotated[tuple[Reports, ...], msgspec.Meta(max_length=256)]


class Outcome(Message, frozen=True, kw_only=True):
    """``ok``: taken (now or before). ``stale``: fenced, stop it and bill nothing. ``unknown``: no such run here.

    ``wait``, of an acceptance: taken, and it must not start yet; the offer comes again once the whole gang is accepted.
    """

    is_ok: bool
    what: str = "ok"
    answer: str = ""  # signed `UsageAnswer`, in the answer to a peer's `ended`
    sealed: str = ""  # secrets, sealed to the site's key (base64url), in the answer to `accepted` only


class Outcomes(Message, frozen=True, kw_only=True):
    """One for each report, in order."""

    outcomes: tuple[Outcome, ...]


# -- heartbeat --------------------------------------------------------------------------------------------------------


class PoolBeat(Message, frozen=True, kw_only=True):
    """What the owner makes available of one pool now, over and above what our bookings hold."""

    pool: str
    accelerators: int = 0  # available in all, booked ones included
    cores: int = 0
    memory_bytes: int = 0


class Beat(Message, frozen=True, kw_only=True):
    """One signed vector per site (statement type ``site-beat``); ``seq`` only grows."""

    site: str
    seq: int
    at_ms: Ms
    pools: Annotated[tuple[PoolBeat, ...], msgspec.Meta(max_length=1_000)] = ()
    runs: Annotated[tuple[RunId, ...], msgspec.Meta(max_length=10_000)] = ()
    load_millionths: int = 0
    health: str = "ok"


class Signed(Message, frozen=True, kw_only=True):
    """A signed statement as a flattened JWS string."""

    statement: Annotated[str, msgspec.Meta(max_length=131_072)]


class Beaten(Message, frozen=True, kw_only=True):
    """The answer to a heartbeat: runs of this site that are fenced and must stop."""

    stale: tuple[RunId, ...] = ()
    is_resync: bool = False


# -- between exchanges ------------------------------------------------------------------------------------------------
# The exchange that placed the run is to the other what an exchange is to a site, except that it dials: it says orders
# and fetches reports. `exchange.line` says when.


class Roll(Message, frozen=True, kw_only=True):
    """Every run that the sender believes to be over there; what was offered before and is not named is fenced."""

    at_ms: Ms  # by the sender's clock, as `Offer.offered_ms`
    runs: Annotated[tuple[RunId, ...], msgspec.Meta(max_length=100_000)] = ()


class PeerOrders(Message, frozen=True, kw_only=True):
    """What one exchange asks of another: the roll, where it is there, before the orders."""

    orders: Annotated[tuple[Offer | Stop, ...], msgspec.Meta(max_length=64)] = ()
    roll: Roll | None = None


class PeerAnswer(Message, frozen=True, kw_only=True):
    """What there is to say about the run of one order, now. Nothing: it waits."""

    reports: Annotated[tuple[Reports, ...], msgspec.Meta(max_length=8)] = ()
    error: Why = ""  # the order could not be read or carried out; the others were


class PeerAnswers(Message, frozen=True, kw_only=True):
    """One for each order, in order."""

    answers: Annotated[tuple[PeerAnswer, ...], msgspec.Meta(max_length=64)] = ()


class PeerReport(Message, frozen=True, kw_only=True):
    """One report of a peer with its position in the list for us; 0: said in the answer to an order."""

    serial: Ms
    report: Reports


class ReportPage(Message, frozen=True, kw_only=True):
    """The next reports; another ``session`` than the one asked with begins anew."""

    session: str
    reports: Annotated[tuple[PeerReport, ...], msgspec.Meta(max_length=256)] = ()
    is_more: bool = False


class PaidClaims(Message, frozen=True, kw_only=True):
    """Signed `UsageAnswer`s."""

    answers: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=16_384)], ...], msgspec.Meta(max_length=64)] = ()
