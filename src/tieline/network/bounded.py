"""Bounded paths: the cheapest path of those that are quick enough.

The cheapest path by prices may be too slow for a demand with a latency bound. The search extends labels (cost, delay)
of paths, the most promising first (A*), guided by the exact cost and delay from each node to the target; a label that
another one beats in both is dropped (Desrochers and Soumis, INFOR 26, 1988). It ends at the optimum, or after
`MOST_LABELS` with a proven lower bound.
"""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

import numpy as np

from tieline.network.graph import FAINT, Floats, Graph, Ints, Trees, trees_of

MOST_LABELS: Final = 50_000


class Found(NamedTuple):
    """The cheapest path that is quick enough, if there is one below the limit; no such path costs less than
    ``least``."""

    arcs: tuple[int, ...]
    least: float


class Guide:
    """What is the same in every search over one state of a network: who follows whom, and the least delays."""

    def __init__(self, graph: Graph, targets: Ints) -> None:
        self.graph = graph
        self.targets = np.unique(targets)
        self.delay: Trees = trees_of(graph.reversed, graph.delay_us, self.targets)
        self.after: list[list[int]] = [[] for _ in range(graph.node_count)]
        for arc in np.flatnonzero(graph.is_up).tolist():
            self.after[int(graph.tail[arc])].append(arc)

    def priced(self, price: Floats) -> Trees:
        """The least cost from every node to every target."""
        return trees_of(self.graph.reversed, price, self.targets)

    def least_us(self, source: Ints, target: Ints) -> Floats:
        """The least delay of each pair; inf where there is no way."""
        return self.delay.distance[self.delay.row[target], source]

    def cheapest(self, price: Floats, to: Trees, source: int, target: int, most_us: float, limit: float) -> Found:
        """The cheapest path of at most ``most_us`` that costs less than ``limit``. ``to``: `priced` of ``price``."""
        row = int(self.delay.row[target])
        cost_left, us_left = to.distance[row], self.delay.distance[row]
        most_us = most_us * (1 + 1e-12) + FAINT * self.graph.node_count  # arcs of no delay weigh a trifle in the trees
        if source == target or not us_left[source] <= most_us:
            return Found((), np.inf)
        heads, delay = self.graph.head, self.graph.delay_us
        # A label: cost to the target at least, cost so far, delay so far, node, its number; the path is in `came`.
        came: list[tuple[int, int]] = [(-1, -1)]
        heap = [(float(cost_left[source]), 0.0, 0.0, source, 0)]
        beaten: dict[int, list[tuple[float, float]]] = {}
        for _ in range(MOST_LABELS):
            if not heap:
                return Found((), limit)
            least, cost, us, node, number = heapq.heappop(heap)
            if least >= limit:
                return Found((), limit)
            if node == target:
                return Found(_way(came, number), least)
            front = beaten.setdefault(node, [])
            if any(c <= cost and u <= us for c, u in front):
                continue
            front.append((cost, us))
            for arc in self.after[node]:
                head = int(heads[arc])
                later = us + float(delay[arc])
                more = cost + float(price[arc])
                if later + us_left[head] <= most_us:
                    came.append((number, arc))
                    heapq.heappush(heap, (more + float(cost_left[head]), more, later, head, len(came) - 1))
        return Found((), heap[0][0] if heap else limit)


def _way(came: list[tuple[int, int]], number: int) -> tuple[int, ...]:
    arcs = []
    while number:
        number, arc = came[number]
        arcs.append(arc)
    return tuple(reversed(arcs))
