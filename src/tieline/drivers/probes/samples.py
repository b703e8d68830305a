"""Samples: round trips as they were measured, and the distribution that a reading says of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from tieline.drivers.doors.packet import Kind, Packet
from tieline.model.reading import Method, OneWay, Probe, Reading

HELD_SHARE = 4


class Sample(NamedTuple):
    """One answered probe, in nanoseconds."""

    rtt_ns: int
    out_ns: int | None = None  # from asker to door by both clocks; None: no clocks to tell


def sample_of(said: Packet, asked_ns: int, now_ns: int) -> Sample | None:
    """What an answer says of the packet that was sent at ``asked_ns``; None where it is no answer to it.

    The door made the key, so that all that it says is its own word, and it may want to look near. When the packet left
    is ours to know; how long the door says that it held it shortens the time by one part in `HELD_SHARE` at most.
    """
    took_ns = now_ns - asked_ns
    if said.kind is not Kind.ANSWER or said.asked_ns != asked_ns or took_ns <= 0:
        return None
    held_ns = min(max(0, said.said_ns - said.heard_ns), took_ns // HELD_SHARE)
    return Sample(took_ns - held_ns, said.heard_ns - asked_ns)


def reading_of(
    source: str,
    probe: Probe,
    samples: Sequence[Sample],
    *,
    sent: int,
    begun_ms: int,
    ended_ms: int,
    moved_bytes: int,
    clock_error_us: int | None = None,
    method: Method | None = None,
) -> Reading:
    """The reading of a round trip. ``clock_error_us``: of both clocks together; None: at least one is not kept.

    A one-way time is by clocks only where it is longer than their error; else it is half of the round trip.
    """
    trips = sorted(each.rtt_ns for each in samples)
    outs = [each.out_ns for each in samples if each.out_ns is not None]
    one_way, one_way_us, error_us = OneWay.UNKNOWN, 0, 0
    if trips:
        one_way, one_way_us = OneWay.HALF, _us(trips[0]) // 2
        if clock_error_us is not None and outs and min(outs) > clock_error_us * 1_000:
            one_way, one_way_us, error_us = OneWay.CLOCKS, _us(min(outs)), clock_error_us
    return Reading(
        source=source,
        target=probe.target,
        method=method or probe.method,
        count=len(trips),
        sent=sent,
        min_us=_us(trips[0]) if trips else 0,
        p50_us=_us(at_share(trips, 50)) if trips else 0,
        p99_us=_us(at_share(trips, 99)) if trips else 0,
        jitter_us=_us(jitter_ns(samples)),
        one_way_us=one_way_us,
        one_way=one_way,
        clock_error_us=error_us,
        moved_bytes=moved_bytes,
        begun_ms=begun_ms,
        ended_ms=ended_ms,
        address="" if probe.public else probe.address,
    )


def at_share(ordered: Sequence[int], percent: int) -> int:
    """The smallest value that at least so many of a hundred do not exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def jitter_ns(samples: Sequence[Sample]) -> int:
    """Mean difference of one round trip from the next, in the order in which they were asked."""
    steps = [abs(after.rtt_ns - before.rtt_ns) for before, after in pairwise(samples)]
    return sum(steps) // len(steps) if steps else 0


def _us(ns: int) -> int:
    """Rounded up: a way that takes time takes at least a microsecond."""
    return -(-ns // 1_000)
