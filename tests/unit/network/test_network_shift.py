"""After a refill somebody may have to move: never worse, never over a bound, as good as can be where it is small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import cases, keeps_its_bounds

from tieline.network import shift
from tieline.network.classes import Class, Plan, Rank, Share, mended, planned
from tieline.network.columns import Columns
from tieline.network.graph import graph_of
from tieline.network.refill import refilled
from tieline.network.shift import shifted
from tieline.network.traffic import Traffic, routed

BY_KINDS = -1  # uses of arcs: none is few enough for the exact programme


def after_a_cut(case, cut):
    graph, traffic = case
    flows = routed(graph, traffic)
    return refilled(flows, graph.without([cut % (graph.arc_count // 2)]) if graph.arc_count else graph)


@given(cases(), st.integers(0, 9), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_moving_by_kinds_keeps_every_bound_and_is_never_worth_less(case, cut, held):
    first = after_a_cut(case, cut)
    value = first.traffic.value * (np.arange(first.traffic.count) != held)
    first = first._replace(traffic=first.traffic._replace(value=value))
    second = shifted(first, most_uses=BY_KINDS, rounds=3)
    keeps_its_bounds(second)
    assert second.worth >= first.worth
    carried = second.carried_bps()
    assert np.all(carried[held : held + 1] >= first.carried_bps()[held : held + 1] - 1e-9)  # of no value: not touched


@given(cases(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_moving_by_kinds_is_nearly_as_good_as_the_exact_programme(case, cut):
    first = after_a_cut(case, cut)
    whole = shifted(first)
    # Rounds are few and what is handed out in turn may be cut short by an arc that was not full before.
    assert shifted(first, most_uses=BY_KINDS, rounds=8).worth >= 0.9 * whole.worth - 1e-6


def ladder():
    """Two ways from a to d, by b and by c; from e to d one straight on and one by b, but none back by a."""
    links = [(0, 1, 10.0, 1.0), (1, 3, 10.0, 1.0), (0, 2, 10.0, 2.0), (2, 3, 10.0, 2.0), (4, 1, 9.0, 1.0)]
    graph = graph_of("abcde", [*links, (4, 3, 9.0, 1.0)])
    graph.capacity_bps[1] = 0.0
    pairs = np.array([0, 0, 4], np.int32), np.array([3, 3, 3], np.int32)
    return graph, Traffic(*pairs, np.array([5.0, 5.0, 9.0]), np.array([1.0, 1.0, 1.0]))


def crowded_plan(*, is_fair=False):
    """A plan whose first repair is the one above, and the network after the cut."""
    graph, traffic = ladder()
    flows = routed(graph, traffic)
    columns = Columns(graph)
    for demand, arcs in ((0, (0, 2)), (0, (4, 6)), (1, (0, 2)), (1, (4, 6)), (2, (10,)), (2, (8, 2))):
        columns.add_path(demand, arcs)
    flows = flows._replace(columns=columns, rate_bps=np.array([5.0, 0.0, 5.0, 0.0, 9.0, 0.0]))
    share = Share(Rank.BEST_EFFORT, flows.carried_bps(), flows.worth, flows.bound, None, 0, is_fair)
    return Plan(graph, (share,), flows, np.full(3, Rank.BEST_EFFORT)), graph.without([5])


def crowded():
    """After the cut of e-d: both of a go by b, where e could go, and c is free."""
    plan, graph = crowded_plan()
    return refilled(plan.flows, graph)


def test_a_cut_of_a_plan_moves_survivors_where_nobody_stands_above_another():
    plan, graph = crowded_plan()
    now = mended(plan, graph)
    assert now.shares[0].worth > crowded().worth
    assert np.all(now.load_bps() <= graph.capacity_bps + 1e-6)
    fair, _ = crowded_plan(is_fair=True)  # a share that is fair is not given to whoever is worth more
    assert mended(fair, graph).shares[0].worth == pytest.approx(crowded().worth)


def test_a_new_plan_begins_with_what_is_known_of_the_one_before():
    plan, graph = crowded_plan()
    before = mended(plan, graph)
    classes = [Class(Rank.BEST_EFFORT, plan.flows.traffic)]
    anew = planned(graph, classes, before=before)
    assert anew.shares[0].worth == pytest.approx(planned(graph, classes).shares[0].worth)
    known = before.flows.columns  # every path of before is there, in its place
    assert np.array_equal(anew.flows.columns.arcs[: len(known.arcs)], known.arcs)


@pytest.mark.parametrize("most_uses", [shift.MOST_USES, BY_KINDS], ids=["exact", "by kinds"])
def test_who_can_go_another_way_makes_room_for_who_cannot(most_uses):
    first = crowded()
    assert first.carried_bps() == pytest.approx([5.0, 5.0, 0.0])  # nothing is free from b to d, and nobody moves
    second = shifted(first, most_uses=most_uses)
    keeps_its_bounds(second)
    assert second.carried_bps() == pytest.approx([5.0, 5.0, 9.0])
    if most_uses == BY_KINDS:  # who need not move stays: of the ten that went by b, nine go by c
        moved = np.maximum(second.rate_bps[: len(first.rate_bps)] - first.rate_bps, 0.0)
        assert moved.sum() == pytest.approx(18.0)


def test_it_ends_at_what_is_enough_and_where_there_are_too_many_kinds(monkeypatch):
    first = crowded()
    seen = []
    best = shift._best
    monkeypatch.setattr(shift, "_best", lambda *given: seen.append(1) or best(*given))
    shifted(first, most_uses=BY_KINDS, rounds=3, enough=first.worth)
    assert len(seen) == 1
    shifted(first, most_uses=BY_KINDS, rounds=3)
    assert len(seen) == 4
    monkeypatch.setattr(shift, "MOST_KINDS", 0)
    assert shifted(first, most_uses=BY_KINDS) is first
    assert len(seen) == 4


def test_paths_are_of_a_kind_only_where_they_cross_the_same_full_arcs_of_demands_with_the_same_choice():
    graph, traffic = ladder()
    flows = routed(graph, traffic._replace(value=np.array([1.0, 1.0, 2.0])))
    full = np.zeros(graph.arc_count, dtype=bool)
    full[[0, 2]] = True
    kinds = shift._kinds(flows, full, np.ones(len(flows.columns), dtype=bool))
    of = {int(path): int(kind) for path, kind in zip(kinds.paths, kinds.kind, strict=True)}
    for one in of:
        for other in of:
            a, b = (set(flows.columns.path(path).tolist()) & {0, 2} for path in (one, other))
            pair = {int(flows.columns.demand[one]), int(flows.columns.demand[other])}
            assert (of[one] == of[other]) == (a == b and (len(pair) == 1 or pair == {0, 1}))
    assert sorted(kinds.asked_bps.tolist()) == [9.0, 10.0]
    assert sorted(kinds.value.tolist()) == [1.0, 2.0]
