"""From one routing to another: no mixture of two steps overloads an arc, and no more moves than must."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import cases, keeps_its_bounds

from tieline.network.graph import graph_of
from tieline.network.traffic import Traffic, routed
from tieline.network.update import calmed, is_safe, steps_between


def moved(draw_case, worth):
    """Two routings of the same paths: by one value of each demand, then by another."""
    graph, traffic = draw_case
    first = routed(graph, traffic)
    turned = traffic._replace(value=1.0 + np.array(worth[: traffic.count], dtype=np.float64))
    second = routed(graph, turned, start=first)
    old = np.concatenate([first.rate_bps, np.zeros(len(second.columns) - len(first.rate_bps))])
    return graph, old, second


@given(cases(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_mixture_of_two_steps_fits(case, worth):
    graph, old, second = moved(case, worth)
    columns = second.columns
    steps = steps_between(columns, old, second.rate_bps, graph.capacity_bps)
    assert np.array_equal(steps.rates_bps[-1], second.rate_bps)
    assert len(steps.rates_bps) <= 2
    at = old
    for rate in steps.rates_bps:
        # Each path may be at its old rate or at its new one: look at every mixture of the paths that change.
        paths = [columns.path(path) for path in range(len(columns))]
        changed = [path for path in range(len(columns)) if at[path] != rate[path]][:10]
        for mixture in itertools.product((False, True), repeat=len(changed)):
            load = np.zeros(graph.arc_count)
            now = np.minimum(at, rate)
            now[changed] = np.where(mixture, rate[changed], at[changed])
            for path, arcs in enumerate(paths):
                load[arcs] += now[path]
            assert np.all(load <= graph.capacity_bps * (1 + 1e-8) + 1e-5)
        assert is_safe(columns, at, rate, graph.capacity_bps)
        at = rate


@given(cases(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_calmed_answer_is_as_good_and_moves_no_more(case, worth):
    _, old, second = moved(case, worth)
    calm = calmed(second, old)
    keeps_its_bounds(calm)
    assert calm.worth >= second.worth * (1 - 2e-3) - 1e-9
    assert np.maximum(calm.rate_bps - old, 0).sum() <= np.maximum(second.rate_bps - old, 0).sum() * (1 + 1e-6) + 1e-6


def test_a_swap_of_two_full_ways_needs_a_step_between_that_carries_less():
    # Two ways of 10 from a to d; two demands of 10 that trade ways. At once, a way could be asked for 20.
    graph = graph_of("abcd", [(0, 1, 10.0, 1.0), (1, 3, 10.0, 1.0), (0, 2, 10.0, 2.0), (2, 3, 10.0, 2.0)])
    pair = np.array([0, 0], dtype=np.int32), np.array([3, 3], dtype=np.int32)
    flows = routed(graph, Traffic(*pair, np.array([10.0, 10.0]), np.ones(2)))
    columns = flows.columns
    short = [path for path in range(len(columns)) if 0 in columns.path(path).tolist()]
    long = [path for path in range(len(columns)) if 4 in columns.path(path).tolist()]
    of = {(int(columns.demand[path]), path in short): path for path in short + long}
    old, new = np.zeros(len(columns)), np.zeros(len(columns))
    old[[of[0, True], of[1, False]]] = 10.0
    new[[of[0, False], of[1, True]]] = 10.0
    steps = steps_between(columns, old, new, graph.capacity_bps)
    assert len(steps.rates_bps) == 2
    assert not steps.is_lossless
    assert steps.carried_bps == pytest.approx(0.0, abs=1e-6)  # nothing is free: all of it must stop to trade places
    half = steps_between(columns, old / 2, new / 2, graph.capacity_bps)
    assert (len(half.rates_bps), half.is_lossless) == (1, True)


@given(cases(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_large_answer_is_calmed_by_going_back_a_part_of_the_way(case, worth):
    _, old, second = moved(case, worth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tieline.network.update.SMALL", -1)
        calm = calmed(second, old, give=0.05)
    keeps_its_bounds(calm)
    assert calm.worth >= second.worth * 0.95 - 1e-9
    assert np.maximum(calm.rate_bps - old, 0).sum() <= np.maximum(second.rate_bps - old, 0).sum() + 1e-6
