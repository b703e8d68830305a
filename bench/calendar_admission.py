"""Admission of transfers with deadlines: online and in a batch, beside greedy and the clairvoyant bound.

All cases are synthetic (`calendar_world`); a row is the median of three seeds, and its note has each of them. *Greedy*
is arrival order, earliest slot, the same paths, whole or nothing. The *bound* knows all orders beforehand, may carry
parts, and is proven for all paths. Volume and the share of orders that are completed are both shown, since either can
be bought with the other. The time of a decision is taken in the use-case and through the writer, its commit included.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np

from bench.calendar_world import World, world
from bench.row import Row
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.bookings import CancelTransfer, OrderTransfer
from tieline.exchange.commands import ChangeTopology, CreateExchange
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.placing import schedule
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.party import SYSTEM
from tieline.model.transfer import TransferOrder
from tieline.network.admit import Admitted, admitted
from tieline.network.fill import Room, filled, undone
from tieline.network.night import planned
from tieline.network.slots import SLOT_MS
from tieline.ports import FakeClock, FakeIds
from tieline.registry import Key

CASES = ((12, 15, 24, 100), (22, 35, 24, 300), (22, 35, 96, 500), (50, 90, 48, 500))
SEEDS = (11, 12, 13)  # none of them was looked at while the engine was made
ACTIVE = 500
MEASURED = 300


class Seen(NamedTuple):
    """What one way of admitting made of a case."""

    volume_bytes: int
    share: float
    seconds: np.ndarray  # of each decision


def free(*_: object) -> int:
    return 0


def online(case: World) -> Seen:
    """Each order when it comes; what was booked is put into the calendar."""
    calendar, volume, count, seconds = case.calendar, 0, 0, []
    for number, order in enumerate(case.orders):
        calendar.now_ms = max(calendar.now_ms, order.earliest_ms)
        began = perf_counter()
        answer = admitted(calendar, order, name=f"t{number}", user="u", now_ms=order.earliest_ms, price_of=free)
        seconds.append(perf_counter() - began)
        if isinstance(answer, Admitted):
            volume, count = volume + order.size_bytes, count + 1
            for transfer in (answer.transfer, *answer.moved):
                calendar.put_transfer(transfer)
    if not calendar.is_kept():
        raise AssertionError("a slot is oversubscribed")
    for laid in calendar.transfers.values():
        asked = laid.transfer.order
        in_time = [each for each in laid.transfer.segments if each.until_ms <= asked.deadline_ms]
        if sum(each.size_bytes for each in in_time) < asked.size_bytes:
            raise AssertionError(f"{laid.transfer.id} would be late")
    return Seen(volume, count / len(case.orders), np.array(seconds))


def greedy(case: World) -> Seen:
    """The anchor: arrival order, earliest slot, nothing is ever moved."""
    calendar, volume, count = case.calendar, 0, 0
    room = Room(calendar.free[:, :-1].copy(), calendar.grid.first, calendar.grid)
    for order in case.orders:
        ends = calendar.wires.node[order.source], calendar.wires.node[order.target]
        paths = calendar.ways.between(*ends)
        done = filled(room, paths, order.size_bytes, order.earliest_ms, order.deadline_ms)
        if done.left_bytes:
            undone(room, done)
        else:
            volume, count = volume + order.size_bytes, count + 1
    return Seen(volume, count / len(case.orders), np.zeros(0))


class Crowd(NamedTuple):
    """Seconds of each decision while `ACTIVE` are live, those that are refused included."""

    wall: np.ndarray
    cpu: np.ndarray  # of the whole process
    through: np.ndarray  # wall, by the writer: queue, decision, commit


def crowded(folder: Path) -> Crowd:
    """Orders of a running exchange: its view, its store, its writer; the calendar has its usual week of slots."""
    clock = FakeClock(at_ms=1_763_000_000_000 // SLOT_MS * SLOT_MS)
    keys = ExchangeKeys(Key(b"k" * 32), "cn.demo")
    store = Store(f"sqlite:///{folder}/tieline.db").open()
    writer: Writer[View] = Writer(
        store, lambda: View(keys), decide, schedule, rows, load, clock, FakeIds(7), tick_ms=0
    ).start()
    case = world(50, 90, 288, 6_000, 7, overload=3.0)
    first = CreateExchange(
        id="cn.demo/exchange/main", prefix="cn.demo", public=keys.key.public, admin_token_sha256="0" * 64
    )
    writer.submit(first).result(60)
    writer.submit(ChangeTopology(actor=SYSTEM, topology=case.calendar.wires.topology)).result(60)
    view, found = writer.view, Crowd(np.zeros(MEASURED), np.zeros(MEASURED), np.zeros(MEASURED))
    at = 0
    for order in case.orders:
        # All of them come at once, each with its whole window before it.
        due_ms = clock.at_ms + order.deadline_ms - order.earliest_ms
        size = order.size_bytes // 4 + 1
        asked = TransferOrder(source=order.source, target=order.target, size_bytes=size, deadline_ms=due_ms)
        command = OrderTransfer(actor=SYSTEM, order=asked)
        if len(view.network.transfers) < ACTIVE:
            _answered(writer, command)
            continue
        began, busy = perf_counter(), process_time()
        with suppress(TielineError):
            decide(view, command, clock.at_ms, FakeIds(at))
        found.wall[at], found.cpu[at] = perf_counter() - began, process_time() - busy
        began = perf_counter()
        made = _answered(writer, command)
        found.through[at] = perf_counter() - began
        if made is not None:
            writer.submit(CancelTransfer(actor=SYSTEM, transfer=made)).result(60)
        at += 1
        if at >= MEASURED:
            break
    live = len(view.network.transfers)
    assert writer.close()
    store.close()
    if live < ACTIVE or at < MEASURED:
        raise AssertionError(f"{live} transfers are live, {ACTIVE} were meant; {at} decisions of {MEASURED}")
    return found


def _answered(writer: Writer[View], command: OrderTransfer) -> str | None:
    """The name of what was booked; None: it was refused."""
    try:
        return str(writer.submit(command).result(60).transfer.id)
    except TielineError as error:
        if error.code != "not_admitted":
            raise
        return None


class Tried(NamedTuple):
    """One case with one seed, every way."""

    seed: int
    online: Seen
    greedy: Seen
    batch_bytes: int
    batch_share: float
    bound_bytes: float
    partial_bytes: int
    partial_bound_bytes: float


def tried(shape: tuple[int, int, int, int], seed: int) -> Tried:
    """All ways of one case."""
    case = (*shape, seed)
    first = world(*case)
    night = planned(first.calendar, first.orders, 0)
    part = planned(first.calendar, first.orders, 0, is_partial=True)
    live, plain = online(world(*case)), greedy(world(*case))
    share = len(night.whole) / shape[-1]
    return Tried(seed, live, plain, night.carried_bytes, share, night.bound_bytes, part.carried_bytes, part.bound_bytes)


def run() -> list[Row]:
    """The rows of all cases."""
    found = []
    for shape in CASES:
        nodes, _, slots, count = shape
        name = f"{nodes} nodes, {slots} slots, {count} transfers"
        seen = [tried(shape, seed) for seed in SEEDS]
        found += [
            _row(
                f"{name}: online", seen, lambda each: each.online.volume_bytes / each.batch_bytes, "own batch", "0.90"
            ),
            _row(
                f"{name}: online",
                seen,
                lambda each: each.online.volume_bytes / each.bound_bytes,
                "bound",
                "0.80 (stretch)",
            ),
            _row(
                f"{name}: online",
                seen,
                lambda each: each.online.volume_bytes / each.greedy.volume_bytes,
                "greedy",
                "above 1",
            ),
            _row(
                f"{name}: online, completed",
                seen,
                lambda each: each.online.share / each.greedy.share,
                "greedy",
                "above 1",
            ),
            _row(f"{name}: batch", seen, lambda each: each.batch_bytes / each.bound_bytes, "bound", "0.88"),
            _row(
                f"{name}: batch, partial",
                seen,
                lambda each: each.partial_bytes / each.partial_bound_bytes,
                "bound",
                "0.97",
            ),
        ]
    with TemporaryDirectory() as folder:
        crowd = crowded(Path(folder))
    wall, cpu, through = (np.percentile(each, 99) * 1_000 for each in crowd)
    note = f"CPU p99 {cpu:.1f} ms, p50 {np.median(crowd.wall) * 1_000:.2f} ms; 50 nodes, a week of slots"
    found.append(Row(claim=f"decision p99, {ACTIVE} live", figure=float(wall), unit="ms", target="20 ms", note=note))
    middle, most = np.median(crowd.through) * 1_000, crowd.through.max() * 1_000
    note = f"p50 {middle:.2f} ms, most {most:.1f} ms; queue and commit included"
    claim = f"order through the writer p99, {ACTIVE} live"
    found.append(Row(claim=claim, figure=float(through), unit="ms", target="20 ms", note=note))
    return found


def _row(claim: str, seen: list[Tried], ratio_of: Callable[[Tried], float], anchor: str, target: str) -> Row:
    """The median of the seeds; the note has them all."""
    ratios = [ratio_of(each) for each in seen]
    note = ", ".join(f"seed {each.seed} {ratio:.3f}" for each, ratio in zip(seen, ratios, strict=True))
    figure = float(np.median(ratios))
    return Row(claim=f"{claim} / {anchor}", figure=figure, unit="of it", ratio=figure, target=target, note=note)
