"""From one routing to another: no mixture of two steps overloads an arc."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import cases

from tieline.network.traffic import routed
from tieline.network.update import is_safe, steps_between


@given(cases(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_mixture_of_two_steps_fits(case, worth):
    graph, traffic = case
    first = routed(graph, traffic)
    turned = traffic._replace(value=1.0 + np.array(worth[: traffic.count], dtype=np.float64))
    second = routed(graph, turned, start=first)
    columns = second.columns
    old = np.concatenate([first.rate_bps, np.zeros(len(columns) - len(first.rate_bps))])
    steps = steps_between(columns, old, second.rate_bps, graph.capacity_bps)
    assert np.array_equal(steps.rates_bps[-1], second.rate_bps)
    at = old
    for rate in steps.rates_bps:
        assert is_safe(columns, at, rate, graph.capacity_bps)
        at = rate
    assert len(steps.rates_bps) <= 2
