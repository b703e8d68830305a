"""Joint: whether every two of some sites can have a rate at once, in what nobody else has booked from now to then.

Each pair alone has what the links give that still carry the rate: shortest ways over those. Sites are joined one by
one with all before, each pair over its quickest way with room; a pair that finds none makes the set impossible. That is
a heuristic: another order might fit, so a set that is refused is not proven impossible. What is accepted fits: no link
is given more than it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tieline.model.topology import Topology
from tieline.network.calendar import Calendar
from tieline.network.graph import FAINT, Floats, Graph, Ints, Trees, trees_of
from tieline.network.slots import Longs, Wires, wires_of
from tieline.network.ways import Path

MOST_COLUMNS: Final = 64  # of the calendar, that are looked at together
MOST_KNOWN: Final = 8  # rates whose ways are kept
MOST_WAYS: Final = 20_000  # of pairs that are alone, that are kept
MOST_ROUTES: Final = 256  # ways that are looked for beside the quickest one of a pair, all sets together

Flags = NDArray[np.bool_]


class Joined(NamedTuple):
    """Sites that are joined, what they leave, and the arcs of each pair; the way back goes over the same links."""

    sites: tuple[str, ...]
    free_bps: Longs
    paths: dict[tuple[str, str], Path]


class Joint:
    """Pairs of sites over what each arc has free, in bit/s. Links for smaller packets than ``mtu_bytes`` carry none.

    A rate of 0 asks for nothing of the links: whatever is up will do.
    """

    def __init__(self, wires: Wires, free_bps: Longs, *, mtu_bytes: int = 0, most_routes: int = MOST_ROUTES) -> None:
        self._wires = wires
        self._node = wires.node
        self._graph = wires.graph
        # A pair takes the same of both directions, so the smaller of them counts.
        free = np.minimum(free_bps, free_bps[np.arange(len(free_bps)) ^ 1])
        mtu = np.repeat(np.array([link.mtu_bytes for link in wires.topology.links], np.int64), 2)
        self.free_bps: Longs = np.where(mtu >= mtu_bytes, free, 0)
        self.routes = most_routes
        self._known: dict[int, Roads] = {}
        self._ways: dict[tuple[int, int, int], Path | None] = {}

    def knows(self, site: str) -> bool:
        """Whether the network has it."""
        return site in self._node

    def allowed(self, sites: Sequence[str], rate_bps: int, most_rtt_us: int = 0) -> Flags:
        """Which two of ``sites`` have the rate and the round trip, each pair as if it were alone: n x n.

        A site that the network does not have is joined with nobody. Two at one node are joined.
        """
        node = np.array([self._node.get(site, -1) for site in sites], np.int32)
        is_here = np.flatnonzero(node >= 0)
        found: Flags = np.zeros((len(sites), len(sites)), np.bool_)
        if not len(is_here):
            return found
        trees = self._roads(node[is_here], rate_bps).trees
        delay = trees.distance[trees.row[node[is_here]]][:, node[is_here]]
        near = np.isfinite(delay) if not most_rtt_us else 2 * delay <= most_rtt_us
        found[np.ix_(is_here, is_here)] = near
        return found

    def most_joined(self, sites: Sequence[str], rate_bps: int) -> Longs:
        """With how many others each of ``sites`` can have the rate at once, by the links at its own node alone."""
        graph = self._graph
        usable = np.where(graph.is_up & (self.free_bps >= rate_bps), self.free_bps // max(1, rate_bps), 0)
        at = np.zeros(graph.node_count, np.int64)
        np.add.at(at, graph.tail, usable)
        node = np.array([self._node.get(site, -1) for site in sites], np.int64)
        found: Longs = np.where(node >= 0, at[np.maximum(node, 0)], 0)
        return found

    def rtt_us(self, one: str, other: str, rate_bps: int = 0) -> int | None:
        """The round trip over the quickest way of a pair that is alone; None: there is none, or one is not known."""
        source, target = self._node.get(one), self._node.get(other)
        if source is None or target is None:
            return None
        path = self._way(source, target, rate_bps)
        return None if path is None else round(2 * float(self._graph.delay_us[path].sum()))

    def first(self, site: str) -> Joined:
        """One site, joined with nobody yet."""
        return Joined((site,), self.free_bps, {})

    def extended(self, held: Joined, site: str, rate_bps: int, most_rtt_us: int = 0) -> Joined | None:
        """The same with one site more, joined with all of them; None where for some of them nothing is left."""
        free, paths, target = held.free_bps.copy(), dict(held.paths), self._node[site]
        delay_us = self._graph.delay_us
        for other in held.sites:
            source = self._node[other]
            path = self._way(source, target, rate_bps)
            if source != target and (path is None or (free[path] < rate_bps).any()):
                if self.routes <= 0:
                    return None
                self.routes -= 1
                path = self._roads(np.array([source], np.int32), rate_bps).beside(free, rate_bps, source, target)
            if path is None or (most_rtt_us and 2 * float(delay_us[path].sum()) > most_rtt_us):
                return None
            paths[other, site] = path
            free[path] -= rate_bps
            free[path ^ 1] -= rate_bps
        return Joined((*held.sites, site), free, paths)

    def _way(self, source: int, target: int, rate_bps: int) -> Path | None:
        """The quickest way of a pair that is alone; kept. None: none, or no more than one node."""
        key = source, target, rate_bps
        if key not in self._ways:
            if len(self._ways) >= MOST_WAYS:
                self._ways.clear()
            roads = self._roads(np.array([source], np.int32), rate_bps)
            self._ways[key] = roads.walked(source, target)
        return self._ways[key] if source != target else np.zeros(0, np.int32)

    def _roads(self, nodes: Ints, rate_bps: int) -> Roads:
        """The links that carry the rate, and the shortest ways over them from each of the nodes."""
        known = self._known.get(rate_bps)
        if known is not None and (known.trees.row[nodes] >= 0).all():
            return known
        sources = nodes if known is None else np.concatenate([nodes, known.trees.sources])
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        made = self._known[rate_bps] = roads_of(self._graph, self.free_bps, rate_bps, np.unique(sources))
        return made


def joint(calendar: Calendar, from_ms: int, until_ms: int = 0, *, mtu_bytes: int = 0) -> Joint:
    """What is free from ``from_ms`` until ``until_ms`` (0: for ever) over a calendar."""
    grid = calendar.grid
    low, high = grid.touched(max(from_ms, grid.begin_ms), until_ms or grid.until_ms)
    last = high - grid.first if until_ms and until_ms <= grid.until_ms else grid.slots + 1
    free = calendar.free[:, low - grid.first : max(last, low - grid.first + 1)].min(axis=1)
    return Joint(calendar.wires, free, mtu_bytes=mtu_bytes)


def more_ms(calendar: Calendar) -> int:
    """When some link has more free than just before, at first; 0: never, as far as the calendar reaches."""
    grid, free = calendar.grid, calendar.free
    for low in range(0, grid.slots - 1, MOST_COLUMNS):
        columns = free[:, low : min(low + MOST_COLUMNS + 1, grid.slots)]
        grows = (columns[:, 1:] > columns[:, :-1]).any(axis=0)
        if grows.any():
            return (grid.first + low + int(grows.argmax()) + 1) * grid.slot_ms
    return 0


def idle(topology: Topology, *, mtu_bytes: int = 0) -> Joint:
    """What there would be with nothing booked, and no maintenance."""
    wires = wires_of(topology)
    return Joint(wires, wires.graph.capacity_bps.astype(np.int64), mtu_bytes=mtu_bytes)


class Roads(NamedTuple):
    """The arcs that carry a rate (of parallel ones the quickest), as rows of a sparse matrix, and trees over them."""

    trees: Trees
    tail: list[int]  # of each arc of the network
    arcs: Ints  # in the order of the matrix
    head: Ints
    begin: Ints  # of each node's row
    delay_us: Floats
    between: dict[int, int]  # node x count + node -> arc

    def walked(self, source: int, target: int) -> Path | None:
        """The way of the tree of ``source``; None where it does not reach."""
        row = self.trees.arc[int(self.trees.row[source])]
        steps: list[int] = []
        while target != source:
            arc = int(row[target])
            if arc < 0:
                return None
            steps.append(arc)
            target = self.tail[arc]
        return np.array(steps[::-1], dtype=np.int32)

    def beside(self, free_bps: Longs, rate_bps: int, source: int, target: int) -> Path | None:
        """The shortest way over what is left; None where there is none."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import dijkstra

        count = len(self.begin) - 1
        weight = np.where(free_bps[self.arcs] >= rate_bps, self.delay_us, np.inf)
        matrix = csr_array((weight, self.head, self.begin), shape=(count, count))
        _, before = dijkstra(matrix, indices=source, return_predecessors=True)
        steps: list[int] = []
        while target != source:
            last = int(before[target])
            if last < 0:
                return None
            steps.append(self.between[last * count + target])
            target = last
        return np.array(steps[::-1], dtype=np.int32)


def roads_of(graph: Graph, free_bps: Longs, rate_bps: int, sources: Ints) -> Roads:
    """The roads of a rate, with trees from ``sources``."""
    can = graph.is_up & (free_bps >= rate_bps) if rate_bps else graph.is_up
    usable = graph.holding(np.where(can, graph.capacity_bps, 0.0))
    up = np.flatnonzero(can)
    key = graph.tail[up].astype(np.int64) * graph.node_count + graph.head[up]
    order = np.lexsort((graph.delay_us[up], key))
    key, first = np.unique(key[order], return_index=True)
    arcs = up[order[first]].astype(np.int32)
    begin = np.searchsorted(graph.tail[arcs], np.arange(graph.node_count + 1)).astype(np.int32)
    return Roads(
        trees=trees_of(usable, graph.delay_us, sources),
        tail=graph.tail.tolist(),
        arcs=arcs,
        head=graph.head[arcs].astype(np.int32),
        begin=begin,
        delay_us=np.maximum(graph.delay_us[arcs], FAINT),
        between=dict(zip(key.tolist(), arcs.tolist(), strict=True)),
    )
