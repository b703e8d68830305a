"""After a cut: the local refill at once, then the optimal re-plan, and the update to it that overloads nothing.

A busy link is cut, both directions. Refill and warm re-plan are held to the proven bound of a plan made from nothing
on the network that is left; doing nothing is shown beside them.
"""

from __future__ import annotations

from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np

from bench.row import Row
from bench.te_world import LARGE, SMALL, Case
from tieline.network.shift import first_repair
from tieline.network.traffic import Flows, routed
from tieline.network.update import calmed, is_safe, steps_between

CUTS = (0.0, 0.02, 0.05, 0.1, 0.25)  # links by load: the busiest, and others further down
ENOUGH = 0.002
UPDATED_NODES = 200  # up to which the update's programme is solved


class Cut(NamedTuple):
    """What one cut gave."""

    refill_s: float
    refill_cpu_s: float
    refill_ratio: float
    nothing_ratio: float
    replan_s: float
    replan_cpu_s: float
    replan_ratio: float
    steps: int
    kept: float  # carried at the lowest point of the update, of the smaller end


def run() -> list[Row]:
    """Two rows a network."""
    rows = []
    for make in (*SMALL, *LARGE):
        case = make()
        flows = routed(case.graph, case.traffic)
        order = np.argsort(-flows.load_bps().reshape(-1, 2).sum(axis=1), kind="stable")
        first_repair(flows, case.graph.without([int(order[0])]))  # modules are imported before anything is timed
        cuts = [_cut(flows, int(order[int(share * (len(order) - 1))])) for share in CUTS]
        rows += _rows(case, cuts)
    return rows


def _cut(flows: Flows, link: int) -> Cut:
    graph = flows.graph.without([link])
    began, began_cpu = perf_counter(), process_time()
    first = first_repair(flows, graph)
    refill_s, refill_cpu_s = perf_counter() - began, process_time() - began_cpu
    began, began_cpu = perf_counter(), process_time()
    again = routed(graph, flows.traffic, start=first, enough=ENOUGH)
    old = np.concatenate([first.rate_bps, np.zeros(len(again.columns) - len(first.rate_bps))])
    again = calmed(again, old)
    replan_s, replan_cpu_s = perf_counter() - began, process_time() - began_cpu
    bound = min(again.bound, routed(graph, flows.traffic).bound)
    for each in (first, again):
        if np.any(each.load_bps() > graph.capacity_bps * (1 + 1e-9) + 1e-6):
            raise AssertionError("a link is oversubscribed")
    kept = flows.rate_bps @ _standing(flows, graph.is_up) / bound
    steps, share = (0, 1.0) if graph.node_count > UPDATED_NODES else _updated(old, again)
    ratio, cpu = first.worth / bound, (refill_cpu_s, replan_cpu_s)
    return Cut(refill_s, cpu[0], ratio, kept, replan_s, cpu[1], again.worth / bound, steps, share)


def _standing(flows: Flows, is_up: np.ndarray) -> np.ndarray:
    return np.minimum.reduceat(is_up[flows.columns.arcs].astype(float), flows.columns.start[:-1])


def _updated(old: np.ndarray, again: Flows) -> tuple[int, float]:
    columns, capacity = again.columns, again.graph.capacity_bps
    steps = steps_between(columns, old, again.rate_bps, capacity)
    at = old
    for rate in steps.rates_bps:
        if not is_safe(columns, at, rate, capacity):
            raise AssertionError("a step of the update overloads a link")
        at = rate
    return len(steps.rates_bps), steps.carried_bps / min(old.sum(), again.rate_bps.sum())


def _rows(case: Case, cuts: list[Cut]) -> list[Row]:
    size = f"{case.graph.node_count} nodes, {case.traffic.count:,} demands"
    nothing = min(cut.nothing_ratio for cut in cuts)
    least = f"at least {min(cut.kept for cut in cuts):.3f} carried meanwhile"
    update = f"; update by little change in {max(cut.steps for cut in cuts)} steps, {least}"
    return [
        Row(
            claim=f"first repair: {case.name} ({size})",
            figure=1e3 * max(cut.refill_s for cut in cuts),
            unit="ms",
            ratio=min(cut.refill_ratio for cut in cuts),
            target="100 ms to 200 nodes, 0.95x",
            note=f"worst of {len(cuts)} cuts, {1e3 * max(cut.refill_cpu_s for cut in cuts):.0f} ms CPU; ratio to the "
            f"proven bound after the cut; doing nothing {nothing:.3f}",
        ),
        Row(
            claim=f"optimal re-plan: {case.name} ({size})",
            figure=max(cut.replan_s for cut in cuts),
            unit="s",
            ratio=min(cut.replan_ratio for cut in cuts),
            target="0.995x",
            note=f"worst of {len(cuts)} cuts, warm, {max(cut.replan_cpu_s for cut in cuts):.1f} s CPU"
            f"{update if cuts[0].steps else ''}",
        ),
    ]
