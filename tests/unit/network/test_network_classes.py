"""Floors, latency bounds, single paths and classes, each held to the exact programme over every path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import Everything, cases, keeps_its_bounds

from tieline.network.bounded import Guide
from tieline.network.classes import Class, Rank, mended, planned
from tieline.network.graph import Graph, graph_of
from tieline.network.refill import refilled
from tieline.network.single import pinned
from tieline.network.traffic import Traffic, routed

BOUNDS = st.lists(st.integers(0, 20), min_size=6, max_size=6)


def split(traffic, at):
    """The demands before a number, and those from it on."""
    return tuple(
        Traffic(traffic.source[s], traffic.target[s], traffic.asked_bps[s], traffic.value[s])
        for s in (slice(0, at), slice(at, None))
    )


@given(cases(), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_floors_are_kept_and_the_rest_is_optimal(case, turned):
    graph, traffic = case
    first = routed(graph, traffic, enough=1e-6)
    floor = first.carried_bps() * (np.arange(traffic.count) % 2)
    other = traffic._replace(value=np.roll(traffic.value, turned) * (np.arange(traffic.count) % 3 > 0), floor_bps=floor)
    flows = routed(graph, other, start=first, enough=1e-6)
    keeps_its_bounds(flows)
    assert np.all(flows.carried_bps() >= floor * (1 - 1e-5) - 1e-8)
    best = Everything(graph, other).best(floor) if traffic.count else 0.0
    assert flows.bound >= best * (1 - 1e-5) - 1e-6
    assert flows.worth == pytest.approx(best, rel=1e-3, abs=1e-3)


@given(cases(), BOUNDS)
@settings(max_examples=80, deadline=None)
def test_bounded_demands_use_only_paths_that_are_quick_enough(case, most):
    graph, traffic = case
    bounded = traffic._replace(most_us=np.array(most[: traffic.count], dtype=np.float64))
    flows = routed(graph, bounded, enough=1e-6)
    keeps_its_bounds(flows)
    for path in range(len(flows.columns)):
        assert graph.delay_us[flows.columns.path(path)].sum() <= most[flows.columns.demand[path]]
    best = Everything(graph, bounded).best() if traffic.count else 0.0
    assert flows.bound >= best - 1e-6
    assert flows.worth == pytest.approx(best, rel=5e-3, abs=1e-3)
    cut = graph.without([0]) if graph.arc_count else graph
    again = refilled(flows, cut)
    keeps_its_bounds(again)
    for path in range(len(again.columns)):
        assert graph.delay_us[again.columns.path(path)].sum() <= most[again.columns.demand[path]]


def test_a_search_that_is_cut_short_still_proves_a_bound(monkeypatch):
    # A ladder of diamonds: quick and dear, or slow and cheap, at every step.
    steps = 12
    links = []
    for step in range(steps):
        links += [
            (2 * step, 2 * step + 1, 1.0, 1.0),
            (2 * step, 2 * step + 1, 1.0, 3.0),
            (2 * step + 1, 2 * step + 2, 1.0, 1.0),
        ]
    graph = graph_of([str(each) for each in range(2 * steps + 1)], links)
    price = np.where(graph.delay_us == 1.0, 2.0, 1.0) + np.arange(graph.arc_count) * 1e-3
    guide = Guide(graph, np.array([2 * steps], dtype=np.int32))
    to = guide.priced(price)
    whole = guide.cheapest(price, to, 0, 2 * steps, 30.0, 1e9)
    assert graph.delay_us[list(whole.arcs)].sum() <= 30
    assert price[list(whole.arcs)].sum() == pytest.approx(whole.least)
    monkeypatch.setattr("tieline.network.bounded.MOST_LABELS", 20)
    short = guide.cheapest(price, to, 0, 2 * steps, 30.0, 1e9)
    assert short.arcs == ()
    assert 0 < short.least <= whole.least


@given(cases())
@settings(max_examples=60, deadline=None)
def test_single_paths_fit_and_the_bound_holds_against_every_choice(case):
    graph, traffic = case
    traffic = Traffic(*(column[:3] for column in traffic[:4]))
    answer = pinned(graph, traffic)
    assert np.all(answer.load_bps() <= graph.capacity_bps + 1e-6)
    assert np.all(answer.columns.demand[answer.path[answer.path >= 0]] == np.flatnonzero(answer.path >= 0))
    choices = [[None] for _ in range(traffic.count)]
    for demand, path in Everything(graph, traffic).paths:
        choices[demand].append(path)
    best = 0.0
    for choice in itertools.islice(itertools.product(*choices), 4000):
        load = np.zeros(graph.arc_count)
        worth = 0.0
        for demand, path in enumerate(choice):
            if path is not None:
                load[path] += traffic.asked_bps[demand]
                worth += traffic.asked_bps[demand] * traffic.value[demand]
        if np.all(load <= graph.capacity_bps + 1e-9):
            best = max(best, worth)
    assert answer.bound >= best - 1e-6
    assert answer.worth <= answer.bound + 1e-6
    assert answer.worth >= 0.5 * best  # paths are those of the split answer; the gap says what that may cost


@given(cases(), st.booleans(), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_class_is_served_as_if_those_after_it_were_not_there(case, is_fair, cut):
    graph, traffic = case
    high, low = split(traffic, traffic.count // 2)
    plan = planned(graph, [Class(Rank.BEST_EFFORT, low, is_fair=is_fair), Class(Rank.DEADLINE, high)])
    assert [share.rank for share in plan.shares] == [Rank.DEADLINE, Rank.BEST_EFFORT]
    assert np.all(plan.load_bps() <= graph.capacity_bps * (1 + 1e-9) + 1e-6)
    first, second = plan.shares
    alone = Everything(graph, high).best() if high.count else 0.0
    assert first.worth == pytest.approx(alone, rel=5e-3, abs=1e-3)
    assert plan.flows is not None
    got = plan.flows.carried_bps()
    assert np.all(got[: high.count] >= first.carried_bps * (1 - 1e-5) - 1e-8)
    if not is_fair and traffic.count:
        both = traffic._replace(value=np.r_[np.zeros(high.count), low.value])
        best = Everything(graph, both).best(np.r_[first.carried_bps, np.zeros(low.count)])
        assert second.worth == pytest.approx(best, rel=5e-3, abs=1e-3)
    after = graph.without([cut % (graph.arc_count // 2)]) if graph.arc_count else graph
    now = mended(plan, after)
    assert np.all(now.load_bps() <= after.capacity_bps * (1 + 1e-9) + 1e-6)
    for asked, is_now in zip((high, low), now.shares, strict=True):  # what one lost another may have
        assert np.all(is_now.carried_bps <= asked.asked_bps * (1 + 1e-5) + 1e-6)
    assert now.shares[0].worth <= first.bound * (1 + 1e-5) + 1e-6


def test_a_protected_circuit_is_pinned_and_a_cut_takes_from_the_last_class_first():
    # Two ways from a to c: over b with 10, direct with 10.
    graph = graph_of("abc", [(0, 1, 10.0, 1.0), (1, 2, 10.0, 1.0), (0, 2, 10.0, 5.0)])
    one = np.array([0], dtype=np.int32), np.array([2], dtype=np.int32)
    circuit = Traffic(*one, np.array([4.0]), np.ones(1))
    deadline = Traffic(*one, np.array([9.0]), np.ones(1))
    rest = Traffic(*one, np.array([50.0]), np.ones(1))
    plan = planned(
        graph,
        [
            Class(Rank.PROTECTED, circuit, is_single=True),
            Class(Rank.DEADLINE, deadline),
            Class(Rank.BEST_EFFORT, rest, is_fair=True),
        ],
    )
    assert [share.carried_bps.tolist() for share in plan.shares] == [[4.0], [9.0], [pytest.approx(7.0)]]
    cut = graph.without([1] if plan.shares[0].pin.load_bps()[4] else [2])  # not the circuit's
    now = mended(plan, cut)
    assert now.shares[0].carried_bps.tolist() == [4.0]
    assert now.shares[1].carried_bps.tolist() == [pytest.approx(6.0)]
    assert now.shares[2].carried_bps.sum() == pytest.approx(0.0, abs=0.1)


def test_a_path_without_delay_is_quick_enough_for_any_bound():
    # Three links side by side, the first and last without delay: both may carry what may take no time at all.
    graph = graph_of("ab", [(0, 1, 1.0, 0.0), (0, 1, 1.0, 1.0), (0, 1, 1.0, 0.0)])
    traffic = Traffic(np.array([0], np.int32), np.array([1], np.int32), np.array([2.0]), np.ones(1))
    flows = routed(graph, traffic._replace(most_us=np.zeros(1)), enough=1e-6)
    assert (flows.worth, flows.bound) == (pytest.approx(2.0), pytest.approx(2.0))


def test_a_demand_goes_whole_over_the_one_slow_link_that_holds_it():
    capacity = np.repeat([4.0, 4.0, 5.0], 2)
    delay = np.repeat([0.0, 0.0, 1_000.0], 2)
    ends = np.array([0, 1] * 3, dtype=np.int32)
    graph = Graph(("a", "b"), ends, 1 - ends, capacity, delay, np.zeros(6))
    one = np.array([0], dtype=np.int32)
    answer = pinned(graph, Traffic(one, one + 1, np.array([5.0]), np.ones(1)))
    assert answer.worth == 5.0
    assert answer.columns.path(int(answer.path[0])).tolist() == [4]
