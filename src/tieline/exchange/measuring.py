"""Measuring: who measures whom, what a site measured, reference points, and what is known of the way between two."""

from __future__ import annotations

from bisect import bisect
from collections import ChainMap
from collections.abc import Iterator, Mapping

from tieline.exchange.commands import ChangePoints, Decision, PlanProbes, ReadReadings, ReadWay, TakeReadings
from tieline.exchange.permission import allow, no_such
from tieline.exchange.readings import Declared
from tieline.exchange.view import View
from tieline.model.door import door_url
from tieline.model.error import TielineError
from tieline.model.event import PointsChanged
from tieline.model.evidence import Evidence
from tieline.model.measuring import (
    PointPage,
    ReadingPage,
    ReadingsTaken,
    ReadingView,
    RefutedCount,
    RefutedView,
    WayView,
)
from tieline.model.party import Role, Site
from tieline.model.reading import Reading
from tieline.model.reason import Reason
from tieline.model.topology import Place, Topology
from tieline.network.physics import DETOUR, Frame, distance_m, fibre_us, light_us
from tieline.network.probing import SOON_MS, SPAN_MS, Side, links_of, planned
from tieline.ports import Ids

MOST_POINTS = 1_000
MOST_CHOSEN = 64  # sites without doors, and as many of peers, that one site chooses from in a span
UNDONE = ("peer_address", "probe_inner", "probe_senseless")
MOST_COUNT = 10**9
SKEW_MS = 300_000  # how far the time of a signed batch may be off


# -- what sites say ---------------------------------------------------------------------------------------------------


def take_readings(view: View, command: TakeReadings, now_ms: int, ids: Ids) -> Decision:
    """Last value only: nothing is logged. A reading that cannot be is refuted and counted; the others are kept."""
    batch = command.batch
    site = _measuring(view, command.site)
    if batch.site != site.id:
        raise TielineError("forbidden", f"these are the readings of `{batch.site}`, the session is `{site.id}`'s")
    if abs(now_ms - batch.at_ms) > SKEW_MS:
        off_s = abs(now_ms - batch.at_ms) // 1000
        raise TielineError("unauthenticated", f"the batch's time is {off_s} s away from this exchange's clock")
    if not view.readings.is_next(site.id, site.session, batch.seq):
        raise TielineError("conflict", f"batch {batch.seq} is not newer than the last one of this session")
    before = dict(view.readings.counts.get(site.id, {}))
    frame = frame_of(view, site.id, now_ms)
    kept, wrong = view.readings.take(site.id, site.session, batch.seq, batch.readings, frame, command.statement)
    view.readings.undone[site.id] = tuple(
        Reason(code=each.code, count=min(MOST_COUNT, each.count))
        for each in batch.undone
        if each.code in UNDONE and each.count > 0
    )
    counts = view.readings.counts.get(site.id, {})
    refuted = tuple(
        Reason(code=code, count=counts[code] - before.get(code, 0))
        for code in sorted(counts)
        if counts[code] > before.get(code, 0)
    )
    return Decision((), ReadingsTaken(kept=kept, unchanged=len(batch.readings) - kept - wrong, refuted=refuted))


def plan_probes(view: View, command: PlanProbes, now_ms: int, ids: Ids) -> Decision:
    """What a site measures until it asks again. Charged to the span; asked again within it, there is nothing more."""
    site = _measuring(view, command.site)
    readings = view.readings
    readings.turn(now_ms)
    sites = [each for each in sorted(view.sites) if _is_here(view.sites[each])]
    doors: list[Side] = []
    others: list[str] = []
    for name in sites:
        spec = view.supply.site_specs.get(name)
        if spec is None or view.sites[name].is_silent:
            continue
        url = door_url(spec.door)
        if url:
            doors.append(Side(name, url, view.sites[name].public))
        elif view.limits.relay_streams and spec.relay:
            others.append(name)
    relayed = [Side(name, "", view.sites[name].public, is_relayed=True) for name in _some(others, site.id, now_ms)]
    points = [Side(point.name, point.address) for point in view.network.points.values() if point.address]
    doors += _far_doors(view, site.id, now_ms)
    plan = planned(
        site.id,
        [*doors, *relayed, *sorted(points)],
        sites,
        readings.ended_ms,
        readings.near,
        readings.ledger,
        declared(view).links,
        now_ms,
    )
    return Decision((), plan)


def _far_doors(view: View, site: str, now_ms: int) -> list[Side]:
    """Doors of sites that a peer admits itself, so that it can give passes; they are asked for once it is planned."""
    readings, turn = view.readings, now_ms // SOON_MS
    if readings.far_doors[0] != turn:  # there may be many sites, and many that ask
        readings.far_doors = turn, {side.name: side for side in _doors_behind(view)}
    doors = readings.far_doors[1]
    return [doors[name] for name in _some(list(doors), site, now_ms) if view.way_to(name)]


def _doors_behind(view: View) -> Iterator[Side]:
    for name in sorted(view.remote_sites):
        said, spec = view.said.get(name), view.supply.site_specs.get(name)
        if said is None or spec is None or len(said.path) > 1 or said.is_silent or not spec.public:
            continue
        if url := door_url(spec.door):
            yield Side(name, url, spec.public)


def _some(names: list[str], site: str, now_ms: int) -> list[str]:
    """Of many those that ``site`` may choose from now; others in the next span."""
    if len(names) <= MOST_CHOSEN:
        return names
    begin = (bisect(names, site) + now_ms // SPAN_MS * MOST_CHOSEN) % len(names)
    return (names[begin:] + names[:begin])[:MOST_CHOSEN]


def _measuring(view: View, name: str) -> Site:
    site = view.sites.get(name)
    if site is None or not _is_here(site):
        raise TielineError("forbidden", f"`{name}` is not admitted here, and measures nothing for this exchange")
    return site


def _is_here(site: Site) -> bool:
    return site.is_admitted and not site.has_left


def frame_of(view: View, site: str, now_ms: int, *, is_far: bool = False) -> Frame:
    """What the readings of a site are judged by; ``is_far``: of one behind a peer."""
    points = view.network.points
    targets: ChainMap[str, object] = ChainMap(view.sites, view.supply.site_specs, points)  # type: ignore[arg-type]
    addresses = {name: point.address for name, point in points.items()}
    return Frame(site, now_ms, targets, Places(view), declared(view).access_bps, addresses, is_far)


class Places(Mapping[str, Place]):
    """Where sites and reference points stand, as far as it is stated: by the topology, else by a site's own record.

    Looked up one by one: a batch of readings speaks of a few, and there may be thousands.
    """

    def __init__(self, view: View) -> None:
        self._points, self._specs, self._declared = view.network.points, view.supply.site_specs, declared(view).places

    def __getitem__(self, name: str) -> Place:
        found = self._points.get(name)
        if found is None or found.latitude_udeg is None or found.longitude_udeg is None:
            if name in self._declared:
                return self._declared[name]
            stated = self._specs[name]
            if stated.latitude_udeg is None or stated.longitude_udeg is None:
                raise KeyError(name)
            return Place(latitude_udeg=stated.latitude_udeg, longitude_udeg=stated.longitude_udeg)
        return Place(latitude_udeg=found.latitude_udeg, longitude_udeg=found.longitude_udeg)

    def __iter__(self) -> Iterator[str]:
        return (name for name in {**self._specs, **self._declared, **self._points} if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def declared(view: View) -> Declared:
    """What the topology says of sites, as it carries now."""
    network, readings = view.network, view.readings
    if readings.declared.version != network.version:
        topology = network.standing()
        nodes = topology.nodes if topology is not None else ()
        readings.declared = Declared(
            network.version,
            links_of(topology),
            _access_bps(network.topology, network.site_of),
            {node.site: node.place for node in nodes if node.site and node.place is not None},
        )
    return readings.declared


def _access_bps(topology: Topology | None, site_of: Mapping[str, str]) -> dict[str, int]:
    """All links of each site together."""
    most: dict[str, int] = {}
    for link in topology.links if topology is not None else ():
        for end in (link.a, link.b):
            if end in site_of:
                widest = max(link.capacity_bps, link.capacity_back_bps or 0)
                most[site_of[end]] = most.get(site_of[end], 0) + widest
    return most


# -- reference points -------------------------------------------------------------------------------------------------


def change_points(view: View, command: ChangePoints, now_ms: int, ids: Ids) -> Decision:
    """Name reference points, change them, take them back; all or nothing."""
    allow(command.actor, Role.ADMIN, Role.OPERATOR, what="change reference points")
    points = view.network.points
    for name in command.remove:
        if name not in points:
            raise no_such("reference point", name)
    for point in command.put:
        if (point.latitude_udeg is None) != (point.longitude_udeg is None):
            raise TielineError("invalid_request", f"point `{point.name}` has one coordinate alone", where="put")
        _check_address(point.name, point.address)
        if point.name in view.network.site_of:
            raise TielineError("conflict", f"`{point.name}` is a node of the topology already", where="put")
    put = tuple(point for point in command.put if points.get(point.name) != point)
    if len(points) + sum(point.name not in points for point in put) > MOST_POINTS:
        raise TielineError("overloaded", f"there would be more than {MOST_POINTS} reference points", where="put")
    page = {**points, **{point.name: point for point in put}}
    for name in command.remove:
        page.pop(name, None)
    answer = PointPage(points=tuple(page[name] for name in sorted(page)))
    if not put and not command.remove:
        return Decision((), answer)
    why = f"told by {command.actor.name}"
    return Decision((PointsChanged(put=put, removed=command.remove, why=why),), answer)


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if address and not (host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise TielineError(
            "invalid_request", f"the address `{address}` of point `{name}` is no `host:port`", where="put"
        )


# -- what is known ----------------------------------------------------------------------------------------------------


def read_readings(view: View, command: ReadReadings, now_ms: int, ids: Ids) -> Decision:
    """Readings by source, what was refuted lately, and how often since the start."""
    readings = view.readings
    readings.turn(now_ms)
    source, target = _end(view, command.source), _end(view, command.target)
    shown, is_more = readings.page(source, target, command.after, command.limit)
    wrong = [each for each in readings.refuted if not source or each.site == source]
    return Decision(
        (),
        ReadingPage(
            as_of_ms=now_ms,
            readings=tuple(_shown(view, each) for each in shown),
            next=str(command.after + len(shown)) if is_more else "",
            refuted=tuple(
                RefutedView(site=each.site, at_ms=each.at_ms, reading=each.reading, reason=each.reason)
                for each in reversed(wrong)
            ),
            counts=tuple(
                RefutedCount(site=site, reasons=tuple(Reason(code=code, count=counts[code]) for code in sorted(counts)))
                for site, counts in sorted(readings.counts.items())
                if not source or site == source
            ),
            undone=tuple(
                RefutedCount(site=site, reasons=reasons)
                for site, reasons in sorted(readings.undone.items())
                if reasons and (not source or site == source)
            ),
        ),
    )


def read_way(view: View, command: ReadWay, now_ms: int, ids: Ids) -> Decision:
    """The way between two points: what was measured, what is known from it, what light allows, what is estimated."""
    readings = view.readings
    readings.turn(now_ms)
    one, other = (known_end(view, each) for each in (command.source, command.target))
    places = Places(view)
    here, there = places.get(one), places.get(other)
    is_placed = here is not None and there is not None
    estimate_us = readings.coordinates.estimate_us(one, other)
    errors = [readings.coordinates.error_ppm(each) for each in (one, other)]
    evidence = Evidence.EMULATED if readings.is_emulated else Evidence.MEASURED
    rtt_us, rate_bps = readings.rtt_us(one, other), readings.rate_bps(one, other)
    return Decision(
        (),
        WayView(
            source=one,
            target=other,
            as_of_ms=now_ms,
            rtt_us=rtt_us,
            rate_bps=rate_bps,
            rtt_evidence=Evidence.UNKNOWN if rtt_us is None else evidence,
            rate_evidence=Evidence.UNKNOWN if rate_bps is None else evidence,
            readings=tuple(_shown(view, each) for each in readings.between(one, other)),
            estimate_us=estimate_us,
            estimate_error_ppm=max(errors) if estimate_us is not None else None,
            apart_km=round(distance_m(here, there) / 1000) if here is not None and there is not None else None,
            light_us=round(2 * light_us(here, there)) if here is not None and there is not None else None,
            fibre_us=round(2 * DETOUR * fibre_us(here, there)) if is_placed and here and there else None,
        ),
    )


def _shown(view: View, reading: Reading) -> ReadingView:
    return ReadingView(
        reading=reading,
        via=view.readings.via.get(reading.source, ""),
        age_us=max(0, view.readings.now_ms - reading.ended_ms) * 1000,
        loss_ppm=reading.loss_ppm,
        is_fresh=view.readings.is_fresh(reading),
    )


def _end(view: View, point: str) -> str:
    """What readings call a point."""
    return point if point in view.network.points else view.network.site_of.get(point, point)


def known_end(view: View, point: str) -> str:
    """What readings call a point that is known here. Raises TielineError `not_found`."""
    found = _end(view, point)
    if found not in view.sites and found not in view.network.points and not view.way_to(found):
        raise no_such("site or reference point", point)
    return found
