"""Latency circle 时延圈: which sites are within a time of a place, and how much of a region has compute so near.

Direct measurement alone puts a site inside. What was not measured is unknown and never counts as good; light alone can
show that a site cannot be inside. Times are microseconds, places millionths of a degree (WGS 84), shares of a million.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.evidence import Evidence
from tieline.model.reading import OneWay, Reading
from tieline.model.reason import Reason

PlaceName = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"\A[!-~]+\Z")]
Region = Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
Within = Annotated[int, msgspec.Meta(ge=1, le=600_000_000)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
Latitude = Annotated[int, msgspec.Meta(ge=-90_000_000, le=90_000_000)]
Longitude = Annotated[int, msgspec.Meta(ge=-180_000_000, le=180_000_000)]
Share = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
HOUR_MS = 3_600_000
POLICY_PPM = 750_000  # the share of access points that the policy wants covered


class Bound(StrEnum):
    """What the bound is about. The policy documents do not say, so that it is always printed which was used."""

    ROUND_TRIP = "round_trip"
    ONE_WAY = "one_way"  # the slower of the two directions


class Quantile(StrEnum):
    """Which of the measured times has to be within the bound."""

    P50 = "p50"
    P99 = "p99"


class Standing(StrEnum):
    """Where something is with regard to a circle."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


class Measure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides: the bound, of which time, and how old a reading may be."""

    within_us: Within
    bound: Bound = Bound.ROUND_TRIP
    quantile: Quantile = Quantile.P50
    most_age_ms: Annotated[int, msgspec.Meta(ge=1, le=366 * 24 * HOUR_MS)] = HOUR_MS


class CircleBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which sites are within a time of ``place``: a site, a reference point, or a node of the topology."""

    place: PlaceName
    measure: Measure


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One site with regard to a circle. Times are 0 where nothing is known.

    ``is_estimate``: it is inside if the one-way time is half of the round trip, which nobody measured.
    """

    site: str
    standing: Standing
    is_estimate: bool = False
    why: Reason | None = None  # of what is unknown, or was refuted
    min_us: int = 0  # round trip: the slower of both ends
    p50_us: int = 0
    p99_us: int = 0
    there_us: int = 0  # one way, from the place to the site
    back_us: int = 0
    one_way: OneWay = OneWay.UNKNOWN  # what the one-way times rest on
    clock_error_us: int = 0
    light_us: int = 0  # round trip of light for the stated distance; 0: it is not stated where they are
    evidence: Evidence = Evidence.UNKNOWN
    readings: tuple[Reading, ...] = ()  # what it rests on
    via: str = ""  # the exchange behind which the site is; empty: it is the asked one's


class Circle(msgspec.Struct, frozen=True, kw_only=True):
    """The sites with regard to one place. The same readings, sites and moment give the same answer."""

    place: str
    measure: Measure
    as_of_ms: int
    inside: tuple[Member, ...] = ()  # the nearest first
    outside: tuple[Member, ...] = ()
    unknown: tuple[Member, ...] = ()
    measure_next: tuple[str, ...] = ()  # unknown sites that are probably the nearest; an estimate chose them


class AccessPoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where users come in: the name that readings have for it, and how much it counts (people, lines, subscribers)."""

    point: PlaceName
    weight: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 1
    region: Region = ""
    latitude_udeg: Latitude | None = None
    longitude_udeg: Longitude | None = None
    node: Annotated[str, msgspec.Meta(max_length=200)] = ""  # of the topology, where it is attached to one


AccessPoints = Annotated[tuple[AccessPoint, ...], msgspec.Meta(max_length=20_000)]


class CoverageBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of ``points`` has compute within the bound; without points of the reference points."""

    measure: Measure
    points: AccessPoints = ()
    target_ppm: Share = POLICY_PPM


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of access points: covered by measurement, by estimate only, outside, unknown. Their sum is ``weight``.

    Only what was measured counts in ``share_ppm``; a share is rounded down.
    """

    region: str = ""
    points: int = 0
    weight: int = 0
    covered: int = 0
    estimated: int = 0  # one-way times that are half of a round trip
    outside: int = 0
    unknown: int = 0
    share_ppm: int = 0  # covered of weight


class PointStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One access point: its nearest site that decides, and why it is unknown or outside."""

    point: str
    weight: int
    standing: Standing
    is_estimate: bool = False
    region: str = ""
    latitude_udeg: int | None = None
    longitude_udeg: int | None = None
    node: str = ""
    site: str = ""  # the nearest that was measured; empty: none was
    p50_us: int = 0  # round trip to it
    p99_us: int = 0
    there_us: int = 0
    back_us: int = 0
    one_way: OneWay = OneWay.UNKNOWN
    unmeasured: int = 0  # sites of which it is unknown whether they are within the bound


class SitePlace(msgspec.Struct, frozen=True, kw_only=True):
    """A site that has compute, where it stands if that is stated."""

    site: str
    latitude_udeg: int | None = None
    longitude_udeg: int | None = None
    via: str = ""  # the exchange behind which it is; empty: it is the asked one's


class CoverageView(msgspec.Struct, frozen=True, kw_only=True):
    """A coverage with everything that it rests on, so that anybody can compute it again."""

    measure: Measure
    target_ppm: int
    as_of_ms: int
    whole: Coverage
    regions: tuple[Coverage, ...] = ()
    points: tuple[PointStanding, ...] = ()
    sites: tuple[SitePlace, ...] = ()  # that have compute
    idle: tuple[str, ...] = ()  # sites that have none; they cover nothing
    readings: tuple[Reading, ...] = ()  # all that speak of these points and sites
    evidence: Evidence = Evidence.UNKNOWN  # the weakest of what is covered
    is_reached: bool = False  # the target
