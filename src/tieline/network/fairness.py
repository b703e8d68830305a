"""Fairness: max-min inside a class, by steps of linear programmes.

Nobody can get more without somebody who has less losing. Progressive filling in steps that grow (SWAN, Hong et al.,
SIGCOMM 2013): in step ``k`` every demand may have at most ``level x step^k`` by its weight, and keeps at least what it
had before (a floor of the programme); who is below that at a step's optimum is frozen at what it has. The answer is
within a factor of ``step`` of exact max-min for each demand; ``step`` 1.25 takes three times as many programmes as 2.
A last programme gives away what is left over, to whom it may, and takes from nobody.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tieline.network.graph import Floats, Graph
from tieline.network.traffic import Flows, Traffic, routed

STEP: Final = 2.0
MOST_STEPS: Final = 200  # where rates lie so far apart that this does not suffice, the steps are made larger
SHORT: Final = 1e-3  # of what a step allows: who lacks more is frozen
ENOUGH: Final = 1e-4  # relative gap of each step


def fair(graph: Graph, traffic: Traffic, *, step: float = STEP, start: Flows | None = None) -> Flows:
    """Rates that are max-min fair within ``step``, by the weights ``traffic.value``; over all paths.

    Demands of value 0 take no part: they keep their floors, which ``start`` must keep, and get no more.
    In the answer every value is 1 (or 0), and its bound is of what can be carried in all beside everybody's fair rate.
    """
    weight = traffic.value / (traffic.value.max(initial=0.0) or 1.0)
    takes_part = weight > 0
    kept = np.zeros(traffic.count) if traffic.floor_bps is None else traffic.floor_bps
    most = np.where(takes_part, np.minimum(traffic.asked_bps, _most(graph, traffic)), kept)
    wanted = float((most[takes_part] / weight[takes_part]).max(initial=0.0))
    level = _first_level(graph, traffic)
    step = max(step, (wanted / level) ** (1.0 / MOST_STEPS)) if wanted > level else step
    ceiling, floor, flows = most, kept, start
    while True:
        asked = np.where(takes_part, np.maximum(np.minimum(ceiling, level * weight), floor), kept)
        flows = routed(graph, _step(traffic, asked, floor, takes_part), start=flows, enough=ENOUGH)
        floor = np.where(takes_part, np.minimum(flows.carried_bps(), asked), kept)
        ceiling = np.where(floor < asked * (1.0 - SHORT), floor, ceiling)
        if level >= wanted or not np.any(ceiling > floor * (1.0 + SHORT)):
            break
        level *= step
    rest = traffic._replace(asked_bps=np.maximum(most, floor), value=takes_part.astype(np.float64), floor_bps=floor)
    flows = routed(graph, rest, start=flows)
    return flows._replace(traffic=rest._replace(asked_bps=traffic.asked_bps, floor_bps=traffic.floor_bps))


def _most(graph: Graph, traffic: Traffic) -> Floats:
    """What fits out of the source and into the target, everybody else away; 0 between places that are not joined."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    up, n = np.flatnonzero(graph.is_up), graph.node_count
    joined = csr_array((np.ones(len(up)), (graph.tail[up], graph.head[up])), shape=(n, n))
    _, part = connected_components(joined, directed=True, connection="weak")
    out = np.bincount(graph.tail, graph.capacity_bps, n)[traffic.source]
    into = np.bincount(graph.head, graph.capacity_bps, n)[traffic.target]
    is_joined = (part[traffic.source] == part[traffic.target]) & (traffic.source != traffic.target)
    return np.where(is_joined, np.minimum(out, into), 0.0)


def _first_level(graph: Graph, traffic: Traffic) -> float:
    """What everybody gets for sure where all share the narrowest arc."""
    live = graph.capacity_bps[graph.is_up]
    return float(live.min(initial=np.inf)) / traffic.count if len(live) and traffic.count else 1.0


def _step(traffic: Traffic, asked: Floats, floor: Floats, takes_part: NDArray[np.bool_]) -> Traffic:
    """The same demands; who has less goes first, where the choice is free."""
    share = np.maximum(floor, 1e-9 * float(asked.max(initial=1.0)) + 1e-12)
    value = np.where(takes_part, 1.0 + share.min(initial=np.inf) / share, 0.0)
    return traffic._replace(asked_bps=asked, value=value, floor_bps=floor)
