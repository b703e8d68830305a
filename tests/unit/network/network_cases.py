"""Small networks with demands, an exact optimum for them that knows no paths, and what every answer must keep."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tieline.network.graph import Graph, graph_of
from tieline.network.traffic import Flows, Traffic


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
