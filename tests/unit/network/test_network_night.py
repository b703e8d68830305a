"""Batch: the bound is one, whole orders are whole, and small cases are as good as trying everything."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_worlds import MBIT, SLOT_MS, SLOTS, network, topologies

from tieline.model.transfer import TransferOrder
from tieline.network.calendar import Calendar
from tieline.network.night import Night, planned
from tieline.network.slots import BITS_MS, taken

MINUTE_BYTES = MBIT * 60 // 8


def best_by_arcs(calendar: Calendar, orders: list[TransferOrder], *, are_whole: bool) -> float:
    """The most bytes in time, without paths: conservation at every node in every slot, one commodity an order."""
    from scipy.optimize import linprog
    from scipy.sparse import lil_array

    graph, grid = calendar.wires.graph, calendar.grid
    arcs, nodes = graph.arc_count, graph.node_count
    cells = [
        (each, slot)
        for each, order in enumerate(orders)
        for slot in range(*grid.touched(order.earliest_ms, order.deadline_ms))
    ]
    block = arcs + 1  # the arcs' bytes, and what is delivered
    width = len(cells) * block
    balance, shared, asked = lil_array((len(cells) * nodes, width)), {}, lil_array((len(orders), width))
    for at, (each, slot) in enumerate(cells):
        order = orders[each]
        for arc in range(arcs):
            balance[at * nodes + int(graph.tail[arc]), at * block + arc] += 1
            balance[at * nodes + int(graph.head[arc]), at * block + arc] -= 1
            shared.setdefault((arc, slot), []).append(at * block + arc)
        balance[at * nodes + calendar.wires.node[order.source], at * block + arcs] -= 1
        balance[at * nodes + calendar.wires.node[order.target], at * block + arcs] += 1
        asked[each, at * block + arcs] = 1
    limit = lil_array((len(shared), width))
    for row, columns in enumerate(shared.values()):
        limit[row, columns] = 1
    free = np.array([float(calendar.free[arc, slot - grid.first]) for arc, slot in shared]) * SLOT_MS / BITS_MS
    sizes = np.array([order.size_bytes for order in orders], dtype=np.float64)
    aim = np.zeros(width)
    aim[arcs::block] = -1.0
    from scipy.sparse import vstack

    answer = linprog(
        aim,
        A_ub=vstack([limit, asked]).tocsc(),
        b_ub=np.concatenate([np.maximum(free, 0), sizes]),
        A_eq=balance.tocsc(),
        b_eq=np.zeros(len(cells) * nodes),
    )
    assert answer.status == 0, answer.message
    carried = float(-answer.fun)
    return carried if not are_whole or carried >= sizes.sum() - 0.5 else -1.0


def best_whole(calendar: Calendar, orders: list[TransferOrder]) -> float:
    """The most bytes of orders that are carried whole, by trying every set of them."""
    sets = [list(chosen) for count in range(len(orders) + 1) for chosen in combinations(orders, count)]
    return max([0.0, *(best_by_arcs(calendar, chosen, are_whole=True) for chosen in sets if chosen)])


def keeps_its_bounds(calendar: Calendar, orders: list[TransferOrder], night: Night) -> None:
    free = calendar.free.copy()
    carried = 0
    for at, pieces in night.pieces.items():
        order, graph = orders[at], calendar.wires.graph
        low, high = calendar.grid.touched(order.earliest_ms, order.deadline_ms)
        moved = 0
        for piece in pieces:
            taken(free, calendar.grid, piece)
            assert low <= piece.low
            assert piece.low + len(piece.rates) <= high
            assert graph.tail[piece.arcs[0]] == calendar.wires.node[order.source]
            assert graph.head[piece.arcs[-1]] == calendar.wires.node[order.target]
            span = calendar.grid.lengths_ms(
                order.earliest_ms, order.deadline_ms, piece.low, piece.low + len(piece.rates)
            )
            moved += int((piece.rates * span // BITS_MS).sum())
        carried += min(moved, order.size_bytes)
        assert moved >= order.size_bytes or at not in night.whole
    assert free.min(initial=0) >= 0
    assert carried == pytest.approx(night.carried_bytes, rel=1e-6, abs=2)
    assert night.carried_bytes <= night.bound_bytes * (1 + 1e-6) + 1


RING = network(("n0", "n1", MBIT, 10), ("n1", "n2", MBIT, 10), ("n2", "n0", MBIT, 10))


@st.composite
def crowds(draw: st.DrawFn) -> list[TransferOrder]:
    made = []
    for _ in range(draw(st.integers(1, 4))):
        a = draw(st.integers(0, 2))
        begin = draw(st.integers(0, 3))
        made.append(
            TransferOrder(
                source=f"n{a}",
                target=f"n{(a + draw(st.integers(1, 2))) % 3}",
                size_bytes=draw(st.integers(1, 8)) * MINUTE_BYTES // 2 - 100,
                earliest_ms=begin * SLOT_MS,
                deadline_ms=(begin + draw(st.integers(1, 3))) * SLOT_MS,
            )
        )
    return made


@given(crowds())
@settings(max_examples=25, deadline=None)
def test_small_nights_are_near_the_best_there_is(orders: list[TransferOrder]) -> None:
    calendar = Calendar(RING, 0, slot_ms=SLOT_MS, count=8)
    whole = planned(calendar, orders, 0)
    keeps_its_bounds(calendar, orders, whole)
    best = best_whole(calendar, orders)
    assert whole.bound_bytes >= best * (1 - 1e-6)
    assert whole.carried_bytes >= 0.6 * best
    part = planned(calendar, orders, 0, is_partial=True)
    keeps_its_bounds(calendar, orders, part)
    exact = best_by_arcs(calendar, orders, are_whole=False)
    assert part.bound_bytes >= exact * (1 - 1e-6)
    assert part.carried_bytes >= 0.99 * exact


@given(topologies(), st.lists(st.tuples(*[st.integers(0, 5)] * 2, st.integers(0, 9), st.integers(0, 12)), max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_night_sells_what_is_not_there(topology, asked) -> None:
    calendar = Calendar(topology, 0, slot_ms=SLOT_MS, count=SLOTS)
    orders = [
        TransferOrder(
            source=f"n{a}",
            target=f"n{b}",
            size_bytes=MINUTE_BYTES * 2,
            earliest_ms=begin * SLOT_MS,
            deadline_ms=end * SLOT_MS,
        )
        for a, b, begin, end in asked
    ]
    for is_partial in (False, True):
        keeps_its_bounds(calendar, orders, planned(calendar, orders, 0, is_partial=is_partial))
    assert np.array_equal(calendar.free, calendar.capacity)
