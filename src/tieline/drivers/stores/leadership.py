"""Leadership: which process writes, told through the store alone, so that nobody believes a clock or a second network.

The leader keeps one row of ``meta`` beside the log, and writes it anew every `BEAT_S` on the connection that holds the
writer's lock::

    leader    {"term": 7, "url": "http://10.0.0.3:8470", "certificate": "", "beat": 412}

Who follows looks at three things together: the lock, the term, and that row. It measures with its own clock alone for
how long nothing of them has changed::

    nobody holds the lock                        FREE       try to take it
    the row is of another term than the newest   STARTING   a new writer fills its view
    the row is of the newest term                LED        ask it
    nothing has changed for too long             FROZEN     end its session (`Follower.depose`), then try to take it

A leader counts as such for `LEASE_S` after it began to write a beat that was kept (`Lease`). That is shorter than
`FROZEN_S`, and both begin with the same beat: a leader that stood still knows that it is none any more before it says
anything, whoever leads meanwhile. That it writes nothing either is not this module's doing: its session, its lock and
its open transaction are gone (`postgresql.py`), and the term has grown (`Store.recover`).
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import Connection, select

from tieline.drivers.stores import tables as t

if TYPE_CHECKING:
    from tieline.drivers.stores.postgresql import Holder
    from tieline.drivers.stores.store import Change

KEY = "leader"
BEAT_S = 0.5
LEASE_S = 4.0
FROZEN_S = 5.0
STARTING_S = 120.0  # a large view is filled in 20 s


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """The process that writes, as it says of itself."""

    term: int
    url: str  # where its siblings reach it
    certificate: str = ""  # sha256 of the certificate that it shows there, in hex; empty: no TLS
    beat: int = 0


class Standing(enum.Enum):
    """How it stands with the writer."""

    FREE = "free"
    STARTING = "starting"
    LED = "led"
    FROZEN = "frozen"


class Seen(NamedTuple):
    """What a look at the store found."""

    term: int
    leader: Leader | None
    holder: Holder | None


def beat_of(leader: Leader) -> Change:
    """The row that says so."""
    return "meta", KEY, {"key": KEY, "value": msgspec.json.encode(leader)}


def leader_of(connection: Connection) -> Leader | None:
    """The row as it is kept; None where nobody wrote one that can be read."""
    value = connection.execute(select(t.meta.c.value).where(t.meta.c.key == KEY)).scalar()
    try:
        return msgspec.json.decode(value, type=Leader) if isinstance(value, bytes) else None
    except msgspec.MsgspecError:
        return None


class Lookout:
    """Judges by what is seen, look after look."""

    def __init__(self, frozen_s: float = FROZEN_S, starting_s: float = STARTING_S) -> None:
        self._frozen_s, self._starting_s = frozen_s, starting_s
        self._seen: Seen | None = None
        self._since_s = 0.0
        self._looked_s = 0.0

    def judge(self, seen: Seen, now_s: float) -> Standing:
        """How it stands at ``now_s`` of a clock that only goes forward."""
        was_away = now_s - self._looked_s > self._frozen_s / 2  # then it may be this process that stood still
        if was_away or seen != self._seen:
            self._seen, self._since_s = seen, now_s
        self._looked_s = now_s
        if seen.holder is None:
            return Standing.FREE
        is_led = seen.leader is not None and seen.leader.term == seen.term
        if now_s - self._since_s > (self._frozen_s if is_led else self._starting_s):
            return Standing.FROZEN
        return Standing.LED if is_led else Standing.STARTING


class Lease:
    """For how long a leader may still speak as one. ``timer`` also goes on while the process stands still."""

    def __init__(self, lease_s: float = LEASE_S, timer: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._timer = lease_s, timer
        self._until_s = 0.0

    def begun(self) -> float:
        """The time at which a beat begins to be written; give it to `renew` once the beat is kept."""
        return self._timer()

    def renew(self, begun_s: float) -> None:
        """A beat was kept."""
        self._until_s = max(self._until_s, begun_s + self._lease_s)

    def end(self) -> None:
        """This process leads no more."""
        self._lease_s, self._until_s = 0.0, 0.0

    @property
    def holds(self) -> bool:
        """Whether it may."""
        return self._timer() < self._until_s
