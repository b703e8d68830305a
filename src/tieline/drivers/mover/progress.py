"""Progress: how much has moved, how fast, and when the rest will be there."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

SPAN_S = 10.0  # over which the rate is taken
MOST_LOOKS = 64


class Progress(NamedTuple):
    """One look at a move."""

    size_bytes: int
    moved_bytes: int  # by this try
    kept_bytes: int  # of these, in whole chunks that are at the target
    resumed_bytes: int  # by earlier tries
    rate_bps: int  # of the last seconds
    left_s: int | None  # at that rate; None: not known

    @property
    def permille(self) -> int:
        """How much of the whole is there."""
        return 1_000 if not self.size_bytes else (self.moved_bytes + self.resumed_bytes) * 1_000 // self.size_bytes


class Meter:
    """Looks of the last seconds."""

    def __init__(self, size_bytes: int, resumed_bytes: int, at_s: float) -> None:
        self.size_bytes = size_bytes
        self.resumed_bytes = resumed_bytes
        self._looks: deque[tuple[float, int]] = deque([(at_s, 0)], maxlen=MOST_LOOKS)

    def look(self, at_s: float, moved_bytes: int, kept_bytes: int) -> Progress:
        """Take a look."""
        self._looks.append((at_s, moved_bytes))
        while len(self._looks) > 2 and at_s - self._looks[0][0] > SPAN_S:
            self._looks.popleft()
        began_s, before = self._looks[0]
        past_s = at_s - began_s
        rate = int((moved_bytes - before) * 8 / past_s) if past_s > 0 else 0
        left = max(0, self.size_bytes - self.resumed_bytes - moved_bytes)
        left_s = -(-left * 8 // rate) if rate > 0 else (0 if not left else None)
        return Progress(self.size_bytes, moved_bytes, kept_bytes, self.resumed_bytes, max(0, rate), left_s)
