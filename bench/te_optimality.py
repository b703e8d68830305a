"""Traffic engineering against the optimum: the exact linear programme up to 50 nodes, a proven bound above.

The exact programme knows no paths: flow conservation at every node, one commodity a source (the same optimum, as all
demands are worth the same), by HiGHS. It is another formulation and another solver run, in the same process.
"""

from __future__ import annotations

from time import perf_counter, process_time

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_diag, coo_array, csr_array, hstack

from bench.row import Row
from bench.te_world import LARGE, SMALL, Case
from tieline.network.traffic import routed


def run() -> list[Row]:
    """One row a network."""
    return [_small(make()) for make in SMALL] + [_large(make()) for make in LARGE]


def _small(case: Case) -> Row:
    began = perf_counter()
    flows = routed(case.graph, case.traffic)
    took = perf_counter() - began
    best = by_arcs(case)
    if flows.bound < best * (1 - 1e-6):
        raise AssertionError(f"{case.name}: the bound {flows.bound} is below the optimum {best}")
    return _row(
        case, flows.worth, best, "exact LP over arcs (HiGHS)", "0.99x", f"{took:.2f} s; own gap {flows.gap:.4f}"
    )


def _large(case: Case) -> Row:
    began, cpu = perf_counter(), process_time()
    flows = routed(case.graph, case.traffic)
    note = f"{perf_counter() - began:.1f} s, {process_time() - cpu:.1f} s CPU, with paths; {flows.rounds} rounds"
    return _row(case, flows.worth, flows.bound, "proven bound over all paths", "0.98x", note)


def _row(case: Case, worth: float, best: float, name: str, target: str, note: str) -> Row:
    size = f"{case.graph.node_count} nodes, {case.traffic.count:,} demands"
    return Row(
        claim=f"throughput: {case.name} ({size})",
        figure=worth,
        unit="units/s",
        anchor=best,
        anchor_name=name,
        ratio=worth / best,
        target=target,
        note=f"synthetic demands; {note}",
    )


def by_arcs(case: Case) -> float:
    """The optimum without paths: what leaves each source is its demands, and each target takes its part."""
    graph, traffic = case.graph, case.traffic
    n, arcs = graph.node_count, np.arange(graph.arc_count)
    ends = csr_array(
        (np.r_[np.ones(len(arcs)), -np.ones(len(arcs))], (np.r_[graph.tail, graph.head], np.r_[arcs, arcs])),
        shape=(n, len(arcs)),
    )
    sources = np.unique(traffic.source)
    of = np.searchsorted(sources, traffic.source)
    every = np.arange(traffic.count)
    one = np.ones(traffic.count)
    given = coo_array(
        (np.r_[-one, one], (np.r_[of * n + traffic.source, of * n + traffic.target], np.r_[every, every])),
        shape=(len(sources) * n, traffic.count),
    )
    balance = hstack([block_diag([ends] * len(sources), format="csr"), given.tocsr()]).tocsc()
    shared = hstack(
        [hstack([csr_array((np.ones(len(arcs)), (arcs, arcs)))] * len(sources)), csr_array((len(arcs), traffic.count))]
    ).tocsc()
    width = len(sources) * len(arcs)
    aim = np.r_[np.zeros(width), -traffic.value]
    limits = np.c_[np.zeros(width + traffic.count), np.r_[np.full(width, np.inf), traffic.asked_bps]]
    answer = linprog(
        aim,
        A_ub=shared,
        b_ub=graph.capacity_bps,
        A_eq=balance,
        b_eq=np.zeros(balance.shape[0]),
        bounds=limits,
        method="highs-ipm",
    )
    if answer.status != 0:
        raise ArithmeticError(answer.message)
    return float(-answer.fun)
