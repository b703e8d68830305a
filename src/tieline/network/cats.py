"""CATS: level 0, 1 and 2 metrics of a pool as seen from a point. Pure; see `model.cats` for the words.

Computing is the share that is free. Communication is the least of three scores: round trip and loss on a linear scale,
rate on a logarithmic one; a rate that nobody measured has no part in it, a round trip that nobody measured makes it
unknown. Level 2 is the lesser of both categories, and only there where both are known: unknown never counts as good.
"""

from __future__ import annotations

from math import log
from typing import Final, NamedTuple

from tieline.model.cats import Metric, Scale, Source
from tieline.model.evidence import Evidence

DRAFT: Final = "draft-ietf-cats-metric-definition-11"
MOST: Final = 10
SCALE: Final = Scale()


class Computing(NamedTuple):
    """What a pool has: cards, or cores where it sells cores."""

    unit: str  # accelerator or core
    total: int
    free: int
    price_micro_cny_per_unit_hour: int
    evidence: Evidence


class Way(NamedTuple):
    """What is known of the way from the point to the pool's site; None: unknown."""

    rtt_us: int | None = None
    rate_bps: int | None = None
    loss_ppm: int | None = None
    evidence: Evidence = Evidence.MEASURED


def metrics(computing: Computing, way: Way, window_ms: int, scale: Scale = SCALE) -> tuple[Metric, ...]:
    """Every metric that is known, level 0 first.

    >>> idle = Computing("accelerator", 8, 8, 1_000_000, Evidence.MEASURED)
    >>> [each.value for each in metrics(idle, Way(rtt_us=1_000), 60_000) if each.level > 0]
    [10, 10, 10]
    """
    found = [*_computing(computing), *_communication(way, window_ms)]
    power = _share(computing.free, 0, computing.total) if computing.total > 0 else None
    reach = reach_score(way, scale)
    if power is not None:
        found.append(_score("computing_comb", 1, power, computing.evidence))
    if reach is not None:
        found.append(_score("communication_comb", 1, reach, way.evidence))
    if power is not None and reach is not None:
        found.append(_score("norm_fi", 2, min(power, reach), way.evidence))
    return tuple(found)


def reach_score(way: Way, scale: Scale) -> int | None:
    """How good a way is, from 0 to 10; None where its round trip is unknown."""
    if way.rtt_us is None:
        return None
    scores = [_share(way.rtt_us, scale.worst_rtt_us, scale.best_rtt_us)]
    if way.loss_ppm is not None:
        scores.append(_share(way.loss_ppm, scale.worst_loss_ppm, 0))
    if way.rate_bps is not None:
        scores.append(_share(log(max(1, way.rate_bps)), log(scale.worst_rate_bps), log(scale.best_rate_bps)))
    return min(scores)


def _share(value: float, worst: float, best: float) -> int:
    """Where ``value`` lies between the worst and the best, from 0 to 10, rounded down."""
    return int(MOST * min(1.0, max(0.0, (value - worst) / (best - worst))))


def _computing(computing: Computing) -> list[Metric]:
    said = (
        (f"{computing.unit}s_total", computing.total, Source.NOMINAL, computing.unit),
        (f"{computing.unit}s_free", max(0, computing.free), Source.DIRECTLY_MEASURED, computing.unit),
        ("price", computing.price_micro_cny_per_unit_hour, Source.NOMINAL, "micro-CNY per unit-hour"),
    )
    return [
        Metric(
            metric_type=name, level=0, value=value, source=source, unit=unit, statistics="cur",
            evidence=computing.evidence if source is not Source.NOMINAL else Evidence.DECLARED,
        )
        for name, value, source, unit in said
    ]  # fmt: skip


def _communication(way: Way, window_ms: int) -> list[Metric]:
    said = (("rtt", way.rtt_us, "us"), ("rate", way.rate_bps, "bit/s"), ("loss", way.loss_ppm, "ppm"))
    return [
        Metric(
            metric_type=name, level=0, value=value, source=Source.DIRECTLY_MEASURED, unit=unit,
            statistics="cur", measurement_window_ms=window_ms, evidence=way.evidence,
        )
        for name, value, unit in said
        if value is not None
    ]  # fmt: skip


def _score(name: str, level: int, value: int, evidence: Evidence) -> Metric:
    return Metric(metric_type=name, level=level, value=value, source=Source.NORMALIZATION, length=1, evidence=evidence)
