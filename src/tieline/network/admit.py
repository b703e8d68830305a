"""Admit: whether a transfer can be promised, in milliseconds, and where its bytes go.

It is tried on the earliest room of few paths. Where that fails, everything in slots that have not begun is laid out
anew together with it, the earliest deadline first; it is admitted if every promise still holds, and nothing moves
otherwise. What was promised is never taken back for a newcomer. Best effort gets what is left after that and is
promised nothing.

Nothing here changes the calendar: an answer holds the bookings to put into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from tieline.model.reason import Reason, Value
from tieline.model.transfer import Segment, Transfer, TransferOrder, TransferState
from tieline.network.calendar import Calendar, Laid, mask_of
from tieline.network.fill import Filled, Room, filled, undone
from tieline.network.graph import Ints
from tieline.network.slots import BITS_MS, Grid, Longs, Piece, cut_at, segments_of, taken
from tieline.network.ways import Path

TURNS: Final = 10
FEW_LIVE: Final = 40  # up to so many live transfers all are laid anew, else those in the way
MOST_MOVED: Final = 48
MOST_ASIDE: Final = 32  # out of the way of a circuit
FEWER: Final = 4  # paths of each then
MOST_LAID: Final = 400  # parts that are laid before giving up, all turns together
MOST_LAID_PARTLY: Final = 112
MOST_LOADED_HOPS: Final = 4.0

PriceOf = Callable[[TransferOrder, Sequence[Segment]], int]  # -> micro CNY


class Admitted(NamedTuple):
    """The transfer as booked, and those that were laid elsewhere for it."""

    transfer: Transfer
    moved: tuple[Transfer, ...] = ()


class Refused(NamedTuple):
    """Why not, with numbers."""

    reasons: tuple[Reason, ...]


class Part(NamedTuple):
    """Bytes of a live transfer that are laid out anew."""

    id: str
    size_bytes: int
    from_ms: int
    due_ms: int  # 0: best effort
    paths: tuple[Path, ...]
    is_splittable: bool


class Layout(NamedTuple):
    """Pieces of each transfer that took part, and bytes that found no room in time."""

    pieces: dict[str, list[Piece]]
    short_bytes: dict[str, int]


def admitted(
    calendar: Calendar, order: TransferOrder, *, name: str, user: str, now_ms: int, price_of: PriceOf, project: str = ""
) -> Admitted | Refused:
    """The booking of an order, or why there is none. ``now_ms`` before the grid counts as its beginning."""
    now_ms = max(now_ms, calendar.grid.begin_ms)
    wrong = impossible(calendar, order, now_ms)
    if wrong:
        return Refused(wrong)
    from_ms, until_ms = span_of(calendar, order, now_ms)
    part = _part(calendar, order, name, order.size_bytes, from_ms, order.deadline_ms and until_ms)
    if order.deadline_ms and (dear := _dear(calendar, part)):
        return Refused((dear,))
    room = Room(calendar.free[:, :-1], calendar.grid.first, calendar.grid)
    done = _fill(room, part, until_ms)
    undone(room, done)
    made = Transfer(id=name, order=order, user=user, project=project, booked_ms=now_ms, changed_ms=now_ms)
    if not done.left_bytes or not order.deadline_ms:
        return _priced(calendar, made, done.pieces, from_ms, until_ms, (), price_of)
    layout = (
        relaid(calendar, now_ms, (part,)) if len(calendar.transfers) <= FEW_LIVE else beside(calendar, now_ms, (part,))
    )
    if layout is not None:
        moved = moved_by(calendar, layout, now_ms, without=name)
        return _priced(calendar, made, layout.pieces[name], from_ms, until_ms, moved, price_of)
    if order.is_partial_useful and done.pieces:
        lacks = Reason(code="transfer_partial", values={"left_bytes": done.left_bytes, "asked_bytes": order.size_bytes})
        whole = order.size_bytes - done.left_bytes
        made = msgspec.structs.replace(made, short_bytes=done.left_bytes, priced_bytes=whole, reasons=(lacks,))
        return _priced(calendar, made, done.pieces, from_ms, until_ms, (), price_of)
    values: dict[str, Value] = {"room_bytes": order.size_bytes - done.left_bytes, "asked_bytes": order.size_bytes}
    return Refused((Reason(code="transfer_no_room", values=values),))


def _dear(calendar: Calendar, part: Part) -> Reason | None:
    """Why a transfer would take more than it is worth: a long way over links that are full in its time.

    Bytes over ``h`` hops displace up to ``h`` times as many bytes of one hop. Hops count by how full they are.
    """
    path, grid = part.paths[0], calendar.grid
    low, high = (at - grid.first for at in grid.touched(part.from_ms, part.due_ms))
    there = float(calendar.firm[path, low:high].sum())
    full = 1.0 - float(calendar.free[path, low:high].sum()) / there if there > 0 else 0.0
    if full * len(path) <= MOST_LOADED_HOPS:
        return None
    return Reason(code="transfer_dear", values={"hops": len(path), "full_percent": int(100 * full)})


def span_of(calendar: Calendar, order: TransferOrder, now_ms: int) -> tuple[int, int]:
    """From when to when an order can use the calendar."""
    return max(order.earliest_ms, now_ms), min(order.deadline_ms or calendar.grid.until_ms, calendar.grid.until_ms)


def impossible(calendar: Calendar, order: TransferOrder, now_ms: int) -> tuple[Reason, ...]:
    """Why an order could not be met even by an empty network; nothing where it could."""
    node, graph = calendar.wires.node, calendar.wires.graph
    for name in (order.source, order.target):
        if name not in node:
            return (Reason(code="network_unknown_end", values={"end": name}),)
    source, target = node[order.source], node[order.target]
    if source == target:
        return (Reason(code="network_same_end", values={"end": order.source}),)
    if not calendar.ways.between(source, target):
        return (Reason(code="network_no_path", values={"source": order.source, "target": order.target}),)
    from_ms, until_ms = span_of(calendar, order, now_ms)
    if from_ms >= calendar.grid.until_ms:
        ahead_us = (calendar.grid.until_ms - now_ms) * 1_000
        return (Reason(code="calendar_too_far", values={"ahead_us": ahead_us}),)
    if not order.deadline_ms or order.is_partial_useful:
        return ()
    out = int(graph.capacity_bps[graph.tail == source].sum())
    into = int(graph.capacity_bps[graph.head == target].sum())
    needed_ms = -(-order.size_bytes * BITS_MS // min(out, into))
    if until_ms < order.deadline_ms and until_ms - from_ms < needed_ms <= order.deadline_ms - from_ms:
        ahead_us = (calendar.grid.until_ms - now_ms) * 1_000  # it could be carried, but not promised as yet
        return (Reason(code="calendar_too_far", values={"ahead_us": ahead_us}),)
    if needed_ms > until_ms - from_ms:
        values: dict[str, Value] = {"needed_us": needed_ms * 1_000, "asked_us": max(0, until_ms - from_ms) * 1_000}
        return (Reason(code="transfer_physical", values={**values, "most_bps": min(out, into)}),)
    return ()


def relaid(calendar: Calendar, now_ms: int, new: Sequence[Part]) -> Layout | None:
    """Everything in slots that have not begun, anew, with ``new``; None where a promise would not hold."""
    parts = parts_of(calendar, now_ms)
    return laid(calendar, now_ms, [*parts, *new])


def beside(calendar: Calendar, now_ms: int, new: Sequence[Part], of: Sequence[str] = ()) -> Layout | None:
    """Those anew that hold most of what ``new`` could use; everybody else stays where he is.

    ``of``: the live transfers whose parts ``new`` are; they are not laid by what they have now.
    """
    grid = calendar.grid
    whole = grid.whole_from(now_ms)
    way = 0
    for path in {id(path): path for part in new for path in part.paths}.values():
        way |= mask_of(path)
    low = max(whole, min(grid.touched(part.from_ms, part.from_ms)[0] for part in new))
    high = max(_slot_after(calendar, part) for part in new)
    held = []
    for name, each in calendar.transfers.items():
        here = 0
        for piece, mask in zip(each.pieces, each.masks, strict=True):
            if mask & way and piece.low < high and piece.low + len(piece.rates) > low:
                begin, end = max(low, piece.low), min(high, piece.low + len(piece.rates))
                here += int(piece.rates[begin - piece.low : end - piece.low].sum())
        if here and name not in of:
            held.append((-here, name))
    moving = [name for _, name in sorted(held)[:MOST_MOVED]]
    return _among(calendar, now_ms, moving, new, of)


def aside(calendar: Calendar, now_ms: int) -> Layout | None:
    """Transfers out of the way of circuits: few of those that lie where there is too little now, each elsewhere.

    None: too many would have to, or one of them would not keep its promise. Where few are live, all are laid anew.
    """
    grid = calendar.grid
    whole = grid.whole_from(now_ms) - grid.first
    rows = calendar.over()
    left = calendar.free[rows, :-1]
    if (left[:, grid.touched(now_ms, now_ms)[0] - grid.first : whole] < 0).any():
        return None  # what has begun stays
    if len(calendar.transfers) <= FEW_LIVE:
        return relaid(calendar, now_ms, ())
    ahead = left[:, whole:]
    way, place = mask_of(rows), {arc: number for number, arc in enumerate(rows.tolist())}
    moving: dict[str, None] = {}
    near = {name: each for name, each in calendar.transfers.items() if each.way & way}
    if _too_many(near, rows, ahead, grid.first + whole):
        return None
    least = ahead.min(axis=1)
    known: dict[int, list[tuple[str, Piece]]] = {}
    while (lacking := int(least.min())) < 0:
        row = int(least.argmin())
        arc, column = int(rows[row]), int(ahead[row].argmin())
        if arc not in known:
            known[arc] = _pieces_on(near, arc)
        there = _rates_at(known[arc], near, grid.first + whole + column)
        most = sum(sorted(there.values(), reverse=True)[: MOST_ASIDE - len(moving)])
        if not there or most < -lacking:
            return None
        name = max(there, key=lambda each: (there[each], each))
        moving[name] = None
        gone = near.pop(name)
        for piece, mask in zip(gone.pieces, gone.masks, strict=True):
            if mask & way:
                at, low, rates = _on(piece, place, grid, whole)
                left[at, low : low + len(rates)] += rates
                least[at] = ahead[at].min(axis=1)
    return _among(calendar, now_ms, tuple(moving), (), ()) if moving else Layout({}, {})


def _too_many(near: dict[str, Laid], rows: Ints, left: Longs, first: int) -> bool:
    """Whether more than `MOST_ASIDE` would have to go from the arc that lacks most: then nobody is asked to."""
    lacking = np.minimum(left, 0).sum(axis=1)
    row = int(lacking.argmin())
    bit, is_over, there = 1 << int(rows[row]), left[row] < 0, []
    for each in near.values():
        if each.way & bit:
            here = 0
            for piece, mask in zip(each.pieces, each.masks, strict=True):
                if mask & bit:
                    low = max(piece.low - first, 0)
                    rates = piece.rates[low + first - piece.low :][: max(0, len(is_over) - low)]
                    here += int(rates[is_over[low : low + len(rates)]].sum())
            there.append(here)
    return sum(sorted(there)[-MOST_ASIDE:]) < -int(lacking[row])


def _pieces_on(near: dict[str, Laid], arc: int) -> list[tuple[str, Piece]]:
    """Whose pieces are on an arc."""
    bit = 1 << arc
    return [
        (name, piece)
        for name, each in near.items()
        if each.way & bit
        for piece, mask in zip(each.pieces, each.masks, strict=True)
        if mask & bit
    ]


def _rates_at(pieces: Sequence[tuple[str, Piece]], near: dict[str, Laid], slot: int) -> dict[str, int]:
    """Who of those that are near holds how much in a slot."""
    found: dict[str, int] = {}
    for name, piece in pieces:
        at = slot - piece.low
        if 0 <= at < len(piece.rates) and name in near and (rate := int(piece.rates[at])):
            found[name] = found.get(name, 0) + rate
    return found


def _on(piece: Piece, place: dict[int, int], grid: Grid, whole: int) -> tuple[list[int], int, Longs]:
    """The rows that a piece is on, its first column there that has not begun, and its rates from then on."""
    low = max(piece.low - grid.first, whole)
    rates = piece.rates[low + grid.first - piece.low :][: max(0, grid.slots - low)]
    return [place[arc] for arc in piece.arcs.tolist() if arc in place], low, rates


def _among(
    calendar: Calendar,
    now_ms: int,
    moving: Sequence[str],
    new: Sequence[Part],
    of: Sequence[str],
) -> Layout | None:
    """Some transfers and ``new`` anew in what all others leave. Only the arcs that they could use are looked at."""
    grid = calendar.grid
    whole = grid.whole_from(now_ms)
    parts = [each._replace(paths=each.paths[:FEWER]) for each in (*parts_of(calendar, now_ms, moving), *new)]
    last = max(whole, *(_slot_after(calendar, part) for part in parts))
    paths = {id(path): path for part in parts for path in part.paths}
    if not paths:
        return None
    rows = np.unique(np.concatenate(list(paths.values())))
    place = np.full(len(calendar.free), -1, dtype=np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    room = calendar.free[rows, : last - grid.first]
    ahead = Grid(whole, last - whole, grid.slot_ms)
    for name in (*moving, *of):
        for piece in calendar.transfers[name].pieces:
            at = place[piece.arcs]
            taken(room[:, whole - grid.first :], ahead, piece._replace(arcs=at[at >= 0]), -1)
    here = {number: place[path] for number, path in paths.items()}
    parts = [each._replace(paths=tuple(here[id(path)] for path in each.paths)) for each in parts]
    new = parts[len(parts) - len(new) :]
    if len(new) == 1:
        alone = Room(room, grid.first, grid)
        done = _fill(alone, new[0], new[0].due_ms)
        undone(alone, done)
        if done.left_bytes:
            return None
    layout = laid(calendar, now_ms, parts, left=room)
    if layout is None:
        return None
    found = {name: [each._replace(arcs=rows[each.arcs]) for each in some] for name, some in layout.pieces.items()}
    return layout._replace(pieces=found)


def parts_of(calendar: Calendar, now_ms: int, names: Sequence[str] | None = None) -> list[Part]:
    """What of the live transfers can still be laid elsewhere. What is late keeps the time that it was told."""
    at_ms = calendar.grid.whole_from(now_ms) * calendar.grid.slot_ms
    parts = []
    for name in calendar.transfers if names is None else names:
        transfer = calendar.transfers[name].transfer
        order = transfer.order
        due_ms = order.deadline_ms and min(order.deadline_ms, calendar.grid.until_ms)
        _, after = cut_at(transfer.segments, at_ms)
        late = 0
        if after and due_ms and after[-1].until_ms > due_ms:
            after, beyond = cut_at(after, due_ms)
            late = sum(segment.size_bytes for segment in beyond)
        if size := sum(segment.size_bytes for segment in after):
            parts.append(_part(calendar, order, transfer.id, size, max(order.earliest_ms, at_ms), due_ms))
        if late:
            end_ms = max(segment.until_ms for segment in beyond)
            parts.append(_part(calendar, order, transfer.id, late, max(due_ms, at_ms), end_ms))
    return parts


def laid(
    calendar: Calendar,
    now_ms: int,
    parts: Sequence[Part],
    *,
    left: Longs | None = None,
    is_forced: bool = False,
) -> Layout | None:
    """Parts by earliest deadline, then best effort in its order. ``is_forced``: who is short does not stop it.

    Where somebody finds no room he goes to the front and it is tried again, `TURNS` times in all: who squeaks gets
    the grease (Joslin and Clements, JAIR 10, 1999). ``left``: what everybody else leaves, which is filled; None: only
    they are there.
    """
    grid = calendar.grid
    first, whole = grid.touched(now_ms, grid.until_ms)[0], grid.whole_from(now_ms)
    last = max([whole, *(_slot_after(calendar, part) for part in parts)])
    base = (calendar.firm if left is None else left)[:, first - grid.first : last - grid.first]
    if left is None:
        base = base.copy()
        base[:, : whole - first] = calendar.free[:, first - grid.first : whole - grid.first]  # what has begun stays
    room = Room(base, first, grid)
    hard = sorted((part for part in parts if part.due_ms), key=lambda part: (part.due_ms, -part.size_bytes, part.id))
    rest = sorted((part for part in parts if not part.due_ms), key=lambda part: part.id)
    budget = max(len(hard), MOST_LAID if left is None else MOST_LAID_PARTLY)
    for _ in range(1 if is_forced else TURNS):
        layout, lacking = _in_order(room, hard, rest, is_forced=is_forced)
        if lacking is None:
            return layout
        undone(room, Filled([piece for some in layout.pieces.values() for piece in some], 0))
        budget -= lacking + 1
        if budget <= 0:
            break
        hard.insert(0, hard.pop(lacking))
    return None


def _in_order(room: Room, hard: Sequence[Part], rest: Sequence[Part], *, is_forced: bool) -> tuple[Layout, int | None]:
    """Lay the promised parts in this order, then best effort; stops at the first that finds no room, and says which."""
    layout = Layout({part.id: [] for part in (*hard, *rest)}, {})
    for at, part in enumerate(hard):
        done = _fill(room, part, part.due_ms)
        layout.pieces[part.id].extend(done.pieces)
        if done.left_bytes:
            if not is_forced:
                return layout, at
            layout.short_bytes[part.id] = layout.short_bytes.get(part.id, 0) + done.left_bytes
    until_ms = (room.low + room.free.shape[1]) * room.grid.slot_ms
    for part in rest:
        layout.pieces[part.id].extend(_fill(room, part, until_ms).pieces)
    return layout, None


def moved_by(calendar: Calendar, layout: Layout, now_ms: int, *, without: str = "") -> tuple[Transfer, ...]:
    """The live transfers that a layout laid elsewhere, with their new segments; their price stays."""
    grid = calendar.grid
    at_ms = grid.whole_from(now_ms) * grid.slot_ms
    moved = []
    for name, pieces in layout.pieces.items():
        if name == without:
            continue
        transfer = calendar.transfers[name].transfer
        before, after = cut_at(transfer.segments, at_ms)
        order = transfer.order
        from_ms, until_ms = max(order.earliest_ms, at_ms), grid.until_ms
        if order.deadline_ms and transfer.state is not TransferState.SHORT:
            until_ms = min(order.deadline_ms, until_ms)
        new = segments_of(calendar.wires, grid, pieces, from_ms, until_ms)
        if new != after:
            moved.append(rebooked(transfer, (*before, *new), now_ms))
    return tuple(moved)


def rebooked(transfer: Transfer, segments: tuple[Segment, ...], now_ms: int) -> Transfer:
    """The same transfer on other segments."""
    arrives = arrival_of(segments, transfer.order.size_bytes - transfer.short_bytes)
    return msgspec.structs.replace(transfer, segments=segments, arrives_ms=arrives, changed_ms=now_ms)


def arrival_of(segments: Sequence[Segment], size_bytes: int) -> int:
    """When segments have carried so much: the end of the last one; 0 where they do not."""
    if sum(segment.size_bytes for segment in segments) < size_bytes:
        return 0
    return max((segment.until_ms for segment in segments), default=0)


def _slot_after(calendar: Calendar, part: Part) -> int:
    due_ms = part.due_ms or calendar.grid.until_ms
    return calendar.grid.touched(part.from_ms, due_ms)[1]


def _part(calendar: Calendar, order: TransferOrder, name: str, size_bytes: int, from_ms: int, due_ms: int) -> Part:
    node = calendar.wires.node
    paths: tuple[Path, ...] = ()
    if order.source in node and order.target in node:
        paths = calendar.ways.between(node[order.source], node[order.target])
    return Part(name, size_bytes, from_ms, due_ms, paths, order.is_splittable)


def _fill(room: Room, part: Part, until_ms: int) -> Filled:
    return filled(room, part.paths, part.size_bytes, part.from_ms, until_ms, is_splittable=part.is_splittable)


def _priced(
    calendar: Calendar,
    made: Transfer,
    pieces: Sequence[Piece],
    from_ms: int,
    until_ms: int,
    moved: tuple[Transfer, ...],
    price_of: PriceOf,
) -> Admitted | Refused:
    segments = segments_of(calendar.wires, calendar.grid, pieces, from_ms, until_ms)
    price = price_of(made.order, segments)
    limit = made.order.limit_micro_cny
    if limit is not None and price > limit:
        values: dict[str, Value] = {"limit_micro_cny": limit, "price_micro_cny": price}
        return Refused((Reason(code="transfer_price", values=values),))
    whole = made.order.size_bytes - made.short_bytes
    arrives = arrival_of(segments, whole)
    booked = msgspec.structs.replace(made, segments=segments, price_micro_cny=price, arrives_ms=arrives)
    return Admitted(booked, moved)
