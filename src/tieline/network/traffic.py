"""Traffic engineering: which paths carry how much of every demand, at most value in all, over *all* paths of the
network.

Column generation (Ford and Fulkerson 1958; Barnhart et al., Operations Research 46, 1998): solve over the paths known
so far, price every arc by what more of it would be worth, and look for a path of each demand that is worth more than it
costs; one shortest-path tree a source finds them all. Where there is none left, the answer is the optimum over all
paths.

Every round gives a proven bound too, whatever the solver's precision. For any prices ``p >= 0`` of the arcs, with
``gain = value - cheapest path by p``,

    bound = sum of p x capacity + sum over demands of (asked where gain > 0, else floor) x gain

is at least the optimum (weak duality), so `Flows.gap` is a fact and not a hope. Demands with a latency bound are
priced over the paths that keep it (`bounded`); floors are kept because a routing that keeps them is where the search
begins.

Bounded by ``rounds``. Memory: about 60 bytes for each arc of each path.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tieline.network.bounded import Guide
from tieline.network.columns import Columns
from tieline.network.graph import FAINT, Floats, Graph, Ints, Trees, counted, trees_of
from tieline.network.master import LEEWAY, Programme, Solved, is_exact, repaired, solved

ROUNDS: Final = 12
ENOUGH: Final = 0.002  # relative gap at which the search ends
FIRST_TREES: Final = 3  # by delay, then by delays that are scattered, so that paths differ
COARSE: Final = (1e-2, 3e-3)  # precisions of the first rounds; the paths matter there, not the rates
FINE: Final = 1e-3
FINEST: Final = 1e-4  # where no path is missing and the gap is not small enough, the rates are made finer down to this
SLACK: Final = 1e-3  # a path is new if it is worth so much more than it costs, relative to the largest value


class Traffic(NamedTuple):
    """Who asks for how much. ``value``: of a bit/s carried, at least 0; whole numbers of a class differ little."""

    source: Ints
    target: Ints
    asked_bps: Floats
    value: Floats
    floor_bps: Floats | None = None  # what each keeps at least; `routed` wants a start that keeps them
    most_us: Floats | None = None  # one way, of each; inf: as long as it takes

    @property
    def count(self) -> int:  # type: ignore[override]
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
        return float((self.rate_bps * self.traffic.value[self.columns.demand]).sum())

    @property
    def gap(self) -> float:
        """How far below the bound this may be, relative to it; 0: proven optimal."""
        return max(0.0, 1.0 - self.worth / self.bound) if self.bound > 0 else 0.0

    def carried_bps(self) -> Floats:
        """What each demand gets."""
        return counted(self.columns.demand, self.rate_bps, self.traffic.count)

    def load_bps(self) -> Floats:
        """What each arc carries."""
        return np.asarray(self.columns.by_arc() @ self.rate_bps)


def routed(
    graph: Graph,
    traffic: Traffic,
    *,
    start: Flows | None = None,
    rounds: int = ROUNDS,
    enough: float = ENOUGH,
    slack: float = SLACK,
) -> Flows:
    """Paths and rates of most value. ``start``: an answer for the same nodes, arcs and demands (or the first of them),
    at other rates or capacities; its paths and prices are where the search begins. ``slack``: how much more than its
    cost a path must be worth to be new, relative to the largest value."""
    sources = np.unique(traffic.source)
    tight = _tight(graph, traffic)
    columns = Columns(graph) if start is None else start.columns.over(graph)
    known = start.traffic.count if start is not None else 0
    if known < traffic.count:
        _seed(graph, traffic, columns, sources, known)
    base = np.zeros(0) if start is None else start.rate_bps
    at = None if start is None else _widened(start.solved, traffic.count)
    guide = _guide(graph, traffic)
    best, bound = _first(columns, _programme(tight, columns), base), np.inf
    done, precision = 0, FINE
    for turn in range(max(1, rounds)):
        done = turn + 1
        programme = _programme(tight, columns)
        is_first = start is None and turn < len(COARSE)
        at = solved(programme, COARSE[turn] if is_first else precision, at)
        best = _better(columns, programme, at.rate, _grown(best, columns))
        costs = _costs(graph, traffic, at, sources, guide)
        bound = min(bound, _bound(tight, at.arc_price, costs.least))
        fresh = _price(traffic, columns, at, costs, slack)
        if best @ programme.value >= (1.0 - enough) * bound:
            break
        if not fresh and turn >= len(COARSE):
            if start is None or is_exact(programme) or precision <= FINEST:
                break  # from nothing, a plan in time is worth more than the last thousandth
            precision = max(FINEST, precision / 3.0)
    assert at is not None
    return Flows(graph, traffic, columns, _grown(best, columns), at, max(bound, 0.0), done)


def topped_up(columns: Columns, programme: Programme, rate: Floats) -> Floats:
    """What repair left free, given to the paths in their order where their demand still asks for more."""
    rate = rate.copy()
    left = programme.capacity - programme.by_arc @ rate
    lacks = programme.asked - programme.by_demand @ rate
    floor = 1e-9 * float(programme.asked.max(initial=0.0))
    for path in np.flatnonzero(lacks[columns.demand] > floor).tolist():
        demand = columns.demand[path]
        arcs = columns.path(path)
        more = min(left[arcs].min(), lacks[demand])
        if more > floor:
            rate[path] += more
            left[arcs] -= more
            lacks[demand] -= more
    return rate


class _Tight(NamedTuple):
    """The same question in numbers that are not larger than can matter, so that absurd ones do no harm."""

    traffic: Traffic
    capacity: Floats
    asked: Floats


def _tight(graph: Graph, traffic: Traffic) -> _Tight:
    out = np.bincount(graph.tail, graph.capacity_bps, graph.node_count)
    into = np.bincount(graph.head, graph.capacity_bps, graph.node_count)
    asked = np.minimum(traffic.asked_bps, np.minimum(out[traffic.source], into[traffic.target]))
    asked = np.where(traffic.source == traffic.target, 0.0, asked)
    return _Tight(traffic, np.minimum(graph.capacity_bps, asked.sum()), asked)


def _programme(tight: _Tight, columns: Columns) -> Programme:
    by_arc, by_demand = columns.by_arc(), columns.by_demand(tight.traffic.count)
    value = tight.traffic.value[columns.demand]
    return Programme(by_arc, by_demand, tight.capacity, tight.asked, value, tight.traffic.floor_bps)


def _widened(start: Solved, demands: int) -> Solved:
    more = np.zeros(demands - len(start.demand_price))
    return start._replace(demand_price=np.concatenate([start.demand_price, more]))


def _grown(rate: Floats, columns: Columns) -> Floats:
    return np.concatenate([rate, np.zeros(len(columns) - len(rate))])


def _first(columns: Columns, programme: Programme, base: Floats) -> Floats:
    """What is safe from the beginning: the start's rates where they fit, filled up."""
    rate = topped_up(columns, programme, repaired(programme, _grown(base, columns)))
    assert _is_held(programme, rate), "floors without a start that keeps them"
    return rate


def _better(columns: Columns, programme: Programme, rate: Floats, best: Floats) -> Floats:
    """The best of what is known and what the solver says, made to fit and to keep the floors."""
    whole = repaired(programme, rate)
    if programme.floor is not None:
        whole = topped_up(columns, programme._replace(asked=programme.floor), whole)
    whole = topped_up(columns, programme, whole)
    if _is_held(programme, whole):
        return whole if whole @ programme.value >= best @ programme.value else best
    # The solver's small violations cost a floor: the floors' part goes first, its own or that of what is known, and the
    # rest where it fits.
    for kept in (_floors(columns, programme, rate), _floors(columns, programme, best)):
        if _is_held(programme, kept):
            rest = programme._replace(
                capacity=np.maximum(programme.capacity - programme.by_arc @ kept, 0.0),
                asked=np.maximum(programme.asked - programme.by_demand @ kept, 0.0),
            )
            whole = kept + topped_up(columns, rest, repaired(rest, np.maximum(rate - kept, 0.0)))
            if whole @ programme.value > best @ programme.value:
                best = whole
    return best


def _floors(columns: Columns, programme: Programme, rate: Floats) -> Floats:
    """As much of each demand as its floor asks, as if nobody wanted more."""
    floor = np.zeros(len(programme.asked)) if programme.floor is None else programme.floor
    alone = programme._replace(asked=floor)
    raised = rate * (programme.by_demand.T @ (floor / np.maximum(programme.by_demand @ rate, 1e-12)))
    return topped_up(columns, alone, repaired(alone, raised))


def _is_held(programme: Programme, rate: Floats) -> bool:
    if programme.floor is None:
        return True
    return bool(np.all(programme.by_demand @ rate >= programme.floor * (1.0 - LEEWAY) - 1e-9))


def _seed(graph: Graph, traffic: Traffic, columns: Columns, sources: Ints, known: int) -> None:
    """Paths that differ: by delay, and by delays that are stretched by up to three. For the demands from ``known``
    on."""
    new = np.arange(known, traffic.count, dtype=np.int32)
    most_us = None if traffic.most_us is None else traffic.most_us[new]
    for turn in range(FIRST_TREES):
        weight = graph.delay_us * (1.0 + 2.0 * spread(graph.arc_count, turn) * (turn > 0))
        columns.add(new, traffic.source[new], traffic.target[new], trees_of(graph, weight, sources), most_us)


def spread(count: int, turn: int) -> Floats:
    """Numbers from 0 to 1 that differ by place and turn, the same every time (Weyl's sequence)."""
    return np.asarray(np.modf(np.arange(1, count + 1) * (0.6180339887498949 + 0.1180339887 * turn) * (turn + 1))[0])


class _Costs(NamedTuple):
    """Of each demand, what its cheapest path costs at least; the trees of them, and paths of those that they do not
    suit."""

    least: Floats
    trees: Trees
    by_tree: Ints  # demands whose cheapest path is the tree's
    others: tuple[tuple[int, float, tuple[int, ...]], ...]  # demand, cost, arcs


def _guide(graph: Graph, traffic: Traffic) -> Guide | None:
    if traffic.most_us is None or not np.any(np.isfinite(traffic.most_us)):
        return None
    return Guide(graph, traffic.target[np.isfinite(traffic.most_us)])


def _costs(graph: Graph, traffic: Traffic, at: Solved, sources: Ints, guide: Guide | None) -> _Costs:
    trees = trees_of(graph, at.arc_price, sources)
    least = trees.distance[trees.row[traffic.source], traffic.target]
    every = np.arange(traffic.count, dtype=np.int32)
    if guide is None or traffic.most_us is None:
        return _Costs(least, trees, every, ())
    who, arcs = graph.walked(trees, traffic.source, traffic.target)
    late = np.bincount(who, graph.delay_us[arcs], traffic.count) > traffic.most_us
    to = guide.priced(at.arc_price)
    others = []
    for demand in np.flatnonzero(late).tolist():
        worth = float(max(traffic.value[demand], traffic.value[demand] - at.demand_price[demand]))
        source, target = int(traffic.source[demand]), int(traffic.target[demand])
        found = guide.cheapest(at.arc_price, to, source, target, float(traffic.most_us[demand]), worth)
        least[demand] = found.least
        if found.arcs:
            others.append((demand, found.least, found.arcs))
    return _Costs(least, trees, every[~late], tuple(others))


def _bound(tight: _Tight, price: Floats, least: Floats) -> float:
    traffic = tight.traffic
    reached = np.isfinite(least) & (traffic.source != traffic.target)
    # Arcs of no price weigh a trifle in the trees: less than this in a whole path.
    gain = traffic.value[reached] - np.maximum(least[reached] - FAINT * len(price), 0.0)
    floor = np.zeros(traffic.count) if traffic.floor_bps is None else traffic.floor_bps
    amount = np.where(gain > 0, tight.asked[reached], floor[reached] * (1.0 - LEEWAY))
    return float(price @ tight.capacity + amount @ gain)


def _price(traffic: Traffic, columns: Columns, at: Solved, costs: _Costs, slack: float) -> int:
    """Add the cheapest path of every demand for which it is worth it."""
    most = traffic.value - slack * traffic.value.max(initial=0.0) - at.demand_price
    wanted = costs.by_tree[costs.least[costs.by_tree] < most[costs.by_tree]]
    fresh = columns.add(wanted, traffic.source[wanted], traffic.target[wanted], costs.trees)
    return fresh + sum(columns.add_path(demand, arcs) for demand, cost, arcs in costs.others if cost < most[demand])
