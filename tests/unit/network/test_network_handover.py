"""Whole demands go over between two steps: what they hold of each arc on the way, and who has no room to."""

from __future__ import annotations

import numpy as np
import pytest

from tieline.network.classes import Rank, Share
from tieline.network.columns import Columns
from tieline.network.graph import graph_of
from tieline.network.handover import handover
from tieline.network.single import Pinned
from tieline.network.traffic import Traffic
from tieline.network.update import Beside, is_safe, steps_between

# Two ways from a to d: by b (arcs 0 and 2) and by c (arcs 4 and 6), then one link on to e (arc 8).
GRAPH = graph_of("abcde", [(0, 1, 10, 1), (1, 3, 10, 1), (0, 2, 10, 1), (2, 3, 10, 1), (3, 4, 10, 1)])
BY_B, BY_C = (0, 2, 8), (4, 6, 8)
NONE = np.zeros(GRAPH.arc_count)


def pins(rank, *demands):
    """Whole demands from a to e: rate and path of each, None: not carried."""
    rates = np.array([rate for rate, _ in demands], dtype=float)
    columns, path = Columns(GRAPH), []
    for demand, (_, arcs) in enumerate(demands):
        path.append(-1 if arcs is None else len(columns))
        if arcs is not None:
            columns.add_path(demand, arcs)
    zero, last = np.zeros(len(demands), np.int32), np.full(len(demands), 4, np.int32)
    pin = Pinned(Traffic(zero, last, rates, np.ones(len(demands))), columns, np.array(path, np.int32), np.inf)
    return Share(rank, pin.carried_bps(), pin.worth, np.inf, pin, 0)


def over(old, new, held=NONE):
    return handover(GRAPH.capacity_bps, old, new, lambda _: held)


def on(*arcs, rate):
    load = np.zeros(GRAPH.arc_count)
    load[list(arcs)] = rate
    return load.tolist()


def test_who_goes_over_holds_both_ways_and_what_they_share_once():
    found = over([pins(Rank.DEADLINE, (4, BY_B))], [pins(Rank.DEADLINE, (4, BY_C))])
    assert [each.tolist() for each in found.beside] == [
        on(*BY_B, rate=4), on(0, 2, 4, 6, 8, rate=4), on(*BY_C, rate=4), on(0, 2, 4, 6, 8, rate=4)
    ]  # fmt: skip
    assert (found.before_bps, found.between_bps, found.after_bps, found.stopped) == (4, 4, 4, ())


def test_who_stays_holds_its_path_and_who_comes_or_goes_stops_nobody():
    share = pins(Rank.PROTECTED, (1, BY_B), (2, None), (3, BY_C), (9, None))
    found = over([share], [pins(Rank.PROTECTED, (1, BY_B), (2, BY_B), (3, None), (9, None))])
    assert (found.before_bps, found.between_bps, found.after_bps, found.stopped) == (4, 1, 3, ())
    assert found.beside.before_bps[[0, 4, 8]].tolist() == [1, 3, 4]
    assert found.beside.between_bps[[0, 4, 8]].tolist() == [3, 3, 6]
    assert found.beside.after_bps[[0, 4, 8]].tolist() == [3, 0, 3]


def test_a_trade_of_two_full_ways_stops_the_second_and_a_class_before_keeps_its_room():
    old, new = pins(Rank.BEST_EFFORT, (5, BY_B), (5, BY_C)), pins(Rank.BEST_EFFORT, (5, BY_C), (5, BY_B))
    assert over([old], [new]).stopped == ()  # 5 and 5 fit on either way at once, and e takes the 10 of both
    crowd = np.array([0, 0, 0, 0, 1, 0, 0, 0, 0, 0.0])
    held = over([old], [new], held=crowd)
    assert held.stopped == ((Rank.BEST_EFFORT, 1),)
    assert (held.before_bps, held.between_bps, held.after_bps) == (10, 5, 10)
    assert held.beside.between_bps[[0, 4]].tolist() == [5, 5]
    assert held.beside.together_bps[[0, 4]].tolist() == [10, 10]
    first = over([pins(Rank.PROTECTED, (5, BY_B)), pins(Rank.BEST_EFFORT, (5, BY_C))],
                 [pins(Rank.PROTECTED, (5, BY_C)), pins(Rank.BEST_EFFORT, (5, BY_B))], held=crowd)  # fmt: skip
    assert first.stopped == ((Rank.BEST_EFFORT, 0),)  # the class that comes first goes first


@pytest.mark.parametrize(("flow", "steps", "middle"), [(5.0, 1, None), (6.0, 2, 5.0), (8.0, 2, 5.0)])
def test_what_may_be_split_makes_room_before_whole_demands_go_over(flow, steps, middle):
    # A whole demand of 5 goes from b to c; what may be split goes by b after, and by c before.
    found = over([pins(Rank.DEADLINE, (2, BY_B))], [pins(Rank.DEADLINE, (2, BY_C))])
    beside = Beside(*(np.where(np.arange(len(each)) == 8, 0, 2.5 * each) for each in found.beside))
    columns = Columns(GRAPH)
    for arcs in ((0, 2), (4, 6)):
        columns.add_path(0, arcs)
    old, new = np.array([0.0, min(flow, 10.0)]), np.array([min(flow, 10.0), 0.0])
    done = steps_between(columns, old, new, GRAPH.capacity_bps, beside)
    assert len(done.rates_bps) == steps
    if middle is None:
        return
    rate = done.rates_bps[0]
    assert is_safe(columns, old, rate, GRAPH.capacity_bps - beside.before_bps)
    assert is_safe(columns, rate, rate, GRAPH.capacity_bps - beside.between_bps)
    assert is_safe(columns, rate, new, GRAPH.capacity_bps - beside.after_bps)
    assert np.all(rate <= middle + 1e-6)  # 5 of either way are held by who goes over
    assert done.carried_bps == pytest.approx(min(flow, rate.sum()))
    assert rate.sum() == pytest.approx(flow)  # and both together have room for all of it


def test_whole_demands_alone_take_one_step_or_two():
    nothing = Columns(GRAPH)
    none = np.zeros(0)
    for rate, count in ((5, 1), (6, 2)):
        new = pins(Rank.DEADLINE, (rate, BY_C), (rate, BY_B))
        wide = GRAPH.capacity_bps * np.where(np.arange(GRAPH.arc_count) == 8, 2, 1)
        found = handover(wide, [pins(Rank.DEADLINE, (rate, BY_B), (rate, BY_C))], [new], lambda _: NONE)
        assert len(steps_between(nothing, none, none, wide, found.beside).rates_bps) == count
        assert len(found.stopped) == count - 1


def test_there_is_less_room_between_the_steps_than_in_either():
    # Two whole demands of 3 trade ways, so either way holds both for a while: 4 are left, before and after 7.
    found = over(
        [pins(Rank.DEADLINE, (3, BY_B[:2]), (3, BY_C[:2]))], [pins(Rank.DEADLINE, (3, BY_C[:2]), (3, BY_B[:2]))]
    )
    columns = Columns(GRAPH)
    for arcs in ((0, 2), (4, 6)):
        columns.add_path(0, arcs)
    for old, new in (([0.0, 7.0], [7.0, 0.0]), ([7.0, 0.0], [0.0, 7.0])):
        done = steps_between(columns, np.array(old), np.array(new), GRAPH.capacity_bps, found.beside)
        assert len(done.rates_bps) == 2
        assert done.rates_bps[0].max() <= 4.0 + 1e-6
        assert done.carried_bps == pytest.approx(7.0)
