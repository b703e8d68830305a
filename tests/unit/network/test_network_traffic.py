"""Traffic engineering: never over a bound, and as good as the exact optimum over all paths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import best_by_arcs, cases, keeps_its_bounds

from tieline.network.graph import Graph
from tieline.network.refill import refilled
from tieline.network.traffic import Traffic, routed


@given(cases())
@settings(max_examples=80, deadline=None)
def test_as_good_as_the_optimum_over_all_paths(case: tuple[Graph, Traffic]) -> None:
    graph, traffic = case
    flows = routed(graph, traffic, enough=1e-6)
    keeps_its_bounds(flows)
    best = best_by_arcs(graph, traffic) if traffic.count and graph.arc_count else 0.0
    assert flows.bound >= best - 1e-6
    assert flows.worth == pytest.approx(best, rel=1e-4, abs=1e-4)


@given(cases(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_refill_keeps_every_bound_and_loses_nothing_that_survives(case: tuple[Graph, Traffic], cut: int) -> None:
    graph, traffic = case
    flows = routed(graph, traffic)
    links = graph.arc_count // 2
    after = graph.without([cut % links]) if links else graph
    again = refilled(flows, after)
    keeps_its_bounds(again)
    arcs_up = after.is_up
    for path in range(len(flows.columns)):
        arcs = flows.columns.arcs[flows.columns.start[path] : flows.columns.start[path + 1]]
        if np.all(arcs_up[arcs]):
            assert again.rate_bps[path] >= flows.rate_bps[path] - 1e-9
