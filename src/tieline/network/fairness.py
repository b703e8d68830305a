"""Fairness: max-min inside a class, by steps of linear programmes.

Nobody can get more without somebody who has less losing some. Progressive filling in steps that double (SWAN, Hong et al.,
SIGCOMM 2013): in step ``k`` every demand may have at most ``least x 2^k``; who is below that at a step's optimum is frozen at
what it has. The answer is within a factor of ``step`` of exact max-min for each demand; ``step`` 1.25 takes three times as many
programmes as 2.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tieline.network.graph import Floats, Graph
from tieline.network.traffic import Flows, Traffic, routed

STEP: Final = 2.0
MOST_STEPS: Final = 200


def fair(graph: Graph, traffic: Traffic, *, step: float = STEP, least_bps: float = 0.0) -> Flows:
    """Rates that are max-min fair within ``step``, by the weights ``traffic.value``; over all paths."""
    weight = traffic.value / traffic.value.max(initial=1.0)
    wanted = traffic.asked_bps / weight
    level = least_bps or _first_level(graph, traffic, wanted)
    frozen = np.full(traffic.count, np.inf)  # of each demand, what it may not go above any more
    floor: Floats = np.zeros(traffic.count)
    flows: Flows | None = None
    for _ in range(MOST_STEPS):
        asked = np.minimum(np.minimum(traffic.asked_bps, level * weight), frozen)
        flows = routed(graph, _keeping(traffic, asked, floor), start=flows)
        got = flows.carried_bps()
        floor = np.minimum(got, asked)
        frozen = np.where(got < asked * (1 - 1e-3), np.minimum(frozen, got), frozen)
        if level >= wanted.max(initial=0.0) or not np.any(np.isinf(frozen)):
            break
        level *= step
    assert flows is not None
    return flows._replace(traffic=traffic)


def _first_level(graph: Graph, traffic: Traffic, wanted: Floats) -> float:
    """What everybody gets for sure where all share the narrowest arc."""
    live = graph.capacity_bps[graph.is_up]
    if not len(live) or not traffic.count:
        return 1.0
    return max(1.0, min(float(live.min()) / traffic.count, float(wanted.max())))


def _keeping(traffic: Traffic, asked: Floats, floor: Floats) -> Traffic:
    """The same demands, whose worth falls as they have more: who has less goes first."""
    share = np.maximum(floor, 1.0)
    return Traffic(traffic.source, traffic.target, asked, 1.0 + share.min(initial=1.0) / share)
