"""Traffic engineering of a whole public network against an exact programme that knows no paths."""

from __future__ import annotations

import numpy as np
import pytest
from bench.te_optimality import by_arcs
from bench.te_world import generated, zoo

from tieline.network.master import Programme, _exact, _first_order, _has_pdlp
from tieline.network.refill import refilled
from tieline.network.traffic import routed


@pytest.mark.parametrize(
    "make", [lambda: zoo("Abilene"), lambda: zoo("Geant2012", 400), lambda: generated(30, 50, 300, 3)]
)
def test_a_whole_network_is_routed_as_well_as_the_exact_programme_says(make):
    case = make()
    flows = routed(case.graph, case.traffic)
    best = by_arcs(case)
    assert flows.bound >= best * (1 - 1e-7)
    assert flows.worth >= best * (1 - 2.1e-3)
    cut = case.graph.without([int(np.argmax(flows.load_bps())) // 2])
    first = refilled(flows, cut)
    again = routed(cut, case.traffic, start=first)
    left = by_arcs(case._replace(graph=cut))
    assert first.worth >= 0.9 * left
    assert again.bound >= left * (1 - 1e-7)
    assert again.worth >= left * (1 - 2.1e-3)


@pytest.mark.skipif(not _has_pdlp(), reason="needs OR-Tools (extra `solve`): not installed")
@pytest.mark.parametrize("is_held", [False, True])
def test_both_solvers_agree_also_where_floors_hold(is_held):
    case = zoo("Abilene")
    flows = routed(case.graph, case.traffic)
    count, columns = case.traffic.count, flows.columns
    value = 1.0 + (columns.demand % 3)
    floor = flows.carried_bps() * (np.arange(count) % 2) if is_held else None
    programme = Programme(
        columns.by_arc(), columns.by_demand(count), case.graph.capacity_bps, case.traffic.asked_bps, value, floor
    )
    exact, large = _exact(programme), _first_order(programme, 1e-6, None)
    assert large.rate @ value == pytest.approx(exact.rate @ value, rel=1e-4)
    for answer in (exact, large):  # strong duality: the prices prove the optimum, with their signs
        held = np.zeros(count) if floor is None else floor
        gain = np.where(answer.demand_price > 0, case.traffic.asked_bps, held) @ answer.demand_price
        assert gain + answer.arc_price @ case.graph.capacity_bps == pytest.approx(exact.rate @ value, rel=1e-3)
    if is_held:
        assert exact.demand_price.min() < -1e-3  # some floor holds a demand up that would give way
