"""Max-min fairness: held to exact progressive filling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

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
