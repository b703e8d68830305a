"""Topology: who peers with whom: a tree of regions below the hub, and industry exchanges that know two regions each.

A small federation is a star whose exchanges ask each other for everything, also for what they cannot prove. In a larger
one no exchange has more than `CHILDREN` children, as provinces have cities, and each pulls what it has a key for: so
what one exchange keeps and asks grows with its neighbours, not with the federation.
"""

from __future__ import annotations

from collections.abc import Sequence

from tieline.model.peer import PeerRole

CHILDREN = 12


def links_of(names: Sequence[str]) -> list[tuple[str, str, PeerRole]]:
    """The links between exchanges by name, in the order in which they are made: an exchange before those below it."""
    regions = [place for place in range(1, len(names)) if not is_industry(place)]
    links = [(names[above_of(place)], names[place], PeerRole.CHILD) for place in regions]
    for place, name in enumerate(names):
        if place and is_industry(place):
            first = place % len(regions) if regions else 0
            above = [regions[(first + step) % len(regions)] for step in range(min(2, len(regions)))] or [0]
            links += [(names[other], name, PeerRole.PEER) for other in above]
    return links


def wanted_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The prefixes that each exchange pulls, by its name: its own and those of its peers. Empty in a star: all."""
    if all(above_of(place) == 0 for place in range(len(names)) if not is_industry(place)):
        return {}
    prefix = {name: prefix_of(place) for place, name in enumerate(names)}
    wanted = {name: {prefix[name]: None} for name in names}
    for one, two, _ in links_of(names):
        wanted[one][prefix[two]] = wanted[two][prefix[one]] = None
    return {name: tuple(found) for name, found in wanted.items()}


def is_industry(place: int) -> bool:
    """Every third exchange is of an industry."""
    return place % 3 == 2


def above_of(place: int) -> int:
    """The parent of a region: the hub for the first `CHILDREN` (and of itself), then one region after the other."""
    before = place - 1 - place // 3  # regions before this one
    if before < CHILDREN:
        return 0
    parent = before // CHILDREN - 1
    return parent + 1 + (parent + 1) // 2  # the place of the region with that number: every third is an industry


def prefix_of(place: int) -> str:
    """The hub's, one directly below its parent's for a region, one of its own for an industry exchange."""
    if place == 0:
        return "cn"
    return f"trade{place}" if is_industry(place) else f"{prefix_of(above_of(place))}.r{place}"
