"""Admission of transfers with deadlines: online and in a batch, beside greedy and the clairvoyant bound.

All cases are synthetic (`calendar_world`), every seed is in the row's name. *Greedy* is arrival order, earliest slot,
the same paths, whole or nothing. The *bound* knows all orders beforehand, may carry parts, and is proven for all
paths. Volume and the share of orders that are completed are both shown, since either can be bought with the other.
"""

from __future__ import annotations

from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np

from bench.calendar_world import World, world
from bench.row import Row
from tieline.model.transfer import TransferOrder
from tieline.network.admit import Admitted, admitted
from tieline.network.calendar import Calendar
from tieline.network.fill import Room, filled, undone
from tieline.network.night import planned

CASES = ((12, 15, 24, 100, 3), (22, 35, 24, 300, 4), (22, 35, 96, 500, 4), (50, 90, 48, 500, 5))
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


def crowded() -> tuple[np.ndarray, np.ndarray]:
    """Wall and CPU seconds of each decision while `ACTIVE` are live, those that are refused included."""
    case = world(50, 90, 288, 6_000, 7, overload=3.0)
    calendar: Calendar = case.calendar
    seconds: list[float] = []
    cpu: list[float] = []
    for number, order in enumerate(case.orders):
        # All of them come at once, each with its whole window before it.
        span_ms = order.deadline_ms - order.earliest_ms
        small = TransferOrder(
            source=order.source, target=order.target, size_bytes=order.size_bytes // 4 + 1, deadline_ms=span_ms
        )
        is_measured = len(calendar.transfers) >= ACTIVE
        began, busy = perf_counter(), process_time()
        answer = admitted(calendar, small, name=f"t{number}", user="u", now_ms=0, price_of=free)
        if is_measured:
            seconds.append(perf_counter() - began)
            cpu.append(process_time() - busy)
        elif isinstance(answer, Admitted):
            for transfer in (answer.transfer, *answer.moved):
                calendar.put_transfer(transfer)
        if len(seconds) >= MEASURED:
            break
    if len(calendar.transfers) < ACTIVE:
        raise AssertionError(f"{len(calendar.transfers)} transfers are live, {ACTIVE} were meant")
    return np.array(seconds), np.array(cpu)


def run() -> list[Row]:
    """The rows of all cases."""
    rows = []
    for nodes, links, slots, count, seed in CASES:
        case = (nodes, links, slots, count, seed)
        name = f"{nodes} nodes, {slots} slots, {count} transfers, seed {seed}"
        first = world(*case)
        night = planned(first.calendar, first.orders, 0)
        part = planned(first.calendar, first.orders, 0, is_partial=True)
        plain, live = greedy(world(*case)), online(world(*case))
        share = len(night.whole) / count
        rows += [
            _row(
                f"{name}: online",
                live.volume_bytes,
                night.carried_bytes,
                "own batch",
                "0.90",
                f"{live.share:.2f} complete",
            ),
            _row(f"{name}: online", live.volume_bytes, night.bound_bytes, "bound", "0.80 (stretch)", ""),
            _row(
                f"{name}: online",
                live.volume_bytes,
                plain.volume_bytes,
                "greedy",
                "above 1",
                f"{plain.share:.2f} complete",
            ),
            _row(f"{name}: online, completed", live.share, plain.share, "greedy", "above 1", "", unit="of all"),
            _row(f"{name}: batch", night.carried_bytes, night.bound_bytes, "bound", "0.88", f"{share:.2f} complete"),
            _row(f"{name}: batch, partial", part.carried_bytes, part.bound_bytes, "bound", "0.97", ""),
            Row(
                claim=f"{name}: decision p99",
                figure=float(np.percentile(live.seconds, 99)) * 1_000,
                unit="ms",
                target="20 ms",
                note=f"p50 {np.median(live.seconds) * 1_000:.2f} ms",
            ),
        ]
    seconds, cpu = crowded()
    busy = f"CPU p99 {np.percentile(cpu, 99) * 1_000:.1f} ms"
    note = f"{busy}, p50 {np.median(seconds) * 1_000:.2f} ms, most {seconds.max() * 1_000:.1f} ms; 50 nodes, 288 slots"
    figure = float(np.percentile(seconds, 99)) * 1_000
    rows.append(Row(claim=f"decision p99, {ACTIVE} live", figure=figure, unit="ms", target="20 ms", note=note))
    return rows


def _row(claim: str, figure: float, anchor: float, name: str, target: str, note: str, unit: str = "GB") -> Row:
    scale = 1e9 if unit == "GB" else 1.0
    return Row(
        claim=claim,
        figure=figure / scale,
        unit=unit,
        anchor=anchor / scale,
        anchor_name=name,
        ratio=figure / anchor,
        target=target,
        note=note,
    )
