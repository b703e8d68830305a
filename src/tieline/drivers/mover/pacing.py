"""Pacing: a token bucket for each path, filled at the rate that was booked for it, segment by segment.

A rate counts the bytes that are moved; headers of TCP and IP come on top (4 % with packets of 1,500 bytes). What could
not be moved within the last `CREDIT_S` is made up for, at `PEAK` times the rate and never faster: a path that others
use too is not flooded to catch up. Older credit is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tieline.model.error import TielineError
from tieline.model.transfer import Segment

CREDIT_S = 2.0
PEAK = 1.25
BURST_S = 0.1  # of the peak rate
LOOK_S = 1.0  # at most until another schedule is noticed
PAUSE_S = 2.0  # a longer wait is a pause: the connection is let go
LATE_PERMILLE = 50  # of the booked time, and not less than
LATE_S = 2.0  # so long a path is used after its last segment, at that one's rate: a start is never at the very second


class Span(NamedTuple):
    """A rate from one time to another, in seconds since the Unix epoch."""

    from_s: float
    until_s: float
    rate_bps: float


@dataclass(frozen=True)
class Schedule:
    """The rate of one path over time; spans are in order and apart. No spans: never; see `always`."""

    spans: tuple[Span, ...]

    @staticmethod
    def always(rate_bps: int = 0) -> Schedule:
        """One rate at all times; 0: as fast as it goes."""
        return Schedule((Span(0.0, float("inf"), float(rate_bps) if rate_bps else float("inf")),))

    @staticmethod
    def booked(segments: Iterable[Segment], *, goes_on: bool = False) -> Schedule:
        """What segments of one path allow; where they overlap their rates add up.

        ``goes_on``: what is late then goes on at the last rate, however long that takes.
        """
        held = sorted(segments, key=lambda each: (each.from_ms, each.until_ms))
        edges = sorted({edge for each in held for edge in (each.from_ms, each.until_ms)})
        spans: list[Span] = []
        for low, high in pairwise(edges):
            rate = sum(each.rate_bps for each in held if each.from_ms <= low and high <= each.until_ms)
            if rate:
                spans.append(Span(low / 1_000, high / 1_000, float(rate)))
        if spans:
            booked_s = sum(each.until_s - each.from_s for each in spans)
            late_s = float("inf") if goes_on else max(LATE_S, booked_s * LATE_PERMILLE / 1_000)
            spans[-1] = spans[-1]._replace(until_s=spans[-1].until_s + late_s)
        return Schedule(tuple(spans))

    @property
    def most_bps(self) -> float:
        """Its highest rate."""
        return max((each.rate_bps for each in self.spans), default=0.0)

    def opens_s(self, at_s: float) -> float | None:
        """The first time from ``at_s`` on at which something may be moved; None: never again."""
        for span in self.spans:
            if at_s < span.until_s:
                return max(at_s, span.from_s)
        return None

    def done_s(self, at_s: float, size_bytes: int) -> float | None:
        """When ``size_bytes`` are through if they are begun at ``at_s``; None: the schedule ends before."""
        left_bits = size_bytes * 8.0
        for span in self.spans:
            if at_s >= span.until_s:
                continue
            begin_s = max(at_s, span.from_s)
            need_s = left_bits / span.rate_bps
            if begin_s + need_s <= span.until_s:
                return begin_s + need_s
            left_bits -= (span.until_s - begin_s) * span.rate_bps
        return None

    def bytes_between(self, from_s: float, until_s: float) -> int:
        """How much is let through between two times."""
        parts = ((max(from_s, each.from_s), min(until_s, each.until_s), each.rate_bps) for each in self.spans)
        return int(sum((end - begin) * rate / 8 for begin, end, rate in parts if begin < end))


class LanePausedError(Exception):
    """Nothing may be moved on this path for a while."""


class LaneOverError(Exception):
    """Nothing may be moved on this path any more."""


@dataclass
class Lane:
    """One path of a move: its schedule, and what binds its connections to it in this machine.

    ``source_address`` and ``mark`` (SO_MARK) lead packets into the circuit that is driven for them; without either the
    path is paced but chosen by routing, and `is_bound` says so.
    """

    schedule: Schedule = field(default_factory=Schedule.always)
    path: tuple[str, ...] = ()  # links, where the path was booked
    source_address: str = ""
    mark: int = 0
    moved_bytes: int = 0
    now_s: Callable[[], float] = field(default_factory=lambda: steady_clock())
    _paid_s: float = 0.0  # until then everything that was moved is paid for
    _peak_s: float = 0.0  # the same at the peak rate
    _laid: int = 0  # counts schedules

    @property
    def is_bound(self) -> bool:
        """Whether its packets are led to its path."""
        return bool(self.source_address or self.mark)

    @property
    def owed_bytes(self) -> int:
        """What came ahead of its rate: it waits until it is paid for, and has not moved as far as the booking goes."""
        return self.schedule.bytes_between(self.now_s(), self._paid_s)

    async def until_open(self) -> None:
        """Wait until something may be moved. Raises LaneOverError."""
        while True:
            now = self.now_s()
            opens = self.schedule.opens_s(max(now, self._paid_s))
            if opens is None:
                raise LaneOverError
            if opens <= now:
                return
            await asyncio.sleep(min(opens - now, LOOK_S))

    async def pay(self, size_bytes: int) -> None:
        """Count ``size_bytes`` that were moved, and wait until they are paid for.

        The generic cell rate algorithm, twice (ITU-T I.371, annex A): at the rate, and at its peak.

        Raises LanePausedError where that would take longer than a pause and the schedule has a gap, LaneOverError.
        """
        now = self.now_s()
        self.moved_bytes += size_bytes
        begin = max(self._paid_s, now - CREDIT_S) if self._paid_s else now
        opens, done = self.schedule.opens_s(now), self.schedule.done_s(begin, size_bytes)
        if opens is None or done is None:
            self._paid_s = max(now, self.schedule.spans[-1].until_s if self.schedule.spans else now)
            raise LaneOverError
        self._paid_s = done
        self._peak_s = max(self._peak_s, now - BURST_S) + (done - begin) / PEAK
        if opens - now > PAUSE_S:
            raise LanePausedError
        left_s, laid = max(done, self._peak_s) - now, self._laid
        while left_s > 0 and laid == self._laid:
            await asyncio.sleep(min(left_s, LOOK_S))
            left_s -= LOOK_S

    def lay(self, schedule: Schedule) -> None:
        """Go by another schedule from now on; what was paid ahead at the old one is forgiven."""
        now = self.now_s()
        self.schedule = schedule
        self._paid_s, self._peak_s = min(self._paid_s, now), min(self._peak_s, now)
        self._laid += 1


def steady_clock() -> Callable[[], float]:
    """Seconds since the Unix epoch, by a clock that does not jump from now on."""
    epoch_s, began_s = time.time(), time.monotonic()
    return lambda: epoch_s + time.monotonic() - began_s


def relaid(lanes: Sequence[Lane], segments: Sequence[Segment], *, goes_on: bool = False) -> int:
    """Give lanes the schedules of a booking that was laid anew; how many of its paths no lane is left for.

    A lane whose path is gone takes over a new one; it is bound to nothing then.
    """
    paths = _by_path(segments)
    gone = [lane for lane in lanes if lane.path not in paths]
    fresh = [path for path in paths if all(lane.path != path for lane in lanes)]
    for lane, path in zip(gone, fresh, strict=False):
        lane.path, lane.source_address, lane.mark = path, "", 0
    for lane in lanes:
        lane.lay(Schedule.booked(paths.get(lane.path, ()), goes_on=goes_on))
    return max(0, len(fresh) - len(gone))


def _by_path(segments: Sequence[Segment]) -> dict[tuple[str, ...], list[Segment]]:
    """Segments by path, in order of first use."""
    paths: dict[tuple[str, ...], list[Segment]] = {}
    for segment in sorted(segments, key=lambda each: (each.from_ms, each.path)):
        paths.setdefault(segment.path, []).append(segment)
    return paths


def lanes_of(
    segments: Sequence[Segment], addresses: Sequence[str] = (), marks: Sequence[int] = (), *, goes_on: bool = False
) -> tuple[Lane, ...]:
    """A lane for every path of a booking, in order of first use. Addresses and marks are given to them in that order.

    Raises TielineError `conflict` for a booking without segments, `invalid_request` for more of either than paths.
    """
    paths = _by_path(segments)
    if not paths:
        raise TielineError("conflict", "nothing is booked for this transfer", hints=("tieline calendar",))
    if max(len(addresses), len(marks)) > len(paths):
        raise TielineError("invalid_request", f"{len(paths)} paths are booked, more are to be bound")
    clock = steady_clock()
    return tuple(
        Lane(
            schedule=Schedule.booked(held, goes_on=goes_on),
            path=path,
            source_address=addresses[at] if at < len(addresses) else "",
            mark=marks[at] if at < len(marks) else 0,
            now_s=clock,
        )
        for at, (path, held) in enumerate(paths.items())
    )
