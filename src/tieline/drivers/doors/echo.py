"""Echo: sessions of callers that proved who they are, and the answers to their packets.

What does not verify, was seen before or is too much is dropped without a word, and counted: a door says nothing to
strangers. An answer is never longer than the ask.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tieline.drivers.doors.pace import Pace
from tieline.drivers.doors.packet import KEY_BYTES, MOST_BYTES, Kind, packed, session_of, unpacked
from tieline.model.door import Pass
from tieline.model.error import TielineError

SESSIONS = 256
SESSIONS_EACH = 8  # of one holder
SESSION_MS = 300_000
WINDOW = 1_024  # packets that may overtake each other
BATCH = 64  # packets that are answered before anything else has its turn
SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>: when the kernel had the packet
TIMESPEC = struct.Struct("@ll")


@dataclass
class Session:
    """One caller's."""

    id: bytes
    key: bytes
    holder: str
    until_ms: int
    pace: Pace
    newest: int = -1
    seen: int = 0  # bit n: packet ``newest - n``
    answered: int = 0
    moved_bytes: int = 0

    def is_fresh(self, seq: int) -> bool:
        """Whether the packet was not seen before; from then on it was."""
        if seq > self.newest:
            self.seen = ((self.seen << min(seq - self.newest, WINDOW)) | 1) & ((1 << WINDOW) - 1)
            self.newest = seq
            return True
        bit = 1 << (self.newest - seq) if self.newest - seq < WINDOW else 0
        if not bit or self.seen & bit:
            return False
        self.seen |= bit
        return True


@dataclass
class Sessions:
    """All of a door's. ``bytes_per_s`` is for all together, both directions."""

    now_ms: Callable[[], int]
    bytes_per_s: int
    open: dict[bytes, Session] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    answered: int = 0

    def __post_init__(self) -> None:
        self.pace = Pace(self.bytes_per_s, burst_s=1.0)

    def begin(self, given: Pass) -> Session:
        """A session for the holder of a pass. Raises TielineError `overloaded`."""
        now_ms = self.now_ms()
        for old in [each.id for each in self.open.values() if each.until_ms <= now_ms]:
            del self.open[old]
        its = [each.id for each in self.open.values() if each.holder == given.holder]
        if len(its) >= SESSIONS_EACH:
            del self.open[its[0]]  # its oldest
        elif len(self.open) >= SESSIONS:
            raise TielineError("overloaded", f"{SESSIONS} echo sessions are open here; retry in a minute")
        made = Session(
            id=os.urandom(8),
            key=os.urandom(KEY_BYTES),
            holder=given.holder,
            until_ms=min(given.until_ms, now_ms + SESSION_MS),
            pace=Pace(max(1, self.bytes_per_s // 4), burst_s=1.0),
        )
        self.open[made.id] = made
        return made

    def answer(self, data: bytes, heard_ns: int) -> bytes | None:
        """The answer to a packet; None: it is dropped, and why is counted in `dropped`."""
        name = session_of(data)
        session = self.open.get(name) if name is not None else None
        if session is None:
            self._drop("form" if name is None else "session")
            return None
        if session.until_ms <= self.now_ms():
            del self.open[session.id]
            self._drop("session")
            return None
        asked = unpacked(session.key, data)
        if asked is None:
            self._drop("tag")
            return None
        if asked.kind is Kind.ANSWER or not session.is_fresh(asked.seq):
            self._drop("replayed")
            return None
        size = len(data) if asked.kind is Kind.ASK else 0
        if not (session.pace.has(len(data) + size) and self.pace.has(len(data) + size)):
            self._drop("rate")
            return None
        session.answered += 1
        session.moved_bytes += len(data) + size
        self.answered += 1
        said_ns = time.time_ns()
        return packed(session.key, Kind.ANSWER, session.id, asked.seq, asked.asked_ns, heard_ns, said_ns, size)

    def _drop(self, why: str) -> None:
        self.dropped[why] += 1


class Responder:
    """Answers over UDP, on the running loop, until `close`."""

    def __init__(self, sock: socket.socket, sessions: Sessions) -> None:
        self.sock = sock
        self.sessions = sessions
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(sock.fileno(), self._ready)

    def close(self) -> None:
        """No more answers."""
        self.loop.remove_reader(self.sock.fileno())
        self.sock.close()

    def _ready(self) -> None:
        for _ in range(BATCH):
            found = received(self.sock)
            if found is None:
                return
            data, heard_ns, who = found
            answer = self.sessions.answer(data, heard_ns)
            if answer is not None:
                try:
                    self.sock.sendto(answer, who)
                except OSError:  # the way back is full or closed: the asker counts it as lost
                    self.sessions.dropped["unsent"] += 1


def received(sock: socket.socket) -> tuple[bytes, int, tuple[str, int]] | None:
    """The next packet, when the kernel had it (ns since the epoch), and from whom; None: there is none."""
    try:
        data, ancillary, _, who = sock.recvmsg(MOST_BYTES + 1, socket.CMSG_SPACE(TIMESPEC.size))
    except OSError:  # nothing there, or what an earlier packet met on its way
        return None
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(value) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(value)
            return data, seconds * 1_000_000_000 + nanoseconds, who
    return data, time.time_ns(), who


def stamped(family: int) -> socket.socket:
    """A UDP socket whose packets carry the kernel's time; it does not block."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return made
