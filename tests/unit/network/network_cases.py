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
        aim,
        A_ub=shared.tocsc(),
        b_ub=graph.capacity_bps,
        A_eq=balance.tocsc(),
        b_eq=np.zeros(demands * nodes),
        bounds=limits,
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
        st.lists(
            st.tuples(ends, ends, st.integers(0, 20), st.integers(0, 9)).filter(lambda link: link[0] != link[1]),
            max_size=10,
        )
    )
    graph = graph_of([str(each) for each in range(nodes)], [(a, b, float(rate), float(us)) for a, b, rate, us in links])
    asked = draw(
        st.lists(
            st.tuples(ends, ends, st.integers(0, 15), st.integers(1, 3)).filter(lambda d: d[0] != d[1]), max_size=6
        )
    )
    source, target, rate, value = (list(column) for column in zip(*asked, strict=True)) if asked else ([], [], [], [])
    return graph, Traffic(
        np.array(source, dtype=np.int32),
        np.array(target, dtype=np.int32),
        np.array(rate, dtype=np.float64),
        np.array(value, dtype=np.float64),
    )


def every_path(graph: Graph, source: int, target: int, most_us: float = np.inf) -> list[list[int]]:
    """All simple paths that are quick enough, by looking at every one."""
    found: list[list[int]] = []

    def walk(node: int, arcs: list[int], seen: set[int], us: float) -> None:
        if us > most_us:
            return
        if node == target:
            found.append(list(arcs))
            return
        for arc in range(graph.arc_count):
            head = int(graph.head[arc])
            if graph.tail[arc] == node and head not in seen and graph.capacity_bps[arc] > 0:
                walk(head, [*arcs, arc], seen | {head}, us + float(graph.delay_us[arc]))

    walk(source, [], {source}, 0.0)
    return found


class Everything:
    """The exact programme over all paths of a small network, path by path."""

    def __init__(self, graph: Graph, traffic: Traffic) -> None:
        self.graph, self.traffic = graph, traffic
        most = np.full(traffic.count, np.inf) if traffic.most_us is None else traffic.most_us
        self.paths = [
            (demand, path)
            for demand in range(traffic.count)
            for path in every_path(graph, int(traffic.source[demand]), int(traffic.target[demand]), float(most[demand]))
        ]
        self.by_arc = np.zeros((graph.arc_count, len(self.paths)))
        self.by_demand = np.zeros((traffic.count, len(self.paths)))
        for column, (demand, path) in enumerate(self.paths):
            self.by_arc[path, column] = 1
            self.by_demand[demand, column] = 1

    def best(self, floor: np.ndarray | None = None, asked: np.ndarray | None = None) -> float:
        """The most value, with floors."""
        from scipy.optimize import linprog

        if not self.paths:
            return 0.0
        asked = self.traffic.asked_bps if asked is None else asked
        rows = [self.by_arc, self.by_demand]
        bounds = [self.graph.capacity_bps, asked]
        if floor is not None:
            rows.append(-self.by_demand)
            bounds.append(-floor * (1 - 1e-6) + 1e-9)
        value = self.by_demand.T @ self.traffic.value
        answer = linprog(-value, A_ub=np.vstack(rows), b_ub=np.concatenate(bounds), bounds=(0, None), method="highs")
        assert answer.status == 0, answer.message
        return float(-answer.fun)

    def fair(self) -> np.ndarray:
        """Exact max-min rates by progressive filling: raise all that can rise together, freeze who cannot, again."""
        from scipy.optimize import linprog

        weight = self.traffic.value / self.traffic.value.max()
        frozen: dict[int, float] = {}
        count, width = self.traffic.count, len(self.paths) + 1  # the last column: the common level

        def solve(aim: np.ndarray, least: dict[int, float], level: float | None) -> float:
            rows, bounds = [np.c_[self.by_arc, np.zeros(len(self.by_arc))]], [self.graph.capacity_bps]
            for demand in range(count):
                row = np.r_[-self.by_demand[demand], 0.0]
                if demand in least:
                    bounds.append(np.array([-least[demand] + 1e-9]))
                else:
                    row[-1] = weight[demand] if level is None else 0.0
                    bounds.append(np.array([0.0 if level is None else -level * weight[demand] + 1e-9]))
                rows.append(row[None, :])
            rows.append(np.c_[self.by_demand, np.zeros(count)])
            bounds.append(self.traffic.asked_bps)
            answer = linprog(-aim, A_ub=np.vstack(rows), b_ub=np.concatenate(bounds), bounds=(0, None), method="highs")
            assert answer.status == 0, answer.message
            return float(-answer.fun)

        while len(frozen) < count:
            level = solve(np.r_[np.zeros(width - 1), 1.0], frozen, None)
            stuck = [
                demand
                for demand in range(count)
                if demand not in frozen
                and solve(np.r_[self.by_demand[demand], 0.0], frozen, level) <= level * weight[demand] + 1e-6
            ]
            assert stuck
            frozen.update((demand, level * weight[demand]) for demand in stuck)
        return np.array([frozen[demand] for demand in range(count)])
