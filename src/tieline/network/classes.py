"""Classes: who goes first where not all fits: protected circuits, then deadline transfers, then best effort.

Lexicographic: a class is served as if those after it did not exist, and they get what it leaves. What a class got is
the floor of its demands when the next one is planned; its paths may move to make room, its rates may not fall. A class
whose demands may not be split is pinned (`single`) to its paths in what the classes before it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from tieline.network.fairness import STEP, fair
from tieline.network.graph import Floats, Graph, Ints
from tieline.network.refill import refilled
from tieline.network.shift import first_repair
from tieline.network.single import Pinned, pinned
from tieline.network.traffic import Flows, Traffic, routed


class Rank(IntEnum):
    """The order of classes: the lower goes first."""

    PROTECTED = 0
    DEADLINE = 1
    BEST_EFFORT = 2


class Class(NamedTuple):
    """Demands of one rank, and how they share what is left to them."""

    rank: Rank
    traffic: Traffic
    is_fair: bool = False  # max-min by weights, else most value
    is_single: bool = False  # one path each, whole or not at all


class Share(NamedTuple):
    """What one class got, in the order of its demands."""

    rank: Rank
    carried_bps: Floats
    worth: float  # value that is carried; of a fair class bit/s
    bound: float  # no routing that keeps the classes before it (and the fair rates of this one) carries more
    pin: Pinned | None  # of a class that may not be split
    first: int  # number of its first demand in the plan's flows
    is_fair: bool = False

    @property
    def gap(self) -> float:
        """How far below the bound this may be, relative to it; 0: proven optimal."""
        return max(0.0, 1.0 - self.worth / self.bound) if self.bound > 0 else 0.0


class Plan(NamedTuple):
    """All classes over one network."""

    graph: Graph
    shares: tuple[Share, ...]
    flows: Flows | None  # of all demands that may be split, one class after another; None: there are none
    ranks: Ints  # of those demands

    @property
    def is_plain(self) -> bool:
        """Whether all demands that may be split are of one class, which shares by value."""
        alike = [share for share in self.shares if share.pin is None]
        return len(alike) == 1 and not alike[0].is_fair

    def load_bps(self) -> Floats:
        """What each arc carries."""
        load = _held(self.graph, self.shares)
        return load if self.flows is None else load + self.flows.load_bps()


def planned(graph: Graph, classes: Sequence[Class], *, step: float = STEP, before: Plan | None = None) -> Plan:
    """Every class in the order of ranks, at most one of each.

    ``before``: a plan of the same classes, over the same nodes and arcs: where it is of one class that is neither fair
    nor whole, its paths and prices are where the search begins.
    """
    order = sorted(classes, key=lambda each: each.rank)
    assert len({each.rank for each in order}) == len(order), "one class of each rank"
    shares: list[Share] = []
    flows: Flows | None = None
    values, ranks = np.zeros(0), np.zeros(0, dtype=np.int32)
    for each in order:
        free = graph.holding(graph.capacity_bps - _held(graph, shares))
        if each.is_single:
            taken = flows.load_bps() if flows is not None else np.zeros(graph.arc_count)
            pin = pinned(graph.holding(free.capacity_bps - taken), each.traffic)
            shares.append(Share(each.rank, pin.carried_bps(), pin.worth, pin.bound, pin, 0))
            continue
        together = _after(flows, each.traffic)
        first = together.count - each.traffic.count
        start = before.flows if before is not None and before.is_plain else flows
        flows = fair(free, together, step=step, start=flows) if each.is_fair else routed(free, together, start=start)
        shares.append(
            Share(each.rank, flows.carried_bps()[first:], flows.worth, flows.bound, None, first, each.is_fair)
        )
        values = np.r_[values, np.ones(each.traffic.count) if each.is_fair else each.traffic.value]
        ranks = np.r_[ranks, np.full(each.traffic.count, each.rank, dtype=np.int32)]
        flows = flows._replace(traffic=flows.traffic._replace(asked_bps=_asked(order, shares), floor_bps=None))
    if flows is not None:
        flows = flows._replace(traffic=flows.traffic._replace(value=values))
    return Plan(graph, tuple(shares), flows, ranks)


def mended(plan: Plan, graph: Graph) -> Plan:
    """The first answer to a cut. Pinned demands whose path is cut stop (their spare path is the circuit's affair);
    what may be split is refilled, the higher classes first and, where need be, at the expense of the lower. Survivors
    are moved too where that leaves too much lost, if nobody stands above another: one class, that is not fair."""
    shares = [share._replace(pin=_standing(share.pin, graph)) if share.pin else share for share in plan.shares]
    flows = plan.flows
    if flows is not None:
        free = graph.holding(graph.capacity_bps - _held(graph, shares))
        flows = first_repair(flows, free) if plan.is_plain else refilled(flows, free, ranks=plan.ranks)
    return Plan(graph, tuple(_after_cut(share, flows) for share in shares), flows, plan.ranks)


def _held(graph: Graph, shares: Sequence[Share]) -> Floats:
    """What pinned demands take of each arc."""
    return sum((share.pin.load_bps() for share in shares if share.pin), np.zeros(graph.arc_count))


def _standing(pin: Pinned, graph: Graph) -> Pinned:
    """The pinned demands that still fit, in their order."""
    left, path = graph.capacity_bps * (1.0 + 1e-9), pin.path.copy()
    for demand in np.flatnonzero(path >= 0).tolist():
        arcs = pin.columns.path(int(path[demand]))
        if np.any(left[arcs] < pin.traffic.asked_bps[demand]):
            path[demand] = -1
        else:
            left[arcs] -= pin.traffic.asked_bps[demand]
    return pin._replace(path=path)


def _after_cut(share: Share, flows: Flows | None) -> Share:
    """What the class has now. The bound is of before the cut, which took capacity and gave none; but a class may have
    more than that where one before it lost more."""
    if share.pin:
        return share._replace(carried_bps=share.pin.carried_bps(), worth=share.pin.worth)
    assert flows is not None
    mine = slice(share.first, share.first + len(share.carried_bps))
    carried = flows.carried_bps()[mine]
    return share._replace(carried_bps=carried, worth=float(carried @ flows.traffic.value[mine]))


def _after(flows: Flows | None, traffic: Traffic) -> Traffic:
    """The demands of the classes before, held at what they have, and then these."""
    if flows is None:
        return traffic._replace(floor_bps=None)
    had, got = flows.traffic, flows.carried_bps()
    is_bounded = had.most_us is not None or traffic.most_us is not None
    return Traffic(
        np.r_[had.source, traffic.source],
        np.r_[had.target, traffic.target],
        np.r_[got, traffic.asked_bps],
        np.r_[np.zeros(had.count), traffic.value],
        np.r_[got, np.zeros(traffic.count)],
        np.r_[_most_us(had), _most_us(traffic)] if is_bounded else None,
    )


def _most_us(traffic: Traffic) -> Floats:
    return np.full(traffic.count, np.inf) if traffic.most_us is None else traffic.most_us


def _asked(order: Sequence[Class], shares: Sequence[Share]) -> Floats:
    """What the demands that may be split asked for, of the classes that have their share."""
    return np.concatenate(
        [each.traffic.asked_bps for each, _ in zip(order, shares, strict=False) if not each.is_single]
    )
