"""Pulling: what can happen to the puller of a peer's logs, what it wants done, and what it knows (`follow.py`)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tieline.model.identifier import is_under
from tieline.model.reason import Reason
from tieline.registry.authority import GIVING
from tieline.registry.serving import Answer, Request, TailLine

# -- what can happen --------------------------------------------------------------------------------------------------


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What happened."""


class Ticked(Input, frozen=True, kw_only=True):
    """Time passed; useful from `next_ms` on."""


class Woken(Input, frozen=True, kw_only=True):
    """The peer showed a sign of life (it called us): do not wait any longer."""


class Answered(Input, frozen=True, kw_only=True):
    """The answer to the question ``ask``, from the peer or (`Ask.is_own`) from our own archive."""

    ask: int
    answer: Answer


class Failed(Input, frozen=True, kw_only=True):
    """The question ``ask`` has no answer. ``is_peer``: nothing can be asked of the peer now (not connected, unwelcome);
    otherwise this answer alone was at fault: stalled, too large, cut, not found.
    """

    ask: int
    reason: Reason
    is_peer: bool = False


class TailOpened(Input, frozen=True, kw_only=True):
    """The tail is open: whatever is stored over there from now on will be said."""


class TailSaid(Input, frozen=True, kw_only=True):
    """A log grew over there."""

    line: TailLine


class TailEnded(Input, frozen=True, kw_only=True):
    """The tail is closed, or could not be opened."""

    reason: Reason
    is_peer: bool = True


class Taken(Input, frozen=True, kw_only=True):
    """The page ``take`` was committed with its cursor. ``refused`` counts by rule."""

    take: int
    stored: int = 0
    unchanged: int = 0
    parked: int = 0
    equivocations: int = 0
    refused: dict[str, int] = {}


class NotTaken(Input, frozen=True, kw_only=True):
    """The page ``take`` could not be committed here (the store is full, the writer is overloaded); nothing changed."""

    take: int
    reason: Reason


class Filtered(Input, frozen=True, kw_only=True):
    """An admin changed what is pulled; what is new in it is taken from the beginning."""

    kinds: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


class Trusted(Input, frozen=True, kw_only=True):
    """Whom we believe has changed: what waits for a delegation may be good now."""


class Cleared(Input, frozen=True, kw_only=True):
    """An admin cleared the peer's fault: everything is compared anew."""


# -- what is to be done -----------------------------------------------------------------------------------------------


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done. Carrying one out twice does no harm."""


class Ask(Action, frozen=True, kw_only=True):
    """Put a question to the peer, or (``is_own``) to our own archive; bring back `Answered` or `Failed`."""

    ask: int
    request: Request
    is_own: bool = False


class Take(Action, frozen=True, kw_only=True):
    """Verify and commit a page with its cursor (command TakePage); bring back `Taken` or `NotTaken`."""

    take: int
    prefix: str
    session: str
    serial: int  # the cursor once it is taken
    envelopes: tuple[bytes, ...]
    checkpoint: bytes = b""
    page: int = -1


class Listen(Action, frozen=True, kw_only=True):
    """Open the tail; bring back `TailOpened`, `TailSaid` ..., `TailEnded`. Only one tail is open at a time."""

    kinds: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


class Hush(Action, frozen=True, kw_only=True):
    """Close the tail; no input follows."""


class Blame(Action, frozen=True, kw_only=True):
    """Note proof against the peer (command BlamePeer)."""

    reason: Reason


# -- state ------------------------------------------------------------------------------------------------------------


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """The open question, and what was known when it was put: an answer may be older than what the tail said since."""

    ask: int
    request: Request
    is_own: bool
    asked_ms: int
    logs: Mapping[str, Log]
    head: int


class Taking(msgspec.Struct, frozen=True, kw_only=True):
    """A page that is being committed."""

    take: int
    session: str
    count: int
    serial: int  # of the log, once it is taken
    page: int = -1  # of the snapshot, that comes after it; -1: none
    is_mending: bool = False  # it came by identifier, out of order
    taking_ms: int = 0


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What the tail said of a log while a page of it was being committed."""

    after: int
    serial: int
    envelopes: tuple[bytes, ...]
    size_bytes: int


class Comparing(msgspec.Struct, frozen=True, kw_only=True):
    """A log whose digest is being compared, step by step."""

    prefix: str
    alive_s: int
    session: str = ""
    serial: int = 0  # of the log over there when the digest was made
    digest: bytes = b""  # theirs
    ours: bytes = b""  # until the two are compared
    buckets: tuple[int, ...] = ()  # that differ and are still to be looked into
    chunk: tuple[int, ...] = ()  # those that are asked about now
    entries: bytes = b""  # theirs, of the chunk
    ids: tuple[str, ...] = ()  # still to be fetched
    fetched: int = 0


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """How far one log was taken."""

    prefix: str
    session: str = ""  # of the peer's numbering that `serial` belongs to
    serial: int = 0
    committed: int = 0  # the serial of the committed cursor
    theirs: int = 0  # the newest serial that the peer named
    has_checkpoint: bool = False
    page: int = -1  # of the snapshot that comes next; -1: none is being taken
    checkpoint: bytes = b""  # sha256 of the checkpoint that the snapshot is taken by
    restarts: int = 0  # of the snapshot, because the owner signed a new one meanwhile
    is_new: bool = False  # in this session: compared before it is taken, for much of it may be here already
    taken_ms: int = 0
    compared_ms: int = 0  # when its digest was last compared
    stored: int = 0
    parked: int = 0
    equivocations: int = 0
    refused: dict[str, int] = {}
    pause: Reason | None = None
    pauses: int = 0  # in a row
    paused_until_ms: int = 0


class FollowState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the puller of one peer knows. A restart begins with `begin` and loses nothing but counts."""

    peer: str
    kinds: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    session: str = ""
    head: int = 0
    logs: Mapping[str, Log] = {}
    due: Mapping[str, None] = {}  # logs that are behind, in the order in which they are asked for
    paused: Mapping[str, None] = {}
    compares: Mapping[str, None] = {}  # logs whose digest is to be compared
    asking: Asking | None = None
    taking: Mapping[str, Taking] = {}
    pending: Mapping[str, Pending] = {}
    comparing: Comparing | None = None
    numbers: int = 0  # questions and pages so far
    is_listening: bool = False
    opening_ms: int = 0  # when the tail was asked for; 0: it was not
    listen_ms: int = 0  # when it may be asked for
    list_ms: int = 0  # when the logs are to be listed
    listing: str = ""  # the prefix after which the listing goes on
    heard_ms: int = 0
    failures: int = 0  # of the peer, in a row
    stumbles: int = 0  # of single answers, in a row
    renumbers: int = 0  # new sessions, each within an hour of the one before
    renumbered_ms: int = 0
    wait_until_ms: int = 0
    error: Reason | None = None  # of the last failure; None once an answer came
    fault: Reason | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How replication from one peer stands, for `exchange status`."""

    peer: str
    is_listening: bool
    logs: int
    serial: int  # sum over the logs: taken here
    lag: int  # and still missing
    paused: tuple[str, ...] = ()  # prefixes, at most 20
    stored: int = 0
    parked: int = 0
    equivocations: int = 0
    refused: dict[str, int] = {}
    heard_ms: int = 0
    behind_since_ms: int = 0  # as whoever drives it knows; 0: nothing that was named is missing
    error: Reason | None = None
    fault: Reason | None = None


def is_wanted(prefixes: tuple[str, ...], prefix: str) -> bool:
    """Whether the log of ``prefix`` is pulled: it is one of ``prefixes``, or below one, or above one.

    Those above hold the delegations that what is below rests on.
    """
    return not prefixes or any(is_under(prefix, each) or is_under(each, prefix) for each in prefixes)


def kinds_of(state: FollowState, prefix: str) -> tuple[str, ...]:
    """The kinds that are pulled of a log; empty: all. Delegations always are, and of a log above nothing else is."""
    if state.prefixes and not any(is_under(prefix, each) for each in state.prefixes):
        return GIVING
    return tuple(dict.fromkeys((*GIVING, *state.kinds))) if state.kinds else ()
