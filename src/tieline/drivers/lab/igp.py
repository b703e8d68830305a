"""IGP: the way of all packets that belong to no circuit: least delay, as an interior gateway protocol would find it.

Reckoned in one place from what is lit; the laboratory installs it. It is no routing protocol and speaks to nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from heapq import heappop, heappush

from tieline.model.topology import Link, Topology

Hops = Mapping[str, Mapping[str, tuple[Link, str]]]  # node -> other node -> link and neighbour towards it


def next_hops(topology: Topology, down: Collection[str] = ()) -> Hops:
    """The first hop of the quickest way between all pairs (Dijkstra); pairs that nothing joins are left out."""
    around: dict[str, list[tuple[Link, str]]] = {node.name: [] for node in topology.nodes}
    for link in topology.links:
        if link.name not in down and link.capacity_bps and link.capacity_back_bps != 0:
            around[link.a].append((link, link.b))
            around[link.b].append((link, link.a))
    return {node.name: _from(node.name, around) for node in topology.nodes}


def _from(start: str, around: Mapping[str, list[tuple[Link, str]]]) -> dict[str, tuple[Link, str]]:
    first: dict[str, tuple[Link, str]] = {}
    done: dict[str, None] = {}
    heap: list[tuple[int, int, str, tuple[Link, str] | None]] = [(0, 0, start, None)]
    pushed = 0
    while heap:
        delay_us, _, node, hop = heappop(heap)
        if node in done:
            continue
        done[node] = None
        if hop is not None:
            first[node] = hop
        for link, other in around[node]:
            if other not in done:
                pushed += 1
                heappush(heap, (delay_us + link.delay_us + 1, pushed, other, hop or (link, other)))
    return first
