"""Reach: what each candidate, alone or with new links, would bring within the bound of which access points.

A *way* is a smallest set of candidates that covers a point: a new site, an upgraded one, or some new links that make a
path of the topology quick enough to a site, old or new. Ways over links are found by a search from the point's node
over labels (delay, links used), of which the dominated are dropped; it is bounded by links in a way and by labels in
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

import numpy as np

from tieline.model.circle import Bound, Measure, PointStanding, Standing
from tieline.model.error import TielineError
from tieline.model.improvement import Assumptions, Candidate, CandidateKind
from tieline.model.topology import Place, Topology
from tieline.network.apart import Apart
from tieline.network.circle import light_between
from tieline.network.physics import FIBRE_US_PER_M

MOST_WAY_LINKS: Final = 3
MOST_LABELS: Final = 400_000
MOST_EXPECTED: Final = 20_000_000  # pairs of a point and a candidate
Way = tuple[int, ...]  # numbers of candidates, ascending


class Ground(NamedTuple):
    """What the candidates are judged by."""

    points: Sequence[PointStanding]
    standings: Sequence[Standing]  # of the points; an estimate is unknown
    round_trips_us: Mapping[tuple[str, str], int]  # measured, by point and site
    sites: Sequence[str]  # that have compute
    topology: Topology | None
    measure: Measure
    assumptions: Assumptions


def ways_of(candidates: Sequence[Candidate], ground: Ground) -> list[tuple[Way, ...]]:
    """For each point that is not inside now its ways, the smallest sets only; empty for those that are.

    Raises `invalid_request` for a candidate that means nothing or beats light, `too_large` for too many labels.
    """
    _check(candidates, ground)
    open_points = [row for row, standing in enumerate(ground.standings) if standing is not Standing.INSIDE]
    if len(open_points) * len(candidates) > MOST_EXPECTED:
        said = f"{len(open_points):,} points and {len(candidates):,} candidates, at most {MOST_EXPECTED:,} pairs"
        raise TielineError("too_large", said, where="candidates")
    linked = _Linked(candidates, ground) if ground.topology is not None else None
    near = _Near(candidates, ground)
    found: list[tuple[Way, ...]] = [()] * len(ground.points)
    for row in open_points:
        point = ground.points[row]
        ways: dict[Way, None] = dict.fromkeys(near.ways(point))
        if linked is not None and point.node:
            for way in linked.ways(point.node):
                ways[way] = None
        found[row] = smallest(ways)
    return found


def smallest(ways: Mapping[Way, None]) -> tuple[Way, ...]:
    """Those of which no other is a part."""
    kept: list[Way] = sorted(way for way in ways if len(way) == 1)
    alone = frozenset(way[0] for way in kept)
    for way in sorted((way for way in ways if len(way) > 1), key=lambda way: (len(way), way)):
        if alone.isdisjoint(way) and not any(set(other) <= set(way) for other in kept if len(other) > 1):
            kept.append(way)
    return tuple(kept)


class _Near:
    """What each candidate alone would bring near: as stated, from what was measured, or from its place."""

    def __init__(self, candidates: Sequence[Candidate], ground: Ground) -> None:
        self.ground = ground
        self.apart = Apart([_place(each) if each.kind is CandidateKind.SITE else None for each in candidates])
        self.special = [  # of which more than the place is known
            (number, each)
            for number, each in enumerate(candidates)
            if each.reaches_us or each.kind is CandidateKind.UPGRADE
        ]

    def ways(self, point: PointStanding) -> list[tuple[int]]:
        """The candidates that alone are near enough to a point."""
        near: dict[int, None] = {}
        here, assumed = _place(point), self.ground.assumptions
        if here is not None:
            one_way_us = self.apart.metres(here) * (FIBRE_US_PER_M * assumed.detour_permille / 1_000)
            expected_us = np.floor(2 * one_way_us) + 1 + assumed.access_us
            near = {int(number): None for number in np.flatnonzero(expected_us <= _most_us(self.ground.measure))}
        for number, candidate in self.special:
            stated_us = candidate.reaches_us.get(point.point)
            if stated_us is None and candidate.kind is CandidateKind.UPGRADE:
                now_us = self.ground.round_trips_us.get((point.point, candidate.site))
                stated_us = None if now_us is None else now_us - candidate.saves_us
            if stated_us is not None:
                near.pop(number, None)
                if stated_us <= _most_us(self.ground.measure):
                    near[number] = None
        return [(number,) for number in sorted(near)]


def _most_us(measure: Measure) -> int:
    """The longest expected round trip that is near enough; one way is expected to be half of it."""
    return measure.within_us * (1 if measure.bound is Bound.ROUND_TRIP else 2)


def _place(thing: PointStanding | Candidate) -> Place | None:
    if thing.latitude_udeg is None or thing.longitude_udeg is None:
        return None
    return Place(latitude_udeg=thing.latitude_udeg, longitude_udeg=thing.longitude_udeg)


# -- candidates that mean nothing --------------------------------------------------------------------------------------


def _check(candidates: Sequence[Candidate], ground: Ground) -> None:
    nodes = {node.name: node.place for node in ground.topology.nodes} if ground.topology is not None else {}
    points = {point.point: point for point in ground.points}
    seen: dict[str, int] = {}
    for number, candidate in enumerate(candidates):
        where = f"candidates[{number}]"
        if candidate.name in seen:
            raise _refused(f"`{candidate.name}` is there twice: {seen[candidate.name] + 1} and {number + 1}", where)
        seen[candidate.name] = number
        if candidate.kind is CandidateKind.LINK:
            _check_link(candidate, nodes, ground.topology is not None, where)
        elif candidate.kind is CandidateKind.UPGRADE:
            _check_upgrade(candidate, ground, where)
        elif candidate.node and candidate.node not in nodes:
            raise _refused(f"`{candidate.node}` is no node of the topology", f"{where}.node")
        _check_reaches(candidate, points, where)


def _check_link(candidate: Candidate, nodes: Mapping[str, Place | None], has_topology: bool, where: str) -> None:
    if not has_topology:
        raise _refused(f"`{candidate.name}` is a link, and there is no topology to put it into", where)
    for end in (candidate.a, candidate.b):
        if end not in nodes:
            raise _refused(f"`{end}` is no node of the topology", where)
    if candidate.a == candidate.b:
        raise _refused(f"`{candidate.name}` leads from `{candidate.a}` to itself", where)
    a, b = nodes[candidate.a], nodes[candidate.b]
    least_us = 0 if a is None or b is None else light_between(a, b) // 2
    if candidate.delay_us < least_us:
        said = f"`{candidate.name}` would take {candidate.delay_us} us one way, and light needs {least_us} us"
        raise _refused(said, f"{where}.delay_us")


def _check_upgrade(candidate: Candidate, ground: Ground, where: str) -> None:
    if not candidate.site:
        raise _refused(f"`{candidate.name}` is an upgrade and says of which site", f"{where}.site")
    for (point, site), now_us in ground.round_trips_us.items():
        if site == candidate.site and point not in candidate.reaches_us and candidate.saves_us >= now_us:
            said = f"`{candidate.name}` saves {candidate.saves_us} us of the {now_us} us to `{point}`"
            raise _refused(said, f"{where}.saves_us")


def _check_reaches(candidate: Candidate, points: Mapping[str, PointStanding], where: str) -> None:
    there = _place(candidate)
    for name, expected_us in candidate.reaches_us.items():
        if name not in points:
            raise _refused(f"`{candidate.name}` reaches `{name[:200]}`, which is none of the points", where)
        here = _place(points[name])
        least_us = 0 if here is None or there is None else light_between(here, there)
        if expected_us < least_us:
            said = f"`{candidate.name}` would reach `{name}` in {expected_us} us, and light needs {least_us} us"
            raise _refused(said, f"{where}.reaches_us")


def _refused(said: str, where: str) -> TielineError:
    return TielineError("invalid_request", said, where=where)


# -- ways over links ---------------------------------------------------------------------------------------------------


class _Linked:
    """Paths of the topology with the candidate links in it."""

    def __init__(self, candidates: Sequence[Candidate], ground: Ground) -> None:
        assert ground.topology is not None
        self.most_us = (_most_us(ground.measure) - ground.assumptions.access_us) // 2  # one way, for a path
        self.left = MOST_LABELS
        self.arcs: dict[str, list[tuple[str, int, int]]] = {}  # node -> its neighbours: delay, candidate or -1
        for link in ground.topology.links:
            self._join(link.a, link.b, link.delay_us, -1)
        self.hosts: dict[str, list[int]] = {}  # node -> candidate sites there; -1: one that has compute
        with_compute = dict.fromkeys(ground.sites)
        for node in ground.topology.nodes:
            if node.site in with_compute:
                self.hosts.setdefault(node.name, []).append(-1)
        for number, candidate in enumerate(candidates):
            if candidate.kind is CandidateKind.LINK:
                self._join(candidate.a, candidate.b, candidate.delay_us, number)
            elif candidate.kind is CandidateKind.SITE and candidate.node:
                self.hosts.setdefault(candidate.node, []).append(number)
        self._known: dict[str, tuple[Way, ...]] = {}

    def _join(self, a: str, b: str, delay_us: int, number: int) -> None:
        self.arcs.setdefault(a, []).append((b, delay_us, number))
        self.arcs.setdefault(b, []).append((a, delay_us, number))

    def ways(self, start: str) -> tuple[Way, ...]:
        """The ways from a node. Where the topology alone says that a site is near, new links to it prove nothing."""
        known = self._known.get(start)
        if known is None:
            known = self._known[start] = self._search(start)
        return known

    def _search(self, start: str) -> tuple[Way, ...]:
        ways: dict[Way, None] = {}
        settled: dict[str, list[Way]] = {}
        heap: list[tuple[int, Way, str]] = [(0, (), start)] if self.most_us >= 0 else []
        while heap:
            delay_us, used, node = heappop(heap)
            before = settled.setdefault(node, [])
            if any(set(other) <= set(used) for other in before):
                continue  # somebody was here sooner with fewer new links
            before.append(used)
            for host in self.hosts.get(node, ()):
                ways[tuple(sorted((*used, host))) if host >= 0 else used] = None
            for there, more_us, number in self.arcs.get(node, ()):
                links = used if number < 0 or number in used else tuple(sorted((*used, number)))
                if delay_us + more_us <= self.most_us and len(links) <= MOST_WAY_LINKS:
                    self._count()
                    heappush(heap, (delay_us + more_us, links, there))
        if () in ways:  # the topology says near and the measurement does not: its links prove nothing here
            ways = {way: None for way in ways if len(way) == 1 and any(way[0] in row for row in self.hosts.values())}
        return smallest(ways)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            said = (
                f"more than {MOST_LABELS:,} partial paths over candidate links: state fewer links, or a smaller bound"
            )
            raise TielineError("too_large", said, where="candidates")
