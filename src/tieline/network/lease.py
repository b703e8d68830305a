"""Lease: whether a circuit can be promised, and over which route.

A circuit holds one route, both directions, in all slots of its windows, and where it asks for diversity a spare route
with the same rate. It is tried in the room that is free; then in what transfers leave when they are laid out anew
(all of their promises kept); then beside circuits that hold more than their least. Routes are tried in the order of
their delay (Yen), so the first that fits is the quickest; with a spare one, the pair whose first is the quickest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from tieline.model.circuit import Circuit, CircuitOrder, Diversity, Route
from tieline.model.reason import Reason, Value
from tieline.model.topology import Line
from tieline.model.transfer import Transfer
from tieline.network.admit import Refused, aside, moved_by
from tieline.network.calendar import Calendar, at, columns_in, columns_of, held_arcs, windows_in
from tieline.network.graph import Floats, Graph
from tieline.network.slots import Longs
from tieline.network.ways import Path, in_order, shortest

CANDIDATES: Final = 32  # first routes that are tried for a pair
FEW_CANDIDATES: Final = 4  # to say how much there is
FINEST: Final = 64  # how exactly that is said, as a part of it, where no formula gives it
TRIES: Final = 2  # routes from which transfers are asked to go
ENCAPSULATION_BYTES: Final = 96  # an outer IPv6 header and three segments (RFC 8754): 40 + 8 + 48
MOST_WINDOWS: Final = 2_048

PriceOf = Callable[[CircuitOrder], int]  # -> micro CNY an hour


class Leased(NamedTuple):
    """The circuit as booked; transfers that were laid elsewhere and circuits that hold less for it."""

    circuit: Circuit
    moved: tuple[Transfer, ...] = ()
    shrunk: tuple[Circuit, ...] = ()


def leased(
    calendar: Calendar, order: CircuitOrder, *, name: str, user: str, now_ms: int, price_of: PriceOf, project: str = ""
) -> Leased | Refused:
    """The booking of an order, or why there is none, and from when on there would be one."""
    now_ms = max(now_ms, calendar.grid.begin_ms)
    wrong = impossible(calendar, order, now_ms)
    if wrong:
        return Refused(wrong)
    from_ms = max(order.from_ms, now_ms)
    windows = windows_in(from_ms, order.until_ms, order.recurrence, now_ms, calendar.grid.until_ms)
    columns = columns_in(calendar.grid, from_ms, order.until_ms, order.recurrence)
    circuit = Circuit(
        id=name,
        order=msgspec.structs.replace(order, from_ms=from_ms),
        user=user,
        project=project,
        windows=tuple(windows),
        ordered_ms=now_ms,
        changed_ms=now_ms,
    )
    found = _held(calendar, circuit, columns, now_ms)
    price = price_of(order)
    if found is None:
        why = _why(calendar, order, columns)
        is_dear = order.limit_micro_cny_per_hour is not None and price > order.limit_micro_cny_per_hour
        is_later = why.code == "circuit_no_room" and not is_dear
        return Refused((why, *_later(calendar, circuit, now_ms))) if is_later else Refused((why,))
    made = found.circuit
    if order.limit_micro_cny_per_hour is not None and price > order.limit_micro_cny_per_hour:
        values: dict[str, Value] = {"limit_micro_cny": order.limit_micro_cny_per_hour, "price_micro_cny": price}
        return Refused((Reason(code="circuit_price", values=values),))
    return found._replace(circuit=msgspec.structs.replace(made, price_micro_cny_per_hour=price))


def resized(calendar: Calendar, circuit: Circuit, rate_bps: int, *, now_ms: int) -> Leased | Refused:
    """The same circuit at another rate, on its own route and spare one: nothing is torn down for it."""
    now_ms = max(now_ms, calendar.grid.begin_ms)
    if rate_bps <= 0:
        return Refused((Reason(code="circuit_rate_none", values={"asked_bps": rate_bps}),))
    order = msgspec.structs.replace(circuit.order, rate_bps=rate_bps, most_bps=max(rate_bps, circuit.order.most_bps))
    again = msgspec.structs.replace(circuit, order=order, granted_bps=rate_bps, changed_ms=now_ms)
    ways = held_arcs(calendar.wires, circuit)
    columns = columns_of(calendar.grid, circuit)
    columns = columns[columns >= calendar.grid.touched(now_ms, now_ms)[0] - calendar.grid.first]
    if rate_bps <= circuit.held_bps:
        return Leased(again)
    with calendar.trying():
        calendar.put_circuit(again)
        if not any((calendar.free[at(way, columns)] < 0).any() for way in ways):
            return Leased(again)
        moved = None
        if not any((calendar.firm[at(way, columns)] < 0).any() for way in ways):
            moved = _moved(calendar, now_ms)
        most = min(int(calendar.free[at(way, columns)].min()) for way in ways) + rate_bps
    if moved is not None:
        return Leased(again, moved)
    return Refused((Reason(code="circuit_no_room", values={"most_bps": max(0, most), "asked_bps": rate_bps}),))


def _moved(calendar: Calendar, now_ms: int) -> tuple[Transfer, ...] | None:
    """The transfers that go elsewhere so that nothing is booked beyond what there is; None where they cannot."""
    layout = aside(calendar, now_ms)
    return None if layout is None else moved_by(calendar, layout, now_ms)


def impossible(calendar: Calendar, order: CircuitOrder, now_ms: int) -> tuple[Reason, ...]:
    """Why an order could not be met even by an empty network; nothing where it could."""
    node, graph = calendar.wires.node, calendar.wires.graph
    for name in (order.a, order.b):
        if name not in node:
            return (Reason(code="network_unknown_end", values={"end": name}),)
    if node[order.a] == node[order.b]:
        return (Reason(code="network_same_end", values={"end": order.a}),)
    if order.rate_bps <= 0:
        return (Reason(code="circuit_rate_none", values={"asked_bps": order.rate_bps}),)
    if order.until_ms and order.until_ms <= max(order.from_ms, now_ms):
        return (Reason(code="circuit_over", values={"late_us": (max(order.from_ms, now_ms) - order.until_ms) * 1_000}),)
    again = order.recurrence
    if again is not None and again.begin_s + again.length_s > again.period_s:
        values: dict[str, Value] = {
            "length_us": (again.begin_s + again.length_s) * 1_000_000,
            "period_us": again.period_s * 1_000_000,
        }
        return (Reason(code="circuit_windows_overlap", values=values),)
    if again is not None and calendar.grid.slots * calendar.grid.slot_ms // (again.period_s * 1_000) > MOST_WINDOWS:
        return (Reason(code="circuit_windows_many", values={"most": MOST_WINDOWS}),)
    weight = np.where(graph.is_up, graph.delay_us + 1e-3, np.inf)
    path = calendar.ways.shortest(weight, node[order.a], node[order.b])
    if path is None:
        return (Reason(code="network_no_path", values={"source": order.a, "target": order.b}),)
    least_us = int(graph.delay_us[path].sum())
    if order.latency_us and least_us > order.latency_us:
        return (Reason(code="circuit_physical", values={"least_us": least_us, "asked_us": order.latency_us}),)
    if (calendar.mtu_bytes()[path] >= needed_mtu(order)).all():
        return ()
    return _mtu_wrong(calendar, order, weight)


def _mtu_wrong(calendar: Calendar, order: CircuitOrder, weight: Floats) -> tuple[Reason, ...]:
    """Whether packets of the order's size, with what a circuit adds, fit anywhere at all."""
    node = calendar.wires.node
    holds = np.where(calendar.mtu_bytes() >= needed_mtu(order), weight, np.inf)
    if shortest(calendar.wires.graph, holds, node[order.a], node[order.b]) is not None:
        return ()
    values: dict[str, Value] = {"needed_bytes": needed_mtu(order), "asked_bytes": order.mtu_bytes}
    return (Reason(code="circuit_mtu", values=values),)


def needed_mtu(order: CircuitOrder) -> int:
    """What every link of a route has to carry unfragmented."""
    return order.mtu_bytes + (ENCAPSULATION_BYTES if order.line is Line.IP else 0)


def _later(calendar: Calendar, circuit: Circuit, now_ms: int) -> tuple[Reason, ...]:
    """From when on there would be room: what moves in the slot that has begun is moved by nobody. Tries one route."""
    order, grid = circuit.order, calendar.grid
    begin_ms = grid.whole_from(now_ms) * grid.slot_ms
    if order.from_ms >= begin_ms or (order.until_ms and order.until_ms <= begin_ms):
        return ()
    later = msgspec.structs.replace(circuit, order=msgspec.structs.replace(order, from_ms=begin_ms))
    columns = columns_in(grid, begin_ms, order.until_ms, order.recurrence)
    if _held(calendar, later, columns, now_ms, tries=1) is None:
        return ()
    return (Reason(code="circuit_later", values={"wait_us": (begin_ms - now_ms) * 1_000}),)


def _held(calendar: Calendar, circuit: Circuit, columns: Longs, now_ms: int, tries: int = TRIES) -> Leased | None:
    """A route in what is free; then with transfers laid elsewhere; then beside circuits at their least."""
    least_free = calendar.least("free", columns)
    pair = pair_of(calendar, circuit.order, least_free)
    if pair is not None:
        return Leased(_granted(circuit, pair, least_free, calendar))
    found = _displacing(calendar, circuit, columns, now_ms, (), tries)
    if found is None and (wide := [each for each in calendar.circuits.values() if each.held_bps > each.order.rate_bps]):
        found = _displacing(calendar, circuit, columns, now_ms, sorted(wide, key=lambda each: each.id), tries)
    return found


def _displacing(
    calendar: Calendar, circuit: Circuit, columns: Longs, now_ms: int, wide: Sequence[Circuit], tries: int
) -> Leased | None:
    """A route in what circuits leave, of ``tries``; who holds more than his least there goes back to it (``wide``)."""
    grid = calendar.grid
    whole = grid.whole_from(now_ms) - grid.first
    # What has begun is moved by nobody.
    upper = np.minimum(calendar.least("firm", columns), calendar.least("free", columns[columns < whole]))
    for each in wide:
        for arcs in calendar.held[each.id]:
            upper[arcs] += each.held_bps - each.order.rate_bps
    for _ in range(tries):
        pair = pair_of(calendar, circuit.order, upper)
        if pair is None:
            return None
        made = _with(calendar, circuit, pair, circuit.order.rate_bps)
        arcs = np.unique(np.concatenate(held_arcs(calendar.wires, made)))
        shrunk = _at_their_least(calendar, wide, arcs, now_ms)
        with calendar.trying():
            for each in (*shrunk, made):
                calendar.put_circuit(each)
            over = arcs[(calendar.free[at(arcs, columns)] < 0).any(axis=1)]
            moved: tuple[Transfer, ...] | None = ()
            if len(over):
                is_firm = bool((calendar.firm[at(over, columns)] >= 0).all())
                is_ahead = bool((calendar.free[at(over, columns[columns < whole])] >= 0).all())
                moved = _moved(calendar, now_ms) if is_firm and is_ahead else None
        if moved is not None:
            return Leased(made, moved, shrunk)
        upper[over] = 0  # another one, without them
    return None


def _at_their_least(calendar: Calendar, wide: Sequence[Circuit], arcs: Longs, now_ms: int) -> tuple[Circuit, ...]:
    """The circuits on these arcs that hold more than was promised, at what was promised."""
    return tuple(
        msgspec.structs.replace(each, granted_bps=each.order.rate_bps, changed_ms=now_ms)
        for each in wide
        if any(np.isin(held, arcs).any() for held in calendar.held[each.id])
    )


def pair_of(
    calendar: Calendar, order: CircuitOrder, room: Longs, most: int = CANDIDATES
) -> tuple[Path, Path | None] | None:
    """A route and, where it was asked for, a spare one that keeps clear of it; within rate, latency and packet size.

    ``room``: of each arc, in all columns that are held. A pair is looked for among the ``most`` first routes.
    """
    graph, node = calendar.wires.graph, calendar.wires.node
    source, target = node[order.a], node[order.b]
    weight = np.where(_is_open(calendar, order, room), graph.delay_us + 1e-3, np.inf)
    most_us = order.latency_us or np.inf
    if order.diversity is Diversity.NONE:
        path = calendar.ways.shortest(weight, source, target)
        return None if path is None or graph.delay_us[path].sum() > most_us else (path, None)
    first = calendar.ways.shortest(weight, source, target)
    if first is None or graph.delay_us[first].sum() > most_us:
        return None
    for path in _candidates(graph, weight, first, most):
        if graph.delay_us[path].sum() > most_us:
            break
        clear = np.where(_touching(calendar, path, order.diversity), np.inf, weight)
        spare = calendar.ways.shortest(clear, source, target)
        if spare is not None and graph.delay_us[spare].sum() <= most_us:
            return path, spare
    return None


def _candidates(graph: Graph, weight: Floats, first: Path, most: int) -> Iterator[Path]:
    """The first of the quickest paths, mostly enough; then the others, as far as there are two apart at all."""
    yield first
    source, target = int(graph.tail[first[0]]), int(graph.head[first[-1]])
    if _are_two_apart(graph, weight, first):
        yield from (path for path in in_order(graph, weight, source, target, most) if not np.array_equal(path, first))


def _are_two_apart(graph: Graph, weight: Floats, first: Path) -> bool:
    """Whether two paths share no link: whether the first can be augmented (Suurballe, Networks 4, 1974)."""
    again = weight.copy()
    again[first] = np.inf
    again[first ^ 1] = 1.0  # back over its links, which frees them
    return shortest(graph, again, int(graph.tail[first[0]]), int(graph.head[first[-1]])) is not None


def spare_of(calendar: Calendar, circuit: Circuit, room: Longs) -> Path | None:
    """A spare route beside the one that a circuit has."""
    wires, order = calendar.wires, circuit.order
    way = None if circuit.route is None else wires.way_of(circuit.route.nodes, circuit.route.links)
    if not way or order.a not in wires.node or order.b not in wires.node:
        return None
    weight = np.where(_is_open(calendar, order, room), wires.graph.delay_us + 1e-3, np.inf)
    clear = np.where(_touching(calendar, np.array(way, dtype=np.int32), order.diversity), np.inf, weight)
    spare = calendar.ways.shortest(clear, wires.node[order.a], wires.node[order.b])
    is_late = spare is not None and order.latency_us and wires.graph.delay_us[spare].sum() > order.latency_us
    return None if is_late else spare


def _is_open(calendar: Calendar, order: CircuitOrder, room: Longs) -> Any:
    """Arcs that carry the order: both directions of a link, or none."""
    has_room = room >= order.rate_bps
    has_room &= has_room.reshape(-1, 2)[:, ::-1].reshape(-1)
    return has_room & calendar.wires.graph.is_up & (calendar.mtu_bytes() >= needed_mtu(order))


def _touching(calendar: Calendar, path: Path, diversity: Diversity) -> Any:
    """Arcs that a spare route may not use: both directions of the path's links, and what `diversity` adds."""
    graph, links = calendar.wires.graph, calendar.wires.topology.links
    is_closed = np.zeros(graph.arc_count, dtype=bool)
    is_closed[path] = is_closed[path ^ 1] = True
    if diversity is Diversity.NODE:
        between = graph.head[path[:-1]]
        is_closed |= np.isin(graph.tail, between) | np.isin(graph.head, between)
    if diversity is Diversity.GROUP:
        groups = {group for arc in path.tolist() for group in links[arc // 2].groups}
        shared = np.array([not groups.isdisjoint(link.groups) for link in links], dtype=bool)
        is_closed |= np.repeat(shared, 2)
    return is_closed


def _granted(circuit: Circuit, pair: tuple[Path, Path | None], room: Longs, calendar: Calendar) -> Circuit:
    """The pair at the most that the order's range and the room allow."""
    arcs = np.concatenate([path for path in pair if path is not None])
    both = np.concatenate([arcs, arcs ^ 1])
    rate = max(circuit.order.rate_bps, min(circuit.order.most_bps, int(room[both].min())))
    return _with(calendar, circuit, pair, rate)


def _with(calendar: Calendar, circuit: Circuit, pair: tuple[Path, Path | None], rate_bps: int) -> Circuit:
    first, spare = pair
    return msgspec.structs.replace(
        circuit,
        route=route_of(calendar, first),
        spare=None if spare is None else route_of(calendar, spare),
        granted_bps=rate_bps,
    )


def route_of(calendar: Calendar, path: Path) -> Route:
    """A path by names."""
    arcs = path.tolist()
    delay_us = int(calendar.wires.graph.delay_us[path].sum())
    return Route(nodes=calendar.wires.nodes_of(arcs), links=calendar.wires.links_of(arcs), delay_us=delay_us)


def _why(calendar: Calendar, order: CircuitOrder, columns: Longs) -> Reason:
    """What stands in the way: no spare route in the empty network, the latency, or the room."""
    if order.diversity is Diversity.NONE and not order.latency_us:
        most = _widest(calendar, order, calendar.least("free", columns))
        return Reason(code="circuit_no_room", values={"most_bps": most, "asked_bps": order.rate_bps})
    empty = calendar.wires.graph.capacity_bps.astype(np.int64)
    plain = msgspec.structs.replace(order, diversity=Diversity.NONE)
    if pair_of(calendar, order, empty) is None:
        if pair_of(calendar, plain, empty) is None:
            most = _widest(calendar, plain, empty)
            values: dict[str, Value] = {"most_bps": most, "asked_bps": order.rate_bps}
            return Reason(code="circuit_no_room", values=values)
        return Reason(code="circuit_no_spare", values={"diversity": order.diversity.value})
    most = _widest(calendar, order, calendar.least("free", columns))
    return Reason(code="circuit_no_room", values={"most_bps": most, "asked_bps": order.rate_bps})


def _widest(calendar: Calendar, order: CircuitOrder, room: Longs) -> int:
    """The most that an order like this could have: at once where any path will do, else by bisection over its rate."""
    if order.diversity is Diversity.NONE and not order.latency_us:
        return min(_bottleneck(calendar, order, room), order.rate_bps)
    low, high = 0, order.rate_bps
    while low + max(1, high // FINEST) < high:
        middle = (low + high + 1) // 2
        asked = msgspec.structs.replace(order, rate_bps=middle)
        low, high = (middle, high) if pair_of(calendar, asked, room, FEW_CANDIDATES) is not None else (low, middle)
    return low


def _bottleneck(calendar: Calendar, order: CircuitOrder, room: Longs) -> int:
    """The least room on the widest path, which lies in a tree of the widest links (Hu, Operations Research 9, 1961)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    graph, node = calendar.wires.graph, calendar.wires.node
    both = np.minimum(room[0::2], room[1::2])
    is_open = _is_open(calendar, msgspec.structs.replace(order, rate_bps=1), room)[0::2]
    # Of links between the same two nodes a matrix adds up the weights: the widest stays.
    links = np.flatnonzero(is_open)[np.argsort(both[is_open], kind="stable")[::-1]]
    ends = np.sort(np.stack([graph.tail[2 * links], graph.head[2 * links]]).astype(np.int64), axis=0)
    links = links[np.unique(ends[0] * graph.node_count + ends[1], return_index=True)[1]]
    rank = np.argsort(np.argsort(both[links], kind="stable")[::-1], kind="stable") + 1.0  # the widest is the lightest
    shape = (graph.node_count, graph.node_count)
    tree = minimum_spanning_tree(csr_array((rank, (graph.tail[2 * links], graph.head[2 * links])), shape=shape)).tocoo()
    weight = np.full(graph.arc_count, np.inf)
    kept = links[np.isin(rank, tree.data)]
    weight[2 * kept] = weight[2 * kept + 1] = 1.0
    path = shortest(graph, weight, node[order.a], node[order.b])
    return 0 if path is None else max(0, int(both[path // 2].min()))
