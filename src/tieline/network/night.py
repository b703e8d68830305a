"""Night: many orders at once, when there is time to look at all of them.

A linear programme over time: rates of (order, path, slot), at most what each arc has free in each slot, at most the
size of each order. Its optimum is a bound that knows the future and may split orders; whole orders are made of it by
dropping those that it serves least and solving again, then trying those that were dropped once more in the room that
is left. Where a part is of use, the programme's answer is taken as it is.

The bound is proven for *all* paths, whatever the solver's precision, as in `traffic`: for any prices ``p >= 0``

    bound = sum of p x capacity + sum over orders of size x max(0, value - cheapest path of any of its slots)

is at least the optimum (weak duality). The same prices name the paths that the programme lacks; they are added a few
times (column generation). Bounded by that, and by ``rounds`` of dropping. Bytes are floats inside, whole rates outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tieline.model.transfer import Segment, TransferOrder
from tieline.network.admit import impossible, span_of
from tieline.network.calendar import Calendar
from tieline.network.fill import Room, filled, undone
from tieline.network.graph import Floats, Graph, Trees, trees_of
from tieline.network.master import Programme, Solved, repaired, solved
from tieline.network.slots import BITS_MS, Longs, Piece, segments_of
from tieline.network.ways import Path

FEW: Final = 8  # paths of an order
ROUNDS: Final = 24
QUARTER: Final = 4  # of those that are served in part, one of so many is dropped in a round
WHOLE: Final = 0.999
SPARE: Final = 1e-6  # of what is free is kept back, so that whole rates fit
PRECISION: Final = 1e-5
MOST_COLUMNS: Final = 400_000  # that are planned at once: minutes, and about a gigabyte
TURNS: Final = 4  # of new paths
CLOSE: Final = 0.995  # of the bound, then no more of them
AGAIN: Final = 2  # times that the dropped try again
KEPT: Final = 4.0  # a byte of an order that is whole already, beside one of those that try again


class Night(NamedTuple):
    """Pieces of each order that got something, and what is proven."""

    pieces: dict[int, list[Piece]]  # by the order's place
    whole: tuple[int, ...]  # places of the orders that are carried whole
    carried_bytes: int
    bound_bytes: float  # no schedule whatever carries more in time, not even parts of orders
    programmes: int  # that were solved


class Planned(NamedTuple):
    """A schedule as segments, by the order's place."""

    segments: dict[int, tuple[Segment, ...]]
    bound_bytes: int  # no schedule whatever carries more in time


class _Case(NamedTuple):
    """The programme's columns: rate of one order on one path in one slot."""

    programme: Programme  # capacities in bytes a slot
    order: NDArray[np.int64]  # place of each column's order
    path: list[Path]
    slot: NDArray[np.int64]
    rows: NDArray[np.int64]  # arc x slots + slot, of the rows that are used
    length_ms: Longs


def planned(
    calendar: Calendar, orders: Sequence[TransferOrder], now_ms: int, *, is_partial: bool = False, rounds: int = ROUNDS
) -> Night:
    """A schedule of the orders over what the calendar has free; nothing in the calendar changes."""
    now_ms = max(now_ms, calendar.grid.begin_ms)
    live = [at for at, order in enumerate(orders) if order.deadline_ms and _can(calendar, order, now_ms)]
    ways = {at: _paths(calendar, orders[at]) for at in live}
    case = _case(calendar, orders, live, now_ms, ways)
    if not len(case.order):
        return Night({}, (), 0, 0.0, 0)
    at = solved(case.programme, PRECISION)
    bound, more = _bound(calendar, orders, live, now_ms, case, at)
    for _ in range(TURNS):
        if at.rate.sum() >= CLOSE * bound or not _widened(ways, more) or len(case.order) > MOST_COLUMNS:
            break
        case = _case(calendar, orders, live, now_ms, ways)
        at = solved(case.programme, PRECISION)
        tighter, more = _bound(calendar, orders, live, now_ms, case, at)
        bound = min(bound, tighter)
    rate, count = at.rate, 1
    if not is_partial:
        case, rate, count = _dropped(case, at, rounds)
    pieces, left = _whole(calendar, orders, now_ms, case, repaired(case.programme, rate), live)
    whole = tuple(each for each in live if left[each] <= 0)
    if not is_partial:
        pieces, whole = _fuller(calendar, orders, now_ms, live, pieces, whole)
        left = {at: 0 if at in whole else size for at, size in left.items()}
    kept = pieces if is_partial else {each: pieces[each] for each in whole}
    carried = sum(orders[each].size_bytes - max(0, left[each]) for each in kept)
    return Night(kept, whole, carried, bound, count)


def planned_segments(
    calendar: Calendar, orders: Sequence[TransferOrder], now_ms: int, *, is_partial: bool = False
) -> Planned:
    """`planned` from the first slot that has not begun, so that it can be booked when the planning is done."""
    grid = calendar.grid
    from_ms = grid.whole_from(now_ms) * grid.slot_ms
    night = planned(calendar, orders, from_ms, is_partial=is_partial)
    made = {}
    for at, pieces in night.pieces.items():
        span = span_of(calendar, orders[at], from_ms)
        made[at] = segments_of(calendar.wires, grid, joined(pieces), *span)
    return Planned({at: each for at, each in made.items() if each}, math.ceil(night.bound_bytes))


def size_of(calendar: Calendar, orders: Sequence[TransferOrder], now_ms: int) -> int:
    """The most columns that a programme of these orders can have."""
    spans = [calendar.grid.touched(*span_of(calendar, order, now_ms)) for order in orders]
    return FEW * sum(max(0, high - low) for low, high in spans)


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of one path as one, so that slots of one rate become one segment."""
    by_path: dict[tuple[int, ...], list[Piece]] = {}
    for piece in pieces:
        by_path.setdefault(tuple(piece.arcs.tolist()), []).append(piece)
    made = []
    for mine in by_path.values():
        low, high = min(each.low for each in mine), max(each.low + len(each.rates) for each in mine)
        rates = np.zeros(high - low, dtype=np.int64)
        for each in mine:
            rates[each.low - low : each.low - low + len(each.rates)] += each.rates
        made.append(Piece(mine[0].arcs, low, rates))
    return made


def _fuller(
    calendar: Calendar,
    orders: Sequence[TransferOrder],
    now_ms: int,
    live: list[int],
    pieces: dict[int, list[Piece]],
    whole: tuple[int, ...],
) -> tuple[dict[int, list[Piece]], tuple[int, ...]]:
    """The same, or one by one by deadline or size, where that carries more: rounding can fail a tight case."""
    best, most = pieces, sum(orders[at].size_bytes for at in whole)
    by_deadline = sorted(live, key=lambda each: (each not in whole, orders[each].deadline_ms, each))
    by_size = sorted(live, key=lambda each: (-orders[each].size_bytes, orders[each].deadline_ms, each))
    for inline in (by_deadline, by_size):
        room = Room(calendar.free[:, :-1].copy(), calendar.grid.first, calendar.grid)
        other: dict[int, list[Piece]] = {}
        for at in inline:
            span = span_of(calendar, orders[at], now_ms)
            done = filled(room, _paths(calendar, orders[at]), orders[at].size_bytes, *span)
            if done.left_bytes:
                undone(room, done)
            else:
                other[at] = list(done.pieces)
        carried = sum(orders[at].size_bytes for at in other)
        if carried > most:
            best, most, whole = other, carried, tuple(at for at in live if at in other)
    return best, whole


def _widened(ways: dict[int, tuple[Path, ...]], more: dict[int, Path]) -> bool:
    """Give orders the paths that are worth more than they cost; whether there was a new one."""
    is_wider = False
    for at, path in more.items():
        if not any(np.array_equal(path, known) for known in ways[at]):
            ways[at] = (*ways[at], path)
            is_wider = True
    return is_wider


def _can(calendar: Calendar, order: TransferOrder, now_ms: int) -> bool:
    """Whether at least a part of it could be carried by an empty network."""
    return not impossible(calendar, msgspec.structs.replace(order, is_partial_useful=True), now_ms)


def _case(
    calendar: Calendar,
    orders: Sequence[TransferOrder],
    live: list[int],
    now_ms: int,
    ways: dict[int, tuple[Path, ...]],
) -> _Case:
    from scipy.sparse import csc_array

    grid, slots = calendar.grid, calendar.grid.slots
    rows, starts, owner, slot, length, path_of = [], [0], [], [], [], []
    for at in live:
        order = orders[at]
        from_ms, until_ms = span_of(calendar, order, now_ms)
        low, high = grid.touched(from_ms, until_ms)
        spans = grid.lengths_ms(from_ms, until_ms, low, high)
        for path in ways[at]:
            for number in range(low - grid.first, high - grid.first):
                rows.append(path.astype(np.int64) * slots + number)
                starts.append(starts[-1] + len(path))
                owner.append(at)
                slot.append(number)
                length.append(int(spans[number - low + grid.first]))
                path_of.append(path)
    used, row = np.unique(np.concatenate(rows) if rows else np.zeros(0, np.int64), return_inverse=True)
    lengths = np.array(length, dtype=np.int64)
    # A column is bytes; a slot that is used in part still holds the rate for the whole of it.
    weight = np.repeat(grid.slot_ms / np.maximum(lengths, 1), np.diff(starts))
    by_arc = csc_array((weight, row, starts), shape=(len(used), len(owner)))
    place = {at: number for number, at in enumerate(live)}
    which = np.array([place[at] for at in owner], dtype=np.int64)
    by_order = csc_array((np.ones(len(owner)), which, np.arange(len(owner) + 1)), shape=(len(live), len(owner)))
    free = np.maximum(calendar.free[:, :-1].reshape(-1)[used], 0) * (1.0 - SPARE) * grid.slot_ms / BITS_MS
    asked = np.array([orders[at].size_bytes for at in live], dtype=np.float64)
    programme = Programme(by_arc, by_order, free, asked, np.ones(len(owner)))
    return _Case(programme, which, path_of, np.array(slot, dtype=np.int64), used, lengths)


def _paths(calendar: Calendar, order: TransferOrder) -> tuple[Path, ...]:
    return calendar.ways.between(calendar.wires.node[order.source], calendar.wires.node[order.target])[:FEW]


def _dropped(case: _Case, at: Solved, rounds: int) -> tuple[_Case, Floats, int]:
    """Drop who is served least until everybody left is served whole; then let the dropped try again beside them."""
    asked, programme = case.programme.asked, case.programme
    is_in = asked > 0
    is_kept = np.zeros(len(asked), dtype=bool)  # whole already: worth more than any of those that try again
    best, best_rate, tries, count = is_kept, np.zeros(len(case.order)), 0, 1
    while count <= rounds and tries <= AGAIN:
        served = np.asarray(programme.by_demand @ at.rate) / np.maximum(asked, 1.0)
        partly = np.flatnonzero(is_in & (served < WHOLE))
        is_whole = is_in & (served >= WHOLE)
        if asked[is_whole].sum() > asked[best].sum():
            best, best_rate = is_whole, at.rate
        partly = partly[~is_kept[partly]]
        if len(partly):
            least = partly[np.argsort(served[partly], kind="stable")]
            is_in[least[: max(1, len(least) // QUARTER)]] = False
        else:
            is_kept, is_in, tries = best.copy(), asked > 0, tries + 1
        value = np.where(is_kept, KEPT, 1.0)[case.order]
        programme = case.programme._replace(asked=np.where(is_in, asked, 0.0), value=value)
        at = solved(programme, PRECISION, at)
        count += 1
    final = case.programme._replace(asked=np.where(best, asked, 0.0))
    return case._replace(programme=final), best_rate, count


def _bound(
    calendar: Calendar, orders: Sequence[TransferOrder], live: list[int], now_ms: int, case: _Case, at: Solved
) -> tuple[float, dict[int, Path]]:
    """Weak duality over all paths: one shortest-path tree a source and slot, by the arcs' prices in that slot.

    With the bound come the paths that the programme lacks: of each order the cheapest of all its slots, where that is
    worth more than it costs (column generation).
    """
    wires, grid = calendar.wires, calendar.grid
    flat = np.zeros(wires.graph.arc_count * grid.slots)
    flat[case.rows] = at.arc_price
    price = flat.reshape(-1, grid.slots)
    free = np.maximum(calendar.free[:, :-1], 0)
    source = np.array([wires.node[orders[each].source] for each in live], dtype=np.int32)
    target = np.array([wires.node[orders[each].target] for each in live], dtype=np.int32)
    spans = [grid.touched(*span_of(calendar, orders[each], now_ms)) for each in live]
    low, high = (np.array(each) - grid.first for each in zip(*spans, strict=True))
    least = np.full(len(live), np.inf)
    where: dict[int, Trees] = {}
    for slot in range(int(low.min()), int(high.max())):
        graph = wires.graph.holding(free[:, slot].astype(np.float64))
        trees = trees_of(graph, price[:, slot], np.unique(source))
        cost = trees.distance[trees.row[source], target]
        is_less = (low <= slot) & (slot < high) & (cost < least)
        least = np.where(is_less, cost, least)
        where |= dict.fromkeys(np.flatnonzero(is_less).tolist(), trees)
    size = np.array([orders[each].size_bytes for each in live], dtype=np.float64)
    slot_bytes = grid.slot_ms / BITS_MS
    bound = float((price * free).sum() * slot_bytes + size @ np.maximum(1.0 - least, 0.0))
    served = np.asarray(case.programme.by_demand @ at.rate)
    lacking = np.flatnonzero((least < 1.0) & (served < WHOLE * size)).tolist()
    return bound, {live[each]: _walk(wires.graph, where[each], source[each], target[each]) for each in lacking}


def _walk(graph: Graph, trees: Trees, source: int, target: int) -> Path:
    """The path of one pair."""
    ends = np.array([source], dtype=np.int32), np.array([target], dtype=np.int32)
    return graph.walked(trees, *ends)[1]


def _whole(
    calendar: Calendar, orders: Sequence[TransferOrder], now_ms: int, case: _Case, rate: Floats, live: list[int]
) -> tuple[dict[int, list[Piece]], dict[int, int]]:
    """Whole rates, and the bytes that are left of each order; what rounding lost goes into the room that was kept."""
    grid = calendar.grid
    room = Room(calendar.free[:, :-1].copy(), grid.first, grid)
    pieces: dict[int, list[Piece]] = {}
    left = {at: orders[at].size_bytes for at in live}
    bps = np.floor(rate * BITS_MS / np.maximum(case.length_ms, 1)).astype(np.int64)
    for column in np.flatnonzero(bps > 0).tolist():
        at, slot = live[int(case.order[column])], int(case.slot[column])
        if left[at] <= 0:
            continue
        length = int(case.length_ms[column])
        most = min(int(bps[column]), -(-left[at] * BITS_MS // length))
        most = min(most, int(room.free[case.path[column], slot].min()))
        if most > 0:
            room.free[case.path[column], slot] -= most
            pieces.setdefault(at, []).append(Piece(case.path[column], grid.first + slot, np.array([most])))
            left[at] -= most * length // BITS_MS
    is_meant = {at: case.programme.asked[number] > 0 for number, at in enumerate(live)}
    # First what was meant to be whole, the least of it lacking first; then whoever still finds room.
    for at in sorted(live, key=lambda each: (not is_meant[each], left[each] / orders[each].size_bytes, each)):
        if left[at] <= 0:
            continue
        done = filled(room, _paths(calendar, orders[at]), left[at], *span_of(calendar, orders[at], now_ms))
        pieces.setdefault(at, []).extend(done.pieces)
        left[at] = done.left_bytes
        if left[at] and not orders[at].is_partial_useful and not is_meant[at]:
            for piece in pieces.pop(at):
                low = piece.low - grid.first
                room.free[piece.arcs, low : low + len(piece.rates)] += piece.rates
            left[at] = orders[at].size_bytes
    return pieces, left
