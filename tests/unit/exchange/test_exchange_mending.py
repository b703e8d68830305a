"""A failure under many bookings: a fact at once, mended a few at a time, nobody forgotten and nobody pushed in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, World

from tieline.exchange.bookings import (
    BookNight,
    CancelCircuit,
    ChangeTariff,
    OrderCircuit,
    OrderTransfer,
    ResizeCircuit,
    TakeReceipt,
    shown,
)
from tieline.exchange.calendar import WAITS_MS
from tieline.exchange.commands import ChangeLinks, ChangeProject, ChangeTopology, Tick
from tieline.exchange.decide import decide
from tieline.exchange.projection import load, rows
from tieline.exchange.transfers import MOST_AT_ONCE
from tieline.exchange.view import View
from tieline.model.circuit import CircuitOrder, CircuitState, Diversity, Receipt
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, LinksChanged, ReceiptStored, TransferChanged
from tieline.model.limits import Limits
from tieline.model.party import Actor, Role
from tieline.model.project import Member, Quota
from tieline.model.tariff import Tariff
from tieline.model.topology import Link, Node, Topology, Window
from tieline.model.transfer import TransferOrder, TransferState
from tieline.network.admit import FEW_LIVE, MOST_ASIDE
from tieline.network.heal import MOST_CIRCUITS, MOST_TRANSFERS

sys.path.insert(0, str(Path(__file__).parents[1] / "network"))
from network_worlds import nothing_is_sold_twice, promises_hold

GB = 10**9
MBIT = 10**6
HOUR_MS = 3_600_000
SLOT_MS = 300_000
OPERATOR = Actor(name="oscar", roles=(Role.OPERATOR,))
SITE = Actor(name="cn.demo.lab7/site/gz1", roles=(Role.SITE,))


def link(name: str, rate_bps: int = 10 * GB, delay_us: int = 1_000, maintenance: tuple[Window, ...] = ()) -> Link:
    a, b = name
    return Link(name=name, a=a, b=b, capacity_bps=rate_bps, delay_us=delay_us, mtu_bytes=9_000, maintenance=maintenance)


# a - b directly, and a - c - b with half of the room; c - d is beside all that
SQUARE = Topology(
    name="square",
    nodes=(Node(name="a", site=SITE.name), Node(name="b"), Node(name="c"), Node(name="d")),
    links=(link("ab"), link("ac", 5 * GB, 3_000), link("cb", 5 * GB, 3_000), link("cd")),
)
TARIFF = Tariff(
    deadline_micro_cny_per_gb=1_000, circuit_micro_cny_per_gbps_hour=6_000_000, spare_permille=500, late_permille=500
)


@pytest.fixture
def net(world: World) -> World:
    world.clock.at_ms = world.clock.at_ms // SLOT_MS * SLOT_MS
    world.do(ChangeTopology(actor=OPERATOR, topology=SQUARE))
    world.do(ChangeTariff(actor=OPERATOR, tariff=TARIFF))
    return world


def circuit(net: World, rate_bps: int, actor: Actor = OPERATOR, **more: Any) -> Any:
    made = CircuitOrder(**{"a": "a", "b": "b", "rate_bps": rate_bps, **more})
    return net.do(OrderCircuit(actor=actor, order=made)).circuit


def transfer(net: World, size_bytes: int, hours: float, actor: Actor = OPERATOR, **more: Any) -> Any:
    due_ms = net.clock.now_ms() + int(hours * HOUR_MS) if hours else 0
    made = TransferOrder(**{"source": "a", "target": "b", "size_bytes": size_bytes, "deadline_ms": due_ms, **more})
    return net.do(OrderTransfer(actor=actor, order=made)).transfer


def refusal(act: Any) -> TielineError:
    with pytest.raises(TielineError) as caught:
        act()
    return caught.value


def calendar_of(net: World) -> Any:
    return net.view.network.calendar_at(net.clock.now_ms())


def tick(net: World, ms: int = 250) -> list[Any]:
    """The events of one tick."""
    net.clock.advance(ms)
    before = len(net.events)
    net.do(Tick())
    return net.events[before:]


def restarted(net: World) -> None:
    """The same exchange from what its store has."""
    tables: dict[str, dict[str, Any]] = {}
    for table, key, row in rows(net.view):
        tables.setdefault(table, {})[key] = row
    again = View(net.keys)
    load(again, {table: list(kept.values()) for table, kept in tables.items()}, net.clock.now_ms())
    net.view = again


def test_a_cut_is_a_fact_at_once_and_its_bookings_are_mended_a_few_at_a_time(net: World) -> None:
    count = MOST_CIRCUITS + 10
    for number in range(count):
        circuit(net, 60 * MBIT, diversity=Diversity.LINK if number % 10 == 0 else Diversity.NONE)
    for number in range(MOST_TRANSFERS + 20):
        transfer(net, 300 * GB, 2 + number / 8)
    begun = len(net.events)
    cut = net.do(ChangeLinks(actor=OPERATOR, down=("ab",)))
    assert [type(each) for each in net.events[begun:]] == [LinksChanged], "the fact alone"
    network = net.view.network
    assert cut.waiting >= len(network.waiting) > MOST_AT_ONCE
    assert set(network.circuits) <= network.waiting
    name = next(iter(network.circuits))
    assert shown(net.view, network.circuits[name]).reasons[0].code == "booking_waits"
    for act in (
        lambda: circuit(net, MBIT),
        lambda: transfer(net, GB, 4),
        lambda: net.do(ResizeCircuit(actor=OPERATOR, circuit=name, rate_bps=61 * MBIT)),
    ):
        error = refusal(act)
        assert error.reasons[0].code == "network_mending"
        assert error.reasons[0].values == {"waiting": len(network.waiting)}

    told: list[Any] = []
    for turn in range(40):
        if not net.view.network.waiting:
            break
        found = tick(net)
        told += found
        circuits = [each for each in found if isinstance(each, CircuitChanged)]
        assert len(circuits) <= MOST_CIRCUITS
        assert not circuits or turn < 4, "circuits come first"
        moved = [each for each in found if isinstance(each, TransferChanged)]
        assert len(moved) <= MOST_TRANSFERS + 2 * 48
        nothing_is_sold_twice(calendar_of(net))
        if turn == 1:
            waited = calendar_of(net).waiting()
            assert waited.total
            restarted(net)
            assert calendar_of(net).waiting() == waited, "a restart knows who still waits"
            assert net.view.network.waiting == {*waited.circuits, *waited.transfers}
    network = net.view.network
    assert not network.waiting
    calendar = calendar_of(net)
    assert calendar.is_kept()
    promises_hold(calendar)
    on_spare = [
        each for each in network.circuits.values() if each.reasons and each.reasons[0].code == "circuit_on_spare"
    ]
    assert len(on_spare) == count // 10 + 1
    order = [each.circuit.ordered_ms for each in told if isinstance(each, CircuitChanged)]
    assert order == sorted(order), "in the order in which they were promised"
    for _ in range(60):
        told += tick(net)
    short = [
        each.transfer
        for each in told
        if isinstance(each, TransferChanged)
        if each.transfer.state is TransferState.SHORT
    ]
    first = {each.id: each for each in reversed(short)}
    assert first, "half of the room is gone"
    for each in first.values():
        assert each.reasons[0].code == "transfer_short"
        assert each.reasons[0].values["short_bytes"] == each.short_bytes > 0
    grown = [each for each in short if each.short_bytes > first[each.id].short_bytes]
    assert not grown, "what is left was said once, and is not less later"
    assert circuit(net, MBIT, a="c", b="d").route is not None


def test_the_time_of_others_comes_while_many_wait(net: World) -> None:
    for _ in range(MOST_AT_ONCE + MOST_CIRCUITS):
        circuit(net, MBIT)
    begins_ms = net.clock.now_ms() + 2_000
    other = transfer(net, GB, 2, source="c", target="d", earliest_ms=begins_ms)
    over = circuit(net, MBIT, a="c", b="d", until_ms=net.clock.now_ms() + 1_000)
    net.do(Tick())
    net.do(ChangeLinks(actor=OPERATOR, down=("ab",)))
    tick(net, 2 * HOUR_MS // 4)
    network = net.view.network
    assert calendar_of(net).waiting().total > 0
    assert network.transfers[other.id].state is TransferState.MOVING
    assert over.id not in network.circuits
    for _ in range(8):
        tick(net)
    assert calendar_of(net).waiting().total == 0
    assert all(each.route.links == ("ac", "cb") for each in network.circuits.values())


def test_the_earliest_deadline_is_mended_first(net: World) -> None:
    # Booked in the opposite order, all of them over the link that is cut.
    hours = [2 + number / 4 for number in range(MOST_AT_ONCE + 20)]
    for each in reversed(hours):
        transfer(net, 20 * GB, each, is_splittable=False)
    net.do(ChangeLinks(actor=OPERATOR, down=("ab",)))
    waiting = [net.view.network.transfers[name] for name in net.view.network.waiting]
    due = sorted(each.order.deadline_ms for each in waiting)
    assert len(due) > MOST_TRANSFERS
    names = {each.id for each in waiting}
    changed = [each.transfer for each in tick(net) if isinstance(each, TransferChanged)]
    looked = [each.order.deadline_ms for each in changed if each.id in names]
    assert sorted(looked) == due[:MOST_TRANSFERS]
    assert net.view.network.waiting


def test_a_circuit_that_only_maintenance_is_in_the_way_of_is_paused_inside_the_window_and_not_charged(
    net: World,
) -> None:
    now_ms = net.clock.now_ms()
    alone = circuit(net, 4 * GB, a="c", b="d")
    window = Window(from_ms=now_ms + HOUR_MS, until_ms=now_ms + 2 * HOUR_MS)
    later = Window(from_ms=now_ms + 30 * HOUR_MS, until_ms=now_ms + 31 * HOUR_MS)
    links = (*SQUARE.links[:3], link("cd", maintenance=(window, later)))
    net.do(ChangeTopology(actor=OPERATOR, topology=msgspec.structs.replace(SQUARE, links=links)))
    network = net.view.network
    held = network.circuits[alone.id]
    assert (held.route, held.paused) == (alone.route, (window, later))
    assert [each.code for each in held.reasons] == ["circuit_maintenance"]
    assert held.reasons[0].values == {"pause_us": 2 * HOUR_MS * 1_000}
    nothing_is_sold_twice(calendar_of(net))
    net.do(ChangeLinks(actor=OPERATOR, down=("ab",)))
    assert network.circuits[alone.id].route == alone.route, "another cut does not take it down"

    def seen(seq: int, begun_ms: int) -> Any:
        proof = {"path": ("cd",), "is_path_proven": True, "goodput_bps": 1, "computed_bps": 1}
        receipt = Receipt(subject=alone.id, seq=seq, begun_ms=begun_ms, ended_ms=net.clock.now_ms(), **proof)
        return net.do(TakeReceipt(actor=OPERATOR, receipt=receipt))

    tick(net, HOUR_MS - 250)
    assert seen(1, now_ms).state == "up"
    tick(net, 500)
    paused = network.circuits[alone.id]
    assert paused.state is CircuitState.PAUSED
    assert paused.reasons[0].code == "circuit_maintenance"
    tick(net, HOUR_MS // 2)
    assert seen(2, now_ms + HOUR_MS - 250).state == "paused"
    assert network.circuits[alone.id].charged_micro_cny == 4 * 6_000_000, "the hour before"
    tick(net, HOUR_MS)
    assert network.circuits[alone.id].state is CircuitState.DEGRADED
    assert network.circuits[alone.id].reasons[0].code == "circuit_resumed"
    assert seen(3, now_ms + 2 * HOUR_MS).state == "up"
    (day,) = {e.usage.run: e.usage for e in net.events if isinstance(e, ReceiptStored) and e.usage}.values()
    assert day.duration_ms == net.clock.now_ms() - now_ms - HOUR_MS, "the hour of maintenance is not in it"

    net.do(ChangeTopology(actor=OPERATOR, topology=SQUARE))
    tick(net)
    assert network.circuits[alone.id].paused == (window,), "what is not maintained any more is not paused"
    nothing_is_sold_twice(calendar_of(net))


@pytest.mark.parametrize("is_rerouted", [False, True])
def test_a_pause_that_is_over_is_not_charged_by_a_receipt_that_comes_later(net: World, is_rerouted: bool) -> None:
    begin_ms = net.clock.now_ms()
    first, second = (
        Window(from_ms=begin_ms + low * HOUR_MS, until_ms=begin_ms + high * HOUR_MS) for low, high in ((1, 2), (9, 10))
    )

    def declare(*windows: Window, cd_bps: int = 10 * GB) -> None:
        links = (*SQUARE.links[:3], link("cd", cd_bps, maintenance=windows), *apart)
        net.do(ChangeTopology(actor=OPERATOR, topology=msgspec.structs.replace(SQUARE, links=links)))

    apart: tuple[Link, ...] = (link("ad", MBIT, 3_000),)
    declare()
    held = circuit(net, 4 * GB, a="c", b="d")
    declare(first)
    tick(net, 90 * 60_000)
    assert net.view.network.circuits[held.id].state is CircuitState.PAUSED
    tick(net, 90 * 60_000 + 7_000)
    if is_rerouted:
        apart = (link("ad", 10 * GB, 3_000),)
        declare(first)
        net.do(ChangeLinks(actor=OPERATOR, down=("cd",)))
    else:
        declare(first, second)
    now = net.view.network.circuits[held.id]
    assert now.paused == ((first,) if is_rerouted else (first, second))
    assert (now.route.links == held.route.links) is not is_rerouted
    nothing_is_sold_twice(calendar_of(net))
    net.clock.at_ms = begin_ms + 4 * HOUR_MS
    proof = {"path": now.route.links, "is_path_proven": True, "goodput_bps": 1, "computed_bps": 1}
    receipt = Receipt(subject=held.id, seq=1, begun_ms=begin_ms, ended_ms=net.clock.now_ms(), **proof)
    assert net.do(TakeReceipt(actor=OPERATOR, receipt=receipt)).charged_micro_cny == 3 * 4 * 6_000_000
    net.do(ChangeLinks(actor=OPERATOR, down=("cd", "ab", "ad")))
    assert net.view.network.circuits[held.id].paused == (), "what a receipt has passed is let go"


def test_a_spare_path_is_charged_while_it_is_there_and_not_while_it_is_not(net: World) -> None:
    line = circuit(net, GB, diversity=Diversity.LINK)
    assert (line.price_micro_cny_per_hour, line.spare_micro_cny_per_hour) == (9_000_000, 3_000_000)
    charged = [0]

    def hour(seq: int) -> int:
        net.clock.advance(HOUR_MS)
        now_ms = net.clock.now_ms()
        route = net.view.network.circuits[line.id].route
        proof = {"path": route.links, "is_path_proven": True, "goodput_bps": 1, "computed_bps": 1}
        receipt = Receipt(subject=line.id, seq=seq, begun_ms=now_ms - HOUR_MS, ended_ms=now_ms, **proof)
        charged.append(net.do(TakeReceipt(actor=OPERATOR, receipt=receipt)).charged_micro_cny)
        return charged[-1] - charged[-2]

    assert hour(1) == 9_000_000
    net.do(ChangeLinks(actor=OPERATOR, down=("cb",)))
    assert net.view.network.circuits[line.id].spare is None
    assert hour(2) == 6_000_000
    net.clock.advance(HOUR_MS // 2)
    net.do(ChangeLinks(actor=OPERATOR, up=("cb",)))
    assert net.view.network.circuits[line.id].spare is not None
    net.clock.advance(-HOUR_MS // 2)
    assert hour(3) == 6_000_000, "an hour in which it was missing for a part"
    assert hour(4) == 9_000_000
    lines = {e.usage.run: e.usage for e in net.events if isinstance(e, ReceiptStored) and e.usage}
    assert sum(each.charge_micro_cny for each in lines.values()) == charged[-1]


def test_what_a_user_says_never_stands_in_the_way_of_what_a_site_saw(net: World) -> None:
    made = transfer(net, 100 * GB, 2, actor=ALICE)

    def say(actor: Actor, seq: int, gigabytes: int) -> Any:
        now_ms = net.clock.now_ms()
        receipt = Receipt(
            subject=made.id, seq=seq, begun_ms=now_ms - 1_000, ended_ms=now_ms, moved_bytes=gigabytes * GB
        )
        return net.do(TakeReceipt(actor=actor, receipt=receipt))

    say(SITE, 1, 10)
    say(ALICE, 2, 0)
    say(ALICE, 900, 0)
    assert not say(SITE, 2, 20).is_known, "the number that the site comes to"
    assert say(SITE, 3, 20).moved_bytes == 50 * GB
    assert say(SITE, 3, 20).is_known
    assert say(ALICE, 900, 1).is_known
    found = net.view.network.transfers[made.id]
    assert (found.seq, found.measured_seq, found.moved_bytes) == (900, 3, 50 * GB)
    assert found.charged_micro_cny == 50 * 1_000


def test_users_and_projects_have_so_many_bookings_at_once(net: World) -> None:
    net.view.limits = Limits(user_bookings=3)
    bob = Actor(name="bob", roles=(Role.USER,))
    held = circuit(net, MBIT, actor=ALICE)
    for _ in range(2):
        transfer(net, GB, 2, actor=ALICE)
    for act in (lambda: transfer(net, GB, 2, actor=ALICE), lambda: circuit(net, MBIT, actor=ALICE)):
        error = refusal(act)
        assert error.reasons[0].code == "booking_user"
        assert error.reasons[0].values == {"name": "alice", "live": 3, "asked": 1, "most": 3}
    transfer(net, GB, 2, actor=bob)
    restarted(net)
    net.view.limits = Limits(user_bookings=3)
    assert refusal(lambda: transfer(net, GB, 2, actor=ALICE)).reasons[0].code == "booking_user"
    net.view.apply(
        CircuitChanged(circuit=msgspec.structs.replace(held, state=CircuitState.CANCELLED), why=""), net.clock.now_ms()
    )
    transfer(net, GB, 2, actor=ALICE)
    net.view.limits = Limits(project_bookings=2)
    net.do(ChangeProject(actor=ADMIN, project="vision", what="create", quota=Quota()))
    for actor in (ALICE, bob):
        net.do(ChangeProject(actor=ADMIN, project="vision", what="members", put=(Member(name=actor.name),)))
        due_ms = net.clock.now_ms() + HOUR_MS
        order = TransferOrder(source="a", target="b", size_bytes=GB, deadline_ms=due_ms)
        net.do(OrderTransfer(actor=actor, order=order, project="vision"))
    orders = (order,) * 2
    for act in (
        lambda: net.do(OrderTransfer(actor=bob, order=order, project="vision")),
        lambda: net.do(BookNight(actor=bob, orders=orders, planned={}, project="vision")),
    ):
        error = refusal(act)
        assert error.reasons[0].code == "booking_project"
        assert (error.reasons[0].values["live"], error.reasons[0].values["most"]) == (2, 2)


def test_who_is_last_in_line_is_looked_at_however_much_changes_meanwhile(net: World) -> None:
    for _ in range(MOST_CIRCUITS + 1):
        circuit(net, 100 * MBIT)
        net.clock.advance(1)
    last = circuit(net, MBIT, a="c", b="d")
    net.do(ChangeLinks(actor=OPERATOR, down=("ab", "ac", "cd")))
    for _ in range(4):
        tick(net)
    net.do(ChangeLinks(actor=OPERATOR, up=("cd",)))
    assert net.view.network.circuits[last.id].state is CircuitState.DOWN, "the others were before it"
    for _ in range(6):
        net.do(CancelCircuit(actor=OPERATOR, circuit=circuit(net, MBIT, a="c", b="d").id))
        tick(net)
    assert net.view.network.circuits[last.id].route is not None
    for _ in range(6):
        tick(net)
    assert net.view.network.due_ms > net.clock.now_ms(), "they come to rest"


def test_what_never_finds_room_ends_after_a_week(net: World) -> None:
    net.do(ChangeLinks(actor=OPERATOR, down=("cd",)))
    lost = transfer(net, 10 * GB, 2)
    net.do(ChangeLinks(actor=OPERATOR, up=("cd",), down=("ab", "ac")))
    short = net.view.network.transfers[lost.id]
    assert (short.state, short.segments) == (TransferState.SHORT, ())
    tick(net, WAITS_MS)
    assert lost.id in net.view.network.transfers
    (over,) = [each.transfer for each in tick(net, 2 * HOUR_MS + 1_000) if isinstance(each, TransferChanged)]
    assert (over.id, over.state) == (lost.id, TransferState.FAILED)
    assert over.reasons[0].code == "transfer_given_up"
    assert over.reasons[0].values == {
        "left_bytes": 10 * GB,
        "asked_bytes": 10 * GB,
        "waited_us": WAITS_MS * 1_000,
    }


def test_few_transfers_go_out_of_the_way_of_a_circuit_and_the_others_stay(net: World) -> None:
    # From the next slot on: what has begun is moved by nobody.
    soon_ms = net.clock.now_ms() + SLOT_MS
    for number in range(FEW_LIVE + 10):
        source, target = (("a", "b"), ("c", "d"))[number % 2]
        transfer(net, 400 * GB, 40, source=source, target=target, earliest_ms=soon_ms, is_splittable=False)
    before = dict(net.view.network.transfers)
    command = OrderCircuit(
        actor=OPERATOR,
        order=CircuitOrder(a="c", b="d", rate_bps=8 * GB, from_ms=soon_ms, until_ms=soon_ms + HOUR_MS),
    )
    decision = decide(net.view, command, net.clock.now_ms(), net.ids)
    moved = [each.transfer for each in decision.events if isinstance(each, TransferChanged)]
    assert 0 < len(moved) <= MOST_ASIDE
    assert all(each.order.source == "c" for each in moved), "who is not in the way stays"
    net.take(decision.events, net.clock.now_ms())
    nothing_is_sold_twice(calendar_of(net))
    promises_hold(calendar_of(net))
    assert all(net.view.network.transfers[name].order == each.order for name, each in before.items())
