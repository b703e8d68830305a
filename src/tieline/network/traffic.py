"""Traffic engineering: which paths carry how much of every demand, at most value in all, over *all* paths of the network.

Column generation (Ford and Fulkerson 1958; Barnhart et al., Operations Research 46, 1998): solve over the paths known so
far, price every arc by what more of it would be worth, and look for a path of each demand that is worth more than it
costs; one shortest-path tree a source finds them all. Where there is none left, the answer is the optimum over all paths.

Every round gives a proven bound too, whatever the solver's precision. For any prices ``p >= 0`` of the arcs

    bound = sum of p x capacity + sum over demands of asked x max(0, value - cheapest path by p)

is at least the optimum (weak duality), so `Flows.gap` is a fact and not a hope.

Bounded by ``rounds``. Memory: about 60 bytes for each arc of each path.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tieline.network.columns import Columns
from tieline.network.graph import Floats, Graph, Ints, Trees, trees_of
from tieline.network.master import Programme, Solved, repaired, solved

ROUNDS: Final = 12
ENOUGH: Final = 0.002  # relative gap at which the search ends
FIRST_TREES: Final = 3  # by delay, then by delays that are scattered, so that paths differ
COARSE: Final = (1e-2, 3e-3)  # precisions of the first rounds; the paths matter there, not the rates
FINE: Final = 1e-3
SLACK: Final = 1e-3  # a path is new if it is worth so much more than it costs, relative to its demand's value


class Traffic(NamedTuple):
    """Who asks for how much. ``value``: of a bit/s carried, above 0; whole numbers of a class differ little."""

    source: Ints
    target: Ints
    asked_bps: Floats
    value: Floats

    @property
    def count(self) -> int:
        """How many demands there are."""
        return len(self.source)


class Flows(NamedTuple):
    """Rates of paths, never above a capacity or a demand, and what is proven about them."""

    graph: Graph
    traffic: Traffic
    columns: Columns
    rate_bps: Floats  # of each path
    solved: Solved  # to start from next time; may violate bounds a little
    bound: float  # no routing whatever is worth more
    rounds: int

    @property
    def worth(self) -> float:
        """Value that is carried."""
        return float(self.rate_bps @ self.traffic.value[self.columns.demand])

    @property
    def gap(self) -> float:
        """How far below the bound this may be, relative to it; 0: proven optimal."""
        return max(0.0, 1.0 - self.worth / self.bound) if self.bound > 0 else 0.0

    def carried_bps(self) -> Floats:
        """What each demand gets."""
        return np.bincount(self.columns.demand, self.rate_bps, self.traffic.count)

    def load_bps(self) -> Floats:
        """What each arc carries."""
        return np.asarray(self.columns.by_arc() @ self.rate_bps)


def routed(
    graph: Graph, traffic: Traffic, *, start: Flows | None = None, rounds: int = ROUNDS, enough: float = ENOUGH
) -> Flows:
    """Paths and rates of most value. ``start``: an answer for the same nodes, arcs and demands, at other rates or
    capacities; its paths and prices are where the search begins."""
    sources = np.unique(traffic.source)
    columns = Columns(graph) if start is None else start.columns.over(graph)
    at = None if start is None else start.solved
    if start is None:
        _seed(graph, traffic, columns, sources)
    best, bound = np.zeros(0), np.inf
    done = 0
    for turn in range(max(1, rounds)):
        done = turn + 1
        programme = _programme(graph, traffic, columns)
        is_first = start is None and turn < len(COARSE)
        at = solved(programme, COARSE[turn] if is_first else FINE, at)
        rate = topped_up(columns, programme, repaired(programme, at.rate))
        if rate @ programme.value >= best @ programme.value[: len(best)]:
            best = rate
        trees = trees_of(graph, at.arc_price, sources)
        bound = min(bound, _bound(graph, traffic, at.arc_price, trees))
        best = np.concatenate([best, np.zeros(len(columns) - len(best))])
        if best @ programme.value >= (1.0 - enough) * bound:
            break
        if not _price(traffic, columns, at, trees) and turn >= len(COARSE):
            break
    best = np.concatenate([best, np.zeros(len(columns) - len(best))])
    return Flows(graph, traffic, columns, best, at or Solved(best, best[:0], best[:0]), bound, done)


def topped_up(columns: Columns, programme: Programme, rate: Floats) -> Floats:
    """What repair left free, given to the paths in their order where their demand still asks for more."""
    rate = rate.copy()
    left = programme.capacity - programme.by_arc @ rate
    lacks = programme.asked - programme.by_demand @ rate
    floor = 1e-9 * float(programme.asked.max(initial=0.0))
    for path in np.flatnonzero(lacks[columns.demand] > floor).tolist():
        demand = columns.demand[path]
        arcs = columns.arcs[columns.start[path] : columns.start[path + 1]]
        more = min(left[arcs].min(), lacks[demand])
        if more > floor:
            rate[path] += more
            left[arcs] -= more
            lacks[demand] -= more
    return rate


def _programme(graph: Graph, traffic: Traffic, columns: Columns) -> Programme:
    by_arc, by_demand = columns.by_arc(), columns.by_demand(traffic.count)
    return Programme(by_arc, by_demand, graph.capacity_bps, traffic.asked_bps, traffic.value[columns.demand])


def _seed(graph: Graph, traffic: Traffic, columns: Columns, sources: Ints) -> None:
    """Paths that differ: by delay, and by delays that are stretched by up to three."""
    every = np.arange(traffic.count, dtype=np.int32)
    for turn in range(FIRST_TREES):
        weight = graph.delay_us * (1.0 + 2.0 * spread(graph.arc_count, turn) * (turn > 0))
        columns.add(every, traffic.source, traffic.target, trees_of(graph, weight, sources))


def spread(count: int, turn: int) -> Floats:
    """Numbers from 0 to 1 that differ by place and turn, the same every time (Weyl's sequence)."""
    return np.asarray(np.modf(np.arange(1, count + 1) * (0.6180339887498949 + 0.1180339887 * turn) * (turn + 1))[0])


def _bound(graph: Graph, traffic: Traffic, price: Floats, trees: Trees) -> float:
    gain = traffic.value - trees.distance[trees.row[traffic.source], traffic.target]
    return float(price @ graph.capacity_bps + traffic.asked_bps @ np.maximum(gain, 0.0))


def _price(traffic: Traffic, columns: Columns, at: Solved, trees: Trees) -> int:
    """Add the cheapest path of every demand for which it is worth it."""
    cost = trees.distance[trees.row[traffic.source], traffic.target]
    wanted = np.flatnonzero(cost + at.demand_price < (1.0 - SLACK) * traffic.value).astype(np.int32)
    return columns.add(wanted, traffic.source[wanted], traffic.target[wanted], trees)
