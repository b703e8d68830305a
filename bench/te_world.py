"""Networks and traffic for the traffic engineering benchmarks: public topologies and generated ones, every seed fixed.

The public ones are of the Internet Topology Zoo (`bench/topologies/SOURCES.md`); they carry no capacities that could
be used and no traffic, so every link has `RATE` a direction and the demands are a gravity matrix (degree x lognormal)
scaled so that shortest-path routing would load the worst link to `LOAD` times its capacity. All of it is synthetic.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from tieline.network.graph import Graph, graph_of, trees_of
from tieline.network.import_graphml import read
from tieline.network.state import graph_at
from tieline.network.survey import checked
from tieline.network.traffic import Traffic

RATE = 1_000.0
LOAD = 6.0
SEED = int(os.environ.get("TIELINE_BENCH_SEED", "1"))  # of the demands, and of the generated networks
FOLDER = Path(__file__).parent / "topologies"


class Case(NamedTuple):
    """A network and who asks for what of it."""

    name: str
    graph: Graph
    traffic: Traffic


def zoo(name: str, count: int | None = None, seed: int = 1) -> Case:
    """A public topology; of parallel edges one is kept, as in the anchor's measurements."""
    graph = graph_at(checked(read((FOLDER / f"{name}.graphml").read_bytes())))
    pairs = sorted({(min(a, b), max(a, b)) for a, b in zip(graph.tail.tolist(), graph.head.tolist(), strict=True)})
    return _case(name, list(graph.names), pairs, count, seed)


def generated(nodes: int, links: int, count: int | None, seed: int) -> Case:
    """Nodes in a square: a tree that joins them all, then mostly short links."""
    dice = np.random.default_rng(seed)
    at = dice.random((nodes, 2))
    away = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    np.fill_diagonal(away, 9.0)
    tree = minimum_spanning_tree(csr_array(away)).tocoo()
    pairs = {(min(a, b), max(a, b)) for a, b in zip(tree.row.tolist(), tree.col.tolist(), strict=True)}
    for cell in np.argsort((away * dice.lognormal(0, 0.5, away.shape)).ravel()).tolist():
        if len(pairs) >= links:
            break
        a, b = divmod(cell, nodes)
        if a < b:
            pairs.add((a, b))
    return _case(f"{nodes} nodes", [str(each) for each in range(nodes)], sorted(pairs), count, seed)


def _case(name: str, names: list[str], pairs: list[tuple[int, int]], count: int | None, seed: int) -> Case:
    graph = graph_of(names, [(a, b, RATE, 1.0) for a, b in pairs])
    dice = np.random.default_rng(seed)
    pull = np.bincount(graph.tail, minlength=len(names)) * dice.lognormal(0, 1, len(names))
    wanted = np.outer(pull, pull)
    np.fill_diagonal(wanted, 0.0)
    source, target = (each.astype(np.int32) for each in np.nonzero(wanted))
    if count is not None and count < len(source):
        chosen = np.sort(dice.choice(len(source), count, replace=False))
        source, target = source[chosen], target[chosen]
    asked = wanted[source, target]
    trees = trees_of(graph, np.ones(graph.arc_count), np.unique(source))
    who, arcs = graph.walked(trees, source, target)
    load = np.bincount(arcs, asked[who], graph.arc_count)
    return Case(name, graph, Traffic(source, target, asked * LOAD * RATE / load.max(), np.ones(len(source))))


SMALL: tuple[Callable[[], Case], ...] = (
    lambda: zoo("Abilene", seed=SEED),
    lambda: zoo("Geant2012", seed=SEED),
    lambda: generated(50, 90, None, SEED),
)
LARGE: tuple[Callable[[], Case], ...] = (
    lambda: zoo("Cogentco", 5_000, SEED),
    lambda: generated(200, 300, 20_000, SEED),
    lambda: generated(750, 900, 20_000, SEED),
)
