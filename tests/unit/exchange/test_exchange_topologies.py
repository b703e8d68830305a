"""Topologies that change under bookings: nothing stays booked over what does not carry, and no end is lost."""

from __future__ import annotations

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, World
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.exchange.bookings import CancelCircuit, OrderCircuit, OrderTransfer, ReadCalendar, TakeReceipt
from tieline.exchange.commands import ChangeLinks, ChangeTopology, ReadTopology, Tick
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.circuit import CircuitOrder, CircuitState, Diversity, Receipt, Recurrence
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, LinksChanged, TopologyChanged
from tieline.model.party import Actor, Role
from tieline.model.topology import Link, Node, Topology, Window
from tieline.model.transfer import TransferOrder, TransferState
from tieline.network.calendar import Calendar

replace = msgspec.structs.replace
OPERATOR = Actor(name="oscar", roles=(Role.OPERATOR,))
GBIT = 10**9
SLOT_MS = 300_000
ENDS = ("ab", "bc", "cd", "da", "ac")
MESH = Topology(
    name="mesh",
    nodes=tuple(Node(name=name) for name in "abcd"),
    links=tuple(Link(name=ends, a=ends[0], b=ends[1], capacity_bps=GBIT, delay_us=500) for ends in ENDS),
)


def network(*, topology: Topology = MESH) -> World:
    world = World()
    world.clock.at_ms = world.clock.at_ms // SLOT_MS * SLOT_MS
    world.do(ChangeTopology(actor=OPERATOR, topology=topology))
    return world


def circuit(world: World, a: str = "a", b: str = "b", rate_bps: int = GBIT // 2) -> str:
    return world.do(OrderCircuit(actor=ALICE, order=CircuitOrder(a=a, b=b, rate_bps=rate_bps))).circuit.id


def without(*names: str, nodes: str = "abcd") -> Topology:
    links = tuple(link for link in MESH.links if link.name not in names)
    return replace(MESH, nodes=tuple(Node(name=name) for name in nodes), links=links)


def test_a_new_topology_moves_what_was_booked_in_the_same_decision():
    world = network()
    name = circuit(world)
    assert world.view.network.circuits[name].route.links == ("ab",)
    before = len(world.events)
    told = world.do(ChangeTopology(actor=OPERATOR, topology=without("ab"), why="sold"))
    assert [type(event) for event in world.events[before:]] == [TopologyChanged, CircuitChanged]
    assert told.moved_circuits == (name,)
    assert world.view.network.circuits[name].route.links in (("da", "cd", "bc"), ("ac", "bc"))
    assert world.view.network.calendar_at(world.clock.now_ms()).is_kept()


def test_a_place_where_something_that_is_booked_ends_cannot_be_lost():
    world = network()
    name = circuit(world, "a", "d")
    before = len(world.events)
    with pytest.raises(TielineError) as refusal:
        world.do(ChangeTopology(actor=OPERATOR, topology=without("cd", "da", nodes="abc")))
    assert refusal.value.code == "conflict"
    assert f"1 ends of live bookings are no places of the new topology: `{name}` at `d`" in refusal.value.message
    assert len(world.events) == before
    assert world.do(ReadTopology(actor=ALICE)).topology == MESH


def test_a_topology_that_an_exchange_cannot_keep_is_refused_with_its_size():
    world = network()
    links = tuple(Link(name=f"l{at}", a="a", b="b", capacity_bps=1) for at in range(2_001))
    with pytest.raises(TielineError) as refusal:
        world.do(ChangeTopology(actor=OPERATOR, topology=replace(MESH, links=links)))
    assert (refusal.value.code, "4 nodes and 2,001 links" in refusal.value.message) == ("too_large", True)


def test_links_that_are_no_more_are_not_down_any_more():
    world = network()
    world.do(ChangeLinks(actor=ADMIN, down=("ab", "bc")))
    assert world.do(ReadTopology(actor=ALICE)).down == ("ab", "bc")
    world.do(ChangeTopology(actor=OPERATOR, topology=without("ab")))
    assert world.do(ReadTopology(actor=ALICE)).down == ("bc",)
    world.do(ChangeTopology(actor=OPERATOR, topology=MESH))
    assert world.do(ReadTopology(actor=ALICE)).down == ("bc",)


def test_who_is_short_is_named_and_comes_back_with_the_link():
    world = network()
    one = circuit(world, rate_bps=GBIT)
    two = circuit(world, rate_bps=GBIT)  # round the other side
    cut = world.do(ChangeLinks(actor=OPERATOR, down=("ab", "bc")))
    assert [(each.id, each.reasons[0].code) for each in cut.short] == [(one, "circuit_down"), (two, "circuit_down")]
    back = world.do(ChangeLinks(actor=OPERATOR, up=("ab",)))
    assert (back.moved_circuits, back.short) == ((one,), ())
    up = [each for each in world.view.network.circuits.values() if each.state is not CircuitState.DOWN]
    assert [each.route.links for each in up] == [("ab",)]


NAMES = st.sets(st.sampled_from(ENDS), max_size=3).map(sorted)
CHANGES = st.one_of(
    st.tuples(st.just("links"), NAMES, NAMES),
    st.tuples(st.just("topology"), st.sets(st.sampled_from(ENDS), max_size=2).map(sorted), st.just([])),
    st.tuples(st.just("circuit"), st.permutations("abcd"), st.integers(1, 10)),
    st.tuples(st.just("transfer"), st.permutations("abcd"), st.integers(1, 400)),
)


@given(st.lists(CHANGES, min_size=2, max_size=9))
@settings(max_examples=25, deadline=None)
def test_whatever_is_cut_and_booked_nothing_lies_over_what_does_not_carry(changes):
    world = network()
    for what, first, second in changes:
        before = len(world.events)
        try:
            if what == "links":
                world.do(ChangeLinks(actor=OPERATOR, down=tuple(first), up=tuple(second)))
            elif what == "topology":
                world.do(ChangeTopology(actor=OPERATOR, topology=without(*first)))
            elif what == "circuit":
                circuit(world, first[0], first[1], second * GBIT // 10)
            else:
                order = TransferOrder(source=first[0], target=first[1], size_bytes=second * 10**9)
                world.do(OrderTransfer(actor=ALICE, order=order))
        except TielineError:
            assert len(world.events) == before
        network_now = world.view.network
        calendar = network_now.calendar_at(world.clock.now_ms())
        assert calendar is not None
        assert calendar.is_kept()
        for each in network_now.circuits.values():
            if each.state is not CircuitState.DOWN:
                assert not set(each.route.links) & set(network_now.down)
    changed = [event for event in world.events if isinstance(event, LinksChanged)]
    assert all(event.down or event.up for event in changed)
    tables: dict[str, dict[str, object]] = {}
    for table, key, row in rows(world.view):
        tables.setdefault(table, {})[key] = row
    again = View(world.keys)
    load(again, {table: list(kept.values()) for table, kept in tables.items()}, world.clock.now_ms())
    assert again.network.topology == world.view.network.topology
    assert list(again.network.down) == list(world.view.network.down)
    assert again.network.circuits == world.view.network.circuits


def test_who_was_short_is_in_time_again_when_the_link_is_back():
    world = network()
    due_ms = world.clock.now_ms() + 7_200_000
    order = TransferOrder(source="a", target="b", size_bytes=1_000 * GBIT, deadline_ms=due_ms)
    name = world.do(OrderTransfer(actor=ALICE, order=order)).transfer.id
    world.do(ChangeLinks(actor=OPERATOR, down=("ab", "ac")))
    assert world.view.network.transfers[name].state is TransferState.SHORT
    world.clock.advance(60_000)
    back = world.do(ChangeLinks(actor=OPERATOR, up=("ab", "ac")))
    after = world.view.network.transfers[name]
    assert (after.short_bytes, after.reasons, back.moved_transfers, back.short) == (0, (), (name,), ())
    assert after.arrives_ms <= due_ms


@pytest.mark.parametrize("ends", [("b", "a"), ("c", "d")], ids=["the other way round", "somewhere else"])
def test_another_link_of_the_same_name_is_not_taken_for_the_one_that_was_booked(ends):
    world = network()
    due_ms = world.clock.now_ms() + 7_200_000
    order = TransferOrder(source="a", target="b", size_bytes=GBIT, deadline_ms=due_ms)
    name = world.do(OrderTransfer(actor=ALICE, order=order)).transfer.id
    line = circuit(world)
    other = tuple(replace(link, a=ends[0], b=ends[1]) if link.name == "ab" else link for link in MESH.links)
    told = world.do(ChangeTopology(actor=OPERATOR, topology=replace(MESH, links=other)))
    assert told.moved_transfers == (name,)
    links = {link.name: (link.a, link.b) for link in other}
    for segment in world.view.network.transfers[name].segments:
        here = "a"
        for link, is_forward in zip(segment.path, segment.is_forward, strict=True):
            tail, head = links[link] if is_forward else links[link][::-1]
            assert tail == here
            here = head
        assert here == "b"
    assert all(at in links[link] for at, link in zip(*route_of(world, line), strict=False))
    assert world.view.network.calendar_at(world.clock.now_ms()).is_kept()


def route_of(world: World, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    route = world.view.network.circuits[name].route
    return route.nodes, route.links


def test_a_lost_spare_route_comes_back_with_its_links():
    world = network()
    order = CircuitOrder(a="a", b="b", rate_bps=GBIT // 2, diversity=Diversity.LINK)
    name = world.do(OrderCircuit(actor=ALICE, order=order)).circuit.id
    first, spare = world.view.network.circuits[name].route, world.view.network.circuits[name].spare
    world.do(ChangeLinks(actor=OPERATOR, down=("bc",)))
    alone = world.view.network.circuits[name]
    assert (alone.route, alone.spare, alone.reasons[0].code) == (first, None, "circuit_spare_lost")
    back = world.do(ChangeLinks(actor=OPERATOR, up=("bc",)))
    again = world.view.network.circuits[name]
    assert (back.moved_circuits, again.route, again.spare, again.reasons) == ((name,), first, spare, ())
    assert world.view.network.calendar_at(world.clock.now_ms()).is_kept()


def test_a_calendar_that_moved_on_is_the_same_as_one_made_anew():
    world = network()
    again = Recurrence(period_s=7_200, begin_s=600, length_s=1_800)
    for order in (
        CircuitOrder(a="a", b="b", rate_bps=GBIT // 4, recurrence=again),
        CircuitOrder(a="a", b="c", rate_bps=GBIT // 4, diversity=Diversity.LINK),
        CircuitOrder(a="c", b="d", rate_bps=GBIT // 4, until_ms=world.clock.now_ms() + 8 * 86_400_000),
    ):
        world.do(OrderCircuit(actor=ALICE, order=order))
    due_ms = world.clock.now_ms() + 86_400_000
    order = TransferOrder(source="a", target="d", size_bytes=3_000 * GBIT, deadline_ms=due_ms)
    world.do(OrderTransfer(actor=ALICE, order=order))
    for slots in (1, 1, 7, 300, 2_015, 5_000):
        world.clock.advance(slots * SLOT_MS)
        now_ms = world.clock.now_ms()
        moved = world.view.network.calendar_at(now_ms)
        fresh = Calendar(MESH, now_ms)
        for transfer in world.view.network.transfers.values():
            fresh.put_transfer(transfer)
        for each in world.view.network.circuits.values():
            fresh.put_circuit(each)
        assert moved.grid == fresh.grid
        for name in ("capacity", "firm", "free"):
            assert (getattr(moved, name) == getattr(fresh, name)).all(), name


def test_who_is_down_gets_the_room_that_another_gives_back():
    world = network()
    one, two = circuit(world, rate_bps=GBIT), circuit(world, rate_bps=GBIT)
    world.do(ChangeLinks(actor=OPERATOR, down=("ab",)))
    assert [each.id for each in world.view.network.circuits.values() if each.route is None] == [one]
    world.do(Tick())
    assert world.view.network.circuits[one].route is None
    world.do(CancelCircuit(actor=ALICE, circuit=two))
    world.do(Tick())  # the round of the first tick comes to its end
    world.do(Tick())
    assert world.view.network.circuits[one].route.links == ("ac", "bc")


def test_maintenance_that_comes_into_the_calendar_moves_who_lies_there():
    world = network()
    later_ms = world.clock.now_ms() + 8 * 86_400_000
    hour = Window(from_ms=later_ms, until_ms=later_ms + 3_600_000)
    links = tuple(replace(link, maintenance=(hour,)) if link.name == "ab" else link for link in MESH.links)
    world.do(ChangeTopology(actor=OPERATOR, topology=replace(MESH, links=links)))
    name = circuit(world)
    assert world.view.network.circuits[name].route.links == ("ab",)
    world.clock.advance(2 * 86_400_000)
    for _ in range(3):
        world.do(Tick())
    assert world.view.network.circuits[name].route.links == ("ac", "bc")
    assert world.view.network.calendar_at(world.clock.now_ms()).is_kept()


def test_a_clock_that_was_years_ahead_leaves_a_calendar_of_today():
    world = network()
    now_ms = world.clock.now_ms()
    world.clock.advance(10 * 365 * 86_400_000)
    world.do(ReadCalendar(actor=ALICE))
    world.clock.at_ms = now_ms
    order = TransferOrder(source="a", target="b", size_bytes=GBIT, deadline_ms=now_ms + 600_000)
    assert world.do(OrderTransfer(actor=ALICE, order=order)).transfer.arrives_ms <= now_ms + 600_000
    assert world.do(ReadCalendar(actor=ALICE)).from_ms == now_ms


def test_what_takes_longer_than_the_calendar_reaches_is_not_called_impossible():
    world = network()
    now_ms = world.clock.now_ms()
    reasons = []
    for days in (5, 300):
        order = TransferOrder(source="a", target="b", size_bytes=600_000 * GBIT, deadline_ms=now_ms + days * 86_400_000)
        with pytest.raises(TielineError) as refusal:
            world.do(OrderTransfer(actor=ALICE, order=order))
        reasons.append(refusal.value.reasons[0].code)
    assert reasons == ["transfer_physical", "calendar_too_far"]


def test_nobody_uses_up_the_numbers_of_receipts():
    world = network()
    now_ms = world.clock.now_ms()
    order = TransferOrder(source="a", target="b", size_bytes=GBIT, deadline_ms=now_ms + 600_000)
    name = world.do(OrderTransfer(actor=ALICE, order=order)).transfer.id
    far = Receipt(subject=name, seq=2**53 - 1, begun_ms=now_ms, ended_ms=now_ms)
    with pytest.raises(TielineError) as refusal:
        world.do(TakeReceipt(actor=ALICE, receipt=far))
    assert (refusal.value.code, refusal.value.where) == ("invalid_request", "receipt.seq")
    told = world.do(TakeReceipt(actor=OPERATOR, receipt=replace(far, seq=1, moved_bytes=GBIT)))
    assert (told.state, told.is_known) == ("arrived", False)


def test_who_stands_on_his_spare_route_leaves_its_room_to_nobody():
    world = network()
    twice = CircuitOrder(a="a", b="b", rate_bps=550 * GBIT // 1_000, diversity=Diversity.LINK)
    first = world.do(OrderCircuit(actor=ALICE, order=twice)).circuit
    small, second = circuit(world, "b", "c", GBIT // 10), circuit(world, rate_bps=450 * GBIT // 1_000)
    world.do(ChangeLinks(actor=OPERATOR, down=("ab",)))
    circuits = world.view.network.circuits
    assert (circuits[first.id].route, circuits[first.id].reasons[0].code) == (first.spare, "circuit_on_spare")
    assert (circuits[small].route.links, circuits[second].state) == (("bc",), CircuitState.DOWN)
    assert world.view.network.calendar_at(world.clock.now_ms()).is_kept()


def test_spare_routes_that_come_back_are_not_held_twice():
    world = network()
    order = CircuitOrder(a="a", b="b", rate_bps=GBIT // 2, diversity=Diversity.LINK)
    names = [world.do(OrderCircuit(actor=ALICE, order=order)).circuit.id for _ in range(2)]
    world.do(ChangeLinks(actor=OPERATOR, down=("bc",)))
    circuit(world, "a", "c", 3 * GBIT // 10)
    circuit(world, "a", "d", 6 * GBIT // 10)
    world.do(ChangeLinks(actor=OPERATOR, up=("bc",)))
    assert [world.view.network.circuits[name].spare is not None for name in names] == [True, False]
    assert world.view.network.calendar_at(world.clock.now_ms()).is_kept()
