"""From one routing to another: no mixture of two steps overloads an arc, and no more moves than must."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import cases, keeps_its_bounds

from tieline.network.columns import Columns
from tieline.network.graph import graph_of
from tieline.network.traffic import Traffic, routed
from tieline.network.update import calmed, is_safe, steps_between


def moved(draw_case, worth):
    """Two routings of the same paths: by one value of each demand, then by another."""
    graph, traffic = draw_case
    first = routed(graph, traffic)
    turned = traffic._replace(value=1.0 + np.array(worth[: traffic.count], dtype=np.float64))
    second = routed(graph, turned, start=first)
    old = np.concatenate([first.rate_bps, np.zeros(len(second.columns) - len(first.rate_bps))])
    return graph, old, second


@given(cases(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_mixture_of_two_steps_fits(case, worth):
    graph, old, second = moved(case, worth)
    columns = second.columns
    steps = steps_between(columns, old, second.rate_bps, graph.capacity_bps)
    assert np.array_equal(steps.rates_bps[-1], second.rate_bps)
    assert len(steps.rates_bps) <= 2
    assert steps.carried_bps == pytest.approx(min(old.sum(), *(rate.sum() for rate in steps.rates_bps)), rel=1e-9)
    at = old
    for rate in steps.rates_bps:
        asked = np.maximum(*(np.bincount(columns.demand, each, 6) for each in (old, second.rate_bps)))
        assert np.all(np.bincount(columns.demand, rate, 6) <= asked * (1 + 1e-6) + 1e-6)  # nobody gets what none asked
        # Each path may be at its old rate or at its new one: look at every mixture of the paths that change.
        paths = [columns.path(path) for path in range(len(columns))]
        changed = [path for path in range(len(columns)) if at[path] != rate[path]][:10]
        for mixture in itertools.product((False, True), repeat=len(changed)):
            load = np.zeros(graph.arc_count)
            now = np.minimum(at, rate)
            now[changed] = np.where(mixture, rate[changed], at[changed])
            for path, arcs in enumerate(paths):
                load[arcs] += now[path]
            assert np.all(load <= graph.capacity_bps * (1 + 1e-8) + 1e-5)
        assert is_safe(columns, at, rate, graph.capacity_bps)
        at = rate


@given(cases(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_calmed_answer_is_as_good_and_moves_no_more(case, worth):
    _, old, second = moved(case, worth)
    calm = calmed(second, old)
    keeps_its_bounds(calm)
    assert calm.worth >= second.worth * (1 - 2e-3) - 1e-9
    assert np.maximum(calm.rate_bps - old, 0).sum() <= np.maximum(second.rate_bps - old, 0).sum() * (1 + 1e-6) + 1e-6


def test_a_swap_of_two_full_ways_needs_a_step_between_that_carries_less():
    # Two ways of 10 from a to d; two demands of 10 that trade ways. At once, a way could be asked for 20.
    graph = graph_of("abcd", [(0, 1, 10.0, 1.0), (1, 3, 10.0, 1.0), (0, 2, 10.0, 2.0), (2, 3, 10.0, 2.0)])
    pair = np.array([0, 0], dtype=np.int32), np.array([3, 3], dtype=np.int32)
    flows = routed(graph, Traffic(*pair, np.array([10.0, 10.0]), np.ones(2)))
    columns = flows.columns
    short = [path for path in range(len(columns)) if 0 in columns.path(path).tolist()]
    long = [path for path in range(len(columns)) if 4 in columns.path(path).tolist()]
    of = {(int(columns.demand[path]), path in short): path for path in short + long}
    old, new = np.zeros(len(columns)), np.zeros(len(columns))
    old[[of[0, True], of[1, False]]] = 10.0
    new[[of[0, False], of[1, True]]] = 10.0
    steps = steps_between(columns, old, new, graph.capacity_bps)
    assert len(steps.rates_bps) == 2
    assert not steps.is_lossless
    assert steps.carried_bps == pytest.approx(0.0, abs=1e-6)  # nothing is free: all of it must stop to trade places
    half = steps_between(columns, old / 2, new / 2, graph.capacity_bps)
    assert (len(half.rates_bps), half.is_lossless) == (1, True)


@given(cases(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_large_answer_is_calmed_by_going_back_a_part_of_the_way(case, worth):
    _, old, second = moved(case, worth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tieline.network.update.SMALL", -1)
        calm = calmed(second, old, give=0.05)
    keeps_its_bounds(calm)
    assert calm.worth >= second.worth * 0.95 - 1e-9
    assert np.maximum(calm.rate_bps - old, 0).sum() <= np.maximum(second.rate_bps - old, 0).sum() + 1e-6


def trade(rate, capacity=10.0):
    """Two demands of ``rate`` on two ways from a to d, old and new: they trade ways."""
    links = [(0, 1, capacity, 1.0), (1, 3, capacity, 1.0), (0, 2, capacity, 2.0), (2, 3, capacity, 2.0)]
    graph = graph_of("abcd", links)
    columns = Columns(graph)
    for demand, arcs in ((0, (0, 2)), (0, (4, 6)), (1, (0, 2)), (1, (4, 6))):
        columns.add_path(demand, arcs)
    return graph, columns, np.array([rate, 0.0, 0.0, rate]), np.array([0.0, rate, rate, 0.0])


@pytest.mark.parametrize(("rate", "steps", "carried"), [(5.0, 1, 10.0), (6.0, 2, 12.0), (7.5, 2, 10.0), (9.0, 2, 4.0)])
def test_the_step_between_keeps_as_much_as_can_be_kept(rate, steps, carried):
    # Of each way 10 - rate is free at both ends, so each demand may have that much on either way in between.
    graph, columns, old, new = trade(rate)
    done = steps_between(columns, old, new, graph.capacity_bps)
    assert len(done.rates_bps) == steps
    assert done.carried_bps == pytest.approx(carried)
    assert done.is_lossless == (carried >= 2 * rate)


def test_what_one_demand_loses_is_no_less_a_loss_because_another_gains():
    graph, columns, old, new = trade(9.0)
    old, new = np.r_[old, 0.0], np.r_[new, 50.0]
    wide = graph_of(
        "abcde", [*((int(graph.tail[a]), int(graph.head[a]), 10.0, 1.0) for a in (0, 2, 4, 6)), (3, 4, 90.0, 1.0)]
    )
    both = Columns(wide)
    for path in range(4):
        both.add_path(int(columns.demand[path]), columns.path(path).tolist())
    both.add_path(2, [8])
    done = steps_between(both, old, new, wide.capacity_bps)
    assert not done.is_lossless


def one_way_or_the_other(most=10.0):
    """A demand of 10 and two ways of 10: as good on either."""
    graph = graph_of("abcd", [(0, 1, most, 1.0), (1, 3, most, 1.0), (0, 2, most, 2.0), (2, 3, most, 2.0)])
    flows = routed(graph, Traffic(np.array([0], np.int32), np.array([3], np.int32), np.array([10.0]), np.ones(1)))
    ways = [tuple(flows.columns.path(path).tolist()) for path in range(len(flows.columns))]
    short, long = ways.index((0, 2)), ways.index((4, 6))
    rate = np.zeros(len(ways))
    rate[short] = 10.0
    old = np.zeros(len(ways))
    old[long] = 10.0
    return flows._replace(rate_bps=rate), old, short, long


@pytest.mark.parametrize("most", [60_000, -1], ids=["exact", "blended"])
def test_nothing_moves_where_nothing_is_gained_by_it(monkeypatch, most):
    monkeypatch.setattr("tieline.network.update.SMALL", most)
    flows, old, _, _ = one_way_or_the_other()
    assert calmed(flows, old).rate_bps == pytest.approx(old)


def test_a_large_answer_goes_back_as_far_as_it_may_give(monkeypatch):
    monkeypatch.setattr("tieline.network.update.SMALL", -1)
    flows, old, short, long = one_way_or_the_other()
    calm = calmed(flows, old / 2, give=0.05)  # 10 is carried, and was 5: a tenth of the way back gives up 0.5
    assert (calm.rate_bps[short], calm.rate_bps[long]) == (pytest.approx(9.0), pytest.approx(0.5))


def test_calm_takes_from_no_floor():
    graph = graph_of("ab", [(0, 1, 10.0, 1.0)])
    pair = np.array([0, 0], np.int32), np.array([1, 1], np.int32)
    held = Traffic(*pair, np.array([4.0, 10.0]), np.array([1e-6, 1.0]), np.array([4.0, 0.0]))
    flows = routed(graph, held._replace(floor_bps=None, value=np.array([2.0, 1.0])))._replace(traffic=held)
    assert flows.carried_bps() == pytest.approx([4.0, 6.0])
    old = np.where(flows.columns.demand == 1, 6.0, 0.0)
    assert calmed(flows, old, give=0.5).carried_bps()[0] == pytest.approx(4.0)


def two_on_a_link():
    """A link of 10: who is worth more has all of it now, and shared it before."""
    graph = graph_of("ab", [(0, 1, 10.0, 1.0)])
    pair = np.array([0, 0], np.int32), np.array([1, 1], np.int32)
    flows = routed(graph, Traffic(*pair, np.array([10.0, 10.0]), np.array([3.0, 1.0])))
    assert flows.carried_bps() == pytest.approx([10.0, 0.0])
    return flows, np.full(len(flows.columns), 5.0)


def test_calm_gives_up_what_it_may_and_no_more():
    flows, old = two_on_a_link()
    calm = calmed(flows, old, give=0.01)  # 0.3 of the worth of 30: 0.15 stays with who has less
    assert calm.carried_bps() == pytest.approx([9.85, 0.15], rel=1e-3)
    assert calmed(flows, old).carried_bps() == pytest.approx([9.985, 0.015], rel=1e-3)


@pytest.mark.parametrize("spoilt", [0.5, 0.99])
def test_a_calm_answer_that_came_out_worse_is_not_taken(monkeypatch, spoilt):
    flows, old = two_on_a_link()
    monkeypatch.setattr("tieline.network.update.repaired", lambda programme, rate: rate * spoilt)
    assert calmed(flows, old) is flows


def test_a_calm_answer_that_lost_a_floor_is_not_taken(monkeypatch):
    flows, old = two_on_a_link()
    held = flows._replace(traffic=flows.traffic._replace(floor_bps=np.array([10.0, 0.0]), value=np.array([1.0, 1.0])))
    other = np.where(flows.columns.demand == 1, 10.0, 0.0)  # worth as much, and of somebody else
    monkeypatch.setattr("tieline.network.update.repaired", lambda *_: other)
    assert calmed(held, old) is held


def test_nobody_loses_who_is_to_have_less():
    graph, columns, old, new = trade(6.0)
    new = new * np.array([1.0, 0.5, 1.0, 1.0])  # of the first demand half remains
    done = steps_between(columns, old, new, graph.capacity_bps)
    assert (len(done.rates_bps), done.is_lossless) == (2, True)
    assert done.carried_bps == pytest.approx(new.sum())


@pytest.mark.parametrize(("before", "after"), [(2.0, 5.0), (5.0, 2.0)])
def test_the_lowest_point_of_one_step_is_the_smaller_end(before, after):
    graph, columns, old, new = trade(1.0)
    assert steps_between(columns, before * old, after * new, graph.capacity_bps).carried_bps == pytest.approx(4.0)


def test_who_is_to_have_less_loses_nothing_by_having_that_at_once():
    graph, columns, *_ = trade(1.0)
    old, new = np.array([10.0, 0.0, 0.0, 8.0]), np.array([0.0, 2.0, 10.0, 0.0])
    done = steps_between(columns, old, new, graph.capacity_bps)
    assert (len(done.rates_bps), done.is_lossless) == (2, True)
    assert done.rates_bps[0] == pytest.approx([0, 2, 0, 8], abs=1e-6)
