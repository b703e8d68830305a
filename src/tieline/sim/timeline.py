"""Timeline: virtual time. What is to happen waits in a heap; of equal times the first planned happens first.

`Chronicle` hashes everything that happened, in order: the same seed must give the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import sha256
from heapq import heappop, heappush

START_MS = 1_763_000_000_000
MOST_EVENTS = 20_000_000  # of one history: a world that never rests is a defect, not a long story


class Timeline:
    """Now, and what comes."""

    def __init__(self) -> None:
        self.now_ms = 0  # since the story began
        self.happened = 0
        self._planned: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, ms: int, do: Callable[[], None]) -> None:
        """Let ``do`` happen in ``ms``."""
        self._count += 1
        heappush(self._planned, (self.now_ms + max(0, ms), self._count, do))

    def run(self, until_ms: int) -> bool:
        """Let the next thing happen, if it is due by ``until_ms``. False: time stands at ``until_ms`` now."""
        if not self._planned or self._planned[0][0] > until_ms:
            self.now_ms = max(self.now_ms, until_ms)
            return False
        at_ms, _, do = heappop(self._planned)
        self.now_ms = at_ms
        self.happened += 1
        assert self.happened < MOST_EVENTS, "the world does not rest"
        do()
        return True


class NodeClock:
    """The clock of one node: it may be wrong."""

    def __init__(self, timeline: Timeline, skew_ms: int = 0) -> None:
        self.timeline = timeline
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, as this node believes."""
        return START_MS + self.timeline.now_ms + self.skew_ms

    def now_s(self) -> int:
        """The same in seconds."""
        return self.now_ms() // 1000

    def timer_s(self) -> float:
        """A clock that is never set: for waiting."""
        return self.timeline.now_ms / 1000


class Chronicle:
    """The history so far as one hash, with its last lines in words."""

    def __init__(self, timeline: Timeline, kept: int = 40) -> None:
        self._timeline = timeline
        self._hash = sha256()
        self.lines: deque[tuple[int, str]] = deque(maxlen=kept)

    def note(self, line: str) -> None:
        """Add one line."""
        now_ms = self._timeline.now_ms
        self._hash.update(f"{now_ms} {line}\n".encode())
        self.lines.append((now_ms, line))

    @property
    def sha256(self) -> str:
        """Of everything noted so far, in hex."""
        return self._hash.hexdigest()
