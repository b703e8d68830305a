"""Transfers and circuits of an exchange: admitted, refused with the bound, moved, metered, billed, and over in time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, World

from tieline.exchange.bookings import (
    BookNight,
    CancelCircuit,
    CancelTransfer,
    ChangeTariff,
    LookAtCalendar,
    OrderCircuit,
    OrderTransfer,
    ReadCalendar,
    ResizeCircuit,
    TakeReceipt,
)
from tieline.exchange.commands import ChangeLinks, ChangeProject, ChangeTopology, Tick
from tieline.exchange.projection import load, rows
from tieline.exchange.settlement import verify_usage
from tieline.exchange.view import View
from tieline.market import bills_of
from tieline.model.circuit import CircuitOrder, CircuitState, Diversity, Receipt, Recurrence
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, ReceiptStored, TransferChanged
from tieline.model.evidence import Evidence
from tieline.model.job import Usage
from tieline.model.party import Actor, Role
from tieline.model.project import Quota
from tieline.model.tariff import Hours, Tariff
from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import TransferOrder, TransferState
from tieline.network.tariff import MOST_FORMER

GB = 10**9
GBIT = 10**9
HOUR_MS = 3_600_000
SLOT_MS = 300_000
BOB = Actor(name="bob", roles=(Role.USER,))
OPERATOR = Actor(name="oscar", roles=(Role.OPERATOR,))
SITE = Actor(name="cn.demo.lab7/site/gz1", roles=(Role.SITE,))
# a - b directly (1 Gbit/s, 1 ms), and a - c - b (1 Gbit/s each, 5 ms)
SQUARE = Topology(
    name="square",
    nodes=(Node(name="a", site=SITE.name), Node(name="b"), Node(name="c")),
    links=(
        Link(name="ab", a="a", b="b", capacity_bps=GBIT, delay_us=1_000, mtu_bytes=9_000),
        Link(name="ac", a="a", b="c", capacity_bps=GBIT, delay_us=2_500, mtu_bytes=9_000),
        Link(name="cb", a="c", b="b", capacity_bps=GBIT, delay_us=2_500, mtu_bytes=9_000),
    ),
)
TARIFF = Tariff(
    deadline_micro_cny_per_gb=1_000, best_effort_micro_cny_per_gb=400, circuit_micro_cny_per_gbps_hour=6_000_000
)


@pytest.fixture
def net(world: World) -> World:
    world.clock.at_ms = world.clock.at_ms // SLOT_MS * SLOT_MS
    world.do(ChangeTopology(actor=OPERATOR, topology=SQUARE))
    world.do(ChangeTariff(actor=OPERATOR, tariff=TARIFF))
    return world


def order(net: World, gigabytes: float, minutes: int = 0, actor: Actor = ALICE, **more: Any) -> Any:
    asked = {name: more.pop(name) for name in ("project", "is_dry_run") if name in more}
    due_ms = net.clock.now_ms() + minutes * 60_000 if minutes else 0
    size = int(gigabytes * GB)
    made = TransferOrder(**{"source": "a", "target": "b", "size_bytes": size, "deadline_ms": due_ms, **more})
    return net.do(OrderTransfer(actor=actor, order=made, **asked))


def circuit(net: World, rate_bps: int = GBIT // 2, actor: Actor = ALICE, **more: Any) -> Any:
    asked = {name: more.pop(name) for name in ("project", "is_dry_run") if name in more}
    made = CircuitOrder(**{"a": "a", "b": "b", "rate_bps": rate_bps, **more})
    return net.do(OrderCircuit(actor=actor, order=made, **asked))


def refusal(act: Any) -> TielineError:
    with pytest.raises(TielineError) as caught:
        act()
    return caught.value


def codes(error: TielineError) -> list[str]:
    return [each.code for each in error.reasons]


def seen(net: World, subject: str, seq: int, actor: Actor = OPERATOR, ms: int = 60_000, **more: Any) -> Any:
    now_ms = net.clock.now_ms()
    receipt = Receipt(subject=subject, seq=seq, begun_ms=now_ms - ms, ended_ms=now_ms, **more)
    return net.do(TakeReceipt(actor=actor, receipt=receipt))


def usages(net: World) -> list[Usage]:
    lines = {e.usage.run: e.usage for e in net.events if isinstance(e, ReceiptStored) and e.usage is not None}
    return list(lines.values())


def test_a_transfer_is_admitted_moved_and_refused_with_the_bound(net: World) -> None:
    dry = order(net, 10, 10, is_dry_run=True)
    assert dry.is_dry_run
    assert not net.view.network.transfers
    first = order(net, 100, 60).transfer  # both ways could carry 900 GB in an hour
    assert first.price_micro_cny == 100 * 1_000
    assert first.arrives_ms <= first.order.deadline_ms
    assert first.state is TransferState.BOOKED
    error = refusal(lambda: order(net, 100, 5))
    assert (error.code, codes(error)) == ("not_admitted", ["transfer_physical"])
    assert error.reasons[0].values["most_bps"] == 2 * GBIT
    urgent = order(net, 70, 10)  # 150 GB fit into two slots of both ways: who has time makes way
    assert urgent.moved == (first.id,)
    assert net.view.network.transfers[first.id].arrives_ms <= first.order.deadline_ms
    error = refusal(lambda: order(net, 140, 10))
    assert codes(error) == ["transfer_no_room", "transfer_later"]
    assert error.reasons[1].values["late_us"] == 900_000_000
    assert codes(refusal(lambda: order(net, 1, 10, target="z"))) == ["network_unknown_end"]
    assert codes(refusal(lambda: order(net, 1, 10, target="a"))) == ["network_same_end"]
    assert codes(refusal(lambda: order(net, 1, 10, limit_micro_cny=999))) == ["transfer_price"]
    assert refusal(lambda: order(net, 1, 10, label="two\nlines")).code == "invalid_request"
    assert refusal(lambda: order(net, 1, 10, job="cn.demo/job/j-none")).code == "not_found"
    assert net.view.network.calendar_at(net.clock.now_ms()).is_kept()


def test_nothing_is_promised_without_a_topology(world: World) -> None:
    assert codes(refusal(lambda: order(world, 1, 10))) == ["network_none"]
    assert codes(refusal(lambda: circuit(world))) == ["network_none"]


def test_bookings_are_their_users_and_of_who_runs_the_network(net: World) -> None:
    mine, line = order(net, 1, 60).transfer, circuit(net).circuit
    assert refusal(lambda: net.do(CancelTransfer(actor=BOB, transfer=mine.id))).code == "not_found"
    assert refusal(lambda: net.do(CancelCircuit(actor=BOB, circuit=line.id))).code == "not_found"
    assert refusal(lambda: net.do(ResizeCircuit(actor=BOB, circuit=line.id, rate_bps=1))).code == "not_found"
    auditor = Actor(name="audrey", roles=(Role.AUDITOR,))
    assert refusal(lambda: net.do(CancelTransfer(actor=auditor, transfer=mine.id))).code == "forbidden"
    assert net.do(CancelTransfer(actor=ALICE, transfer=mine.id)).state is TransferState.CANCELLED
    assert net.do(CancelCircuit(actor=OPERATOR, circuit=line.id)).state is CircuitState.CANCELLED
    calendar = net.view.network.calendar_at(net.clock.now_ms())
    assert (calendar.free == calendar.capacity).all(), "all of it is given back"
    assert refusal(lambda: net.do(CancelTransfer(actor=ALICE, transfer=mine.id))).code == "not_found"


def test_a_transfer_is_billed_by_its_receipts_once_and_never_above_its_price(net: World) -> None:
    made = order(net, 10, 60).transfer
    net.clock.advance(60_000)
    net.do(Tick())
    assert net.view.network.transfers[made.id].state is TransferState.MOVING
    said = seen(net, made.id, 1, moved_bytes=4 * GB)
    assert (said.state, said.moved_bytes, said.charged_micro_cny) == ("moving", 4 * GB, 4_000)
    assert seen(net, made.id, 1, moved_bytes=9 * GB).is_known, "sent again"
    assert seen(net, made.id, 3, SITE, moved_bytes=3 * GB).charged_micro_cny == 7_000
    assert seen(net, made.id, 4, ALICE, moved_bytes=50 * GB).state == "arrived"
    (line,) = usages(net)
    assert (line.unit, line.charge_micro_cny, line.evidence) == ("transfer", made.price_micro_cny, "declared")
    assert verify_usage(line, {}) == ()
    forged = msgspec.structs.replace(line, charge_micro_cny=line.charge_micro_cny + 1)
    assert [each.code for each in verify_usage(forged, {})] == ["claim_sum"]
    (bill,) = bills_of([line], "user")
    assert (bill.party, bill.charge_micro_cny, bill.core_seconds) == ("alice", 10_000, 0)
    assert net.view.charged_micro_cny == 10_000
    assert refusal(lambda: seen(net, made.id, 5, moved_bytes=1)).code == "not_found", "it is over"


def test_only_who_saw_it_says_what_was_carried(net: World) -> None:
    made, line = order(net, 10, 60).transfer, circuit(net).circuit
    stranger = msgspec.structs.replace(SITE, name="cn.demo.lab8/site/gz2")
    assert refusal(lambda: seen(net, made.id, 1, BOB)).code == "not_found"
    assert refusal(lambda: seen(net, made.id, 1, stranger)).code == "not_found"
    assert refusal(lambda: seen(net, line.id, 1, ALICE)).code == "forbidden"
    assert refusal(lambda: seen(net, line.id, 1, SITE)).code == "not_found"
    late = {"begun_ms": 1, "ended_ms": net.clock.now_ms() + HOUR_MS}
    for times in (late, {"begun_ms": 2, "ended_ms": 1}, {"begun_ms": 0, "ended_ms": net.clock.now_ms()}):
        receipt = Receipt(subject=made.id, seq=1, **times)
        error = refusal(lambda receipt=receipt: net.do(TakeReceipt(actor=OPERATOR, receipt=receipt)))
        assert error.code == "invalid_request"
    net.clock.advance(2 * HOUR_MS)
    said = seen(net, made.id, 1, ALICE, moved_bytes=10 * GB)
    assert said.charged_micro_cny == made.price_micro_cny, "its own word makes nothing cheaper for being late"


def test_a_late_transfer_costs_less_where_the_network_says_so(net: World) -> None:
    made = order(net, 10, 10).transfer
    net.clock.advance(11 * 60_000)
    assert seen(net, made.id, 1, moved_bytes=10 * GB).charged_micro_cny == made.price_micro_cny // 2


def proven(net: World, subject: str, seq: int, path: tuple[str, ...] = ("ab",), **more: Any) -> Any:
    return seen(net, subject, seq, **{"is_path_proven": True, "path": path, "ms": HOUR_MS, **more})


def test_a_circuit_is_up_when_it_is_proven_and_billed_for_that_time(net: World) -> None:
    made = circuit(net, most_bps=GBIT).circuit
    assert (made.state, made.granted_bps, made.price_micro_cny_per_hour) == (CircuitState.ORDERED, GBIT, 3_000_000)
    net.clock.advance(60_000)
    said = seen(net, made.id, 1, goodput_bps=0)
    assert (said.state, said.charged_micro_cny) == ("down", 0)
    wrong = refusal(lambda: proven(net, made.id, 2, ("ac", "cb")))
    assert codes(wrong) == ["receipt_path"]
    net.clock.advance(HOUR_MS - 60_000)
    said = proven(net, made.id, 2, goodput_bps=98, computed_bps=100, probe_bytes=1_400)
    assert said.state == "up"
    assert said.charged_micro_cny == 3_000_000 * 59 // 60, "the minute before was told to be down"
    net.clock.advance(HOUR_MS)
    assert proven(net, made.id, 3, goodput_bps=50, computed_bps=100).state == "degraded"
    assert proven(net, made.id, 4, ms=1_000, probe_bytes=1_280).state == "degraded"
    charged = net.view.network.circuits[made.id].charged_micro_cny
    assert charged == 3_000_000 * 59 // 60 + 1_500_000
    net.clock.advance(24 * HOUR_MS)
    assert proven(net, made.id, 5).state == "up"
    lines = usages(net)
    assert [line.run for line in lines] == [f"{made.id}.1", f"{made.id}.2"]
    assert sum(line.charge_micro_cny for line in lines) == charged + 3_000_000 == net.view.charged_micro_cny
    assert all(verify_usage(line, {}) == () for line in lines)


def test_a_circuit_is_refused_with_the_bound_and_resized_in_place(net: World) -> None:
    assert codes(refusal(lambda: circuit(net, latency_us=900))) == ["circuit_physical"]
    assert codes(refusal(lambda: circuit(net, 3 * GBIT))) == ["circuit_no_room"]
    assert codes(refusal(lambda: circuit(net, limit_micro_cny_per_hour=1))) == ["circuit_price"]
    assert codes(refusal(lambda: circuit(net, diversity=Diversity.LINK, latency_us=2_000))) == ["circuit_no_spare"]
    assert refusal(lambda: circuit(net, 10, most_bps=5)).code == "invalid_request"
    made = circuit(net, diversity=Diversity.LINK).circuit
    assert made.spare is not None
    assert made.price_micro_cny_per_hour == 4_500_000
    more = net.do(ResizeCircuit(actor=ALICE, circuit=made.id, rate_bps=GBIT)).circuit
    assert (more.held_bps, more.price_micro_cny_per_hour) == (GBIT, 9_000_000)
    error = refusal(lambda: net.do(ResizeCircuit(actor=ALICE, circuit=made.id, rate_bps=2 * GBIT)))
    assert error.reasons[0].values == {"most_bps": GBIT, "asked_bps": 2 * GBIT}


def test_time_before_a_resize_is_charged_at_the_price_that_held_then(net: World) -> None:
    made = circuit(net).circuit

    def resized(rate_bps: int) -> None:
        net.do(ResizeCircuit(actor=ALICE, circuit=made.id, rate_bps=rate_bps))

    net.clock.advance(50 * 60_000)
    resized(1_000)  # a moment before what it carried is told
    net.clock.advance(10 * 60_000)
    resized(GBIT)
    said = proven(net, made.id, 1)
    assert said.charged_micro_cny == 3_000_000 * 50 // 60 + 1, "ten minutes of next to nothing"
    assert net.view.network.circuits[made.id].former == ()
    net.clock.advance(HOUR_MS)
    assert proven(net, made.id, 2).charged_micro_cny == said.charged_micro_cny + 6_000_000
    lines = usages(net)
    assert [line.price_micro_cny_per_unit_hour for line in lines] == [3_000_000, 6, 6_000_000]
    assert (
        sum(line.charge_micro_cny for line in lines) == net.view.charged_micro_cny == said.charged_micro_cny + 6_000_000
    )
    assert all(verify_usage(line, {}) == () for line in lines)
    for turn in range(40):
        net.clock.advance(60_000)
        resized(GBIT // 2 + turn % 2)
    assert len(net.view.network.circuits[made.id].former) == MOST_FORMER
    before = net.view.charged_micro_cny
    assert proven(net, made.id, 3, ms=40 * 60_000).charged_micro_cny - before <= 6_000_000 // 60 + 39 * 50_001
    assert net.view.network.circuits[made.id].former == ()


def test_what_moves_now_is_not_stopped_for_a_circuit_which_is_told_from_when_it_could_be(net: World) -> None:
    order(net, 200, 30)
    net.clock.advance(1_000)
    error = refusal(lambda: circuit(net, GBIT))
    assert codes(error) == ["circuit_no_room", "circuit_later"]
    assert error.reasons[1].values == {"wait_us": (SLOT_MS - 1_000) * 1_000}
    made = circuit(net, GBIT, from_ms=net.clock.now_ms() + SLOT_MS - 1_000)
    assert made.moved


def test_a_price_stays_what_it_was_when_the_tariff_changes(net: World) -> None:
    line, made = circuit(net).circuit, order(net, 10, 120).transfer
    peak = Hours(begin_s=0, end_s=86_400, permille=3_000)
    dear = msgspec.structs.replace(TARIFF, hours=(peak,), late_permille=0)
    net.do(ChangeTariff(actor=OPERATOR, tariff=dear, why="a hot summer"))
    net.clock.advance(HOUR_MS)
    assert proven(net, line.id, 1).charged_micro_cny == 3_000_000
    assert seen(net, made.id, 1, moved_bytes=10 * GB).charged_micro_cny == 10_000
    assert order(net, 10, 60).transfer.price_micro_cny == 30_000
    assert codes(refusal(lambda: circuit(net, GBIT // 1_000, limit_micro_cny_per_hour=10_000))) == ["circuit_price"]
    assert refusal(lambda: net.do(ChangeTariff(actor=ALICE, tariff=TARIFF))).code == "forbidden"
    flat = msgspec.structs.replace(TARIFF, hours=(Hours(begin_s=5, end_s=5, permille=1),))
    assert refusal(lambda: net.do(ChangeTariff(actor=OPERATOR, tariff=flat))).code == "invalid_request"


def test_a_cut_moves_what_it_can_and_says_at_once_who_is_short(net: World) -> None:
    line = circuit(net, diversity=Diversity.LINK, rate_bps=GBIT // 2).circuit
    net.clock.advance(60_000)
    assert proven(net, line.id, 1, ms=1_000).state == "up"
    big = order(net, 80, 15).transfer  # of 112.5 GB that are left both ways
    changed = net.do(ChangeLinks(actor=OPERATOR, down=("ab",)))
    assert changed.moved_circuits == (line.id,)
    (short,) = changed.short
    assert short.id == big.id
    assert 0 < short.short_bytes < 80 * GB
    now = net.view.network
    assert now.circuits[line.id].state is CircuitState.DEGRADED
    assert now.transfers[big.id].state is TransferState.SHORT
    assert now.transfers[big.id].arrives_ms > big.order.deadline_ms, "and when it will be there"
    assert now.calendar_at(net.clock.now_ms()).is_kept()


def test_time_begins_tops_and_ends_bookings(net: World) -> None:
    begin_ms = net.clock.now_ms()
    later = order(net, 1, 60, earliest_ms=begin_ms + 20 * 60_000).transfer
    best = order(net, 200_000).transfer  # more than a week of both ways
    assert best.arrives_ms == 0
    assert best.segments
    line = circuit(net, GBIT // 10, until_ms=begin_ms + HOUR_MS).circuit
    again = circuit(net, GBIT // 10, recurrence=Recurrence(period_s=86_400, begin_s=0, length_s=3_600)).circuit
    assert len(again.windows) >= 7
    net.do(Tick())
    assert net.view.network.transfers[later.id].state is TransferState.BOOKED
    net.clock.advance(21 * 60_000)
    net.do(Tick())
    assert net.view.network.transfers[later.id].state is TransferState.MOVING
    net.clock.advance(2 * HOUR_MS)
    net.do(Tick())
    ended = [e.transfer for e in net.events if isinstance(e, TransferChanged) and e.transfer.id == later.id][-1]
    assert (ended.state, ended.reasons[0].code) == (TransferState.FAILED, "transfer_unseen")
    over = [e.circuit for e in net.events if isinstance(e, CircuitChanged) and e.circuit.id == line.id][-1]
    assert over.state is CircuitState.ENDED
    before = sum(each.size_bytes for each in net.view.network.transfers[best.id].segments)
    for _ in range(3):
        net.clock.advance(24 * HOUR_MS)
        net.do(Tick())
        net.do(Tick())
    assert sum(each.size_bytes for each in net.view.network.transfers[best.id].segments) > before, "topped"
    assert net.view.network.circuits[again.id].windows[-1].until_ms > again.windows[-1].until_ms
    count = len(net.events)
    net.clock.advance(1_000)
    net.do(Tick())
    assert len(net.events) == count, "nothing is due"


def test_a_deadline_that_its_carrier_lets_pass_is_told_at_once_with_what_is_left(net: World) -> None:
    made = order(net, 10, 10).transfer
    kept = order(net, 1, 10).transfer
    part = order(net, 1_000, 10, is_partial_useful=True).transfer
    net.do(Tick())
    net.clock.advance(9 * 60_000)
    seen(net, made.id, 1, moved_bytes=4 * GB)
    seen(net, kept.id, 1, moved_bytes=GB)
    net.clock.advance(2 * 60_000 - 1)
    net.do(Tick())
    assert net.view.network.transfers[made.id].state is TransferState.MOVING, "its last receipt may be on its way"
    net.clock.advance(1)
    net.do(Tick())
    late = net.view.network.transfers[made.id]
    assert (late.state, late.short_bytes, late.segments) == (TransferState.SHORT, 6 * GB, made.segments)
    assert late.reasons[0].code == "transfer_late"
    assert late.reasons[0].values == {"left_bytes": 6 * GB, "asked_bytes": 10 * GB}
    assert net.view.network.transfers[part.id].reasons[0].values["left_bytes"] == part.priced_bytes
    count = len(net.events)
    for _ in range(5):
        net.clock.advance(SLOT_MS // 2)
        net.do(Tick())
    assert len(net.events) == count, "told once, and more than was admitted is not looked for"
    assert seen(net, made.id, 2, moved_bytes=6 * GB).state == "arrived"


def test_a_clock_that_goes_back_books_nothing_twice(net: World) -> None:
    made = order(net, 100, 60).transfer
    net.clock.advance(-10 * HOUR_MS)
    net.do(Tick())
    again = order(net, 100, 60, deadline_ms=made.order.deadline_ms).transfer
    assert min(each.from_ms for each in again.segments) >= made.booked_ms
    assert net.view.network.calendar_at(net.clock.now_ms()).is_kept()


def test_a_night_books_what_was_planned_where_it_still_fits(net: World) -> None:
    from tieline.network.night import planned_segments

    due_ms = net.clock.now_ms() + 20 * 60_000
    orders = tuple(
        TransferOrder(source="a", target=target, size_bytes=gigabytes * GB, deadline_ms=due_ms)
        for target, gigabytes in (("b", 60), ("b", 60), ("b", 290), ("c", 20))
    )
    calendar = net.do(LookAtCalendar(actor=ALICE))
    plan = planned_segments(calendar, orders, net.clock.now_ms())
    assert plan.segments
    order(net, 30, 10, actor=BOB)  # meanwhile
    book = BookNight(actor=ALICE, orders=orders, planned=plan.segments, bound_bytes=plan.bound_bytes)
    count = len(net.events)
    dry = net.do(msgspec.structs.replace(book, is_dry_run=True))
    assert len(net.events) == count
    made = net.do(book)
    assert [each.order for each in made.transfers] == [each.order for each in dry.transfers]
    assert made.carried_bytes == sum(each.order.size_bytes for each in made.transfers) <= made.bound_bytes
    assert len(made.transfers) + len(made.left_out) == 4
    assert made.left_out
    assert all(each.reasons for each in made.left_out)
    assert net.view.network.calendar_at(net.clock.now_ms()).is_kept()


def test_a_night_whose_plan_is_out_of_date_holds_nobody_up(net: World) -> None:
    from tieline.network.night import planned_segments

    due_ms = net.clock.now_ms() + 20 * 60_000
    orders = tuple(
        TransferOrder(source="a", target="b", size_bytes=GB // 10, deadline_ms=due_ms, label=f"{at}")
        for at in range(60)
    )
    plan = planned_segments(net.do(LookAtCalendar(actor=ALICE)), orders, net.clock.now_ms())
    assert len(plan.segments) == len(orders)
    order(net, 299, 20, actor=BOB)
    book = BookNight(actor=ALICE, orders=orders, planned=plan.segments, bound_bytes=plan.bound_bytes)
    count = len(net.events)
    assert refusal(lambda: net.do(book)).code == "overloaded"
    assert len(net.events) == count


def test_a_project_pays_within_its_month(net: World) -> None:
    quota = Quota(micro_cny=25_000)
    net.do(ChangeProject(actor=ADMIN, project="vision", what="create", quota=quota))
    net.do(ChangeProject(actor=ADMIN, project="vision", what="members", put=(member("alice"),)))
    made = order(net, 10, 60).transfer
    assert made.project == "vision"
    assert codes(refusal(lambda: order(net, 20, 60))) == ["quota_money"], "10,000 are booked"
    seen(net, made.id, 1, moved_bytes=10 * GB)
    (spent,) = [each for (who, _), each in net.view.spent.items() if who == "vision"]
    assert spent.charge_micro_cny == 10_000
    assert codes(refusal(lambda: circuit(net, GBIT))) == ["quota_money"]


def test_a_project_pays_an_hour_of_every_circuit_that_it_orders(net: World) -> None:
    net.do(ChangeProject(actor=ADMIN, project="vision", what="create", quota=Quota(micro_cny=1_500_000)))
    net.do(ChangeProject(actor=ADMIN, project="vision", what="members", put=(member("alice"),)))
    first = circuit(net, GBIT // 8).circuit
    assert first.price_micro_cny_per_hour == 750_000
    net.do(ResizeCircuit(actor=ALICE, circuit=first.id, rate_bps=GBIT // 4))
    assert codes(refusal(lambda: circuit(net, GBIT // 8))) == ["quota_money"]
    assert codes(refusal(lambda: order(net, 1, 60))) == ["quota_money"]
    net.do(CancelCircuit(actor=ALICE, circuit=first.id))
    assert circuit(net, GBIT // 4).circuit.price_micro_cny_per_hour == 1_500_000


def member(name: str) -> Any:
    from tieline.model.project import Member

    return Member(name=name)


def test_the_calendar_shows_what_is_free_and_booked(net: World) -> None:
    circuit(net, GBIT // 4)
    order(net, 37.5, 10)
    shown = net.do(ReadCalendar(actor=BOB, link="ab", columns=4))
    there, back = shown.links
    assert (there.a, there.b, back.a) == ("a", "b", "b")
    assert there.circuit_bps == (GBIT // 4,) * 4
    assert there.transfer_bps[0] == 3 * GBIT // 4
    assert there.free_bps[0] == 0 < back.free_bps[0]
    day = net.do(ReadCalendar(actor=BOB, until_ms=net.clock.now_ms() + 24 * HOUR_MS, columns=24))
    assert (day.column_ms, len(day.links), len(day.links[0].free_bps)) == (HOUR_MS, 6, 24)
    assert refusal(lambda: net.do(ReadCalendar(actor=BOB, link="zz"))).code == "not_found"
    assert refusal(lambda: net.do(ReadCalendar(actor=BOB, until_ms=1))).code == "invalid_request"
    assert refusal(lambda: net.do(ReadCalendar(actor=BOB, from_ms=2**50))).code == "invalid_request"


def test_a_restart_finds_the_same_bookings(net: World) -> None:
    line, made = circuit(net, diversity=Diversity.LINK).circuit, order(net, 10, 60).transfer
    seen(net, made.id, 1, moved_bytes=GB, evidence=Evidence.EMULATED)
    tables: dict[str, dict[str, Any]] = {}
    for table, key, row in rows(net.view):
        tables.setdefault(table, {})[key] = row
    again = View(net.keys)
    load(again, {table: list(kept.values()) for table, kept in tables.items()}, net.clock.now_ms())
    assert again.network.transfers == net.view.network.transfers
    assert again.network.circuits == {line.id: net.view.network.circuits[line.id]}
    assert again.charged_micro_cny == net.view.charged_micro_cny == 1_000
    now_ms = net.clock.now_ms()
    here, there = net.view.network.calendar_at(now_ms), again.network.calendar_at(now_ms)
    assert (here.free == there.free).all()
