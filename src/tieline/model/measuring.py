"""Bodies of the HTTP API of measuring: readings, reference points, the way between two points.

::

    site's side   GET /v1/site/probes (ProbePlan)   POST /v1/site/readings (a signed ReadingBatch)
    peer's side   POST /v1/peer/readings (PeerReadings: batches as sites signed them)
                  POST /v1/peer/passes (PassesView: for a site of the peer, through doors here)
    everybody     GET /v1/readings   GET /v1/ways?source&target   GET, POST /v1/points   GET /v1/cats?point
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.api import Body, View
from tieline.model.evidence import Evidence
from tieline.model.reading import Point, PointName, Reading
from tieline.model.reason import Reason


class ReadingsTaken(View, frozen=True, kw_only=True):
    """What became of a batch: readings that were kept, that are no news, and that were refuted, by reason."""

    kept: int
    unchanged: int
    refuted: tuple[Reason, ...]


class ReadingView(View, frozen=True, kw_only=True):
    """A reading with its age; what is not fresh is shown and counts for nothing."""

    reading: Reading
    via: str  # the peer over which it came, as the site there signed it; empty: the site brought it here
    age_us: int
    loss_ppm: int
    is_fresh: bool


class RefutedView(View, frozen=True, kw_only=True):
    """What a site signed and what cannot be."""

    site: str
    at_ms: int
    reading: Reading
    reason: Reason


class RefutedCount(View, frozen=True, kw_only=True):
    """How often readings of a site were refuted since the exchange started, or its probes not sent since it did."""

    site: str
    reasons: tuple[Reason, ...]


class ReadingPage(View, frozen=True, kw_only=True):
    """Readings by source, target and method; ``next`` is where the next page begins, empty: nowhere."""

    as_of_ms: int
    readings: tuple[ReadingView, ...]
    next: str
    refuted: tuple[RefutedView, ...]  # lately, the newest first
    counts: tuple[RefutedCount, ...]
    undone: tuple[RefutedCount, ...]  # probes that sites of ours did not send: their owners do not allow where to


class WayView(View, frozen=True, kw_only=True):
    """What is known of the way between two points; null: unknown. Times are round trips.

    ``estimate_us`` comes from network coordinates. It chooses whom to measure next and answers no question.
    """

    source: str
    target: str
    as_of_ms: int
    rtt_us: int | None
    rate_bps: int | None
    rtt_evidence: Evidence
    rate_evidence: Evidence
    readings: tuple[ReadingView, ...]
    estimate_us: int | None
    estimate_error_ppm: int | None
    apart_km: int | None
    light_us: int | None  # in vacuum: nothing is faster
    fibre_us: int | None  # along a cable with the usual detour


class PointsBody(Body, frozen=True, kw_only=True):
    """Reference points to name or change, and those to take back."""

    put: Annotated[tuple[Point, ...], msgspec.Meta(max_length=1_000)] = ()
    remove: Annotated[tuple[PointName, ...], msgspec.Meta(max_length=1_000)] = ()


class PointPage(View, frozen=True, kw_only=True):
    """Every reference point, by name."""

    points: tuple[Point, ...]


class PeerReadingsBody(Body, frozen=True, kw_only=True):
    """Which batches a peer wants: what came after a serial of the numbering that it knows."""

    session: Annotated[str, msgspec.Meta(max_length=64)] = ""
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    sites: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=200)], ...], msgspec.Meta(max_length=500)] = ()


class PeerReadings(msgspec.Struct, frozen=True, kw_only=True):
    """Batches of readings as their sites signed them, oldest first. Another ``session``: numbered anew, from 0."""

    session: Annotated[str, msgspec.Meta(max_length=64)]
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    is_more: bool
    statements: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=131_072)], ...], msgspec.Meta(max_length=256)
    ] = ()


class Wish(Body, frozen=True, kw_only=True):
    """What a site of the peer wants to measure at one door."""

    door: Annotated[str, msgspec.Meta(max_length=200)]  # identifier of the door's site
    most_bytes: Annotated[int, msgspec.Meta(ge=1, le=4_000_000)]  # of all probes at it, both directions
    is_rated: bool = False  # a short upload too


class PassesBody(Body, frozen=True, kw_only=True):
    """Passes that the peer wants for one of its sites."""

    holder: Annotated[str, msgspec.Meta(max_length=200)]
    public: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9_-]*\Z")]
    wishes: Annotated[tuple[Wish, ...], msgspec.Meta(max_length=16)]


class GivenPass(View, frozen=True, kw_only=True):
    """A pass through one door."""

    door: Annotated[str, msgspec.Meta(max_length=200)]
    door_pass: Annotated[str, msgspec.Meta(max_length=7_000)]


class PassesView(View, frozen=True, kw_only=True):
    """A pass for each door that the site may measure now; the others are left out."""

    passes: Annotated[tuple[GivenPass, ...], msgspec.Meta(max_length=16)]
