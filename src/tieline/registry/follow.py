"""Follow: one peer's logs, pulled: ``step(state, input, now_ms) -> (state, actions)``, pure and synchronous.

::

    Listen ----------> tail open -----------------------------------------------.
    AskLogs ---------> session, serials: which logs are behind                  | TailSaid: taken at once when it
      | new session or far behind: AskSnapshot page by page, then on            | follows on, else the log is behind
      | behind:                    AskRecords from our cursor on                |
      | now and then:              AskDigest, AskBuckets, AskEnvelopes          v
      '--> Take (a page; committed with its cursor) --> Taken: stored, parked, refused by rule

The shell (HTTP, or a simulator) carries actions out and feeds back what happened; every input may come late, twice or
never. At most one question is open at a time, and one page of each log is being taken. A peer that fails is asked again
after a bounded wait; a log whose pages break a rule is paused and the others go on; a peer that is proved to lie gets a
`Blame`, and nothing is asked of it until an admin clears it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tieline.model.peer import Cursor
from tieline.model.reason import Reason
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


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """How far one log was taken."""

    prefix: str
    session: str = ""  # of the peer's numbering that `serial` belongs to
    serial: int = 0
    theirs: int = 0  # the newest serial that the peer named
    has_checkpoint: bool = False
    page: int = -1  # of the snapshot that comes next; -1: none is being taken
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
    is_listening: bool = False
    heard_ms: int = 0
    failures: int = 0  # in a row
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
    error: Reason | None = None
    fault: Reason | None = None


def begin(
    peer: str,
    cursors: Iterable[Cursor],
    now_ms: int,
    *,
    kinds: tuple[str, ...] = (),
    prefixes: tuple[str, ...] = (),
    fault: Reason | None = None,
) -> tuple[FollowState, list[Action]]:
    """Begin, or begin again after a restart, from the committed ``cursors`` of this peer."""
    raise NotImplementedError


def step(state: FollowState, what: Input, now_ms: int) -> tuple[FollowState, list[Action]]:
    """What follows from ``what`` at ``now_ms``. ``state`` stays as it was."""
    raise NotImplementedError


def next_ms(state: FollowState) -> int | None:
    """When `Ticked` next has something to do; None: not before something else happens."""
    raise NotImplementedError


def standing(state: FollowState) -> Standing:
    """How it stands."""
    raise NotImplementedError
