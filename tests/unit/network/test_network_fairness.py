"""Max-min fairness: held to exact progressive filling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from network_cases import Everything, cases, keeps_its_bounds

from tieline.network.fairness import fair
from tieline.network.graph import graph_of
from tieline.network.traffic import Traffic


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
