"""The slots of the calendar are the topology's word; they change while nothing is booked."""

from __future__ import annotations

import msgspec
import pytest
from exchange_world import ALICE, World

from tieline.exchange.bookings import CancelTransfer, OrderTransfer
from tieline.exchange.commands import ChangeTopology
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import TransferOrder

OPERATOR = Actor(name="oscar", roles=(Role.OPERATOR,))
LINE = Topology(
    name="line",
    nodes=(Node(name="a"), Node(name="b")),
    links=(Link(name="ab", a="a", b="b", capacity_bps=80_000_000, delay_us=1_000),),
    slot_s=10,
)


def order(world: World) -> object:
    made = TransferOrder(source="a", target="b", size_bytes=50_000_000)
    return world.do(OrderTransfer(actor=ALICE, order=made)).transfer


def test_a_transfer_is_booked_by_the_slots_of_the_topology(world):
    world.do(ChangeTopology(actor=OPERATOR, topology=LINE))
    transfer = order(world)
    assert {each.until_ms % 10_000 for each in transfer.segments} == {0}
    assert transfer.arrives_ms - world.clock.now_ms() <= 20_000


def test_other_slots_wait_until_nothing_is_booked(world):
    world.do(ChangeTopology(actor=OPERATOR, topology=LINE))
    transfer = order(world)
    longer = msgspec.structs.replace(LINE, slot_s=60)
    with pytest.raises(TielineError, match="1 live bookings are by slots of 10 s; 60 s were declared"):
        world.do(ChangeTopology(actor=OPERATOR, topology=longer))
    world.do(CancelTransfer(actor=ALICE, transfer=transfer.id))
    world.do(ChangeTopology(actor=OPERATOR, topology=longer))
    assert {each.until_ms % 60_000 for each in order(world).segments} == {0}
