"""Networks and transfers for `calendar_admission`: seeded, bulk transfers over a base load that goes with the hour.

After a published recipe: bulk volume 1.3 times what a proxy of the residual capacity carries, Pareto sizes, windows
of four slots and more, gravity pairs (degree x lognormal). Synthetic: no public trace of transfers with deadlines is
known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import TransferOrder
from tieline.network.calendar import Calendar
from tieline.network.graph import trees_of

RATE_BPS = 10_000_000_000
SLOT_MS = 300_000
OVERLOAD = 1.3


class World(NamedTuple):
    """A calendar over which the base load is booked already, and orders by arrival (their ``earliest_ms``)."""

    calendar: Calendar
    orders: tuple[TransferOrder, ...]


def generated(nodes: int, links: int, seed: int) -> Topology:
    """Points in a square, their minimum spanning tree, and short further links."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    pick = np.random.default_rng(seed)
    at = pick.random((nodes, 2))
    far = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    np.fill_diagonal(far, 9)
    tree = minimum_spanning_tree(csr_array(far)).tocoo()
    ends = {tuple(sorted(pair)) for pair in zip(tree.row.tolist(), tree.col.tolist(), strict=True)}
    for place in np.argsort((far * pick.lognormal(0, 0.5, far.shape)).ravel()).tolist():
        a, b = divmod(place, nodes)
        if len(ends) >= links:
            break
        if a < b:
            ends.add((a, b))
    return Topology(
        name=f"generated-{nodes}-{links}-{seed}",
        nodes=tuple(Node(name=f"n{each}") for each in range(nodes)),
        links=tuple(
            Link(name=f"l{number}", a=f"n{a}", b=f"n{b}", capacity_bps=RATE_BPS, delay_us=1_000)
            for number, (a, b) in enumerate(sorted(ends))
        ),
    )


def world(nodes: int, links: int, slots: int, transfers: int, seed: int, overload: float = OVERLOAD) -> World:
    """One case. Sizes are cut to what one link could carry in the window."""
    topology = generated(nodes, links, seed)
    calendar = Calendar(topology, 0, slot_ms=SLOT_MS, count=slots)
    pick = np.random.default_rng(seed + 1_000)
    graph = calendar.wires.graph
    phase = pick.random(graph.arc_count) * 2 * np.pi
    hour = 2 * np.pi * np.arange(slots)[None] / slots
    base = np.clip(0.08 * (1 + np.sin(hour + phase[:, None])), 0, 0.9)
    for array in (calendar.capacity, calendar.firm, calendar.free):
        array[:, :-1] = (RATE_BPS * (1 - base)).astype(np.int64)
    weight = np.bincount(graph.tail, minlength=nodes) * pick.lognormal(0, 1, nodes)
    pairs = np.outer(weight, weight)
    np.fill_diagonal(pairs, 0)
    source, target = np.divmod(pick.choice(nodes * nodes, transfers, p=pairs.ravel() / pairs.sum()), nodes)
    begin = np.sort(pick.integers(0, slots - 4, transfers))
    end = np.minimum(slots, begin + pick.integers(4, max(5, slots // 3), transfers))
    size = pick.pareto(1.5, transfers) + 1
    hops = trees_of(graph, np.ones(graph.arc_count), np.arange(nodes, dtype=np.int32)).distance[source, target]
    slot_bytes = SLOT_MS / 8_000
    room_bytes = calendar.free[:, :-1].sum() * slot_bytes * 0.6
    size *= overload * room_bytes / (size * hops).sum()
    size = np.minimum(size, RATE_BPS * (end - begin) * 0.9 * slot_bytes)
    orders = tuple(
        TransferOrder(
            source=f"n{source[each]}",
            target=f"n{target[each]}",
            size_bytes=int(size[each]),
            earliest_ms=int(begin[each]) * SLOT_MS,
            deadline_ms=int(end[each]) * SLOT_MS,
        )
        for each in range(transfers)
    )
    return World(calendar, orders)
