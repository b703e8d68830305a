"""Traffic engineering: never over a bound, and as good as the exact optimum over all paths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.network.graph import Graph, graph_of
from tieline.network.refill import refilled
from tieline.network.traffic import Flows, Traffic, routed


def best_by_arcs(graph: Graph, traffic: Traffic) -> float:
    """The optimum by a formulation that knows no paths: conservation at every node, one commodity a demand (scipy)."""
    from scipy.optimize import linprog
    from scipy.sparse import lil_array

    arcs, demands, nodes = graph.arc_count, traffic.count, graph.node_count
    width = demands * arcs + demands
    balance = lil_array((demands * nodes, width))
    shared = lil_array((arcs, width))
    for demand in range(demands):
        for arc in range(arcs):
            balance[demand * nodes + int(graph.tail[arc]), demand * arcs + arc] += 1
            balance[demand * nodes + int(graph.head[arc]), demand * arcs + arc] -= 1
            shared[arc, demand * arcs + arc] = 1
        balance[demand * nodes + int(traffic.source[demand]), demands * arcs + demand] -= 1
        balance[demand * nodes + int(traffic.target[demand]), demands * arcs + demand] += 1
    aim = np.concatenate([np.zeros(demands * arcs), -traffic.value])
    limits = [(0.0, None)] * (demands * arcs) + [(0.0, float(most)) for most in traffic.asked_bps]
    answer = linprog(
        aim, A_ub=shared.tocsc(), b_ub=graph.capacity_bps, A_eq=balance.tocsc(), b_eq=np.zeros(demands * nodes), bounds=limits
    )
    assert answer.status == 0, answer.message
    return float(-answer.fun)


def keeps_its_bounds(flows: Flows) -> None:
    assert np.all(flows.rate_bps >= 0)
    assert np.all(flows.load_bps() <= flows.graph.capacity_bps * (1 + 1e-9) + 1e-6)
    assert np.all(flows.carried_bps() <= flows.traffic.asked_bps * (1 + 1e-9) + 1e-6)
    for path in range(len(flows.columns)):
        arcs = flows.columns.arcs[flows.columns.start[path] : flows.columns.start[path + 1]]
        demand = flows.columns.demand[path]
        assert flows.graph.tail[arcs[0]] == flows.traffic.source[demand]
        assert flows.graph.head[arcs[-1]] == flows.traffic.target[demand]
        assert np.all(flows.graph.head[arcs[:-1]] == flows.graph.tail[arcs[1:]])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Graph, Traffic]:
    nodes = draw(st.integers(2, 6))
    ends = st.integers(0, nodes - 1)
    links = draw(
        st.lists(st.tuples(ends, ends, st.integers(0, 20), st.integers(0, 9)).filter(lambda link: link[0] != link[1]), max_size=10)
    )
    graph = graph_of([str(each) for each in range(nodes)], [(a, b, float(rate), float(us)) for a, b, rate, us in links])
    asked = draw(st.lists(st.tuples(ends, ends, st.integers(0, 15), st.integers(1, 3)).filter(lambda d: d[0] != d[1]), max_size=6))
    source, target, rate, value = (list(column) for column in zip(*asked, strict=True)) if asked else ([], [], [], [])
    return graph, Traffic(
        np.array(source, dtype=np.int32),
        np.array(target, dtype=np.int32),
        np.array(rate, dtype=np.float64),
        np.array(value, dtype=np.float64),
    )


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
