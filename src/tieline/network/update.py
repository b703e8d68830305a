"""Update: from one routing to another without overloading a link on the way, whichever router changes first.

Routers do not change at one instant. Going from ``old`` to ``new`` in one step loads a link with up to the larger of
the two rates of each path. A step is safe if that sum fits everywhere (SWAN, Hong et al., SIGCOMM 2013). Where the
direct step is not, one in between is looked for by a linear programme: rates ``mid`` such that ``old -> mid`` and
``mid -> new`` both are safe and as much as possible is carried meanwhile. With a share ``s`` of every link left free
by both ends, such a step exists for ``1/s - 1`` steps; here two steps are made, and what cannot stay is carried less
in between, never overloaded.

Demands that may not be split (`Beside`) cannot be in between: each goes over to its new path at once, between the two
steps, and holds both paths while it does (make before break). Who has no room for both stops in between.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tieline.network.columns import Columns
from tieline.network.graph import Floats, counted
from tieline.network.master import LEEWAY, Programme, repaired
from tieline.network.traffic import Flows

SMALL: Final = 60_000  # uses of arcs by paths up to which the least change is computed exactly
TRIFLE: Final = 1e-3  # what a bit/s beyond what both ends carry is worth, beside one that both carry
GIVE_BLENDED: Final = 0.0002  # the same of a mixture, which calms less for what it gives up
GIVE: Final = 0.001  # of the worth: what may be given up so that fewer bytes change their path


class Beside(NamedTuple):
    """What demands that may not be split hold of each arc."""

    before_bps: Floats
    between_bps: Floats  # old and new paths of those that go over, but for those that stop
    after_bps: Floats
    together_bps: Floats  # old and new paths of all


class Steps(NamedTuple):
    """The rates to set one after another, the last of them the new ones."""

    rates_bps: tuple[Floats, ...]
    carried_bps: float  # at the lowest point
    is_lossless: bool  # no demand has less on the way than at both ends


def calmed(flows: Flows, old: Floats, *, give: float | None = None) -> Flows:
    """As good an answer as ``flows``, but for ``give`` of its worth, that moves the least traffic from ``old``, which
    fits too.

    An optimum says nothing about which of many it is: without this, most of what is routed would move although little
    has to, and a step between would carry much less. Over the paths that either end uses (HiGHS)::

        min sum(over)  with  rate - old <= over, rates within capacity and demand, worth >= (1 - give) x that of flows
    """
    from scipy.optimize import linprog
    from scipy.sparse import block_array, csr_array, eye_array

    traffic, columns = flows.traffic, flows.columns
    paths = np.flatnonzero((old > 0) | (flows.rate_bps > 0))
    if not len(paths) or flows.worth <= 0:
        return flows
    if np.diff(columns.start)[paths].sum() > SMALL:
        return _blended(flows, old, GIVE_BLENDED if give is None else give)
    give = GIVE if give is None else give
    by_arc, by_demand = columns.by_arc()[:, paths], columns.by_demand(traffic.count)[:, paths]
    value = traffic.value[columns.demand[paths]]
    held = np.zeros(traffic.count) if traffic.floor_bps is None else np.minimum(traffic.floor_bps, flows.carried_bps())
    capacity = np.maximum(flows.graph.capacity_bps, flows.load_bps())  # a solver's trifle over is not infeasible here
    scale = float(np.median(np.maximum(old[paths], flows.rate_bps[paths])))
    one, none = eye_array(len(paths), format="csr"), None
    rows = block_array(
        [[by_arc, none], [by_demand, none], [-by_demand, none], [csr_array(-value[None, :]), none], [one, -one]],
        format="csc",
    )
    least = -(1.0 - give) * flows.worth
    bounds = np.concatenate([capacity, traffic.asked_bps, -held, [least], old[paths]]) / scale
    # Of the answers that move as little the best: worth is not given up for nothing.
    aim = np.concatenate([-TRIFLE * value / max(float(value.max()), 1e-12), np.ones(len(paths))])
    answer = linprog(aim, A_ub=rows, b_ub=bounds, bounds=(0, None), method="highs")
    if answer.status != 0:  # at the edge of the solver's tolerance: the answer stands that is there
        return flows
    programme = Programme(by_arc, by_demand, flows.graph.capacity_bps, traffic.asked_bps, value)
    rate = np.zeros(len(columns))
    rate[paths] = repaired(programme, answer.x[: len(paths)] * scale)
    calm = flows._replace(rate_bps=rate)
    is_kept = np.all(calm.carried_bps() >= held * (1.0 - LEEWAY) - 1e-9)
    return calm if is_kept and calm.worth >= (1.0 - give - LEEWAY) * flows.worth else flows


def _blended(flows: Flows, old: Floats, give: float) -> Flows:
    """As far back towards ``old`` as ``give`` allows, where the programme is too large: a mixture of two that fit
    fits."""
    was = float(old @ flows.traffic.value[flows.columns.demand])
    share = min(1.0, give * flows.worth / max(flows.worth - was, 1e-12)) if was < flows.worth else 1.0
    return flows._replace(rate_bps=share * old + (1.0 - share) * flows.rate_bps)


def is_safe(columns: Columns, before: Floats, after: Floats, capacity_bps: Floats) -> bool:
    """Whether every mixture of the two fits."""
    load = columns.by_arc() @ np.maximum(before, after)
    return bool(np.all(load <= capacity_bps * (1 + 1e-9) + 1e-6))


def steps_between(
    columns: Columns, old: Floats, new: Floats, capacity_bps: Floats, beside: Beside | None = None
) -> Steps:
    """One step where it is safe, else two. ``old`` and ``new`` are rates of the same paths, each within capacity beside
    the demands that may not be split, which go over after the first of two steps."""
    least = min(float(old.sum()), float(new.sum()))
    none = np.zeros(len(capacity_bps))
    held = Beside(none, none, none, none) if beside is None else beside
    room = capacity_bps - held.together_bps
    if np.all(room >= -1e-9 * capacity_bps - 1e-6) and is_safe(columns, old, new, np.maximum(room, 0.0)):
        return Steps((new,), least, is_lossless=True)
    rooms = _Rooms(*(np.maximum(capacity_bps - each, 0.0) for each in held[:3]))
    middle = _middle(columns, old, new, rooms) if len(columns) else old
    assert is_safe(columns, old, middle, rooms.first_bps)
    assert is_safe(columns, middle, middle, rooms.between_bps)
    assert is_safe(columns, middle, new, rooms.second_bps)
    count = int(columns.demand.max(initial=-1)) + 1
    kept = counted(columns.demand, middle, count)
    both = np.minimum(counted(columns.demand, old, count), counted(columns.demand, new, count))
    return Steps((middle, new), min(least, float(middle.sum())), is_lossless=bool(np.all(kept >= both * (1 - 1e-6))))


class _Rooms(NamedTuple):
    """What of each arc is there for the first step, between the two, and for the second."""

    first_bps: Floats
    between_bps: Floats
    second_bps: Floats


def _middle(columns: Columns, old: Floats, new: Floats, rooms: _Rooms) -> Floats:
    """max sum(kept) + a trifle x sum(mid) with by_arc @ max(old, mid) and by_arc @ max(mid, new) within the room of
    each step, by_arc @ mid within that between, and of each demand kept <= mid, kept <= what both ends carry, mid <=
    what either does.

    The maxima are linear in ``mid`` and what it exceeds each end by: mid <= end + over, over >= 0.
    """
    from scipy.optimize import linprog
    from scipy.sparse import block_array, csr_array, eye_array

    paths = np.flatnonzero((old > 0) | (new > 0))
    by_arc = columns.by_arc()[:, paths]
    used = np.flatnonzero(by_arc.sum(axis=1))
    by_arc = csr_array(by_arc)[used]
    before, after = old[paths], new[paths]
    scale = float(np.median(np.maximum(before, after)))  # the solver's tolerances are absolute
    demands, of = np.unique(columns.demand[paths], return_inverse=True)
    by_demand = csr_array((np.ones(len(paths)), (of, np.arange(len(paths)))), shape=(len(demands), len(paths)))
    one, each, none = eye_array(len(paths), format="csr"), eye_array(len(demands), format="csr"), None
    blocks = [
        [none, by_arc, none, none],
        [none, none, by_arc, none],
        [one, -one, none, none],
        [one, none, -one, none],
        [by_demand, none, none, none],
        [-by_demand, none, none, each],
    ]
    had, has = by_demand @ before, by_demand @ after
    bounds = [
        rooms.first_bps[used] - by_arc @ before,
        rooms.second_bps[used] - by_arc @ after,
        before,
        after,
        np.maximum(had, has),
        np.zeros(len(demands)),
    ]
    if np.any(rooms.between_bps[used] < np.minimum(rooms.first_bps, rooms.second_bps)[used]):
        blocks.append([by_arc, none, none, none])
        bounds.append(rooms.between_bps[used])
    aim = np.concatenate(
        [np.full(len(paths), -TRIFLE), np.full(2 * len(paths), TRIFLE * TRIFLE), np.full(len(demands), -1.0)]
    )
    limit = [(0.0, float(most)) for most in np.maximum(before, after) / scale] + [(0.0, None)] * (2 * len(paths))
    limit += [(0.0, float(most)) for most in np.minimum(had, has) / scale]
    rows = block_array(blocks, format="csc")
    answer = linprog(aim, A_ub=rows, b_ub=np.maximum(np.concatenate(bounds), 0.0) / scale, bounds=limit, method="highs")
    if answer.status != 0:  # nothing at all is always safe
        raise ArithmeticError(f"the solver gave up: {answer.message}")
    middle = np.zeros(len(old))
    middle[paths] = np.maximum(answer.x[: len(paths)], 0.0) * scale
    # What exceeds both ends is what crowds arcs: a solver's trifle of that is taken back.
    for end, room in ((old, rooms.first_bps), (new, rooms.second_bps), (np.zeros(len(old)), rooms.between_bps)):
        over = np.maximum(middle - end, 0.0)
        left = np.maximum(room - columns.by_arc() @ end, 0.0)
        share = np.minimum(1.0, left / np.maximum(columns.by_arc() @ over, 1e-12))
        middle = np.minimum(middle, end + over * np.minimum.reduceat(share[columns.arcs], columns.start[:-1]))
    return middle
