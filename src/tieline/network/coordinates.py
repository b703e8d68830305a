"""Coordinates: an estimate of round trips that nobody measured, from those that were.

Vivaldi (Dabek et al., SIGCOMM 2004) with a height for the access line, as HashiCorp Serf tunes it (its settings:
8 dimensions, ce = cc = 0.25, an adjustment term over 20 samples after Lee et al., a median of 3 as filter after Ledlie
et al., a faint gravity). On 490 PlanetLab hosts with 32 neighbours each the median relative error is about 11 %, and in
absolute terms tens of milliseconds between hosts that are near each other. So an estimate only says whom to measure
next, and fills a column that is marked as an estimate: it never decides whether a site is within a bound.

Both ends learn from a round trip. Times inside are seconds, outside microseconds. The same readings in the same order
give the same estimates: where two lie on each other, the direction in which they part follows from their names.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from math import sqrt
from typing import Final

DIMENSIONS: Final = 8
ERROR_MOST: Final = 1.5
ERROR_SHARE: Final = 0.25  # ce: how fast the belief in oneself changes
FORCE_SHARE: Final = 0.25  # cc: how far a node moves
WINDOW: Final = 20  # samples of the adjustment term
FILTER: Final = 3  # of one neighbour, of which the median counts
MOST_FILTERED: Final = 512  # neighbours that a node remembers
HEIGHT_LEAST_S: Final = 10e-6
GRAVITY_S: Final = 150.0
FAINT_S: Final = 1e-6
ROUND_TRIP_MOST_S: Final = 10.0

Vector = tuple[float, ...]
ORIGIN: Final[Vector] = (0.0,) * DIMENSIONS


class _Node:
    """Where one name is now, and what it remembers."""

    __slots__ = ("adjustment_s", "at", "error", "filters", "height_s", "samples")

    def __init__(self) -> None:
        self.at = ORIGIN
        self.height_s = HEIGHT_LEAST_S
        self.error = ERROR_MOST
        self.adjustment_s = 0.0
        self.samples: deque[float] = deque(maxlen=WINDOW)
        self.filters: dict[str, deque[float]] = {}


class Coordinates:
    """Estimates between all names of which a round trip was heard."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def heard(self, one: str, other: str, rtt_us: int) -> None:
        """Learn from a measured round trip. One that is no time at all, or longer than 10 s, teaches nothing."""
        if one == other or not 0 < rtt_us <= ROUND_TRIP_MOST_S * 1e6:
            return
        a = self._nodes.setdefault(one, _Node())
        b = self._nodes.setdefault(other, _Node())
        rtt_s = _filtered(a, other, rtt_us / 1e6)
        before = b.at, b.height_s, b.error, b.adjustment_s
        moved = _moved(b, a.at, a.height_s, a.error, a.adjustment_s, rtt_s, other + " " + one)
        _settle(a, _moved(a, *before, rtt_s, one + " " + other), rtt_s, before[0], before[1])
        _settle(b, moved, rtt_s, a.at, a.height_s)

    def estimate_us(self, one: str, other: str) -> int | None:
        """The estimated round trip; None where nothing was heard of one of them."""
        a, b = self._nodes.get(one), self._nodes.get(other)
        if a is None or b is None:
            return None
        return 0 if one == other else round(1e6 * _apart(a.at, a.height_s, a.adjustment_s, b))

    def error_ppm(self, name: str) -> int:
        """How wrong the estimates of a name were lately, of a million; nothing heard: 1,500,000."""
        node = self._nodes.get(name)
        return round(1e6 * (node.error if node is not None else ERROR_MOST))

    def nearest(self, name: str, candidates: Iterable[str], most: int) -> tuple[str, ...]:
        """The ``most`` candidates that seem nearest, nearest first; those without an estimate come last, by name."""
        far = {each: self.estimate_us(name, each) for each in candidates if each != name}
        order = sorted(far, key=lambda each: (far[each] is None, far[each] or 0, each))
        return tuple(order[:most])

    def forget(self, name: str) -> None:
        """A name that is no longer measured."""
        self._nodes.pop(name, None)


def _filtered(node: _Node, other: str, rtt_s: float) -> float:
    """The median of the last few round trips to one neighbour: a single slow one moves nobody."""
    kept = node.filters.pop(other, None) or deque(maxlen=FILTER)
    kept.append(rtt_s)
    node.filters[other] = kept  # the last heard is last
    while len(node.filters) > MOST_FILTERED:
        del node.filters[next(iter(node.filters))]
    return sorted(kept)[len(kept) // 2]


def _length(vector: Iterable[float]) -> float:
    return sqrt(sum(each * each for each in vector))


def _apart(at: Vector, height_s: float, adjustment_s: float, b: _Node) -> float:
    raw = _length([x - y for x, y in zip(at, b.at, strict=True)]) + height_s + b.height_s
    adjusted = raw + adjustment_s + b.adjustment_s
    return adjusted if adjusted > 0 else raw


def _moved(
    node: _Node, at: Vector, height_s: float, error: float, adjustment_s: float, rtt_s: float, seed: str
) -> tuple[Vector, float, float]:
    """Position, height and error of ``node`` after it was drawn towards, or pushed from, the other end."""
    apart_s = _apart(at, height_s, adjustment_s, node)
    weight = node.error / max(node.error + error, FAINT_S)
    wrong = abs(apart_s - rtt_s) / rtt_s
    mine = min(ERROR_MOST, ERROR_SHARE * weight * wrong + node.error * (1 - ERROR_SHARE * weight))
    moved, height = _pushed(node.at, node.height_s, at, height_s, FORCE_SHARE * weight * (rtt_s - apart_s), seed)
    out_s = _length(moved) + height + HEIGHT_LEAST_S
    moved, height = _pushed(moved, height, ORIGIN, HEIGHT_LEAST_S, -((out_s / GRAVITY_S) ** 2), seed)
    return moved, height, mine


def _pushed(
    at: Vector, height_s: float, source: Vector, source_height_s: float, force_s: float, seed: str
) -> tuple[Vector, float]:
    """A point after a force away from ``source`` (or, below 0, towards it)."""
    away = [x - y for x, y in zip(at, source, strict=True)]
    length = _length(away)
    if length > FAINT_S:
        height_s = max(HEIGHT_LEAST_S, height_s + (height_s + source_height_s) * force_s / length)
    else:
        away = _somewhere(seed)
        length = _length(away)
    return tuple(x + y * force_s / length for x, y in zip(at, away, strict=True)), height_s


def _somewhere(seed: str) -> list[float]:
    """A direction that follows from a name alone."""
    digest = hashlib.blake2b(seed.encode(), digest_size=2 * DIMENSIONS).digest()
    return [int.from_bytes(digest[2 * k : 2 * k + 2], "big") - 32_767.5 for k in range(DIMENSIONS)]


def _settle(
    node: _Node, moved: tuple[Vector, float, float], rtt_s: float, other: Vector, other_height_s: float
) -> None:
    """Take a move, and let the adjustment term learn what position and height cannot say."""
    node.at, node.height_s, node.error = moved
    raw = _length([x - y for x, y in zip(node.at, other, strict=True)]) + node.height_s + other_height_s
    node.samples.append(rtt_s - raw)
    node.adjustment_s = sum(node.samples) / (2 * WINDOW)
