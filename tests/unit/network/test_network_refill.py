"""A refill in small worlds that are laid by hand: who gets what is left, in which order, and over which way."""

from __future__ import annotations

import numpy as np
import pytest
from network_cases import keeps_its_bounds

from tieline.network import refill
from tieline.network.columns import Columns
from tieline.network.graph import graph_of
from tieline.network.master import Solved
from tieline.network.refill import refilled, taken
from tieline.network.traffic import Flows, Traffic


def flows_of(graph, demands, paths, most_us=None):
    """``demands``: source, target, asked; ``paths``: demand, arcs, rate."""
    source, target, asked = zip(*demands, strict=True)
    traffic = Traffic(
        np.array(source, np.int32), np.array(target, np.int32), np.array(asked, float), np.ones(len(demands)),
        most_us=None if most_us is None else np.array(most_us, float),
    )  # fmt: skip
    columns = Columns(graph)
    for demand, arcs, _ in paths:
        assert columns.add_path(demand, arcs)
    rate = np.array([each[2] for each in paths], float)
    nothing = Solved(rate, np.zeros(graph.arc_count), np.zeros(len(demands)))
    return Flows(graph, traffic, columns, rate, nothing, np.inf, 0)


def after(flows, *cut, **more):
    made = refilled(flows, flows.graph.without(cut), **more)
    keeps_its_bounds(made)
    return made


def over(flows, *arcs):
    """What a demand carries over this path."""
    return sum(
        float(rate)
        for path, rate in enumerate(flows.rate_bps)
        if tuple(flows.columns.path(path).tolist()) == arcs
    )  # fmt: skip


# Links, and the arcs there and back of each: a-b 0 1, b-d 2 3, a-c 4 5, c-d 6 7, a-d 8 9.
SQUARE = [(0, 1, 10.0, 1.0), (1, 3, 10.0, 1.0), (0, 2, 10.0, 1.0), (2, 3, 10.0, 1.0), (0, 3, 10.0, 1.0)]


def square():
    return graph_of("abcd", SQUARE)


def test_what_a_cut_path_held_further_on_goes_to_who_lacks_something():
    flows = flows_of(square(), [(0, 3, 10), (1, 3, 8)], [(0, (0, 2), 10), (1, (2,), 0), (0, (8,), 0)])
    assert after(flows, 0, 2, 4).carried_bps().tolist() == [0, 8]


@pytest.mark.parametrize("is_known", [True, False])
def test_who_lost_something_goes_before_who_lacked_it_always(is_known):
    # Who lacks, c to d, is nearer to what is left.
    paths = [(0, (8,), 10), (1, (6,), 0)] + [(0, (4, 6), 0)] * is_known
    made = after(flows_of(square(), [(0, 3, 10), (2, 3, 30)], paths), 4, 0)
    assert made.carried_bps().tolist() == [10, 0]


def test_the_largest_loss_goes_first():
    graph = graph_of("abcd", [*SQUARE[:4], (0, 3, 9.0, 1.0)])
    graph.capacity_bps[4] = 6.0
    paths = [(0, (8,), 3), (1, (8,), 6), (0, (4, 6), 0), (1, (4, 6), 0)]
    assert after(flows_of(graph, [(0, 3, 3), (0, 3, 6)], paths), 4, 0).carried_bps().tolist() == [0, 6]


def test_a_turn_takes_the_wide_way_though_a_narrow_one_is_shorter():
    graph = graph_of("abcd", [(0, 1, 1.0, 1.0), (1, 3, 1.0, 1.0), (0, 2, 8.0, 2.0), (2, 3, 8.0, 2.0), (0, 3, 8.0, 1.0)])
    made = after(flows_of(graph, [(0, 3, 8)], [(0, (8,), 8)]), 4)
    assert (over(made, 4, 6), over(made, 0, 2)) == (8, 0)


def test_what_is_taken_is_gone_in_the_next_turn():
    # The first fills its known way; the second finds a new one over the same link.
    graph = graph_of("abcde", [*SQUARE, (4, 0, 10.0, 1.0), (4, 3, 10.0, 1.0)])
    graph.capacity_bps[4] = 5.0
    paths = [(0, (8,), 8), (1, (12,), 3), (0, (4, 6), 0)]
    made = after(flows_of(graph, [(0, 3, 8), (4, 3, 3)], paths), 4, 6, 0)
    assert made.carried_bps().tolist() == [5, 0]


def test_who_has_a_latency_bound_is_given_the_quick_way_though_it_is_narrow_and_has_many_hops():
    hops = [(at, at + 1, 2.0, 0.4) for at in range(2, 6)]
    graph = graph_of("abcdefg", [(0, 1, 9.0, 1.0), (0, 1, 9.0, 5.0), (0, 2, 2.0, 0.4), *hops, (6, 1, 2.0, 0.4)])
    made = after(flows_of(graph, [(0, 1, 9)], [(0, (0,), 9)], most_us=[3]), 0)
    assert made.carried_bps() == pytest.approx([2])


@pytest.mark.parametrize(("ranks", "carried"), [((0, 1), [10, 2]), ((1, 0), [2, 10]), ((0, 0), [2, 10])])
def test_a_class_that_comes_first_takes_from_one_that_comes_later(ranks, carried):
    paths = [(0, (8,), 10), (1, (4, 6), 10), (0, (4, 6), 0), (0, (0, 2), 0), (1, (0, 2), 0)]
    graph = graph_of("abcd", [(0, 1, 2.0, 1.0), (1, 3, 2.0, 1.0), *SQUARE[2:]])
    made = after(flows_of(graph, [(0, 3, 10), (0, 3, 10)], paths), 4, ranks=np.array(ranks, np.int32))
    assert made.carried_bps() == pytest.approx(carried)


def test_a_link_that_shrank_takes_from_the_class_that_comes_last():
    flows = flows_of(square(), [(0, 3, 5), (0, 3, 5)], [(0, (8,), 5), (1, (8,), 5)])
    less = flows.graph.without([0, 2])
    less.capacity_bps[8] = 6.0
    made = refilled(flows, less, ranks=np.array([1, 0], np.int32))
    keeps_its_bounds(made)
    assert made.carried_bps() == pytest.approx([1, 5])
    assert refilled(flows, less).carried_bps() == pytest.approx([3, 3])


def test_what_is_left_over_goes_by_class_and_then_to_the_shortest_way():
    demands = [(0, 3, 10), (0, 3, 9), (0, 1, 9), (1, 3, 9)]
    paths = [(0, (8,), 10), (1, (0, 2), 0), (2, (0,), 0), (3, (2,), 0)]
    flows = flows_of(square(), demands, paths)
    cut = {"ranks": np.array([0, 1, 1, 1], np.int32)}
    flows = flows._replace(rate_bps=np.zeros(4))
    assert after(flows, 2, 4, **cut).carried_bps().tolist() == [10, 0, 0, 0]  # the first class has all of b
    same = {"ranks": np.array([1, 1, 1, 1], np.int32)}
    assert after(flows, 2, 4, **same).carried_bps() == pytest.approx([0, 1, 9, 9])


def test_many_paths_are_tried_in_parts_as_if_at_once(monkeypatch):
    graph = graph_of("ab", [(0, 1, 10.0, 1.0)] * 6)
    paths = [(demand, (2 * link,), 0) for demand in range(3) for link in range(6)]
    flows = flows_of(graph, [(0, 1, 25), (0, 1, 15), (0, 1, 30)], paths)
    whole = refilled(flows, graph)
    assert whole.carried_bps().sum() == 60
    for chunk in (1, 2, 5):
        monkeypatch.setattr(refill, "CHUNK", chunk)
        assert refilled(flows, graph).rate_bps.tolist() == whole.rate_bps.tolist()


@pytest.mark.parametrize("chunk", [1, 512])
def test_paths_of_one_share_have_no_more_than_it_together(monkeypatch, chunk):
    monkeypatch.setattr(refill, "CHUNK", chunk)
    graph = graph_of("ab", [(0, 1, 10.0, 1.0)] * 5)
    flows = flows_of(graph, [(0, 1, 99), (0, 1, 8)], [(at % 2, (2 * at,), 0) for at in range(5)])
    rate, left = np.zeros(5), graph.capacity_bps.copy()
    share = np.array([0, 1, 1, 0, 2])  # the third path comes when nothing of its share is left
    lacks = taken(flows.columns, rate, left, np.array([99.0, 8.0]), np.arange(5), (share, np.array([13.0, 6.0, 9.0])))
    assert rate.tolist() == [10, 6, 0, 2, 9]
    assert lacks.tolist() == [80, 0]
    assert (graph.capacity_bps - left)[::2].tolist() == [10, 6, 0, 2, 9]


def test_what_one_way_does_not_hold_goes_over_the_next():
    # Nothing was lost: more is asked than was carried, and links are free. Three ways, the shortest is not enough.
    graph = graph_of("abcd", [(0, 3, 4.0, 1.0), (0, 1, 5.0, 1.0), (1, 3, 5.0, 1.0), (0, 2, 3.0, 9.0), (2, 3, 3.0, 9.0)])
    made = after(flows_of(graph, [(0, 3, 12)], [(0, (0,), 0)]))
    assert (over(made, 0), over(made, 2, 4), over(made, 6, 8)) == (4, 5, 3)
