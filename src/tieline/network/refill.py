"""Refill: the first answer to a cut, in milliseconds; the optimal one follows in the background (`traffic.routed`).

What survives stays as it is, so nobody else's traffic moves. What was lost is routed anew into what is left: first over
the paths that its demand has already, then over the shortest paths of the residual network, the largest losses first,
in turns. An arc's weight grows as it fills, so that a turn spreads what the one before crowded. What is left then, such
as the far ends of paths that lost their middle, goes to whoever lacks something. On small crowded networks that is not
enough, because somebody has to move: `shift.shifted` is the second answer, some tens of milliseconds later.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tieline.network.columns import Columns
from tieline.network.graph import Floats, Graph, Ints, counted, trees_of
from tieline.network.master import Solved
from tieline.network.traffic import Flows, Traffic

TURNS: Final = 4
GIVEN: Final = 3  # turns in which what is left over is given away
LEAST: Final = 1e-3  # of the largest capacity: an arc with less left is full
CHUNK: Final = 512  # paths that are tried one by one before the rest is looked at again, and more each time
MOST_LACKING: Final = 20_000  # demands that are looked at, the largest losses first


def refilled(flows: Flows, graph: Graph, *, turns: int = TURNS, ranks: Ints | None = None) -> Flows:
    """The same demands over ``graph``, which has the same arcs with other capacities. The bound is not proven anew.

    ``ranks``: of each demand, the lower goes first. What does not fit beside the lower ranks takes from the higher
    ones.
    """
    order = np.zeros(flows.traffic.count, dtype=np.int32) if ranks is None else ranks
    columns = flows.columns.over(graph)
    rate = _survivors(flows, graph, columns, order)
    had = flows.carried_bps()
    for rank in np.unique(order).tolist():
        columns, rate = _regained(graph, flows.traffic, columns, rate, np.where(order == rank, had, 0.0), turns)
        after = order > rank
        lacks = np.where(order == rank, had - _carried(flows.traffic, columns, rate), 0.0)
        if np.any(after) and np.any(lacks > LEAST * had.max(initial=0.0)):
            # As if those after were not there; then they shrink to what is left to them.
            mine = ~after[columns.demand]
            alone = np.where(mine, rate, 0.0)
            columns, alone = _regained(graph, flows.traffic, columns, alone, np.where(order == rank, had, 0.0), turns)
            others = np.concatenate([np.where(mine, 0.0, rate), np.zeros(len(columns) - len(rate))])
            rate = alone + _shrunk(columns, others, graph.capacity_bps - columns.by_arc() @ alone)
    columns, rate = given_away(graph, flows.traffic, columns, rate, order)
    prices = Solved(rate, flows.solved.arc_price, flows.solved.demand_price)
    return Flows(graph, flows.traffic, columns, rate, prices, flows.bound, 0)


def given_away(graph: Graph, traffic: Traffic, columns: Columns, rate: Floats, order: Ints) -> tuple[Columns, Floats]:
    """What the cut left behind, such as the far ends of paths that lost their middle, to whoever still lacks something;
    by rank, the shortest paths first, since they take least of it."""
    rate = rate.copy()
    left = np.maximum(graph.capacity_bps - load_of(columns, rate), 0.0)
    lacks = np.maximum(traffic.asked_bps - _carried(traffic, columns, rate), 0.0)
    floor = LEAST * float(graph.capacity_bps.max(initial=0.0))
    known = 0
    for _ in range(GIVEN):
        short = np.flatnonzero(lacks > floor * LEAST).astype(np.int32)
        free = graph.holding(np.where(left > floor, left, 0.0))
        if not len(short) or not free.is_up.any():
            break
        # New ways come before anybody takes: a class that comes first may have none yet.
        _add(columns, free, graph.delay_us + 1.0, traffic, short)
        if len(columns) == known:
            break
        rate = np.concatenate([rate, np.zeros(len(columns) - len(rate))])
        fresh = known + np.flatnonzero(lacks[columns.demand[known:]] > floor * LEAST)
        usable = fresh[columns.is_clear(left > floor, fresh)]
        hops = columns.start[usable + 1] - columns.start[usable]
        inline = usable[np.lexsort((usable, hops, order[columns.demand[usable]]))][:MOST_LACKING]
        lacks = taken(columns, rate, left, lacks, inline)
        known = len(columns)
    return columns, rate


def _regained(
    graph: Graph, traffic: Traffic, columns: Columns, rate: Floats, had: Floats, turns: int
) -> tuple[Columns, Floats]:
    """Bring these demands towards what they had, in what is free; nobody loses anything."""
    rate = rate.copy()
    lost = np.maximum(had - _carried(traffic, columns, rate), 0.0)
    left = np.maximum(graph.capacity_bps - load_of(columns, rate), 0.0)
    lost = _fill(columns, rate, left, lost, np.arange(len(columns)))
    floor = LEAST * min(float(graph.capacity_bps.max(initial=0.0)), float(had.max(initial=0.0)))
    for _ in range(turns if floor > 0 else 0):
        short = np.flatnonzero(lost > floor * LEAST)
        if not len(short):
            break
        lacking = short[np.argsort(-lost[short], kind="stable")][:MOST_LACKING].astype(np.int32)
        free = graph.holding(np.where(left > floor, left, 0.0))
        weight: Floats = (graph.delay_us + 1.0) * graph.capacity_bps.max() / np.maximum(left, floor)
        before = len(columns)
        _add(columns, free, weight, traffic, lacking)
        if len(columns) == before:
            break
        rate = np.concatenate([rate, np.zeros(len(columns) - before)])
        lost = _fill(columns, rate, left, lost, np.arange(before, len(columns)))
    return columns, rate


def _add(columns: Columns, free: Graph, weight: Floats, traffic: Traffic, lacking: Ints) -> None:
    """The widest short way of each; and the quickest one too of those that have a latency bound."""
    bounded = None if traffic.most_us is None else lacking[np.isfinite(traffic.most_us[lacking])]
    for these, by in ((lacking, weight), (bounded, free.delay_us)):
        if these is not None and len(these):
            source, target = traffic.source[these], traffic.target[these]
            most_us = None if traffic.most_us is None else traffic.most_us[these]
            columns.add(these, source, target, trees_of(free, by, np.unique(source)), most_us)


def _carried(traffic: Traffic, columns: Columns, rate: Floats) -> Floats:
    return counted(columns.demand, rate, traffic.count)


def load_of(columns: Columns, rate: Floats) -> Floats:
    """What each arc carries; most paths carry nothing, and are not looked at."""
    live = np.flatnonzero(rate > 0)
    start, arcs = columns.some(live)
    return counted(arcs, np.repeat(rate[live], np.diff(start)), columns.graph.arc_count)


def _survivors(flows: Flows, graph: Graph, columns: Columns, order: Ints) -> Floats:
    """Rates of the paths whose every arc still holds what it carried; a shrunk arc takes from the last rank first."""
    rate = np.zeros(len(columns))
    for rank in np.unique(order).tolist():
        mine = np.where(order[columns.demand] == rank, flows.rate_bps, 0.0)
        rate += _shrunk(columns, mine, graph.capacity_bps - load_of(columns, rate))
    return rate


def _shrunk(columns: Columns, rate: Floats, room: Floats) -> Floats:
    """The same rates, each path by the worst share that its arcs can hold."""
    share = np.minimum(1.0, np.maximum(room, 0.0) / np.maximum(load_of(columns, rate), 1e-12))
    live = np.flatnonzero(rate > 0)
    shrunk = np.zeros(len(rate))
    shrunk[live] = rate[live] * columns.least(share, live)
    return shrunk


def _fill(columns: Columns, rate: Floats, left: Floats, lost: Floats, paths: NDArray[np.int64]) -> Floats:
    """Give what is left to these paths, the largest losses first; changes ``rate`` and ``left``."""
    usable = paths[lost[columns.demand[paths]] > 0]
    usable = usable[columns.is_clear(left > 0, usable)]
    return taken(columns, rate, left, lost, usable[np.argsort(-lost[columns.demand[usable]], kind="stable")])


def taken(
    columns: Columns,
    rate: Floats,
    left: Floats,
    lost: Floats,
    inline: NDArray[np.int64],
    shares: tuple[NDArray[np.int64], Floats] | None = None,
) -> Floats:
    """Give what is left to these paths in their order; changes ``rate`` and ``left``, answers with what is lost yet.

    ``shares``: of which share each path is, and what each share may have in all.
    """
    room, lacks = left.tolist(), lost.tolist()  # one number at a time is quicker outside arrays
    of, most = (np.zeros(len(inline), dtype=np.int64), [np.inf]) if shares is None else (shares[0], shares[1].tolist())
    chunk = CHUNK
    while len(inline):
        now, inline, share_of, of = inline[:chunk], inline[chunk:], of[:chunk].tolist(), of[chunk:]
        start, arcs = columns.some(now)
        ends, uses = start.tolist(), arcs.tolist()
        given = [0.0] * len(now)
        for place, (demand, share) in enumerate(zip(columns.demand[now].tolist(), share_of, strict=True)):
            least = min(lacks[demand], most[share])
            if least <= 0:
                continue
            way = uses[ends[place] : ends[place + 1]]
            more = min(least, min(map(room.__getitem__, way)))
            if more > 0:
                given[place] = more
                lacks[demand] -= more
                most[share] -= more
                for arc in way:
                    room[arc] -= more
        rate[now] += given
        chunk *= 2
        if len(inline):  # most of them have become useless meanwhile
            lacking = (np.array(lacks)[columns.demand[inline]] > 0) & (np.array(most)[of] > 0)
            useful = np.flatnonzero(lacking)
            useful = useful[columns.is_clear(np.array(room) > 0, inline[useful])]
            inline, of = inline[useful], of[useful]
    left[:] = room
    return np.array(lacks, dtype=np.float64)
