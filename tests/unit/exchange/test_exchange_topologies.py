"""Topologies that change under bookings: nothing stays booked over what does not carry, and no end is lost."""

from __future__ import annotations

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, World
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.exchange.bookings import OrderCircuit, OrderTransfer
from tieline.exchange.commands import ChangeLinks, ChangeTopology, ReadTopology
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.circuit import CircuitOrder, CircuitState
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, LinksChanged, TopologyChanged
from tieline.model.party import Actor, Role
from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import TransferOrder

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
