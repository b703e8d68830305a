"""Rates: token buckets that bound how often and how much one caller may send.

Source of the algorithm: a leaky bucket as a meter (ITU-T I.371, annex A): a credit that grows with time up to a burst,
and that each call or byte takes from. A debt is paid back by waiting, so a stated `Retry-After` is exact.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from tieline.model.limits import Limits

MOST_CALLERS = 10_000  # buckets that are remembered; the one that was idle longest is forgotten first
SITE_FACTOR = 4  # a site's session speaks for many runs


class Bucket:
    """A credit that grows by ``per_s`` up to ``burst``."""

    __slots__ = ("at_s", "burst", "credit", "per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self.per_s = per_s
        self.burst = burst
        self.credit = burst
        self.at_s = now_s

    def take(self, amount: float, now_s: float) -> float:
        """Take ``amount``; the answer is how many seconds the caller must wait before it is paid for (0: none)."""
        self.credit = min(self.burst, self.credit + (now_s - self.at_s) * self.per_s)
        self.at_s = now_s
        self.credit -= amount
        return -self.credit / self.per_s if self.credit < 0 else 0.0

    def give_back(self, amount: float) -> None:
        """Undo a `take` that was refused, so that a refusal costs nothing."""
        self.credit = min(self.burst, self.credit + amount)


class Meter:
    """What one caller sends: requests, and bytes of bodies."""

    __slots__ = ("bytes", "requests", "streams")

    def __init__(self, limits: Limits, factor: int, now_s: float) -> None:
        self.requests = Bucket(limits.requests_per_s * factor, limits.requests_burst * factor, now_s)
        self.bytes = Bucket(limits.upload_bytes_per_s * factor, limits.upload_bytes_per_s * factor, now_s)
        self.streams = 0


class Rates:
    """The meters of all callers; the number that is remembered is bounded."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.clock = clock
        self.meters: OrderedDict[str, Meter] = OrderedDict()
        self.streams = 0

    def meter(self, caller: str, *, is_site: bool = False) -> Meter:
        """The meter of ``caller``."""
        meter = self.meters.get(caller)
        if meter is None:
            meter = self.meters[caller] = Meter(self.limits, SITE_FACTOR if is_site else 1, self.clock())
            if len(self.meters) > MOST_CALLERS:
                self._forget()
        else:
            self.meters.move_to_end(caller)
        return meter

    def _forget(self) -> None:
        """Drop the meter that was idle longest and holds no stream."""
        for name, meter in self.meters.items():
            if not meter.streams:
                del self.meters[name]
                return

    def request(self, meter: Meter) -> float:
        """Count one request; seconds to wait when it is one too many (it is not counted then)."""
        wait_s = meter.requests.take(1, self.clock())
        if wait_s > 0:
            meter.requests.give_back(1)
        return wait_s

    def body(self, meter: Meter, size: int) -> float:
        """Count bytes of a body; seconds to wait before more should be read."""
        return meter.bytes.take(size, self.clock())
