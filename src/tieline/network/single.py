"""Single paths: demands that may not be split, each over one path whole or not at all.

The split answer (`traffic.routed`) gives the paths to choose from and the bound that no choice can beat. The choice is
a binary programme over those paths (HiGHS, ended after a number of nodes, not after a time, so that it is the same
everywhere); a greedy choice, the largest worth first over its least crowded path, is what it is held to and what stands
where the programme is too large. The gap is to the bound over all paths, split or not.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tieline.network.columns import Columns
from tieline.network.graph import Floats, Graph, Ints, trees_of
from tieline.network.traffic import Traffic, routed

MOST_PATHS: Final = 6_000  # up to which the binary programme is tried
MOST_NODES: Final = 500  # of its search
MOST_WIDENED: Final = 1_000  # demands for which a path of their own is looked for
MORE_TREES: Final = 4  # paths that the split answer has no use for


class Pinned(NamedTuple):
    """One path for each demand that is carried."""

    traffic: Traffic
    columns: Columns
    path: Ints  # of each demand: its column; -1: not carried
    bound: float  # no choice whatever is worth more

    @property
    def worth(self) -> float:
        """Value that is carried."""
        taken = self.path >= 0
        return float(self.traffic.asked_bps[taken] @ self.traffic.value[taken])

    @property
    def gap(self) -> float:
        """How far below the bound this may be, relative to it; 0: proven optimal."""
        return max(0.0, 1.0 - self.worth / self.bound) if self.bound > 0 else 0.0

    def carried_bps(self) -> Floats:
        """What each demand gets."""
        return np.where(self.path >= 0, self.traffic.asked_bps, 0.0)

    def load_bps(self) -> Floats:
        """What each arc carries."""
        load = np.zeros(self.columns.graph.arc_count)
        for demand in np.flatnonzero(self.path >= 0).tolist():
            load[self.columns.path(int(self.path[demand]))] += self.traffic.asked_bps[demand]
        return load


def pinned(graph: Graph, traffic: Traffic) -> Pinned:
    """A path for each demand, of most value in all; latency bounds kept, floors not looked at."""
    traffic = traffic._replace(floor_bps=None)
    flows = routed(graph, traffic)
    columns = flows.columns
    _diversify(graph, traffic, columns)
    useful = _useful(graph, traffic, columns)
    if _widen(graph, traffic, columns, useful):
        useful = _useful(graph, traffic, columns)
    path = _greedy(graph, traffic, columns, useful, np.r_[flows.rate_bps, np.zeros(len(columns) - len(flows.rate_bps))])
    if 0 < len(useful) <= MOST_PATHS:
        exact = _exact(graph, traffic, columns, useful)
        if exact is not None and _worth(traffic, exact) > _worth(traffic, path):
            path = exact
    return Pinned(traffic, columns, path, min(flows.bound, float(traffic.asked_bps @ traffic.value)))


def _worth(traffic: Traffic, path: Ints) -> float:
    return float((traffic.asked_bps * traffic.value)[path >= 0].sum())


def _diversify(graph: Graph, traffic: Traffic, columns: Columns) -> None:
    """Paths over the widest arcs too: whole demands need room that split ones do not."""
    every = np.arange(traffic.count, dtype=np.int32)
    for power in range(1, MORE_TREES + 1):
        weight = (1.0 + graph.delay_us) / np.maximum(graph.capacity_bps, 1e-9) ** (power / MORE_TREES)
        trees = trees_of(graph, weight, np.unique(traffic.source))
        columns.add(every, traffic.source, traffic.target, trees, traffic.most_us)


def _widen(graph: Graph, traffic: Traffic, columns: Columns, useful: Ints) -> int:
    """For demands that no path can hold whole: the quickest over arcs that can; returns how many paths are new."""
    lacking = np.setdiff1d(np.flatnonzero(traffic.asked_bps > 0), columns.demand[useful])[:MOST_WIDENED]
    new = 0
    for demand in lacking.tolist():
        one = np.array([demand], dtype=np.int32)
        weight = np.where(graph.capacity_bps >= traffic.asked_bps[demand], 1.0 + graph.delay_us, np.inf)
        trees = trees_of(graph, weight, traffic.source[one])
        bound = None if traffic.most_us is None else traffic.most_us[one]
        new += columns.add(one, traffic.source[one], traffic.target[one], trees, bound)
    return new


def _useful(graph: Graph, traffic: Traffic, columns: Columns) -> Ints:
    """Paths that can hold their demand whole; asked for nothing is not carried."""
    if not len(columns):
        return np.zeros(0, dtype=np.int32)
    room = np.minimum.reduceat(graph.capacity_bps[columns.arcs], columns.start[:-1])
    asked = traffic.asked_bps[columns.demand]
    return np.flatnonzero((room >= asked) & (asked > 0)).astype(np.int32)


def _greedy(graph: Graph, traffic: Traffic, columns: Columns, useful: Ints, rate: Floats) -> Ints:
    of: dict[int, list[int]] = {}
    for number in useful.tolist():
        of.setdefault(int(columns.demand[number]), []).append(number)
    left = graph.capacity_bps.copy()
    path = np.full(traffic.count, -1, dtype=np.int32)
    for demand in np.argsort(-traffic.asked_bps * traffic.value, kind="stable").tolist():
        asked = traffic.asked_bps[demand]
        fits = [number for number in of.get(demand, ()) if left[columns.path(number)].min() >= asked]
        if fits:  # the path that the split answer likes best, then the one that stays the widest
            best = max(fits, key=lambda number: (rate[number], left[columns.path(number)].min()))
            path[demand] = best
            left[columns.path(best)] -= asked
    return path


def _exact(graph: Graph, traffic: Traffic, columns: Columns, useful: Ints) -> Ints | None:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import vstack

    asked = traffic.asked_bps[columns.demand[useful]]
    scale = float(np.median(asked))
    by_arc = columns.by_arc()[:, useful].multiply(asked / scale)
    by_demand = columns.by_demand(traffic.count)[:, useful]
    most = np.r_[graph.capacity_bps / scale, np.ones(traffic.count)]
    answer = milp(
        -asked * traffic.value[columns.demand[useful]] / scale,
        integrality=np.ones(len(useful)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(vstack([by_arc, by_demand]).tocsc(), ub=most),
        options={"node_limit": MOST_NODES, "mip_rel_gap": 1e-4},
    )
    if answer.x is None:
        return None
    path = np.full(traffic.count, -1, dtype=np.int32)
    left = graph.capacity_bps.copy()
    for number in useful[answer.x > 0.5].tolist():
        demand, arcs = int(columns.demand[number]), columns.path(number)
        if path[demand] < 0 and left[arcs].min() >= traffic.asked_bps[demand]:  # the solver's tolerance is not ours
            path[demand] = number
            left[arcs] -= traffic.asked_bps[demand]
    return path
