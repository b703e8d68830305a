"""Small networks, and what has to hold of every calendar, computed anew from the bookings alone."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tieline.model.circuit import CIRCUIT_ENDED, CircuitState, Recurrence
from tieline.model.topology import Link, Node, Topology, Window
from tieline.model.transfer import TransferState
from tieline.network.calendar import Calendar, windows_in

SLOT_MS = 60_000
SLOTS = 12
MBIT = 1_000_000


def line(*capacities_bps: int, delay_us: int = 1_000) -> Topology:
    """n0 - n1 - n2 ..."""
    ends = [(f"n{at}", f"n{at + 1}", rate, delay_us) for at, rate in enumerate(capacities_bps)]
    return network(*ends)


def network(*links: tuple[str, str, int, int], groups: dict[int, tuple[str, ...]] | None = None) -> Topology:
    names = sorted({end for a, b, _, _ in links for end in (a, b)})
    return Topology(
        name="small",
        nodes=tuple(Node(name=name) for name in names),
        links=tuple(
            Link(name=f"l{at}", a=a, b=b, capacity_bps=rate, delay_us=us, groups=(groups or {}).get(at, ()))
            for at, (a, b, rate, us) in enumerate(links)
        ),
    )


def without(topology: Topology, *cut: int) -> Topology:
    links = tuple(
        Link(name=link.name, a=link.a, b=link.b, capacity_bps=0, delay_us=link.delay_us) if at in cut else link
        for at, link in enumerate(topology.links)
    )
    return Topology(name=topology.name, nodes=topology.nodes, links=links)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    count = draw(st.integers(2, 6))
    nodes = [f"n{at}" for at in range(count)]
    spans = st.tuples(st.integers(0, SLOTS * SLOT_MS), st.integers(1, 3 * SLOT_MS))
    links = []
    ends = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), min_size=1, max_size=9))
    for at, (a, b) in enumerate((a, b) for a, b in ends if a != b):
        begins = draw(st.lists(spans, max_size=1))
        links.append(
            Link(
                name=f"l{at}",
                a=nodes[a],
                b=nodes[b],
                capacity_bps=draw(st.sampled_from((0, 7_777, MBIT, 10 * MBIT, 10**15))),
                capacity_back_bps=draw(st.sampled_from((None, MBIT // 2))),
                delay_us=draw(st.integers(0, 5_000)),
                maintenance=tuple(Window(from_ms=low, until_ms=low + length) for low, length in begins),
            )
        )
    return Topology(name="drawn", nodes=tuple(Node(name=name) for name in nodes), links=tuple(links))


def nothing_is_sold_twice(calendar: Calendar) -> None:
    """At every time from now on no arc carries more than it can, and nothing where it is maintained.

    Who waits to be mended after a failure is not counted: he has been told that his room is gone.
    """
    waiting = {name for names in calendar.waiting() for name in names}
    begin_ms, end_ms = max(calendar.grid.begin_ms, calendar.now_ms), calendar.grid.until_ms
    load: dict[tuple[str, bool], list[tuple[int, int, int]]] = {}
    for laid in calendar.transfers.values():
        for segment in laid.transfer.segments if laid.transfer.id not in waiting else ():
            for name, forward in zip(segment.path, segment.is_forward, strict=True):
                load.setdefault((name, forward), []).append((segment.from_ms, segment.until_ms, segment.rate_bps))
    for circuit in calendar.circuits.values():
        assert circuit.state not in CIRCUIT_ENDED
        order = circuit.order
        if circuit.id in waiting:
            continue
        spans = windows_in(order.from_ms, order.until_ms, order.recurrence, begin_ms, end_ms)
        for pause in circuit.paused:
            spans = [part for window in spans for part in _outside(window, pause)]
        for route in (circuit.route, circuit.spare):
            for name in () if route is None else route.links:
                for forward in (True, False):
                    spots = load.setdefault((name, forward), [])
                    spots.extend((window.from_ms, window.until_ms, circuit.held_bps) for window in spans)
    links = {link.name: link for link in calendar.wires.topology.links}
    for (name, forward), spots in load.items():
        link = links[name]
        back = link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps
        for at_ms in {max(low, begin_ms) for low, high, _ in spots if high > begin_ms}:
            carried = sum(rate for low, high, rate in spots if low <= at_ms < high)
            assert carried <= (link.capacity_bps if forward else back), (name, at_ms, carried)
            if carried:
                assert not any(window.from_ms <= at_ms < window.until_ms for window in link.maintenance), name
    assert calendar.is_kept() or waiting


def _outside(window: Window, pause: Window) -> list[Window]:
    """What is left of a window beside another."""
    parts = (
        (window.from_ms, min(window.until_ms, pause.from_ms)),
        (max(window.from_ms, pause.until_ms), window.until_ms),
    )
    return [Window(from_ms=low, until_ms=high) for low, high in parts if low < high]


def promises_hold(calendar: Calendar) -> None:
    """Every transfer arrives whole and in time, or it is short and says by how much; every path leads there."""
    links = {link.name: link for link in calendar.wires.topology.links}
    for laid in calendar.transfers.values():
        transfer = laid.transfer
        order = transfer.order
        for segment in transfer.segments:
            at = order.source
            for name, forward in zip(segment.path, segment.is_forward, strict=True):
                link = links[name]
                assert at == (link.a if forward else link.b)
                at = link.b if forward else link.a
            assert at == order.target
            assert segment.from_ms >= order.earliest_ms
            assert segment.from_ms < segment.until_ms
            if order.deadline_ms and transfer.state is not TransferState.SHORT:
                assert segment.until_ms <= order.deadline_ms
        if order.deadline_ms:
            in_time = [segment for segment in transfer.segments if segment.until_ms <= order.deadline_ms]
            carried = sum(segment.size_bytes for segment in in_time)
            assert carried >= order.size_bytes - transfer.short_bytes
            assert not transfer.short_bytes or transfer.reasons
    for circuit in calendar.circuits.values():
        assert (circuit.route is None) == (circuit.state is CircuitState.DOWN)
        for route in (circuit.route, circuit.spare):
            if route is not None and circuit.order.latency_us:
                assert route.delay_us <= circuit.order.latency_us


def recurrences() -> st.SearchStrategy[Recurrence | None]:
    each = st.builds(
        lambda period, begin, length: Recurrence(period_s=period, begin_s=begin, length_s=length),
        st.sampled_from((180, 240)),
        st.integers(0, 60),
        st.integers(1, 120),
    )
    return st.none() | each


def booked(calendar: Calendar, transfers: Sequence[object], circuits: Sequence[object] = ()) -> None:
    for circuit in circuits:
        calendar.put_circuit(circuit)  # type: ignore[arg-type]
    for transfer in transfers:
        calendar.put_transfer(transfer)  # type: ignore[arg-type]
