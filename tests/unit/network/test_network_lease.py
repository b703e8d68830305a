"""Circuits: the pair of routes that there is, the room of their windows, and what happens to them after a cut."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from network_worlds import MBIT, SLOT_MS, SLOTS, booked, line, network, nothing_is_sold_twice, topologies, without

from tieline.model.circuit import CircuitOrder, CircuitState, Diversity, Recurrence
from tieline.model.topology import Topology
from tieline.model.transfer import TransferOrder, TransferState
from tieline.network.admit import Admitted, Refused, admitted
from tieline.network.calendar import Calendar, windows_in
from tieline.network.heal import healed
from tieline.network.lease import ENCAPSULATION_BYTES, Leased, leased, resized

MINUTE_BYTES = MBIT * 60 // 8


def free(*_: object) -> int:
    return 0


def small(topology: Topology) -> Calendar:
    return Calendar(topology, 0, slot_ms=SLOT_MS, count=SLOTS)


def circuit(a: str = "n0", b: str = "n1", rate_bps: int = MBIT, **more: object) -> CircuitOrder:
    return msgspec.structs.replace(CircuitOrder(a=a, b=b, rate_bps=rate_bps), **more)


def ask(calendar: Calendar, name: str, order: CircuitOrder, now_ms: int = 0) -> Leased | Refused:
    answer = leased(calendar, order, name=name, user="u", now_ms=now_ms, price_of=free)
    if isinstance(answer, Leased):
        booked(calendar, answer.moved, (*answer.shrunk, answer.circuit))
    return answer


def move(calendar: Calendar, name: str, size_bytes: int, deadline_slot: int) -> Admitted | Refused:
    order = TransferOrder(source="n0", target="n1", size_bytes=size_bytes, deadline_ms=deadline_slot * SLOT_MS)
    answer = admitted(calendar, order, name=name, user="u", now_ms=0, price_of=free)
    if isinstance(answer, Admitted):
        booked(calendar, (answer.transfer, *answer.moved))
    return answer


def code_of(answer: Leased | Refused) -> str:
    assert isinstance(answer, Refused), answer
    assert answer.reasons[0].values
    return answer.reasons[0].code


RING = network(("n0", "n1", MBIT, 1_000), ("n1", "n2", MBIT, 1_000), ("n2", "n0", MBIT, 1_000))


def test_a_pair_keeps_clear_of_a_shared_duct() -> None:
    ducts = {0: ("duct",), 1: ("duct",)}
    two = (("n0", "n1", MBIT, 10), ("n0", "n1", MBIT, 20))
    shared = small(network(*two, ("n0", "n2", MBIT, 50), ("n2", "n1", MBIT, 50), groups=ducts))
    by_link = ask(shared, "a", circuit(diversity=Diversity.LINK, rate_bps=MBIT // 2))
    assert isinstance(by_link, Leased)
    assert by_link.circuit.spare is not None
    assert (by_link.circuit.route.links, by_link.circuit.spare.links) == (("l0",), ("l1",))
    by_duct = ask(shared, "b", circuit(diversity=Diversity.GROUP, rate_bps=MBIT // 2))
    assert isinstance(by_duct, Leased)
    assert (by_duct.circuit.route.links, by_duct.circuit.spare.links) == (("l0",), ("l2", "l3"))
    assert code_of(ask(small(line(MBIT)), "c", circuit(diversity=Diversity.LINK))) == "circuit_no_spare"


def test_of_links_side_by_side_any_may_be_the_one_that_keeps_clear() -> None:
    """The quickest way from n0 shares a duct with every spare one; the slower link beside it does not."""
    ducts = {0: ("x",), 3: ("x",)}
    links = (("n0", "n2", MBIT, 1), ("n0", "n2", MBIT, 5), ("n2", "n1", MBIT, 1), ("n0", "n1", MBIT, 50))
    made = ask(small(network(*links, groups=ducts)), "a", circuit(diversity=Diversity.GROUP))
    assert isinstance(made, Leased)
    assert made.circuit.spare is not None
    assert (made.circuit.route.links, made.circuit.spare.links) == (("l1", "l2"), ("l3",))


def test_refusals_state_the_bound() -> None:
    calendar = small(RING)
    late = ask(calendar, "a", circuit(latency_us=900))
    assert code_of(late) == "circuit_physical"
    assert late.reasons[0].values == {"least_us": 1_000, "asked_us": 900}
    wide = ask(calendar, "b", circuit(rate_bps=3 * MBIT))
    assert code_of(wide) == "circuit_no_room"
    assert MBIT * 0.99 <= wide.reasons[0].values["most_bps"] <= MBIT
    big = ask(calendar, "c", circuit(mtu_bytes=1_500))
    assert code_of(big) == "circuit_mtu"
    assert big.reasons[0].values == {"needed_bytes": 1_500 + ENCAPSULATION_BYTES, "asked_bytes": 1_500}
    assert code_of(ask(calendar, "d", circuit(rate_bps=0))) == "circuit_rate_none"
    assert code_of(ask(calendar, "e", circuit(until_ms=5), now_ms=10)) == "circuit_over"
    twice = Recurrence(period_s=60, begin_s=30, length_s=60)
    assert code_of(ask(calendar, "f", circuit(recurrence=twice))) == "circuit_windows_overlap"
    dear = leased(calendar, circuit(limit_micro_cny_per_hour=4), name="g", user="u", now_ms=0, price_of=lambda *_: 5)
    assert code_of(dear) == "circuit_price"
    assert not calendar.circuits
    assert np.array_equal(calendar.free, calendar.capacity)


def test_transfers_that_have_not_begun_give_way() -> None:
    calendar = small(line(MBIT))
    assert isinstance(move(calendar, "t", 2 * MINUTE_BYTES, 6), Admitted)
    held = ask(calendar, "c", circuit(until_ms=2 * SLOT_MS))
    assert isinstance(held, Leased)
    assert [each.id for each in held.moved] == ["t"]
    assert calendar.transfers["t"].transfer.arrives_ms == 4 * SLOT_MS
    assert code_of(ask(calendar, "d", circuit(until_ms=5 * SLOT_MS))) == "circuit_no_room"
    nothing_is_sold_twice(calendar)


def test_windows_that_recur_share_a_link_by_turns() -> None:
    calendar = small(line(MBIT))
    odd = Recurrence(period_s=120, begin_s=0, length_s=60)
    even = Recurrence(period_s=120, begin_s=60, length_s=60)
    first = ask(calendar, "a", circuit(recurrence=odd, until_ms=SLOTS * SLOT_MS))
    assert isinstance(first, Leased)
    assert [each.from_ms for each in first.circuit.windows] == [at * 2 * SLOT_MS for at in range(SLOTS // 2)]
    assert isinstance(ask(calendar, "b", circuit(recurrence=even, until_ms=SLOTS * SLOT_MS)), Leased)
    assert code_of(ask(calendar, "c", circuit(recurrence=even, rate_bps=1))) == "circuit_no_room"
    nothing_is_sold_twice(calendar)


def test_what_lies_beyond_the_grid_is_not_sold_twice() -> None:
    calendar = small(line(MBIT))
    far_ms = 50 * SLOTS * SLOT_MS
    assert isinstance(ask(calendar, "a", circuit(from_ms=far_ms)), Leased)
    assert code_of(ask(calendar, "b", circuit(from_ms=far_ms + 1))) == "circuit_no_room"
    assert isinstance(ask(calendar, "c", circuit(until_ms=SLOT_MS)), Leased)
    calendar.roll(far_ms)
    nothing_is_sold_twice(calendar)
    assert int(calendar.free[0, 0]) == 0


def test_a_range_gets_the_most_and_gives_back_down_to_its_least() -> None:
    calendar = small(line(3 * MBIT))
    wide = ask(calendar, "a", circuit(rate_bps=MBIT, most_bps=9 * MBIT))
    assert isinstance(wide, Leased)
    assert wide.circuit.held_bps == 3 * MBIT
    other = ask(calendar, "b", circuit(rate_bps=2 * MBIT))
    assert isinstance(other, Leased)
    assert [(each.id, each.held_bps) for each in other.shrunk] == [("a", MBIT)]
    assert code_of(ask(calendar, "c", circuit(rate_bps=1))) == "circuit_no_room"
    nothing_is_sold_twice(calendar)


def test_a_resize_stays_on_its_route_and_is_refused_whole() -> None:
    calendar = small(line(3 * MBIT))
    held = ask(calendar, "a", circuit())
    assert isinstance(held, Leased)
    assert isinstance(move(calendar, "t", 2 * MINUTE_BYTES, 2), Admitted)
    more = resized(calendar, held.circuit, 2 * MBIT, now_ms=0)
    assert isinstance(more, Leased)
    booked(calendar, more.moved, (more.circuit,))
    assert more.circuit.route == held.circuit.route
    nothing_is_sold_twice(calendar)
    before = calendar.free.copy()
    over = resized(calendar, more.circuit, 3 * MBIT, now_ms=0)
    assert isinstance(over, Refused)
    assert over.reasons[0].values == {"most_bps": 2 * MBIT, "asked_bps": 3 * MBIT}
    assert np.array_equal(calendar.free, before)
    less = resized(calendar, more.circuit, 1, now_ms=0)
    assert isinstance(less, Leased)
    booked(calendar, (), (less.circuit,))
    assert int(calendar.free[0, 5]) == 3 * MBIT - 1


def test_a_cut_puts_a_circuit_on_its_spare_route_and_the_next_one_down() -> None:
    calendar = small(RING)
    held = ask(calendar, "c", circuit(diversity=Diversity.NODE))
    assert isinstance(held, Leased)
    calendar.put_circuit(msgspec.structs.replace(held.circuit, state=CircuitState.UP))
    calendar.rewire(without(RING, 0))
    changed = healed(calendar, 0)
    booked(calendar, changed.transfers, changed.circuits)
    (now,) = changed.circuits
    assert (now.state, now.route, now.spare) == (CircuitState.DEGRADED, held.circuit.spare, None)
    assert now.reasons[0].code == "circuit_on_spare"
    calendar.rewire(without(RING, 0, 1))
    changed = healed(calendar, 0)
    booked(calendar, changed.transfers, changed.circuits)
    assert [(each.state, each.route) for each in changed.circuits] == [(CircuitState.DOWN, None)]
    assert np.array_equal(calendar.free, calendar.capacity)
    calendar.rewire(RING)
    back = healed(calendar, 0)
    assert [each.state for each in back.circuits] == [CircuitState.DEGRADED]  # until it is verified


def test_a_cut_says_at_once_what_arrives_late() -> None:
    calendar = small(network(("n0", "n1", MBIT, 0), ("n0", "n1", MBIT, 0)))
    assert isinstance(move(calendar, "soon", 4 * MINUTE_BYTES, 2), Admitted)
    assert isinstance(move(calendar, "later", 4 * MINUTE_BYTES, 8), Admitted)
    calendar.roll(SLOT_MS)
    calendar.rewire(without(calendar.wires.topology, 1))
    changed = healed(calendar, SLOT_MS)
    booked(calendar, changed.transfers, changed.circuits)
    (short,) = changed.short
    assert (short.id, short.state, short.short_bytes) == ("soon", TransferState.SHORT, MINUTE_BYTES)
    assert short.reasons[0].values == {"short_bytes": MINUTE_BYTES, "asked_bytes": 4 * MINUTE_BYTES}
    assert short.arrives_ms > 2 * SLOT_MS
    later = calendar.transfers["later"].transfer
    assert later.state is TransferState.BOOKED
    assert later.arrives_ms <= 8 * SLOT_MS
    nothing_is_sold_twice(calendar)
    assert not healed(calendar, SLOT_MS).transfers, "healed once is healed"


def exact_pair(topology: Topology, order: CircuitOrder) -> bool:
    """Whether any pair of simple paths will do, by trying all of them."""
    links = topology.links

    def paths(at: str, used: tuple[int, ...], seen: frozenset[str]):
        if at == order.b:
            yield used
            return
        for number, link in enumerate(links):
            both = link.capacity_bps, link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps
            if min(both) < order.rate_bps or at not in (link.a, link.b):
                continue
            there = link.b if at == link.a else link.a
            if there not in seen:
                yield from paths(there, (*used, number), seen | {there})

    def is_quick(path: tuple[int, ...]) -> bool:
        return not order.latency_us or sum(links[each].delay_us for each in path) <= order.latency_us

    def inner(path: tuple[int, ...]) -> set[str]:
        at, seen = order.a, set()
        for each in path[:-1]:
            at = links[each].b if at == links[each].a else links[each].a
            seen.add(at)
        return seen

    def is_clear(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        if set(one) & set(other):
            return False
        groups = [{group for each in path for group in links[each].groups} for path in (one, other)]
        return {
            Diversity.LINK: True,
            Diversity.NODE: not inner(one) & inner(other),
            Diversity.GROUP: not groups[0] & groups[1],
        }[order.diversity]

    found = [path for path in paths(order.a, (), frozenset({order.a})) if is_quick(path)]
    if order.diversity is Diversity.NONE:
        return bool(found)
    return any(is_clear(one, other) for one in found for other in found)


@given(topologies(), st.sampled_from(list(Diversity)), st.sampled_from((0, 4_000)), st.data())
@settings(max_examples=150, deadline=None)
def test_a_pair_is_found_where_there_is_one(topology: Topology, diversity: Diversity, latency: int, data) -> None:
    named = [data.draw(st.sampled_from(((), ("x",), ("y",)))) for _ in topology.links]
    links = tuple(
        msgspec.structs.replace(link, groups=groups, maintenance=())
        for link, groups in zip(topology.links, named, strict=True)
    )
    topology = msgspec.structs.replace(topology, links=links)
    order = circuit(rate_bps=7_000, diversity=diversity, latency_us=latency)
    answer = leased(small(topology), order, name="c", user="u", now_ms=0, price_of=free)
    assert isinstance(answer, Leased) == exact_pair(topology, order), answer
    if isinstance(answer, Leased):
        for route in filter(None, (answer.circuit.route, answer.circuit.spare)):
            assert len(set(route.nodes)) == len(route.nodes) == len(route.links) + 1
            ends = {link.name: {link.a, link.b} for link in topology.links}
            for name, pair in zip(route.links, pairwise(route.nodes), strict=True):
                assert ends[name] == set(pair)


def test_windows_of_an_order_are_cut_to_what_is_asked() -> None:
    daily = Recurrence(period_s=100, begin_s=90, length_s=10)
    spans = [(each.from_ms, each.until_ms) for each in windows_in(50_000, 0, daily, 0, 400_000)]
    assert spans == [(140_000, 150_000), (240_000, 250_000), (340_000, 350_000)]
    assert [each.from_ms for each in windows_in(50_000, 0, daily, 145_000, 200_000)] == [145_000]
