"""Refill: the first answer to a cut, in milliseconds; the optimal one follows in the background (`traffic.routed`).

What survives stays as it is, so nobody else's traffic moves. What was lost is routed anew into what is left: first over
the paths that its demand has already, then over the shortest paths of the residual network, the largest losses first, in
turns. An arc's weight grows as it fills, so that a turn spreads what the one before crowded.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tieline.network.columns import Columns
from tieline.network.graph import Floats, Graph, trees_of
from tieline.network.master import Solved
from tieline.network.traffic import Flows

TURNS: Final = 4
LEAST: Final = 1e-3  # of the largest capacity: an arc with less left is full
MOST_LACKING: Final = 20_000  # demands that are looked at, the largest losses first


def refilled(flows: Flows, graph: Graph, *, turns: int = TURNS) -> Flows:
    """The same demands over ``graph``, which has the same arcs with other capacities. The bound is not proven anew."""
    columns = flows.columns.over(graph)
    rate = _survivors(flows, graph, columns)
    lost = np.bincount(flows.columns.demand, flows.rate_bps - rate, flows.traffic.count)
    left = graph.capacity_bps - columns.by_arc() @ rate
    lost = _fill(columns, rate, left, lost, np.arange(len(columns)))
    floor = LEAST * float(graph.capacity_bps.max(initial=0.0))
    for _ in range(turns if floor > 0 else 0):
        lacking = np.flatnonzero(lost > floor * LEAST)
        if not len(lacking):
            break
        lacking = lacking[np.argsort(-lost[lacking], kind="stable")][:MOST_LACKING].astype(np.int32)
        free = graph.holding(np.where(left > floor, left, 0.0))
        weight = (graph.delay_us + 1.0) * graph.capacity_bps.max() / np.maximum(left, floor)
        source, target = flows.traffic.source[lacking], flows.traffic.target[lacking]
        trees = trees_of(free, weight, np.unique(source))
        before = len(columns)
        if not columns.add(lacking, source, target, trees):
            break
        rate = np.concatenate([rate, np.zeros(len(columns) - before)])
        lost = _fill(columns, rate, left, lost, np.arange(before, len(columns)))
    prices = Solved(rate, flows.solved.arc_price, flows.solved.demand_price)
    return Flows(graph, flows.traffic, columns, rate, prices, flows.bound, 0)


def _survivors(flows: Flows, graph: Graph, columns: Columns) -> Floats:
    """Rates of the paths whose every arc still holds what it carried; a shrunk arc takes from all alike."""
    load = flows.load_bps()
    share = np.minimum(1.0, graph.capacity_bps / np.maximum(load, 1e-12))
    if not len(columns):
        return flows.rate_bps.copy()
    rate: Floats = flows.rate_bps * np.minimum.reduceat(share[columns.arcs], columns.start[:-1])
    return rate


def _fill(columns: Columns, rate: Floats, left: Floats, lost: Floats, paths: np.ndarray) -> Floats:  # type: ignore[type-arg]
    """Give what is left to these paths, the largest losses first; changes ``rate`` and ``left``."""
    lost = lost.copy()
    usable = paths[lost[columns.demand[paths]] > 0]
    if not len(usable):
        return lost
    spare = np.minimum.reduceat(left[columns.arcs], columns.start[:-1])[usable]
    usable = usable[spare > 0]
    for path in usable[np.argsort(-lost[columns.demand[usable]], kind="stable")].tolist():
        demand = columns.demand[path]
        if lost[demand] <= 0:
            continue
        arcs = columns.arcs[columns.start[path] : columns.start[path + 1]]
        more = min(float(left[arcs].min()), float(lost[demand]))
        if more > 0:
            rate[path] += more
            left[arcs] -= more
            lost[demand] -= more
    return lost
