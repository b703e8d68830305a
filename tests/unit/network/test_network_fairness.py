"""Max-min fairness: held to exact progressive filling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from network_cases import Everything, cases, keeps_its_bounds

from tieline.network.fairness import MOST_STEPS, _step, fair
from tieline.network.graph import graph_of
from tieline.network.traffic import Traffic, routed


def traffic_of(*asked):
    s, t, r = zip(*asked, strict=True)
    return Traffic(np.array(s, np.int32), np.array(t, np.int32), np.array(r, float), np.ones(len(s)))


def test_one_link_is_shared_alike():
    graph = graph_of("ab", [(0, 1, 90.0, 1.0)])
    flows = fair(graph, traffic_of((0, 1, 100), (0, 1, 100), (0, 1, 10)), step=1.05)
    assert flows.carried_bps() == pytest.approx([40, 40, 10], rel=0.06)


def test_the_long_way_gets_as_much_as_the_short_ones():
    # a - b - c: one demand over both links, one over each. By throughput the long one would get nothing.
    graph = graph_of("abc", [(0, 1, 10.0, 1.0), (1, 2, 30.0, 1.0)])
    flows = fair(graph, traffic_of((0, 2, 100), (0, 1, 100), (1, 2, 100)), step=1.05)
    assert flows.carried_bps() == pytest.approx([5, 5, 25], rel=0.06)


def test_rates_that_lie_far_apart_are_reached():
    # A modem beside a backbone: the steps from one to the other are bounded, and the large demand is not left half
    # served.
    graph = graph_of("abcd", [(0, 1, 1.0, 1.0), (2, 3, 1e15, 1.0)])
    flows = fair(graph, traffic_of((0, 1, 5), (2, 3, 1e15)), step=1.05)
    assert flows.carried_bps() == pytest.approx([1, 1e15], rel=1e-6)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_nobody_has_less_than_the_exact_fair_rate_by_more_than_a_step(case):
    graph, traffic = case
    flows = fair(graph, traffic, step=1.25)
    keeps_its_bounds(flows)
    if not traffic.count:
        return
    exact = Everything(graph, traffic).fair()
    got = flows.carried_bps()
    assert np.all(got >= exact / 1.25 * (1 - 1e-2) - 1e-6), (got, exact)
    # And nothing is left that somebody could have.
    assert flows.worth >= flows.bound * (1 - 3e-3) - 1e-6


@pytest.fixture
def programmes(monkeypatch):
    """How many programmes were solved."""
    seen = []

    def counted(*given, **more):
        seen.append(1)
        assert len(seen) < 1_000  # a search without an end would be one here too
        return routed(*given, **more)

    monkeypatch.setattr("tieline.network.fairness.routed", counted)
    return seen


def test_who_asks_for_more_than_any_link_has_is_no_louder_than_others():
    graph = graph_of("ab", [(0, 1, 90.0, 1.0)])
    assert fair(graph, traffic_of((0, 1, 1e15), (0, 1, 100)), step=1.05).carried_bps() == pytest.approx(
        [45, 45], rel=0.06
    )


def test_who_asks_for_the_impossible_is_no_louder_than_others():
    # Wide links at either end of a demand, and nothing that joins them.
    graph = graph_of("abcdef", [(0, 1, 90.0, 1.0), (2, 3, 1e15, 1.0), (4, 5, 1e15, 1.0)])
    got = fair(graph, traffic_of((0, 1, 100), (0, 1, 100), (2, 5, 1e15)), step=1.05).carried_bps()
    assert got == pytest.approx([45, 45, 0], rel=0.06)


def test_a_link_of_one_direction_joins_its_ends():
    graph = graph_of("ab", [(0, 1, 90.0, 1.0)])
    graph.capacity_bps[1] = 0.0
    assert fair(graph, traffic_of((0, 1, 50), (1, 0, 50))).carried_bps() == pytest.approx([50, 0])


def test_weights_are_shares():
    graph = graph_of("ab", [(0, 1, 90.0, 1.0)])
    asked = traffic_of((0, 1, 100), (0, 1, 100))._replace(value=np.array([4.0, 2.0]))
    assert fair(graph, asked, step=1.02).carried_bps() == pytest.approx([60, 30], rel=0.04)


def test_a_floor_is_kept_by_who_takes_part_and_the_question_comes_back_as_it_was():
    graph = graph_of("ab", [(0, 1, 10.0, 1.0)])
    asked = traffic_of((0, 1, 10), (0, 1, 10))
    start = routed(graph, asked._replace(value=np.array([2.0, 1.0]), asked_bps=np.array([8.0, 2.0])))
    floor = np.array([8.0, 0.0])
    flows = fair(graph, asked._replace(floor_bps=floor), start=start)
    assert flows.carried_bps() == pytest.approx([8, 2])
    assert flows.traffic.floor_bps is floor
    assert flows.traffic.asked_bps is asked.asked_bps
    assert fair(graph, asked).traffic.floor_bps is None


def test_steps_between_far_rates_are_bounded(programmes):
    graph = graph_of("abcd", [(0, 1, 1.0, 1.0), (2, 3, 1e15, 1.0)])
    fair(graph, traffic_of((0, 1, 5), (2, 3, 1e15)), step=1.001)
    assert MOST_STEPS // 2 < len(programmes) <= MOST_STEPS + 3


def test_the_search_ends_where_nobody_can_have_more(programmes):
    # Wide ends and a narrow middle: what is asked is out of reach, and every further step would change nothing.
    graph = graph_of("abcd", [(0, 1, 1e9, 1.0), (1, 2, 1.0, 1.0), (2, 3, 1e9, 1.0)])
    assert fair(graph, traffic_of((0, 3, 1e9), (0, 3, 1e9))).carried_bps() == pytest.approx([0.5, 0.5])
    assert len(programmes) <= 5


def test_where_the_choice_is_free_who_has_less_goes_first():
    asked, floor = np.array([9.0, 9.0, 9.0, 9.0]), np.array([1.0, 4.0, 2.0, 0.5])
    made = _step(traffic_of(*[(0, 1, 9)] * 4), asked, floor, np.array([True, True, True, False]))
    assert made.value[0] > made.value[2] > made.value[1] > 1.0  # nobody is worth so little that less is carried
    assert (made.value[3], made.value.max() <= 2.0) == (0.0, True)
    assert (made.asked_bps is asked, made.floor_bps is floor) == (True, True)
