"""Meters: plain counters of the writer, read by ``/metrics`` and ``status`` while it runs."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


@dataclass
class Histogram:
    """How often a value fell at or below each of ``bounds``; the last of `counts` is above them all."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were seen."""
        return sum(self.counts)


@dataclass
class Meters:
    """What the writer has done since it started."""

    batches: int = 0  # transactions that were kept
    commands: int = 0  # decided, refusals included
    events: int = 0
    rejects: int = 0  # commands refused with a TielineError
    replays: int = 0  # repeated idempotency keys that were answered as before
    overloads: int = 0  # commands refused because the queue was full
    defects: int = 0  # exceptions that are no TielineError: each is a bug, and is in the log with its traceback
    failures: int = 0  # transactions that were not kept
    commit_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_commands: Histogram = field(default_factory=lambda: Histogram(SIZES))
