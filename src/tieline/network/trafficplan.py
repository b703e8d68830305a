"""Traffic plan: a file of demands over a topology becomes paths and rates, and what becomes of them after a cut.

Joins `classes`, `refill`, `handover` and `update`: what the command line shows and other programs read
(`model.trafficplan`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from tieline.model.error import TielineError
from tieline.model.topology import Topology
from tieline.model.trafficplan import (
    ClassShare,
    ClassTerms,
    CutPlan,
    DemandFile,
    DemandShare,
    LinkLoad,
    PathShare,
    PlanDemand,
    TrafficPlan,
)
from tieline.model.transfer import TrafficClass
from tieline.network.classes import Class, Plan, Rank, Share, mended, planned
from tieline.network.columns import Columns
from tieline.network.graph import Floats, Graph, Ints
from tieline.network.handover import handover
from tieline.network.state import graph_at
from tieline.network.traffic import Flows, Traffic
from tieline.network.update import calmed, steps_between

RANKS: Final = {
    TrafficClass.PROTECTED: Rank.PROTECTED,
    TrafficClass.DEADLINE: Rank.DEADLINE,
    TrafficClass.BEST_EFFORT: Rank.BEST_EFFORT,
}
PPM: Final = 1_000_000
MOST_WRONG: Final = 3  # demands that a refusal names


def traffic_plan(
    topology: Topology,
    asked: DemandFile,
    *,
    default: TrafficClass = TrafficClass.BEST_EFFORT,
    at_ms: int | None = None,
    down: Iterable[str] = (),
    cut: Sequence[str] = (),
) -> TrafficPlan:
    """Paths and rates for what is asked, at a moment (None: without maintenance) and with links that are down.

    ``cut``: links that are cut besides, to see what becomes of the plan. Raises TielineError for places and links that
    the topology does not have. The topology is sound (`survey.checked`).
    """
    number = {link.name: at for at, link in enumerate(topology.links)}
    for name in (*down, *cut):
        if name not in number:
            raise TielineError("not_found", f"there is no link `{name}`", where=name, hints=("tieline network show",))
    graph = graph_at(topology, at_ms, [number[name] for name in down])
    sheet = _Sheet(topology, asked, default)
    plan = planned(graph, sheet.classes)
    after = None
    if cut:
        after = _after(sheet, plan, graph.without([number[name] for name in cut]), tuple(cut))
    return TrafficPlan(
        topology=topology.name,
        demands=sheet.demand_shares(plan),
        classes=sheet.class_shares(plan),
        links=_loads(topology, graph, plan.load_bps()),
        cut=after,
    )


def _after(sheet: _Sheet, plan: Plan, graph: Graph, links: tuple[str, ...]) -> CutPlan:
    first = mended(plan, graph)
    anew = planned(graph, sheet.classes, before=first)
    old = np.zeros(0)
    if plan.flows is not None and first.flows is not None and anew.flows is not None:
        old, flows = _together(first.flows, anew.flows)
        # Only what the last class gives away freely may be given up for calm: not what others or fairness hold.
        last = max(sheet.classes, key=lambda each: each.rank)
        is_free = (anew.ranks == last.rank) & (not last.is_fair)
        kept = np.where(is_free, 0.0, flows.carried_bps())
        free = graph.holding(graph.capacity_bps - _pinned_bps(anew))  # that of classes after it too
        bounded = flows._replace(graph=free, traffic=flows.traffic._replace(floor_bps=kept))
        calm = calmed(bounded, old)
        if np.any(calm.load_bps() > free.capacity_bps * (1.0 + 1e-9) + 1e-6):
            calm = bounded  # what was there before does not fit beside the new paths, and a mixture need not
        anew = anew._replace(flows=calm, shares=tuple(_shared(share, calm) for share in anew.shares))
    steps, least, stopped = _steps(first, anew, old)
    return CutPlan(
        links=links,
        untouched_bps=_whole(_untouched(plan, graph)),
        refilled_bps=_whole(sum(float(share.carried_bps.sum()) for share in first.shares)),
        replanned_bps=_whole(sum(float(share.carried_bps.sum()) for share in anew.shares)),
        classes=sheet.class_shares(anew),
        steps=steps,
        least_bps=_whole(least),
        demands=sheet.demand_shares(anew),
        stopped=sheet.named(stopped),
    )


def _pinned_bps(plan: Plan) -> Floats:
    """What demands that may not be split hold of each arc."""
    return sum((share.pin.load_bps() for share in plan.shares if share.pin), np.zeros(plan.graph.arc_count))


def _steps(first: Plan, anew: Plan, old: Floats) -> tuple[int, float, tuple[tuple[Rank, int], ...]]:
    """How many steps lead from the first repair to the new plan, what is carried at least meanwhile, and which demands
    that may not be split stop in between. ``old``: rates before, of the paths of the new plan."""
    capacity = anew.graph.capacity_bps
    columns, new = Columns(anew.graph), np.zeros(0)
    if anew.flows is not None:
        columns, new = anew.flows.columns, anew.flows.rate_bps
    most = np.maximum(old, new)

    def held_bps(rank: Rank) -> Floats:
        is_before = anew.ranks[columns.demand] < rank
        return np.asarray(columns.by_arc() @ np.where(is_before, most, 0.0))

    over = handover(capacity, first.shares, anew.shares, held_bps)
    done = steps_between(columns, old, new, capacity, over.beside)
    least = min(float(old.sum()) + over.before_bps, float(new.sum()) + over.after_bps)
    if len(done.rates_bps) == 1:
        return 1, least, ()
    return 2, min(least, float(done.rates_bps[0].sum()) + over.between_bps), over.stopped


def _shared(share: Share, flows: Flows) -> Share:
    """The share of one class in a calmed answer."""
    if share.pin:
        return share
    mine = slice(share.first, share.first + len(share.carried_bps))
    carried = flows.carried_bps()[mine]
    return share._replace(carried_bps=carried, worth=float(carried @ flows.traffic.value[mine]))


def _untouched(plan: Plan, graph: Graph) -> float:
    """What was carried over arcs that are all still there."""
    total = 0.0
    if plan.flows is not None and len(plan.flows.columns):
        columns = plan.flows.columns
        stands = np.minimum.reduceat(graph.is_up[columns.arcs].astype(np.float64), columns.start[:-1])
        total += float(plan.flows.rate_bps @ stands)
    for share in plan.shares:
        if share.pin:
            for demand in np.flatnonzero(share.pin.path >= 0).tolist():
                if graph.is_up[share.pin.columns.path(int(share.pin.path[demand]))].all():
                    total += float(share.pin.traffic.asked_bps[demand])
    return total


def _together(first: Flows, second: Flows) -> tuple[Floats, Flows]:
    """The rates of ``first`` and the whole of ``second`` over the paths that either uses."""
    columns = Columns(second.graph)
    rates: list[dict[int, float]] = [{}, {}]
    seen: dict[tuple[int, bytes], int] = {}
    for of, flows in zip(rates, (first, second), strict=True):
        for path in np.flatnonzero(flows.rate_bps > 0).tolist():
            arcs, demand = flows.columns.path(path), int(flows.columns.demand[path])
            key = (demand, arcs.tobytes())
            if key not in seen:
                columns.add_path(demand, arcs.tolist())
                seen[key] = len(columns) - 1
            of[seen[key]] = float(flows.rate_bps[path])
    old, new = (np.array([of.get(at, 0.0) for at in range(len(columns))]) for of in rates)
    return old, second._replace(columns=columns, rate_bps=new)


class _Sheet:
    """What is asked, in the order of the file and in that of the classes."""

    def __init__(self, topology: Topology, asked: DemandFile, default: TrafficClass) -> None:
        self.topology = topology
        self.demands = asked.demands
        self.of = [each.traffic_class or default for each in asked.demands]
        ends = _ends(topology, asked.demands)
        self.places: dict[TrafficClass, list[int]] = {}
        for at, traffic_class in enumerate(self.of):
            self.places.setdefault(traffic_class, []).append(at)
        self.classes = [
            _class(traffic_class, asked, [asked.demands[at] for at in places], ends[places])
            for traffic_class, places in self.places.items()
        ]

    def class_shares(self, plan: Plan) -> tuple[ClassShare, ...]:
        """In the order of ranks."""
        by_rank = {rank: traffic_class for traffic_class, rank in RANKS.items()}
        found = []
        for share in plan.shares:
            traffic_class = by_rank[share.rank]
            asked = sum(self.demands[at].rate_bps for at in self.places[traffic_class])
            least = 1.0 - share.gap if share.bound > 0 else 1.0
            carried = _whole(float(share.carried_bps.sum()))
            found.append(
                ClassShare(
                    traffic_class=traffic_class, asked_bps=asked, carried_bps=carried, least_ppm=int(least * PPM)
                )
            )
        return tuple(found)

    def demand_shares(self, plan: Plan) -> tuple[DemandShare, ...]:
        """In the order of the file."""
        paths: dict[int, list[PathShare]] = {}
        carried: dict[int, float] = {}
        for share in plan.shares:
            traffic_class = next(each for each, rank in RANKS.items() if rank == share.rank)
            carried |= dict(zip(self.places[traffic_class], share.carried_bps.tolist(), strict=True))
            for at, arcs, rate in _used(plan, share, self.places[traffic_class]):
                paths.setdefault(at, []).append(self._path(plan.graph, arcs, rate))
        return tuple(
            DemandShare(
                name=_name(each),
                source=each.source,
                target=each.target,
                traffic_class=self.of[at],
                asked_bps=each.rate_bps,
                carried_bps=_whole(carried[at]),
                paths=tuple(sorted(paths.get(at, ()), key=lambda path: -path.rate_bps)),
            )
            for at, each in enumerate(self.demands)
        )

    def named(self, demands: Iterable[tuple[Rank, int]]) -> tuple[str, ...]:
        """Names of demands that are told by class and number, in the order of the file."""
        by_rank = {rank: traffic_class for traffic_class, rank in RANKS.items()}
        places = sorted(self.places[by_rank[rank]][demand] for rank, demand in demands)
        return tuple(_name(self.demands[at]) for at in places)

    def _path(self, graph: Graph, arcs: Ints, rate: float) -> PathShare:
        return PathShare(
            nodes=(graph.names[int(graph.tail[arcs[0]])], *(graph.names[int(graph.head[arc])] for arc in arcs)),
            links=tuple(self.topology.links[int(arc) // 2].name for arc in arcs),
            delay_us=_whole(float(graph.delay_us[arcs].sum())),
            rate_bps=_whole(rate),
        )


def _name(demand: PlanDemand) -> str:
    return demand.name or f"{demand.source}>{demand.target}"


def _used(plan: Plan, share: Share, places: Sequence[int]) -> list[tuple[int, Ints, float]]:
    """The paths of a class that carry a bit/s or more: whose they are (place in the file), arcs, rate."""
    if share.pin:
        pin = share.pin
        taken = np.flatnonzero(pin.path >= 0).tolist()
        return [(places[at], pin.columns.path(int(pin.path[at])), float(pin.traffic.asked_bps[at])) for at in taken]
    assert plan.flows is not None
    columns, rate = plan.flows.columns, plan.flows.rate_bps
    first, last = share.first, share.first + len(share.carried_bps)
    mine = np.flatnonzero((rate >= 1.0) & (columns.demand >= first) & (columns.demand < last)).tolist()
    return [(places[int(columns.demand[at]) - first], columns.path(at), float(rate[at])) for at in mine]


def _ends(topology: Topology, demands: Sequence[PlanDemand]) -> Ints:
    """Numbers of the nodes of every demand; a site is the one node that names it."""
    number = {node.name: at for at, node in enumerate(topology.nodes)}
    for at, node in enumerate(topology.nodes):
        if node.site:
            number.setdefault(node.site, at)
    wrong = [
        (f"demands[{at}]", f"`{end}` is no node of `{topology.name}` and no site at one")
        for at, each in enumerate(demands)
        for end in (each.source, each.target)
        if end not in number
    ]
    wrong += [
        (f"demands[{at}]", f"a demand begins and ends at `{each.source}`")
        for at, each in enumerate(demands)
        if each.source in number and number[each.source] == number.get(each.target)
    ]
    if wrong:
        more = f"; and {len(wrong) - MOST_WRONG} more" if len(wrong) > MOST_WRONG else ""
        said = "; ".join(what for _, what in wrong[:MOST_WRONG])
        raise TielineError("invalid_request", said + more, where=wrong[0][0])
    return np.array([(number[each.source], number[each.target]) for each in demands], dtype=np.int32).reshape(-1, 2)


def _class(traffic_class: TrafficClass, asked: DemandFile, demands: Sequence[PlanDemand], ends: Ints) -> Class:
    terms = asked.classes.get(traffic_class, ClassTerms())
    if terms.fair and not terms.split:
        what = f"class `{traffic_class}` cannot be fair where its demands may not be split"
        raise TielineError("invalid_request", what, where=f"classes.{traffic_class}")
    latency = np.array([each.latency_us or np.inf for each in demands])
    traffic = Traffic(
        ends[:, 0],
        ends[:, 1],
        np.array([each.rate_bps for each in demands], dtype=np.float64),
        np.array([each.weight for each in demands], dtype=np.float64),
        most_us=latency if np.isfinite(latency).any() else None,
    )
    return Class(RANKS[traffic_class], traffic, is_fair=terms.fair, is_single=not terms.split)


def _loads(topology: Topology, graph: Graph, load: Floats) -> tuple[LinkLoad, ...]:
    used = np.divide(load, graph.capacity_bps, out=np.zeros_like(load), where=graph.capacity_bps > 0)
    order = np.lexsort((np.arange(len(load)), -used))
    return tuple(
        LinkLoad(
            link=topology.links[arc // 2].name,
            source=graph.names[int(graph.tail[arc])],
            target=graph.names[int(graph.head[arc])],
            load_bps=min(_whole(float(load[arc])), int(graph.capacity_bps[arc])),
            capacity_bps=int(graph.capacity_bps[arc]),
        )
        for arc in order.tolist()
        if load[arc] >= 1.0
    )


def _whole(rate: float) -> int:
    """In whole bit/s, down, but for what a float lacks of one."""
    return int(rate * (1.0 + 1e-12) + 1e-6)
