"""Circles: what an exchange knows that a circle or a coverage rests on, as one snapshot. Nothing is changed.

The figuring itself (`network.circle`, `network.coverage`) is done by whoever asked, beside the queue of decisions.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline.exchange.commands import Command, Decision
from tieline.exchange.measuring import Places
from tieline.exchange.view import View
from tieline.model.circle import AccessPoint, SitePlace
from tieline.model.error import TielineError
from tieline.model.reading import Reading
from tieline.model.topology import Place
from tieline.ports import Ids

MOST_NAMED = 3  # near names in a hint


class ReadGround(Command, frozen=True, kw_only=True):
    """No events. Reply: Ground. ``place`` is what the circle is of; empty: reference points as access points."""

    place: str = ""


class Ground(NamedTuple):
    """A moment of the wide area."""

    as_of_ms: int
    names: tuple[str, ...]  # of the place, the asked one first: readings may have any of them
    sites: tuple[SitePlace, ...]  # with compute
    idle: tuple[str, ...]  # sites without
    places: dict[str, Place]
    points: tuple[AccessPoint, ...]  # reference points, each of weight 1
    readings: tuple[Reading, ...]
    via: dict[str, str]  # sites behind peers -> the peer that leads there


def read_ground(view: View, command: ReadGround, now_ms: int, ids: Ids) -> Decision:
    """Everything that was measured, and who stands where. Raises `not_found` for a place that nobody knows."""
    places = _places(view)
    readings = tuple(view.readings)
    names = _names(view, command.place, readings) if command.place else ()
    known = [site for site in sorted(view.supply.site_specs) if _is_here(view, site)]
    with_compute = [site for site in known if view.supply.pools.site_pools(site)]
    idle = dict.fromkeys(known)
    for site in with_compute:
        idle.pop(site)
    ground = Ground(
        as_of_ms=now_ms,
        names=names,
        sites=tuple(_placed(site, places, view.way_to(site)) for site in with_compute),
        idle=tuple(idle),
        places=places,
        points=_points(view),
        readings=readings,
        via={site: via for site in known if (via := view.way_to(site))},
    )
    return Decision((), ground)


def _is_here(view: View, site: str) -> bool:
    """Whether it is admitted here, or some peer leads there."""
    ours = view.sites.get(site)
    if ours is not None and not ours.has_left:
        return ours.is_admitted
    return bool(view.way_to(site))


def _places(view: View) -> dict[str, Place]:
    """Where reference points, nodes and the sites at nodes stand, as far as it is stated."""
    found = dict(Places(view))
    topology = view.network.topology
    for node in topology.nodes if topology is not None else ():
        if node.place is not None:
            found[node.name] = node.place
            if node.site:
                found[node.site] = node.place
    return found


def _names(view: View, place: str, readings: tuple[Reading, ...]) -> tuple[str, ...]:
    """What readings may call the place: a node is its site, and a site the nodes that it stands at."""
    nodes = view.network.topology.nodes if view.network.topology is not None else ()
    names = {place: None}
    for node in nodes:
        if node.name == place and node.site:
            names[node.site] = None
        elif node.site == place:
            names[node.name] = None
    known = {
        **dict.fromkeys(view.supply.site_specs),
        **dict.fromkeys(view.network.points),
        **dict.fromkeys(node.name for node in nodes),
        **dict.fromkeys(reading.target for reading in readings),
    }
    if place not in known:
        raise _unknown(place, known)
    return tuple(names)


def _unknown(place: str, known: dict[str, None]) -> TielineError:
    from difflib import get_close_matches

    near = get_close_matches(place, list(known)[:10_000], n=MOST_NAMED)
    hints = tuple(f"tieline circle --of {name} --within 1ms" for name in near) or ("tieline site ls",)
    said = f"`{place}` is no site, reference point or node of the topology here"
    return TielineError("not_found", said, where="place", hints=hints)


def _points(view: View) -> tuple[AccessPoint, ...]:
    nodes = {node.name: None for node in view.network.topology.nodes} if view.network.topology is not None else {}
    return tuple(
        AccessPoint(
            point=point.name,
            region=point.region,
            latitude_udeg=point.latitude_udeg,
            longitude_udeg=point.longitude_udeg,
            node=point.name if point.name in nodes else "",
        )
        for _, point in sorted(view.network.points.items())
    )


def _placed(site: str, places: dict[str, Place], via: str) -> SitePlace:
    place = places.get(site)
    if place is None:
        return SitePlace(site=site, via=via)
    return SitePlace(site=site, latitude_udeg=place.latitude_udeg, longitude_udeg=place.longitude_udeg, via=via)
