"""The system's clock and its randomness, behind the ports `Clock` and `Ids`."""

from __future__ import annotations

import os
import time
from struct import unpack
from threading import Lock

from tieline.ports import ALPHABET, Clock, Ids

HOLD_MS = 60_000
NAMES_FROM_MS = 1_735_689_600_000  # 2025-01-01; the time part of a name counts from here
TIME_BITS, RANDOM_BITS = 40, 20  # 34 years of milliseconds; then a part that nobody can guess in a hurry
TOGETHER = 256  # random parts that are asked of the system at once: asking takes longer than all the rest of a name
NAME_LENGTH = (TIME_BITS + RANDOM_BITS) // 5


PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)
assert NAME_LENGTH % 2 == 0


class SystemClock(Clock):
    """The wall clock in milliseconds. It stands still while the system's clock is set back by less than `HOLD_MS`.

    A larger step is followed: to stand still for hours would keep every lease alive for hours.
    """

    def __init__(self) -> None:
        self._last_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        now_ms = time.time_ns() // 1_000_000
        if 0 < self._last_ms - now_ms < HOLD_MS:
            return self._last_ms
        self._last_ms = now_ms
        return now_ms


class SystemIds(Ids):
    """Names of 12 letters that sort by the time at which they were given: 40 bits of time, 20 bits of randomness.

    Within one process a name is always above the one before it, so it is never given twice, whatever the clock does.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = Lock()
        self._last = 0
        self._random: list[int] = []
        self._process = 0  # whose randomness it is: after a fork both would give the same

    def new(self, kind: str) -> str:
        """A new name, such as ``j-05n7k2m9qabc``."""
        time_part = (self._clock.now_ms() - NAMES_FROM_MS) & ((1 << TIME_BITS) - 1)
        with self._lock:
            if not self._random or self._process != os.getpid():
                self._random = list(unpack(f"{TOGETHER}I", os.urandom(4 * TOGETHER)))
                self._process = os.getpid()
            random = self._random.pop() >> (32 - RANDOM_BITS)
            value = (time_part << RANDOM_BITS) | random
            if value <= self._last:
                value = self._last + 1 + (random & 0xFF)
            self._last = value
        return f"{kind[:1]}-{_spell(value)}"


def _spell(value: int) -> str:
    pairs = [PAIRS[(value >> shift) & 1023] for shift in range(5 * (NAME_LENGTH - 2), -1, -10)]
    return "".join(pairs)
