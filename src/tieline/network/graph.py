"""Graph: a topology as columns, for everything that is computed on it.

Every link gives two arcs, one a direction: arcs ``2k`` and ``2k + 1`` are the two of link ``k``, so ``arc ^ 1`` is the
way back. A link that is down, in maintenance or without capacity stays in the columns (so that numbers stay comparable
between two states of a network) and has the capacity 0; no path uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


FAINT = 1e-12  # what an arc of weight 0 weighs


class Graph(NamedTuple):
    """Columns of arcs. ``names`` are of nodes, in the order of their numbers."""

    names: tuple[str, ...]
    tail: Ints
    head: Ints
    capacity_bps: Floats
    delay_us: Floats
    cost: Floats  # of a unit of traffic; breaks ties between paths

    @property
    def node_count(self) -> int:
        """How many nodes there are."""
        return len(self.names)

    @property
    def arc_count(self) -> int:
        """How many arcs there are, those without capacity included."""
        return len(self.tail)

    @property
    def is_up(self) -> NDArray[np.bool_]:
        """Which arcs can carry anything."""
        return self.capacity_bps > 0

    def without(self, links: Iterable[int]) -> Graph:
        """The same network with these links cut, both directions."""
        capacity = self.capacity_bps.copy()
        for link in links:
            capacity[2 * link : 2 * link + 2] = 0
        return self._replace(capacity_bps=capacity)

    @property
    def reversed(self) -> Graph:
        """Every arc turned round, under the same number."""
        return self._replace(tail=self.head, head=self.tail)

    def walked(self, trees: Trees, sources: Ints, targets: Ints) -> tuple[NDArray[np.int64], Ints]:
        """The way of each pair through its tree: whose (its place in ``sources``) and which arc, in order from the
        source. Pairs that cannot be reached, or are one node, have none."""
        rows = trees.row[sources]
        at = targets.copy()
        live = np.flatnonzero(np.isfinite(trees.distance[rows, targets]) & (sources != targets))
        owner, steps = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int32)]
        while len(live):
            arc = trees.arc[rows[live], at[live]]
            owner.append(live)
            steps.append(arc)
            at[live] = self.tail[arc]
            live = live[at[live] != sources[live]]
        who, arcs = np.concatenate(owner), np.concatenate(steps)
        order = np.lexsort((-np.arange(len(who)), who))  # the walk went from the target back
        return who[order], arcs[order]

    def holding(self, capacity_bps: Floats) -> Graph:
        """The same network with other capacities, such as those that are left."""
        return self._replace(capacity_bps=np.maximum(capacity_bps, 0.0))


def graph_of(names: Sequence[str], links: Sequence[tuple[int, int, float, float]]) -> Graph:
    """A graph of links ``(node, node, bit/s a direction, delay in us)``; the cost of an arc is its delay."""
    ends = np.array([(a, b) for a, b, _, _ in links], dtype=np.int32).reshape(-1, 2)
    capacity = np.array([rate for _, _, rate, _ in links], dtype=np.float64)
    delay = np.array([us for _, _, _, us in links], dtype=np.float64)
    tail = ends.reshape(-1)
    head = ends[:, ::-1].reshape(-1).copy()
    return Graph(tuple(names), tail, head, np.repeat(capacity, 2), np.repeat(delay, 2), np.repeat(delay, 2))


def counted(of: NDArray[Any], amount: Floats, size: int) -> Floats:
    """The sum of the amounts of each of ``size`` things; floats also where there are none."""
    return np.bincount(of, amount, size).astype(np.float64, copy=False)


class Trees(NamedTuple):
    """Shortest paths from each source to every node, by one weight for each arc."""

    sources: Ints
    row: Ints  # node -> its row, -1: no source
    distance: Floats  # rows x nodes; inf: cannot be reached
    arc: Ints  # rows x nodes: the last arc on the way; -1: none


def trees_of(graph: Graph, weight: Floats, sources: Ints) -> Trees:
    """Dijkstra from every source (scipy). ``weight`` at least 0; parallel arcs are served by the lightest."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    n = graph.node_count
    up = np.flatnonzero(graph.is_up).astype(np.int32)
    # The sparse graph reads a weight of 0 as no arc.
    light = np.maximum(weight[up], FAINT)
    key = graph.tail[up].astype(np.int64) * n + graph.head[up]
    order = np.lexsort((light, key))
    first = np.ones(len(order), dtype=bool)
    first[1:] = key[order][1:] != key[order][:-1]
    kept = order[first]
    matrix: Any = csr_array((light[kept], (graph.tail[up[kept]], graph.head[up[kept]])), shape=(n, n))
    distance, before = dijkstra(matrix, indices=sources, return_predecessors=True)
    keys, arcs = key[kept], up[kept]
    at = np.searchsorted(keys, before.astype(np.int64) * n + np.arange(n)[None, :])
    arc = np.where(before >= 0, arcs[np.minimum(at, len(arcs) - 1)] if len(arcs) else -1, -1).astype(np.int32)
    row = np.full(n, -1, dtype=np.int32)
    row[sources] = np.arange(len(sources), dtype=np.int32)
    return Trees(sources, row, distance, arc)
