"""CATS metrics (IETF, draft-ietf-cats-metric-definition): what steers a service request, at three levels.

Level 0 is raw, level 1 one figure a category, level 2 one figure in all. Normalised figures are whole numbers from 0
(poorest) to 10 (best) without a unit; what is not known is left out rather than guessed. The draft leaves the functions
to the operator and wants them stated: `Scale` states ours.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tieline.model.evidence import Evidence


class Source(StrEnum):
    """Where a metric comes from, in the draft's words."""

    NOMINAL = "nominal"
    ESTIMATION = "estimation"
    DIRECTLY_MEASURED = "directly measured"
    NORMALIZATION = "normalization"
    AGGREGATION = "aggregation"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, with the fields of the draft; ``length`` is in octets."""

    metric_type: str  # at level 0 ours; at level 1 computing_comb or communication_comb; at level 2 norm_fi
    level: int
    value: int
    source: Source
    format: str = "unsigned integer"
    length: int = 8
    unit: str = ""
    statistics: str = ""  # max, min, mean, cur or empty
    measurement_window_ms: int = 0
    evidence: Evidence = Evidence.DECLARED


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Min-max scaling: what counts as 0 and as 10. The parts of a category are aggregated by their least."""

    best_rtt_us: int = 1_000
    worst_rtt_us: int = 100_000
    worst_rate_bps: int = 10_000_000
    best_rate_bps: int = 10_000_000_000
    worst_loss_ppm: int = 50_000
    aggregation: str = "minimum"


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as a service contact instance, seen from one point."""

    pool: str
    site: str
    metrics: tuple[Metric, ...]


class CatsView(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of every pool that may be shown, from one point; empty point: of the computing alone."""

    as_of_ms: int
    point: str
    draft: str
    scale: Scale
    instances: tuple[Instance, ...]
