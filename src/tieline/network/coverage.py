"""Coverage: the weighted share of access points that have compute within a bound, as a whole and by region.

A point is inside if some site with compute was measured to be; outside if every site was measured to be too far or
cannot be near for light alone; else unknown, which counts as not covered and is shown apart. So is what is inside only
if a one-way time is half of the round trip. The weights are integers, their sums exact, and shares rounded down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tieline.model.circle import (
    AccessPoint,
    Bound,
    Coverage,
    CoverageView,
    Measure,
    Member,
    PointStanding,
    SitePlace,
    Standing,
)
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.reading import Reading
from tieline.model.topology import Place
from tieline.network.apart import Apart
from tieline.network.circle import TAKEN, Heard, check_measure, member_of, touching
from tieline.network.physics import LIGHT_M_PER_US, PLACE_M

replace = msgspec.structs.replace
MOST_PAIRS: Final = 100_000_000  # of points and sites


def coverage_of(
    points: Sequence[AccessPoint],
    sites: Sequence[SitePlace],
    readings: Iterable[Reading],
    measure: Measure,
    as_of_ms: int,
    target_ppm: int = 750_000,
    idle: Sequence[str] = (),
) -> CoverageView:
    """How much of ``points`` has one of ``sites`` within the bound, by ``readings`` alone.

    ``idle`` are sites without compute: they cover nothing, and the answer names their readings, so that a plan can say
    what compute there would cover. Raises `invalid_request` for points without weight or named twice.
    """
    check_measure(measure)
    check_points(points)
    if len(points) * len(sites) > MOST_PAIRS:
        pairs = f"{len(points):,} points and {len(sites):,} sites are {len(points) * len(sites):,} pairs"
        raise TielineError("too_large", f"{pairs}, at most {MOST_PAIRS:,} are looked at", where="points")
    heard = Heard(touching(readings, [point.point for point in points]))
    distances = _Distances(sites)
    standings, rests_on = [], []
    used: dict[Reading, None] = {}
    for point in points:
        standing, members = _standing_of(point, distances, heard, measure, as_of_ms)
        standings.append(standing)
        joined = heard.seen((point.point,))
        resting = [member_of((point.point,), site, measure, heard, {}, as_of_ms) for site in idle if site in joined]
        used.update((reading, None) for member in (*members, *resting) for reading in member.readings)
        nearest = next((member for member in members if member.site == standing.site), None)
        if standing.standing is Standing.INSIDE and nearest is not None:
            rests_on.append(nearest.evidence)
    whole = _summed("", standings)
    return CoverageView(
        measure=measure,
        target_ppm=target_ppm,
        as_of_ms=as_of_ms,
        whole=whole,
        regions=_by_region(standings),
        points=tuple(standings),
        sites=tuple(sorted(sites, key=lambda site: site.site)),
        idle=tuple(sorted(idle)),
        readings=tuple(sorted(used, key=lambda each: (each.source, each.target, each.method.value, -each.ended_ms))),
        evidence=max(rests_on, key=TAKEN.index, default=Evidence.UNKNOWN),
        is_reached=reaches(whole, target_ppm),
    )


def reaches(whole: Coverage, target_ppm: int) -> bool:
    """Whether the covered weight is at least the share of all, in integers."""
    return whole.covered * 1_000_000 >= target_ppm * whole.weight


def check_points(points: Sequence[AccessPoint]) -> None:
    """Refuse a list that means nothing: a name twice, half a place, no weight at all."""
    seen: dict[str, int] = {}
    for number, point in enumerate(points, 1):
        if point.point in seen:
            first = seen[point.point]
            said = f"`{point.point}` is there twice: point {first} and point {number}"
            raise TielineError("invalid_request", said, where="points")
        seen[point.point] = number
        if (point.latitude_udeg is None) != (point.longitude_udeg is None):
            said = f"`{point.point}` has a latitude or a longitude, and a place has both"
            raise TielineError("invalid_request", said, where="points")
    if not any(point.weight for point in points):
        said = f"the weights of {len(points)} points sum to 0: there is nothing to cover"
        raise TielineError("invalid_request", said, where="points")


def place_of(thing: AccessPoint | SitePlace) -> Place | None:
    """Where it stands, if that is stated."""
    if thing.latitude_udeg is None or thing.longitude_udeg is None:
        return None
    return Place(latitude_udeg=thing.latitude_udeg, longitude_udeg=thing.longitude_udeg)


def _standing_of(
    point: AccessPoint,
    distances: _Distances,
    heard: Heard,
    measure: Measure,
    as_of_ms: int,
) -> tuple[PointStanding, list[Member]]:
    """One point by the sites that a reading joins with it; of the others only whether light forbids them."""
    here = place_of(point)
    called = (point.point,)
    joined = {name: None for name in (*called, *heard.seen(called)) if name in distances.sites}
    near = [distances.sites[name] for name in sorted(joined)]
    members = []
    for site in near:
        there = place_of(site)
        places = {} if here is None or there is None else {point.point: here, site.site: there}
        members.append(member_of(called, site.site, measure, heard, places, as_of_ms))
    unmeasured = sum(member.standing is Standing.UNKNOWN for member in members)
    unmeasured += distances.possible(here, measure) - sum(
        distances.is_possible(here, site.site, measure) for site in near
    )
    return _judged(point, members, unmeasured), members


def _judged(point: AccessPoint, members: list[Member], unmeasured: int) -> PointStanding:
    made = PointStanding(
        point=point.point,
        weight=point.weight,
        standing=Standing.UNKNOWN if unmeasured else Standing.OUTSIDE,
        region=point.region,
        latitude_udeg=point.latitude_udeg,
        longitude_udeg=point.longitude_udeg,
        node=point.node,
        unmeasured=unmeasured,
    )
    measured = [member for member in members if member.readings or member.standing is Standing.INSIDE]
    if not measured:
        return made
    best = min(measured, key=lambda member: (*_rank(member), member.p50_us, member.site))
    made = replace(
        made,
        site=best.site,
        p50_us=best.p50_us,
        p99_us=best.p99_us,
        there_us=best.there_us,
        back_us=best.back_us,
        one_way=best.one_way,
    )
    if best.standing is Standing.INSIDE:
        return replace(made, standing=Standing.INSIDE, is_estimate=best.is_estimate)
    return made


def _rank(member: Member) -> tuple[bool, bool]:
    """What is proven to be inside first, then what is by estimate."""
    return member.standing is not Standing.INSIDE, member.is_estimate


class _Distances:
    """Which sites light does not forbid, many at once."""

    def __init__(self, sites: Sequence[SitePlace]) -> None:
        self.sites: dict[str, SitePlace] = {site.site: site for site in sites}
        self.row = {name: row for row, name in enumerate(self.sites)}
        self._apart = Apart([place_of(site) for site in self.sites.values()])
        self._last: tuple[Place, NDArray[np.float64]] | None = None

    def possible(self, here: Place | None, measure: Measure) -> int:
        """How many sites may be within the bound as far as light is concerned."""
        if here is None:
            return len(self.sites)
        return len(self.sites) - int(np.count_nonzero(self._light_us(here, measure) > measure.within_us))

    def is_possible(self, here: Place | None, site: str, measure: Measure) -> bool:
        """Whether one is. A site of which no place is stated may be anywhere."""
        return here is None or not self._light_us(here, measure)[self.row[site]] > measure.within_us

    def _light_us(self, here: Place, measure: Measure) -> NDArray[np.float64]:
        if self._last is None or self._last[0] != here:
            self._last = (here, np.maximum(0.0, self._apart.metres(here) - 2 * PLACE_M) / LIGHT_M_PER_US)
        return np.floor(self._last[1] * (2 if measure.bound is Bound.ROUND_TRIP else 1))


def _by_region(standings: list[PointStanding]) -> tuple[Coverage, ...]:
    regions: dict[str, list[PointStanding]] = {}
    for standing in standings:
        regions.setdefault(standing.region, []).append(standing)
    return tuple(_summed(region, regions[region]) for region in sorted(regions))


def _summed(region: str, standings: list[PointStanding]) -> Coverage:
    sums = {"covered": 0, "estimated": 0, "outside": 0, "unknown": 0}
    for each in standings:
        if each.standing is Standing.INSIDE:
            sums["estimated" if each.is_estimate else "covered"] += each.weight
        else:
            sums["outside" if each.standing is Standing.OUTSIDE else "unknown"] += each.weight
    weight = sum(sums.values())
    share_ppm = sums["covered"] * 1_000_000 // weight if weight else 0
    return Coverage(region=region, points=len(standings), weight=weight, share_ppm=share_ppm, **sums)
