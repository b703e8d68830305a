"""State: what a topology can carry at a moment: maintenance and failures taken off, shared risks together.

Link ``k`` of the topology is arcs ``2k`` (from `Link.a` to `Link.b`) and ``2k + 1`` of every graph made here, whatever
is down, so that paths of one state can be looked at in another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tieline.model.topology import Topology
from tieline.network.graph import Graph


class Failure(NamedTuple):
    """Links that go down together."""

    name: str
    links: tuple[int, ...]


def graph_at(topology: Topology, at_ms: int | None = None, down: Iterable[int] = ()) -> Graph:
    """The network at ``at_ms`` (None: without maintenance), with the links ``down`` cut. The topology is sound
    (`survey`)."""
    number = {node.name: at for at, node in enumerate(topology.nodes)}
    links = topology.links
    ends = np.array([(number[link.a], number[link.b]) for link in links], dtype=np.int32).reshape(-1, 2)
    rates = [
        (link.capacity_bps, link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps)
        for link in links
    ]
    graph = Graph(
        tuple(node.name for node in topology.nodes),
        ends.reshape(-1).copy(),
        ends[:, ::-1].reshape(-1).copy(),
        np.array(rates, dtype=np.float64).reshape(-1),
        np.repeat(np.array([link.delay_us for link in links], dtype=np.float64), 2),
        np.repeat(np.array([link.price_micro_cny_per_gb for link in links], dtype=np.float64), 2),
    )
    away = set(down) | (set() if at_ms is None else set(in_maintenance(topology, at_ms)))
    return graph.without(sorted(away))


def in_maintenance(topology: Topology, at_ms: int) -> tuple[int, ...]:
    """The links that are in maintenance at that moment; the end of a window is not part of it."""
    return tuple(
        at
        for at, link in enumerate(topology.links)
        if any(window.from_ms <= at_ms < window.until_ms for window in link.maintenance)
    )


def turns(topology: Topology, from_ms: int, until_ms: int) -> tuple[int, ...]:
    """The moments of a span, its begin included, from which on another state holds."""
    edges = {
        edge for link in topology.links for window in link.maintenance for edge in (window.from_ms, window.until_ms)
    }
    return tuple(sorted({from_ms, *(edge for edge in edges if from_ms < edge < until_ms)}))


def groups(topology: Topology) -> dict[str, tuple[int, ...]]:
    """The links of each shared risk, in the order of names."""
    of: dict[str, list[int]] = {}
    for at, link in enumerate(topology.links):
        for group in link.groups:
            of.setdefault(group, []).append(at)
    return {name: tuple(of[name]) for name in sorted(of)}


def failures(topology: Topology) -> tuple[Failure, ...]:
    """Everything that fails by one cause: each link alone, and each shared risk."""
    alone = tuple(Failure(link.name, (at,)) for at, link in enumerate(topology.links))
    return alone + tuple(Failure(name, links) for name, links in groups(topology).items())
