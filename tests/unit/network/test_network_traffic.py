"""Traffic engineering: never over a bound, and as good as the exact optimum over all paths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import best_by_arcs, cases, every_path, keeps_its_bounds
from scipy.optimize import linprog

from tieline.network.graph import Graph
from tieline.network.refill import refilled
from tieline.network.shift import shifted
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


def after_a_cut(case, cut):
    graph, traffic = case
    flows = routed(graph, traffic)
    less = graph.without([cut % (graph.arc_count // 2)]) if graph.arc_count else graph
    return flows, refilled(flows, less)


@given(cases(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_what_survives_a_cut_stays_and_nothing_is_left_that_somebody_lacks(case, cut):
    flows, first = after_a_cut(case, cut)
    keeps_its_bounds(first)
    for path in range(len(flows.columns)):
        if first.graph.is_up[flows.columns.path(path)].all():
            assert first.rate_bps[path] >= flows.rate_bps[path] * (1 - 1e-9) - 1e-9
    lacks = first.traffic.asked_bps - first.carried_bps()
    left = first.graph.capacity_bps - first.load_bps()
    free = first.graph.holding(np.where(left > 0.05, left, 0.0))
    for demand in np.flatnonzero(lacks > 0.05).tolist():
        source, target = int(first.traffic.source[demand]), int(first.traffic.target[demand])
        assert every_path(free, source, target) == [], demand


@given(cases(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_moving_survivors_too_is_as_good_as_the_known_paths_can_be(case, cut):
    _, first = after_a_cut(case, cut)
    second = shifted(first)
    keeps_its_bounds(second)
    assert second.worth >= first.worth
    columns, traffic = first.columns, first.traffic
    if len(columns):
        best = linprog(
            -traffic.value[columns.demand],
            A_ub=np.vstack([columns.by_arc().toarray(), columns.by_demand(traffic.count).toarray()]),
            b_ub=np.r_[first.graph.capacity_bps, traffic.asked_bps],
        )
        assert second.worth == pytest.approx(-best.fun, rel=1e-4, abs=1e-4)
