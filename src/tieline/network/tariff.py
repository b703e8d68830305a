"""Tariff: what bytes and rates cost, and what is charged of it.

A transfer is priced by bytes and class, hour by hour; a circuit by rate and hour. Hours of the day have factors (a
discount at night, a *shared window* in which several buy what is idle at a lower factor); every link of a path adds
its own price. A price is fixed when something is booked and never grows: being laid elsewhere is the network's
affair.

Charges follow receipts: bytes that arrived, hours in which the path was proven and the rate was there. What was
booked and not carried is not charged, and no charge passes the booked price. Money is whole micro CNY; what rounding
leaves is charged with the next receipt, so the sum of charges is the same however the receipts were cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from tieline.model.circuit import Circuit, CircuitOrder, Diversity, Receipt
from tieline.model.tariff import Tariff
from tieline.model.transfer import Segment, TrafficClass, Transfer, TransferOrder
from tieline.network.slots import Wires

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
GB: Final = 10**9
GBPS: Final = 10**9
WHOLE: Final = 1_000  # permille
FULL_PERMILLE: Final = 970  # a circuit that carries so much of what it can is charged as whole


def transfer_price(tariff: Tariff, wires: Wires, order: TransferOrder, segments: Sequence[Segment]) -> int:
    """Micro CNY for the bytes of these segments; what is not booked yet costs the plain price."""
    kind = TrafficClass.DEADLINE if order.deadline_ms else TrafficClass.BEST_EFFORT
    plain = tariff.deadline_micro_cny_per_gb if order.deadline_ms else tariff.best_effort_micro_cny_per_gb
    total, booked = 0, 0
    for segment in segments:
        unit = plain + sum(wires.topology.links[wires.link[name]].price_micro_cny_per_gb for name in segment.path)
        for begin_ms, end_ms, permille in _hours(tariff, kind, segment.from_ms, segment.until_ms):
            total += segment.rate_bps * (end_ms - begin_ms) * unit * permille
        booked += segment.size_bytes
    if not order.deadline_ms:
        total += max(0, order.size_bytes - booked) * 8_000 * plain * WHOLE
    return -(-total // (8_000 * GB * WHOLE))


def circuit_price(tariff: Tariff, order: CircuitOrder) -> int:
    """Micro CNY for an hour of the least rate, at the plain hour; a spare route costs its share."""
    share = WHOLE if order.diversity is Diversity.NONE else WHOLE + tariff.spare_permille
    total = order.rate_bps * tariff.circuit_micro_cny_per_gbps_hour * share
    return -(-total // (GBPS * WHOLE))


def transfer_charge(tariff: Tariff, transfer: Transfer, receipts: Iterable[Receipt]) -> int:
    """Micro CNY for everything that arrived by these receipts, in all; late bytes at their share of the price."""
    size, due_ms = transfer.order.size_bytes, transfer.order.deadline_ms
    moved, worth = 0, 0
    for receipt in _once(receipts):
        more = min(max(receipt.moved_bytes, 0), size - moved)
        moved += more
        is_late = bool(due_ms) and receipt.ended_ms > due_ms
        worth += more * (tariff.late_permille if is_late else WHOLE)
    return min(transfer.price_micro_cny, transfer.price_micro_cny * worth // (size * WHOLE))


def circuit_charge(tariff: Tariff, circuit: Circuit, receipts: Iterable[Receipt]) -> int:
    """Micro CNY for the time that these receipts cover, in all.

    Only time in its windows whose path was proven counts, and where less was carried than could be, that share.
    """
    worth, upto_ms = 0, 0
    for receipt in sorted(_once(receipts), key=lambda each: (each.begun_ms, each.seq)):
        begin_ms, upto_ms = max(receipt.begun_ms, upto_ms), max(receipt.ended_ms, upto_ms)
        if not receipt.is_path_proven or begin_ms >= receipt.ended_ms:
            continue
        permille = WHOLE
        if receipt.computed_bps and receipt.goodput_bps * WHOLE < receipt.computed_bps * FULL_PERMILLE:
            permille = receipt.goodput_bps * WHOLE // receipt.computed_bps
        for window in circuit.windows:
            low, high = max(begin_ms, window.from_ms), min(receipt.ended_ms, window.until_ms)
            if low < high:
                hours = _hours(tariff, TrafficClass.PROTECTED, low, high)
                worth += sum((end - begin) * factor for begin, end, factor in hours) * permille
    return circuit.price_micro_cny_per_hour * worth // (HOUR_MS * WHOLE * WHOLE)


def charged(thing: Transfer | Circuit, total_micro_cny: int) -> tuple[Transfer | Circuit, int]:
    """The thing with this total, and what is new of it; a total never shrinks."""
    total = max(total_micro_cny, thing.charged_micro_cny)
    return msgspec.structs.replace(thing, charged_micro_cny=total), total - thing.charged_micro_cny


def _once(receipts: Iterable[Receipt]) -> list[Receipt]:
    """Each number once, the first of it: a receipt that is sent again is not paid again."""
    seen: dict[int, Receipt] = {}
    for receipt in receipts:
        seen.setdefault(receipt.seq, receipt)
    return list(seen.values())


def _hours(tariff: Tariff, kind: TrafficClass, from_ms: int, until_ms: int) -> list[tuple[int, int, int]]:
    """A span cut where a factor changes: from, until, permille. Of several hours that hold the lowest counts."""
    mine = [hour for hour in tariff.hours if not hour.classes or kind in hour.classes]
    shift = tariff.utc_offset_s * 1_000
    edges = {from_ms, until_ms}
    for day in range((from_ms + shift) // DAY_MS, (until_ms + shift) // DAY_MS + 1):
        midnight = day * DAY_MS - shift
        edges |= {midnight + at * 1_000 for hour in mine for at in (hour.begin_s, hour.end_s)}
    cuts = sorted(edge for edge in edges if from_ms <= edge <= until_ms)
    return [
        (low, high, min((h.permille for h in mine if _holds(h.begin_s, h.end_s, low + shift)), default=WHOLE))
        for low, high in pairwise(cuts)
    ]


def _holds(begin_s: int, end_s: int, local_ms: int) -> bool:
    at = local_ms % DAY_MS
    if begin_s <= end_s:
        return begin_s * 1_000 <= at < end_s * 1_000
    return at >= begin_s * 1_000 or at < end_s * 1_000
