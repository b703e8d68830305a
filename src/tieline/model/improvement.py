"""Improvement: where to add or upgrade sites or links so that more access points have compute within a bound.

What a candidate would reach is expected, never measured: from stated times, from distances with a stated detour, or
from delays of the topology. A plan says so, and what was measured after building decides.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.circle import Coverage, Latitude, Longitude, Measure, PlaceName, Share
from tieline.model.evidence import Evidence

Cost = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Micros = Annotated[int, msgspec.Meta(ge=0, le=600_000_000)]
Node = Annotated[str, msgspec.Meta(max_length=200)]


class CandidateKind(StrEnum):
    """What would be built."""

    SITE = "site"  # a new edge site
    UPGRADE = "upgrade"  # an existing site gets a faster access, or compute
    LINK = "link"  # a new link of the topology


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing that could be built, with its cost and what it would bring.

    ``reaches_us`` states expected round trips to points by name; without it those of a site follow from its place or
    its node.
    """

    name: PlaceName
    kind: CandidateKind
    cost_micro_cny: Cost
    reaches_us: Annotated[dict[str, Micros], msgspec.Meta(max_length=20_000)] = {}
    latitude_udeg: Latitude | None = None  # of a new site
    longitude_udeg: Longitude | None = None
    node: Node = ""  # of the topology that a new site would hang on
    site: str = ""  # that is upgraded
    saves_us: Micros = 0  # of every round trip to the upgraded site
    a: Node = ""  # ends of a link
    b: Node = ""
    delay_us: Micros = 0  # of a link, one way


class Assumptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a round trip follows from a distance: fibre along the great circle times a detour, and equipment.

    The defaults are cable 1.4 times as long as the great circle, and six router hops of 30 us each way.
    """

    detour_permille: Annotated[int, msgspec.Meta(ge=1_000, le=10_000)] = 1_400
    access_us: Micros = 360  # both ways together


class CandidateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that could be built."""

    candidates: Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=5_000)]
    assumptions: Assumptions = Assumptions()


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of a plan, and what would be lost without it alone."""

    name: str
    kind: CandidateKind
    cost_micro_cny: int
    loses_points: int
    loses_weight: int


class Improvement(msgspec.Struct, frozen=True, kw_only=True):
    """A plan: what to build, what it costs, what it is expected to cover, and how far that is from the best there is.

    With a target the cost is least: no choice that reaches it costs less than ``bound_micro_cny``. With a budget the
    covered weight is most: no choice within it covers more than ``bound_weight``. A gap of 0 is proven to be the best.
    """

    measure: Measure
    target_ppm: Share | None = None
    budget_micro_cny: int | None = None
    as_of_ms: int = 0
    before: Coverage
    chosen: tuple[Chosen, ...] = ()
    cost_micro_cny: int = 0
    expected_weight: int = 0  # covered before, and by what is built
    expected_ppm: int = 0
    bound_micro_cny: int = 0
    bound_weight: int = 0
    gap_ppm: int = 0
    most_ppm: int = 0  # with everything built
    candidates: int = 0
    ways: int = 0  # combinations of candidates that cover something
    most_links: int = 0  # new links that one way may use
    measure_first: tuple[str, ...] = ()  # unknown points that measuring alone may bring inside, the heaviest first
    assumptions: Assumptions = Assumptions()
    evidence: Evidence = Evidence.SIMULATED  # of what is expected
    points_sha256: str = ""  # of the points, candidates and readings that it was made from
    candidates_sha256: str = ""
    readings_sha256: str = ""


class PlanCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A plan counted again: by the files and readings of now, without the solver. Any problem means that it fails."""

    problems: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # inputs that are not those that it was made from
    measured_ppm: int = 0  # covered now
    expected_ppm: int = 0  # with what the plan builds
    cost_micro_cny: int = 0
