"""Pace: so many bytes a second, with a little in hand. A clock that stands still or goes back gives nothing."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A token bucket. ``burst_s`` is how much time's worth of bytes may be saved up."""

    def __init__(self, bytes_per_s: int, burst_s: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_s = max(1, bytes_per_s)
        self.most = self.bytes_per_s * burst_s
        self.clock = clock
        self._left = self.most
        self._at_s = clock()

    def take(self, size: int) -> float:
        """Take ``size`` bytes; how long to wait, in seconds, before they may move."""
        self._refill()
        self._left -= size
        return max(0.0, -self._left / self.bytes_per_s)

    def has(self, size: int) -> bool:
        """Take ``size`` bytes if they are there now."""
        self._refill()
        if self._left < min(size, self.most):
            return False
        self._left -= size
        return True

    def _refill(self) -> None:
        now_s = self.clock()
        self._left = min(self.most, self._left + max(0.0, now_s - self._at_s) * self.bytes_per_s)
        self._at_s = now_s
