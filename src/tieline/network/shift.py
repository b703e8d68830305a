"""Shift: the second answer to a cut, tens of milliseconds after the refill: survivors are moved too.

Where few paths are known the programme over them is solved exactly. Where there are many, most of them differ in
nothing that matters: after a refill few arcs are full, and paths that cross the same full arcs are worth and cost the
same. So those are one variable, and demands that can choose among the same kinds of paths are one row: thousands of
paths become some hundreds of variables. What the programme moves is handed to the demands in turn, within every arc's
capacity, and what is left over goes to whoever lacks something. Arcs that have become full by that are looked at in the
next round. An answer is taken only where it is worth more.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tieline.network.columns import Columns, scattered
from tieline.network.graph import Floats, Graph, counted
from tieline.network.master import LEEWAY, Programme, repaired, solved
from tieline.network.refill import given_away, load_of, refilled, taken
from tieline.network.traffic import Flows

MOST_USES: Final = (
    40_000  # of arcs by paths, up to which the programme over all of them is solved: tens of milliseconds
)
MOST_KINDS: Final = 4_000  # variables of the programme over kinds of paths
FULL: Final = 0.001  # of its capacity: an arc with less left is full
ROUNDS: Final = 1
STAY: Final = 0.01  # of its value: what moving must be worth, else it moves far more than it must
TRIFLE: Final = 1e-6  # of what is carried: who grows by less stays
GOOD: Final = (
    0.98  # of the bound before the cut (that of after is not known yet): a refill as good as that moves nobody
)


def first_repair(flows: Flows, graph: Graph) -> Flows:
    """The first answer to a cut for demands that all stand alike: refilled, and survivors moved where too little is."""
    first = refilled(flows, graph)
    enough = GOOD * flows.bound
    return first if first.worth >= enough else shifted(first, enough=enough)


def shifted(flows: Flows, *, most_uses: int = MOST_USES, rounds: int = ROUNDS, enough: float = np.inf) -> Flows:
    """What a refill left, by moving survivors too, mostly over the same paths; never worth less.

    For networks where too much stays lost otherwise; going there may need two steps (`update.steps_between`). Demands
    of value 0 keep what they have. Where the paths use arcs more than ``most_uses`` times they are moved by kinds, in
    ``rounds`` or until they are worth ``enough``.
    """
    if not len(flows.columns):
        return flows
    return _exactly(flows) if len(flows.columns.arcs) <= most_uses else _by_kinds(flows, rounds, enough)


def _exactly(flows: Flows) -> Flows:
    """The best over all known paths: one small programme."""
    traffic, columns = flows.traffic, flows.columns
    usable = np.flatnonzero(columns.is_clear(flows.graph.is_up, np.arange(len(columns))))
    if not len(usable):
        return flows
    kept = np.where(traffic.value > 0, 0.0, flows.carried_bps())
    programme = Programme(
        columns.by_arc()[:, usable],
        columns.by_demand(traffic.count)[:, usable],
        flows.graph.capacity_bps,
        traffic.asked_bps,
        traffic.value[columns.demand[usable]],
        kept,
    )
    rate = np.zeros(len(columns))
    rate[usable] = repaired(programme, solved(programme, 1e-4).rate)
    made = flows._replace(rate_bps=rate)
    is_kept = bool(np.all(made.carried_bps() >= kept * (1.0 - LEEWAY) - 1e-9))
    return made if is_kept and made.worth > flows.worth else flows


def _by_kinds(flows: Flows, rounds: int, enough: float) -> Flows:
    graph, made = flows.graph, flows
    is_full = np.zeros(graph.arc_count, dtype=bool)
    usable = flows.columns.is_clear(graph.is_up, np.arange(len(flows.columns)))
    for _ in range(rounds):
        left = graph.capacity_bps - load_of(made.columns, made.rate_bps)
        is_full |= graph.is_up & (left <= FULL * graph.capacity_bps)
        usable = np.concatenate([usable, np.ones(len(flows.columns) - len(usable), dtype=bool)])  # found since the cut
        kinds = _kinds(flows, is_full, usable)
        if len(kinds.group) > MOST_KINDS or not len(kinds.group):
            break
        columns, rate = _moved(flows, kinds, _best(flows, kinds, is_full))
        made = flows._replace(columns=columns, rate_bps=rate)
        if made.worth > flows.worth:
            flows = made
        if flows.worth >= enough:
            break
    return flows


class _Kinds(NamedTuple):
    """Paths that cross the same full arcs and are of demands with the same choice."""

    paths: NDArray[np.int64]  # that can be used, of demands that may be moved
    kind: NDArray[np.int64]  # of each of these paths
    group: NDArray[np.int64]  # of each kind: which demands may use it
    example: NDArray[np.int64]  # of each kind: one of its paths
    asked_bps: Floats  # of each group
    value: Floats  # of each group


def _kinds(flows: Flows, is_full: NDArray[np.bool_], usable: NDArray[np.bool_]) -> _Kinds:
    traffic, columns = flows.traffic, flows.columns
    paths = np.flatnonzero(usable & (traffic.value > 0)[columns.demand])
    demand = columns.demand[paths].astype(np.int64)
    crossed, crossing = np.unique(columns.crossing(is_full)[paths], return_inverse=True)
    width = max(1, len(crossed))
    choice = np.unique(demand * width + crossing)  # each demand and what its paths cross, once
    chooser, what = choice // width, choice % width
    choices = np.zeros(traffic.count, dtype=np.uint64)
    np.add.at(choices, chooser, scattered(crossed[what]))
    of_value = np.unique(traffic.value, return_inverse=True)[1].astype(np.uint64)
    groups, group = np.unique(scattered(choices ^ scattered(of_value)), return_inverse=True)
    kinds, first, kind = np.unique(group[demand] * width + crossing, return_index=True, return_inverse=True)
    worth = np.zeros(len(groups))
    worth[group] = traffic.value
    asked = np.minimum(traffic.asked_bps, flows.graph.capacity_bps.sum())  # more than that says no more
    return _Kinds(paths, kind, kinds // width, paths[first], counted(group, asked, len(groups)), worth)


def _best(flows: Flows, kinds: _Kinds, is_full: NDArray[np.bool_]) -> Floats:
    """How much of each kind: max value with full arcs within capacity and groups within what they ask (HiGHS).

    Each kind is two variables: what stays, at most what it has, and what is new, which is worth a little less.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csc_array, hstack, vstack

    columns, count = flows.columns, len(kinds.group)
    start, arcs = columns.some(kinds.example)
    full = np.flatnonzero(is_full)
    row = np.full(len(is_full), -1)
    row[full] = np.arange(len(full))
    of = np.repeat(np.arange(count), np.diff(start))
    crosses = row[arcs] >= 0
    by_arc: Any = csc_array((np.ones(crosses.sum()), (row[arcs[crosses]], of[crosses])), shape=(len(full), count))
    asking, at = np.unique(kinds.group, return_inverse=True)
    by_group: Any = csc_array((np.ones(count), (at, np.arange(count))), shape=(len(asking), count))
    fixed = np.where(flows.traffic.value[columns.demand] > 0, 0.0, flows.rate_bps)
    room = np.maximum(flows.graph.capacity_bps - load_of(columns, fixed), 0.0)
    bounds = np.concatenate([room[full], kinds.asked_bps[asking]])
    scale = float(np.median(bounds[bounds > 0])) if np.any(bounds > 0) else 1.0
    rows = vstack([by_arc, by_group]).tocsc()
    had = counted(kinds.kind, flows.rate_bps[kinds.paths], count)
    has = np.flatnonzero(had > 0)
    value = kinds.value[kinds.group]
    rows = hstack([rows, rows[:, has]])
    limit = np.full((count + len(has), 2), [0.0, np.inf])
    limit[count:, 1] = had[has] / scale
    aim = np.concatenate([value * (1 - STAY), value[has]])
    answer = linprog(-aim, A_ub=rows, b_ub=bounds / scale, bounds=limit, method="highs-ds")
    if answer.status != 0:  # nothing at all is always within the bounds
        raise ArithmeticError(f"the solver gave up: {answer.message}")
    amount = np.maximum(answer.x[:count], 0.0)
    amount[has] += np.maximum(answer.x[count:], 0.0)
    return np.asarray(amount) * scale


def _moved(flows: Flows, kinds: _Kinds, amount: Floats) -> tuple[Columns, Floats]:
    """Shrink the paths of kinds that have too much, each alike, and give the others what they should have in turn."""
    traffic, columns = flows.traffic, flows.columns.over(flows.graph)
    rate = flows.rate_bps.copy()
    had = counted(kinds.kind, rate[kinds.paths], len(amount))
    share = np.divide(amount, had, out=np.ones(len(had)), where=had > amount)
    rate[kinds.paths] *= share[kinds.kind]
    left = np.maximum(flows.graph.capacity_bps - load_of(columns, rate), 0.0)
    lacks = np.maximum(traffic.asked_bps - counted(columns.demand, rate, traffic.count), 0.0)
    more = np.maximum(amount - had, 0.0)
    grows = np.flatnonzero((more > TRIFLE * amount.max())[kinds.kind])
    grows = grows[lacks[columns.demand[kinds.paths[grows]]] > 0]
    taken(columns, rate, left, lacks, kinds.paths[grows], (kinds.kind[grows], more))
    return given_away(flows.graph, traffic, columns, rate, np.zeros(traffic.count, dtype=np.int32))
